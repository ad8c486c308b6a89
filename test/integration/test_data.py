"""Data: isolation, branches under load, every kind of DDL, what PostgreSQL keeps beside tables, crashes."""
import os
import random

import pytest

from harness import IS_ROOT, OS_USER, Bank, Bough, Ledger, Stock, assert_clean, digest, times


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    at = directory
    while str(at) != "/" and os.stat(at).st_uid == os.geteuid():
        os.chmod(at, 0o755)
        at = at.parent
    if IS_ROOT:
        os.chown(directory, OS_USER.pw_uid, OS_USER.pw_gid)
    made = Bough(directory).up()
    yield made
    made.destroy()


def test_parent_child_and_grandchild_see_only_their_own_changes(server):
    p = server.project("isolation")
    p.sql("main", "CREATE TABLE t AS SELECT g AS id, 'main' AS who FROM generate_series(1, 20000) g")
    p.branch("child")
    p.sql("child", "UPDATE t SET who = 'child' WHERE id % 2 = 0")
    p.branch("grand", "child")
    p.sql("main", "DELETE FROM t WHERE id <= 10000")
    p.sql("grand", "TRUNCATE t")
    p.sql("grand", "INSERT INTO t VALUES (1, 'grand')")
    p.sql("child", "INSERT INTO t VALUES (0, 'late')")
    p.suspend("main")
    p.branch("sleeper")
    p.sql("main", "INSERT INTO t VALUES (-1, 'awake')")
    count = "SELECT who, count(*)::int FROM t GROUP BY who ORDER BY who"
    assert p.rows("main", count) == [("awake", 1), ("main", 10000)]
    assert p.rows("sleeper", count) == [("main", 10000)]
    assert p.rows("child", count) == [("child", 10000), ("late", 1), ("main", 10000)]
    assert p.rows("grand", count) == [("grand", 1)]
    p.refused("branch", "delete", "child", status=["conflict", "precondition"])
    for name in ("main", "child", "grand"):
        assert_clean(p, name)


def test_every_branch_made_under_load_balances(server):
    p = server.project("load")
    bank = Bank(p).init()
    last = 0
    with bank.running():
        for i in range(times(20, 50)):
            p.branch(f"b{i}")
            with p.connect(f"b{i}") as c:
                count = Bank.check(c)
                assert count >= last, "a later branch is older"
                last = count
            if i % 5 == 0:
                p.branch(f"b{i}-child", f"b{i}")
                with p.connect(f"b{i}-child") as c:
                    assert Bank.check(c) == count
                p.delete(f"b{i}-child")
            if i == 0:
                assert_clean(p, "b0")
            p.delete(f"b{i}")
    with p.connect("main") as c:
        Bank.check(c)
    assert_clean(p, "main")


DDL = [
    "CREATE TABLE made AS SELECT g AS id, md5(g::text) AS fill FROM generate_series(1, 5000) g",
    "TRUNCATE a", "INSERT INTO a SELECT g, 'new' FROM generate_series(1, 300) g",
    "DROP TABLE b", "CREATE TABLE b (id int)", "INSERT INTO b SELECT generate_series(1, 700)",
    "VACUUM FULL c", "REINDEX TABLE c", "REINDEX TABLE CONCURRENTLY c", "CLUSTER c USING c_pkey",
    "ALTER TABLE d SET UNLOGGED", "ALTER TABLE d SET LOGGED", "ALTER TABLE e ALTER id TYPE bigint",
    "CREATE INDEX CONCURRENTLY ON e (fill)", "DELETE FROM f WHERE id > 10", "VACUUM f",
    "INSERT INTO f SELECT g, 'again' FROM generate_series(11, 9000) g", "REFRESH MATERIALIZED VIEW m",
]


def test_ddl_on_a_branch_leaves_the_parent_alone_and_survives_a_crash(server):
    p = server.project("ddl")
    with p.connect() as c:
        for t in "abcdef":
            c.run(f"CREATE TABLE {t} (id int PRIMARY KEY, fill text)")
            c.run(f"INSERT INTO {t} SELECT g, md5(g::text) FROM generate_series(1, 9000) g")
        c.run("CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM a")
        before = {t: digest(c, t, "id") for t in "abcdef"}
    p.branch("child")
    with p.connect("child") as c:
        for statement in DDL:
            c.run(statement)
        c.run("CREATE DATABASE other")
        c.run("DROP DATABASE other")
        c.run("CREATE DATABASE other")
        tables = ["a", "b", "c", "d", "e", "f", "made"]
        after = {t: digest(c, t, "id") for t in tables}
    p.kill_compute("child")
    p.start("child")
    with p.connect("child") as c:
        assert {t: digest(c, t, "id") for t in tables} == after
        assert c.one("SELECT * FROM m") == 300
    with p.connect() as c:
        assert {t: digest(c, t, "id") for t in "abcdef"} == before
    for name in ("main", "child"):
        assert_clean(p, name)


