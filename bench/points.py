"""What many restore points leave behind: reads, depth and start time after 1,000 of them, as with 10.

Restore points are made after 128 KiB of WAL here instead of 32 MiB, so that a thousand of them take minutes; what is
measured afterwards depends on their number and on the layers, not on the WAL between them.
"""
import os
import stat
import time

from rig import Rig, interleave, median, note, psycopg2, run, tool, wait_for

KIB = 128


def _wrapper(directory):
    """A boughd that makes restore points so often."""
    path = os.path.join(directory, "boughd-points")
    with open(path, "w", encoding="ascii") as f:
        f.write(f'#!/bin/sh\nexec "{os.environ["BOUGH_TEST_BUILD"]}/src/server/boughd" "$@" --test-point-kib {KIB}\n')
    os.chmod(path, stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
    return path


class Past:
    """A project whose main branch has so many restore points behind it."""

    def __init__(self, rig, name, count):
        self.rig, self.project = rig, rig.project(name)
        self.main = rig.branches(self.project)["main"]["id"]
        run([tool("pgbench"), "-i", "-q", "-s", 5, rig.uri(self.project, "main")], timeout=600)
        self.made = self._make(count)
        wait_for(lambda: self.depth() <= 16, "the stack is short", 600)
        rig.admin_sql(self.project, self.main, "VACUUM", "CHECKPOINT")
        note(f"{name}: {self.made} made, {len(self.points())} kept, depth {self.depth()}")

    def points(self):
        return {n for n in os.listdir(f"{self.rig.server.store}/branches/{self.main}/points") if "~" not in n}

    def depth(self):
        return self.rig.api.call("GET", f"/projects/{self.project}/branches/{self.main}")["branch"]["depth"]

    def _make(self, count):
        """Random rows change; a change of the retention makes the server look at once whether a point is due."""
        seen, i = set(self.points()), 0
        while len(seen) < count:
            i += 1
            self.rig.admin_sql(self.project, self.main,
                               "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid IN"
                               " (SELECT (random() * 499999)::int FROM generate_series(1, 60))", "CHECKPOINT")
            self.rig.api.call("PATCH", f"/projects/{self.project}",
                              {"project": {"history_retention_seconds": 600000 + i % 2}})
            seen |= self.points()
            if i % 200 == 0:
                note(f"{len(seen)} restore points")
        return len(seen)

    def start(self):
        """ms of a start, as the API's client sees it."""
        self.rig.suspend(self.project, self.main)
        before = time.perf_counter()
        self.rig.start(self.project, self.main)
        return (time.perf_counter() - before) * 1000

    def reads_per_page(self):
        """System calls of a backend that reads a whole table which no buffer holds."""
        self.rig.suspend(self.project, self.main)
        self.rig.start(self.project, self.main)
        c = psycopg2.connect(**self.rig.admin(self.project, self.main))
        try:
            with c.cursor() as cur:
                cur.execute("SET max_parallel_workers_per_gather = 0; SELECT pg_backend_pid()")
                pid = cur.fetchone()[0]
                cur.execute("SELECT pg_relation_size('pgbench_accounts') / 8192")
                pages = cur.fetchone()[0]
                before = _calls(pid)
                cur.execute("SELECT count(*) FROM pgbench_accounts")
                return (_calls(pid) - before) / pages
        finally:
            c.close()


def _calls(pid):
    with open(f"/proc/{pid}/io", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("syscr"))


def rows(directory, quick):
    """Yields (figure, target, measured, is_reached)."""
    few, many, rounds = (5, 60, 3) if quick else (10, 1000, 15)
    rig = Rig(directory, boughd=_wrapper(directory))
    try:
        a, b = Past(rig, "few", few), Past(rig, "many", many)
        start_a, start_b = interleave(rounds, a.start, b.start)
        ratio, low, high = start_b.over(start_a)
        yield (f"{many} restore points made, thinned and merged, over {few}: start", "as with 10 (1.10 x)",
               f"{ratio:.2f} x ({low:.2f} to {high:.2f}); {start_b}", ratio <= 1.10)
        reads_a = median([a.reads_per_page() for _ in range(3)])
        reads_b = median([b.reads_per_page() for _ in range(3)])
        yield ("the same: reads for each page of a table", "as with 10 (1.10 x)",
               f"{reads_b / reads_a:.2f} x; {reads_b:.3f} and {reads_a:.3f}", reads_b <= 1.10 * reads_a)
        yield ("the same: depth of the stack", "16", f"{b.depth()}, with {len(b.points())} of {b.made} restore points"
               f" kept; {a.depth()} with {len(a.points())}", b.depth() <= 16)
    finally:
        rig.close()
