"""Expiry, deletion, recovery, protection. The server's clocks are a file of the test's, so nothing sleeps."""
import concurrent.futures
import contextlib
import os
import random
import re
import signal
import sqlite3
import stat

import psycopg2
import pytest

import harness as h
from test_kill import assert_nothing_left, kill_within

pytestmark = pytest.mark.slow

HOUR = 3600
DAY = 24 * HOUR
START = 1_800_000_000  # 2027-01-15T08:00:00Z
BOOTED = 1000


class Clock:
    """What the server takes for the machine's clocks. Seconds."""

    def __init__(self, directory):
        self.path = os.path.join(directory, "clock")
        self.wall, self.boot, self.boot_id, self.synchronised = START, BOOTED, "boot-1", 0
        self.write()

    def write(self):
        with open(self.path + ".new", "w", encoding="ascii") as f:
            f.write(f"{self.wall * 1000} {self.boot * 1000} {self.boot_id} {self.synchronised}\n")
        os.chmod(self.path + ".new", 0o644)
        os.rename(self.path + ".new", self.path)

    def wrapper(self, options=""):
        """A boughd that reads it."""
        path = self.path + "-boughd"
        with open(path, "w", encoding="ascii") as f:
            f.write(f'#!/bin/sh\nexec "{h.BUILD}/src/server/boughd" "$@" --test-clock-file "{self.path}" {options}\n')
        os.chmod(path, stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
        return path

    def passes(self, seconds):
        """Time goes by."""
        self.wall += seconds
        self.boot += seconds
        self.write()

    def jumps(self, seconds):
        """Somebody sets the wall clock."""
        self.wall += seconds
        self.write()

    def reboots(self, off, up=10):
        """The machine was off for so long, by the wall clock."""
        self.wall += off + up
        self.boot, self.boot_id = up, self.boot_id + "x"
        self.write()


@pytest.fixture(name="clock")
def fixture_clock(directory):
    return Clock(directory)


@pytest.fixture(name="p")
def fixture_p(clock, make_server):
    server = make_server(up=False)
    server.env["BOUGH_BOUGHD"] = clock.wrapper()
    server.up()
    return server.project("p")


def make(p, name, *options, parent=None):
    """A branch without the wait for a compute of its own."""
    more = ["--parent", parent] if parent else []
    return p.json("branch", "create", name, *more, *options)["branch"]


def bare(p, name, parent=None, **fields):
    """By the API, without a compute."""
    body = {"branch": {"name": name, **fields}}
    if parent:
        body["branch"]["parent_id"] = parent
    status, _, answer = p.server.api("POST", f"/projects/{p.id}/branches", body)
    assert status == 201, answer
    return answer["branch"]


def patch(p, branch, wanted=200, **fields):
    status, _, answer = p.server.api("PATCH", f"/projects/{p.id}/branches/{branch}", {"branch": fields})
    assert status == wanted, answer
    return answer if wanted != 200 else answer["branch"]


def actions(p, name=None):
    """Actions of the operations log, oldest first."""
    found = [o.get("event", o["action"]) for o in p.json("operation", "list", "--limit", "1000")]
    return [o for o in reversed(found) if name in (None, o)]


def deleted(p):
    return {b["name"]: b for b in p.json("branch", "list", "--deleted")}


def gone(p, *names):
    h.wait_for(lambda: not set(names) & set(p.branches()), f"{names} have expired")


def looked(p, n=2):
    """The server has looked at the clock several times: what is due has ended, what is not stays.
    It looks each 50 ms, and each look reads the file: its access is no use, its effect is. A branch that
    is due for certain is put beside, and must end."""
    for i in range(n):
        name = f"canary-{i}"
        bare(p, name, ttl_interval_seconds=1)
        clock = p.clock
        clock.passes(2)
        gone(p, name)
        p.bough("branch", "delete", deleted(p)[name]["id"], "--purge")


# ---- expiry ----

def test_a_branch_ends_when_its_time_has_come_and_not_before(p, clock):
    p.clock = clock
    made = make(p, "demo", "--expires-in", "7d")
    assert made["expires_at"] == "2027-01-22T08:00:00Z" and made["ttl_interval_seconds"] == 7 * DAY
    assert made["expiry_state"] == "pending" and made["expires_in_seconds"] == 7 * DAY
    p.sql("demo", "CREATE TABLE t AS SELECT 7 AS n")
    clock.passes(7 * DAY - 10)
    looked(p)
    assert p.get("demo")["expires_in_seconds"] <= 10
    clock.passes(10)
    gone(p, "demo")
    buried = deleted(p)["demo"]
    assert buried["recoverable_seconds"] == 7 * DAY and buried["own_bytes"] > 0
    assert not h.processes_below(f"{p.server.store}/branches/{buried['id']}")
    assert actions(p)[-1] == "branch_expired"
    back = p.json("branch", "undelete", "demo")
    assert back["expires_in_seconds"] == 7 * DAY  # its whole lifetime again
    assert p.one("demo", "SELECT n FROM t") == 7


def test_the_words_for_an_expiry(p):
    made = make(p, "at", "--expires-at", "2027-02-01T01:00:00.9+01:00")
    assert made["expires_at"] == "2027-02-01T00:00:00Z"
    assert make(p, "temporary", "--temporary")["ttl_interval_seconds"] == DAY
    for name in ("ci-42", "tmp-x"):
        assert bare(p, name)["ttl_interval_seconds"] == DAY
        p.refused("branch", "set-expiration", name, "--never", status="precondition", says="always expires")
    assert bare(p, "ci-43", ttl_interval_seconds=60)["expires_at"] == "2027-01-15T08:01:00Z"
    assert "expires_at" not in make(p, "cicada")
    assert p.json("branch", "rename", "cicada", "ci-cada")["ttl_interval_seconds"] == DAY
    assert p.json("branch", "set-expiration", "at", "--expires-in", "90m")["ttl_interval_seconds"] == 5400
    assert p.json("branch", "set-expiration", "at", "--cascade")["expiry_mode"] == "cascade"
    assert p.json("branch", "set-expiration", "at", "--expires-in", "2h")["expiry_mode"] == "cascade"
    assert p.json("branch", "set-expiration", "at", "--wait")["expiry_mode"] == "wait"
    assert "expires_at" not in p.json("branch", "set-expiration", "at", "--never")
    assert p.json("branch", "set-expiration", "at", "--expires-in", "36525d")  # longer than Neon's 30 days
    again = p.json("branch", "create", "temporary", "--expires-in", "9d")
    assert again["existing"] and again["branch"]["ttl_interval_seconds"] == DAY


@pytest.mark.parametrize("args, status, says", [
    (["--expires-in", "7"], "invalid", "duration"), (["--expires-in", "0s"], "invalid", "duration"),
    (["--expires-in", "1.5h"], "invalid", "duration"), (["--expires-in", "36526d"], "invalid", "duration"),
    (["--expires-at", "2027-01-15T07:59:59Z"], "invalid", "future"),
    (["--expires-at", "2027-01-15T08:00:00Z"], "invalid", "future"),
    (["--expires-at", "2028-01-15T08:00:00"], "invalid", "zone"),
    (["--expires-at", "2027-02-30T08:00:00Z"], "invalid", "zone"),
    (["--expires-in", "1h", "--expires-at", "2028-01-15T08:00:00Z"], "usage", "only one"),
    (["--expires-in", "1h", "--temporary"], "usage", "only one"),
    (["--cascade"], "invalid", "expiry_mode"), (["--never"], "usage", "unknown option"),
    (["--protected", "--expires-in", "1h"], "precondition", "protected")], ids=" ".join)
def test_an_expiry_that_cannot_be_is_refused(shared_server, args, status, says):
    if not shared_server.projects():
        shared_server.project("p")
    # the machine's own clock: these times are in its past or future as well
    if "2027-01-15" in " ".join(args):
        args = [a.replace("2027-01-15", "2020-01-15") for a in args]
    shared_server.refused("branch", "create", "x", *args, status=status, says=says)
    assert [b["name"] for b in shared_server.json("branch", "list")] == ["main"]


def test_set_expiration_wants_one_choice(p):
    make(p, "a")
    for args, says in (([], "not said"), (["--never", "--expires-in", "1h"], "only one"),
                       (["--cascade", "--wait", "--expires-in", "1h"], "exclude"),
                       (["--never", "--cascade"], "exclude")):
        p.refused("branch", "set-expiration", "a", *args, status="usage", says=says)
    p.refused("branch", "set-expiration", "a", "--cascade", status="invalid", says="does not")
    p.refused("branch", "set-expiration", "main", "--expires-in", "1h", status="precondition", says="default")
    assert p.get("a").get("expires_at") is None


def test_an_expired_parent_waits_for_its_children(p, clock):
    p.clock = clock
    a = bare(p, "a", ttl_interval_seconds=60)
    b = bare(p, "b", parent=a["id"])
    bare(p, "c", parent=b["id"], ttl_interval_seconds=120)
    clock.passes(61)
    h.wait_for(lambda: p.get("a")["expiry_state"] == "waiting", "the parent waits")
    assert "waits for branches below it" in p.bough("branch", "list").stdout
    looked(p)
    assert set(p.branches()) == {"main", "a", "b", "c"}
    clock.passes(60)
    gone(p, "c")
    assert set(p.branches()) == {"main", "a", "b"}
    p.delete("b")
    gone(p, "a")
    assert actions(p, "branch_expired").count("branch_expired") >= 2
    # children come back after their parents
    p.refused("branch", "undelete", "b", status="precondition", says="parent", hint="undelete")
    for name in ("a", "b", "c"):
        p.bough("branch", "undelete", name)
    assert set(p.branches()) == {"main", "a", "b", "c"}


def test_an_expired_parent_takes_its_children_along_when_it_cascades(p, clock):
    p.clock = clock
    a = make(p, "a", "--expires-in", "1h", "--cascade")
    assert a["expiry_mode"] == "cascade"
    b = bare(p, "b", parent=a["id"])
    bare(p, "b2", parent=a["id"])
    bare(p, "c", parent=b["id"])
    p.bough("branch", "protect", "c")
    clock.passes(HOUR)
    h.wait_for(lambda: p.get("a")["expiry_state"] == "waiting", "a protected child holds it back")
    looked(p)
    assert set(p.branches()) == {"main", "a", "b", "b2", "c"}
    p.bough("branch", "unprotect", "c")
    gone(p, "a", "b", "b2", "c")
    assert set(deleted(p)) == {"a", "b", "b2", "c"}
    for name in ("a", "b", "c"):
        p.bough("branch", "undelete", name)
    assert set(p.branches()) == {"main", "a", "b", "c"}


def test_two_warnings_are_given_and_shown(p, clock):
    p.clock = clock
    bare(p, "long", ttl_interval_seconds=7 * DAY)
    clock.passes(6 * DAY - 10)
    looked(p, 1)
    assert re.search(r"long .* expires in 24 h", p.bough("branch", "list").stdout)
    before = actions(p).count("branch_expiring")
    clock.passes(HOUR)
    h.wait_for(lambda: actions(p).count("branch_expiring") == before + 1, "the first warning")
    assert re.search(r"long .* expires soon: in 23 h", p.bough("branch", "list").stdout)
    clock.passes(22 * HOUR + 30)
    h.wait_for(lambda: actions(p).count("branch_expiring") == before + 2, "the last warning")
    p.server.down()
    p.server.up()
    clock.passes(60)
    h.wait_for(lambda: re.search("expires soon: in 5[0-9] min", p.bough("branch", "list").stdout), "it goes on")
    assert actions(p).count("branch_expiring") == before + 2
    p.bough("branch", "set-expiration", "long", "--expires-in", "10m")  # anew, at half and a tenth
    clock.passes(301)
    h.wait_for(lambda: actions(p).count("branch_expiring") == before + 3, "warnings begin anew")


def test_two_hundred_branches_expire_while_the_api_answers(p, clock):
    n = h.times(200, 1000)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: bare(p, f"ci-{i}"), range(n)))
    assert len(p.branches()) == n + 1
    clock.passes(DAY)
    count = f"/projects/{p.id}/branches/count"
    key = p.server.key()
    left, seen = n + 1, set()
    while left > 1:
        status, _, answer = p.server.api("GET", count, key=key)
        assert status == 200 and answer["count"] <= left
        left = answer["count"]
        seen.add(left)
    assert len(seen) > 2, "requests were answered in between"
    assert len(deleted(p)) == n
    clock.passes(7 * DAY)
    h.wait_for(lambda: not deleted(p), "all are removed", 120)
    h.wait_for(lambda: len(os.listdir(f"{p.server.store}/branches")) == 2, "and their files")
    assert p.one("main", "SELECT 1") == 1


