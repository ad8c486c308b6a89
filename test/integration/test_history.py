"""Branches of a moment of the past: exact, across segments, restarts and restore points."""
import contextlib
import datetime
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import threading

import psycopg2
import pytest

import harness as h
from test_lifecycle import Clock

pytestmark = pytest.mark.slow


@pytest.fixture(name="p")
def fixture_p(server):
    return server.project("past")


def now():
    return datetime.datetime.now(datetime.timezone.utc)


def points(p, branch="main"):
    return [name for name in sorted(os.listdir(f"{os.path.dirname(p.pgdata(branch))}/points")) if "~" not in name]


def redos(p, branch="main"):
    """The redo locations of its restore points, as PostgreSQL writes them."""
    found = set()
    for name in points(p, branch):
        with open(f"{os.path.dirname(p.pgdata(branch))}/points/{name}/meta", encoding="ascii") as f:
            lsn = re.search("^redo ([0-9a-f]{16})$", f.read(), re.M).group(1)
        found.add(f"{int(lsn[:8], 16):X}/{int(lsn[8:], 16):X}")
    return found


def kept_segments(p, branch="main"):
    return sorted(os.listdir(f"{os.path.dirname(p.pgdata(branch))}/history"))


def write_wal(p, mib, branch="main"):
    """Rows that do not compress, and that many MiB of WAL."""
    p.sql(branch, "CREATE TABLE IF NOT EXISTS filler (fill bytea)")
    p.sql(branch, "INSERT INTO filler SELECT sha512((random()::text)::bytea) || sha512(random()::text::bytea)"
                  f" FROM generate_series(1, {mib * 6500})")


class Writer:
    """Inserts one row a transaction and notes when each began and when it was acknowledged."""

    def __init__(self, uri):
        self.uri, self.seen, self.stop = uri, [], threading.Event()
        self.thread = threading.Thread(target=self._work)

    def _work(self):
        with h.Client(psycopg2.connect(self.uri)) as c:
            n = 0
            while not self.stop.is_set():
                begun = now()
                c.run("INSERT INTO t VALUES (%s)", n)
                self.seen.append((n, begun, now()))
                n += 1

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


def check_moment(p, name, when, seen):
    there = {r[0] for r in p.rows(name, "SELECT id FROM t")}
    for n, begun, acknowledged in seen:
        if acknowledged <= when:
            assert n in there, f"{n} was acknowledged at {acknowledged}, before {when}"
        if begun > when:
            assert n not in there, f"{n} was begun at {begun}, after {when}"
    assert there == set(range(len(there))), "a gap in what one client committed in turn"


def test_a_branch_of_a_moment_has_what_was_committed_by_then_and_nothing_else(p):
    seed = random.randrange(10**9)
    print("seed", seed)
    chance = random.Random(seed)
    p.sql("main", "CREATE TABLE t (id int)")
    with Writer(p.uri()) as w:
        h.wait_for(lambda: len(w.seen) > 300, "some rows are written")
        write_wal(p, 40)  # the rows are in several segments
        with p.admin() as c:
            c.run("CHECKPOINT")
        h.wait_for(lambda: len(w.seen) > 1000, "more rows are written")
        first, last = w.seen[0][1], now()
        for i in range(h.times(20, 200)):
            when = first + (last - first) * chance.random()
            p.bough("branch", "create", f"b{i}", "--at", when.isoformat())
            check_moment(p, f"b{i}", when, list(w.seen))
            p.delete(f"b{i}")
    h.assert_clean(p)


def test_commits_a_moment_apart_are_told_apart(p):
    p.sql("main", "CREATE TABLE t (id int)")
    p.sql("main", "INSERT INTO t VALUES (0)")
    times, lsns = [], []
    for i in range(1, 6):
        with p.connect() as c:
            c.run("BEGIN")
            c.run("INSERT INTO t VALUES (%s)", i)
            c.run("COMMIT")
            times.append(now())
            lsns.append(c.one("SELECT pg_current_wal_lsn()::text"))
    for i in (1, 3, 5):
        p.bough("branch", "create", f"t{i}", "--at", times[i - 1].isoformat())
        p.bough("branch", "create", f"l{i}", "--at", lsns[i - 1])
        for kind in "tl":
            assert p.one(f"{kind}{i}", "SELECT max(id) FROM t") == i
        assert p.get(f"l{i}")["parent_lsn"] <= lsns[i - 1] or len(lsns[i - 1]) != len(p.get(f"l{i}")["parent_lsn"])


