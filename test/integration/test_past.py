"""Moments of the past by the front door, as Neon's connection strings name them: neon_timestamp and neon_lsn."""
import contextlib
import hashlib
import io
import os
import sqlite3
import ssl
import threading

import psycopg2
import pytest

import harness as h
import test_door as t
from test_lifecycle import fixture_clock, fixture_p  # noqa: F401 (fixtures)

LOOKS_MAX, LOOK_KEPT_S = 8, 60


class Past(t.Door):
    """A branch with one row at a moment, and two now."""

    def __init__(self, project, branch="main"):
        super().__init__(project, branch)
        self.branch = project.get(branch)["id"]
        with self.connect(super().clear()) as c:
            c.run("CREATE TABLE t AS SELECT 1 AS id")
            self.lsn = c.one("SELECT pg_current_wal_insert_lsn()::text")
        self.when = h.now()
        with self.connect(super().clear()) as c:
            c.run("INSERT INTO t VALUES (2)")

    def at(self, moment=None):
        """The word for a moment."""
        moment = moment or self.when
        return f"neon_lsn:{moment}" if "/" in moment else f"neon_timestamp:{moment}"

    def clear_at(self, moment=None, **more):
        return self.clear(**{"options": f"endpoint={self.endpoint} {self.at(moment)}"} | more)

    def tls_at(self, moment=None, **more):
        return self.tls(**{"host": f"{self.branch}.localhost", "options": self.at(moment)} | more)

    def looks(self):
        return [b for b in self.project.branches().values() if b.get("look")]


@pytest.fixture(name="past")
def fixture_past(project):
    return Past(project)


@pytest.fixture(scope="module", name="strings")
def fixture_strings(shared_server):
    """For tests of strings that lead nowhere."""
    return Past(shared_server.project("strings"))


def ids(c):
    return [row[0] for row in c.rows("SELECT id FROM t ORDER BY id")]


@pytest.mark.every_version
def test_a_moment_is_seen_in_clear_and_in_tls(past):
    ca = t.ca_file(past)
    verified = {"sslmode": "verify-full", "sslrootcert": ca, "channel_binding": "require"}
    for dsn, is_tls in [(past.clear_at(), False), (past.clear_at(past.lsn), False),
                        (past.tls_at(channel_binding="require"), True), (past.tls_at(past.lsn, **verified), True),
                        (past.tls_at(**verified, options=f"-c work_mem=3MB {past.at()}"), True),
                        (past.clear(options=f"project={past.project.name} {past.at()}"), False),
                        (past.clear(options=past.at(), dbname=f"{past.login['dbname']}@main"), False)]:
        with past.connect(dsn) as c:
            assert ids(c) == [1], dsn
            assert c.one(t.ME)[:2] == ("127.0.0.1", is_tls)
            assert c.one("SHOW work_mem") == ("3MB" if "work_mem" in dsn["options"] else "4MB")
            with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
                c.run("INSERT INTO t VALUES (3)")
    looks = past.looks()  # who wants the same moment shares it
    assert len(looks) == 2 and all(b["name"].startswith(f"tmp-look-{past.branch}-") for b in looks)
    assert all(b["expires_in_seconds"] <= 600 for b in looks)
    for dsn in (past.clear(), past.tls()):
        with past.connect(dsn) as c:
            assert ids(c) == [1, 2]


def test_a_moment_is_seen_by_the_pooler_in_clear(past):
    with past.connect(past.clear(options=f"endpoint={past.endpoint}-pooler {past.at()}")) as c:
        assert ids(c) == [1]
        assert c.one("SELECT client_addr IS NULL FROM pg_stat_activity WHERE pid = pg_backend_pid()")


