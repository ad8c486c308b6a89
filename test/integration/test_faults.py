"""A call that fails under a compute comes to PostgreSQL as it does on a plain file (docs/reliability.md)."""
import contextlib
import glob
import os
import re

import harness as h
import psycopg2
import pytest
from faults import COUNT, ON, ONCE, Faults, mask, number_of


class Subject:
    """A PostgreSQL under which calls fail: a branch, or a plain cluster."""

    def __init__(self, connect, log):
        self.connect, self.log = connect, log
        with self.connect() as c:
            self.data = c.one("SHOW data_directory")
        with self.connect() as c:
            c.run("CREATE TABLE done (id int PRIMARY KEY)")
            c.run("CREATE TABLE t AS SELECT g AS id, repeat('x', 500) AS fill FROM generate_series(1, 2000) g")
        self.last = 0

    def prepare(self):
        """Dirty pages of all kinds, and nothing else under way."""
        with self.connect() as c:
            self.last = c.one("SELECT coalesce(max(id), 0) + 1 FROM done")
            c.run("CHECKPOINT")
            c.run("INSERT INTO done VALUES (%s)", self.last)
            c.run("UPDATE t SET id = -id WHERE abs(id) <= 50")

    def recovered(self):
        """The acknowledged rows, once it takes clients again."""
        def ask():
            with contextlib.suppress(psycopg2.Error), self.connect() as c:
                return c.one("SELECT max(id) FROM done"), c.one("SELECT count(*) FROM t")
            return None
        return h.wait_for(ask, "it takes clients again", 60)

    def said(self, since):
        """What the log says of it, without what differs from run to run."""
        with open(self.log, encoding="utf-8", errors="replace") as f:
            f.seek(since)
            found = re.findall(r"(PANIC|ERROR):  (.*)", f.read())
        return [f"{level}: {re.sub('[0-9A-F]*[0-9][0-9A-F]*', 'N', re.sub(self.data, '', text))}"
                for level, text in found]

    def show(self, fault, statement, call, error, path):
        """A statement with a fault, and what came of it."""
        self.prepare()
        since = os.path.getsize(self.log)
        outcome = "succeeded"
        # of its own files: the other one writes WAL now and then, too
        with fault.failing(call, error, path=os.path.dirname(self.data) + "/" + path, program="postgres"):
            try:
                with self.connect() as c:
                    c.run(statement)
            except psycopg2.Error as e:
                outcome = "failed" if e.pgcode else "lost its connection"
            assert fault.fired, f"no {call} of {path}"
        rows = self.recovered()
        assert rows[0] >= self.last, "an acknowledged row is gone"
        said = self.said(since)
        with self.connect() as c:
            c.run("DELETE FROM done WHERE id > %s", self.last)
        return outcome, [line for line in said if line.startswith("PANIC")] or said[:1], rows[1]


INSERT = "INSERT INTO done SELECT max(id) + 1 FROM done"
CASES = [
    ("relation", "CHECKPOINT", "sync", "EIO", "*/base/*"), ("wal", INSERT, "sync", "EIO", "*/pg_wal/0*"),
    ("clog", "CHECKPOINT", "sync", "EIO", "*/pg_xact/*"), ("control", "CHECKPOINT", "sync", "EIO", "*control"),
    ("full-wal", INSERT, "write", "ENOSPC", "*/pg_wal/0*"), ("write", "CHECKPOINT", "write", "EIO", "*/base/*"),
    ("broken-wal", INSERT, "write", "EIO", "*/pg_wal/0*"), ("short-wal", INSERT, "write", "SHORT", "*/pg_wal/0*"),
    ("interrupted-wal", INSERT, "write", "EINTR", "*/pg_wal/0*"),
    ("full", "INSERT INTO t SELECT g, repeat('y', 500) FROM generate_series(1, 3000) g", "write", "ENOSPC",
     "*/base/*"),
    ("interrupted-relation", "CHECKPOINT", "write", "EINTR", "*/base/*"),
]