# ---- the clock ----

def test_no_jump_of_a_running_servers_clock_ends_anything(p, clock):
    p.clock = clock
    make(p, "a", "--expires-in", "1h")
    make(p, "b")
    p.delete("b")
    for jump in (10 * 365 * DAY, -20 * 365 * DAY):
        clock.jumps(jump)
        h.wait_for(lambda: p.server.status()["clock_held"], "the jump is seen")
        assert "clock has jumped" in p.server.bough("status").stdout
        if jump > 0:
            assert p.get("a")["expiry_state"] == "held"
            bare(p, "canary", ttl_interval_seconds=60)  # counted from the later clock: it stays
        clock.passes(300)
        h.wait_for(lambda: p.get("a")["expires_in_seconds"] <= HOUR - 300
                   or p.server.status()["clock_held"], "time goes by")
        assert "a" in p.branches() and "b" in deleted(p)
    clock.jumps(10 * 365 * DAY)  # right again
    h.wait_for(lambda: not p.server.status()["clock_held"], "the clock is right again")
    assert p.get("a")["expires_in_seconds"] == HOUR - 600
    clock.passes(HOUR - 600)
    gone(p, "a")
    assert "canary" in p.branches()


def test_after_a_jump_branches_expire_by_the_time_that_has_passed(p, clock):
    make(p, "a", "--expires-in", "2h")
    clock.jumps(365 * DAY)
    h.wait_for(lambda: p.server.status()["clock_held"], "the jump is seen")
    clock.passes(HOUR)
    assert "a" in p.branches()
    clock.passes(HOUR)
    gone(p, "a")


