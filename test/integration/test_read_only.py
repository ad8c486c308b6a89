"""Endpoints that only read: hot standbys of a branch's compute, on a fork that is thrown away when they sleep."""
import contextlib
import http.client
import json
import os
import random
import re
import signal
import threading
import time

import psycopg2
import pytest

import harness as h
from api import Api
from test_kill import assert_nothing_left, kill_within

pytestmark = pytest.mark.slow


class Reader:
    """A read-only endpoint of a branch."""

    def __init__(self, project, branch="main", *args):
        self.p, self.branch = project, branch
        self.id = project.json("endpoint", "create", branch, "--type", "read_only", *args)["id"]
        self.home = f"{project.server.store}/branches/{self.id}"

    def uri(self, *args):
        return self.p.bough("cs", self.branch, "--endpoint", self.id, *args).stdout.strip()

    def connect(self):
        return self.p.connect(uri=self.uri())

    def admin(self):
        s = h.uri_parts(self.uri("--socket"))
        return h.Client(psycopg2.connect(host=s["host"], port=s["port"], user=h.admin_user(s["host"]),
                                         dbname=s["dbname"], password=self.p.server.admin_password(),
                                         connect_timeout=20))

    def state(self):
        return self.p.json("endpoint", "get", self.id)["current_state"]

    def suspend(self):
        self.p.suspend(self.id)

    def postmaster(self):
        with open(f"{self.home}/pgdata/postmaster.pid", encoding="ascii") as f:
            return int(f.readline())


def until(client, sql, value, what="the reader sees it", limit=30):
    h.wait_for(lambda: client.one(sql) == value, what, limit)


def branch_state(p, branch="main"):
    return p.json("endpoint", "get", branch)["current_state"]


def homes(server):
    return {n for n in os.listdir(f"{server.store}/branches") if n.startswith("ep-")}


def has_ended(client):
    try:
        client.one("SELECT 1")
    except psycopg2.Error:
        return True
    return False