def test_the_past_goes_on_into_the_parents_past(p):
    p.sql("main", "CREATE TABLE t (id int)")
    p.sql("main", "INSERT INTO t VALUES (1)")
    early = now()
    p.sql("main", "INSERT INTO t VALUES (2)")
    p.branch("child")
    p.sql("child", "INSERT INTO t VALUES (3)")
    mid = now()
    p.sql("child", "INSERT INTO t VALUES (4)")
    p.sql("main", "INSERT INTO t VALUES (5)")
    p.bough("branch", "create", "early", "--parent", "child", "--at", early.isoformat())
    p.bough("branch", "create", "mid", "--parent", "child", "--at", mid.isoformat())
    ids = "SELECT array_agg(id ORDER BY id) FROM t"
    assert p.one("early", ids) == [1]
    assert p.one("mid", ids) == [1, 2, 3]
    assert p.one("child", ids) == [1, 2, 3, 4]
    p.sql("mid", "INSERT INTO t VALUES (6)")
    late = now()
    p.bough("branch", "create", "again", "--parent", "mid", "--at", late.isoformat())
    assert p.one("again", ids) == [1, 2, 3, 6]
    for name in ("early", "mid", "again"):
        h.assert_clean(p, name)


def test_the_past_survives_suspends_crashes_and_a_restart_of_the_server(p):
    p.sql("main", "CREATE TABLE t (id int)")
    marks = []
    for i in range(6):
        p.sql("main", f"INSERT INTO t VALUES ({i})")
        marks.append(now())
        if i % 3 == 0:
            p.suspend()
        elif i % 3 == 1:
            p.kill_compute()
        else:
            p.server.kill()
            p.server.up()
        write_wal(p, 20)
    for i in random.sample(range(6), 4):
        p.bough("branch", "create", f"m{i}", "--at", marks[i].isoformat())
        assert p.one(f"m{i}", "SELECT count(*) FROM t") == i + 1
        h.assert_clean(p, f"m{i}")


def test_a_branch_of_a_clean_stop_replays_what_came_later(p):
    """Where the nearest restore point is of a stopped server, what follows must not be left out."""
    p.sql("main", "CREATE TABLE t (id int)")
    p.suspend()
    p.branch("b")  # its first moment is a clean one
    p.sql("b", "INSERT INTO t VALUES (1)")
    when = now()
    p.sql("b", "INSERT INTO t VALUES (2)")
    p.bough("branch", "create", "c", "--parent", "b", "--at", when.isoformat())
    assert p.one("c", "SELECT array_agg(id) FROM t") == [1]


def test_restore_points_are_made_by_volume_and_shorten_the_replay(p):
    p.sql("main", "CREATE TABLE t (id int)")
    marks = []
    for i in range(3):
        p.sql("main", f"INSERT INTO t VALUES ({i})")
        before = len(points(p))
        marks.append(now())
        write_wal(p, 140)
        h.wait_for(lambda n=before: len(points(p)) > n, "a restore point is made", 60)
        with p.admin() as c:
            c.run("CHECKPOINT")
    assert kept_segments(p), "segments that left pg_wal are kept"
    for i in (2, 0, 1):
        p.bough("branch", "create", f"m{i}", "--at", marks[i].isoformat())
        assert p.one(f"m{i}", "SELECT count(*) FROM t") == i + 1
    h.assert_clean(p, "m1")
    p.bough("branch", "delete", "m0")
    assert p.one("main", "SELECT count(*) FROM t") == 3


def test_a_restore_point_follows_a_checkpoint_so_that_little_is_replayed(p):
    p.sql("main", "CREATE TABLE t (id int)")
    with p.admin() as c:  # one that the volume brings just before would have the point
        c.run("ALTER SYSTEM SET max_wal_size = '1GB'")
        c.run("SELECT pg_reload_conf()")
        h.wait_for(lambda: c.one("SHOW max_wal_size") == "1GB", "the setting is read")
    for i in range(3):
        write_wal(p, 20)
        with p.admin() as c:
            c.run("CHECKPOINT")
            redo = c.one("SELECT redo_lsn FROM pg_control_checkpoint()")
        h.wait_for(lambda redo=redo: redo in redos(p), "a restore point has the checkpoint's redo location", 30)
        p.sql("main", f"INSERT INTO t VALUES ({i})")
    _, _, made = p.server.api("POST", f"/projects/{p.id}/branches", {
        "branch": {"name": "b", "parent_timestamp": now().isoformat()}, "endpoints": [{"type": "read_write"}]})
    assert made["replay_bytes"] < 4 << 20, "of 60 MiB"
    assert p.one("b", "SELECT count(*) FROM t") == 3


