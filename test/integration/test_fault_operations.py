"""The nth call of an operation fails, in boughd, in its tools or under a compute (test/fault, docs/reliability.md).

The operation says so or succeeds; then it is wholly there or wholly not, nothing is left of it, it can be done
(again), the server goes on, and what clients were told is there. What was interrupted or done in part nobody sees.
"""
import contextlib
import glob
import os
import random
import re
import sqlite3
import subprocess

import harness as h
import psycopg2
import pytest
from faults import COUNT, ON, ONCE, SHORT, Served, mask, number_of, served
from test_kill import assert_nothing_left, layers_of_nobody

pytestmark = pytest.mark.slow

SEED = os.environ.get("BOUGH_FAULT_SEED") or str(random.randrange(10**6))
FILES = "!(*/mmap.*)"  # where its dynamic shared memory fails, a plain cluster ends, too
SAMPLES = int(os.environ.get("BOUGH_FAULT_SAMPLES") or h.times(0, 3))  # of each kind; 0: one fault of any
GROWS = ("write", "truncate", "mkdir", "link", "rename", "xattr", "allocate", "open")
ALL = ("open", "read", "write", "sync", "rename", "link", "unlink", "mkdir", "truncate", "allocate", "mmap", "xattr",
       "list")
STOPS = ("open", "read", "write", "sync", "truncate")
KINDS = {  # mode, calls, error, whether nobody may see it
    "EIO": (ONCE, ALL, "EIO", False), "ENOSPC": (ONCE, GROWS, "ENOSPC", False),
    "full": (ON, ("write", "truncate", "mkdir", "allocate"), "ENOSPC", False),
    "EMFILE": (ONCE, ("open", "list"), "EMFILE", False), "EINTR": (ONCE, STOPS, "EINTR", True),
    "part": (SHORT, ("read", "write"), "SHORT", True)}
# SQLite has words of its own
SAID = "disk I/O error|database or disk is full|unable to open database|disk image|could not|cannot|postgres ended"


class World(Served):
    """One server for all operations, a loaded branch and a quiet one."""

    def __init__(self, directory, pg18):
        super().__init__(directory, pg18)
        self.bank = h.Bank(self.p).init()
        with self.p.connect() as c:
            h.Ledger.prepare(c)
        self.p.branch("other")
        self.p.sql("other", "CREATE TABLE t AS SELECT generate_series(1, 1000) AS id")
        self.stock, self.dump = None, os.path.join(directory, "dump")
        self.number = 0

    def source(self):
        """A server that is no branch, and a dump of it."""
        if not self.stock:
            self.stock = h.Stock(os.path.join(self.server.dir, "stock")).init().start()
            with self.stock.connect() as c:
                c.run("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id")
            h.run([h.tool("pg_dump"), "-Fc", "-f", self.dump, self.stock.url()])
            os.chmod(self.dump, 0o644)
        return self.stock.url()

    def end(self):
        if self.stock:
            self.stock.stop()
        super().end()

    def name(self):
        self.number += 1
        return f"b{self.number}"

    def names(self):
        return set(self.p.branches())

    def check(self, acknowledged):
        """Alive, nothing left, and all that there was."""
        assert self.server.pid() == self.pid, "boughd was ended"
        h.wait_for(self.is_tidy, "what is nobody's has gone", 60)
        assert_nothing_left(self.server)
        h.wait_for(lambda: not glob.glob(f"{self.server.store}/layers/*/*/refused"), "refused layers are mended", 60)
        h.wait_for(lambda: not self.half_made(), f"what was being made is removed: {self.half_made()}")
        h.wait_for(self.accepts, "the branch has recovered", 60)
        with self.p.connect() as c:
            self.bank.check(c)
            h.Ledger.check(c, acknowledged)
        assert self.p.one("other", "SELECT count(*) FROM t") == 1000

    def accepts(self, project=None, branch="main"):
        with contextlib.suppress(psycopg2.OperationalError):
            (project or self.p).connect(branch).close()
            return True
        return False

    def is_tidy(self):
        """What could not be removed goes with the next round of housekeeping."""
        with contextlib.closing(sqlite3.connect(f"{self.server.store}/bough.db")) as db:
            known = {row[0] for table in ("branches", "templates") for row in db.execute(f"SELECT id FROM {table}")}
        there = set(os.listdir(f"{self.server.store}/branches"))
        if layers_of_nobody(self.server, known) or os.listdir(f"{self.server.store}/trash"):
            return False
        return there <= known

    def half_made(self):
        found = []
        for room in ("branches/*", "branches/*/points/*", "branches/*/pgdata", "layers/*", "layers/*/*", "."):
            for name in glob.glob(f"{self.server.store}/{room}/*") + glob.glob(f"{self.server.store}/{room}/.merge"):
                leaf = os.path.basename(name)
                if re.search(r"\.tmp-\d|~$|^next$|^stack\.(next|merged)$|^probe-|^\.merge$", leaf):
                    found.append(name)
        return found


