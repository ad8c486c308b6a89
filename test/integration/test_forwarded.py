"""Whose address counts of who comes by HTTP: /sql and WebSockets, directly and through a trusted proxy."""
import os
import socket
import struct
import urllib.parse

import pytest

import harness as h
from api import Api, Shop, all_at_once
from test_door import error_of, other_address, packet, read_all
from test_sql_http import Sql
from test_websocket import Closed, Session, WebSocket, message

ALLOWED = "192.0.2.7"


class Site:
    """A server, a project with one address on its list, and both ways by HTTP."""

    def __init__(self, server):
        self.server = server
        api = Api(server)
        self.shop = Shop(api, api.project("shop"))
        self.api, self.sql = api, Sql(server, self.shop)
        self.allow(ALLOWED)

    def allow(self, *rules):
        self.api("PATCH", self.shop.path, {"project": {"settings": {"allowed_ips": {"ips": list(rules)}}}})

    def by_sql(self, options=None, **headers):
        """None, or why not."""
        uri = self.sql.make_uri(query=f"?options={urllib.parse.quote(options)}") if options else None
        status, _, answer = self.sql.request({"query": "SELECT 1 AS x", "params": []}, headers, uri=uri)
        if status == 200:
            assert answer["rows"][0]["x"] in (1, "1")
            return None
        assert options or answer["code"] == "28000", answer
        return answer["message"]

    def by_websocket(self, options=None, **headers):
        more = {"options": options} if options else {}
        ws = WebSocket(self.server.port, path=f"/v2?address={self.shop.endpoint}.localhost", headers=headers)
        try:
            session = Session(ws, "neondb_owner", self.sql.password, **more)
            kind, body = session.message()
            if kind == b"E":
                return body.decode()
            assert kind == b"R"
            return None
        except Closed as e:
            return str(e)
        finally:
            ws.close()

    def ways(self):
        return (self.by_sql, self.by_websocket)


@pytest.fixture(name="site")
def fixture_site(make_server):
    server = make_server(up=False)
    server.up("--trusted-proxies", "127.0.0.1,10.0.0.0/8")
    return Site(server)


def x(*values):
    return {"X-Forwarded-For": ", ".join(values)}


def test_a_trusted_proxy_says_whose_address_counts(site):
    for ask in site.ways():
        assert ask(**x(ALLOWED)) is None
        assert ask(**x(ALLOWED, "10.1.2.3")) is None
        assert ask(**x("198.51.100.1", ALLOWED)) is None  # what stands before may be anything
        assert ask(**x(f"{ALLOWED}:4711")) is None
        for wrong, address in [(x("192.0.2.8"), "192.0.2.8"), (x(ALLOWED, "198.51.100.1"), "198.51.100.1"),
                               (x("2001:db8::1"), "2001:db8::1"), (x(ALLOWED, "nonsense"), "127.0.0.1"),
                               (x(ALLOWED, ""), "127.0.0.1"), ({}, "127.0.0.1"), (x("10.9.9.9"), "10.9.9.9")]:
            assert f"the address {address} is not allowed to connect" in (ask(**wrong) or ""), wrong
    assert site.api("GET", f"{site.shop.path}/endpoints/{site.shop.endpoint}")["endpoint"]["current_state"] == "active"


def test_much_that_the_client_says_itself_does_not_hide_what_the_proxy_adds(site):
    """A proxy that adds a word to it, and one that adds a line."""
    site.allow("127.0.0.1")
    for ask in site.ways():
        for junk in ("x" * 5000, ", ".join(["127.0.0.1"] * 1000), "," * 5000):
            assert "192.0.2.8 is not allowed" in ask(**x(junk, "192.0.2.8"))
            assert "192.0.2.8 is not allowed" in ask(**{"x-forwarded-for": junk, **x("192.0.2.8")})


def test_nobody_else_is_believed(make_server):
    site = Site(make_server())
    for ask in site.ways():
        assert "127.0.0.1 is not allowed" in ask(**x(ALLOWED))
    site.allow("127.0.0.1")
    for ask in site.ways():
        assert ask(**x("192.0.2.8")) is None