def test_a_shorter_retention_forgets_and_none_keeps_nothing(p):
    p.sql("main", "CREATE TABLE t (id int)")
    early = now()
    write_wal(p, 140)
    h.wait_for(lambda: len(points(p)) > 1, "a restore point is made", 60)
    with p.admin() as c:
        c.run("CHECKPOINT")
    write_wal(p, 40)
    with p.admin() as c:
        c.run("CHECKPOINT")
    assert kept_segments(p)
    was = kept_segments(p)
    p.server.api("PATCH", f"/projects/{p.id}", {"project": {"history_retention_seconds": 1}})
    h.wait_for(lambda: kept_segments(p) != was and len(points(p)) == 1, "old history is forgotten", 30)
    p.refused("branch", "create", "b", "--at", early.isoformat(), status="invalid", says="before the history")
    p.server.api("PATCH", f"/projects/{p.id}", {"project": {"history_retention_seconds": 0}})
    p.refused("branch", "create", "b", "--at", "1 s ago", status="precondition", says="keeps no history",
              hint="history_retention_seconds")
    p.branch("plain")
    assert p.one("plain", "SELECT count(*) FROM t") == 0


def keep_history(p, seconds):
    status, _, answer = p.server.api("PATCH", f"/projects/{p.id}", {"project": {"history_retention_seconds": seconds}})
    assert status == 200, answer


def check_history_works(p, branch):
    """Across a segment and a checkpoint that PostgreSQL lets go of."""
    p.sql(branch, "INSERT INTO t VALUES (1)")
    then = now().isoformat()
    p.sql(branch, "INSERT INTO t VALUES (2)")
    for _ in range(3):
        write_wal(p, 20, branch)
        with p.admin(branch) as c:
            c.run("CHECKPOINT")
    p.branch("then", parent=branch, at=then)
    assert p.rows("then", "SELECT id FROM t") == [(1,)]
    p.purge("then")


def test_a_branch_that_was_in_use_when_history_was_turned_on_keeps_it(make_server):
    server = make_server(up=False)
    server.env["BOUGH_DELAY_AT"] = "sync.begun:6000"
    p = server.up().project("p")
    keep_history(p, 0)
    p.sql("main", "CREATE TABLE t (id int)")
    p.branch("b")  # what it stands on is being made durable, with its lock
    keep_history(p, 86400)

    def keeps():
        write_wal(p, 20, "b")
        with p.admin("b") as c:
            c.run("CHECKPOINT")
        return kept_segments(p, "b")

    h.wait_for(keeps, "its WAL is kept", 60)
    server.down()
    del server.env["BOUGH_DELAY_AT"]
    server.up()
    h.wait_for(lambda: points(p, "b"), "it has a restore point", 60)
    check_history_works(p, "b")


@pytest.mark.parametrize("is_awake", [True, False])
def test_history_begins_anew_when_it_is_turned_on(p, is_awake):
    p.sql("main", "CREATE TABLE t (id int)")
    write_wal(p, 20)
    early, lsn = now().isoformat(), p.one("main", "SELECT pg_current_wal_insert_lsn()::text")
    keep_history(p, 0)
    h.wait_for(lambda: not points(p), "no restore point stays", 30)
    for _ in range(2):
        write_wal(p, 20)
        with p.admin() as c:
            c.run("CHECKPOINT")
    assert not kept_segments(p)
    if not is_awake:
        p.suspend("main")
    keep_history(p, 86400)
    for moment in early, lsn:
        p.refused("branch", "create", "b", "--at", moment, status="notfound", says="does not reach back")
    if not is_awake:
        assert not points(p), "made while it slept"
        p.start("main")
    h.wait_for(lambda: points(p), "a restore point is made", 30)
    for moment in early, lsn:
        p.refused("branch", "create", "b", "--at", moment, status="notfound", says="does not reach back")
    check_history_works(p, "main")