REFUSED = [
    ("neon_timestamp:yesterday", "is not a moment"), ("neon_timestamp:2026-11-23T14:03:07", "is not a moment"),
    ("neon_timestamp:2026-13-01T00:00:00Z", "is not a moment"), ("neon_lsn:0", "is not a moment"),
    ("neon_lsn:0/0", "is not a moment"), ("neon_lsn:zz/1", "is not a moment"),
    ("neon_timestamp:1969-01-01T00:00:00Z", "is not a moment"),
    ("neon_timestamp:2001-01-01T00:00:00Z", "before the history"),
    ("neon_timestamp:2101-01-01T00:00:00Z", "in the future"), ("neon_lsn:FFFF/0", ""),
    ("neon_lsn:", "malformed"), ("neon_lsn:0/1 neon_lsn:0/2", "malformed, or names two"),
    ("neon_lsn:0/1 neon_timestamp:2026-11-23T14:03:07Z", "cannot be given both"),
    ("neon_endpoint_type:read_write neon_lsn:0/1", "is read-only"),
    ("neon_endpoint_type:fast neon_lsn:0/1", "not supported")]


@pytest.mark.parametrize("words, says", REFUSED, ids=[w for w, _ in REFUSED])
def test_what_is_no_moment_is_an_error_that_says_so(strings, words, says):
    strings.refused(strings.clear(options=f"endpoint={strings.endpoint} {words}"), says or "FATAL")
    strings.refused(strings.tls_at(options=words), says or "FATAL")
    assert strings.looks() == []


def test_what_leads_nowhere_is_an_error_in_clear_and_in_tls(strings):
    ca = t.ca_file(strings)
    verified = {"sslmode": "verify-full", "sslrootcert": ca}
    for dsn, says in [
            (strings.tls_at(host="br-no-such-000000.localhost", **verified), "no branch"),
            (strings.tls(host=f"{strings.branch}.localhost", **verified), "nothing names a moment"),
            (strings.tls_at(options=f"{strings.at()} endpoint={strings.endpoint}"), "something else does, too"),
            (strings.tls_at(dbname="neondb@main"), "something else does, too"),
            (strings.tls_at(host=f"{strings.branch}.example.com"), "names no endpoint"),
            (strings.tls(options=strings.at()), "neon_timestamp"),  # within its own TLS: PostgreSQL's own refusal
            (strings.clear(options="endpoint=ep-no-such-000000 neon_lsn:0/1"), "no endpoint"),
            (strings.clear(options=f"endpoint={strings.endpoint} neon_endpoint_type:read_only"),
             "no read-only endpoint")]:
        strings.refused(dsn, says)
    with strings.connect(strings.clear(options=f"endpoint={strings.endpoint} neon_endpoint_type:read_write")) as c:
        assert ids(c) == [1, 2]
    assert strings.looks() == []


def test_a_stranger_sees_nothing(strings):
    for dsn in (strings.clear_at(password="wrong"), strings.tls_at(password="wrong"), strings.tls_at(user="nobody")):
        strings.refused(dsn, "password authentication failed")


def test_odd_bytes_within_tls_end_the_connection(strings):
    context = ssl.create_default_context(cafile=t.ca_file(strings))
    for data in (b"\0\0\0\x08", b"GET / HTTP/1.1\r\n\r\n", bytes(64), t.packet(user="x")[:-1],
                 t.packet(user="x") + b"more", b"\xff" * 9000):
        s = strings.raw(t.SSL_REQUEST)
        assert s.recv(1) == b"S"
        with context.wrap_socket(s, server_hostname=f"{strings.branch}.localhost") as c:
            c.sendall(data)
            c.settimeout(20)  # it must not hang
            with contextlib.suppress(ConnectionResetError, ssl.SSLEOFError):
                assert c.recv(1) in (b"", b"E")
    with strings.connect(strings.clear()) as c:
        assert ids(c) == [1, 2]


def test_much_goes_both_ways_through_boughd(past):
    """Its two ends are slow in turn, and nothing is lost or doubled."""
    rows = [hashlib.sha512(str(n).encode()).hexdigest() for n in range(60000)]
    with past.connect(past.tls_at()) as c:
        c.c.autocommit = False
        with c.c.cursor() as cur:
            cur.execute("SET TRANSACTION READ WRITE; CREATE TEMP TABLE big (line text)")
            cur.copy_expert("COPY big FROM STDIN", io.StringIO("\n".join(rows) + "\n"))
            got = io.StringIO()
            cur.copy_expert("COPY big TO STDOUT", got)
            cur.execute("SELECT repeat('x', 20000000)")
            assert len(cur.fetchone()[0]) == 20000000
        assert got.getvalue().split() == rows