def test_wakes_are_counted_by_that_address(make_server):
    server = make_server(up=False)
    server.up("--trusted-proxies", "127.0.0.1", "--wakes-per-address", "1")
    site = Site(server)
    site.allow()

    def wake(address):
        site.api("POST", f"{site.shop.path}/endpoints/{site.shop.endpoint}/suspend")
        status, _, answer = site.sql.request({"query": "SELECT 1", "params": []}, x(address))
        return answer.get("message") if status != 200 else None
    assert wake("192.0.2.1") is None and wake("192.0.2.2") is None
    assert "this address wakes endpoints too often" in wake("192.0.2.1")


def test_postgresql_and_bough_tell_who_it_was(site):
    """The address is in application_name where the client says none, and in the cause of a wake."""
    sql = "SELECT current_setting('application_name') AS name"

    def name(**kw):
        return site.sql.request({"query": sql, "params": []}, x(ALLOWED), **kw)[2]["rows"][0]["name"]
    path = f"{site.shop.path}/endpoints/{site.shop.endpoint}"
    site.api("POST", f"{path}/suspend")
    assert name() == f"/sql from {ALLOWED}"
    assert site.api("GET", f"{path}/why")["why"]["cause"] == f"a connection from {ALLOWED}"
    assert name(uri=site.sql.make_uri(query="?application_name=mine")) == "mine"
    for more, wanted in (({}, f"WebSocket from {ALLOWED}"), ({"application_name": "mine"}, "mine")):
        ws = WebSocket(site.server.port, path=f"/v2?address={site.shop.endpoint}.localhost", headers=x(ALLOWED))
        session = Session(ws, "neondb_owner", site.sql.password, **more)
        told = session.until((b"Z", b"E"))
        assert (b"S", b"application_name\0" + wanted.encode() + b"\0") in told
        ws.close()


def test_a_client_cannot_give_itself_a_pass(site):
    """The word by which boughd says whose its connection is, said by somebody else."""
    site.allow()
    for options in ("bough_pass=00000000000000000000000000000000", "bough_pass=x"):
        status, _, answer = site.sql.request({"query": "SELECT 1", "params": []},
                                             uri=site.sql.make_uri(query=f"?options={options}"))
        assert status == 400 and "bough_pass" not in answer["message"].replace("or bough_pass", ""), answer
        with pytest.raises(Exception, match="pass is not known"):
            h.Client(h.psycopg2.connect(host="127.0.0.1", port=server_port(site), user="x", dbname="x",
                                        sslmode="disable", options=f"endpoint={site.shop.endpoint} {options}"))


@pytest.mark.parametrize("options", ["endpoint={} -c foo.bar=\\", "endpoint={} -c", "-c foo.bar=\\", "\\", "-c"])
def test_options_do_not_hide_whose_connection_it_is(site, options):
    """A last word that would take what is said behind it."""
    options = options.format(site.shop.endpoint)
    site.allow("127.0.0.1")
    for ask in site.ways():
        assert "192.0.2.8 is not allowed" in ask(options=options, **x("192.0.2.8"))
    site.allow(ALLOWED)
    for ask in site.ways():
        assert "is not allowed" not in (ask(options=options, **x(ALLOWED)) or "")


def ports(pid):
    """Those on which a process listens, of IPv4."""
    inodes = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            inodes.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except FileNotFoundError:
            pass
    with open("/proc/net/tcp", encoding="ascii") as f:
        rows = [line.split() for line in f.readlines()[1:]]
    return {int(r[1].split(":")[1], 16) for r in rows if r[3] == "0A" and f"socket:[{r[9]}]" in inodes}


