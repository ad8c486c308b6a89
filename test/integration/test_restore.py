"""Restoring and resetting branches in place."""
import random
import threading

import psycopg2
import pytest

import harness as h

pytestmark = pytest.mark.slow


@pytest.fixture(name="p")
def fixture_p(server):
    return server.project("restore")


IDS = "SELECT array_agg(id ORDER BY id) FROM t"


def test_a_branch_is_restored_in_place_and_what_it_showed_is_kept(p):
    p.sql("main", "CREATE TABLE t AS SELECT 1 AS id")
    p.branch("child")
    uri, before = p.uri(), p.get()
    when = h.now()
    p.sql("main", "DROP TABLE t")
    connection = p.connect()
    said = p.bough("branch", "restore", "main", "--at", when, "--preserve-under-name", "main-before").stdout
    assert "main-before" in said
    with pytest.raises(psycopg2.Error):
        connection.one("SELECT 1")
    assert p.uri() == uri and p.get()["id"] == before["id"] and p.get()["default"]
    assert p.one("main", IDS) == [1]
    with pytest.raises(psycopg2.Error, match="does not exist"):
        p.one("main-before", IDS)
    assert p.one("child", IDS) == [1]
    branches = p.branches()
    kept = branches["main-before"]["id"]
    assert branches["child"]["parent_id"] == kept and branches["main"]["parent_id"] == kept
    assert p.get()["last_reset_at"] and p.get()["parent_lsn"]
    p.sql("main", "INSERT INTO t VALUES (2)")
    p.sql("main-before", "CREATE TABLE t AS SELECT 9 AS id")
    p.suspend("main")
    p.suspend("main-before")
    assert p.one("main", IDS) == [1, 2] and p.one("main-before", IDS) == [9]
    p.branch("new")
    assert p.one("new", IDS) == [1, 2]
    for name in ("main", "main-before", "child", "new"):
        h.assert_clean(p, name)


def test_a_restored_branch_has_its_earlier_past_through_what_was_kept(p):
    p.sql("main", "CREATE TABLE t AS SELECT 1 AS id")
    first = h.now()
    p.sql("main", "INSERT INTO t VALUES (2)")
    second = h.now()
    p.sql("main", "INSERT INTO t VALUES (3)")
    p.bough("branch", "restore", "main", "--at", second, "--preserve-under-name", "old")
    p.sql("main", "INSERT INTO t VALUES (4)")
    third = h.now()
    p.sql("main", "INSERT INTO t VALUES (5)")
    for name, when, ids in (("a", first, [1]), ("b", third, [1, 2, 4])):
        p.bough("branch", "create", name, "--at", when)
        assert p.one(name, IDS) == ids
    p.bough("branch", "restore", "main", "--at", third, "--preserve-under-name", "older")
    assert p.one("main", IDS) == [1, 2, 4] and p.one("older", IDS) == [1, 2, 4, 5] and p.one("old", IDS) == [1, 2, 3]
    h.assert_clean(p)


def test_a_reset_takes_the_parents_present_and_deletes_what_was(p):
    p.sql("main", "CREATE TABLE t AS SELECT 1 AS id")
    p.branch("dev")
    p.sql("dev", "INSERT INTO t VALUES (7)")
    p.sql("main", "INSERT INTO t VALUES (2)")
    before, directories = p.get("dev"), set(h.os.listdir(f"{p.server.store}/branches"))
    p.bough("branch", "reset", "dev")
    assert p.one("dev", IDS) == [1, 2] and p.get("dev")["id"] == before["id"]
    assert set(p.branches()) == {"main", "dev"}
    h.wait_for(lambda: set(h.os.listdir(f"{p.server.store}/branches")) == directories, "what was is gone")
    p.bough("branch", "reset", "dev", "--preserve-under-name", "dev-old")
    assert p.one("dev-old", IDS) == [1, 2]
    p.purge("dev-old")
    p.purge("dev")
    h.assert_clean(p)


def test_a_branch_is_restored_from_another_ones_past(p):
    p.sql("main", "CREATE TABLE t AS SELECT 1 AS id")
    when = h.now()
    p.sql("main", "INSERT INTO t VALUES (2)")
    p.branch("dev")
    p.bough("branch", "restore", "dev", "--from", "main", "--at", when)
    assert p.one("dev", IDS) == [1] and p.one("main", IDS) == [1, 2]
    h.assert_clean(p, "dev")


def test_roles_and_databases_are_those_of_the_moment_and_passwords_those_of_now(p):
    p.sql("main", "CREATE TABLE t AS SELECT 1 AS id")
    main = p.get()["id"]
    when = h.now()
    p.server.api("POST", f"/projects/{p.id}/branches/{main}/roles", {"role": {"name": "later"}})
    database = {"database": {"name": "laterdb", "owner_name": "later"}}
    p.server.api("POST", f"/projects/{p.id}/branches/{main}/databases", database)
    p.bough("branch", "create", "past", "--at", when)
    past = p.get("past")["id"]
    for kind, name in (("roles", "later"), ("databases", "laterdb")):
        for branch, wanted in ((main, True), (past, False)):
            got = p.server.api("GET", f"/projects/{p.id}/branches/{branch}/{kind}")[2]
            assert (name in [x["name"] for x in got[kind]]) is wanted
    assert p.one("past", IDS) == [1]