def test_a_branch_that_starts_without_history_has_no_restore_point(p):
    """Its WAL may be given back before the clock looks at it."""
    keep_history(p, 0)
    p.sql("main", "CREATE TABLE t (id int)")
    p.branch("b")
    assert not points(p, "b")


@pytest.mark.parametrize("moment, status, says", [
    ("tomorrow", "usage", "is not a moment"),
    ("2026-02-30", "usage", "is not a moment"),
    ("2026-11-23 25:00", "usage", "is not a moment"),
    ("5 parsecs ago", "usage", "is not a moment"),
    ("2100-01-01", "invalid", "in the future"),
    ("FFFF/0", "invalid", "has not come to"),
    ("0/1", "notfound", "does not reach back"),
    ("300 days ago", "invalid", "before the history that is kept"),
    ("3 days ago", "notfound", "does not reach back"),
])
def test_a_moment_that_is_none_is_refused(shared, moment, status, says):
    shared.refused("branch", "create", "no", "--at", moment, status=status, says=says)
    assert "no" not in shared.branches()


@pytest.fixture(scope="module", name="shared")
def fixture_shared(shared_server):
    return shared_server.project("shared")


def history_past(p):
    """Segments in the history, and a moment in them that only its first restore point leads to."""
    p.sql("main", "CREATE TABLE t (id int)")
    write_wal(p, 20)
    p.sql("main", "INSERT INTO t VALUES (1)")
    late = now()  # there is no restore point since, whose WAL would do without those segments
    for _ in range(4):
        with p.admin() as c:
            c.run("CHECKPOINT")
        write_wal(p, 20)
    h.wait_for(lambda: len(kept_segments(p)) > 3, "segments are kept")
    return late.isoformat()


@contextlib.contextmanager
def without(p, names, points_too=True):
    """As if these segments had not been kept; and no later restore point that tells of what was."""
    home = os.path.dirname(p.pgdata())
    gone = [f"history/{name}" for name in names]
    if points_too:
        gone += [f"points/{name}" for name in points(p)[1:]]
    aside = os.path.join(p.server.dir, "aside")
    os.mkdir(aside)
    for name in gone:
        os.rename(f"{home}/{name}", f"{aside}/{os.path.basename(name)}")
    yield
    for name in gone:
        os.rename(f"{aside}/{os.path.basename(name)}", f"{home}/{name}")
    os.rmdir(aside)


@pytest.mark.parametrize("is_awake", [True, False])
def test_a_missing_segment_is_told_not_papered_over(p, is_awake):
    late = history_past(p)
    if not is_awake:
        p.suspend("main")
    for n in 1, 2, len(kept_segments(p)) - 1:
        for points_too in True, False:
            with without(p, kept_segments(p)[1:1 + n], points_too):
                p.refused("branch", "create", "b", "--at", late, says="has a gap")
    p.bough("branch", "create", "b", "--at", late)
    assert p.one("b", "SELECT count(*) FROM t") == 1


@pytest.mark.parametrize("is_awake", [True, False])
def test_wal_that_ends_before_its_end_is_told_not_papered_over(p, is_awake):
    """Within a segment, none of which is missing."""
    late = history_past(p)
    if not is_awake:
        p.suspend("main")
    kept = f"{os.path.dirname(p.pgdata())}/history/{kept_segments(p)[1]}"
    with without(p, []), open(kept, "r+b") as f:
        f.seek(8192)
        was = f.read(1 << 20)
        f.seek(8192)
        f.write(bytes(len(was)))
        f.flush()
        p.refused("branch", "create", "b", "--at", late, says="has a gap")
        f.seek(8192)
        f.write(was)
    p.bough("branch", "create", "b", "--at", late)
    assert p.one("b", "SELECT count(*) FROM t") == 1


def test_a_moment_while_a_long_record_is_being_written_is_no_gap(p):
    """It begins far before the end of what is written, and is not all there."""
    stop = threading.Event()

    def work():
        with p.connect() as c:
            while not stop.is_set():
                c.run("SELECT pg_logical_emit_message(false, 'long', repeat('long', 4000000))")

    p.sql("main", "CREATE TABLE t (id int)")
    thread = threading.Thread(target=work)
    thread.start()
    try:
        for i in range(h.times(10, 100)):
            p.sql("main", f"INSERT INTO t VALUES ({i})")
            p.bough("branch", "create", "b", "--at", now().isoformat())
            assert p.one("b", "SELECT max(id) FROM t") == i
            p.delete("b")
    finally:
        stop.set()
        thread.join()