def test_many_small_jumps_are_no_way_around(p, clock):
    p.clock = clock
    make(p, "a", "--expires-in", "2h")
    for _ in range(20):
        clock.jumps(9 * 60)
        p.server.status()  # a look at the clock
    h.wait_for(lambda: p.server.status()["clock_held"], "together they are a jump")
    assert "a" in p.branches() and p.get("a")["expires_in_seconds"] == 2 * HOUR


@pytest.mark.parametrize("how", ["synchronised", "confirmed"])
def test_a_clock_that_jumped_is_believed_again(p, clock, how):
    make(p, "a", "--expires-in", "30d")
    clock.jumps(31 * DAY)
    h.wait_for(lambda: p.server.status()["clock_held"], "the jump is seen")
    if how == "confirmed":
        p.server.bough("server", "confirm-clock")
    else:
        clock.synchronised = 1
        clock.passes(1)
        p.server.status()
        clock.passes(HOUR - 60)
        assert p.server.status()["clock_held"] and "a" in p.branches()
        clock.passes(60)
    gone(p, "a")
    h.wait_for(lambda: not p.server.status()["clock_held"], "it is believed")


@pytest.mark.parametrize("off", [60, 40 * DAY, -40 * DAY])
def test_a_wrong_clock_at_start_up_ends_nothing(p, clock, off):
    p.clock = clock
    make(p, "a", "--expires-in", "1h")
    make(p, "b")
    p.delete("b")
    p.server.down()
    clock.reboots(off)
    p.server.up()
    held = abs(off) > 600
    assert p.server.status()["clock_held"] is held
    assert "a" in p.branches() and "b" in deleted(p)
    clock.passes(HOUR)
    if off > 0:
        gone(p, "a")
        assert "b" in deleted(p)
    else:  # behind: until it has caught up
        assert "a" in p.branches()
        clock.jumps(40 * DAY)
        gone(p, "a")


