"""WAL that nobody needs is given back, and nothing that anybody needs."""
import glob
import os
import random

import pytest

import harness as h

ROWS = 60000  # of about 1 KiB that does not compress


@pytest.fixture(name="p")
def fixture_p(server):
    """Without history, WAL that recovery does not need is of no use."""
    p = server.project("wal")
    server.api("PATCH", f"/projects/{p.id}", {"project": {"history_retention_seconds": 0}})
    return p


@pytest.fixture(name="either", params=[False, True], ids=["without-history", "with-history"])
def fixture_either(server, request):
    p = server.project("wal")
    if not request.param:
        server.api("PATCH", f"/projects/{p.id}", {"project": {"history_retention_seconds": 0}})
    p.keeps_history = request.param
    return p


def wal_bytes(p, branch="main"):
    """Allocated bytes of each WAL segment, by name."""
    return {os.path.basename(path): os.stat(path).st_blocks * 512
            for path in glob.glob(f"{p.pgdata(branch)}/pg_wal/0*") if len(os.path.basename(path)) == 24}


def fill(p, branch="main"):
    with p.connect(branch) as c:
        c.run("CREATE TABLE big (id int PRIMARY KEY, n int, fill bytea) WITH (fillfactor = 85)")
        c.run("ALTER TABLE big ALTER fill SET STORAGE PLAIN")
        c.run("INSERT INTO big SELECT g, 0, (SELECT string_agg(sha512((g * 16 + k)::text::bytea), '')"
              f" FROM generate_series(1, 14) k) FROM generate_series(1, {ROWS}) g")
        c.run("VACUUM (ANALYZE) big")  # or the first to read a page writes its hint bits


def test_a_small_change_costs_its_pages_once(either):
    p = either
    fill(p)
    with p.admin() as c:  # else up to 8 MiB of its WAL, replayed, is the branch's own
        c.run("CHECKPOINT")
    p.branch("b")
    with p.connect("b") as c:  # one row of each page
        c.run("UPDATE big SET n = n + 1 WHERE ctid IN (SELECT format('(%s,1)', p)::tid"
              " FROM generate_series(0, 1999) p)")
        assert c.one("SELECT count(*) FROM big WHERE n = 1") == 2000
    before = sum(wal_bytes(p, "b").values())
    assert before > 2000 * 8192 * 0.8, "the images of the pages are in the WAL"
    pending = f"{os.path.dirname(p.pgdata('b'))}/pending"
    h.wait_for(lambda: not os.path.exists(pending), "what the branch stands on is durable")
    with p.admin("b") as c:
        c.run("CHECKPOINT")
    if not p.keeps_history:
        assert sum(wal_bytes(p, "b").values()) < 4 << 20
    assert p.get("b")["own_bytes"] < 2000 * 8192 * 1.3
    p.kill_compute("b")
    assert p.one("b", "SELECT count(*) FROM big WHERE n = 1") == 2000
    h.assert_clean(p, "b")


def test_a_suspended_branch_keeps_only_the_wal_it_stopped_with(p):
    fill(p)
    with p.admin() as c:
        c.run("CHECKPOINT")
    p.suspend()
    left = wal_bytes(p)
    assert len(left) == 1 and sum(left.values()) <= 64 << 10, left
    assert p.one("main", "SELECT count(*) FROM big") == ROWS
    p.sql("main", "UPDATE big SET n = 2 WHERE id <= 100")
    p.kill_compute()
    assert p.one("main", "SELECT count(*) FROM big WHERE n = 2") == 100
    p.suspend()
    p.branch("b")
    assert p.one("b", "SELECT sum(n) FROM big") == 200
    h.assert_clean(p)


def test_segments_that_a_branch_shares_keep_what_the_other_needs(either):
    """A parent gives back WAL while its children have still to replay the same segments."""
    p = either
    seed = random.randrange(10**9)
    print("seed", seed)
    chance = random.Random(seed)
    p.sql("main", "CREATE TABLE t (id int PRIMARY KEY, n int, fill text)")
    p.sql("main", "INSERT INTO t SELECT g, 0, md5(g::text) FROM generate_series(1, 20000) g")
    expected = {}
    for i in range(h.times(12, 60)):
        p.sql("main", f"UPDATE t SET n = {i + 1} WHERE id % {chance.randrange(2, 40)} = 0")
        if chance.random() < 0.5:
            p.branch(f"b{i}")
            expected[f"b{i}"] = p.one("main", "SELECT sum(n) FROM t")
        name = chance.choice(["main", *expected])
        with p.admin(name) as c:
            c.run("CHECKPOINT")
        if chance.random() < 0.3:
            p.crash(name)
    for name, total in expected.items():
        if chance.random() < 0.5:
            p.start(name)
            p.crash(name)
        assert p.one(name, "SELECT sum(n) FROM t") == total
    for name in {"main", chance.choice(["main", *expected])}:
        p.bough("endpoint", "start", name)  # crashes are held against it when it is woken
        h.assert_clean(p, name)


def test_a_prepared_transaction_outlives_its_wal(p):
    with p.admin() as c:
        c.run("ALTER SYSTEM SET max_prepared_transactions = 5")
    p.suspend()
    if p.one("main", "SHOW max_prepared_transactions") == "0":
        pytest.skip("max_prepared_transactions cannot be set")
    p.sql("main", "CREATE TABLE t (id int)")
    with p.connect() as c:
        c.run("BEGIN")
        c.run("INSERT INTO t SELECT generate_series(1, 1000)")
        c.run("PREPARE TRANSACTION 'later'")
    for _ in range(3):
        p.sql("main", "INSERT INTO t VALUES (0)")
        with p.admin() as c:
            c.run("CHECKPOINT")
    p.kill_compute()
    with p.connect() as c:
        assert c.one("SELECT count(*) FROM t") == 3
        c.run("COMMIT PREPARED 'later'")
        assert c.one("SELECT count(*) FROM t") == 1003


def test_a_busy_branch_keeps_the_blocks_of_its_segments(p):
    """Giving blocks back and taking them again would cost commits."""
    fill(p)
    with p.connect() as c:
        for i in range(3):
            c.run("UPDATE big SET n = n + 1")
            with p.admin() as a:
                a.run("CHECKPOINT")
    assert sum(wal_bytes(p).values()) > 16 << 20
