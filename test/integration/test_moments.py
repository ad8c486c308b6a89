"""Moments that are hard to hit: boundaries, before everything, and what PostgreSQL keeps about transactions."""
import itertools
import os
import random
import struct

import psycopg2
import pytest

import harness as h

pytestmark = pytest.mark.slow


@pytest.fixture(name="p")
def fixture_p(server):
    return server.project("moments")


def lsn_of(p, branch="main"):
    return p.one(branch, "SELECT pg_current_wal_lsn()::text")


def test_branches_of_two_old_lsns_of_one_parent_and_of_each_other(p):
    p.sql("main", "CREATE TABLE t (id int)")
    lsns = []
    for n in (100, 10000):
        p.sql("main", f"INSERT INTO t SELECT generate_series(1, {n})")
        lsns.append(lsn_of(p))
    p.sql("main", "INSERT INTO t SELECT generate_series(1, 50000)")
    for i, (lsn, wanted) in enumerate(zip(lsns, (100, 10100))):
        p.bough("branch", "create", f"b{i}", "--at", lsn)
        assert p.one(f"b{i}", "SELECT count(*) FROM t") == wanted
    assert p.one("main", "SELECT count(*) FROM t") == 60100
    p.sql("b1", "DELETE FROM t")
    p.bough("branch", "create", "old", "--parent", "b1", "--at", lsns[0])  # through its parent's past
    assert p.one("old", "SELECT count(*) FROM t") == 100
    for name in ("main", "b0", "b1", "old"):
        h.assert_clean(p, name)


def test_a_branch_on_a_segment_boundary(p):
    p.sql("main", "CREATE TABLE t AS SELECT 1 AS id")
    with p.admin() as c:
        c.run("SELECT pg_switch_wal()")
    p.sql("main", "INSERT INTO t VALUES (2)")
    boundary = p.one("main", "SELECT (pg_current_wal_lsn() - (pg_current_wal_lsn() - '0/0')::numeric % (16 * 1024 *"
                             " 1024))::text")
    p.sql("main", "INSERT INTO t VALUES (3)")
    assert boundary.endswith("000000")
    p.bough("branch", "create", "on", "--at", boundary)
    assert p.one("on", "SELECT array_agg(id) FROM t") == [1]
    p.sql("on", "INSERT INTO t VALUES (9)")
    h.assert_clean(p, "on")
    p.bough("branch", "create", "beyond", "--parent", "on")
    assert p.one("beyond", "SELECT array_agg(id) FROM t") == [1, 9]


def test_a_branch_of_one_that_ended_at_the_end_of_a_segment(p):
    """The segment after its shutdown checkpoint need not be there."""
    size = 16 << 20
    p.sql("main", "CREATE TABLE t AS SELECT 1 AS id")
    with p.admin() as c:
        c.run("CHECKPOINT")
        used = c.one("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint") % size
        left = (size - used - 9500) * 8168 // 8192  # pages have heads
        c.run("SELECT pg_logical_emit_message(false, 'fill', repeat('x', %s))", left)
    p.bough("endpoint", "suspend", "main")
    home = f"{p.server.store}/branches/{p.get()['id']}/pgdata"
    with open(f"{home}/bough.control", "rb") as f:
        checkpoint = struct.unpack_from("<Q", f.read(64), 32)[0]
    assert checkpoint % size > size - 16384
    after = f"{home}/pg_wal/00000001{checkpoint // size + 1:016X}"
    if os.path.exists(after):  # made ahead
        os.unlink(after)
    p.branch("b")
    p.bough("branch", "create", "c", "--parent", "b")
    for name in ("main", "b", "c"):
        assert p.one(name, "SELECT array_agg(id) FROM t") == [1]
        h.assert_clean(p, name)


@pytest.mark.parametrize("lsn", ["0/1", "0/16", "0/1000000"])
def test_before_initdb_there_is_nothing(p, lsn):
    p.refused("branch", "create", "none", "--at", lsn, says="does not reach back so far")
    p.refused("snapshot", "create", "main", "--at", lsn, says="does not reach back so far")
    assert list(p.branches()) == ["main"]


