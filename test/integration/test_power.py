"""Power cuts: a recorded run, cut at random moments, as the disk may hold it (test/power, docs/reliability.md)."""
import concurrent.futures
import contextlib
import glob
import os
import pickle
import random
import shutil
import sqlite3
import sys
import time

import harness as h
import pytest
from test_kill import assert_nothing_left

sys.path.insert(0, os.path.join(h.ROOT, "test/power"))
from disk import LINK, NOTE, RENAME, SYNC_END, SYNCFS_END, UNLINK, Disk, differences, read_log  # noqa: E402
from workload import MOST_ROWS, Recording, Told, Work, prepare  # noqa: E402

pytestmark = pytest.mark.slow

SEED = int(os.environ.get("BOUGH_POWER_SEED") or random.randrange(10**6))
CUTS = int(os.environ.get("BOUGH_POWER_CUTS") or h.times(20, 50))
RUNS = int(os.environ.get("BOUGH_POWER_RUNS") or h.times(1, 10))
SECONDS = h.times(4, 8)
STYLES = tuple(os.environ.get("BOUGH_POWER_STYLES", "ordered").split(","))


def not_on_disk(name):
    """Files that nothing depends on after a power cut: written by other means, or not worth recording."""
    return (name.endswith((".log", "-shm", "postmaster.pid", "/postmaster.opts")) or name.startswith("/run")
            or "/pg_stat_tmp" in name or "/bough_tmp" in name or name == "/lock")


def record(make_server, directory, chance):
    server = make_server("recorded")
    p = prepare(server)
    recording = Recording(directory)
    recording.begin(server)
    server.up()
    Work(recording, p, chance).run(SECONDS)
    server.down()
    with open(os.path.join(directory, "start"), "wb") as f:
        pickle.dump(recording.baseline, f)
    disk = Disk(recording.baseline)
    for r in read_log(recording.log):
        disk.feed(r)
    assert not disk.unseen, f"the recorder does not know {disk.unseen}"
    missed = differences(disk, server.store, not_on_disk)
    assert not missed, "the recorder did not see everything:\n" + "\n".join(missed[:20])
    return p


class Case:
    """One cut: its number, its moment in the records, and the seed of what came to the disk."""

    def __init__(self, number, seq, seed, style):
        self.number, self.seq, self.seed, self.style = number, seq, seed, style
        self.told, self.kinds = None, None

    def build(self, disk, store):
        chance = random.Random(self.seed)
        cut = disk.build(store, chance, self.style)
        self.told = Told.of(disk.notes)
        self.kinds = dict(cut.lost)
        if h.IS_ROOT:
            h.run(["chown", "-hR", f"{h.OS_USER.pw_uid}:{h.OS_USER.pw_gid}", store])
        return self


# Most records are writes: most cuts are where something became durable or got its name, or a branch was acknowledged.
TURNS = {SYNC_END, SYNCFS_END, RENAME, LINK, UNLINK, NOTE}


NEAR = 2000  # records, about as many as come before the sync of a new layer has ended


def cases(log, count, chance, styles=STYLES):
    moments, turns, made, near = [], [], [], []
    for r in read_log(log):
        moments.append(r.seq)
        if r.op in TURNS:
            turns.append(r.seq)
            if made and r.seq - made[-1] < NEAR:
                near.append(r.seq)
        if r.op == NOTE and b'"made"' in r.data[0][r.data[1]:r.data[1] + r.data[2]]:
            made.append(r.seq)  # the layer below the child may not be durable yet
    kinds = [moments, near or turns, made or turns, turns]
    picked = sorted(chance.choice(kinds[i % len(kinds)]) for i in range(count))
    return [Case(i, seq, chance.randrange(10**9), styles[i % len(styles)]) for i, seq in enumerate(picked)]


def start_after_cut(directory, pg_path=None):
    with open(os.path.join(directory, "boot"), "w", encoding="ascii") as f:
        f.write("after-the-cut")
    os.chmod(os.path.join(directory, "boot"), 0o644)
    server = h.Bough(directory, pg_path)
    server.env["BOUGH_BOOT_ID_FILE"] = os.path.join(directory, "boot")
    return server


def check_branch(p, told, branch):
    with p.connect(branch) as c:
        h.Bank.check(c)
        have = {who: (top, count) for who, top, count in
                c.rows("SELECT who, max(n), count(*) FROM ledger GROUP BY who")}
        for who, n in told.commits[branch].items():
            top, count = have.get(who, (0, 0))
            assert top >= n, f"{branch}: commit {n} of {who} was acknowledged; {top} is the last"
            assert top == count, f"{branch}: commits of {who} are missing in the middle"
        for table, rows in told.tables[branch].items():
            # those above come and go, unacknowledged (Work.rewrite)
            assert c.one(f"SELECT count(*) FROM {table} WHERE id <= {MOST_ROWS}") == rows, f"{branch}: rows of {table}"


def check_store(directory, case, project_id):
    """Start on what is left and look for all that clients were told."""
    server = start_after_cut(directory)
    try:
        server.up()
        p = h.Project(server, project_id, "p", None, h.PG)
        there = p.branches()
        for branch in case.told.branches():
            assert branch in there, f"branch {branch} was acknowledged and is not there"
            check_branch(p, case.told, branch)
        # what was asked for and not acknowledged may be there: then it works
        for branch in set(there) - set(case.told.branches()):
            with p.connect(branch) as c:
                h.Bank.check(c)
        with contextlib.closing(sqlite3.connect(f"{server.store}/bough.db")) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if h.LONG or case.number % 4 == 1:
            h.assert_clean(p, case.told.branches()[case.number % len(case.told.branches())])
        assert_nothing_left(server)
    finally:
        server.destroy()


