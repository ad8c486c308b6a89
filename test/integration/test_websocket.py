"""The WebSocket of edge drivers: PostgreSQL's protocol in frames, with the password in clear."""
import base64
import contextlib
import hashlib
import os
import re
import select
import signal
import socket
import struct

import pytest

import harness as h
from api import Api, Shop

PASSWORD_REQUEST = b"R" + struct.pack("!II", 8, 3)


class Closed(Exception):
    pass


class WebSocket:
    """As much of RFC 6455 as a client needs."""

    def __init__(self, port, path="/v2", host="localhost", headers=None, early=b""):
        self.s = socket.create_connection(("127.0.0.1", port), timeout=30)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = {"Host": host, "Upgrade": "websocket", "Connection": "keep-alive, Upgrade", "Sec-WebSocket-Key": key,
                 "Sec-WebSocket-Version": "13"} | (headers or {})
        head = "".join(f"{k}: {v}\r\n" for k, v in lines.items() if v is not None)
        self.s.sendall(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode() + early)
        answer = b""
        while b"\r\n\r\n" not in answer:
            more = self.s.recv(4096)
            if not more:
                self.s.close()
                raise Closed(answer)
            answer += more
        head, self.rest = answer.split(b"\r\n\r\n", 1)
        self.status = int(head.split()[1])
        if self.status != 101:
            self.s.close()
        else:
            wanted = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
            assert f"sec-websocket-accept: {base64.b64encode(wanted).decode().lower()}" in head.decode().lower()

    def send(self, data, opcode=2, end=True):
        mask = os.urandom(4)
        n = len(data)
        size = struct.pack("!B", 0x80 | n) if n < 126 else struct.pack("!BH", 0x80 | 126, n) if n < 65536 \
            else struct.pack("!BQ", 0x80 | 127, n)
        masked = bytes(b ^ mask[i % 4] for i, b in enumerate(data))
        self.s.sendall(bytes([opcode | (0x80 if end else 0)]) + size + mask + masked)

    def _read(self, n):
        while len(self.rest) < n:
            more = self.s.recv(65536)
            if not more:
                raise Closed()
            self.rest += more
        data, self.rest = self.rest[:n], self.rest[n:]
        return data

    def frame(self):
        """opcode and payload of the next frame."""
        head = self._read(2)
        n = head[1] & 127
        if n > 125:
            n = struct.unpack("!H" if n == 126 else "!Q", self._read(2 if n == 126 else 8))[0]
        return head[0] & 15, self._read(n)

    def close(self):
        self.s.close()


def message(kind, body):
    return kind + struct.pack("!I", len(body) + 4) + body


def startup(**parameters):
    body = struct.pack("!I", 196608) + b"".join(f"{k}\0{v}\0".encode() for k, v in parameters.items()) + b"\0"
    return struct.pack("!I", len(body) + 4) + body


class Session:
    """A PostgreSQL client over a WebSocket."""

    def __init__(self, ws, user, password, is_refusable=False, **more):
        self.ws, self.data = ws, b""
        ws.send(startup(user=user, database="neondb", **more) + message(b"p", password.encode() + b"\0"))
        if not is_refusable:
            assert self.read(9) == PASSWORD_REQUEST

    def read(self, n):
        while len(self.data) < n:
            opcode, payload = self.ws.frame()
            if opcode == 8:
                raise Closed(payload)
            if opcode == 2:
                self.data += payload
        data, self.data = self.data[:n], self.data[n:]
        return data

    def message(self):
        head = self.read(5)
        return head[:1], self.read(struct.unpack("!I", head[1:])[0] - 4)

    def until(self, kinds):
        """Messages up to one of these kinds."""
        seen = []
        while not seen or seen[-1][0] not in kinds:
            seen.append(self.message())
        return seen

    def rows(self, sql):
        self.ws.send(message(b"Q", sql.encode() + b"\0"))
        seen = self.until((b"Z",))
        assert not [m for m in seen if m[0] == b"E"], seen
        return [m[1][6:].decode() for m in seen if m[0] == b"D"]  # of one column


class Edge:
    def __init__(self, server, shop):
        self.server, self.shop, self.sockets = server, shop, []
        self.password = shop.made["connection_uris"][0]["connection_parameters"]["password"]

    def open(self, **kw):
        kw.setdefault("host", f"{self.shop.endpoint}.localhost:443")
        self.sockets.append(WebSocket(self.server.port, **kw))
        return self.sockets[-1]

    def close(self):
        while self.sockets:
            self.sockets.pop().close()

    def session(self, user="neondb_owner", password=None, options=None, **kw):
        more = {"options": options} if options else {}
        return Session(self.open(**kw), user, password or self.password, **more)


@pytest.fixture(name="edge")
def fixture_edge(shared_server, shop):
    edge = Edge(shared_server, shop)
    yield edge
    edge.close()


