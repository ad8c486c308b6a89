"""The front door: who is meant, TLS, waking and sleeping, the hand-off, and hostile strangers."""
import contextlib
import os
import socket
import ssl
import struct
import subprocess
import threading

import psycopg2
import pytest

import harness as h

pytestmark = pytest.mark.slow

SSL_REQUEST = struct.pack("!II", 8, 80877103)
GSS_REQUEST = struct.pack("!II", 8, 80877104)
ME = ("SELECT host(client_addr), ssl, version FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)"
      " WHERE pid = pg_backend_pid()")


class Door:
    """How to reach a branch through the door in every way."""

    def __init__(self, project, branch="main"):
        self.project, self.server = project, project.server
        listed = {e["branch_id"]: e for e in project.json("endpoint", "list")}
        self.endpoint = listed[project.get(branch)["id"]]["id"]
        dsn = psycopg2.extensions.parse_dsn(project.uri(branch))
        self.login = {k: dsn[k] for k in ("user", "password", "dbname")}
        self.port = int(self.server.status()["postgres"].rsplit(":", 1)[1])

    def dsn(self, **more):
        return self.login | {"port": self.port, "connect_timeout": 20} | more

    def tls(self, **more):
        """By the server name, whether or not it resolves here."""
        return self.dsn(**{"host": f"{self.endpoint}.localhost", "hostaddr": "127.0.0.1",
                           "sslmode": "require"} | more)

    def clear(self, **more):
        return self.dsn(**{"host": "127.0.0.1", "sslmode": "disable",
                           "options": f"endpoint={self.endpoint}"} | more)

    def connect(self, dsn):
        return h.Client(psycopg2.connect(**dsn))

    def refused(self, dsn, says):
        with pytest.raises(psycopg2.OperationalError, match=says):
            psycopg2.connect(**dsn)

    def raw(self, data=b""):
        s = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        s.sendall(data)
        return s

    def state(self):
        return self.project.json("endpoint", "get", self.endpoint)["current_state"]

    def why(self):
        return self.project.json("endpoint", "why", self.endpoint)


@pytest.fixture
def door(project):
    return Door(project)


@pytest.fixture(scope="module")
def shared(shared_server):
    """For tests that leave everything as it was."""
    return Door(shared_server.project("shared"))


def ca_file(door):
    path = os.path.join(door.server.dir, "ca.crt")
    with open(path, "w", encoding="ascii") as f:
        f.write(door.server.bough("ca").stdout)
    return path


def packet(**parameters):
    body = struct.pack("!I", 196608)
    for name, value in parameters.items():
        body += name.encode() + b"\0" + value.encode() + b"\0"
    body += b"\0"
    return struct.pack("!I", len(body) + 4) + body


def error_of(data):
    """The fields of an ErrorResponse."""
    assert data[:1] == b"E", data
    size = struct.unpack("!I", data[1:5])[0]
    fields = data[5:size + 1].split(b"\0")
    return {f[:1].decode(): f[1:].decode() for f in fields if f}


def read_all(s):
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := s.recv(65536):
            data += part
    return data


# ---- getting through ----

@pytest.mark.every_version
def test_every_way_in(door):
    """TLS with channel binding and with a verified name, and in clear; the address is the client's."""
    ca = ca_file(door)
    for dsn, is_tls in [(door.tls(channel_binding="require"), True),
                        (door.tls(sslmode="verify-full", sslrootcert=ca, channel_binding="require"), True),
                        (door.clear(), False),
                        (door.clear(host="localhost", options=f"-c work_mem=3MB endpoint={door.endpoint}"), False),
                        (door.clear(options="", dbname=f"{door.login['dbname']}@main"), False),
                        (door.clear(options=f"project={door.project.name}"), False)]:
        with door.connect(dsn) as c:
            address, has_tls, version = c.one(ME)
            assert (address, has_tls) == ("127.0.0.1", is_tls), dsn
            assert not is_tls or version == "TLSv1.3"
            if "work_mem" in dsn.get("options", ""):
                assert c.one("SHOW work_mem") == "3MB"
    for dsn in (door.tls(channel_binding="require"), door.clear()):
        env = os.environ | {"PGPASSWORD": dsn.pop("password")}
        words = " ".join(f"{k}='{v}'" for k, v in dsn.items())
        h.run([h.tool("pgbench"), "-i", "-q", "-s", "1", words], env=env)
        out = h.run([h.tool("pgbench"), "-c", "4", "-t", "50", "-C", words], env=env).stdout
        assert "processed: 200/200" in out, out
    with door.connect(door.clear()) as c:
        assert c.one("SELECT count(*) FROM pgbench_history") == 200
    with open(os.path.join(os.path.dirname(door.project.pgdata()), "postgres.log"), encoding="utf-8") as f:
        assert "could not" not in f.read()


