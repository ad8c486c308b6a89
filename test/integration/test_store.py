"""Whose the bytes of a store are, and what of them is needless: it adds up to what du says, and gc tells the truth."""
import concurrent.futures
import os
import re
import shutil
import subprocess
import threading

import pytest

import harness as h
from api import assert_used

ROUTES = ("/bough/store/usage", "/bough/store/gc")


@pytest.fixture(name="p")
def fixture_p(server):
    p = server.project("p")
    p.sql("main", "CREATE TABLE t AS SELECT g AS id, repeat(md5(g::text), 4) AS fill FROM generate_series(1, 40000) g")
    return p


def du(server):
    """What du says; not looked at while something is being removed."""
    return int(subprocess.run(["du", "-s", "--block-size=1", server.store], check=True,
                              capture_output=True, text=True, timeout=60).stdout.split()[0])


def adds_up(server):
    """Usage, once it agrees with du within 1 %: both walk a store that lives."""
    seen = []

    def agrees():
        usage, said = server.json("store", "usage"), du(server)
        parts = sum(usage[k] for k in ("own_bytes", "history_bytes", "shared_bytes", "needless_bytes",
                                       "trash_bytes", "other_bytes"))
        assert parts == usage["total_bytes"]
        for kind in ("own_bytes", "history_bytes"):
            assert sum(b[kind] for b in usage["branches"]) == usage[kind]
        seen[:] = [usage, said]
        return abs(parts - said) <= said / 100

    h.wait_for(agrees, "the bytes add up")
    return seen[0]


def by_name(usage):
    return {b["name"]: b for b in usage["branches"]}


def test_the_bytes_of_branches_points_snapshots_and_deleted_ones_add_up_to_what_du_says(p):
    p.bough("project", "update", p.name, "--history-retention", "1d")
    p.branch("a")
    p.branch("b", parent="a")
    p.sql("a", "UPDATE t SET fill = repeat(md5(fill), 4)")
    p.sql("main", "DELETE FROM t WHERE id % 3 = 0")
    p.bough("snapshot", "create", "a", "--name", "kept")
    p.branch("c", parent="a")
    p.branch("gone", parent="main")
    p.sql("gone", "INSERT INTO t SELECT g, repeat(md5(g::text), 4) FROM generate_series(1, 60000) g")
    p.delete("gone")
    p.suspend("b")
    usage = adds_up(p.server)
    names = by_name(usage)
    assert names["kept"]["kind"] == "snapshot" and names["gone"]["kind"] == "deleted"
    assert names["gone"]["own_bytes"] > 8 << 20 > names["b"]["own_bytes"]
    assert usage["shared_bytes"] > 4 << 20
    p.purge("c")
    p.purge("gone")
    p.suspend("main")
    p.suspend("a")
    after = adds_up(p.server)
    assert {b["name"] for b in after["branches"] if b["kind"] != "template"} == {"main", "a", "b", "kept"}
    assert after["trash_bytes"] < 1 << 20


def test_what_one_branch_is_said_to_need_is_what_the_store_has_of_it(p):
    """The quick form looks at one branch; also at a layer that merging has left to its restore points alone."""
    p.bough("project", "update", p.name, "--history-retention", "1d")
    p.branch("b")
    p.purge("b")
    p.suspend()
    store, group = p.server.store, p.get()["id"]
    with open(f"{store}/branches/{group}/stack", encoding="ascii") as f:
        top = next(line.strip() for line in f if line.startswith(f"{group}/"))
    point = sorted(n for n in os.listdir(f"{store}/branches/{group}/points") if "~" not in n)[-1]
    path = f"{store}/branches/{group}/points/{point}/stack"
    with open(path, encoding="ascii") as f:
        lines = f.read().split("\n")
    lines.insert(1, f"{group}/00000999")
    with h.server_user():
        with open(f"{path}.new", "w", encoding="ascii") as f:
            f.write("\n".join(lines))
        shutil.copytree(f"{store}/layers/{top}", f"{store}/layers/{group}/00000999", symlinks=True,
                        copy_function=shutil.copy)  # a symbolic link says that a file is gone
        os.rename(f"{path}.new", path)
    with p.connect() as c:
        c.run("UPDATE t SET fill = '' WHERE id = 1")
    p.suspend()  # it is measured again
    whole, one = by_name(adds_up(p.server))["main"], p.get()
    assert one["history_bytes"] > 4 << 20
    assert re.search(r"^history +.+, since 20", p.bough("branch", "get", "main").stdout, re.M)
    for kind in ("own_bytes", "history_bytes"):
        assert abs(one[kind] - whole[kind]) < whole[kind] / 20, (one, whole)