def test_a_query_is_cancelled_and_a_session_counts(past):
    running = ("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)' AND state = 'active'"
               " AND pid <> pg_backend_pid()")
    done = []
    with past.connect(past.tls_at()) as c, past.connect(past.tls_at()) as watcher:
        def sleep():
            with pytest.raises(psycopg2.errors.QueryCanceled):
                c.run("SELECT pg_sleep(600)")
            done.append(1)
        thread = threading.Thread(target=sleep)
        thread.start()
        h.wait_for(lambda: watcher.one(running) == 1, "it runs")
        c.c.cancel()
        thread.join(30)
        assert done == [1] and c.one("SELECT 1") == 1
    dsn = " ".join(f"{k}='{v}'" for k, v in past.tls_at().items())
    ended = h.run([h.tool("psql"), dsn, "-c", "SELECT pg_terminate_backend(pg_backend_pid())"], check=False)
    assert "terminating connection due to administrator command" in ended.stderr, ended.stderr  # its last words
    with past.connect(past.tls_at()), past.connect(past.tls_at()):
        look = past.looks()[0]["name"]
        assert past.project.json("endpoint", "why", look)["sessions"] >= 2
    h.wait_for(lambda: past.project.json("endpoint", "why", look)["sessions"] == 0, "they have ended")


def test_a_protected_branch_keeps_its_passwords_for_its_past(past):
    past.project.bough("branch", "protect", "main")
    for dsn in (past.clear_at(), past.tls_at()):
        with past.connect(dsn) as c:
            assert ids(c) == [1]
    past.project.bough("branch", "unprotect", "main")


def test_a_list_is_held_before_a_look_is_made(past):
    past.project.bough("ip-allow", "add", "192.0.2.0/24")
    for dsn in (past.clear_at(), past.tls_at()):
        past.refused(dsn, "127.0.0.1 is not allowed to connect")
    assert past.looks() == []
    past.project.bough("ip-allow", "add", "127.0.0.1")
    for dsn in (past.clear_at(), past.tls_at()):
        with past.connect(dsn) as c:
            assert ids(c) == [1]
    past.project.bough("ip-allow", "reset")


def test_a_branch_has_so_many_looks_and_one_that_is_unused_makes_room(past):
    moments = [past.when]
    for _ in range(LOOKS_MAX):
        moments.append(h.now())
    for moment in moments[:LOOKS_MAX]:
        past.connect(past.clear_at(moment)).close()
    assert len(past.looks()) == LOOKS_MAX
    for dsn in (past.clear_at(moments[-1]), past.tls_at(moments[-1])):
        past.refused(dsn, f"looked at in {LOOKS_MAX} moments already")
    used = past.connect(past.clear_at(moments[3]))  # one that is there may be used
    past.server.down("--keep-computes")
    with sqlite3.connect(os.path.join(past.server.store, "bough.db")) as db:
        db.execute("UPDATE branches SET created_ms = created_ms - ? WHERE is_look", (LOOK_KEPT_S * 1000,))
    db.close()
    past.server.up()
    assert ids(used) == [1, 2] and len(past.looks()) == LOOKS_MAX
    for b in past.looks():  # so that nobody has used it since the server started
        if past.project.json("endpoint", "why", b["name"])["busy"] == "":
            past.project.suspend(b["name"])
    with past.connect(past.clear_at(moments[-1])) as c:
        assert ids(c) == [1, 2]
    assert len(past.looks()) == LOOKS_MAX and ids(used) == [1, 2]
    used.close()


def test_many_at_once_make_no_more_looks_than_may_be(past):
    moments = [past.when] + [h.now() for _ in range(2 * LOOKS_MAX)]
    got = []

    def connect(moment):
        try:
            past.connect(past.clear_at(moment)).close()
            got.append(True)
        except psycopg2.OperationalError as e:
            got.append("moments already" in str(e))
    threads = [threading.Thread(target=connect, args=(m,)) for m in moments]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert all(got) and len(got) == len(moments) and len(past.looks()) == LOOKS_MAX