@pytest.fixture(name="pair", scope="module")
def fixture_pair(session_dir, pg18):
    """A plain cluster and a branch that stands on layers, both with faults."""
    directory = os.path.join(session_dir, "faults-under")
    os.makedirs(directory, mode=0o755)
    fault = Faults(directory)
    stock = h.Stock(os.path.join(directory, "stock")).init(fsync="on", autovacuum="off")
    server = h.Bough(os.path.join(directory, "s"), pg18)
    os.makedirs(server.dir, mode=0o755)
    server.env["BOUGH_LEAST_SUSPEND_SECONDS"] = "1"  # nor does it wait between the rounds of looking after layers
    try:
        stock.start(env=fault.env())
        fault.up(server)
        p = server.project("p")
        p.sql("main", "CREATE TABLE below AS SELECT generate_series(1, 1000) AS id")
        p.branch("child")
        with p.admin("child") as c:
            c.run("ALTER SYSTEM SET autovacuum = off")
            c.run("SELECT pg_reload_conf()")
        log = os.path.join(server.store, "branches", p.get("child")["id"], "postgres.log")
        yield fault, Subject(stock.connect, stock.log), Subject(lambda: p.admin("child"), log), p
    finally:
        fault.disarm()
        stock.stop()
        server.destroy()


def refused(server):
    return glob.glob(f"{server.store}/layers/*/*/refused")


def not_durable(p, branch):
    """The layers below a branch that are not known to be durable."""
    with open(f"{p.server.store}/branches/{p.get(branch)['id']}/stack", encoding="utf-8") as f:
        layers = [line.strip() for line in f if "/" in line]
    return [layer for layer in layers if not os.path.exists(f"{p.server.store}/layers/{layer}/durable")]


def await_settled(p, branch):
    waits = f"{p.server.store}/branches/{p.get(branch)['id']}/pending"
    h.wait_for(lambda: not os.path.exists(waits), f"{branch} has gone back to its first control")