def layers(plan, going):
    return [x for x in plan["layers"] if x["goes"] == going]


def test_a_dry_run_names_what_each_layer_stays_for_and_removes_nothing(p):
    p.bough("project", "update", p.name, "--history-retention", "1d")
    p.branch("a")
    p.sql("a", "UPDATE t SET fill = fill")
    p.bough("snapshot", "create", "a", "--name", "kept")
    plan = p.server.json("store", "gc", "--dry-run")
    assert {n["kind"] for x in plan["layers"] for n in x["named_by"]} == {"branch", "snapshot", "template"}, plan
    assert plan["layers"] and not layers(plan, going=True) and plan["layer_bytes"] == 0
    by_main = [x for x in plan["layers"] for n in x["named_by"] if n["name"] == "main" and n["stands_on_it"]]
    assert len(by_main) == p.get("main")["depth"]
    text = p.server.bough("store", "gc", "--dry-run").stdout
    assert "snapshot" in text and "restore point" in text and "Would remove 0 layers" in text, text
    assert p.server.json("store", "gc", "--dry-run")["layers"] == plan["layers"]


def test_gc_removes_what_the_dry_run_said(p):
    """As a server that was killed may leave it."""
    server, group = p.server, p.get()["id"]
    layer = f"{server.store}/layers/{group}/00009999"
    with h.server_user():
        os.makedirs(f"{layer}/data")
        with open(f"{layer}/data/x", "wb") as f:
            f.write(os.urandom(3 << 20))
    plan = server.json("store", "gc", "--dry-run")
    going = layers(plan, going=True)
    if going:  # the server's own round has not come first
        assert [x["layer"] for x in going] == [f"{group}/00009999"]
        assert going[0]["bytes"] >= 3 << 20 and going[0]["named_by"] == []
        assert plan["layer_bytes"] == going[0]["bytes"]
    done = server.json("store", "gc")
    assert not os.path.exists(layer) and (not going or done["bytes_before"] - done["bytes_after"] > 2 << 20)
    after = server.json("store", "gc", "--dry-run")
    assert not layers(after, going=True) and after["trash_bytes"] < 1 << 20
    assert p.one("main", "SELECT count(*) FROM t") == 40000


def test_what_is_being_made_is_not_taken_for_needless(server):
    """A first layer has nobody else's stack to be in."""
    ended = threading.Event()

    def collect():
        while not ended.is_set():
            server.bough("store", "gc")

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        busy = pool.submit(collect)
        try:
            projects = [server.project(f"p{i}") for i in range(h.times(2, 20))]
            for p in projects:
                p.sql("main", "CREATE TABLE t AS SELECT g AS id FROM generate_series(1, 1000) g")
                p.branch("b")
        finally:
            ended.set()
        busy.result(60)
    for p in projects:
        assert p.one("b", "SELECT count(*) FROM t") == 1000


def test_the_answers_are_as_specified(api, shop):
    shop.branch("b")
    usage = api("GET", "/bough/store/usage")
    assert {b["name"] for b in usage["branches"] if b.get("project_id") == shop.id} >= {"main", "b"}
    assert api("GET", "/bough/store/gc")["layers"]
    assert api("POST", "/bough/store/gc", {})["busy_branches"] >= 0


def test_every_route_of_this_file_was_used(request):
    assert_used(request)