def refusal(session):
    """SQLSTATE and message of the ErrorResponse that ends a session."""
    fields = session.until((b"E", b"Z"))[-1][1].split(b"\0")
    found = {f[:1]: f[1:].decode() for f in fields if f}
    with pytest.raises(Closed):
        session.message()
    return found[b"C"], found[b"M"]


def test_startup_password_and_query_in_one_frame_are_answered_and_wake_the_branch(api, shop, edge):
    api("POST", f"{shop.path}/endpoints/{shop.endpoint}/suspend")
    ws = edge.open()
    ws.send(startup(user="neondb_owner", database="neondb", application_name="edge")
            + message(b"p", edge.password.encode() + b"\0") + message(b"Q", b"SELECT current_user\0"))
    data = b""
    while not data.endswith(b"Z\0\0\0\x05I") or data.count(b"Z\0\0\0\x05I") < 2:
        data += ws.frame()[1]
    assert data.startswith(PASSWORD_REQUEST + b"R\0\0\0\x08\0\0\0\0") and b"neondb_owner" in data
    assert b"server_version" in data and b"K\0\0\0\x0c" in data
    ws.close()


@pytest.mark.parametrize("how", [{}, {"host": "localhost", "path": "/v2?address=ENDPOINT.localhost%3A5432"},
                                 {"host": "127.0.0.1", "options": "endpoint=ENDPOINT"},
                                 {"options": "-c geqo=off"}, {"host": "ENDPOINT-pooler.localhost"}])
def test_the_endpoint_is_named_by_host_address_or_option(edge, how):
    s = edge.session(**{k: v.replace("ENDPOINT", edge.shop.endpoint) for k, v in how.items()})
    seen = s.until((b"Z", b"E"))
    assert seen[-1][0] == b"Z", seen[-1]
    assert s.rows("SHOW geqo") == ["off" if "geqo" in how.get("options", "") else "on"]
    if "pooler" not in how.get("host", ""):  # PgBouncer adds its own words
        assert s.rows("SELECT current_setting('application_name')") == ["WebSocket from 127.0.0.1"]
    s.ws.close()


@pytest.mark.parametrize("how,state", [({"password": "wrong"}, "28P01"), ({"user": "nobody"}, "28P01"),
                                       ({"host": "ep-no-such-000000.localhost"}, None),
                                       ({"host": "localhost"}, None)])
def test_who_may_not_connect_hears_why(edge, how, state):
    code, text = refusal(edge.session(**how))
    assert text and (state is None or code == state)


def test_the_superuser_of_bough_cannot_come_this_way(edge):
    refusal(edge.session(user="bough_admin", password=edge.server.admin_password()))


def test_large_values_go_both_ways(edge):
    s = edge.session()
    s.until((b"Z",))
    assert s.rows(f"SELECT length('{'x' * 2_000_000}')") == ["2000000"]
    assert len(s.rows("SELECT repeat('y', 5000000)")[0]) == 5_000_000
    s.ws.close()


def test_a_message_in_many_frames_is_one(edge):
    s = edge.session()
    s.until((b"Z",))
    data = message(b"Q", b"SELECT 42\0")
    for i, byte in enumerate(data):
        s.ws.send(bytes([byte]), opcode=0 if i else 2, end=i == len(data) - 1)
        s.ws.send(b"are you there", opcode=9)
    assert [m[1][6:] for m in s.until((b"Z",)) if m[0] == b"D"] == [b"42"]
    s.ws.close()


def count(edge):
    return edge.shop.api("GET", f"{edge.shop.path}/endpoints/{edge.shop.endpoint}/why")["why"]["sessions"]


def test_a_session_ends_with_its_client_and_with_its_backend(edge):
    s = edge.session()
    s.until((b"Z",))
    before = count(edge)
    s.ws.close()  # without a word
    h.wait_for(lambda: count(edge) == before - 1, "the compute's session has ended")
    s = edge.session()
    s.until((b"Z",))
    s.ws.send(message(b"Q", b"SELECT pg_terminate_backend(pg_backend_pid())\0"))
    assert refusal(s)[0] == "57P01"


@pytest.mark.parametrize("suffix", ["", "-pooler"])
def test_a_query_is_cancelled_over_another_socket(edge, suffix):
    """Again and again: PgBouncer ends itself over some that leave before it is done."""
    s = edge.session(host=f"{edge.shop.endpoint}{suffix}.localhost")
    key = [m[1] for m in s.until((b"Z",)) if m[0] == b"K"][0]
    watcher = edge.session()
    watcher.until((b"Z",))
    for _ in range(6):
        s.ws.send(message(b"Q", b"SELECT pg_sleep(600)\0"))
        h.wait_for(lambda: watcher.rows("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query ="
                                        " 'SELECT pg_sleep(600)'") == ["1"], "the query runs")
        other = edge.open()
        other.send(struct.pack("!II", 16, 80877102) + key)
        assert [m for m in s.until((b"Z",)) if m[0] == b"E" and b"C57014\0" in m[1]]
        assert other.frame()[0] == 8  # it is done: what postgres signals twice does not hit the next query
    s.ws.close()