def test_boughds_own_port_takes_nobody_without_a_pass(site):
    site.allow("127.0.0.1")
    own, = ports(site.server.pid()) - {site.server.port, server_port(site)}
    pass_of_nobody = struct.pack("!II", 40, 0x426f7567) + b"0" * 32
    startup = packet(user="neondb_owner", database="neondb", options=f"endpoint={site.shop.endpoint}")
    guessed = packet(user="neondb_owner", database="neondb", options=f"endpoint={site.shop.endpoint} bough_pass=x")
    for data, why in [(startup, "no pass was given"), (guessed, "pass is not known"),
                      (pass_of_nobody + startup, "pass is not known")]:
        with socket.create_connection(("127.0.0.1", own), timeout=20) as s:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            assert why in error_of(read_all(s))["M"]
    with pytest.raises(Exception, match="no pass was given"):
        h.Client(h.psycopg2.connect(host=f"{site.shop.endpoint}.localhost", hostaddr="127.0.0.1", port=own, user="x",
                                    dbname="x", sslmode="require"))
    with socket.create_connection(("127.0.0.1", server_port(site)), timeout=20) as s:  # nor is one said elsewhere
        s.sendall(pass_of_nobody + startup)
        assert read_all(s) == b""


def test_who_comes_by_http_gets_in_wherever_the_door_listens(make_server):
    address = other_address()
    if not address:
        pytest.skip("this machine has no other address than its own")
    server = make_server(up=False)
    server.up("--listen", f"{address}:{server.door}", "--trusted-proxies", "127.0.0.1")
    site = Site(server)
    for ask in site.ways():
        assert ask(**x(ALLOWED)) is None
        assert "192.0.2.8 is not allowed" in ask(**x("192.0.2.8"))


def test_cancel_requests_by_websockets_are_limited_by_that_address(site):
    """Those that all poolers are asked about."""
    site.allow()

    def open_one(address, endpoint):
        return WebSocket(site.server.port, path=f"/v2?address={endpoint}.localhost", headers=x(address))

    def cancel(address, key):
        ws = open_one(address, site.shop.endpoint)
        ws.send(struct.pack("!II", 16, 80877102) + key)
        while ws.frame()[0] != 8:
            pass
        ws.close()
    ws = open_one(ALLOWED, f"{site.shop.endpoint}-pooler")
    session = Session(ws, "neondb_owner", site.sql.password)
    key = [m[1] for m in session.until((b"Z",)) if m[0] == b"K"][0]
    ws.send(message(b"Q", b"SELECT pg_sleep(600)\0"))
    sleeps = "SELECT count(*)::int AS n FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"

    def runs():
        return site.sql(sleeps)["rows"][0]["n"] == 1
    h.wait_for(runs, "the query runs")
    for _ in range(125):
        cancel("192.0.2.8", struct.pack("!II", 2**31 - 7, 1))
    cancel("192.0.2.8", key)
    for _ in range(20):
        assert runs()
    cancel("192.0.2.9", key)
    assert [m for m in session.until((b"Z",)) if m[0] == b"E" and b"C57014\0" in m[1]]
    ws.close()


def test_a_list_set_while_the_last_other_one_is_cleared_holds(make_server):
    server = make_server(up=False)
    server.env["BOUGH_DELAY_AT"] = "lists.read:100"
    server.up()
    api = Api(server)
    shops = [Shop(api, api.project(name)) for name in "ab"]

    def allow(shop, rules):
        Api(server)("PATCH", shop.path, {"project": {"settings": {"allowed_ips": {"ips": rules}}}})
    for _ in range(12):
        all_at_once(lambda both: allow(*both), [(shops[0], [ALLOWED]), (shops[1], [])])
        with pytest.raises(h.psycopg2.OperationalError, match="is not allowed to connect"):
            h.psycopg2.connect(shops[0].made["connection_uris"][0]["connection_uri"], connect_timeout=20)
        shops.reverse()


def server_port(site):
    return int(site.server.status()["postgres"].rsplit(":", 1)[1])


@pytest.mark.parametrize("bad", ["localhost", "10.0.0.0/33", "10.0.0.1,", ",", "10.0.0.1 10.0.0.2"])
def test_what_is_no_list_of_proxies_is_refused(make_server, bad):
    server = make_server(up=False)
    server.refused("up", "--trusted-proxies", bad, status="usage", says="no address, network or range")
