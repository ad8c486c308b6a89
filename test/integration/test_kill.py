"""kill -9 of the server in the middle of what it does: it is wholly there afterwards, or wholly not."""
import contextlib
import glob
import os
import random
import signal
import sqlite3
import subprocess

import pytest

import harness as h

pytestmark = pytest.mark.slow


def start(server, *args):
    return subprocess.Popen([h.BOUGH, *args, "--store", server.store], env=server.env, stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def kill_within(server, chance, longest, *args):
    """Run a command and kill the server at a random moment of it; then start the server again."""
    pid = server.pid()
    command = start(server, *args)
    with contextlib.suppress(subprocess.TimeoutExpired):
        command.wait(chance.uniform(0, longest))
    os.kill(pid, signal.SIGKILL)
    command.wait(60)
    h.wait_for(lambda: not h.is_alive(pid), "boughd is gone")
    server.up()


def layers_of_nobody(server, known):
    """Directories of layers that are of no such branch and that no stack needs: what was merged for a branch may stand
    in other stacks, too, and stays there when that branch goes."""
    groups = {n for n in os.listdir(f"{server.store}/layers") if not n.startswith(".")} - known
    for stack in glob.glob(f"{server.store}/branches/**/stack", recursive=True) if groups else ():
        with contextlib.suppress(OSError), open(stack, encoding="ascii") as f:
            groups -= {line.split("/")[0] for line in f}
    return groups


def assert_nothing_left(server):
    """Directories, sockets and processes are those of the branches that are listed, and of no other."""
    with contextlib.closing(sqlite3.connect(f"{server.store}/bough.db")) as db:
        known = {row[0] for row in db.execute("SELECT id FROM branches")}
        endpoints = {row[0] for row in db.execute("SELECT id FROM endpoints")}
        templates = {row[0] for row in db.execute("SELECT id FROM templates")}

    def names(room):
        return {n for n in os.listdir(f"{server.store}/{room}") if not n.startswith(".")}
    assert names("branches") == known | templates
    # what is needed while it is looked for goes with the next round of housekeeping
    h.wait_for(lambda: not layers_of_nobody(server, known | templates), "layers of nobody are gone", 60)
    assert {n for n in names("run") if n.startswith("ep-")} <= endpoints
    h.wait_for(lambda: not names("trash") and not names("tmp"), "unfinished work is removed")
    for pid in h.processes_below(f"{server.store}/branches"):
        with contextlib.suppress(OSError):
            assert os.readlink(f"/proc/{pid}/cwd").split("/branches/")[1].split("/")[0] in known, "a stray postgres"


def in_shared_memory(p):
    """The directories that computes of the project's main branch have, or have left."""
    return glob.glob(f"/dev/shm/bough-{p.get('main')['id']}-*")


def test_shared_memory_goes_though_no_server_saw_its_compute_end(server):
    p = server.project("p")
    assert len(in_shared_memory(p)) == 1
    postmaster = p.postmaster()
    server.kill()
    os.kill(postmaster, signal.SIGINT)  # in order: it takes its System V memory along
    h.wait_for(lambda: not h.is_alive(postmaster), "the compute is gone")
    server.up()
    assert in_shared_memory(p) == []


def test_a_start_that_fails_leaves_no_shared_memory(server):
    p = server.project("p")
    p.bough("endpoint", "suspend", "main")
    assert in_shared_memory(p) == []
    history = os.path.join(os.path.dirname(p.pgdata()), "history")
    if os.path.isdir(history):
        os.rename(history, f"{history}.aside")
    with open(history, "w", encoding="ascii"):
        pass
    p.bough("endpoint", "start", "main", check=False)
    assert in_shared_memory(p) == []
    os.unlink(history)
    if os.path.isdir(f"{history}.aside"):
        os.rename(f"{history}.aside", history)
    p.bough("endpoint", "start", "main")
    assert len(in_shared_memory(p)) == 1


def test_a_branch_is_made_wholly_or_not_at_all(server, counted):
    seed = random.randrange(10**9)
    print("seed", seed)
    chance = random.Random(seed)
    p = server.project("p")
    bank = h.Bank(p).init()
    made = 0
    with bank.running():
        for i in range(h.times(8, 60)):
            counted("kills at random moments")
            kill_within(server, chance, 0.25, "branch", "create", f"b{i}")
            if f"b{i}" in p.branches():
                made += 1
                with p.connect(f"b{i}") as c:
                    h.Bank.check(c)
                p.purge(f"b{i}")
            assert set(p.branches()) == {"main"}
            assert_nothing_left(server)
    print("made before the kill:", made)
    with p.connect() as c:
        h.Bank.check(c)
    h.assert_clean(p)


def test_a_branch_is_deleted_wholly_or_not_at_all(server, counted):
    seed = random.randrange(10**9)
    print("seed", seed)
    chance = random.Random(seed)
    p = server.project("p")
    p.sql("main", "CREATE TABLE t AS SELECT generate_series(1, 10000) AS id")
    for i in range(h.times(6, 40)):
        p.branch(f"b{i}")
        counted("kills at random moments")
        kill_within(server, chance, 0.15, "branch", "delete", f"b{i}", "--purge")
        if f"b{i}" in p.branches():
            assert p.one(f"b{i}", "SELECT count(*) FROM t") == 10000
            p.purge(f"b{i}")
        assert set(p.branches()) == {"main"}
        assert_nothing_left(server)
    assert p.one("main", "SELECT count(*) FROM t") == 10000
    h.assert_clean(p)


def test_a_project_is_made_wholly_or_not_at_all(server, make_stock, counted):
    seed = random.randrange(10**9)
    print("seed", seed)
    chance = random.Random(seed)
    stock = make_stock().init(wal_level="replica", max_wal_senders=4).start()
    with stock.connect() as c:
        c.run("CREATE TABLE t AS SELECT g AS id, repeat('x', 500) AS fill FROM generate_series(1, 50000) g")
    sources = ((), ("--from", stock.url()))
    for i in range(h.times(6, 30)):
        counted("kills at random moments")
        kill_within(server, chance, 3.0, "project", "create", f"p{i}", *sources[i % 2])
        for project in server.projects():
            made = h.Project(server, project["id"], project["name"], None, h.PG)
            assert made.one("main", "SELECT 1") == 1
            made.refused("branch", "delete", "main")
            server.bough("project", "delete", project["id"])
        assert server.projects() == []
        assert_nothing_left(server)
    with stock.connect() as c:
        h.wait_for(lambda: c.one("SELECT count(*) FROM pg_stat_replication") == 0, "the import has left its source")


def up_by_way_of(server, point):
    """Start it; where a point is given, it first ends there."""
    if point:
        server.env["BOUGH_CRASH_AT"] = point
        server.up(check=False)
        h.wait_for(lambda: server.bough("status", check=False).returncode, f"the server has come to {point}")
        del server.env["BOUGH_CRASH_AT"]
    server.up()


def spoil(layer, path):
    """As if a power cut had taken the first page of a file of a layer; `layer` ends with the file's path."""
    top = layer[:-len(f"/data/{path}")]
    for name in ("durable", "boot"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{top}/{name}")
    with open(f"{top}/boot", "w", encoding="ascii") as f:
        f.write("another boot")
    h.run(["fallocate", "--punch-hole", "--offset", "0", "--length", "8192", layer])


@pytest.mark.parametrize("point", [None, "reindex.indexed"])
def test_blocks_that_a_power_cut_took_from_a_layer_fall_through(server, point):
    """A layer's index may name blocks that never came to the disk: hint bits alone, say, which no WAL repairs.

    `point`: where the first server after the cut ends, too.
    """
    p = server.project("p")
    p.sql("main", "CREATE TABLE t (id int, n int) WITH (fillfactor = 40, autovacuum_enabled = false)")
    p.sql("main", "INSERT INTO t SELECT g, 0 FROM generate_series(1, 2000) g")
    with p.admin() as c:
        c.run("CHECKPOINT")
    p.branch("first")  # the pages as they were are in a layer of their own
    p.sql("main", "UPDATE t SET n = 1")
    with p.admin() as c:
        c.run("CHECKPOINT")
    path = p.one("main", "SELECT pg_relation_filepath('t')")
    p.branch("second")
    p.suspend()
    p.suspend("second")
    layer = sorted(glob.glob(f"{server.store}/layers/{p.get()['id']}/*/data/{path}"))[-1]
    server.down()
    spoil(layer, path)
    up_by_way_of(server, point)
    assert p.one("second", "SELECT count(*) FROM t") == 2000, "what the disk lost shows zeros"
    assert 0 < p.one("second", "SELECT count(*) FROM t WHERE n = 0") < 500
    h.assert_clean(p, "second")


def test_layers_that_only_a_snapshot_names_are_indexed_anew_too(server):
    p = server.project("p")
    p.branch("x")
    p.sql("x", "CREATE TABLE t (id int, n int) WITH (fillfactor = 40, autovacuum_enabled = false)")
    p.sql("x", "INSERT INTO t SELECT g, 0 FROM generate_series(1, 2000) g")
    with p.admin("x") as c:
        c.run("CHECKPOINT")
    p.branch("first", "x")
    p.sql("x", "UPDATE t SET n = 1")
    with p.admin("x") as c:
        c.run("CHECKPOINT")
    path, group = p.one("x", "SELECT pg_relation_filepath('t')"), p.get("x")["id"]
    p.bough("snapshot", "create", "x", "--name", "kept")
    p.purge("first")
    p.purge("x")
    layer = sorted(glob.glob(f"{server.store}/layers/{group}/*/data/{path}"))[-1]
    server.down()
    spoil(layer, path)
    server.up()
    p.bough("snapshot", "restore", "kept", "--name", "back")
    assert p.one("back", "SELECT count(*) FROM t") == 2000, "what the disk lost shows zeros"
    h.assert_clean(p, "back")


@pytest.mark.parametrize("point", [None, "settle.marked"])
def test_all_that_waited_at_a_power_cut_go_back_whoever_is_first(server, point):
    """Six branches wait for one layer, more than threads sync them: it is durable before the last is asked.

    `point`: where the first server after the cut ends, too.
    """
    names = [f"b{n}" for n in range(6)]
    p = server.project("p")
    p.sql("main", "CREATE TABLE t AS SELECT generate_series(1, 1000) AS id")
    server.down()
    server.env["BOUGH_DELAY_AT"] = "sync.begun:3600000"
    server.up()
    p.sql("main", "INSERT INTO t SELECT generate_series(1001, 2000)")
    first = {}
    for name in names:
        p.branch(name, "main")
        with p.admin(name) as c:
            c.run("INSERT INTO t VALUES (2001)")
            c.run("CHECKPOINT")
        branch = f"{server.store}/branches/{p.get(name)['id']}"
        assert os.path.exists(f"{branch}/pending")
        with open(f"{branch}/control.first", "rb") as f:
            first[branch] = f.read()
        with open(f"{branch}/pgdata/bough.control", "rb") as f:
            assert f.read() != first[branch]
    server.kill()
    h.kill_below(server.store)
    del server.env["BOUGH_DELAY_AT"]
    server.env["BOUGH_BOOT_ID_FILE"] = boot = f"{server.store}.boot"
    with open(boot, "w", encoding="ascii") as f:
        f.write("another boot")
    os.chmod(boot, 0o644)
    up_by_way_of(server, point)
    for branch, control in first.items():
        h.wait_for(lambda path=f"{branch}/pending": not os.path.exists(path), "what it stands on is durable")
        with open(f"{branch}/pgdata/bough.control", "rb") as f:
            assert f.read() == control, "it goes on from a later checkpoint"
    for name in names:
        assert p.one(name, "SELECT count(*) FROM t") == 2001
    h.assert_clean(p, names[-1])


def test_a_compute_that_settled_its_branch_itself_goes_on(server):
    """What has to go back is listed at the start, and settled one after the other; a client may come first."""
    p = server.project("p")
    for n in range(4):
        p.branch(f"b{n}")
    h.wait_for(lambda: not glob.glob(f"{server.store}/branches/*/pending"), "all is durable")
    ids = {p.get(f"b{n}")["id"]: f"b{n}" for n in range(4)}
    for name in ids.values():
        p.suspend(name)
    server.down()
    # in the order in which they are listed: one that cannot be settled, one for which that takes long, the one
    # that a client is to start, and again one that cannot
    before, slow, started, after = (b for b in os.listdir(f"{server.store}/branches") if b in ids)
    control = {}
    for branch in ids:
        path = f"{server.store}/branches/{branch}"
        with open(f"{path}/pgdata/bough.control", "rb") as f:
            control[branch] = f.read()
        with open(f"{path}/pending", "w", encoding="ascii") as f:
            f.write("refused")
        os.chmod(f"{path}/pending", 0o644)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}/control.first")
    fifo = f"{server.store}/branches/{slow}/control.first"
    os.mkfifo(fifo)
    os.chmod(fifo, 0o644)

    def cannot_be_settled(branch):
        return any("cannot be settled yet" in line and branch in line for line in server.log().splitlines())
    server.up()
    h.wait_for(lambda: cannot_be_settled(before), "they are listed")
    assert not cannot_be_settled(after)
    with open(f"{server.store}/branches/{started}/control.first", "wb") as f:
        f.write(control[started])
    os.chmod(f.name, 0o644)
    with p.connect(ids[started]) as c:
        assert not os.path.exists(f"{server.store}/branches/{started}/pending")
        with open(fifo, "wb") as f:
            f.write(control[slow])
        h.wait_for(lambda: cannot_be_settled(after), "the others have had their turn")
        assert c.one("SELECT 1") == 1


@pytest.mark.parametrize("content", [b"", bytes(512)], ids=["empty", "zeros"])
def test_lock_files_that_a_power_cut_spoiled_keep_no_branch_asleep(server, content):
    p = server.project("p")
    p.sql("main", "CREATE TABLE t AS SELECT 1 AS id")
    sockets = p.socket()["host"]
    p.suspend()
    for path in (f"{sockets}/.s.PGSQL.5432.lock", f"{sockets}/d/.s.PGSQL.5432.lock", f"{p.pgdata()}/postmaster.pid"):
        with open(path, "wb") as f:
            f.write(content)
        if h.IS_ROOT:
            os.chown(path, h.OS_USER.pw_uid, h.OS_USER.pw_gid)
    assert p.one("main", "SELECT id FROM t") == 1
