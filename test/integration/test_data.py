"""Data: isolation, branches under load, every kind of DDL, what PostgreSQL keeps beside tables, crashes."""
import os
import random
import socket
import tempfile

import harness
import pytest

from harness import IS_ROOT, OS_USER, PG, Bank, Bough, Ledger, Stock, allocated, assert_clean, digest, times, \
    wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(session_dir, pg18):
    directory = tempfile.mkdtemp(prefix="m", dir=session_dir)
    os.chmod(directory, 0o755)
    if IS_ROOT:
        os.chown(directory, OS_USER.pw_uid, OS_USER.pw_gid)
    made = Bough(directory, pg18).up()
    yield made
    made.destroy()


@pytest.fixture(name="p")
def fixture_p(server, major, pg18):
    """An empty project, deleted with all its branches after the test."""
    if major == 18 and major != PG and not pg18:
        pytest.skip("PostgreSQL 18 could not be fetched")
    project = server.project(f"data-{major}", major=major)
    yield project
    server.bough("project", "delete", project.id)


def bindir(p, pg18):
    """Of a stock PostgreSQL of the project's version; None: the installed one."""
    return {17: harness.PG17, PG: None}.get(p.major, pg18)


@pytest.mark.every_version
def test_parent_child_and_grandchild_see_only_their_own_changes(p):
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


def test_every_branch_made_under_load_balances(p):
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


@pytest.mark.every_version
def test_ddl_on_a_branch_leaves_the_parent_alone_and_survives_a_crash(p):
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


@pytest.mark.every_version
def test_what_postgresql_keeps_beside_tables_crosses_the_branch(p):
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


def test_databases_made_from_a_branch_by_either_strategy_survive_a_crash(p):
    """Their source is below the branch: copying reads it through the stack, file by file or by WAL."""
    p.sql("main", "CREATE TABLE t AS SELECT g AS id, md5(g::text) AS fill FROM generate_series(1, 40000) g")
    p.branch("child")
    p.sql("child", "DELETE FROM t WHERE id % 3 = 0")
    strategies = ("wal_log", "file_copy") if p.major >= 15 else ("",)
    with p.connect("child") as c:
        want = digest(c, "t", "id")
        for s in strategies:
            c.run(f"CREATE DATABASE copy_{s} TEMPLATE neondb" + (f" STRATEGY {s}" if s else ""))
        if p.major >= 18:  # the kernel copies, and knows no stack
            strategies += ("clone",)
            c.run("SET file_copy_method = clone")
            c.run("CREATE DATABASE copy_clone TEMPLATE neondb STRATEGY file_copy")
    p.kill_compute("child")
    p.start("child")
    for s in strategies:
        with p.admin("child", f"copy_{s}") as c:
            assert digest(c, "t", "id") == want
    assert_clean(p, "child")


def test_deleting_a_branch_gives_its_bytes_back(server, p):
    p.sql("main", "CREATE TABLE t AS SELECT g AS id, repeat(md5(g::text), 20) AS fill FROM generate_series(1, 60000) g")
    p.branch("first")
    with p.admin() as c:
        c.run("CHECKPOINT")
    wait_for(lambda: not os.listdir(f"{server.store}/trash"), "the trash is empty")
    before = allocated(server.store)
    p.branch("child")
    p.sql("child", "UPDATE t SET id = -id")
    p.branch("grand", "child")
    p.sql("grand", "UPDATE t SET id = id - 1")
    p.suspend("grand")
    assert allocated(server.store) > before + (64 << 20)
    p.refused("branch", "delete", "child", status=["conflict", "precondition"])
    p.purge("grand")
    p.purge("child")
    wait_for(lambda: allocated(server.store) < before + (2 << 20), "the bytes are free again")
    assert p.one("main", "SELECT min(id) FROM t") == 1