def test_the_printed_string_connects_and_wakes(door):
    door.project.suspend()
    assert door.state() == "idle"
    uri = door.project.uri()
    assert door.state() == "idle"  # printing it wakes nothing
    assert h.run([h.tool("psql"), uri, "-Atc", "SELECT 6 * 7"]).stdout.strip() == "42"
    assert door.state() == "active"
    socket_uri = door.project.bough("cs", "main", "--socket").stdout.strip()
    assert h.uri_parts(socket_uri)["host"].startswith(door.server.store)
    with door.project.connect(uri=socket_uri) as c:
        assert c.one("SELECT client_addr FROM pg_stat_activity WHERE pid = pg_backend_pid()") is None
    assert door.project.bough("psql", "main", "--", "-Atc", "SELECT 43").stdout.strip() == "43"
    path = f"/projects/{door.project.id}/connection_uri?socket="
    assert [door.server.api("GET", path + word)[0] for word in ("true", "false", "yes")] == [200, 200, 400]


@pytest.mark.parametrize("name", ["d@b", "@", "a@", "x' y", "ü"])
def test_odd_database_names_are_reached_by_endpoint(shared, name):
    with shared.connect(shared.clear()) as c:
        c.run(f'CREATE DATABASE "{name}"')
    with shared.connect(shared.clear(dbname=name)) as c:
        assert c.one("SELECT current_database()") == name
    with shared.connect(shared.clear()) as c:
        c.run(f'DROP DATABASE "{name}"')


def test_gss_is_refused_and_tls_goes_on(shared):
    with shared.raw(GSS_REQUEST) as s:
        assert s.recv(1) == b"N"
        s.sendall(SSL_REQUEST)
        assert s.recv(1) == b"S"


def test_direct_tls(shared, make_server, pg18):
    """A server of 17 or later takes it; to an older one's clients it is explained."""
    def first_answer(door):
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["postgresql"])
        with context.wrap_socket(door.raw(), server_hostname=f"{door.endpoint}.localhost") as s:
            assert s.selected_alpn_protocol() == "postgresql"
            s.sendall(packet(user=door.login["user"], database=door.login["dbname"]))
            return s.recv(65536)
    if h.PG < 17:
        error = error_of(first_answer(shared))
        assert error["C"] == "0A000" and "17 or later" in error["M"]
    if pg18:
        door = Door(make_server("new").project("p", major=18))
        assert first_answer(door)[:1] == b"R"  # postgres asks for the password


# ---- not getting through ----

def test_who_cannot_be_let_in_is_told_why_in_tls_and_in_clear(shared):
    nowhere = {"host": "ep-no-such-1.localhost"}
    shared.refused(shared.tls(**nowhere), 'no endpoint has the id "ep-no-such-1"')
    shared.refused(shared.clear(options="endpoint=ep-no-such-1"), 'no endpoint has the id "ep-no-such-1"')
    shared.refused(shared.clear(options=""), "no endpoint was named.*\n.*HINT")
    shared.refused(shared.tls(host="127.0.0.1"), "the host name must name the endpoint")
    shared.refused(shared.tls(host="localhost"), 'host name "localhost" names no endpoint')
    shared.refused(shared.clear(options="", dbname="x@nosuch"), 'no branch is named "nosuch"')
    shared.refused(shared.clear(options="project=nosuch"), 'no project is named "nosuch"')
    shared.refused(shared.clear(options="endpoint=ep-a endpoint=ep-b"), "names two")
    shared.refused(shared.clear(password="wrong"), "password authentication failed")
    shared.refused(shared.clear(user=h.ADMIN, password=shared.server.admin_password()), "pg_hba.conf rejects")
    with shared.raw(packet(user="x", options="endpoint=ep-no-such-1")) as s:
        error = error_of(read_all(s))
        assert error["S"] == error["V"] == "FATAL" and error["C"] == "42704"
    with shared.raw(struct.pack("!II", 8, 131072)) as s:
        assert error_of(read_all(s))["C"] == "0A000"