@pytest.fixture(name="world", scope="module")
def fixture_world(session_dir, pg18):
    with served(World, session_dir, "fault-operations", pg18) as world:
        yield world


# ---- the operations: what they need, what is run, and what must be so ----

class Operation:
    about = {}  # how many calls it makes, of a kind, where counting them would take too long for ./check

    def __init__(self, world):
        self.w, self.p = world, world.p
        self.name = world.name()
        self.prepare()

    def prepare(self):
        """What must be there before."""

    def command(self):
        raise NotImplementedError

    def run(self):
        return self.p.bough(*self.command(), check=False)

    def look(self, done):
        """See that it is done, or not at all; then undo it. `done`: what it said."""


class Create(Operation):
    more = ()

    def command(self):
        return ["branch", "create", self.name, *self.more]

    def look(self, done):
        there = self.name in self.w.names()
        assert there or not done, "it was acknowledged and is gone"
        if not there:
            self.p.bough(*self.command())
        self.show()
        self.p.purge(self.name)
        assert self.name not in self.w.names()

    def show(self):
        # one that was made before the disk was full to it recovers first, as any other
        h.wait_for(lambda: self.w.accepts(branch=self.name), "the branch has recovered", 60)
        with self.p.connect(self.name) as c:
            h.Bank.check(c)


class CreateOfSleeping(Create):
    more = ("--parent", "other")

    def prepare(self):
        self.p.sql("other", "CREATE TABLE IF NOT EXISTS u (n int)")
        self.p.sql("other", "INSERT INTO u VALUES (1)")
        self.p.suspend("other")

    def show(self):
        assert self.p.one(self.name, "SELECT count(*) FROM t") == 1000


class CreateSchema(Create):
    more = ("--schema-only",)

    def look(self, done):
        for look in (b for b in self.w.names() if b.startswith("tmp-look-")):  # it would go by itself
            self.p.purge(look)
        super().look(done)

    def show(self):
        assert self.p.one(self.name, "SELECT count(*) FROM pgbench_accounts") == 0


class CreateOfPast(Create):
    def prepare(self):
        self.more = ("--at", h.now())
        self.p.sql("main", "UPDATE pgbench_branches SET filler = 'later'")


class Delete(Operation):
    def prepare(self):
        self.p.branch(self.name)

    def command(self):
        return ["branch", "delete", self.name, "--purge"]

    def look(self, done):
        if self.name in self.w.names():
            assert not done, "it said that it was deleted"
            with self.p.connect(self.name) as c:
                h.Bank.check(c)
            self.p.purge(self.name)


class Snapshot(Operation):
    def command(self):
        return ["snapshot", "create", "main", "--name", self.name]

    def look(self, done):
        there = self.name in {s["name"] for s in self.p.json("snapshot", "list")}
        assert there or not done
        if not there:
            self.p.bough(*self.command())
        self.p.bough("snapshot", "restore", self.name, "--name", f"{self.name}-look")
        with self.p.connect(f"{self.name}-look") as c:
            h.Bank.check(c)
        self.p.purge(f"{self.name}-look")
        self.p.bough("snapshot", "delete", self.name)


class Restore(Operation):
    def prepare(self):
        self.p.branch(self.name)
        self.p.sql(self.name, "CREATE TABLE r AS SELECT 1 AS id")
        self.when = h.now()
        self.p.sql(self.name, "INSERT INTO r VALUES (2)")

    def command(self):
        return ["branch", "restore", self.name, "--at", self.when, "--preserve-under-name", f"{self.name}-kept"]

    def look(self, done):
        there = f"{self.name}-kept" in self.w.names()
        assert there or not done
        assert self.p.one(self.name, "SELECT array_agg(id ORDER BY id) FROM r") == ([1] if there else [1, 2])
        if there:
            assert self.p.one(f"{self.name}-kept", "SELECT count(*) FROM r") == 2
        self.p.purge(self.name)
        if there:
            self.p.purge(f"{self.name}-kept")