def test_a_killed_server_goes_on_with_the_time_it_knew(p, clock):
    make(p, "a", "--expires-in", "1h")
    p.server.kill()
    clock.jumps(365 * DAY)
    clock.passes(60)
    p.server.up()
    assert p.server.status()["clock_held"] and "a" in p.branches()
    clock.jumps(-365 * DAY)
    h.wait_for(lambda: not p.server.status()["clock_held"], "the clock is right")
    clock.passes(HOUR - 60)
    gone(p, "a")


def test_where_nothing_waits_the_clock_may_do_what_it_likes(p, clock):
    p.server.api("PATCH", f"/projects/{p.id}", {"project": {"history_retention_seconds": 0}})  # history waits, too
    clock.jumps(365 * DAY)
    assert not p.server.status()["clock_held"]
    assert make(p, "a", "--expires-in", "1h")["expires_in_seconds"] == HOUR
    assert not p.server.status()["clock_held"]
    clock.passes(HOUR)
    gone(p, "a")


# ---- deletion and recovery ----

def test_a_deleted_branch_comes_back_with_all_it_had(p, clock):
    made = p.json("branch", "create", "work")
    p.sql("work", "CREATE TABLE t AS SELECT generate_series(1, 1000) n; CREATE UNLOGGED TABLE u AS SELECT 1")
    uri = p.uri("work")
    text = p.bough("branch", "delete", "work").stdout
    assert "bough branch undelete work" in text
    with pytest.raises(psycopg2.OperationalError):
        p.connect(uri=uri)
    assert "work" not in p.branches() and not os.path.exists(h.uri_parts(uri)["host"])
    for args in (["branch", "get", "work"], ["cs", "work"], ["branch", "delete", "work"],
                 ["branch", "create", "x", "--parent", "work"], ["branch", "undelete", "main"]):
        p.refused(*args, status="notfound")
    assert re.search(r"work .* deleted .*MiB|KiB.* recoverable for 7 d", p.bough("branch", "list", "--deleted").stdout)
    other = p.json("branch", "create", "work")  # the name is free
    assert other["branch"]["id"] != made["branch"]["id"] and not other["existing"]
    p.refused("branch", "undelete", "work", status="conflict", says="already exists", hint="--name")
    p.bough("branch", "undelete", made["branch"]["id"], "--name", "work again")
    assert p.uri("work again") == uri
    with p.connect("work again") as c:
        assert c.one("SELECT count(*) FROM t") == 1000 and c.one("SELECT count(*) FROM u") == 1
    assert actions(p)[-2:] == ["delete_timeline", "branch_recovered"] or "branch_recovered" in actions(p)
    p.delete("work again")
    p.delete("work")
    make(p, "work again")
    p.delete("work again")
    p.refused("branch", "undelete", "work again", status="conflict", says="2 deleted branches", hint="--deleted")
    clock.passes(7 * DAY - 1)
    assert len(deleted(p)) == 2
    p.bough("branch", "undelete", "work")
    clock.passes(1)
    h.wait_for(lambda: not deleted(p), "the others are removed")
    assert set(p.branches()) == {"main", "work"}