def test_a_client_that_verifies_names_sees_why_it_is_refused(door):
    """Not a certificate of another name."""
    verified = {"sslmode": "verify-full", "sslrootcert": ca_file(door)}
    for name in ("ep-no-such-000000", "EP-No-Such-000000", "ep-no-such-000000-pooler", "nonsense"):
        dsn = " ".join(f"{k}={v}" for k, v in door.tls(host=f"{name}.localhost", **verified).items())
        done = h.run([h.tool("psql"), dsn, "-c", ""], check=False)
        assert done.returncode == 2 and "no endpoint" in done.stderr, done.stderr
    door.project.suspend()
    control = os.path.join(door.project.pgdata(), "bough.control")
    os.rename(control, control + ".away")
    door.refused(door.tls(**verified), "postgres|control|start")
    os.rename(control + ".away", control)
    for name in (f"{door.endpoint}.example.com", "127.0.0.2"):
        door.refused(door.tls(host=name, **verified), "certificate")


def test_a_branch_name_of_two_projects_is_not_guessed(server):
    one = server.project("one")
    server.project("two")
    door = Door(one)
    dsn = door.clear(options="", dbname=f"{door.login['dbname']}@main")
    door.refused(dsn, "several projects have a branch named \"main\"")
    with door.connect(dsn | {"options": "project=one"}) as c:
        assert c.one("SELECT 1") == 1
    door.refused(dsn | {"options": "project=two"}, "password authentication failed")


def test_a_compute_that_cannot_start_is_reported(door):
    door.project.suspend()
    control = os.path.join(door.project.pgdata(), "bough.control")
    os.rename(control, control + ".away")
    door.refused(door.clear(), "postgres|control|start")
    door.refused(door.tls(), "postgres|control|start")
    assert door.state() == "idle"
    os.rename(control + ".away", control)
    h.wait_for(lambda: h.run([h.tool("psql"), door.project.uri(), "-c", "SELECT 1"], check=False).returncode == 0,
               "it starts again")


# ---- waking and sleeping ----

def starts(door):
    with open(os.path.join(os.path.dirname(door.project.pgdata()), "postgres.log"), encoding="utf-8") as f:
        return f.read().count("starting PostgreSQL")