@pytest.mark.every_version
def test_it_sees_what_is_committed_and_refuses_to_write(project):
    p = project
    p.sql("main", "CREATE TABLE t (id int); INSERT INTO t VALUES (1)")
    p.sql("main", "CREATE SEQUENCE s; CREATE UNLOGGED TABLE u (id int)")
    r = Reader(p)
    assert r.state() == "active" and homes(p.server) == {r.id}
    with p.connect() as w, r.connect() as c:
        assert c.one("SELECT pg_is_in_recovery()") and c.one("SELECT count(*) FROM t") == 1
        for i in range(2, 6):
            w.run("INSERT INTO t VALUES (%s)", i)
            until(c, "SELECT max(id) FROM t", i)
        w.run("BEGIN; INSERT INTO t VALUES (100)")
        w.run("SAVEPOINT x")
        assert c.one("SELECT max(id) FROM t") == 5
        w.run("ROLLBACK; CREATE TABLE new (id int)")
        until(c, "SELECT count(*) FROM pg_class WHERE relname = 'new'", 1)
        for switch in ("SELECT 1", "SET default_transaction_read_only = off",
                       "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE"):
            with contextlib.suppress(psycopg2.Error):
                c.run(switch)
            for sql in ("INSERT INTO t VALUES (6)", "UPDATE t SET id = 0", "CREATE TABLE x (id int)",
                        "CREATE TEMP TABLE x (id int)", "SELECT nextval('s')", "SELECT * FROM t FOR UPDATE",
                        "TRUNCATE t", "BEGIN READ WRITE", "CREATE ROLE r"):
                with pytest.raises(psycopg2.Error, match="recovery|read-only transaction"):
                    c.run(sql)
                with contextlib.suppress(psycopg2.Error):
                    c.run("ROLLBACK")
        with pytest.raises(psycopg2.Error, match="unlogged"):
            c.run("SELECT * FROM u")
        assert w.one("SELECT array_agg(id ORDER BY id) FROM t") == [1, 2, 3, 4, 5]
        # the superuser's role is ours, and so is that by which it comes in
        assert c.one("SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
    r.suspend()
    assert homes(p.server) == set()
    assert_nothing_left(p.server)
    h.assert_clean(p)


def test_it_wakes_with_the_branch_asleep_and_awake(project):
    p = project
    p.sql("main", "CREATE TABLE t AS SELECT 1 AS id")
    r = Reader(p)
    for awake in (False, True, False):
        r.suspend()
        if awake:
            p.sql("main", "INSERT INTO t SELECT max(id) + 1 FROM t")
        else:
            p.suspend()
        with r.connect() as c:
            count = c.one("SELECT count(*) FROM t")
            assert branch_state(p) == ("active" if awake else "idle") and r.state() == "active"
        assert count == p.one("main", "SELECT count(*) FROM t")
    why = p.json("endpoint", "why", r.id)
    assert why["state"] == "active" and why["cause"].startswith("a connection from") and why["endpoint_id"] == r.id
    r.suspend()
    assert p.json("endpoint", "why", r.id)["cause"] == "a suspension was asked for"
    actions = [(o["endpoint_id"], o["action"]) for o in p.json("operation", "list") if o.get("endpoint_id")]
    assert (r.id, "start_compute") in actions and (r.id, "suspend_compute") in actions


@pytest.mark.every_version
def test_it_follows_through_sleeps_of_the_branch(project):
    p = project
    p.sql("main", "CREATE TABLE t (id int)")
    r = Reader(p)
    with r.connect() as c:
        for i in range(1, 4):
            p.suspend()
            assert branch_state(p) == "idle" and c.one("SELECT count(*) FROM t") == i - 1
            p.sql("main", "INSERT INTO t VALUES (%s)", i)
            until(c, "SELECT count(*) FROM t", i, limit=10)


def test_passwords_and_roles_follow(project):
    p = project
    r = Reader(p)
    api = Api(p.server)
    branch = p.get()["id"]
    role = h.uri_parts(p.uri())["user"]
    api("POST", f"/projects/{p.id}/branches/{branch}/roles/{role}/reset_password")

    def gets_in():
        try:
            r.connect().close()
        except psycopg2.OperationalError:
            return False
        return True
    h.wait_for(gets_in, "the new password is known to the reader")
    names = [x["name"] for x in api("GET", f"/projects/{p.id}/branches/{branch}/roles")["roles"]]
    assert "bough_standby" not in names
    api("POST", f"/projects/{p.id}/branches/{branch}/roles", {"role": {"name": "bough_standby"}}, 400)
    with p.admin() as a:
        assert a.one("SELECT count(*) FROM pg_roles WHERE rolname = 'bough_standby' AND rolreplication AND"
                     " NOT rolsuper") == 1
    with open(f"{r.home}/pgdata/postgresql.conf", encoding="utf-8") as f:
        secret = re.search("user=bough_standby password=([0-9a-f]{64}) ", f.read()).group(1)

    def come_in(branch, **more):
        s = p.socket(branch)
        return psycopg2.connect(host=s["host"], port=s["port"], user="bough_standby", dbname=s["dbname"],
                                password=secret, connect_timeout=10, **more)
    p.branch("child")
    come_in("main", replication="true").close()
    with pytest.raises(psycopg2.OperationalError, match="no pg_hba.conf entry"):  # it has the role, and the password
        come_in("child", replication="true")
    with pytest.raises(psycopg2.OperationalError, match="rejects"):
        come_in("main")
    with p.connect() as c, pytest.raises(psycopg2.Error, match="must be superuser|permission denied"):
        c.run("SHOW primary_conninfo")
    r.suspend()

    def is_shut():
        try:
            come_in("main", replication="true").close()
        except psycopg2.OperationalError as e:
            return "no pg_hba.conf entry" in str(e)
        return False
    h.wait_for(is_shut, "nobody comes in where nobody follows")


def test_it_goes_on_without_the_server_and_is_found_again(project):
    p, server = project, project.server
    p.sql("main", "CREATE TABLE t (id int)")
    r = Reader(p)
    with r.connect() as c, p.connect() as w:
        pid = r.postmaster()
        server.kill()
        w.run("INSERT INTO t VALUES (1)")
        until(c, "SELECT count(*) FROM t", 1)
        server.up()
        assert r.state() == "active" and r.postmaster() == pid
        other = Reader(p)  # which needs to come in: the secret that the first one has is not known any more
        with other.connect() as o:
            w.run("INSERT INTO t VALUES (2)")
            until(c, "SELECT count(*) FROM t", 2)
            until(o, "SELECT count(*) FROM t", 2)
            p.suspend()
            p.sql("main", "INSERT INTO t VALUES (3)")
            until(c, "SELECT count(*) FROM t", 3, limit=15)
            until(o, "SELECT count(*) FROM t", 3, limit=15)
        assert r.postmaster() == pid
    # what is not adopted is removed
    memory = os.path.realpath(f"{r.home}/pgdata/pg_dynshmem")
    assert os.path.isdir(memory)
    server.kill()
    h.kill_below(r.home)
    server.up()
    assert not os.path.exists(memory)
    assert homes(server) == {other.id} and r.state() == "idle" and other.state() == "active"
    with r.connect() as c:
        assert c.one("SELECT count(*) FROM t") == 3
    server.down()
    assert not homes(server)
    server.up()
    assert_nothing_left(server)


@pytest.mark.every_version
def test_it_follows_a_branch_that_crashed(project):
    p = project
    r = Reader(p)
    with p.connect() as c:
        h.Ledger.prepare(c)
    uri = p.uri()
    with r.connect() as c:
        until(c, "SELECT count(*) FROM pg_class WHERE relname = 'ledger'", 1)
        with h.Ledger(uri) as ledger:
            for _ in range(h.times(2, 8)):
                ledger.progress()
                p.crash()
                ledger.progress()
        done = list(ledger.acknowledged)
        until(c, "SELECT count(*) FROM ledger", p.one("main", "SELECT count(*) FROM ledger"))
        h.Ledger.check(c, done)
        assert c.one("SELECT pg_is_in_recovery()")
    r.suspend()
    with h.Ledger(p.uri()) as ledger:
        ledger.progress()
        ledger.stopping.set()  # or they would wake it again
        p.kill_compute()
        done = list(ledger.acknowledged)
    h.wait_for(lambda: branch_state(p) == "idle", "the end of the branch's compute is noticed")
    with r.connect() as c:  # of files that nobody has recovered
        h.Ledger.check(c, done)
        assert branch_state(p) == "idle"
        count = c.one("SELECT count(*) FROM ledger")
        p.start()  # asked for: it has ended too often to be started by a connection
        assert p.one("main", "SELECT count(*) FROM ledger") == count
        p.sql("main", "INSERT INTO ledger VALUES (100, 1, '')")
        until(c, "SELECT count(*) FROM ledger", count + 1)


def test_the_server_is_killed_while_it_wakes_and_sleeps(project):
    p, server = project, project.server
    seed = random.randrange(10**9)
    print("seed", seed)
    chance = random.Random(seed)
    bank = h.Bank(p).init()
    r = Reader(p)
    with bank.running():
        for _ in range(h.times(6, 40)):
            verb = chance.choice(("start", "suspend", "restart"))
            kill_within(server, chance, 0.4, "endpoint", verb, r.id, "--project", p.id)
            assert homes(server) <= {r.id}
            with r.connect() as c:
                before = bank.check(c)
                h.wait_for(lambda b=before, s=c: bank.check(s) > b, "it goes on")
            if chance.random() < 0.5:
                r.suspend()
                assert_nothing_left(server)
    r.suspend()
    assert_nothing_left(server)
    h.assert_clean(p)


def test_a_backend_that_is_killed_ends_it_and_the_next_connection_makes_it_anew(project):
    p = project
    p.sql("main", "CREATE TABLE t AS SELECT 1 AS id")
    r = Reader(p)
    with r.connect() as c:
        pid = r.postmaster()
        os.kill(c.one("SELECT pg_backend_pid()"), signal.SIGKILL)
    h.wait_for(lambda: not h.is_alive(pid) and r.state() == "idle" and not homes(p.server), "it is gone")
    assert "unexpectedly" in p.json("endpoint", "get", r.id)["last_error"]
    with r.connect() as c:
        assert c.one("SELECT count(*) FROM t") == 1
    assert "last_error" not in p.json("endpoint", "get", r.id)


def test_a_restore_in_place_makes_it_anew(project):
    p = project
    p.sql("main", "CREATE TABLE t AS SELECT 1 AS id")
    p.branch("side")
    r = Reader(p, "side")
    when = h.now()
    p.sql("side", "INSERT INTO t VALUES (2)")
    old = r.connect()
    until(old, "SELECT count(*) FROM t", 2)
    p.bough("branch", "restore", "side", "--at", when, "--preserve-under-name", "kept")
    assert has_ended(old)
    with r.connect() as c:
        assert c.one("SELECT count(*) FROM t") == 1
        p.sql("side", "INSERT INTO t VALUES (3)")
        until(c, "SELECT array_agg(id ORDER BY id) FROM t", [1, 3])
        p.bough("branch", "reset", "side", "--preserve-under-name", "again")
        assert has_ended(c)
    with r.connect() as c:  # its parent is now what it showed before
        assert c.one("SELECT array_agg(id ORDER BY id) FROM t") == [1, 2]
        assert c.one("SELECT pg_is_in_recovery()")
    # one that a restored branch takes the place of
    p.bough("snapshot", "create", "side", "--name", "s")
    p.sql("side", "INSERT INTO t VALUES (4)")
    with r.connect() as c:
        until(c, "SELECT count(*) FROM t", 3)
        p.bough("snapshot", "restore", "s", "--name", "new")
        p.bough("snapshot", "finalize", "new")
        assert has_ended(c)
    assert p.json("endpoint", "get", r.id)["branch_id"] == p.get("side")["id"]
    with r.connect() as c:
        assert c.one("SELECT count(*) FROM t") == 2
        p.sql("side", "INSERT INTO t VALUES (5)")
        until(c, "SELECT array_agg(id ORDER BY id) FROM t", [1, 2, 5])


def test_it_goes_with_its_branch(project):
    p, server = project, project.server
    p.branch("side")
    p.sql("side", "CREATE TABLE t AS SELECT 1 AS id")
    readers = [Reader(p, "side"), Reader(p, "side")]
    sessions = [r.connect() for r in readers]
    p.delete("side")
    assert all(has_ended(c) for c in sessions) and not homes(server)
    assert not [e for e in p.json("endpoint", "list") if e["id"] in {r.id for r in readers}]
    with pytest.raises(psycopg2.OperationalError):
        p.connect(uri=f"{p.uri()}".replace(p.json("endpoint", "get", "main")["id"], readers[0].id))
    p.bough("branch", "undelete", "side")
    with readers[0].connect() as c:
        assert c.one("SELECT count(*) FROM t") == 1
    p.purge("side")
    assert not homes(server)
    assert_nothing_left(server)
    last = Reader(p)
    with last.connect() as c:
        server.bough("project", "delete", p.id)
        assert has_ended(c)
    assert_nothing_left(server)


@pytest.fixture(name="sleepy")
def fixture_sleepy(make_server):
    server = make_server(up=False)
    server.env["BOUGH_LEAST_SUSPEND_SECONDS"] = "1"
    server.up()
    return server.project("p")


def set_timeout(p, endpoint, seconds):
    Api(p.server)("PATCH", f"/projects/{p.id}/endpoints/{endpoint}", {"endpoint": {"suspend_timeout_seconds": seconds}})


def test_the_branch_sleeps_though_it_is_followed_and_the_reader_by_itself(sleepy):
    p = sleepy
    p.sql("main", "CREATE TABLE t AS SELECT 1 AS id")
    r = Reader(p)
    set_timeout(p, p.json("endpoint", "get", "main")["id"], 1)
    with r.connect() as c, p.admin() as a:
        until(a, "SELECT count(*) FROM pg_stat_replication WHERE usename = 'bough_standby' AND state = 'streaming'", 1)
        a.close()
        h.wait_for(lambda: branch_state(p) == "idle", "the branch is suspended")
        assert "nobody used it" in p.json("endpoint", "why", "main")["cause"]
        assert c.one("SELECT count(*) FROM t") == 1 and r.state() == "active"
        set_timeout(p, r.id, 1)
        p.branch("other")
        set_timeout(p, p.json("endpoint", "get", "other")["id"], 1)
        h.wait_for(lambda: branch_state(p, "other") == "idle", "another that nobody uses is suspended")
        assert r.state() == "active" and not has_ended(c)
    h.wait_for(lambda: r.state() == "idle" and not homes(p.server), "the reader is suspended when nobody uses it")
    assert_nothing_left(p.server)


@pytest.mark.every_version
def test_it_has_room_for_what_the_branch_may_do(project):
    """A standby with fewer connections than what it follows would stop to replay."""
    p = project
    p.sql("main", "CREATE TABLE t AS SELECT 1 AS id")
    p.bough("endpoint", "resize", "main", "2")
    p.bough("endpoint", "restart", "main")
    assert p.one("main", "SHOW max_connections") == "200"
    r = Reader(p, "main", "--size", "0.25")
    with r.connect() as c:
        assert c.one("SHOW max_connections") == "200" and c.one("SHOW shared_buffers") == "32MB"
        p.sql("main", "INSERT INTO t VALUES (2)")
        until(c, "SELECT count(*) FROM t", 2)
        p.bough("endpoint", "resize", "main", "4")  # not in effect yet
        p.sql("main", "INSERT INTO t VALUES (3)")
        until(c, "SELECT count(*) FROM t", 3)
        p.bough("endpoint", "restart", "main")
        h.wait_for(lambda: has_ended(c), "the reader ends: it has too few")
    assert p.json("endpoint", "why", r.id)["cause"] == "its branch's compute has become larger"
    with r.connect() as c:
        assert c.one("SHOW max_connections") == "400"
        p.bough("endpoint", "resize", "main", "1")
        p.bough("endpoint", "restart", "main")  # a smaller one does no harm
        p.sql("main", "INSERT INTO t VALUES (4)")
        until(c, "SELECT count(*) FROM t", 4)
    r.suspend()
    p.suspend()
    with r.connect() as c:  # of a branch that has not run since it became smaller
        assert c.one("SELECT count(*) FROM t") == 4
    large = Reader(p, "main", "--size", "8")
    with large.connect() as c:
        assert c.one("SHOW max_connections") == "800" and c.one("SHOW shared_buffers") == "1GB"


def test_sums_are_right_at_every_moment_under_load(project):
    """While the branch is branched, merged and restored from, and its layers are sealed under the reader."""
    p = project
    bank = h.Bank(p).init()
    readers = [Reader(p), Reader(p)]
    seen, failures, stop = [0, 0], [], threading.Event()

    def read(i):
        try:
            while not stop.is_set():
                try:
                    with readers[i].connect() as c:
                        while not stop.is_set():
                            seen[i] = max(seen[i], bank.check(c))
                except psycopg2.errors.SerializationFailure:
                    pass  # a conflict with replay
        except Exception as e:  # pylint: disable=broad-except
            failures.append(e)
    threads = [threading.Thread(target=read, args=(i,)) for i in range(2)]
    with bank.running():
        for t in threads:
            t.start()
        for i in range(h.times(4, 40)):
            p.branch(f"b{i}")
            with p.connect(f"b{i}") as c:
                bank.check(c)
            with p.admin() as a:
                a.run("CHECKPOINT")
                if i % 2:
                    a.run("VACUUM FULL pgbench_branches")
            p.purge(f"b{i}")
            before = list(seen)
            h.wait_for(lambda b=before: failures or all(s > x for s, x in zip(seen, b)), "the readers see more")
        assert not failures, failures
    total = p.one("main", "SELECT count(*) FROM pgbench_history")
    h.wait_for(lambda: failures or min(seen) == total, "the readers see all")
    stop.set()
    for t in threads:
        t.join(60)
    assert not failures, failures
    for r in readers:
        r.suspend()
    assert_nothing_left(p.server)
    h.assert_clean(p)


@pytest.mark.parametrize("retention", (0, 86400))
def test_it_catches_up_with_what_the_branch_would_give_back(project, retention):
    """A quiet branch gives back WAL at its checkpoints, and removes segments: not what is still to be received."""
    p = project
    p.sql("main", "CREATE TABLE t (id int, fill text)")
    Api(p.server)("PATCH", f"/projects/{p.id}", {"project": {"history_retention_seconds": retention}})
    r = Reader(p)
    assert os.path.exists(f"{p.server.store}/branches/{p.get()['id']}/followed")
    with r.admin() as a:
        receiver = h.wait_for(lambda: a.rows("SELECT pid FROM pg_stat_wal_receiver WHERE status = 'streaming'"),
                              "it receives")[0][0]
    os.kill(receiver, signal.SIGSTOP)
    try:
        with p.admin() as a:
            for i in range(4):
                a.run("INSERT INTO t SELECT %s, repeat('x', 1000) FROM generate_series(1, 2000)", i)
                a.run("CHECKPOINT")
                a.run("SELECT pg_switch_wal()")
            a.run("CHECKPOINT")
    finally:
        os.kill(receiver, signal.SIGCONT)
    with r.connect() as c:
        until(c, "SELECT count(*) FROM t", 8000)
    r.suspend()
    assert not os.path.exists(f"{p.server.store}/branches/{p.get()['id']}/followed")


def test_it_is_ended_when_it_cannot_follow(sleepy):
    """Data that grows old without anybody knowing would be worse than the end of a session."""
    p = sleepy
    p.sql("main", "CREATE TABLE t AS SELECT 1 AS id")
    r = Reader(p)
    with r.connect() as c, p.admin() as a:
        a.run("ALTER ROLE bough_standby NOLOGIN")
        a.run("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
        h.wait_for(lambda: has_ended(c), "it is ended", 120, 0.5)
    assert p.json("endpoint", "why", r.id)["cause"] == "it could not follow its branch"
    p.sql("main", "INSERT INTO t VALUES (2)")
    p.bough("endpoint", "restart", "main")
    with r.connect() as c:
        assert c.one("SELECT count(*) FROM t") == 2
        p.sql("main", "INSERT INTO t VALUES (3)")
        until(c, "SELECT count(*) FROM t", 3)


def test_its_pooler_and_other_ways_in(project):
    p = project
    p.sql("main", "CREATE TABLE t AS SELECT 1 AS id")
    r = Reader(p)
    r.suspend()
    uri = r.uri("--pooled")
    assert f"{r.id}-pooler" in uri
    with p.connect(uri=uri) as c:
        assert c.one("SELECT pg_is_in_recovery()") and c.one("SELECT count(*) FROM t") == 1
        assert r.state() == "active"
    c = http.client.HTTPConnection("127.0.0.1", p.server.port, timeout=60)
    with contextlib.closing(c):
        to = h.uri_parts(uri)
        string = f"postgresql://{to['user']}:{h.password(uri)}@{r.id}.localhost/{to['dbname']}"
        head = {"Neon-Connection-String": string, "Content-Type": "text/plain;charset=UTF-8"}
        c.request("POST", "/sql", '{"query": "SELECT pg_is_in_recovery() AS r", "params": []}', head)
        assert json.loads(c.getresponse().read())["rows"] == [{"r": True}]
        # a batch whose BEGIN fails: a standby knows no serializable transactions
        c.request("POST", "/sql", '{"queries": [{"query": "SELECT 1"}]}',
                  head | {"Neon-Batch-Isolation-Level": "Serializable"})
        answer = c.getresponse()
        assert (answer.status, json.loads(answer.read())["code"]) == (400, "0A000")
    to = h.uri_parts(p.uri())
    for of in (f"endpoint={p.json('endpoint', 'get', 'main')['id']}", f"project={p.id}", f"endpoint={r.id}"):
        with h.Client(psycopg2.connect(host="127.0.0.1", port=p.server.door, user=to["user"], dbname=to["dbname"],
                                       password=h.password(uri), sslmode="disable",
                                       options=f"{of} neon_endpoint_type:read_only")) as c:
            assert c.one("SELECT pg_is_in_recovery()")
    by_type = p.bough("cs", "main", "--endpoint-type", "read_only").stdout.strip()
    assert by_type == r.uri() and p.bough("cs", "main", "--endpoint-type", "read_write").stdout.strip() == p.uri()
    done = p.bough("psql", "main", "--endpoint-type", "read_only", "--", "-Atc", "SELECT pg_is_in_recovery()")
    assert done.stdout.strip() == "t"
    p.branch("side")
    p.refused("cs", "side", "--endpoint-type", "read_only", status="notfound", hint="endpoint create side")
    p.refused("cs", "side", "--endpoint", r.id, status="notfound")
    p.refused("cs", "main", "--endpoint-type", "both", status="usage")
    p.refused("cs", "main@1m", "--endpoint-type", "read_only", status="usage", says="moment of the past")
    p.refused("endpoint", "create", "main", "--type", "both", status="usage")
    p.refused("endpoint", "create", "main", status="conflict", says="read_write endpoint already exists")
    lines = p.bough("endpoint", "list").stdout.split("\n")
    assert any(re.search(rf"main +{r.id} +\w+ +read_only", line) for line in lines)
    assert f"Read-only compute {r.id} of branch main" in p.bough("endpoint", "why", r.id).stdout
    assert "is deleted" in p.bough("endpoint", "delete", r.id).stdout
    p.refused("endpoint", "get", r.id, status="notfound")
    assert not homes(p.server)
    assert_nothing_left(p.server)


def test_answers_of_the_api(project):
    p = project
    p.sql("main", "CREATE TABLE t AS SELECT 1 AS id")
    api, path = Api(p.server), f"/projects/{p.id}"
    sized = {"type": "read_only", "autoscaling_limit_max_cu": 2, "suspend_timeout_seconds": 120}
    wish = {"branch": {"name": "two"}, "endpoints": [{"type": "read_write"}, sized]}
    made = api("POST", f"{path}/branches", wish, 201)
    kinds = {e["type"]: e for e in made["endpoints"]}
    reader = kinds["read_only"]
    assert len(made["endpoints"]) == 2 and {e["current_state"] for e in made["endpoints"]} == {"active"}
    assert reader["autoscaling_limit_max_cu"] == 2 and reader["suspend_timeout_seconds"] == 120
    assert {o["endpoint_id"] for o in made["operations"] if o["action"] == "start_compute"} == \
        {e["id"] for e in made["endpoints"]}
    assert len(made["connection_uris"]) == 1
    assert kinds["read_write"]["id"] in made["connection_uris"][0]["connection_uri"]
    alone = api("POST", f"{path}/branches", {"branch": {"name": "alone"}, "endpoints": [{"type": "read_only"}]}, 201)
    assert [e["type"] for e in alone["endpoints"]] == ["read_only"]
    with p.connect(uri=alone["connection_uris"][0]["connection_uri"]) as c:
        assert c.one("SELECT pg_is_in_recovery()") and c.one("SELECT count(*) FROM t") == 1
    branch = made["branch"]["id"]
    assert api("GET", f"{path}/endpoints/{reader['id']}")["endpoint"]["type"] == "read_only"
    listed = api("GET", f"{path}/branches/{branch}/endpoints")["endpoints"]
    assert [e["id"] for e in listed] == [kinds["read_write"]["id"], reader["id"]]
    uri = api("GET", f"{path}/connection_uri?endpoint_id={reader['id']}")["uri"]
    assert reader["id"] in uri
    with p.connect(uri=uri) as c:
        assert c.one("SELECT count(*) FROM t") == 1
    usage = {b["branch_id"]: b for b in api("GET", "/bough/store/usage")["branches"]}
    assert usage[reader["id"]]["kind"] == "read_only" and usage[reader["id"]]["name"] == "two"
    assert usage[reader["id"]]["own_bytes"] > 0
    for verb, state in (("suspend", "idle"), ("start", "active"), ("restart", "active"), ("suspend", "idle")):
        assert api("POST", f"{path}/endpoints/{reader['id']}/{verb}")["endpoint"]["current_state"] == state
    wish = {"endpoint": {"branch_id": branch, "type": "read_only"}}
    more = api("POST", f"{path}/endpoints", wish, 201)["endpoint"]
    assert more["type"] == "read_only" and more["current_state"] == "active" and more["id"] != reader["id"]
    api("POST", f"{path}/endpoints", {"endpoint": {"branch_id": branch, "type": "read_write"}}, 409)
    wrong = {"endpoint": {"branch_id": branch, "type": "both"}}
    assert api("POST", f"{path}/endpoints", wrong, 400)["code"] == "INVALID"
    many = {"branch": {"name": "many"}, "endpoints": [{"type": "read_only"}] * 17}
    assert api("POST", f"{path}/branches", many, 400)["code"] == "INVALID"
    unchanged = {"endpoint": {"type": "read_only", "suspend_timeout_seconds": 60}}
    assert api("PATCH", f"{path}/endpoints/{more['id']}", unchanged)["endpoint"]["suspend_timeout_seconds"] == 60
    changed = {"endpoint": {"type": "read_write"}}
    assert api("PATCH", f"{path}/endpoints/{more['id']}", changed, 422)["code"] == "UNSUPPORTED"
    for e in (more, reader):
        assert api("DELETE", f"{path}/endpoints/{e['id']}")["endpoint"]["current_state"] == "idle"
    assert api("GET", f"{path}/endpoints/{reader['id']}", status=404)
    assert homes(p.server) == {alone["endpoints"][0]["id"]}


def test_it_gives_its_place_to_another(make_server):
    """As any compute does where no more may be awake, to its own branch too."""
    server = make_server(up=False)
    server.up("--max-awake", "2")
    p = server.project("p")
    p.sql("main", "CREATE TABLE t AS SELECT 1 AS id")
    p.branch("side")
    r = Reader(p)
    awake = [branch_state(p), branch_state(p, "side"), r.state()]
    assert sorted(awake) == ["active", "active", "idle"] and r.state() == "active"
    for _ in range(3):
        with r.connect() as c:
            assert c.one("SELECT count(*) FROM t") == 1
        assert p.one("side", "SELECT count(*) FROM t") == 1
        assert p.one("main", "SELECT count(*) FROM t") == 1
    assert len(homes(server)) <= 1
    with r.connect() as c:  # all that could give a place to a new branch are its parent and its parent's reader
        assert c.one("SELECT count(*) FROM t") == 1
    assert p.one("main", "SELECT count(*) FROM t") == 1
    h.wait_for(lambda: not any(p.json("endpoint", "why", e)["sessions"] for e in ("main", r.id)), "nobody uses them")
    p.branch("third")
    assert branch_state(p, "third") == "active"


def test_the_lag_is_small(project):
    """Measured, and printed; only that it is no matter of polling is asserted."""
    p = project
    p.sql("main", "CREATE TABLE t (id int)")
    r = Reader(p)
    lags = []
    with p.connect() as w, r.connect() as c:
        for i in range(50):
            w.run("INSERT INTO t VALUES (%s)", i)
            before = time.monotonic()
            h.wait_for(lambda n=i: c.one("SELECT count(*) FROM t") == n + 1, "the reader sees it", 10, 0)
            lags.append(time.monotonic() - before)
    lags.sort()
    print(f"lag: median {lags[25] * 1000:.1f} ms, most {lags[-1] * 1000:.1f} ms")
    assert lags[25] < 0.5
