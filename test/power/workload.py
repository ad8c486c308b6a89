"""Work on a store whose file operations are recorded, and what its clients were told, noted among the records."""
import contextlib
import json
import os
import threading
import time

import harness as h
import psycopg2
import pytest
from disk import Baseline, append_note

CLIENTS = 2
MOST = h.times(4, 7)  # branches
MOST_ROWS = 3000      # of a table, but for those that come and go


class Recording:
    """A store at rest, copied; the records of what was done to it from then on."""

    def __init__(self, directory):
        self.dir = directory
        self.log = os.path.join(directory, "records")
        self.baseline = None

    def begin(self, server):
        """The server is down. Its next start, and all computes that it starts, are recorded."""
        if h.IS_SANITIZED:
            pytest.skip("a sanitizer's library must come first (dev/sanitized)")
        self.baseline = Baseline(server.store, os.path.join(self.dir, "baseline"))
        with open(self.log, "wb") as f:
            f.truncate(4096)
        os.chmod(self.log, 0o666)
        library = os.path.join(h.BUILD, "test/power/libbough_record.so")
        copy = os.path.join(self.dir, "libbough_record.so")
        with open(library, "rb") as a, open(copy, "wb") as b:
            b.write(a.read())
        os.chmod(copy, 0o755)
        server.env |= {"BOUGH_RECORD": self.log, "BOUGH_RECORD_ROOT": server.store, "LD_PRELOAD": copy,
                       "BOUGH_PRELOAD_LAST": copy,
                       # in life, some ms are between the checkpoint before a branch and its seal, and between its
                       # acknowledgement and the sync of the layer below it
                       "BOUGH_DELAY_AT": "seal.prepared:200,sync.begun:400"}

    def note(self, **words):
        append_note(self.log, json.dumps(words))


def prepare(server):
    """What is there, durable, before the recording begins."""
    p = server.project("p")
    h.Bank(p).init()
    with p.connect() as c:
        c.run("CREATE TABLE ledger (who int, n int, fill text, PRIMARY KEY (who, n))")
    p.branch("b0")
    p.branch("b00", "b0")
    server.down()
    return p