def check_cuts(recording_dir, project_id, work_dir, wanted):
    """All of the cases, in the order of their moments; two stores at a time. Returns [(case, failure)]."""
    with open(os.path.join(recording_dir, "start"), "rb") as f:
        disk = Disk(pickle.load(f).moved(os.path.join(recording_dir, "baseline")))
    records = read_log(os.path.join(recording_dir, "records"))
    failed, waiting = [], set()

    def finish(when):
        done, left = concurrent.futures.wait(waiting, return_when=when)
        waiting.intersection_update(left)
        for job in done:
            if job.exception():
                failed.append((job.case, job.exception()))
            else:
                shutil.rmtree(job.directory, ignore_errors=True)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for case in wanted:
            while disk.seq < case.seq:
                disk.feed(next(records))
            if len(waiting) >= 2:
                finish(concurrent.futures.FIRST_COMPLETED)
            directory = os.path.join(work_dir, f"cut{case.number}")
            os.makedirs(directory, mode=0o755)
            case.build(disk, os.path.join(directory, "store"))
            job = pool.submit(check_store, directory, case, project_id)
            job.case, job.directory = case, directory
            waiting.add(job)
        finish(concurrent.futures.ALL_COMPLETED)
    return failed


def keep(directory, seed):
    """The records and the start of a run that failed, where they outlive the test."""
    kept = os.path.join(os.environ.get("BOUGH_TEST_DIR", "/var/tmp"), f"bough-power-{seed}-{os.getpid()}")
    os.rename(directory, kept)  # no copy: it would have other holes
    return kept


@pytest.mark.parametrize("run", range(RUNS))
def test_what_was_acknowledged_outlives_a_power_cut(run, make_server, directory, counted):
    began = time.monotonic()
    chance = random.Random(SEED + run)
    recording_dir = os.path.join(directory, "recording")
    os.makedirs(recording_dir, mode=0o755)
    p = record(make_server, recording_dir, chance)
    with open(os.path.join(recording_dir, "project"), "w", encoding="ascii") as f:
        f.write(f"{p.id} {SEED + run} {CUTS} {','.join(STYLES)}")
    print(f"seed {SEED + run}, recorded in {time.monotonic() - began:.0f} s, "
          f"{os.path.getsize(os.path.join(recording_dir, 'records')) >> 20} MiB of records")
    wanted = cases(os.path.join(recording_dir, "records"), CUTS, random.Random(SEED + run))
    failed = check_cuts(recording_dir, p.id, directory, wanted)
    print(f"{CUTS} cuts in {time.monotonic() - began:.0f} s")
    counted("power cuts", CUTS)
    if failed:
        kept = keep(recording_dir, SEED + run)
        lines = [f"cut {case.number} ({case.style}, lost {case.kinds}): {error}\n  again: test/power/run --again "
                 f"{kept} {case.number}" for case, error in failed]
        pytest.fail("\n".join(lines))


def test_a_checkpoint_makes_the_layer_below_durable(make_server, directory):
    """What a parent's fsync vouches for may have been written before the seal. boughd's own sync is held here."""
    recording_dir = os.path.join(directory, "recording")
    os.makedirs(recording_dir, mode=0o755)
    server = make_server("recorded")
    p = server.project("p")
    p.sql("main", "CREATE TABLE t AS SELECT g AS id, 0 AS n FROM generate_series(1, 1000) g")
    relation = p.one("main", "SELECT pg_relation_filepath('t')")
    server.down()
    recording = Recording(recording_dir)
    recording.begin(server)
    server.env["BOUGH_DELAY_AT"] = "sync.begun:3600000"
    server.up()
    p.sql("main", "UPDATE t SET n = 1")
    with p.admin() as c:
        c.run("CHECKPOINT")
        layers = set(glob.glob(f"{server.store}/layers/{p.get()['id']}/*/data/{relation}"))
        p.branch("child")
        recording.note(k="made", branch="child")
        made = set(glob.glob(f"{server.store}/layers/{p.get()['id']}/*/data/{relation}")) - layers
        assert len(made) == 1, "the table's pages are in the sealed layer"
        p.sql("main", "UPDATE t SET n = 2")
        c.run("CHECKPOINT")
    layer, synced, is_made = os.stat(made.pop()).st_ino, 0, False
    server.kill()  # it would wait for its sync
    h.kill_below(server.store)  # nobody is writing a record
    for r in read_log(recording.log):
        is_made = is_made or r.op == NOTE
        synced += is_made and r.op == SYNC_END and r.inode == layer
    assert synced, "a checkpoint vouched for pages in a layer that nobody had made durable"


@pytest.mark.skipif(not os.environ.get("BOUGH_POWER_AGAIN"), reason="for test/power/run --again")
def test_a_cut_again(directory):
    kept, number = os.environ["BOUGH_POWER_AGAIN"].rsplit(":", 1)
    with open(os.path.join(kept, "project"), encoding="ascii") as f:
        project_id, seed, count, styles = f.read().split()
    wanted = [c for c in cases(os.path.join(kept, "records"), int(count), random.Random(int(seed)), styles.split(","))
              if number == "all" or c.number == int(number)]
    failed = check_cuts(kept, project_id, directory, wanted)
    assert not failed, "\n".join(f"cut {case.number}: {error}" for case, error in failed)
