"""Random operations on a project under load, and what must hold whatever their order.

Each branch has a set of marks that were acknowledged; a child, a restore and a snapshot have those of their moment.
The seed is printed and makes the same operations again: BOUGH_SOAK_SEED=N, BOUGH_SOAK_SECONDS=N.
"""
import os
import random
import shutil
import time

import psycopg2
import pytest

import harness as h

pytestmark = pytest.mark.slow

SECONDS = int(os.environ.get("BOUGH_SOAK_SECONDS", h.times(15, 300)))
MOST_BRANCHES = 9


class Soak:
    """The project, and what is known of it."""

    def __init__(self, project, seed):
        self.p, self.random = project, random.Random(seed)
        self.marks = {"main": set()}    # branch: acknowledged marks
        self.parent = {"main": None}
        self.deleted = {}               # branch: its marks and parent; it can be brought back
        self.snapshots = {}             # name: marks, and whether pgbench's tables are there
        self.banks = {"main"}           # branches that have pgbench's tables
        self.protected = set()
        self.count, self.done, self.next_mark = 0, {}, 0
        self.seen = set()               # processes that worked on branches
        self.strange = set(h.segments())  # others' shared memory: numbers of processes come again

    # what to work on

    def name(self, kind="b"):
        self.count += 1
        return f"{kind}{self.count}"

    def any(self, among=None):
        chosen = self.random.choice(sorted(self.marks if among is None else among))
        self.note(f"  {chosen}")
        return chosen

    def note(self, text):
        """What was done, for the report of a failure."""
        print(text, f"(mark {self.next_mark})")

    def leaves(self):
        return [b for b in self.marks if b != "main" and b not in self.parent.values()]

    def dead_parents(self):
        """Branches whose deleted children could come back: their deletion is not tried."""
        return {parent for _, parent in self.deleted.values()}

    # operations: each returns False where there is nothing that it could work on

    def mark(self, branch=None):
        branch = branch or self.any()
        self.next_mark += 1
        self.p.sql(branch, "INSERT INTO marks VALUES (%s)", self.next_mark)
        self.marks[branch].add(self.next_mark)

    def create(self):
        if len(self.marks) >= MOST_BRANCHES:
            return False
        parent, name = self.any(), self.name()
        self.p.branch(name, parent)
        self.marks[name], self.parent[name] = set(self.marks[parent]), parent
        if parent in self.banks:
            self.banks.add(name)

    def create_at(self):
        if len(self.marks) >= MOST_BRANCHES:
            return False
        parent, name = self.any(), self.name("at")
        known = set(self.marks[parent])
        lsn = self.p.one(parent, "SELECT pg_current_wal_flush_lsn()::text")
        self.mark(parent)
        self.p.bough("branch", "create", name, "--parent", parent, "--at", lsn)
        self.marks[name], self.parent[name] = known, parent
        if parent in self.banks:
            self.banks.add(name)

    def delete(self):
        among = set(self.leaves()) - self.protected - self.dead_parents()
        if not among:
            return False
        branch = self.any(among)
        self.p.delete(branch)
        self.deleted[branch] = self.marks.pop(branch), self.parent.pop(branch)

    def purge(self):
        among = set(self.leaves()) - self.protected - self.dead_parents()
        if len(self.marks) < 5 or not among:
            return False
        branch = self.any(among)
        self.p.purge(branch)
        del self.marks[branch], self.parent[branch]

    def undelete(self):
        among = [b for b, (_, parent) in self.deleted.items() if parent in self.marks]
        if not among:
            return False
        branch = self.any(among)
        self.p.bough("branch", "undelete", branch)
        self.marks[branch], self.parent[branch] = self.deleted.pop(branch)

    def reset(self):
        among = {b for b in self.leaves() if self.parent[b]} - self.protected - self.dead_parents()
        if not among:
            return False
        branch = self.any(among)
        self.p.bough("branch", "reset", branch)
        (self.banks.add if self.parent[branch] in self.banks else self.banks.discard)(branch)
        self.marks[branch] = set(self.marks[self.parent[branch]])

    def rename(self):
        among = set(self.leaves()) - self.dead_parents()
        if not among:
            return False
        branch, name = self.any(among), self.name("r")
        self.p.bough("branch", "rename", branch, name)
        for known in (self.marks, self.parent):
            known[name] = known.pop(branch)
        for known in (self.banks, self.protected):
            if branch in known:
                known.remove(branch)
                known.add(name)

    def protect(self):
        among = [b for b in self.leaves() if b not in self.protected]
        if len(self.protected) > 1 or not among:
            return self.unprotect()
        branch = self.any(among)
        self.p.bough("branch", "protect", branch)
        self.protected.add(branch)

    def unprotect(self):
        if not self.protected:
            return False
        branch = self.any(self.protected)
        self.p.bough("branch", "unprotect", branch)
        self.protected.remove(branch)

    def snapshot(self):
        if len(self.snapshots) > 3:
            name = self.any(self.snapshots)
            self.p.bough("snapshot", "delete", name)
            del self.snapshots[name]
            return None
        branch, name = self.any(), self.name("s")
        self.p.bough("snapshot", "create", branch, "--name", name)
        self.snapshots[name] = set(self.marks[branch]), branch in self.banks

    def replace(self, branch, kept, marks, has_bank):
        """What the branch showed is in another one now."""
        self.marks[kept], self.marks[branch] = self.marks[branch], set(marks)
        if branch in self.banks:
            self.banks.add(kept)
        (self.banks.add if has_bank else self.banks.discard)(branch)

    def restore_in_place(self):
        among = set(self.marks) - self.protected - self.dead_parents()
        if len(self.marks) >= MOST_BRANCHES or not among:
            return False
        branch, kept = self.any(among), self.name("k")
        known = set(self.marks[branch])
        lsn = self.p.one(branch, "SELECT pg_current_wal_flush_lsn()::text")
        self.mark(branch)
        self.p.bough("branch", "restore", branch, "--at", lsn, "--preserve-under-name", kept)
        self.replace(branch, kept, known, branch in self.banks)

    def restore_snapshot(self):
        if len(self.marks) >= MOST_BRANCHES or not self.snapshots:
            return False
        snapshot, name = self.any(self.snapshots), self.name("rs")
        self.p.bough("snapshot", "restore", snapshot, "--name", name)
        self.marks[name], has_bank = set(self.snapshots[snapshot][0]), self.snapshots[snapshot][1]
        if has_bank:
            self.banks.add(name)

    def finalize_snapshot(self):
        if len(self.marks) >= MOST_BRANCHES or not self.snapshots:
            return False
        snapshot, kept = self.any(self.snapshots), self.name("f")
        source = self.p.json("snapshot", "get", snapshot).get("source_branch_id")
        target = next((name for name, b in self.p.branches().items() if b["id"] == source), None)
        if target is None or target in self.protected | self.dead_parents():
            return False
        self.p.bough("snapshot", "restore", snapshot, "--finalize", "--name", kept)
        self.replace(target, kept, *self.snapshots[snapshot])

    def detach(self):
        among = {b for b in self.marks if self.parent[b]} - self.dead_parents()
        if not among:
            return False
        self.p.bough("branch", "detach", self.any(among))

    def schema_only(self):
        if len(self.marks) >= MOST_BRANCHES or self.p.major != h.PG:  # other versions' pg_dump is not here
            return False
        parent, name = self.any(), self.name("so")
        self.p.bough("branch", "create", name, "--parent", parent, "--schema-only")
        self.marks[name] = set()

    def expire(self):
        among = set(self.leaves()) - self.protected - self.dead_parents()
        if not among:
            return False
        branch = self.any(among)
        self.p.bough("branch", "set-expiration", branch, "--expires-in", "1s")
        h.wait_for(lambda: branch not in self.p.branches(), f"{branch} expires")
        self.p.purge(branch)  # brought back, it would expire again
        del self.marks[branch], self.parent[branch]

    def export(self):
        branch, target = self.any(), os.path.join(self.p.server.dir, self.name("export"))
        self.p.suspend(branch)  # pg_checksums wants a cluster that was shut down
        self.p.bough("export", branch, target, timeout=300)
        if self.p.major == h.PG:  # other versions' tools are not here
            h.run([h.tool("pg_checksums"), "--check", "-D", target])
        shutil.rmtree(target)

    def role(self):
        path, name = f"/projects/{self.p.id}/branches/{self.p.get(self.any())['id']}/roles", self.name("role")
        status, _, answer = self.p.server.api("POST", path, {"role": {"name": name}})
        assert status == 201, answer
        status, _, answer = self.p.server.api("DELETE", f"{path}/{name}")
        assert status == 200, answer

    def key(self):
        made = self.p.server.json("api-key", "create", self.name("key"), "--for-project", self.p.id)
        self.p.server.bough("api-key", "revoke", made["id"])

    def resize(self):
        branch = self.any()
        self.p.bough("endpoint", "resize", branch, self.random.choice(["0.25", "0.5", "1", "2"]))
        self.p.bough("endpoint", "restart", branch)

    def collect(self):
        self.p.server.bough("store", "gc")

    def suspend(self):
        self.p.suspend(self.any())

    def start(self):
        self.p.start(self.any())

    def restart(self):
        self.p.bough("endpoint", "restart", self.any())

    def crash(self):
        branch = self.any()
        self.p.start(branch)
        self.p.crash(branch)

    def kill_server(self):
        self.p.server.kill()
        self.p.server.up()

    def look(self):
        branch = self.any()
        assert self.p.get(branch)["name"] == branch
        self.p.json("endpoint", "list")
        self.p.json("operation", "list")
        self.p.json("snapshot", "list")

    def readers(self):
        """Read-only endpoints by the branch that they are of."""
        names, found = {b["id"]: name for name, b in self.p.branches().items()}, {}
        for e in self.p.json("endpoint", "list"):
            if e["type"] == "read_only":
                found.setdefault(names[e["branch_id"]], []).append(e["id"])
        return found

    def reader(self):
        """One more, or one less."""
        known = self.readers()
        if sum(map(len, known.values())) < 3:
            self.p.bough("endpoint", "create", self.any(), "--type", "read_only")
            return
        verb = self.random.choice(("delete", "suspend", "suspend", "restart"))
        self.p.bough("endpoint", verb, known[self.any(known)][0])

    def read(self):
        known = self.readers()
        if not known:
            return False
        branch = self.any(known)
        for endpoint in known[branch]:
            self.check_reader(branch, endpoint)
        return None

    def sql(self):
        branch, name = self.any(), self.name("db")
        with self.p.connect(branch) as c:
            c.run(f"CREATE DATABASE {name}")
            c.run(f"DROP DATABASE {name}")

    OPERATIONS = {"mark": 10, "create": 6, "create_at": 2, "delete": 3, "purge": 3, "undelete": 2, "reset": 2,
                  "rename": 2, "protect": 1, "snapshot": 2, "suspend": 3, "start": 2, "restart": 2, "crash": 1,
                  "kill_server": 1, "look": 2, "sql": 1, "restore_in_place": 2, "restore_snapshot": 2,
                  "finalize_snapshot": 2, "detach": 1, "schema_only": 1, "expire": 1, "export": 1, "role": 1,
                  "key": 1, "resize": 1, "collect": 1, "reader": 3, "read": 5}

    def step(self):
        verb = self.random.choices(list(self.OPERATIONS), list(self.OPERATIONS.values()))[0]
        self.note(verb)
        if getattr(self, verb)() is not False:
            self.done[verb] = self.done.get(verb, 0) + 1
        self.seen.update(h.processes_below(f"{self.p.server.store}/branches"))
        self.check_names()

    # what must hold

    def check_names(self):
        found = self.p.branches()
        assert set(found) == set(self.marks)
        self.parent = {name: b.get("parent_name") for name, b in found.items()}

    def check_branch(self, branch):
        with self.p.connect(branch) as c:
            found = {n for (n,) in c.rows("SELECT n FROM marks")}
            assert found == self.marks[branch], \
                f"{branch}: lost {self.marks[branch] - found}, too many {found - self.marks[branch]}"
            if branch in self.banks:
                h.Bank.check(c)

    def check_reader(self, branch, endpoint):
        """It has what the branch has, after a moment, and never anything else."""
        def sees_all():
            with self.p.connect(uri=self.p.bough("cs", branch, "--endpoint", endpoint).stdout.strip()) as c:
                assert c.one("SELECT pg_is_in_recovery()")
                found = {n for (n,) in c.rows("SELECT n FROM marks")}
                assert found <= self.marks[branch], f"{endpoint}: too many {found - self.marks[branch]}"
                if branch in self.banks:
                    h.Bank.check(c)
                return found == self.marks[branch]
        h.wait_for(sees_all, f"the reader {endpoint} of {branch} has all", pause=0.1)

    def check_all(self):
        for branch in sorted(self.marks):
            self.check_branch(branch)
        for branch, endpoints in self.readers().items():
            for endpoint in endpoints:
                self.check_reader(branch, endpoint)

    def check_files(self):
        """Directories and processes are those of the catalogue."""
        store = self.p.server.store
        live = {b["id"] for b in self.p.branches().values()}
        forks = {e for endpoints in self.readers().values() for e in endpoints}  # of those that are awake
        made = {d for d in os.listdir(f"{store}/branches") if not d.startswith("pg")} - forks
        gone = {b["id"] for b in self.p.json("branch", "list", "--deleted")} if self.deleted else set()
        assert live <= made, f"without files: {live - made}"
        kept = len(self.snapshots)  # a snapshot keeps its moment in a directory of its own
        assert len(made - live - gone) <= kept, f"of no branch: {made - live - gone}"
        running = {os.readlink(f"/proc/{pid}/cwd").split("/")[-2]
                   for pid in h.processes_below(f"{store}/branches") if h.is_alive(pid)}
        assert running <= live | forks, f"computes of no branch: {running - live}"
        h.wait_for(lambda: not h.segments_of({pid for pid in self.seen if not h.is_alive(pid)}) - self.strange,
                   "the shared memory of dead computes is gone")