class Work:
    """pgbench, committing clients, and one thread that does all else."""

    def __init__(self, recording, project, chance):
        self.recording, self.p, self.chance = recording, project, chance
        self.uris = {}
        self.branches, self.counter, self.rows, self.tables = ["main", "b0", "b00"], 0, {}, {}
        self.stopping = threading.Event()
        self.failures = []

    def uri(self, branch):
        if branch not in self.uris:
            self.uris[branch] = self.p.uri(branch)
        return self.uris[branch]

    def _commit(self, who):
        n = 0
        try:
            with contextlib.closing(psycopg2.connect(self.uri("main"), connect_timeout=20)) as c:
                while not self.stopping.is_set():
                    n += 1
                    with c, c.cursor() as cur:
                        cur.execute("INSERT INTO ledger VALUES (%s, %s, repeat('x', 300))", (who, n))
                    self.recording.note(k="commit", branch="main", who=who, n=n)
        except psycopg2.Error as error:
            self.failures.append(error)

    def run(self, seconds):
        self.uri("main")
        threads = [threading.Thread(target=self._commit, args=(i,), daemon=True) for i in range(CLIENTS)]
        with h.pgbench(self.uri("main"), "-c", 2, "-R", 300):
            for t in threads:
                t.start()
            until = time.monotonic() + seconds
            while time.monotonic() < until and not self.failures:
                self.step()
            self.stopping.set()
            for t in threads:
                t.join(30)
        assert not self.failures, self.failures

    def step(self):
        actions = [(self.make, 5), (self.write, 6), (self.table, 4), (self.drop_table, 1), (self.checkpoint, 2),
                   (self.suspend, 2), (self.delete, 1), (self.rewrite, 2), (self.hurry, 4)]
        action = self.chance.choices([a for a, _ in actions], [w for _, w in actions])[0]
        action(self.chance.choice(self.branches))

    def make(self, parent):
        if len(self.branches) >= MOST:
            self.delete(self.chance.choice([b for b in self.branches if b not in ("main", parent)]))
            return
        self.counter += 1
        name = f"n{self.counter}"
        self.recording.note(k="ask", branch=name, parent=parent)
        self.p.branch(name, parent, at=self.moment(parent) if self.chance.random() < 0.4 else None)
        self.recording.note(k="made", branch=name)
        self.branches.append(name)

    def moment(self, parent):
        """Where the parent's WAL is: the branch replays all since the last restore point."""
        with contextlib.closing(psycopg2.connect(self.uri(parent), connect_timeout=20)) as c, c.cursor() as cur:
            cur.execute("SELECT pg_current_wal_flush_lsn()")
            return cur.fetchone()[0]

    def hurry(self, parent):
        """A branch, and checkpoints of its parent before and after the new layer is made durable."""
        made = threading.Event()

        def checkpoints():
            with contextlib.closing(self.p.admin(parent)) as c:
                while not made.is_set():
                    c.run("CHECKPOINT")
                for _ in range(5):
                    c.run("CHECKPOINT")
        t = threading.Thread(target=checkpoints, daemon=True)
        t.start()
        try:
            self.make(parent)
        finally:
            made.set()
            t.join(30)

    def delete(self, branch):
        if branch == "main" or len(self.branches) < 3:
            return
        self.recording.note(k="end", branch=branch)
        done = self.p.bough("branch", "delete", branch, "--purge", check=False)
        if done.returncode == 0:
            self.branches.remove(branch)
            self.recording.note(k="ended", branch=branch)
        else:  # it has children
            self.recording.note(k="kept", branch=branch)

    def write(self, branch):
        n = self.rows.get(branch, 0)
        with contextlib.closing(psycopg2.connect(self.uri(branch), connect_timeout=20)) as c:
            for _ in range(self.chance.randint(1, 10)):
                n += 1
                with c, c.cursor() as cur:
                    cur.execute("INSERT INTO ledger VALUES (%s, %s, repeat('y', 500))", (self.own(branch), n))
                self.recording.note(k="commit", branch=branch, who=self.own(branch), n=n)
        self.rows[branch] = n

    @staticmethod
    def own(branch):
        """The number under which this thread writes in a branch: no other branch has its rows but by inheritance."""
        return 100 if branch == "main" else 1000 + int(branch[1:]) if branch[0] == "n" else 500 + len(branch)

    def table(self, branch):
        self.counter += 1
        name, rows = f"t{self.counter}", self.chance.randint(1, MOST_ROWS)
        self.p.sql(branch, f"CREATE TABLE {name} AS SELECT g AS id, md5(g::text) FROM generate_series(1, {rows}) g;"
                           f"CREATE INDEX ON {name} (id)")
        self.recording.note(k="table", branch=branch, table=name, rows=rows)
        self.tables.setdefault(branch, []).append(name)

    def drop_table(self, branch):
        if self.tables.get(branch):
            name = self.tables[branch].pop()
            self.recording.note(k="drop", branch=branch, table=name)
            self.p.sql(branch, f"DROP TABLE {name}")

    def rewrite(self, branch):
        """What replaces, shortens and empties files."""
        if not self.tables.get(branch):
            return
        name = self.chance.choice(self.tables[branch])
        ways = [[f"VACUUM FULL {name}"], [f"REINDEX TABLE {name}"], [f"CLUSTER {name} USING {name}_id_idx"],
                [f"INSERT INTO {name} SELECT {MOST_ROWS} + g, repeat('z', 500) FROM generate_series(1, 2000) g",
                 f"DELETE FROM {name} WHERE id > {MOST_ROWS}", f"VACUUM {name}"]]
        for sql in self.chance.choice(ways):
            self.p.sql(branch, sql)

    def checkpoint(self, branch):
        with self.p.admin(branch) as c:
            c.run("CHECKPOINT")

    def suspend(self, branch):
        if branch != "main":
            self.p.suspend(branch)


class Told:
    """What clients had been told by a moment: `of()` reads the notes."""

    def __init__(self):
        self.commits = {b: {} for b in ("main", "b0", "b00")}
        self.tables = {b: {} for b in ("main", "b0", "b00")}
        self.asked, self.ending = {}, set()

    @classmethod
    def of(cls, notes):
        told = cls()
        for text in notes:
            note = json.loads(text)
            getattr(told, "_" + note["k"])(note)
        return told

    def _commit(self, note):
        self.commits[note["branch"]][note["who"]] = note["n"]

    def _ask(self, note):
        self.asked[note["branch"]] = dict(self.commits[note["parent"]]), dict(self.tables[note["parent"]])

    def _made(self, note):
        self.commits[note["branch"]], self.tables[note["branch"]] = self.asked[note["branch"]]

    def _end(self, note):
        self.ending.add(note["branch"])

    def _kept(self, note):
        self.ending.discard(note["branch"])

    def _ended(self, note):
        self.commits.pop(note["branch"], None)
        self.tables.pop(note["branch"], None)
        self.ending.discard(note["branch"])

    def _table(self, note):
        self.tables[note["branch"]][note["table"]] = note["rows"]

    def _drop(self, note):
        self.tables[note["branch"]].pop(note["table"], None)

    def branches(self):
        return sorted(set(self.commits) - self.ending)