@pytest.mark.parametrize("statement,call,error,path", [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_a_fault_is_what_it_is_on_a_plain_file(pair, statement, call, error, path, counted):
    counted("faults beside a plain cluster")
    fault, plain, branch, _ = pair
    wanted = plain.show(fault, statement, call, error, path)
    got = branch.show(fault, statement, call, error, path)
    assert got == wanted, fault.what()


def test_a_layer_that_the_disk_refuses_ends_all_that_trust_it(pair):
    """boughd's fsync fails, which the kernel tells once: PostgreSQL must not be told that all is well."""
    fault, _, _, p = pair
    p.branch("parent")
    p.sql("parent", "CREATE TABLE r AS SELECT g AS id, repeat('x', 500) AS fill FROM generate_series(1, 1000) g")
    log = os.path.join(p.server.store, "branches", p.get("parent")["id"], "postgres.log")

    def log_of_parent():
        with open(log, encoding="utf-8", errors="replace") as f:
            return f.read()
    with fault.failing("sync", "EIO", path="*/layers/*/data/base/*", program="boughd"):
        p.branch("made", "parent")
        h.wait_for(lambda: fault.fired, "boughd has made the layer durable")
    h.wait_for(lambda: "refused what it stands on" in p.bough("endpoint", "why", "made").stdout, "the child was ended")
    assert p.one("made", "SELECT count(*) FROM r") == 1000, "after it has replayed all since it was made"
    p.sql("parent", "UPDATE r SET id = -id")
    with contextlib.suppress(psycopg2.Error), p.admin("parent") as c:
        c.run("CHECKPOINT")
    h.wait_for(lambda: "PANIC:  could not fsync" in log_of_parent(), "its checkpoint failed")

    def rows():
        with contextlib.suppress(psycopg2.Error):
            return p.one("parent", "SELECT count(*) FROM r WHERE id < 0")
        return None
    assert h.wait_for(rows, "it has recovered") == 1000
    with p.admin("parent") as c:
        c.run("CHECKPOINT")
    h.assert_clean(p, "parent")
    h.assert_clean(p, "made")
    # and the layer is written anew, so that all goes on without a new start of the machine
    h.wait_for(lambda: not refused(p.server), "the layer is mended")
    for branch in ("parent", "made"):
        assert not not_durable(p, branch)
    p.branch("after", "parent")
    assert p.one("after", "SELECT count(*) FROM r WHERE id < 0") == 1000
    p.bough("branch", "restore", "made", "--at", h.now(), "--preserve-under-name", "kept")
    assert p.one("made", "SELECT count(*) FROM r") == 1000
    h.wait_for(lambda: not not_durable(p, "after"), "it waits no more")
    for branch in ("made", "kept", "after", "parent"):
        p.purge(branch)


def test_what_could_not_be_made_durable_at_once_is_made_so_later(pair):
    """No failed fsync, which would mean that something is lost: there was no room for a note."""
    fault, _, _, p = pair
    p.branch("parent")
    with fault.failing("open", "ENOSPC", path="*/durable.tmp*", program="boughd"):
        p.branch("made", "parent")
        h.wait_for(lambda: fault.fired, "boughd has not made the layer durable")
    h.wait_for(lambda: "could not make layers durable yet" in p.server.log(), "it has said so")
    h.wait_for(lambda: not not_durable(p, "made"), "it is durable", 60)
    await_settled(p, "made")

    def held():
        with p.admin("made") as c:
            return c.one("SHOW wal_keep_size")
    h.wait_for(lambda: "TB" not in held(), "it does not keep all its WAL any more")
    for branch in ("made", "parent"):
        p.purge(branch)


def test_a_compute_that_could_not_be_told_that_all_is_durable_is_told_later(pair):
    fault, _, _, p = pair
    p.branch("parent")

    def held():
        with p.admin("made") as c:
            return c.one("SHOW wal_keep_size")
    with fault.failing("open", "ENOSPC", on=True, path="*/durable.tmp*", program="boughd"):
        p.branch("made", "parent")
        assert "TB" in held()
        # first it runs, then it is durable, and then only that cannot be written
        fault.arm(ON, mask("open"), number_of("ENOSPC"), path="*/pgdata/postgresql.conf.tmp*",
                  program="boughd")
        h.wait_for(lambda: fault.fired, "boughd has not written the configuration", 60)
        assert not not_durable(p, "made")
        assert "TB" in held()
    h.wait_for(lambda: "TB" not in held(), "it does not keep all its WAL any more", 60)
    for branch in ("made", "parent"):
        p.purge(branch)


def test_files_that_could_not_be_removed_go_with_the_next_round(pair):
    fault, _, _, p = pair
    p.branch("gone")
    files = os.path.join(p.server.store, "branches", p.get("gone")["id"])
    with fault.failing("list", "EMFILE", on=True, program="boughd", path="/proc"):
        p.purge("gone")
        assert os.path.exists(files), "nothing failed"
    h.wait_for(lambda: not os.path.exists(files), "its files are gone", 60)


def test_a_postmaster_that_cannot_write_that_it_is_ready_is_ready_all_the_same(pair):
    fault, _, _, p = pair
    p.branch("told")
    p.suspend("told")

    def start(mode, nth):
        fault.arm(mode, mask("open"), number_of("ENOSPC"), nth, path="postmaster.pid", program="postgres")
        try:
            p.start("told")
            return fault.seen
        finally:
            fault.disarm()
    last = start(COUNT, 1)
    p.suspend("told")
    start(ONCE, last)
    log = os.path.join(p.server.store, "branches", p.get("told")["id"], "postgres.log")
    with open(log, encoding="utf-8", errors="replace") as f:
        said = f.read().split("database system is shut down")[-1]
    assert said.index("ready to accept connections") < said.index('could not open file "postmaster.pid"')
    p.suspend("told")
    p.purge("told")


def test_a_layer_is_mended_when_the_disk_takes_it_again(pair):
    fault, _, _, p = pair
    p.branch("parent")
    fill = "repeat('x', 500) AS fill FROM generate_series(1, 1000) g"
    p.sql("parent", f"CREATE TABLE r AS SELECT g AS id, {fill}")
    with fault.failing("sync", "EIO", on=True, path="*/layers/*/data/base/*", program="boughd"):
        p.branch("made", "parent")
        p.branch("sibling", "parent")
        h.wait_for(lambda: refused(p.server), "the layer is refused")
        h.wait_for(lambda: "cannot be mended yet" in p.server.log(), "mending it was tried")
        for branch in ("made", "sibling"):
            await_settled(p, branch)
            assert p.one(branch, "SELECT count(*) FROM r") == 1000
        p.sql("parent", "UPDATE r SET id = -id")
        back = ["branch", "restore", "parent", "--at", h.now(), "--preserve-under-name", "kept"]
        done = p.bough(*back, check=False)
        assert done.returncode and "the disk has refused" in done.stderr and "retry then" in done.stderr
        assert refused(p.server), "it was mended by a disk that does not work"
    h.wait_for(lambda: not refused(p.server), "the layer is mended")
    assert "is durable now" in p.server.log()
    p.bough(*back)
    p.branch("after", "parent")
    for branch in ("parent", "after"):
        assert p.one(branch, "SELECT count(*) FROM r WHERE id < 0") == 1000
    for branch in ("made", "sibling", "after", "parent"):
        h.assert_clean(p, branch)


def test_a_branch_of_the_past_that_the_disk_refuses_replays_all_again(pair):
    """Its compute leaves it to boughd to make its files durable."""
    fault, _, _, p = pair
    p.branch("before")
    p.sql("before", "CREATE TABLE r AS SELECT g AS id, repeat('x', 500) AS fill FROM generate_series(1, 1000) g")
    at = p.one("before", "SELECT pg_current_wal_flush_lsn()")
    with fault.failing("sync", "EIO", path="*/branches/*/pgdata/base/*", program="boughd"):
        p.branch("past", "before", at=at)
        branch = p.get("past")["id"]

        def updated():
            with contextlib.suppress(psycopg2.OperationalError):  # it may be ended in that moment
                p.sql("past", "UPDATE r SET id = -id WHERE id BETWEEN 1 AND 10")
                return True
            return False
        h.wait_for(updated, "the branch has been changed")
        h.wait_for(lambda: fault.fired, "boughd has made the branch durable")
    await_settled(p, "past")
    assert p.one("past", "SELECT count(*) FROM r WHERE id < 0") == 10
    with open(f"{p.server.store}/branches/{branch}/postgres.log", encoding="utf-8", errors="replace") as f:
        starts = re.findall(r"redo starts at (\S+)", f.read())
    assert len(starts) == 2 and starts[0] == starts[1], "it was ended, and has replayed all since it was made"
    with p.admin("past") as c:
        c.run("CHECKPOINT")
    h.assert_clean(p, "past")
    p.branch("later", "past")
    assert p.one("later", "SELECT count(*) FROM r WHERE id < 0") == 10
    for name in ("later", "past", "before"):
        p.purge(name)


@pytest.mark.parametrize("call", ["read", "open"])
@pytest.mark.parametrize("place", ["history", "pgdata/pg_wal"])
def test_wal_that_cannot_be_read_does_not_end_there(pair, place, call):
    """The branch of a moment would be one of an earlier moment, in silence."""
    fault, _, _, p = pair
    p.branch("told")
    p.sql("told", "CREATE TABLE w AS SELECT 1 AS id")
    if place == "history":
        with p.admin("told") as c:
            c.run("SELECT pg_switch_wal()")
            c.run("CHECKPOINT")
    p.sql("told", "INSERT INTO w VALUES (2)")
    at = p.one("told", "SELECT pg_current_wal_flush_lsn()")
    with fault.failing(call, "EIO", path=f"*/branches/*/{place}/0*", program="boughd"):
        done = p.bough("branch", "create", "then", "--parent", "told", "--at", at, check=False)
        fired = fault.fired
    if done.returncode == 0:
        assert p.one("then", "SELECT count(*) FROM w") == 2, "it shows an earlier moment"
        p.purge("then")
    else:
        assert "Input/output error" in done.stderr, done.stderr
    assert fired, "no WAL was read"
    assert done.returncode, "the failure was told"
    p.purge("told")


@pytest.mark.parametrize("error", ["EIO", "SHORT"])
@pytest.mark.parametrize("how", ["a moment", "the present", "after a crash"])
def test_recovery_that_cannot_read_wal_does_not_end_there(pair, how, error):
    """postgres takes a failed read for the end of the WAL, and goes on without what is behind."""
    fault, _, _, p = pair
    p.branch("told")
    with p.connect("told") as c:
        c.run("CREATE TABLE w AS SELECT 1 AS id")
        for _ in range(50):  # the rows are on other pages of WAL than where recovery begins
            c.run("INSERT INTO w SELECT generate_series(1, 100)")
        at = c.one("SELECT pg_current_wal_flush_lsn()")
    command = ["branch", "create", "then", "--parent", "told"] + (["--at", at] if how == "a moment" else [])
    if how == "after a crash":
        p.kill_compute("told")
        command = ["endpoint", "restart", "told"]
    name = "told" if how == "after a crash" else "then"
    fired = 0
    for nth in (1, 2, 3, 5, 8):
        with fault.failing("read", error, nth, path="*/pgdata/pg_wal/0*", program="postgres"):
            done = p.bough(*command, check=False)
            fired += fault.fired
        if done.returncode == 0:
            assert p.one(name, "SELECT count(*) FROM w") == 5001, f"it shows an earlier moment, after the {nth}th read"
            assert error == "SHORT" or not fault.fired, "a failure was not told"
        else:
            assert error == "EIO" and "Input/output error" in done.stderr, done.stderr
        if name == "told":
            if done.returncode == 0:
                p.kill_compute("told")
        elif done.returncode == 0:
            p.purge("then")
    assert fired, "no WAL was read"
    if name == "told":
        p.start("told")
        assert p.one("told", "SELECT count(*) FROM w") == 5001
    p.purge("told")


def test_after_all_that_every_page_of_the_branch_is_right(pair):
    _, _, _, p = pair
    h.assert_clean(p, "child")
