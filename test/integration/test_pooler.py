"""The pooler: PgBouncer in front of a branch, by the hosts that end in -pooler."""
import os
import signal
import struct
import threading

import psycopg2
import pytest

import harness as h
import test_door as t


class Pooler(t.Door):
    """The same ways as t.Door has, through the pooler."""

    def __init__(self, project, branch="main"):
        super().__init__(project, branch)
        self.direct = self.endpoint
        self.endpoint += "-pooler"

    def state(self):
        return self.project.json("endpoint", "get", self.direct)["current_state"]

    def why(self):
        return self.project.json("endpoint", "why", self.direct)

    def pid(self):
        """Of the PgBouncer, or None."""
        path = f"{self.server.store}/pools/{self.direct}/pid"
        try:
            with open(path, encoding="ascii") as f:
                pid = int(f.read())
        except (OSError, ValueError):
            return None
        return pid if h.is_alive(pid) else None

    def pooled(self, dsn):
        c = self.connect(dsn)
        c.c.autocommit = True
        return c


@pytest.fixture
def pooler(project):
    return Pooler(project)


def server_pid(c):
    return c.one("SELECT pg_backend_pid()")


@pytest.mark.every_version
def test_clients_come_through_the_pooler_and_share_connections(pooler):
    pooler.project.suspend()
    for dsn in (pooler.clear(), pooler.tls()):
        with pooler.pooled(dsn) as c:
            assert c.one("SELECT 6 * 7") == 42 and pooler.state() == "active"
            assert c.one("SELECT client_addr IS NULL FROM pg_stat_activity WHERE pid = pg_backend_pid()")
            assert "127.0.0.1" in c.one("SHOW application_name")
    with pooler.pooled(pooler.clear()) as one, pooler.pooled(pooler.tls()) as other:
        assert server_pid(one) == server_pid(other)  # each transaction takes any that is free
    ca = t.ca_file(pooler)
    with pooler.pooled(pooler.tls(sslmode="verify-full", sslrootcert=ca)) as c:
        assert c.one("SELECT 1") == 1


def test_strings_for_the_pooler(pooler):
    uri = pooler.project.bough("cs", "main", "--pooled").stdout.strip()
    assert pooler.endpoint in uri and pooler.pid() is None  # printing it starts nothing
    out = h.run([h.tool("psql"), uri, "-Atc", "SELECT 6 * 7"]).stdout
    assert out.strip() == "42" and pooler.pid()
    pooler.project.refused("cs", "main", "--pooled", "--socket", status="usage")


def test_who_has_no_right_does_not_get_in(pooler):
    pooler.refused(pooler.clear(password="wrong"), "SASL authentication failed|password authentication failed")
    pooler.refused(pooler.clear(user="nobody"), "SASL authentication failed|password authentication failed")
    admin = pooler.clear(user=h.ADMIN, password=pooler.server.admin_password())
    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(**admin)
    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(**admin | {"user": h.admin_user(pooler.project.socket()["host"])})
    with pooler.pooled(pooler.clear()) as c:  # a password that is changed counts at once
        role = pooler.login["user"]
        c.run(f"ALTER ROLE \"{role}\" PASSWORD 'another'")
    with pooler.pooled(pooler.clear(password="another")) as c:
        assert c.one("SELECT 1") == 1


def test_an_open_client_keeps_it_awake_and_none_does_not(pooler):
    with pooler.pooled(pooler.clear()) as c:
        assert c.one("SELECT 1") == 1
        assert pooler.why()["sessions"] == 1
        pid = pooler.pid()
        pooler.server.kill()
        pooler.server.up()
        assert pooler.pid() == pid and c.one("SELECT 2") == 2  # neither notices
    with pooler.pooled(pooler.clear()) as c:
        assert c.one("SELECT 1") == 1 and pooler.pid() == pid
    pooler.project.suspend()
    assert pooler.state() == "idle" and pooler.pid() is None