def test_many_at_once_start_it_once(door):
    door.project.suspend()
    before, answers = starts(door), []

    def one(dsn):
        with door.connect(dsn) as c:
            answers.append(c.one("SELECT 1"))
    threads = [threading.Thread(target=one, args=(door.tls() if i % 2 else door.clear(),)) for i in range(30)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert answers == [1] * 30 and starts(door) == before + 1
    why = door.why()
    assert why["state"] == "active" and why["cause"] == "a connection from 127.0.0.1"


@pytest.fixture
def sleepy(make_server):
    """A branch that is suspended after a second."""
    server = make_server(up=False)
    server.env["BOUGH_LEAST_SUSPEND_SECONDS"] = "1"
    server.up()
    door = Door(server.project("p"))
    set_timeout(door, 1)
    return door


def set_timeout(door, seconds):
    status, _, _ = door.server.api("PATCH", f"/projects/{door.project.id}/endpoints/{door.endpoint}",
                                   {"endpoint": {"suspend_timeout_seconds": seconds}})
    assert status == 200


def test_an_unused_compute_is_suspended_and_woken_again(sleepy):
    door = sleepy
    for dsn in (door.clear(), door.tls()):
        h.wait_for(lambda: door.state() == "idle", "it is suspended")
        assert "nobody used it" in door.why()["cause"]
        with door.connect(dsn) as c:
            assert c.one("SELECT 1") == 1
            assert door.why()["sessions"] == 1
        h.wait_for(lambda: door.why()["sessions"] == 0, "the end of the session is noticed")
    actions = [(o["action"], o["status"]) for o in door.project.json("operation", "list")]
    assert ("suspend_compute", "finished") in actions and ("start_compute", "finished") in actions


def test_a_compute_in_use_is_not_suspended(sleepy):
    """Not under a session of the door, nor under one of its Unix socket, after a restart of boughd too."""
    door = sleepy
    used = door.connect(door.clear())
    pid = door.project.postmaster()
    unused = Door(door.project, "main")
    door.project.branch("other")
    other = Door(door.project, "other")
    set_timeout(other, 1)
    h.wait_for(lambda: other.state() == "idle", "the other one, which nobody uses, is suspended")
    assert door.state() == "active" and used.one("SELECT 1") == 1
    door.server.kill()
    door.server.up()
    with other.connect(other.clear()) as c:
        assert c.one("SELECT 1") == 1
    h.wait_for(lambda: other.state() == "idle", "the other one is suspended again")
    h.wait_for(lambda: "client session" in door.why()["busy"], "the session is seen inside")
    assert used.one("SELECT 1") == 1 and unused.state() == "active"
    # before the other ends: boughd has not counted that one since its restart, and may look right after its end
    by_socket = h.Client(psycopg2.connect(door.project.bough("cs", "main", "--socket").stdout.strip()))
    by_socket.run("BEGIN")
    used.close()
    h.wait_for(lambda: door.why()["busy"] == "a transaction is open", "the other session is not seen any more")
    with other.connect(other.clear()) as c:
        assert c.one("SELECT 1") == 1
    h.wait_for(lambda: other.state() == "idle", "the other one is suspended once more")
    assert door.project.postmaster() == pid
    by_socket.close()
    h.wait_for(lambda: door.state() == "idle", "it is suspended when nobody uses it")


def test_connections_while_it_is_suspended_again_and_again(door):
    """A hand-off that meets a stop is tried again: no client sees more than the end of its session."""
    stop = threading.Event()
    failures, served = [], [0]

    def client():
        while not stop.is_set():
            try:
                with door.connect(door.clear()) as c:
                    c.one("SELECT 1")
                    served[0] += 1
            except psycopg2.Error as e:
                text = str(e)
                # a session that had begun ends by the administrator's command, as with any server
                if "administrator command" not in text and "shutting down" not in text \
                        and "closed the connection" not in text and "closed unexpectedly" not in text:
                    failures.append(text)
    threads = [threading.Thread(target=client) for _ in range(4)]
    for t in threads:
        t.start()
    for _ in range(h.times(6, 60)):
        before = served[0]
        h.wait_for(lambda: served[0] > before, "clients are served")  # pylint: disable=cell-var-from-loop
        door.project.suspend()
    stop.set()
    for t in threads:
        t.join(60)
    assert not failures, failures[:3]


def test_endpoint_commands_take_the_endpoint_or_its_branch(door):
    p = door.project
    assert p.json("endpoint", "get", "main") == p.json("endpoint", "get", door.endpoint)
    assert p.bough("endpoint", "suspend", door.endpoint).stdout.strip().endswith("is idle")
    text = p.bough("endpoint", "why", "main").stdout
    assert "asleep since" in text and "a suspension was asked for" in text
    p.bough("endpoint", "restart", "main")
    text = p.bough("endpoint", "why", "main").stdout
    assert "awake since" in text and "a restart was asked for" in text and "suspends    at" in text
    p.refused("endpoint", "why", "ep-nope-1", status="notfound")


# ---- the hand-off ----

def test_sessions_outlive_boughd(door):
    sessions = [door.connect(door.tls()), door.connect(door.clear())]
    for s in sessions:
        s.run("CREATE TEMP TABLE t AS SELECT 7 AS n")
    assert door.server.status()["sessions"] == 2
    door.server.kill()
    assert [s.one("SELECT n FROM t") for s in sessions] == [7, 7]
    door.server.up()
    door.port = door.server.door
    assert [s.one("SELECT n FROM t") for s in sessions] == [7, 7]
    with door.connect(door.clear()) as c:
        assert c.one("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'") == 3
    for s in sessions:
        s.close()


def test_boughd_keeps_no_descriptor_of_a_client(door):
    fds = f"/proc/{door.server.pid()}/fd"
    h.wait_for(lambda: door.server.status()["sessions"] == 0, "nobody is connected")
    before = len(os.listdir(fds))
    clients = [door.connect(door.tls() if i % 2 else door.clear()) for i in range(20)]
    h.wait_for(lambda: door.server.status()["handshakes"] == 0, "all are handed over")
    sockets = {os.readlink(f"{fds}/{n}") for n in os.listdir(fds)}
    ours = socket_inodes(door.port)
    assert not sockets & ours, "boughd still has sockets of clients"
    assert door.server.status()["sessions"] == 20
    for c in clients:
        c.close()
    h.wait_for(lambda: door.server.status()["sessions"] == 0 and len(os.listdir(fds)) <= before,
               "boughd has no more descriptors than before")


def socket_inodes(port):
    """Established connections at a local port of the door, as /proc shows their descriptors."""
    found = set()
    with open("/proc/net/tcp", encoding="ascii") as f:
        for line in list(f)[1:]:
            words = line.split()
            if words[1].endswith(f":{port:04X}") and words[3] == "01":
                found.add(f"socket:[{words[9]}]")
    return found


@pytest.mark.parametrize("way", ["clear", "tls"])
def test_a_query_is_cancelled(door, way):
    with door.connect(getattr(door, way)()) as c:
        done = []

        def sleep():
            with pytest.raises(psycopg2.errors.QueryCanceled):
                c.run("SELECT pg_sleep(600)")
            done.append(1)
        t = threading.Thread(target=sleep)
        t.start()
        with door.connect(door.clear()) as watcher:
            h.wait_for(lambda: watcher.one("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)'"
                                           " AND state = 'active' AND pid <> pg_backend_pid()") == 1, "it runs")
        c.c.cancel()
        t.join(30)
        assert done == [1]
        assert c.one("SELECT 1") == 1


def test_a_cancel_request_in_tls_goes_by_the_server_name(door):
    with door.connect(door.clear()) as c:
        pid = c.one("SELECT pg_backend_pid()")
        context = ssl.create_default_context(cafile=ca_file(door))
        s = door.raw(SSL_REQUEST)
        assert s.recv(1) == b"S"
        with context.wrap_socket(s, server_hostname=f"{door.endpoint}.localhost") as t:
            t.sendall(struct.pack("!IIII", 16, 80877102, pid, 1))  # a wrong key: nothing is cancelled
            assert read_all(t) == b""
        assert c.one("SELECT 1") == 1


# ---- strangers ----

HOSTILE = {
    "garbage": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "zeros": bytes(64),
    "huge length": struct.pack("!II", 2**31 - 1, 196608),
    "oversized packet": struct.pack("!II", 10005, 196608) + bytes(10000),
    "short length": struct.pack("!II", 7, 196608),
    "no terminator": struct.pack("!II", 12, 196608) + b"user",
    "name without value": struct.pack("!II", 14, 196608) + b"user\0\0",
    "two requests for TLS": SSL_REQUEST + SSL_REQUEST,
    "two requests for GSS": GSS_REQUEST + GSS_REQUEST + GSS_REQUEST,
    "startup after a request for TLS": SSL_REQUEST + packet(user="x"),
    "cancel of nobody": struct.pack("!IIII", 16, 80877102, 2**31 - 1, 1),
    "cancel of boughd": None,
    "record of nothing": b"\x16\x03\x01\x00\x00",
    "record of an alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "endless hello": b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(16384),
    "hello of lies": b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03" + bytes(32) + b"\xff" * 9,
}


@pytest.mark.parametrize("what", HOSTILE, ids=lambda w: w.replace(" ", "-"))
def test_nonsense_ends_its_connection_only(shared, what):
    data = HOSTILE[what]
    if data is None:
        data = struct.pack("!IIII", 16, 80877102, shared.server.pid(), 1)
    with shared.raw(data) as s:
        answer = read_all(s)
        assert answer.replace(b"S", b"").replace(b"N", b"")[:1] in (b"", b"E", b"\x15"), answer
    with shared.connect(shared.clear()) as c:
        assert c.one("SELECT 1") == 1


def test_a_hello_in_pieces_gets_through(shared):
    """One byte at a time, as TLS in an SSL object gives them, without boughd spinning meanwhile."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=f"{shared.endpoint}.localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read()
    with shared.raw() as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(8):
            s.sendall(SSL_REQUEST[i:i + 1])
        assert s.recv(1) == b"S"
        before = cpu_ticks(shared.server.pid())
        for i in range(len(hello)):
            s.sendall(hello[i:i + 1])
        answer = s.recv(5)
        assert answer[:1] == b"\x16", "postgres says its ServerHello"
        assert cpu_ticks(shared.server.pid()) - before < 100


def cpu_ticks(pid):
    words = h.stat_of(pid)
    return int(words[11]) + int(words[12])


def test_thousands_that_say_nothing_keep_nobody_out(shared):
    """They cost descriptors only, the oldest go, and afterwards everything is as it was."""
    fds = f"/proc/{shared.server.pid()}/fd"

    def quiet():
        status = shared.server.status()
        return status["handshakes"] == status["sessions"] == 0
    h.wait_for(quiet, "nobody is under way")
    before = len(os.listdir(fds))
    beginnings = [b"", b"\0", SSL_REQUEST, b"\x16\x03\x01\x02\x00\x01", packet(user="x")[:10]]
    idle = []
    try:
        for i in range(3000):
            idle.append(shared.raw(beginnings[i % len(beginnings)]))
            if i % 500 == 499:
                for dsn in (shared.clear(), shared.tls()):
                    with shared.connect(dsn) as c:
                        assert c.one("SELECT 1") == 1
        assert 1000 <= shared.server.status()["handshakes"] <= 2100
    finally:
        for s in idle:
            s.close()
    h.wait_for(lambda: quiet() and len(os.listdir(fds)) <= before, "nothing is left of them")


def test_clients_that_leave_while_it_wakes_leave_nothing(door):
    fds = f"/proc/{door.server.pid()}/fd"
    before = len(os.listdir(fds))
    for _ in range(5):
        door.project.suspend()
        gone = [door.raw(packet(user="x", database="x", options=f"endpoint={door.endpoint}")) for _ in range(20)]
        for s in gone:
            s.close()
        with door.connect(door.clear()) as c:
            assert c.one("SELECT 1") == 1
    h.wait_for(lambda: door.server.status()["handshakes"] == 0 and door.server.status()["sessions"] == 0
               and len(os.listdir(fds)) <= before + 1, "nothing is left of them")


def test_strangers_at_the_private_socket_do_not_keep_the_postmaster(door):
    """Connections without a message, with half of one, with garbage; of the same user only."""
    where = os.path.join(door.server.store, "run", door.endpoint, "d/.s.PGSQL.5432")
    assert os.stat(os.path.dirname(where)).st_mode & 0o777 == 0o700
    with h.server_user():
        strangers = []
        for data in (b"", b"BHF1", b"x" * 12, b"BHF1" + bytes(8), b"BHF1\0\0\0\0\xff\xff\xff\xff"):
            s = socket.socket(socket.AF_UNIX)
            s.connect(where)
            with contextlib.suppress(BrokenPipeError):
                s.sendall(data)
            if data:
                s.shutdown(socket.SHUT_WR)
            strangers.append(s)
    with door.connect(door.clear()) as c:
        assert c.one("SELECT 1") == 1
    for s in strangers:
        s.settimeout(20)
        assert read_all(s) == b""
        s.close()


# ---- options ----

def test_the_port_asked_for_is_taken_or_refused(make_server):
    one, two = make_server("one"), make_server("two", up=False)
    two.refused("up", "--listen", f"127.0.0.1:{one.door}", status="conflict", says="is taken", hint="--listen")
    two.refused("up", "--listen", "nonsense", status="usage", says="no address and port")
    two.refused("up", "--tls-cert", one.store + "/tls/server/tls.crt", status="usage", says="belong together")
    two.up()
    assert two.status()["postgres"] == f"127.0.0.1:{two.door}"


def test_a_certificate_of_ones_own(make_server, directory):
    """It is presented by computes and in refusals; its names are the user's business."""
    names = [os.path.join(directory, n) for n in ("own.crt", "own.key")]
    h.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
           "-subj", "/CN=db.example.com", "-addext", "subjectAltName=DNS:*.db.example.com",
           "-out", names[0], "-keyout", names[1]])
    server = make_server(up=False)
    server.up("--tls-cert", names[0], "--tls-key", names[1], "--domain", "db.example.com")
    door = Door(server.project("p"))
    with door.connect(door.tls(host=f"{door.endpoint}.db.example.com", sslmode="verify-full",
                               sslrootcert=names[0])) as c:
        assert c.one("SELECT 1") == 1
    door.refused(door.tls(host="ep-nope-1.db.example.com", sslmode="verify-full", sslrootcert=names[0]),
                 "no endpoint has the id")
    server.refused("ca", status="notfound", hint="--tls-cert")