def test_purging_is_for_good_and_children_go_first(p):
    a = make(p, "a")
    b = make(p, "b", parent="a")
    assert p.json("branch", "delete", "b")["recoverable"] is True
    p.refused("branch", "delete", "a", "--purge", status="conflict", says="can still be recovered", hint="--deleted")
    p.delete("a")
    p.refused("branch", "delete", "a", "--purge", status="conflict", says="can still be recovered")
    assert p.json("branch", "delete", "b", "--purge")["recoverable"] is False
    p.bough("branch", "delete", "a", "--purge")
    assert deleted(p) == {}
    c = make(p, "c")
    p.bough("branch", "delete", "c", "--purge")
    for one in (a, b, c):
        h.wait_for(lambda one=one: not os.path.exists(f"{p.server.store}/branches/{one['id']}"), "its files are gone")
        p.refused("branch", "undelete", one["id"], status="notfound", hint="No deleted branch")
    assert actions(p, "branch_purged") == ["branch_purged"] * 2


def test_an_old_parent_is_not_removed_before_its_children(p, clock):
    a = make(p, "a")
    make(p, "b", parent="a")
    p.delete("b")
    clock.passes(DAY)
    p.delete("a")
    clock.passes(6 * DAY)
    h.wait_for(lambda: set(deleted(p)) == {"a"}, "the child is removed after its 7 days")
    p.bough("branch", "undelete", "a")
    p.delete("a")
    clock.passes(7 * DAY)
    h.wait_for(lambda: not deleted(p), "the parent too")
    h.wait_for(lambda: not os.path.exists(f"{p.server.store}/branches/{a['id']}"), "its files are gone")


def test_a_project_takes_its_deleted_branches_along(p):
    make(p, "a")
    p.delete("a")
    p.bough("branch", "protect", "main")
    p.server.refused("project", "delete", "p", "--yes", status="precondition", says="protected")
    assert p.one("main", "SELECT 1") == 1
    p.bough("branch", "unprotect", "main")
    p.server.bough("project", "delete", "p", "--yes")
    h.wait_for(lambda: len(os.listdir(f"{p.server.store}/branches")) == 1, "only the template is left")


