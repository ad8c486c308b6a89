"""Memory that runs out in boughd: the nth allocation of a request's handler fails, for every n until none fails.

Each answer is a proper one, of success or of an error; the server goes on, and holds no lock or descriptor more.
"""
import http.client
import json
import os
import random

import harness as h
import pytest
from faults import COUNT, ONCE, Served, mask, served

SEED = os.environ.get("BOUGH_FAULT_SEED") or str(random.randrange(10**6))
SOME = int(os.environ.get("BOUGH_FAULT_SAMPLES") or h.times(12, 200))  # allocations of each slow request; 0: all


class World(Served):
    def __init__(self, directory, pg18):
        super().__init__(directory, pg18)
        self.key = self.server.key()
        self.p.branch("other")
        self.p.bough("snapshot", "create", "other", "--name", "snap")
        self.uri = self.p.uri("other")
        self.number = 0

    def fill(self, text):
        self.number += 1
        names = {"P": f"/projects/{self.p.id}", "B": f"/branches/{self.p.get('other')['id']}", "N": f"n{self.number}",
                 "E": f"/endpoints/{self.endpoint()}"}
        for name, value in names.items():
            text = text.replace("{" + name + "}", value)
        return text

    def endpoint(self):
        return self.p.json("endpoint", "list")[0]["id"]

    def ask(self, method, path, body):
        """Status and JSON of one answer; there must be one."""
        c = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        head = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        if path == "/sql":
            head = {"Neon-Connection-String": self.uri}
        try:
            c.request(method, path if path == "/sql" else "/api/v2" + path, body=body, headers=head)
            answer = c.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        finally:
            c.close()


@pytest.fixture(name="world", scope="module")
def fixture_world(session_dir, pg18):
    with served(World, session_dir, "fault-memory", pg18) as world:
        yield world


# a quarter of them in ./check
REQUESTS = [
    ("GET", "/projects", None), ("GET", "{P}", None), ("GET", "{P}/branches", None), ("GET", "{P}{B}", None),
    ("GET", "{P}/endpoints", None), ("GET", "{P}{E}", None), ("GET", "{P}/operations", None),
    ("GET", "{P}/snapshots", None), ("GET", "{P}{B}/databases", None), ("GET", "{P}{B}/roles", None),
    ("GET", "{P}/connection_uri?database_name=bough&role_name=bough_owner", None), ("GET", "/api_keys", None),
    ("GET", "/bough/status", None), ("GET", "/bough/store/usage", None), ("GET", "{P}/branches?search=o", None),
    ("GET", "/projects/none", None), ("PATCH", "{P}", '{"project": {"name": "p"}}'),
    ("PATCH", "{P}{B}", '{"branch": {"protected": false}}'), ("POST", "/api_keys", '{"key_name": "{N}"}'),
    ("POST", "{P}/branches", '{"branch": {"name": "{N}"}, "endpoints": [{"type": "read_write"}]}'),
    ("POST", "{P}{E}/start", "{}"), ("POST", "{P}{E}/suspend", "{}"), ("POST", "{P}/branches", '{"branch": 1}'),
    ("POST", "/sql", '{"query": "SELECT $1::text AS a, 2 AS b", "params": ["x"]}'),
    ("POST", "/sql", '{"queries": [{"query": "SELECT 1"}, {"query": "SELECT 1/0"}]}')]


# what the disk tells, which may not be known; and installations, which are looked for anew each time
PERHAPS = {"own_bytes", "shared_bytes", "history_bytes", "depth", "logical_size", "history_begins_at", "warnings",
           "postgresql"}


def shape(answer):
    """Status and members of an answer, as deep as they go."""
    def members(value):
        if isinstance(value, dict):
            return {name: members(v) for name, v in value.items() if name not in PERHAPS}
        return [members(v) for v in value] if isinstance(value, list) else None
    return answer[0], members(answer[1])


def fail_each(world, method, path, body, thread):
    """The nth allocation in threads of that name. How many failed."""
    chance, fired, steps = random.Random(f"{SEED} {method} {path} {thread}"), 0, 1
    is_slow = path.endswith(("/sql", "/start", "/suspend", "/databases", "/roles")) or body and "{N}" in body
    if SOME and is_slow:
        for _ in range(2):  # the first time there are more
            world.fault.arm(COUNT, mask("malloc"), program="boughd", thread=thread)
            world.ask(method, world.fill(path), body and world.fill(body))
            world.fault.disarm()
        steps = max(1, 2 * world.fault.seen // SOME)
    # what is asked for without changing anything is answered whole, or not at all
    whole = shape(world.ask(method, world.fill(path), None)) if method == "GET" else None
    n = 1
    while True:
        asked, sent = world.fill(path), body and world.fill(body)
        world.fault.arm(ONCE, mask("malloc"), 12, n, program="boughd", thread=thread)
        status, answer = world.ask(method, asked, sent)
        world.fault.disarm()
        what = f"{method} {asked}, allocation {n} of {thread}, seed {SEED}: {status} {answer}"
        assert 200 <= status < 600 and (answer is not None or status == 204), what
        if status >= 400:
            assert isinstance(answer, dict) and answer.get("message"), what
        if status >= 500:
            assert world.fault.fired, what
        elif whole:
            assert shape((status, answer)) == whole, f"{what}; without failure: {whole}"
        if not world.fault.fired:
            print(what, "none failed of", world.fault.seen)
            return fired
        fired += 1
        n += chance.randint(1, steps)


@pytest.mark.parametrize("method,path,body", h.times(REQUESTS[::4], REQUESTS))
def test_a_request_is_answered_when_memory_runs_out(world, method, path, body, counted):
    world.ask(method, world.fill(path), body and world.fill(body))
    before = world.descriptors()
    fired = sum(fail_each(world, method, path, body, thread) for thread in ("request", "long", "sql"))
    assert fired > 0, "no allocation failed"
    counted("allocations that failed in boughd", fired)
    assert world.server.pid() == world.pid, "boughd was ended"
    for name in [b for b in world.p.branches() if b.startswith("n")]:
        world.p.purge(name)  # so no lock is held
    h.wait_for(lambda: world.descriptors() <= before + 8, f"descriptors are closed again: {before} before")
    assert world.p.one("other", "SELECT 1") == 1


def test_a_key_is_revoked_or_works_on_when_memory_runs_out(world, counted):
    """Whichever allocation fails: after a failure the key is there, and can be revoked."""
    n, is_fired = 0, True
    while is_fired:
        n += 1
        made = world.ask("POST", "/api_keys", '{"key_name": "short"}')[1]
        path = f"/api_keys/{made['id']}"
        world.fault.arm(ONCE, mask("malloc"), 12, n, program="boughd", thread="request")
        status, answer = world.ask("DELETE", path, None)
        is_fired = world.fault.fired
        world.fault.disarm()
        what = f"allocation {n}: {status} {answer}"
        assert status == 200 or status >= 500 and is_fired, what
        works = world.server.api("GET", "/users/me", key=made["key"])[0]
        assert works == (401 if status == 200 else 200), what
        assert world.ask("DELETE", path, None)[0] == (404 if status == 200 else 200), what
    assert n > 1, "no allocation failed"
    counted("allocations that failed in boughd", n - 1)
