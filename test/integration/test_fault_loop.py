"""Memory that runs out in the thread of boughd that takes clients: HTTP, the front door in clear
and with TLS, WebSockets, cancel requests. The nth allocation fails, for every n until none does.

A client is answered rightly, or is refused, or its connection ends; the next one is served, and no descriptor is lost.
"""
import contextlib
import http.client
import os
import random
import socket
import struct

import psycopg2
import pytest

import harness as h
from faults import COUNT, ONCE, Served, mask, served
from test_websocket import Closed, Session, WebSocket

SEED = os.environ.get("BOUGH_FAULT_SEED") or str(random.randrange(10**6))
SOME = h.times(40, 400)  # allocations of each client


class World(Served):
    """A server whose loop can fail, and each kind of client once. A client returns what it was answered, or None."""

    def __init__(self, directory, pg18):
        super().__init__(directory, pg18)
        self.key = self.server.key()
        self.uri = self.p.uri()
        self.password = h.password(self.uri)
        self.endpoint, self.branch = self.p.json("endpoint", "list")[0]["id"], self.p.get()["id"]
        self.p.sql("main", "CREATE TABLE t AS SELECT 1 AS id")
        self.moment = h.now()
        self.p.sql("main", "INSERT INTO t VALUES (2)")  # a moment is between two commits

    def http(self, method="GET", path="/projects", times=1, **head):
        """The last answer of so many requests over one connection."""
        c = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        try:
            for _ in range(times):
                c.request(method, "/api/v2" + path, headers={"Authorization": f"Bearer {self.key}", **head})
                answer = c.getresponse()
                text = answer.read()
            return None if answer.status >= 500 else (answer.status, text)
        except (OSError, http.client.HTTPException):
            return None
        finally:
            c.close()

    def options(self):
        found = self.http("OPTIONS", Origin="http://localhost:3000")
        return found and found[0]

    def not_found(self):
        found = self.http(path="/nothing/here")
        return found and found[0]

    def two_requests(self):
        return self.http(times=2)

    def sql(self, **more):
        parameters = {"host": "127.0.0.1", "port": self.server.door, "user": "neondb_owner", "dbname": "neondb",
                      "password": self.password, "connect_timeout": 20} | more
        try:
            with contextlib.closing(psycopg2.connect(**parameters)) as c, c.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM t")  # tells the past from the present
                return cursor.fetchone()[0]
        except psycopg2.OperationalError:
            return None

    def clear(self):
        return self.sql(sslmode="disable", options=f"endpoint={self.endpoint}")

    def of_branch(self):
        return self.sql(sslmode="disable", dbname="neondb@main")

    def tls(self, host=None):
        return self.sql(sslmode="require", host=f"{host or self.endpoint}.localhost", hostaddr="127.0.0.1")

    def pooled(self):
        return self.tls(f"{self.endpoint}-pooler")

    def unknown(self):
        return self.tls("ep-no-such-000000")  # refused, or cut off

    def websocket(self):
        try:
            ws = WebSocket(self.server.port, host=f"{self.endpoint}.localhost:443")
            if ws.status != 101:
                return None
            try:
                session = Session(ws, "neondb_owner", self.password, is_refusable=True)
                if session.until((b"Z", b"E"))[-1][0] == b"E":
                    return None
                return session.rows("SELECT count(*) FROM t")
            finally:
                ws.close()
        except (OSError, Closed):
            return None

    def says(self, data):
        """What the front door says to that; a reset is no answer."""
        try:
            with socket.create_connection(("127.0.0.1", self.server.door), timeout=20) as s:
                s.sendall(data)
                return s.recv(100)
        except ConnectionResetError:
            return b""

    def cancel(self):
        return self.says(struct.pack("!IIII", 16, 80877102, 1, 2))

    def garbage(self):
        return self.says(b"GET / HTTP/1.1\r\n\r\n")

    def past(self):
        """A session in a moment of the past; the branch of it is there already."""
        return self.sql(sslmode="disable", options=f"endpoint={self.endpoint} neon_timestamp:{self.moment}")

    def past_tls(self):
        return self.sql(sslmode="require", host=f"{self.branch}.localhost", hostaddr="127.0.0.1",
                        options=f"neon_timestamp:{self.moment}")


@pytest.fixture(name="world", scope="module")
def fixture_world(session_dir, pg18):
    with served(World, session_dir, "fault-loop", pg18) as world:
        yield world


CLIENTS = [(client, "boughd") for client in ("http", "options", "not_found", "two_requests", "clear", "tls",
                                             "of_branch", "pooled", "unknown", "websocket", "cancel", "garbage",
                                             "past", "past_tls")]
CLIENTS += [("websocket", "websocket"), ("past_tls", "past")]  # these have threads of their own


@pytest.mark.parametrize("client,thread", CLIENTS)
def test_clients_are_served_or_refused_when_memory_runs_out(world, client, thread, counted):
    once = getattr(world, client)
    for _ in range(2):  # the first time there are more
        world.fault.arm(COUNT, mask("malloc"), program="boughd", thread=thread)
        right = once()
        world.fault.disarm()
    chance, fired, n, steps = random.Random(f"{SEED} {client} {thread}"), 0, 1, max(1, 2 * world.fault.seen // SOME)
    before = world.descriptors()
    assert right is not None or client == "unknown"
    assert client not in ("clear", "tls", "past", "past_tls") or right == (1 if "past" in client else 2)
    while True:
        world.fault.arm(ONCE, mask("malloc"), 12, n, program="boughd", thread=thread)
        got = once()
        world.fault.disarm()
        assert h.is_alive(world.pid), f"boughd was ended by {world.fault.what()}, the {n}th, seed {SEED}"
        what = f"{client}, {world.fault.what() if world.fault.fired else 'no call'}, the {n}th, seed {SEED}"
        assert got in (right, None) or client in ("cancel", "garbage"), f"{what}: {got}, not {right}"
        if not world.fault.fired:
            assert got == right, f"{what}: nothing failed, and it was refused"
            break
        fired += 1
        n += chance.randint(1, steps)
    print(client, thread, fired, "failed")
    assert fired > 0, "no allocation failed"
    counted("allocations that failed while boughd took clients", fired)
    assert world.server.pid() == world.pid, "boughd was ended"
    assert once() == right
    h.wait_for(lambda: world.descriptors() <= before + 4, f"descriptors are closed again: {before} before")