def resources(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as f:
        pages = int(f.read().split()[1])
    return len(os.listdir(f"/proc/{pid}/fd")), pages * os.sysconf("SC_PAGESIZE")


@pytest.mark.parametrize("seed", [int(os.environ.get("BOUGH_SOAK_SEED", random.randrange(10**6)))])
def test_random_operations_under_load_lose_nothing_and_leave_nothing(project, seed, counted):
    print(f"BOUGH_SOAK_SEED={seed} BOUGH_SOAK_SECONDS={SECONDS}")
    soak, server = Soak(project, seed), project.server
    h.Bank(project).init()
    project.sql("main", "CREATE TABLE marks (n int)")
    soak.mark("main")
    until, load = time.monotonic() + SECONDS, None
    try:
        while time.monotonic() < until:
            if load is None or load.poll() is not None:  # its compute was stopped
                load = h.subprocess.Popen(
                    [h.tool("pgbench"), "-n", "-T", "3600", "-c", "2", "--rate", "50", project.uri("main")],
                    stdin=h.subprocess.DEVNULL, stdout=h.subprocess.DEVNULL, stderr=h.subprocess.DEVNULL)
            try:
                soak.step()
            except psycopg2.Error as e:
                raise AssertionError(f"a client was refused: {e}\n{soak.done}") from e
    finally:
        if load:
            load.kill()
            load.wait()
    print(soak.done)
    counted("seconds of random operations", SECONDS)
    counted("random operations", sum(soak.done.values()))
    assert sum(soak.done.values()) >= 10, soak.done
    soak.check_all()
    soak.check_files()
    # what is made and deleted again costs no descriptor and no memory that stays
    def round_trip():
        name = soak.name("leak")
        project.branch(name)
        project.sql(name, "SELECT 1")
        project.purge(name)
    for _ in range(2):
        round_trip()
    before = resources(server.pid())
    for _ in range(h.times(4, 40)):
        round_trip()
    after = h.wait_for(lambda: (r := resources(server.pid()))[0] <= before[0] + 2 and r, "descriptors are closed")
    assert after[1] < before[1] + (24 << 20), f"memory grew from {before[1]} to {after[1]}"
    soak.check_files()