def test_what_postgresql_keeps_beside_tables_crosses_the_branch(server):
    p = server.project("features")
    with p.connect() as c:
        c.run("CREATE TABLE big (id int, fill text)")
        c.run("INSERT INTO big SELECT 1, string_agg(md5(g::text), '') FROM generate_series(1, 30000) g")
        oid = c.one("SELECT lo_from_bytea(0, decode(repeat('ab', 300000), 'hex'))")
        c.run("CREATE SEQUENCE s")
        top = [c.one("SELECT nextval('s')") for _ in range(40)][-1]
        c.run("CREATE UNLOGGED TABLE u AS SELECT 1 AS id")
        c.run("CREATE TABLE rows AS SELECT g AS id FROM generate_series(1, 200) g")
        with p.connect() as one, p.connect() as two:
            for k in (one, two):
                k.run("BEGIN")
                k.run("SELECT * FROM rows FOR SHARE")
            one.run("COMMIT")
            two.run("COMMIT")
        c.run("BEGIN")
        for i in range(100):
            c.run(f"SAVEPOINT s{i}")
            c.run(f"UPDATE rows SET id = id WHERE id = {i + 1}")
        c.run("COMMIT")
        toast = digest(c, "big", "id")
    p.branch("child")
    with p.connect("child") as c:
        assert digest(c, "big", "id") == toast
        assert c.one("SELECT length(lo_get(%s))", oid) == 300000
        assert c.one("SELECT nextval('s')") > top
        assert c.one("SELECT count(*) FROM u") == 0, "an unlogged table crossed a live branch"
        assert c.one("SELECT count(*) FROM rows") == 200
        c.run("UPDATE rows SET id = -id")
    with p.connect() as c:
        assert c.one("SELECT count(*) FROM u") == 1
        assert c.one("SELECT sum(id) FROM rows") == 20100
    assert_clean(p, "child")


def test_a_chain_of_fifty_branches_is_readable_at_every_depth(server):
    p = server.project("depth")
    p.sql("main", "CREATE TABLE t (n int PRIMARY KEY, fill text)")
    parent, depth = "main", 50
    for i in range(1, depth + 1):
        p.branch(f"d{i}", parent)
        p.sql(f"d{i}", f"INSERT INTO t VALUES ({i}, repeat('x', 100))")
        if parent != "main":
            p.suspend(parent)
        parent = f"d{i}"
    for i in (1, 7, 25, depth):
        assert p.one(f"d{i}", "SELECT count(*), sum(n) FROM t") == (i, i * (i + 1) // 2)
    assert_clean(p, parent)
    for i in range(depth, 0, -1):
        p.delete(f"d{i}")


def test_an_export_starts_on_a_stock_postgres(server, tmp_path):
    p = server.project("export")
    bank = Bank(p).init()
    with bank.running():
        p.bough("export", "main", f"{server.dir}/exported")
    stock = Stock(f"{server.dir}/stock")
    os.makedirs(stock.dir, exist_ok=True)
    if IS_ROOT:
        os.chown(stock.dir, OS_USER.pw_uid, OS_USER.pw_gid)
    with open(f"{server.dir}/exported/pg_hba.conf", "w", encoding="ascii") as f:
        f.write("local all all trust\nhost all all 127.0.0.1/32 trust\n")
    stock.start(f"{server.dir}/exported", user="bough_admin")
    try:
        with stock.connect("neondb", "bough_admin") as c:
            assert Bank.check(c) > 0
    finally:
        stock.stop()


def test_a_bare_postgres_refuses_a_branch(server):
    p = server.project("bare")
    pgdata = p.pgdata()
    p.suspend()
    stock = Stock(f"{server.dir}/bare")
    os.makedirs(stock.dir, exist_ok=True)
    if IS_ROOT:
        os.chown(stock.dir, OS_USER.pw_uid, OS_USER.pw_gid)
    stock.start(pgdata, check=False)
    assert stock.p.poll() not in (None, 0), "a bare postgres ran on a branch"


def test_nothing_acknowledged_is_lost_by_kill_9(server):
    seed = random.randrange(10**9)
    print("seed", seed)
    chance = random.Random(seed)
    p = server.project("crash")
    with p.connect() as c:
        Ledger.prepare(c)
    with Ledger(p.uri()) as ledger:
        for i in range(times(3, 12)):
            p.branch(f"k{i}")
            ledger.progress(chance.randrange(5, 60))
            if chance.random() < 0.5:
                server.kill()
                ledger.progress()
                server.up()
            else:
                p.kill_compute()
                p.start()
            ledger.progress()
    acknowledged = list(ledger.acknowledged)
    assert set(p.branches()) == {"main"} | {f"k{i}" for i in range(times(3, 12))}
    with p.connect() as c:
        Ledger.check(c, acknowledged)
    assert_clean(p)