def test_own_names_tell_moments_apart(p):
    p.sql("main", "CREATE TABLE t (id int)")
    when = now().isoformat()
    p.bough("branch", "create", "b", "--at", when)
    assert "exists already" in p.bough("branch", "create", "b", "--at", when).stdout
    p.refused("branch", "create", "b", status="conflict", hint="another moment")
    assert p.get("b")["parent_timestamp"].endswith("Z")


# ---- looks ----


def test_a_look_shows_the_moment_is_read_only_and_goes_with_psql(p):
    p.sql("main", "CREATE TABLE t AS SELECT 1 AS id")
    lsn = p.one("main", "SELECT pg_current_wal_insert_lsn()::text")
    when = h.now()
    p.sql("main", "INSERT INTO t VALUES (2)")
    for moment in (lsn, when):
        assert p.bough("psql", f"main@{moment}", "--", "-Atc", "SELECT id FROM t").stdout == "1\n"
    done = p.bough("psql", f"@{when}", "--", "-c", "INSERT INTO t VALUES (3)", check=False)
    assert done.returncode == 1 and "read-only transaction" in done.stderr
    assert set(p.branches()) == {"main"} and p.json("branch", "list", "--deleted") == []
    assert p.one("main", "SELECT array_agg(id ORDER BY id) FROM t") == [1, 2]
    p.refused("psql", "main@'yesterday'", says="not a moment")
    p.refused("psql", "main@2001-01-01", says="before")
    p.refused("psql", "none@1 s ago", says="none")
    p.branch("a@b")  # the whole name goes first
    assert p.bough("psql", "a@b", "--", "-Atc", "SELECT count(*) FROM t").stdout == "2\n"


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGHUP])
def test_a_look_goes_with_bough_that_is_ended(p, by):
    p.sql("main", "CREATE TABLE t AS SELECT 1 AS id")
    argv = [h.BOUGH, "psql", f"main@{h.now()}", "--store", p.server.store, "--project", p.id, "--", "-c",
            "SELECT pg_sleep(100)"]
    with subprocess.Popen(argv, env=p.server.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          preexec_fn=lambda: signal.signal(by, signal.SIG_DFL)) as psql:  # below nohup it is ignored
        h.wait_for(lambda: len(p.branches()) == 2, "the look is there")
        look = next(b for b in p.branches() if b != "main")
        h.wait_for(lambda: "active" in p.bough("endpoint", "list").stdout, "it runs")
        with p.admin(look) as c:
            h.wait_for(lambda: c.one("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(100)%'"
                                     " AND pid <> pg_backend_pid()"), "psql is at it")
        psql.send_signal(by)
        assert psql.wait(30) != 0
    assert set(p.branches()) == {"main"}


def test_an_lsn_right_behind_a_fork_is_the_branchs_own(project):
    """WAL is written in whole pages: the fork lies within one, and parent and child go on from there."""
    project.sql("main", "CREATE TABLE m (n int)")
    project.branch("a")
    project.branch("b", "a")
    for n in (1, 2, 3):
        project.sql("a", "INSERT INTO m VALUES (%s)", n)
    project.branch("c", "b")
    project.sql("c", "INSERT INTO m VALUES (10)")
    lsn = project.one("c", "SELECT pg_current_wal_flush_lsn()::text")
    project.sql("c", "INSERT INTO m VALUES (11)")
    project.bough("branch", "create", "then", "--parent", "c", "--at", lsn)
    assert project.rows("then", "SELECT n FROM m") == [(10,)]


@pytest.mark.parametrize("is_awake", [False, True])
def test_the_first_wal_of_a_branch_is_its_own_where_its_parent_has_written_none_since_its_start(project, is_awake):
    project.sql("main", "CREATE TABLE m (n int)")
    project.suspend("main")
    if is_awake:
        project.start("main")
    project.branch("b")
    project.sql("b", "INSERT INTO m VALUES (1)")
    lsn = project.one("b", "SELECT pg_current_wal_flush_lsn()::text")
    project.sql("b", "INSERT INTO m VALUES (2)")
    assert int(points(project, "b")[0], 16) <= int(lsn.split("/")[1], 16), "its history begins behind that"
    project.bough("branch", "create", "then", "--parent", "b", "--at", lsn)
    assert project.rows("then", "SELECT n FROM m") == [(1,)]