def test_prepared_transactions_are_settled_by_each_branch_for_itself(server, make_stock):
    stock = make_stock().init(max_prepared_transactions=5, wal_level="replica", max_wal_senders=4).start()
    with stock.connect() as c:
        c.run("CREATE TABLE t (id int)")
    p = server.project("twophase", "--from", stock.url())
    stock.stop()

    def prepare(c, n):
        c.run("BEGIN")
        c.run(f"INSERT INTO t VALUES ({n})")
        c.run(f"PREPARE TRANSACTION 'x{n}'")
    ids = "SELECT coalesce(string_agg(id::text, ' ' ORDER BY id), '') FROM t"
    with p.admin(database="postgres") as c:
        prepare(c, 1)
        c.run("CHECKPOINT")  # in pg_twophase
        prepare(c, 2)        # in the WAL alone
    p.branch("awake")
    p.suspend("main")
    p.branch("asleep")
    with p.admin(database="postgres") as c:
        c.run("ROLLBACK PREPARED 'x1'")
        c.run("ROLLBACK PREPARED 'x2'")
        assert c.one(ids) == ""
    p.branch("settled")
    for name in ("awake", "asleep"):
        with p.admin(name, "postgres") as c:
            assert c.one("SELECT count(*) FROM pg_prepared_xacts") == 2
            c.run("COMMIT PREPARED 'x1'")
        p.kill_compute(name)
        p.start(name)
        with p.admin(name, "postgres") as c:
            c.run("COMMIT PREPARED 'x2'")
            assert c.one(ids) == "1 2"
        assert_clean(p, name)
    with p.admin("settled", "postgres") as c:
        assert c.one("SELECT count(*) FROM pg_prepared_xacts") == 0 and c.one(ids) == ""


def test_a_branch_consumes_no_slot_and_follows_no_publisher(p):
    with socket.create_server(("127.0.0.1", 0)) as publisher:
        port = publisher.getsockname()[1]
        with p.admin() as c:
            c.run("SELECT pg_create_physical_replication_slot('standby', true)")
            c.run(f"CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port={port} dbname=x' PUBLICATION p"
                  " WITH (connect = false, slot_name = 's')")
            c.run("ALTER SUBSCRIPTION s ENABLE")
        p.branch("awake")
        p.suspend("main")
        p.branch("asleep")
        for name in ("awake", "asleep"):
            with p.admin(name) as c:
                assert c.one("SELECT count(*) FROM pg_replication_slots") == 0
                assert c.one("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'logical%'") == 0
        with p.admin() as c:
            assert c.one("SELECT count(*) FROM pg_replication_slots") == 1, "the parent's own slot"
        publisher.setblocking(False)
        with pytest.raises(BlockingIOError):
            publisher.accept()


def test_a_chain_of_fifty_branches_is_readable_at_every_depth(p):
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


def test_an_export_starts_on_a_stock_postgres(server, p, pg18):
    bank = Bank(p).init()
    with bank.running():
        p.bough("export", "main", f"{server.dir}/exported-{p.major}")
    stock = Stock(f"{server.dir}/stock-{p.major}", bindir(p, pg18))
    os.makedirs(stock.dir, exist_ok=True)
    if IS_ROOT:
        os.chown(stock.dir, OS_USER.pw_uid, OS_USER.pw_gid)
    with open(f"{server.dir}/exported-{p.major}/pg_hba.conf", "w", encoding="ascii") as f:
        f.write("local all all trust\nhost all all 127.0.0.1/32 trust\n")
    stock.start(f"{server.dir}/exported-{p.major}", user="bough_admin")
    try:
        with stock.connect("neondb", "bough_admin") as c:
            assert Bank.check(c) > 0
    finally:
        stock.stop()


def test_a_bare_postgres_refuses_a_branch(server, p, pg18):
    pgdata = p.pgdata()
    p.suspend()
    stock = Stock(f"{server.dir}/bare-{p.major}", bindir(p, pg18))
    os.makedirs(stock.dir, exist_ok=True)
    if IS_ROOT:
        os.chown(stock.dir, OS_USER.pw_uid, OS_USER.pw_gid)
    stock.start(pgdata, check=False)
    assert stock.p.poll() not in (None, 0), "a bare postgres ran on a branch"


@pytest.mark.every_version
def test_nothing_acknowledged_is_lost_by_kill_9(server, p):
    seed = random.randrange(10**9)
    print("seed", seed)
    chance = random.Random(seed)
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
                p.crash()
            ledger.progress()
    acknowledged = list(ledger.acknowledged)
    assert set(p.branches()) == {"main"} | {f"k{i}" for i in range(times(3, 12))}
    with p.connect() as c:
        Ledger.check(c, acknowledged)
    assert_clean(p)