def test_encryption_within_is_refused_and_the_session_goes_on(edge):
    ws = edge.open()
    ws.send(struct.pack("!II", 8, 80877103))
    assert ws.frame() == (2, b"N")
    s = Session(ws, "neondb_owner", edge.password)
    s.until((b"Z",))
    assert s.rows("SELECT 1") == ["1"]
    ws.close()


@pytest.mark.parametrize("headers", [{"Sec-WebSocket-Version": "8"}, {"Sec-WebSocket-Key": None},
                                     {"Sec-WebSocket-Key": "x"}, {"Connection": "close"}])
def test_a_handshake_that_is_none_is_refused(edge, headers):
    assert edge.open(headers=headers).status == 400


@pytest.mark.parametrize("data", [b"\0\0\0\0\0\0\0\0", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 5000,
                                  startup(user="u")[:-1] + b"x",
                                  startup(user="neondb_owner") + b"Q\0\0\0\x09SELECT\0",
                                  startup(user="neondb_owner") + b"p\xff\xff\xff\xff",
                                  struct.pack("!II", 10**9, 196608)])
def test_garbage_ends_the_session_and_nothing_else(edge, data):
    ws = edge.open()
    ws.send(data)
    with pytest.raises((Closed, ConnectionResetError)):
        while True:
            if ws.frame()[0] == 8:
                raise Closed()
    ws.close()
    s = edge.session()
    s.until((b"Z",))
    assert s.rows("SELECT 1") == ["1"]
    s.ws.close()


@pytest.mark.parametrize("raw", [b"\xff\xff\xff\xff\xff\xff", b"\x82\xff" + b"\xff" * 20, b"\x82\x02hi",
                                 b"\x80\x80\0\0\0\0"])
def test_wrong_frames_end_the_session(edge, raw):
    """Reserved bits, an absurd length, no mask, the rest of nothing."""
    ws = edge.open()
    ws.s.sendall(raw)
    ws.s.settimeout(10)  # not only when the time to log in is over
    with pytest.raises((Closed, ConnectionResetError)):
        while True:
            if ws.frame()[0] == 8:
                raise Closed()
    ws.close()


def memory(pid):
    """Bytes of a process that are no file's."""
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(re.search(r"^RssAnon:\s+(\d+) kB$", f.read(), re.M).group(1)) * 1024


@pytest.mark.parametrize("logged_in", [False, True])
def test_pings_of_a_client_that_takes_no_answers_cost_no_memory(edge, logged_in):
    pings, most = b"\x89\x80\0\0\0\0" * 10_000, 96 << 20
    s = edge.session() if logged_in else None
    if s:
        s.until((b"Z",))
    ws = s.ws if s else edge.open()
    before, sent = memory(edge.server.pid()), 0
    ws.s.setblocking(False)
    with contextlib.suppress(ConnectionError):  # it had its time to log in
        while sent < most and select.select([], [ws.s], [], 1)[1]:
            sent += ws.s.send(pings[sent % 6:])
    assert sent < most, "it is not read any more"
    if "BOUGH_TEST_PRELOAD" not in os.environ:  # a sanitizer keeps what was freed
        assert memory(edge.server.pid()) - before < 32 << 20
    ws.close()


def test_pings_amid_a_query_are_answered(edge):
    s = edge.session()
    s.until((b"Z",))
    s.ws.send(message(b"Q", b"SELECT repeat('y', 5000000)\0"))
    for i in range(1000):
        s.ws.send(str(i).encode(), opcode=9)
    pongs, data = [], 0
    while len(pongs) < 1000 or data < 5_000_000:
        opcode, payload = s.ws.frame()
        assert opcode in (2, 10)
        if opcode == 10:
            pongs.append(int(payload))
        else:
            data += len(payload)
    assert pongs == list(range(1000))
    s.ws.close()


def test_sessions_are_limited_and_the_server_ends_with_some_open(make_server):
    server = make_server()
    api = Api(server)
    edge = Edge(server, Shop(api, api.project("p")))
    pid = server.pid()
    for _ in range(256):
        edge.open()
    full = edge.open()
    assert full.status == 503
    edge.sockets[0].close()

    def is_let_in():
        return edge.open().status == 101
    h.wait_for(is_let_in, "there is room again")
    os.kill(pid, signal.SIGTERM)
    h.wait_for(lambda: not h.is_alive(pid), "the server has ended", 20)
    edge.close()
