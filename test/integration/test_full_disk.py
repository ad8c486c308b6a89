"""A disk that fills up: PostgreSQL's own error, nothing half made, and sound branches once space returns."""
import contextlib
import os

import psycopg2
import pytest

import harness as h

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not h.IS_ROOT, reason="needs root to mount a file system")]
SIZE_MIB = 700


@pytest.fixture(name="disk")
def fixture_disk(directory):
    """A small ext4 of its own."""
    image, place = f"{directory}/image", f"{directory}/disk"
    os.mkdir(place)
    h.run(["truncate", "-s", f"{SIZE_MIB}M", image])
    h.run(["/sbin/mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", image])
    done = h.run(["mount", "-o", "loop", image, place], check=False)
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.strip()}")
    try:
        yield place
    finally:
        h.kill_below(place)
        h.run(["umount", place])


def free_bytes(place):
    st = os.statvfs(place)
    return st.f_bavail * st.f_frsize


@contextlib.contextmanager
def ballast(place, leave):
    """Occupy the disk but for `leave` bytes."""
    path = f"{place}/ballast"
    with open(path, "wb") as f:
        os.posix_fallocate(f.fileno(), 0, free_bytes(place) - leave)
    try:
        yield
    finally:
        os.unlink(path)


@pytest.fixture(name="p")
def fixture_p(disk, make_server):  # the server ends before its disk
    p = make_server(store=f"{disk}/store").project("p")
    p.sql("main", "CREATE TABLE t AS SELECT g AS id, repeat(md5(g::text), 8) AS fill FROM generate_series(1, 50000) g")
    return p


def can_connect(p, branch):
    with contextlib.suppress(psycopg2.OperationalError):
        p.connect(branch).close()
        return True
    return False


def test_tables_that_find_no_space_end_their_statement_and_nothing_else(p, disk):
    p.branch("child")
    with p.connect("child") as c:
        want = h.digest(c, "t", "id")
        with ballast(disk, 24 << 20):
            # unlogged, so that it is the table that fills the disk and not the WAL
            c.run("CREATE UNLOGGED TABLE u (id int, fill text)")
            with pytest.raises(psycopg2.errors.DiskFull):
                for _ in range(100):
                    c.run("INSERT INTO u SELECT g, repeat(md5(g::text), 20) FROM generate_series(1, 2000) g")
            assert c.one("SELECT count(*) FROM t") == 50000  # sorting would need space, too
            c.run("DROP TABLE u")
        assert h.digest(c, "t", "id") == want
        c.run("UPDATE t SET id = -id")
    for name in ("child", "main"):
        h.assert_clean(p, name)


def test_wal_that_finds_no_space_loses_nothing_acknowledged(p, disk):
    p.branch("child")
    done = 0
    with ballast(disk, 40 << 20):
        with pytest.raises(psycopg2.Error):
            with p.connect("child") as c:
                c.run("CREATE TABLE n (id int, fill text)")
                for i in range(1, 400):
                    c.run(f"INSERT INTO n SELECT {i}, md5(random()::text) || repeat('x', 900)"
                          " FROM generate_series(1, 1000) g")
                    done = i
        print("statements acknowledged:", done)
        assert done > 0
        p.server.status()  # the server is not hurt by it
    h.wait_for(lambda: can_connect(p, "child"), "the branch has recovered")
    with p.connect("child") as c:
        rows = c.rows("SELECT id, count(*) FROM n GROUP BY id ORDER BY id")
        assert rows[:done] == [(i, 1000) for i in range(1, done + 1)] and len(rows) <= done + 1
        c.run("UPDATE n SET fill = 'y' WHERE id = 1")
    for name in ("child", "main"):
        h.assert_clean(p, name)


def made(server):
    """The branches, layers and unfinished work that a store holds."""
    return {f"{room}/{name}" for room in ("branches", "layers", "tmp", "run", "trash")
            if os.path.isdir(f"{server.store}/{room}") for name in os.listdir(f"{server.store}/{room}")}


def test_what_is_made_on_a_full_disk_is_refused_and_leaves_nothing(p, disk, make_stock):
    stock = make_stock().init(wal_level="replica", max_wal_senders=4).start()
    with stock.connect() as c:
        c.run("CREATE TABLE t AS SELECT g AS id, repeat(md5(g::text), 20) AS fill FROM generate_series(1, 150000) g")
    h.run([h.tool("pg_dump"), "-Fc", "-Z0", "-f", f"{p.server.dir}/dump", stock.url()])
    server, before = p.server, h.allocated(f"{disk}/store")
    was_there = made(server)
    for source, leave in ((stock.url(), 60 << 20), (f"{server.dir}/dump", 120 << 20)):
        with ballast(disk, leave):
            done = server.bough("project", "create", "copy", "--from", source, "--pg-version", h.PG, check=False)
            assert done.returncode == h.EXIT["nospace"], done.stderr
            assert "no space left" in done.stderr.lower(), done.stderr
            assert [x["name"] for x in server.projects()] == ["p"]
            h.wait_for(lambda: made(server) == was_there, "the unfinished import is removed")
    with ballast(disk, 64 << 10):
        p.refused("branch", "create", "b", status=["nospace", "pg"], says="no space left")
        assert set(p.branches()) == {"main"}
    p.branch("b")
    assert p.one("b", "SELECT count(*) FROM t") == p.one("main", "SELECT count(*) FROM t") == 50000
    p.purge("b")
    h.wait_for(lambda: h.allocated(f"{disk}/store") < before + (40 << 20), "nothing is left")
    h.assert_clean(p)


def test_history_ends_before_a_branch_does(p, disk):
    p.bough("project", "update", p.name, "--history-retention", "1d")
    p.sql("main", "CREATE TABLE w (fill text)")
    early = h.now()
    with p.connect() as c:
        for _ in range(5):
            c.run("INSERT INTO w SELECT repeat(md5(g::text), 20) FROM generate_series(1, 20000) g")
    with p.admin() as c:
        c.run("CHECKPOINT")
    h.wait_for(lambda: p.get()["history_bytes"] > 40 << 20, "there is history")
    assert p.get()["history_begins_at"] <= early
    with ballast(disk, 40 << 20):
        h.wait_for(lambda: any("disk is nearly full" in w for w in p.server.status()["warnings"]), "it is told")
        h.wait_for(lambda: free_bytes(disk) > 64 << 20, "there is room again")
        with p.connect() as c:
            for _ in range(2):
                c.run("INSERT INTO w SELECT repeat(md5(g::text), 20) FROM generate_series(1, 20000) g")
        p.refused("branch", "create", "old", "--at", early, says="does not reach back")
    h.wait_for(lambda: not p.server.status()["warnings"], "the warning has ended")
    h.wait_for(lambda: "ok" if at_now(p) else None, "history begins again", 60)
    assert p.get()["history_begins_at"] > early
    assert p.one("again", "SELECT count(*) FROM w") == 140000
    h.assert_clean(p)


def at_now(p):
    return p.bough("branch", "create", "again", "--at", h.now(), check=False).returncode == 0