def test_a_moment_behind_damaged_wal_is_refused(project):
    """Recovery ends where a record is damaged, and would show an earlier moment; PostgreSQL's own refuses that, too."""
    with project.connect() as c:
        c.run("CREATE TABLE w (id int, fill text)")
        c.run("ALTER TABLE w ALTER fill SET STORAGE PLAIN")
        begin = c.one("SELECT pg_walfile_name(pg_current_wal_lsn())")
        for i in range(100):
            c.run("INSERT INTO w VALUES (%s, repeat('damage', 1000))", i)
        at = c.one("SELECT pg_current_wal_insert_lsn()")
        for i in range(100):
            c.run("INSERT INTO w VALUES (%s, repeat('later', 1000))", i)
    segment = os.path.join(project.pgdata(), "pg_wal", begin)
    with open(segment, "r+b") as f:
        data = f.read()
        place = data.index(b"damage" * 500, data.index(b"damage" * 500) + 300000)
        f.seek(place)
        f.write(b"Damage")
    project.refused("branch", "create", "then", "--at", at, says="before the moment of this branch was reached",
                    hint="history")
    assert "then" not in project.branches()
    with open(segment, "r+b") as f:
        f.seek(place)
        f.write(b"damage")
    project.branch("then", at=at)
    assert project.one("then", "SELECT count(*) FROM w") == 100


# ---- what a branch has forgotten ----


def fork_and_part(p):
    """A branch b of main; a moment of b, by LSN and by time, and main after it, at the same LSNs."""
    p.sql("main", "CREATE TABLE t AS SELECT 'of both'::text AS said")
    before = p.one("main", "SELECT pg_current_wal_insert_lsn()::text")
    p.sql("main", "CREATE TABLE later (id int)")
    p.branch("b")
    p.sql("b", "UPDATE t SET said = 'of b'")
    lsn, when = p.one("b", "SELECT pg_current_wal_insert_lsn()::text"), now()
    p.sql("main", "UPDATE t SET said = 'of main'")
    write_wal(p, 5)
    assert p.one("main", "SELECT pg_current_wal_insert_lsn() > %s::pg_lsn", lsn)
    return before, lsn, when.isoformat()


def a_later_point(p, branch):
    """Its first restore point, when it has another."""
    first = points(p, branch)
    write_wal(p, 20, branch)
    with p.admin(branch) as c:
        c.run("CHECKPOINT")
    h.wait_for(lambda: len(points(p, branch)) > len(first), "a restore point is made", 60)
    return first[0]


def test_what_a_branch_has_forgotten_is_not_its_parents(p):
    before, lsn, when = fork_and_part(p)
    first = a_later_point(p, "b")
    for moment in (lsn, when):
        p.branch("then", parent="b", at=moment)
        assert p.one("then", "SELECT said FROM t") == "of b"
        p.purge("then")
    # as where the disk is nearly full
    shutil.rmtree(f"{os.path.dirname(p.pgdata('b'))}/points/{first}")
    status, _, taken = p.server.api("POST", f"/projects/{p.id}/branches/{p.get('b')['id']}/snapshot?lsn={lsn}")
    assert status == 404, taken
    for moment in (lsn, when):
        p.refused("branch", "create", "no", "--parent", "b", "--at", moment, status="notfound",
                  says='history of branch "b" does not reach back', hint="What is kept of it begins at .*, LSN ")
        p.refused("branch", "restore", "b", "--at", moment, "--preserve-under-name", "no", status="notfound",
                  says="does not reach back")
    with pytest.raises(psycopg2.OperationalError, match="does not reach back"):
        psycopg2.connect(p.uri("b"), options=f"neon_lsn:{lsn}", dbname=f"{h.uri_parts(p.uri('b'))['dbname']}@b")
    p.branch("then", parent="b", at=before)  # before it was made: its parent's
    assert p.one("then", "SELECT said FROM t") == "of both"
    p.branch("also", parent="main", at=when)
    assert p.one("also", "SELECT said FROM t") == "of both"


def test_what_the_window_has_passed_is_not_the_parents(p):
    _, lsn, _ = fork_and_part(p)
    p.suspend("main")  # so that it keeps its first restore point
    first = a_later_point(p, "b")
    p.server.api("PATCH", f"/projects/{p.id}", {"project": {"history_retention_seconds": 1}})
    h.wait_for(lambda: first not in points(p, "b"), "the first restore point is forgotten", 60)
    p.server.api("PATCH", f"/projects/{p.id}", {"project": {"history_retention_seconds": 86400}})
    p.refused("branch", "create", "no", "--parent", "b", "--at", lsn, status="notfound", says="does not reach back")
    p.branch("mains", at=lsn)
    assert p.one("mains", "SELECT said FROM t") == "of main", "it could have been shown"