class Start(Operation):
    def prepare(self):
        self.p.suspend("other")

    def command(self):
        return ["endpoint", "start", "other"]


class Suspend(Operation):
    def prepare(self):
        self.p.start("other")

    def command(self):
        return ["endpoint", "suspend", "other"]


class Export(Operation):
    def prepare(self):
        self.p.suspend("other")

    def command(self):
        return ["export", "other", os.path.join(self.w.server.dir, f"export-{self.name}")]

    def look(self, done):
        target = self.command()[2]
        assert os.path.exists(f"{target}/global/pg_control") == done, "half an export, or none"
        if done:
            h.run([h.tool("pg_checksums"), "--check", "-D", target])


class Project(Operation):
    def command(self):
        return ["project", "create", self.name, "--pg-version", str(h.PG)]

    def run(self):
        return self.w.server.bough(*self.command(), check=False)

    def look(self, done):
        made = [p for p in self.w.server.projects() if p["name"] == self.name]
        assert made or not done
        if not made:
            self.run()
            made = [p for p in self.w.server.projects() if p["name"] == self.name]
        assert h.Project(self.w.server, made[0]["id"], self.name, None, h.PG).one("main", "SELECT 1") == 1
        self.w.server.bough("project", "delete", made[0]["id"])


class Import(Project):
    """pg_basebackup, a recovery and a session of one's own."""

    def prepare(self):
        self.source = self.w.source()

    def command(self):
        return super().command() + ["--from", self.source]

    def look(self, done):
        made = [p for p in self.w.server.projects() if p["name"] == self.name]
        assert made or not done
        if made:
            with h.Project(self.w.server, made[0]["id"], self.name, None, h.PG).admin(database="postgres") as c:
                assert c.one("SELECT count(*) FROM t") == 1000
            self.w.server.bough("project", "delete", made[0]["id"])


class RestoreDump(Import):
    def prepare(self):
        self.w.source()
        self.source = self.w.dump

    def look(self, done):
        made = [p for p in self.w.server.projects() if p["name"] == self.name]
        assert made or not done
        if made:
            project = h.Project(self.w.server, made[0]["id"], self.name, None, h.PG)
            assert project.one("main", "SELECT count(*) FROM t") == 1000, "half a dump"
            self.w.server.bough("project", "delete", made[0]["id"])


class Merge(Operation):
    """The server's own: many small layers become one. Whatever fails is tried again."""
    about = {"EIO": 8000, "ENOSPC": 5000, "full": 2500, "EMFILE": 1500, "EINTR": 4000, "part": 1500}

    def prepare(self):
        self.project = self.w.server.project(self.name)
        self.project.sql("main", "CREATE TABLE r (id int)")
        self.rows = 0

    def run(self):
        try:
            with self.project.connect() as c, self.project.admin() as admin:
                for i in range(9):
                    c.run(f"INSERT INTO r VALUES ({i})")
                    self.rows += 1
                    admin.run("CHECKPOINT")
                    for what in (["create", "b"], ["delete", "b", "--purge"]):
                        done = self.project.bough("branch", *what, check=False)
                        if done.returncode:
                            return done
                return done
        except psycopg2.Error as error:  # PostgreSQL says so as it does on plain files; it may have had to recover
            said = str(error).splitlines()[0]
            return subprocess.CompletedProcess([], 1, "", f"bough: error: postgres could not: {said}")

    def look(self, done):
        h.wait_for(lambda: self.w.accepts(self.project), "the branch has recovered", 60)
        rows = self.project.one("main", "SELECT count(*) FROM r")
        # one more may be there where its client was not told
        assert rows == self.rows if done else rows in (self.rows, self.rows + 1)
        self.w.server.bough("project", "delete", self.project.id)


OPERATIONS = {"branch": Create, "branch-of-sleeping": CreateOfSleeping, "branch-of-past": CreateOfPast,
              "schema": CreateSchema, "delete": Delete, "snapshot": Snapshot, "restore": Restore, "start": Start,
              "suspend": Suspend, "export": Export, "project": Project, "merge": Merge, "import": Import,
              "dump": RestoreDump}


