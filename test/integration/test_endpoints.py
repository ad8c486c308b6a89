"""Endpoints that change hands or end while clients come: nobody gets to a branch that was not meant."""
import contextlib
import os
import sqlite3
import threading

import psycopg2
import pytest

import harness as h

CLIENTS = 6
HELD_MS = 2000


@pytest.fixture(name="p")
def fixture_p(make_server):
    """A server in which a stop takes long before its lock is dropped: who comes then waits for it."""
    server = make_server("held", up=False)
    server.env["BOUGH_DELAY_AT"] = f"finalize.stopped:{HELD_MS},stop.let-go:{HELD_MS}"
    return server.up().project("p")


class Crowd:
    """Clients that connect again and again, and what they see, from each time on that they are asked."""

    def __init__(self, uri):
        self.uri, self.stopping, self.lock = uri, threading.Event(), threading.Lock()
        self.seen, self.failed, self.rounds = set(), set(), 0
        self.threads = [threading.Thread(target=self._work, daemon=True) for _ in range(CLIENTS)]

    def _work(self):
        while not self.stopping.is_set():
            with self.lock:
                rounds = self.rounds
            seen, failed = None, None
            try:
                with h.Client(psycopg2.connect(self.uri, connect_timeout=60)) as c:
                    seen = c.one("SELECT said FROM t")
            except psycopg2.Error as e:
                failed = str(e)
            with self.lock:
                if rounds == self.rounds:
                    (self.failed if failed else self.seen).add(failed or seen)

    def anew(self):
        """Forget what was seen, and what comes of connections that are begun already."""
        with self.lock:
            self.seen, self.failed = set(), set()
            self.rounds += 1

    def __enter__(self):
        for t in self.threads:
            t.start()
        h.wait_for(lambda: self.seen, "somebody is connected")
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for t in self.threads:
            t.join(120)


def runs(p, branch):
    pgdata = os.path.join(p.server.store, "branches", branch, "pgdata")
    return bool(h.processes_below(pgdata))


def api(p, method, path, body=None, status=200):
    got, _, answer = p.server.api(method, f"/projects/{p.id}{path}", body)
    assert got == status, answer
    return answer


@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "pooled"])
def test_who_reconnects_while_a_restore_is_finalized_sees_the_restored_branch(p, pooled):
    dev = p.branch("dev")["branch"]["id"]
    p.sql("dev", "CREATE TABLE t AS SELECT 'restored' AS said")
    p.json("snapshot", "create", "dev", "--name", "s")
    p.sql("dev", "UPDATE t SET said = 'replaced'")
    snapshot = p.json("snapshot", "list")[0]["id"]
    restored = api(p, "POST", f"/snapshots/{snapshot}/restore", {})["branch"]["id"]
    uri = p.bough("cs", "dev", *(["--pooled"] if pooled else [])).stdout.strip()
    with Crowd(uri) as crowd:
        api(p, "POST", f"/branches/{restored}/finalize_restore", {"name": "dev before"})
        crowd.anew()
        h.wait_for(lambda: crowd.seen or crowd.failed, "somebody has come again", 60)
        api(p, "POST", f"/branches/{restored}/roles", {"role": {"name": "later"}}, 201)
    assert crowd.seen == {"restored"} and not crowd.failed
    assert p.one("dev", "SELECT count(*) FROM pg_roles WHERE rolname = 'later'") == 1
    assert p.get("dev")["id"] == restored
    assert p.one("dev before", "SELECT said FROM t") == "replaced"
    assert p.one("dev before", "SELECT count(*) FROM pg_roles WHERE rolname = 'later'") == 0
    assert p.one("dev", "SELECT said FROM t") == "restored"
    assert runs(p, dev) and "could not wake" not in p.server.log()


def test_nobody_comes_in_by_an_endpoint_that_was_deleted(p):
    branch = p.branch("dev")["branch"]["id"]
    endpoint = api(p, "GET", f"/branches/{branch}/endpoints")["endpoints"][0]["id"]
    p.sql("dev", "CREATE TABLE t AS SELECT 1 AS said")
    with Crowd(p.uri("dev")) as crowd:
        api(p, "DELETE", f"/endpoints/{endpoint}")
        crowd.anew()
        h.wait_for(lambda: crowd.failed, "somebody has come again", 60)
        assert not crowd.seen
        assert not runs(p, branch)
        made = api(p, "POST", "/endpoints", {"endpoint": {"branch_id": branch, "type": "read_write"}}, 201)
        api(p, "POST", f"/branches/{branch}/roles", {"role": {"name": "later"}}, 201)
    assert not crowd.seen and all("no endpoint" in f for f in crowd.failed), crowd.failed
    assert made["endpoint"]["id"] != endpoint
    assert p.one("dev", "SELECT said FROM t") == 1


def test_a_compute_whose_endpoint_is_gone_is_stopped(p):
    branch = p.branch("dev")["branch"]["id"]
    with contextlib.closing(sqlite3.connect(os.path.join(p.server.store, "bough.db"), timeout=20)) as db, db:
        assert db.execute("DELETE FROM endpoints WHERE branch_id = ?", (branch,)).rowcount == 1
    h.wait_for(lambda: not runs(p, branch), "nothing that no list shows runs", 60)
    made = api(p, "POST", "/endpoints", {"endpoint": {"branch_id": branch, "type": "read_write"}}, 201)
    assert made["endpoint"]["branch_id"] == branch
    p.sql("dev", "SELECT 1")
