"""A branch that is stuck, by a lock that a session keeps or a server that says nothing, is stuck alone."""
import contextlib
import os
import random
import socket
import threading
import time

import pytest

import harness as h
from api import Api, Shop, all_at_once, connect

pytestmark = pytest.mark.slow

RESETS = 20  # more than there are threads for requests


def key_of(api, name, **scope):
    return api("POST", "/api_keys", {"key_name": name, **scope})["key"]


@pytest.fixture(name="locked")
def fixture_locked(api, shop):
    """A branch of which a plain role has an open transaction that locks itself."""
    made = shop.branch(f"locked-{random.randrange(10**9)}")
    branch, endpoint = made["branch"]["id"], made["endpoints"][0]["id"]
    path = f"{shop.path}/branches/{branch}"
    api("POST", f"{path}/roles", {"role": {"name": "plain"}}, 201)
    uri = api("GET", f"{shop.path}/connection_uri?branch_id={branch}&database_name=neondb&role_name=plain")["uri"]
    with connect(uri) as c:
        c.run("BEGIN")
        c.run("ALTER ROLE plain PASSWORD 'x'")
        yield path, f"{shop.path}/endpoints/{endpoint}", c
    api("DELETE", f"{path}?hard_delete=true")


def test_what_a_session_has_locked_is_refused_soon(api, locked):
    path, _, session = locked
    before = api("GET", f"{path}/roles/plain/reveal_password")
    began = time.monotonic()
    refused = api("POST", f"{path}/roles/plain/reset_password", status=423)
    assert time.monotonic() - began < 30 and "locked" in refused["message"]
    api("DELETE", f"{path}/roles/plain", status=423)
    assert api("GET", f"{path}/roles/plain/reveal_password") == before, "what was refused is told"
    session.run("ROLLBACK")
    api("POST", f"{path}/roles/plain/reset_password")


def test_requests_for_a_locked_branch_keep_nobody_waiting(api, shop, locked):
    path, endpoint, _ = locked
    stranger, owner = key_of(api, "stranger"), Api(api.server)
    attacker = key_of(api, "attacker", project_id=shop.id, branch_id=path.rsplit("/", 1)[1])
    begun, answers = threading.Barrier(RESETS + 1), []

    def reset():
        begun.wait(30)
        answers.append(Api(api.server)("POST", f"{path}/roles/plain/reset_password", status=(423, 200), key=attacker))
    threads = [threading.Thread(target=reset) for _ in range(RESETS)]
    for t in threads:
        t.start()
    begun.wait(30)
    for _ in range(10):  # while they wait
        began = time.monotonic()
        owner("GET", "/users/me", key=stranger)
        owner("GET", f"{shop.main_path}/roles", key=stranger)
        assert time.monotonic() - began < 5
    assert not answers, "nothing was waited for"
    began = time.monotonic()
    owner("POST", f"{endpoint}/suspend")
    assert time.monotonic() - began < 50
    for t in threads:
        t.join(60)
        assert not t.is_alive()
    assert len(answers) == RESETS


@contextlib.contextmanager
def mute(path):
    """A compute that lets everybody in and says no more: another listens on its socket."""
    os.rename(path, path + ".real")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    os.chmod(path, 0o777)
    listener.listen(64)
    try:
        with h.Silent(listener) as silent:
            yield silent
    finally:
        os.rename(path + ".real", path)


def test_a_compute_that_says_nothing_keeps_no_other_awake(make_server):
    server = make_server(up=False)
    server.env["BOUGH_LEAST_SUSPEND_SECONDS"] = "1"
    api = Api(server.up())
    shop = Shop(api, api.project("p"))
    others = [shop.branch(f"b{i}")["endpoints"][0]["id"] for i in range(2)]
    uri = api("GET", f"{shop.path}/connection_uri?branch_id={shop.main}&socket=true")["uri"]
    directory = uri.split("host=")[1].split("&")[0].replace("%2F", "/")
    with mute(f"{directory}/.s.PGSQL.5432") as silent:
        reset = threading.Thread(target=lambda: api("POST", f"{shop.main_path}/roles/neondb_owner/reset_password",
                                                    status=(503, 504)))
        reset.start()
        for endpoint in (shop.endpoint, *others):
            Api(server)("PATCH", f"{shop.path}/endpoints/{endpoint}", {"endpoint": {"suspend_timeout_seconds": 1}})
        assert silent.asked.wait(30)
        h.wait_for(lambda: all(Api(server)("GET", f"{shop.path}/endpoints/{e}")["endpoint"]["current_state"] == "idle"
                               for e in others), "those that answer are suspended", 60)
        reset.join(90)
        assert not reset.is_alive()
    Api(server)("POST", f"{shop.path}/endpoints/{shop.endpoint}/restart")
    Api(server)("POST", f"{shop.main_path}/roles/neondb_owner/reset_password")


def test_a_database_is_made_while_its_template_is_being_copied(api, shop):
    """As long as it takes: several at once wait for each other's locks in PostgreSQL."""
    names = [f"made_{i}" for i in range(6)]
    all_at_once(lambda n: Api(api.server)("POST", f"{shop.main_path}/databases",
                                          {"database": {"name": n, "owner_name": "neondb_owner"}}, 201), names)
    for n in names:
        api("DELETE", f"{shop.main_path}/databases/{n}")