def test_what_comes_from_a_protected_branch_has_new_passwords(p):
    p.sql("main", "CREATE TABLE t AS SELECT 1 AS id")
    when = h.now()
    p.sql("main", "INSERT INTO t VALUES (2)")
    p.branch("dev")
    p.bough("branch", "protect", "main")
    theirs = h.password(p.uri("main"))
    p.refused("branch", "restore", "main", "--from", "dev", says="protected")
    for args, ids in ((("reset",), [1, 2]), (("restore", "--from", "main", "--at", when), [1])):
        p.bough("branch", args[0], "dev", *args[1:])
        ours = h.password(p.uri("dev"))
        assert ours != theirs and p.one("dev", IDS) == ids
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            psycopg2.connect(p.uri("dev").replace(ours, theirs))
        assert p.one("main", IDS) == [1, 2]
    h.assert_clean(p, "dev")


def test_what_cannot_be_restored_is_refused_and_nothing_changes(p):
    p.sql("main", "CREATE TABLE t AS SELECT 1 AS id")
    p.branch("dev")
    p.branch("grand", "dev")
    before = p.branches()
    p.refused("branch", "restore", "main", status="usage", says="neither --at nor --from")
    p.refused("branch", "restore", "main", "--at", h.now(), status="invalid", says="preserve_under_name")
    p.refused("branch", "reset", "dev", status="invalid", says="has children", hint="kept")
    p.refused("branch", "reset", "main", says="no parent")
    p.refused("branch", "restore", "main", "--at", h.now(), "--preserve-under-name", "dev", status="conflict")
    p.refused("branch", "restore", "main", "--at", "300 days ago", "--preserve-under-name", "x", status="invalid")
    p.refused("branch", "restore", "nosuch", "--from", "main", status="notfound")
    p.refused("branch", "restore", "dev", "--from", "nosuch", status="notfound")
    assert {n: b["id"] for n, b in p.branches().items()} == {n: b["id"] for n, b in before.items()}
    assert p.one("main", IDS) == [1]


def test_a_restore_that_the_server_did_not_survive_happened_wholly_or_not_at_all(p):
    seed = random.randrange(10**9)
    print("seed", seed)
    chance = random.Random(seed)
    p.sql("main", "CREATE TABLE t AS SELECT 0 AS id")
    for i in range(h.times(8, 60)):
        when = h.now()
        p.sql("main", f"INSERT INTO t VALUES ({i + 1})")
        there = p.one("main", IDS)
        timer = threading.Timer(chance.random() * 1.2, p.server.kill)
        timer.start()
        done = p.bough("branch", "restore", "main", "--at", when, "--preserve-under-name", f"k{i}", check=False)
        timer.join()
        p.server.up()
        ids = p.one("main", IDS)
        if f"k{i}" in p.branches():
            assert ids == there[:-1] and p.one(f"k{i}", IDS) == there
        else:
            assert done.returncode != 0 and ids == there
        known = {b["id"] for b in p.branches().values()}
        stray = {d for d in h.os.listdir(f"{p.server.store}/branches") if d.startswith("br-")} - known
        assert not stray
    h.assert_clean(p)


def test_a_detached_branch_outlives_all_that_it_was_made_from(server):
    p = server.project("p")
    bank = h.Bank(p, "main").init()
    early = h.now()
    with bank.running():
        p.branch("child")
    p.branch("grandchild", parent="child")
    p.sql("grandchild", "CREATE TABLE g AS SELECT 1 AS id")
    when = h.now()
    p.sql("grandchild", "INSERT INTO g VALUES (2)")
    p.bough("branch", "create", "past", "--parent", "grandchild", "--at", when)
    p.refused("branch", "delete", "child", status="conflict")
    assert "child" in p.bough("branch", "get", "grandchild").stdout
    detached = p.json("branch", "detach", "grandchild")
    assert "parent_id" not in detached and "parent_lsn" not in detached
    assert p.json("branch", "detach", "grandchild")["id"] == detached["id"], "again is success"
    p.bough("branch", "set-default", "grandchild")
    for branch in ("child", "main"):
        p.purge(branch)
    server.down()
    server.up()
    assert sorted(p.branches()) == ["grandchild", "past"]
    with p.connect("grandchild") as c:
        bank.check(c)
        assert c.one("SELECT count(*) FROM g") == 2
    assert p.one("past", "SELECT count(*) FROM g") == 1
    h.assert_clean(p, "grandchild")
    # its own past is there, what came before it is not
    assert p.bough("psql", f"grandchild@{when}", "--", "-Atc", "SELECT count(*) FROM g").stdout == "1\n"
    p.refused("branch", "create", "x", "--at", early, says="does not reach back so far")
    p.refused("branch", "reset", "grandchild", says="parent")
    operations = [o["action"] for o in p.json("operation", "list")]
    assert operations.count("detach_parent_branch") == 1


def test_what_was_kept_of_a_restore_can_go(server):
    p = server.project("p")
    p.sql("main", "CREATE TABLE t AS SELECT 1 AS id")
    when = h.now()
    p.sql("main", "INSERT INTO t VALUES (2)")
    p.bough("branch", "restore", "main", "--at", when, "--preserve-under-name", "kept")
    p.refused("branch", "delete", "kept", status="conflict")
    p.bough("branch", "detach", "main")
    p.purge("kept")
    assert list(p.branches()) == ["main"] and p.one("main", "SELECT array_agg(id) FROM t") == [1]
    h.assert_clean(p)