def test_an_unused_branch_is_suspended_though_its_pooler_keeps_connections(make_server):
    server = make_server(up=False)
    server.env["BOUGH_LEAST_SUSPEND_SECONDS"] = "1"
    server.up()
    pooler = Pooler(server.project("p"))
    status, _, _ = server.api("PATCH", f"/projects/{pooler.project.id}/endpoints/{pooler.direct}",
                              {"endpoint": {"suspend_timeout_seconds": 1}})
    assert status == 200
    pooler.project.branch("other")
    other = t.Door(pooler.project, "other")
    status, _, _ = server.api("PATCH", f"/projects/{pooler.project.id}/endpoints/{other.endpoint}",
                              {"endpoint": {"suspend_timeout_seconds": 1}})
    assert status == 200
    used = pooler.pooled(pooler.clear())
    assert used.one("SELECT 1") == 1
    server.kill()
    server.up()  # which has not seen this client come
    h.wait_for(lambda: other.state() == "idle", "the other one, which nobody uses, is suspended")
    assert used.one("SELECT 2") == 2 and pooler.state() == "active"
    used.close()
    h.wait_for(lambda: pooler.state() == "idle", "it is suspended when nobody uses it")
    assert pooler.pid() is None and "nobody used it" in pooler.why()["cause"]
    with pooler.pooled(pooler.tls()) as c:
        assert c.one("SELECT 3") == 3


def test_a_pooler_that_was_killed_starts_again(pooler):
    with pooler.pooled(pooler.clear()) as c:
        assert c.one("SELECT 1") == 1
    os.kill(pooler.pid(), signal.SIGKILL)
    h.wait_for(lambda: pooler.pid() is None, "it is gone")
    with pooler.pooled(pooler.tls()) as c:
        assert c.one("SELECT 1") == 1


def test_many_at_once_start_one_pooler(pooler):
    pooler.project.suspend()
    got = []

    def connect():
        with pooler.pooled(pooler.clear()) as c:
            got.append(c.one("SELECT 1"))

    threads = [threading.Thread(target=connect) for _ in range(40)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert got == [1] * 40
    assert sum(1 for name in os.listdir("/proc") if name.isdigit() and _is_pooler(name, pooler)) == 1


def _is_pooler(pid, pooler):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return f"{pooler.server.store}/pools/".encode() in f.read()
    except OSError:
        return False


def test_down_ends_it(pooler):
    with pooler.pooled(pooler.clear()) as c:
        assert c.one("SELECT 1") == 1
    pid = pooler.pid()
    pooler.server.down()
    assert not h.is_alive(pid)


@pytest.mark.parametrize("way", ["clear", "tls"])
def test_a_query_is_cancelled_through_the_pooler(pooler, way):
    """The request comes in clear and names no branch; of several poolers the right one does it."""
    pooler.project.branch("other")
    other = Pooler(pooler.project, "other")
    sleeps = ("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%%pg_sleep(600)%%' AND state = 'active'"
              " AND pid <> pg_backend_pid()")
    with pooler.pooled(getattr(pooler, way)()) as c, other.pooled(getattr(other, way)()) as bystander:
        done = []

        def sleep(session):
            try:
                session.run("SELECT pg_sleep(600)")
            except psycopg2.errors.QueryCanceled:
                done.append(session)
        threads = [threading.Thread(target=sleep, args=(s,)) for s in (c, bystander)]
        for one in threads:
            one.start()
        for door in (pooler, other):
            with door.project.connect("other" if door is other else "main") as watcher:
                h.wait_for(lambda w=watcher: w.one(sleeps.replace("%%", "%")) == 1, "it runs")
        c.c.cancel()
        threads[0].join(30)
        assert done == [c] and c.one("SELECT 1") == 1
        bystander.c.cancel()
        threads[1].join(30)
        assert done == [c, bystander] and bystander.one("SELECT 1") == 1


def test_a_cancel_request_of_nobody_neither_wakes_nor_starts_anything(pooler):
    with pooler.pooled(pooler.clear()) as c:
        assert c.one("SELECT 1") == 1
    pid = pooler.pid()
    before = pooler.why()
    for key in (1, 2**31):
        with pooler.raw(struct.pack("!IIII", 16, 80877102, 2**31 - 7, key)) as s:
            assert t.read_all(s) == b""
    assert pooler.why()["sessions"] == 0 and pooler.why().get("idle_since") == before.get("idle_since")
    assert pooler.pid() == pid
    pooler.project.suspend()
    with pooler.raw(struct.pack("!IIII", 16, 80877102, 2**31 - 7, 1)) as s:
        assert t.read_all(s) == b""
    assert pooler.state() == "idle" and pooler.pid() is None