def test_what_a_child_needs_outlives_its_parents_history(p):
    p.sql("main", "CREATE TABLE t AS SELECT generate_series(1, 1000) AS id")
    when = h.now()
    p.sql("main", "DELETE FROM t")
    p.bough("branch", "create", "child", "--at", when)
    p.suspend("child")
    p.bough("project", "update", "--history-retention", "0")
    p.sql("main", "CREATE TABLE big AS SELECT generate_series(1, 300000) AS id")
    with p.admin() as c:
        c.run("CHECKPOINT")
    p.refused("branch", "create", "late", "--at", when, says="keeps no history")
    p.server.down()
    p.server.up()
    assert p.one("child", "SELECT count(*) FROM t") == 1000
    p.crash("child")
    p.branch("grandchild", parent="child")
    assert p.one("grandchild", "SELECT count(*) FROM t") == 1000
    for name in ("child", "grandchild"):
        h.assert_clean(p, name)


def test_branches_are_deleted_in_any_order_that_leaves_a_tree(server):
    orders = list(itertools.permutations(("a", "b", "ab")))
    for i, order in enumerate(random.sample(orders, h.times(2, len(orders)))):
        p = server.project(f"order-{i}")
        p.sql("main", "CREATE TABLE t AS SELECT 0 AS id")
        for n, (name, parent) in enumerate((("a", "main"), ("b", "main"), ("ab", "a"))):
            p.branch(name, parent=parent)
            p.sql(name, f"INSERT INTO t VALUES ({n + 1})")
        wanted = {"main": [0], "a": [0, 1], "b": [0, 2], "ab": [0, 1, 3]}
        for name in order:
            if name == "a" and "ab" in wanted:
                p.refused("branch", "delete", "a", "--purge", status="conflict")
                continue
            p.purge(name)
            del wanted[name]
            for left, ids in wanted.items():
                assert p.one(left, "SELECT array_agg(id ORDER BY id) FROM t") == ids, (order, name, left)
        server.bough("project", "delete", p.id)


def test_rows_locked_by_several_at_the_branch_point(p):
    """A multixact that is in use at the moment: its members are the child's, too, and end there with the crash."""
    p.sql("main", "CREATE TABLE t (id int PRIMARY KEY, n int)")
    p.sql("main", "INSERT INTO t SELECT g, 0 FROM generate_series(1, 100) g")
    holders = [h.Client(psycopg2.connect(p.uri())) for _ in range(3)]
    for one in holders:
        one.run("BEGIN")
        one.run("SELECT * FROM t FOR SHARE")
    assert p.one("main", "SELECT count(DISTINCT xmax::text) FROM t WHERE xmax::text <> '0'") >= 1
    p.branch("child")
    lsn = lsn_of(p)
    holders[0].run("COMMIT")
    for one in holders:
        one.close()
    p.bough("branch", "create", "past", "--at", lsn)
    p.suspend("main")
    p.branch("asleep")
    for name in ("child", "past", "asleep", "main"):
        with p.connect(name) as c:
            c.run("UPDATE t SET n = n + 1")  # whoever held a lock is gone there
            assert c.one("SELECT sum(n) FROM t") == 100
        with p.admin(name) as c:
            c.run("VACUUM (FREEZE) t")
        p.crash(name)
        assert p.one(name, "SELECT sum(n) FROM t") == 100
        h.assert_clean(p, name)


@pytest.mark.skipif(not h.LONG, reason="uses up a million transaction ids")
def test_a_child_knows_transactions_that_its_parent_has_truncated(p):
    p.sql("main", "CREATE TABLE t AS SELECT generate_series(1, 1000) AS id")
    p.sql("main", "DELETE FROM t WHERE id % 2 = 0")
    p.branch("child")
    p.suspend("child")
    when = h.now()
    with p.admin() as c:
        c.run("SET synchronous_commit = off")
        c.run("DO $$ BEGIN FOR i IN 1..2200000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$")
        before = c.one("SELECT count(*) FROM pg_ls_dir('pg_xact')")
        for database, in c.rows("SELECT datname FROM pg_database"):
            if database == "template0":
                c.run("ALTER DATABASE template0 ALLOW_CONNECTIONS true")
            with p.admin(database=database) as d:
                d.run("VACUUM (FREEZE)")
        c.run("CHECKPOINT")
        assert c.one("SELECT count(*) FROM pg_ls_dir('pg_xact')") < before, "nothing was truncated"
    p.bough("branch", "create", "past", "--at", when)
    for name in ("child", "past", "main"):
        assert p.one(name, "SELECT count(*) FROM t") == 500
        h.assert_clean(p, name)