def test_one_name_wanted_by_two_at_once_goes_to_one(p):
    """A branch is made while a deleted one of its name comes back. Whoever loses leaves nothing behind."""
    for i in range(h.times(8, 40)):
        name = f"n{i}"
        bare(p, name)
        p.delete(name)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            both = [pool.submit(p.bough, "branch", "undelete", name, check=False),
                    pool.submit(p.bough, "branch", "create", name, check=False)]
        codes = sorted(b.result().returncode for b in both)
        assert codes[0] == 0 and codes[1] in (0, h.EXIT["conflict"])  # create gives back what is there
        p.purge(name)
        for one in deleted(p).values():
            p.purge(one["id"])
        assert set(p.branches()) == {"main"}
    assert_nothing_left(p.server)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:  # and computes start as before
        list(pool.map(p.branch, ["a", "b", "c", "d"]))


# ---- kill -9 ----

def test_a_branch_is_deleted_and_recovered_wholly_or_not_at_all(server):
    seed = random.randrange(10**9)
    print("seed", seed)
    chance = random.Random(seed)
    p = server.project("p")
    p.sql("main", "CREATE TABLE t AS SELECT generate_series(1, 10000) AS id")
    p.branch("b")
    for i in range(h.times(8, 60)):
        there = "b" in p.branches()
        assert there != ("b" in deleted(p))
        kill_within(server, chance, 0.15, "branch", "delete" if there else "undelete", "b")
        there = "b" in p.branches()
        assert there != ("b" in deleted(p)), i
        if there:
            assert p.one("b", "SELECT count(*) FROM t") == 10000
        assert_nothing_left(server)
    if "b" not in p.branches():
        p.bough("branch", "undelete", "b")
    assert p.one("b", "SELECT count(*) FROM t") == 10000
    h.assert_clean(p, "b")
    kill_within(server, chance, 0.1, "branch", "delete", "b", "--purge")
    assert_nothing_left(server)


def test_branches_expire_wholly_or_not_at_all(p, clock):
    chance = random.Random(random.randrange(10**9))
    names = [f"ci-{i}" for i in range(12)]
    for name in names[:4]:
        make(p, name)
    for name in names[4:]:
        bare(p, name)
    clock.passes(DAY)
    for _ in range(h.times(4, 20)):
        pid = p.server.pid()
        with contextlib.suppress(AssertionError):
            h.wait_for(lambda: False, "a random moment", chance.uniform(0, 0.1), 0.005)
        os.kill(pid, signal.SIGKILL)
        h.wait_for(lambda pid=pid: not h.is_alive(pid), "boughd is gone")
        p.server.up()
        status, _, answer = p.server.api("GET", f"/projects/{p.id}/branches?include_deleted=true")
        listed = [b["name"] for b in answer["branches"]]
        assert status == 200 and sorted(listed) == sorted([*names, "main"])
        assert_nothing_left(p.server)
    gone(p, *names)
    for name in names:
        p.bough("branch", "undelete", name)
    for name in names[:4]:
        assert p.one(name, "SELECT 1") == 1


def test_a_child_of_a_protected_parent_is_made_wholly_or_not_at_all(server):
    chance = random.Random(random.randrange(10**9))
    p = server.project("p")
    old = p.uri()
    p.bough("branch", "protect", "main")
    for i in range(h.times(6, 40)):
        kill_within(server, chance, 0.6, "branch", "create", f"b{i}")
        if f"b{i}" in p.branches():
            assert_shut(p, f"b{i}", old)
            p.bough("branch", "delete", f"b{i}", "--purge")
        assert set(p.branches()) == {"main"}
        assert_nothing_left(server)


# ---- protection and the default branch ----

def assert_shut(p, branch, parent_uri):
    """The parent's password does not open the branch, the branch's own does."""
    uri = p.uri(branch)
    assert h.password(uri) != h.password(parent_uri)
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(uri.replace(h.password(uri), h.password(parent_uri)), connect_timeout=20)
    with p.connect(uri=uri) as c:
        assert c.one("SELECT 1") == 1