def samples(operation):
    """(kind, program, where in the operation from 0 to 1). BOUGH_FAULT_SEED does the same again."""
    chance = random.Random(f"{SEED} {operation}")
    if SAMPLES:
        return [(kind, program, chance.random()) for kind in KINDS for program in ("boughd", "*")
                for _ in range(SAMPLES)]
    return [(chance.choice(sorted(KINDS)), chance.choice(("boughd", "boughd", "*")), chance.random())]


def judge(done, fault, pid, kind, what):
    """What the operation said of a fault that hit it."""
    _, _, error, is_unseen = KINDS[kind]
    if done.returncode == 0:
        return
    assert done.returncode > 0, f"{what}: the command died of signal {-done.returncode}"
    assert fault.fired, f"{what}: it failed by itself: {done.stderr}"
    lines = [line for line in done.stderr.strip().split("\n") if not re.match(r"[\w ]+: +(\d+%|\.\.\.)", line)]
    is_right = len(lines) in (1, 2) and lines[0].startswith("bough: error: ")
    is_right = is_right and all(line.startswith("bough: hint: ") for line in lines[1:])
    assert is_right, f"{what}: beside progress, not one line of error and at most a hint:\n{done.stderr}"
    if fault.pid == pid:
        assert not is_unseen, f"{what}: it was seen: {done.stderr}"
        reason = re.escape(os.strerror(number_of(error)))
        assert re.search(f"{reason}|{SAID}", done.stderr, re.I), f"{what}: {done.stderr}"


@contextlib.contextmanager
def loaded(world):
    """pgbench, and clients who note what they were told. Both go on after their server came back."""
    uri = world.p.uri()
    with h.pgbench(uri, "-c", 2, "-R", 200, must_survive=False), h.Ledger(uri, clients=2) as ledger:
        yield ledger


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_survives_the_failure_of_a_call(world, name, counted):
    counts, told = {}, []
    for kind, program, place in samples(name):
        mode, calls, error, _ = KINDS[kind]
        with loaded(world) as ledger:
            if not SAMPLES and kind in OPERATIONS[name].about:
                counts[kind, program] = OPERATIONS[name].about[kind]
            if (kind, program) not in counts:
                operation = OPERATIONS[name](world)
                world.fault.arm(COUNT, mask(*calls), program=program, path=FILES)
                done = operation.run()
                counts[kind, program] = world.fault.seen
                world.fault.disarm()
                assert done.returncode == 0, done.stderr
                operation.look(True)
            n = 1 + int(place * counts[kind, program])
            what = f"{name}, {kind} in {program}, call {n} of {counts[kind, program]}, seed {SEED}"
            operation = OPERATIONS[name](world)
            world.fault.arm(mode, mask(*calls), number_of(error), n, program=program, path=FILES)
            done = operation.run()
            world.fault.disarm()
            what += f" ({world.fault.what()})" if world.fault.fired else " (none)"
            counted("calls that failed in operations", world.fault.fired)
            told.append(f"{what}: {'done' if done.returncode == 0 else done.stderr.strip()}")
            print(told[-1])
            judge(done, world.fault, world.pid, kind, what)
            operation.look(done.returncode == 0)
        world.check(ledger.acknowledged)


def test_a_restore_that_the_catalogue_cannot_take_is_wholly_undone(world, counted):
    """From the nth write on the catalogue's disk is full, until the command has ended."""
    writes = mask("write", "truncate", "allocate")
    operation = Restore(world)
    world.fault.arm(COUNT, writes, program="boughd", path="*/bough.db-wal")
    done = operation.run()
    seen = world.fault.seen
    world.fault.disarm()
    operation.look(done.returncode == 0)
    for n in random.Random(SEED).sample(range(1, seen + 1), h.times(2, seen)):
        operation = Restore(world)
        world.fault.arm(ON, writes, number_of("ENOSPC"), n, program="boughd", path="*/bough.db-wal")
        done = operation.run()
        world.fault.disarm()
        counted("calls that failed in operations", world.fault.fired)
        print(f"write {n} of {seen}, seed {SEED}: {done.stderr}")
        assert done.returncode == (h.EXIT["nospace"] if world.fault.fired else 0), done.stderr
        operation.look(done.returncode == 0)
        world.check([])


def test_after_all_that_every_page_is_right(world):
    with contextlib.closing(sqlite3.connect(f"{world.server.store}/bough.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    world.p.suspend("main")  # where its last fsync fails, since it was told of a layer, it recovers
    h.assert_clean(world.p)