def test_where_an_older_version_did_not_say_where_a_branch_begins_nothing_is_guessed(p):
    before, lsn, when = fork_and_part(p)
    first, early = a_later_point(p, "b"), p.get("b")["created_at"]
    os.unlink(f"{os.path.dirname(p.pgdata('b'))}/begins")
    p.branch("then", parent="b", at=lsn)
    assert p.one("then", "SELECT said FROM t") == "of b"
    shutil.rmtree(f"{os.path.dirname(p.pgdata('b'))}/points/{first}")
    for moment in (before, lsn, when):
        p.refused("branch", "create", "no", "--parent", "b", "--at", moment, status="notfound",
                  says="does not reach back")
    p.branch("earlier", parent="b", at=(datetime.datetime.fromisoformat(early.replace("Z", "+00:00"))
                                        - datetime.timedelta(milliseconds=1)).isoformat())
    assert p.one("earlier", "SELECT said FROM t") == "of both"


def test_an_lsn_that_is_older_than_the_window_is_refused_as_a_time_is(directory, make_server):
    clock = Clock(directory)  # stands still, some time ago: nothing is forgotten
    clock.wall = int(now().timestamp()) - 3600
    clock.write()
    server = make_server(up=False)
    server.env["BOUGH_BOUGHD"] = clock.wrapper()
    p = server.up().project("p")
    p.sql("main", "CREATE TABLE t (id int)")
    lsn, when = p.one("main", "SELECT pg_current_wal_insert_lsn()::text"), now().isoformat()
    first = a_later_point(p, "main")
    server.api("PATCH", f"/projects/{p.id}", {"project": {"history_retention_seconds": 2}})
    with open(f"{os.path.dirname(p.pgdata())}/points/{points(p)[1]}/meta", encoding="ascii") as f:
        since = int(re.search("^time_ms ([0-9]+)$", f.read(), re.M).group(1)) / 1000
    h.wait_for(lambda: now().timestamp() > since + 3, "the window has passed it", 30)
    p.refused("branch", "create", "no", "--at", lsn, status="invalid", says="before the history that is kept",
              hint="keeps history from")
    p.refused("branch", "create", "no", "--at", when, status="invalid", says="before the history that is kept")
    assert first in points(p), "it could have been shown"
    now_lsn = p.one("main", "SELECT pg_current_wal_insert_lsn()::text")
    p.branch("late", at=now_lsn)


def test_a_restore_that_gives_the_parent_another_past_does_not_give_it_to_a_branch(make_server):
    server = make_server(up=False)
    server.env["BOUGH_DELAY_AT"] = "restore.recorded:8000"
    p = server.up().project("p")
    p.sql("main", "CREATE TABLE t AS SELECT 'first' AS said")
    first = p.one("main", "SELECT pg_current_wal_insert_lsn()::text")
    p.sql("main", "UPDATE t SET said = 'second'")
    second = p.one("main", "SELECT pg_current_wal_insert_lsn()::text")
    write_wal(p, 1)
    b = p.branch("b")["branch"]["id"]
    restore = threading.Thread(target=p.bough, args=("branch", "restore", "main", "--at", first,
                                                     "--preserve-under-name", "was"))
    restore.start()
    try:
        with contextlib.closing(sqlite3.connect(f"file:{server.store}/bough.db?mode=ro", uri=True)) as db:
            h.wait_for(lambda: db.execute("SELECT count(*) FROM swaps").fetchone()[0], "the restore has the lock")
        body = {"branch": {"name": "then", "parent_id": b, "parent_lsn": second},
                "endpoints": [{"type": "read_write"}]}
        status, _, made = server.api("POST", f"/projects/{p.id}/branches", body)
    finally:
        restore.join(60)
    assert status in (201, 423), made  # or the restore was over before it was asked
    if status == 423:
        assert "was changed by a restore" in made["message"]
        p.branch("then", parent="b", at=second)
    assert p.one("then", "SELECT said FROM t") == "second"
    assert p.one("main", "SELECT said FROM t") == "first"