def test_the_ca_is_made_once_and_its_key_is_private(server):
    first = server.bough("ca").stdout
    key = os.path.join(server.store, "tls/ca.key")
    assert os.stat(key).st_mode & 0o777 == 0o600
    server.down()
    server.up()
    assert server.bough("ca").stdout == first and "BEGIN CERTIFICATE" in first


def other_address():
    """An address of this machine that is not a loopback one, or None."""
    done = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=False)
    found = [a for a in done.stdout.split() if ":" not in a]
    return found[0] if done.returncode == 0 and found else None


@pytest.mark.parametrize("allow", [False, True])
def test_cleartext_from_elsewhere_is_asked_for(make_server, allow):
    address = other_address()
    if not address:
        pytest.skip("this machine has no other address than its own")
    server = make_server(up=False)
    server.up("--listen", f"{address}:{server.door}", *(["--allow-cleartext"] if allow else []))
    door = Door(server.project("p"))
    with door.connect(door.tls(hostaddr=address)) as c:
        assert c.one("SELECT host(client_addr) FROM pg_stat_activity WHERE pid = pg_backend_pid()") == address
    if allow:
        with door.connect(door.clear(host=address)) as c:
            assert c.one("SELECT 1") == 1
    else:
        door.refused(door.clear(host=address), "without TLS are not allowed")