def test_looks_are_no_reason_for_a_branch_to_stay(clock, p):  # noqa: F811
    """Anybody can have one made: it must not keep others from deleting, restoring or expiring the branch."""
    Past(p)
    p.branch("other")
    for way, words in (("delete", ("branch", "delete")), ("purge", ("branch", "delete", "--purge")),
                       ("restore", ("branch", "reset")), ("expire", None)):
        p.branch(way)
        past = t.Door(p, way)
        with past.connect(past.clear()) as c:
            c.run("CREATE TABLE u AS SELECT 1 AS id")
        options = f"endpoint={past.endpoint} neon_timestamp:{h.now()}"
        session = past.connect(past.clear(options=options))
        assert session.one("SELECT id FROM u") == 1
        if words:
            p.bough(*words, way)
        else:
            p.bough("branch", "set-expiration", way, "--expires-in", "1h")
            clock.passes(3700)
            h.wait_for(lambda w=way: w not in p.branches(), "it has expired")
        assert (way in p.branches()) == (way == "restore")
        assert not [b for b in p.branches() if b.startswith("tmp-look-")]
        with pytest.raises(psycopg2.Error):
            session.one("SELECT 1")


def test_making_a_look_is_a_wake(make_server):
    server = make_server(up=False)
    server.up("--wakes-per-endpoint", "2")
    past = Past(server.project("p"))
    for _ in range(2):
        past.connect(past.clear_at(h.now())).close()
    for dsn in (past.clear_at(), past.tls_at()):
        past.refused(dsn, "this endpoint is woken too often")
    assert len(past.looks()) == 2


def test_a_branch_that_was_restored_has_another_past(past):
    """No look of what it showed before stands for what it shows now; a look by the API says the same."""
    with past.connect(past.clear()) as c:
        c.run("INSERT INTO t VALUES (3)")
    later = h.now()
    for moment, rows in ((past.when, [1]), (later, [1, 2, 3])):
        with past.connect(past.clear_at(moment)) as c:
            assert ids(c) == rows
    past.project.bough("branch", "restore", "main", "--at", past.when, "--preserve-under-name", "before")
    for moment in (past.when, later):
        done = past.project.bough("psql", f"main@{moment}", "--", "-Atc", "SELECT id FROM t ORDER BY id", check=False)
        if done.returncode:
            past.refused(past.clear_at(moment), "history|moment")
        else:
            with past.connect(past.clear_at(moment)) as c:
                assert ids(c) == [int(line) for line in done.stdout.split()]
    with past.connect(past.clear(options=past.at(later), dbname=f"{past.login['dbname']}@before")) as c:
        assert ids(c) == [1, 2, 3]


def test_a_restart_ends_what_goes_through_boughd_and_nothing_else(past):
    clear, tls = past.connect(past.clear_at()), past.connect(past.tls_at())
    past.server.kill()
    past.server.up()
    assert ids(clear) == [1]
    with pytest.raises(psycopg2.Error):
        ids(tls)
    with past.connect(past.tls_at()) as c:
        assert ids(c) == [1]
    assert len(past.looks()) == 1
    clear.close()
    past.connect(past.tls_at())  # open, when the server ends in order
    past.server.down()


def test_a_look_goes_when_nobody_has_used_it_for_a_while(clock, p):  # noqa: F811
    past = Past(p)
    with past.connect(past.tls_at()) as c:
        clock.passes(700)
        assert ids(c) == [1] and len(past.looks()) == 1
    clock.passes(700)
    h.wait_for(lambda: past.looks() == [], "it has gone")
    with past.connect(past.clear_at()) as c:
        assert ids(c) == [1]


def test_who_goes_away_while_it_is_made_leaves_no_trace(past):
    packet = t.packet(user="x", database="x", options=f"endpoint={past.endpoint} {past.at()}")
    for _ in range(3):
        past.raw(packet).close()
    s = past.raw(t.SSL_REQUEST)
    assert s.recv(1) == b"S"
    context = ssl.create_default_context(cafile=t.ca_file(past))
    c = context.wrap_socket(s, server_hostname=f"{past.branch}.localhost")
    c.sendall(t.packet(user="x", database="x", options=past.at(past.lsn)))
    c.close()
    h.wait_for(lambda: past.server.status()["handshakes"] == 0, "nobody is on the way")
    with past.connect(past.clear_at()) as session:
        assert ids(session) == [1]
