"""The HTTP API as tests use it: every answer is held against the specifications.

A test file that uses routes of its own names them in ROUTES, a tuple of paths of the specification, and ends with a
test that calls assert_used(); test_api.py has all the others.
"""
import ast
import concurrent.futures
import glob
import os
import re
import urllib.parse

import psycopg2
import pytest

import harness as h
from schema import Spec, official

spec = Spec()
used = set()  # (method, path of the specification) that have succeeded


class Api:
    """Requests with their expected status, held against the specification as their answers are."""

    def __init__(self, server):
        self.server = server
        with open(os.path.join(server.store, "api_key"), encoding="ascii") as f:
            self.key = f.read().strip()

    def __call__(self, method, path, body=None, status=200, key=None, **kw):
        got, headers, answer = self.server.api(method, path, body,
                                               key=self.key if key is None else key, **kw)
        wanted = status if isinstance(status, tuple) else (status,)
        assert got in wanted, f"{method} {path}: {got}, not {status}: {answer}"
        operation = spec.find(method, path)
        if official() and "brief=" not in path:  # ours: of the members that it requires, some are left out
            official().check_known(method, path, got, answer)
        if operation:
            spec.check_answer(operation, got, answer)
            if got < 300:
                used.add(operation)
                spec.check_request(operation, body or {})
        elif got >= 400:
            spec.check(answer, {"$ref": "#/components/schemas/Error"}, f"{method} {path}")
        assert re.fullmatch(r"[0-9a-f-]{36}", headers["x-request-id"])
        assert headers["x-neon-ret-request-id"] == headers["x-request-id"]
        if got >= 400:
            assert answer["request_id"] == headers["x-request-id"]
        if got != 204:
            assert headers["content-type"] == "application/json" and headers["cache-control"] \
                == "no-store"
        self.headers, self.status = headers, got
        return answer

    def project(self, name, **more):
        return self("POST", "/projects", {"project": {"name": name, "pg_version": h.PG, **more}},
                    201)

    def branch(self, project, name, status=201, query="", endpoint=True, **more):
        return self("POST", f"/projects/{project}/branches{query}",
                    {"branch": {"name": name, **more},
                     "endpoints": [{"type": "read_write"}] if endpoint else []}, status)


class Shop:
    """A project that the tests of this module share, and paths in it."""

    def __init__(self, api, made):
        self.api, self.made, self.id = api, made, made["project"]["id"]
        self.path = f"/projects/{self.id}"
        self.main, self.endpoint = made["branch"]["id"], made["endpoints"][0]["id"]
        self.main_path = f"{self.path}/branches/{self.main}"

    def branch(self, name, **kw):
        return self.api.branch(self.id, name, **kw)

    def names(self):
        return {b["name"] for b in self.api("GET", f"{self.path}/branches")["branches"]}


def connect(uri):
    return h.Client(psycopg2.connect(uri, connect_timeout=20))


def quote(name):
    return urllib.parse.quote(name, safe="")


def all_at_once(call, arguments):
    """Call for every argument from a thread of its own; results in order."""
    with concurrent.futures.ThreadPoolExecutor(len(arguments)) as pool:
        return list(pool.map(call, arguments))


def elsewhere():
    """Paths that other test files than test_api.py answer for."""
    found = {}
    for path in glob.glob(os.path.join(os.path.dirname(os.path.abspath(__file__)), "test_*.py")):
        with open(path, encoding="utf-8") as f:
            match = re.search(r"^ROUTES = (\(.*?\))$", f.read(), re.M | re.S)
        if match:
            found[os.path.basename(path)] = ast.literal_eval(match.group(1))
    return found


def assert_used(request):
    """Every operation that the calling test's file answers for has succeeded; skipped unless all of it ran."""
    module = request.module
    ours = {n for n in vars(module) if n.startswith("test_")}
    if ours - {i.originalname for i in request.session.items if i.module is module}:
        pytest.skip("not all tests of this file were asked for")
    mine = getattr(module, "ROUTES", None)
    others = {p for paths in elsewhere().values() for p in paths}
    wanted = {o for o in spec.operations if (o[1] in mine if mine else o[1] not in others)}
    assert wanted and wanted - used == set()