def test_no_more_are_awake_than_may_be(make_server):
    """The one that was unused for longest makes room; where all are in use, it is an error."""
    server = make_server(up=False)
    server.up("--max-awake", "2")
    project = server.project("p")
    for name in ("a", "b"):
        project.branch(name)
    doors = {name: Door(project, name) for name in ("main", "a", "b")}
    def awake():
        return sorted(n for n, d in doors.items() if d.state() == "active")
    assert awake() == ["b", "main"]  # a made room: main was being branched
    assert doors["a"].why()["cause"] == "another one needed its place"
    with doors["b"].connect(doors["b"].clear()) as b:
        with doors["a"].connect(doors["a"].clear()) as c:
            assert c.one("SELECT 1") == 1 and awake() == ["a", "b"]
            doors["main"].refused(doors["main"].clear(), "2 computes are awake")
            project.refused("endpoint", "start", "main", status="busy", hint="--max-awake")
        h.wait_for(lambda: doors["a"].why()["sessions"] == 0, "its session has ended")
        h.wait_for(lambda: h.run([h.tool("psql"), project.uri("main"), "-c", "SELECT 1"],
                                 check=False).returncode == 0, "a makes room")
        assert awake() == ["b", "main"] and b.one("SELECT 1") == 1


def test_where_names_resolve_the_string_is_of_the_name(make_server, directory):
    """In a mount namespace with an /etc/hosts of our own."""
    hosts = os.path.join(directory, "hosts")
    with open(hosts, "w", encoding="ascii") as f:
        f.write("127.0.0.1 localhost ep-any.localhost\n")
    inside = ["unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', hosts]
    if not h.IS_ROOT or subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs root and mount namespaces")
    server = make_server(up=False)
    h.run([*inside, h.BOUGH, "up", "--store", server.store, "--port", server.port,
           "--listen", f"127.0.0.1:{server.door}"], env=server.env)
    project = server.project("p")
    endpoint = project.json("endpoint", "get", "main")
    name = f"{endpoint['id']}.localhost"
    assert endpoint["host"] == f"{name}:{server.door}"
    with open(hosts, "a", encoding="ascii") as f:
        f.write(f"127.0.0.1 {name}\n")
    uri = project.uri()
    assert uri.endswith(f"@{name}:{server.door}/neondb?sslmode=require")
    sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    assert h.run([*inside, h.tool("psql"), uri, "-Atc", sql]).stdout.strip() == "t"


def test_boughd_killed_amid_handshakes_harms_no_compute(door):
    """A hand-off happens or it does not; the postmaster goes on, and takes the next server's clients."""
    door.server.down("--keep-computes")
    door.server.up("--listen", f"127.0.0.1:{door.port}")
    pid = door.project.postmaster()
    stop, served = threading.Event(), [0]

    def client():
        while not stop.is_set():
            with contextlib.suppress(psycopg2.Error):
                with door.connect(door.clear(connect_timeout=10)) as c:
                    served[0] += c.one("SELECT 1")
    threads = [threading.Thread(target=client) for _ in range(4)]
    for t in threads:
        t.start()
    for _ in range(h.times(3, 30)):
        before = served[0]
        h.wait_for(lambda: served[0] > before + 5, "clients are served")  # pylint: disable=cell-var-from-loop
        door.server.kill()
        door.server.up("--listen", f"127.0.0.1:{door.port}")
    stop.set()
    for t in threads:
        t.join(60)
    with door.connect(door.clear()) as c:
        assert c.one("SELECT 1") == 1
    assert door.project.postmaster() == pid
    with open(os.path.join(os.path.dirname(door.project.pgdata()), "postgres.log"), encoding="utf-8") as f:
        assert "could not accept" not in f.read()