def test_a_protected_branch_stays(p):
    make(p, "a", "--protected")
    assert p.get("a")["protected"] and "protected" in p.bough("branch", "list").stdout
    p.refused("branch", "delete", "a", status="precondition", says="protected", hint="unprotect")
    p.refused("branch", "delete", "a", "--purge", status="precondition", says="protected")
    p.refused("branch", "set-expiration", "a", "--expires-in", "1h", status="precondition", says="protected")
    a = p.get("a")["id"]
    assert "protected" in patch(p, a, 422, expires_at="2099-01-01T00:00:00Z")["message"]
    p.bough("branch", "unprotect", "a")
    p.bough("branch", "set-expiration", "a", "--expires-in", "1h")
    p.refused("branch", "protect", "a", status="precondition", says="cannot have an expiry", hint="--never")
    p.refused("branch", "set-default", "a", status="precondition", says="cannot have an expiry")
    assert patch(p, a, protected=True, expires_at=None)["protected"]
    assert patch(p, a, protected=False, ttl_interval_seconds=60)["expires_at"]


def test_children_of_a_protected_branch_have_passwords_of_their_own(p, make_stock):
    del make_stock
    old = p.uri()
    with p.admin() as c:
        c.run("CREATE ROLE known_by_sql LOGIN PASSWORD 'parents'")
        c.run("CREATE ROLE boss SUPERUSER LOGIN PASSWORD 'parents'")
        c.run("CREATE ROLE sleeper NOLOGIN PASSWORD 'parents'")
        c.run("ALTER DATABASE neondb SET log_statement = 'all'")
    role = f"/projects/{p.id}/branches/{p.get()['id']}/roles"
    p.server.api("POST", role, {"role": {"name": "worker"}})
    p.server.api("POST", role, {"role": {"name": "crowd", "no_login": True}})
    plain = p.branch("plain")
    assert h.password(plain["connection_uri"]) == h.password(old)
    p.bough("branch", "protect", "main")
    made = p.branch("child")
    assert made["connection_uri"] == p.uri("child")
    assert_shut(p, "child", old)
    where = p.socket("child")
    for user in ("known_by_sql", "boss"):
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            psycopg2.connect(host=where["host"], port=where["port"], user=user, password="parents", dbname="neondb")
    child = p.get("child")["id"]
    reveal = "/projects/{}/branches/{}/roles/{}/reveal_password"
    ours = p.server.api("GET", reveal.format(p.id, child, "worker"))[2]["password"]
    theirs = p.server.api("GET", reveal.format(p.id, p.get()["id"], "worker"))[2]["password"]
    assert ours != theirs
    psycopg2.connect(host=where["host"], port=where["port"], user="worker", password=ours, dbname="neondb").close()
    assert p.server.api("GET", reveal.format(p.id, child, "crowd"))[0] == 412
    with p.admin("child") as c:
        assert c.rows("SELECT rolname FROM pg_authid WHERE rolpassword IS NOT NULL ORDER BY 1") == \
            [("bough_admin",), ("neondb_owner",), ("worker",)]
    assert "SCRAM" not in p.log("child")
    # also where it starts only later, and after a restart; a grandchild is as its parent
    bare(p, "later")
    p.server.api("POST", f"/projects/{p.id}/endpoints", {"endpoint": {"branch_id": p.get("later")["id"]}})
    assert_shut(p, "later", old)
    p.suspend("child")
    p.start("child")
    assert_shut(p, "child", old)
    grandchild = p.branch("grandchild", parent="child")
    assert h.password(grandchild["connection_uri"]) == h.password(p.uri("child"))
    assert h.password(p.uri()) == h.password(old)  # the parent's stay


def test_nobody_enters_a_protected_child_while_it_is_made(p):
    """Whoever watches the store's sockets and tries the parent's password at each of them, all the time."""
    old = p.uri()
    run = f"{p.server.store}/run"
    known = set(os.listdir(run))
    p.bough("branch", "protect", "main")
    entered, tried, stop = [], [0], []

    def burgle():
        while not stop:
            for name in set(os.listdir(run)) - known:
                try:
                    c = psycopg2.connect(host=f"{run}/{name}", user="neondb_owner", password=h.password(old),
                                         dbname="neondb")
                    entered.append(name)
                    c.close()
                except psycopg2.OperationalError as error:
                    tried[0] += "reject" in str(error) or "authentication" in str(error)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        burglars = [pool.submit(burgle) for _ in range(2)]
        try:
            for i in range(h.times(4, 20)):
                p.branch(f"b{i}")
        finally:
            stop.append(True)
        for b in burglars:
            b.result()
    assert tried[0] > 0 and not entered


def test_another_default_branch(p):
    make(p, "next")
    p.bough("branch", "set-default", "next")
    assert p.get("next")["default"] and not p.get("main")["default"]
    assert p.json("branch", "get")["name"] == "next"
    p.refused("branch", "delete", "next", status="precondition", says="default")
    p.refused("branch", "delete", "main", status="conflict", says="child")
    p.bough("branch", "set-default", "main")
    p.delete("next")


def make_first_version(path):
    """Bring a catalogue back to its first version: the same rows, as far as there were columns for them."""
    with open(os.path.join(h.ROOT, "src/model/catalogue.c"), encoding="utf-8") as f:
        literals = re.finditer(r'"((?:[^"\\]|\\.)*)"\s*(,?)', f.read().split("migrations[] = {", 1)[1])
    script = ""
    for literal in literals:
        script += literal.group(1)
        if literal.group(2):
            break
    with contextlib.closing(sqlite3.connect(path)) as db, contextlib.closing(sqlite3.connect(":memory:")) as first:
        first.executescript(script)
        tables = [t for t, in first.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE"
                                            " 'sqlite_%'")]
        rows = {}
        for table in tables:
            columns = ", ".join(c[1] for c in first.execute(f"PRAGMA table_info({table})"))
            rows[table] = columns, db.execute(f"SELECT {columns} FROM {table}").fetchall()
        db.execute("PRAGMA foreign_keys = OFF")
        for table, in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE"
                                 " 'sqlite_%'").fetchall():
            db.execute(f"DROP TABLE {table}")
        db.executescript(script)
        for table, (columns, values) in rows.items():
            places = ", ".join("?" * len(columns.split(",")))
            db.executemany(f"INSERT INTO {table} ({columns}) VALUES ({places})", values)
        db.commit()
        db.execute("PRAGMA user_version = 1")


def test_a_store_of_the_version_before_is_taken_over(server):
    """The catalogue as version 1 made it: what is there stays, and nothing expires of itself."""
    p = server.project("p")
    p.branch("ci-old")
    p.sql("ci-old", "CREATE TABLE t AS SELECT 5 AS n")
    server.down()
    make_first_version(f"{server.store}/bough.db")
    server.up()
    assert "expires_at" not in p.get("ci-old") and p.one("ci-old", "SELECT n FROM t") == 5
    p.delete("ci-old")
    p.bough("branch", "undelete", "ci-old")
    assert p.one("ci-old", "SELECT n FROM t") == 5


def test_a_look_goes_when_nobody_has_used_it_for_a_while(p, clock):
    p.sql("main", "CREATE TABLE t AS SELECT 1 AS id")
    made = p.json("cs", f"main@{h.now()}")
    look = made["branch"]
    assert p.get(look)["look"] and p.get(look)["ttl_interval_seconds"] == 600
    with h.Client(psycopg2.connect(made["connection_uri"])) as c:
        assert c.one("SHOW transaction_read_only") == "on" and c.one("SELECT id FROM t") == 1
        before = p.get(look)["expires_at"]
        clock.passes(601)
        h.wait_for(lambda: p.get(look)["expires_at"] != before, "it lives on while it is used")
        assert c.one("SELECT id FROM t") == 1
    clock.passes(601)
    gone(p, look)
    assert not deleted(p) and not actions(p, "branch_expiring")


def test_no_jump_of_the_clock_makes_history_old(clock, make_server):
    clock.wall = int(h.datetime.datetime.now().timestamp())  # what restore points are made at is not a test's
    clock.write()
    server = make_server(up=False)
    server.env["BOUGH_BOUGHD"] = clock.wrapper("--test-point-kib 64")  # restore points after little WAL
    p = server.up().project("p")
    def points():
        names = os.listdir(f"{os.path.dirname(p.pgdata())}/points")
        return sorted(name for name in names if "~" not in name)  # one that is being made is none yet

    p.sql("main", "CREATE TABLE t AS SELECT generate_series(1, 20000) AS id")
    h.wait_for(lambda: len(points()) > 1, "a restore point is made")
    before = points()
    clock.jumps(30 * DAY)
    h.wait_for(lambda: server.status()["clock_held"], "the jump is seen")
    p.bough("project", "update", p.id, "--history-retention", "6d")  # forgets at once what is too old
    assert points()[:len(before)] == before
    server.bough("server", "confirm-clock")
    p.bough("project", "update", p.id, "--history-retention", "5d")
    h.wait_for(lambda: before[0] not in points(), "history is old by a clock that is right")
