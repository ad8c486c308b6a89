"""The HTTP API: every answer is held against spec/openapi.yaml, and every route of it is used."""
import concurrent.futures
import contextlib
import glob
import http.client
import json
import os
import re
import socket
import sqlite3
import stat
import time
import urllib.parse

import psycopg2
import pytest

import harness as h
from api import Api, all_at_once, assert_used, connect, quote, spec, used
from schema import anonymous, router_routes

# ---- the specification, keys, routes ----

def test_the_specification_has_exactly_the_routes_of_the_router():
    in_router, in_spec = router_routes(), [(m, anonymous(p)) for m, p in spec.operations]
    assert len(in_router) > 40 and sorted(in_router) == sorted(in_spec)


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer bough_wrong"},
                                    {"Authorization": "Bearer "},
                                    {"Authorization": "Basic bough_wrong"}, {"X-Api-Key": "KEY"}],
                         ids=str)
def test_without_the_key_there_is_nothing(api, header):
    header = {k: v.replace("KEY", api.key) for k, v in header.items()}
    for method, path in spec.operations:
        answer = api(method, path.replace("{", "").replace("}", ""), status=401, key="",
                     headers=header)
        assert answer["code"] == "UNAUTHORIZED" and "Bearer" in answer["hint"]
    assert api("GET", "/nosuch", status=401, key="", headers=header)["code"] == "UNAUTHORIZED"


def test_the_scheme_of_the_key_is_read_in_any_case(api):
    api("GET", "/users/me", key="", headers={"Authorization": f"bearer {api.key}"})


@pytest.mark.parametrize("path", ["", "/", "/nosuch", "/projects/", "/projects//branches",
                                  "/projects/x/branches/y/z",
                                  "/projects/x/jwks", "/projects/x/branches/y/buckets",
                                  "/api_keys/1/more",
                                  "/projects/x%00y", "/projects/x%2Fbranches/y/z"])
def test_an_unknown_route_is_told_in_the_words_that_clients_know(api, path):
    for method in ("GET", "POST", "DELETE"):
        assert api(method, path, status=404)["message"] == "this route does not exist"


@pytest.mark.parametrize("method, path, allowed", [
    ("PUT", "/projects", "GET, POST"), ("DELETE", "/users/me", "GET"),
    ("OPTIONS", "/projects/x", "GET, PATCH, DELETE"),
    ("GET", "/projects/x/endpoints/y/start", "POST"), ("TRACE", "/projects", "GET, POST")])
def test_a_method_that_a_route_does_not_have_is_405(api, method, path, allowed):
    assert api(method, path, status=405)["code"] == "METHOD_NOT_ALLOWED"
    assert api.headers["allow"] == allowed


def raw_request(server, data):
    """Send bytes; return all that comes back until the server closes or says no more."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as s:
        s.sendall(data)
        with contextlib.suppress(OSError):  # the server may have closed already
            s.shutdown(socket.SHUT_WR)
        answer = b""
        while part := s.recv(65536):
            answer += part
    return answer


def test_a_head_request_gets_no_body(api):
    got = raw_request(api.server,
                      b"HEAD /api/v2/projects HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                      b"Authorization: Bearer " + api.key.encode() + b"\r\n\r\n")
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 405 ") and body == b"", got


@pytest.mark.parametrize("data", [b"\0\1\2\3\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
                                  b"FOO / HTTP/1.1\r\n\r\n",
                                  b"GET /api/v2/projects HTTP/1.1\r\n" + b"X: " + b"y" * 100000
                                  + b"\r\n\r\n",
                                  b"POST /api/v2/projects HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
                                  b"POST /api/v2/projects HTTP/1.1\r\nContent-Length:"
                                  b" 9999999999999999999\r\n\r\n",
                                  b"POST /api/v2/projects HTTP/1.1\r\nTransfer-Encoding:"
                                  b" chunked\r\n\r\nzz\r\n"],
                         ids=range(8))
def test_what_is_no_http_does_no_harm(api, data):
    try:
        answer = raw_request(api.server, data)
    except ConnectionError:
        answer = b""
    assert answer == b"" or re.match(rb"HTTP/1\.[01] [45]\d\d ", answer), answer[:200]
    api("GET", "/users/me")


# ---- bodies ----

@pytest.mark.parametrize("text", ["{", "[]", "null", '"x"', "5", "{}{}",
                                  '{"project":{"name":"a","name":"b"}}', '{"a":NaN}',
                                  b'{"project":{"name":"\xff"}}',
                                  '{"project":{"name":"a\\u0000b"}}', "[" * 100000,
                                  '{"project":' * 5000, " "], ids=range(13))
def test_a_body_that_is_no_json_object_is_refused(api, text):
    answer = api("POST", "/projects", raw=text, status=400)
    assert answer["code"] == "INVALID"


@pytest.mark.parametrize("size", [2**20 + 1, 2**21 + 1, 2**24])
def test_a_huge_body_is_refused(api, shop, size):
    data = json.dumps({"branch": {"name": "x" * size}})
    for chunked in (False, True):
        c = http.client.HTTPConnection("127.0.0.1", api.server.port, timeout=60)
        body = iter([data[i:i + 65536].encode() for i in range(0, len(data),
                                                               65536)]) if chunked else data
        try:
            c.request("POST", f"/api/v2{shop.path}/branches", body=body, encode_chunked=chunked,
                      headers={"Authorization": f"Bearer {api.key}"}
                      | ({"Transfer-Encoding": "chunked"} if chunked else {}))
            status = c.getresponse().status
        except (BrokenPipeError, ConnectionResetError):  # refused while it was being sent
            status = 413
        finally:
            c.close()
        assert status == 413
    assert shop.names() == {"main"}


def test_a_body_of_a_mebibyte_is_read(api, shop):
    text = json.dumps({"branch": {"name": "x"}})
    answer = api("POST", f"{shop.path}/branches", raw=text + " " * (2**20 - len(text) - 5) + "}",
                 status=400)
    assert "JSON" in answer["message"]


UNKNOWN_FIELDS = [
    ("POST", "/bough/shutdown", {"x": 1}), ("POST", "/bough/clock/confirm", {"x": 1}),
    ("POST", "/bough/store/gc", {"x": 1}),
    ("POST", "/projects", {"x": 1}), ("POST", "B/recover", {"x": 1}),
    ("POST", "/projects", {"project": {"x": 1}}),
    ("POST", "/projects", {"project": {"branch": {"x": 1}}}), ("PATCH", "P", {"x": 1}),
    ("PATCH", "P", {"project": {"x": 1}}),
    ("POST", "P/branches", {"x": 1}), ("POST", "P/branches", {"branch": {"x": 1}}),
    ("POST", "P/branches", {"endpoints": [{"x": 1}]}), ("PATCH", "B", {"x": 1}),
    ("PATCH", "B", {"branch": {"x": 1}}),
    ("POST", "B/export", {"x": 1}), ("POST", "B/databases", {"x": 1}),
    ("POST", "B/databases", {"database": {"x": 1}}),
    ("PATCH", "B/databases/neondb", {"database": {"x": 1}}), ("POST", "B/roles", {"x": 1}),
    ("POST", "B/roles", {"role": {"x": 1}}), ("POST", "P/endpoints", {"x": 1}),
    ("POST", "P/endpoints", {"endpoint": {"x": 1}}),
    ("PATCH", "E", {"endpoint": {"x": 1}}),
    # routes without a body
    ("POST", "B/roles/neondb_owner/reset_password", {"x": "mine"}), ("POST", "B/set_as_default", {"x": 1}),
    ("POST", "E/start", {"x": 1}), ("POST", "E/suspend", {"x": 1}), ("POST", "E/restart", {"x": 1}),
    ("DELETE", "B", {"x": 1}), ("DELETE", "E", {"x": {}}), ("DELETE", "B/roles/neondb_owner", {"x": None}),
    ("GET", "B", {"x": 1})]


def spell(shop, path):
    if path.startswith("E"):
        return f"{shop.path}/endpoints/{shop.endpoint}{path[1:]}"
    return {"P": shop.path, "B": shop.main_path}.get(path[0], path[0]) + path[1:]


@pytest.mark.parametrize("method, path, body", UNKNOWN_FIELDS, ids=str)
def test_an_unknown_field_is_refused_by_name(api, shop, method, path, body):
    before = api("GET", f"{shop.path}/operations")["operations"]
    answer = api(method, spell(shop, path), body, 422)
    assert re.search(r'field "([a-z]+\.)*x" is not supported', answer["message"]), answer
    assert api("GET", f"{shop.path}/operations")["operations"] == before


WRONG_TYPES = [
    ("POST", "/projects", {"project": 5}), ("POST", "/projects", {"project": {"name": 5}}),
    ("POST", "/projects", {"project": {"pg_version": "15"}}),
    ("POST", "/projects", {"project": {"branch": []}}),
    ("POST", "/projects", {"project": {"store_passwords": "yes"}}),
    ("POST", "/projects", {"project": {"source": ""}}),
    ("POST", "/projects", {"project": {"source": "x" * 2000}}),
    ("POST", "/projects", {"project": {"branch": {"database_name": ""}}}),
    ("POST", "/projects", {"project": {"branch": {"role_name": "pg_x"}}}),
    ("POST", "P/branches", {"branch": []}), ("POST", "P/branches", {"branch": {"name": ["x"]}}),
    ("POST", "P/branches", {"branch": {"name": ""}}),
    ("POST", "P/branches", {"branch": {"name": "x" * 257}}),
    ("POST", "P/branches", {"branch": {"name": "a\nb"}}), ("POST", "P/branches", {"endpoints": {}}),
    ("POST", "P/branches", {"endpoints": [5]}),
    ("POST", "P/branches", {"endpoints": [{"suspend_timeout_seconds": 59}]}),
    ("POST", "P/branches?if_exists=ignore", {"branch": {"name": "x"}}),
    ("POST", "/projects?if_exists=1", {}),
    ("PATCH", "P", {"project": {"name": ""}}), ("PATCH", "P", {"project": {"name": False}}),
    ("POST", "P/branches", {"branch": {"expires_at": "2126-01-01T00:00:00"}}),
    ("POST", "P/branches", {"branch": {"expires_at": "2000-01-01T00:00:00Z"}}),
    ("POST", "P/branches", {"branch": {"expires_at": "2126-01-01T00:00:00Z",
                                       "ttl_interval_seconds": 60}}),
    ("POST", "P/branches", {"branch": {"expires_at": 5}}),
    ("POST", "P/branches", {"branch": {"ttl_interval_seconds": 0}}),
    ("POST", "P/branches", {"branch": {"ttl_interval_seconds": 3155760001}}),
    ("POST", "P/branches", {"branch": {"expiry_mode": "cascade"}}),
    ("POST", "P/branches", {"branch": {"ttl_interval_seconds": 60, "expiry_mode": "soon"}}),
    ("POST", "P/branches", {"branch": {"protected": "yes"}}),
    ("PATCH", "B", {"branch": {"expires_at": "tomorrow"}}),
    ("POST", "B/recover", {"name": ""}), ("GET", "P/branches?include_deleted=1", None),
    ("GET", "P/branches?brief=1", None),
    ("DELETE", "B?hard_delete=yes", None),
    ("PATCH", "B", {"branch": 1}),
    ("PATCH", "B", {"branch": {"name": " "}}), ("POST", "B/export", {}),
    ("POST", "B/export", {"path": "relative"}),
    ("POST", "B/databases", {}), ("POST", "B/databases", {"database": {"name": "x"}}),
    ("POST", "B/databases", {"database": {"owner_name": "neondb_owner"}}),
    ("POST", "B/databases", {"database": {"name": "template0", "owner_name": "neondb_owner"}}),
    ("POST", "B/databases", {"database": {"name": "x" * 64, "owner_name": "neondb_owner"}}),
    ("PATCH", "B/databases/neondb", {"database": {"name": ""}}), ("POST", "B/roles", {"role": {}}),
    ("POST", "B/roles", {"role": {"name": "bough_admin"}}),
    ("POST", "B/roles", {"role": {"name": "a\tb"}}),
    ("POST", "B/roles", {"role": {"name": "x", "no_login": 1}}),
    ("POST", "P/endpoints", {"endpoint": {}}),
    ("PATCH", "E", {"endpoint": {"suspend_timeout_seconds": "60"}}),
    ("PATCH", "E", {"endpoint": {"suspend_timeout_seconds": 604801}}),
    ("POST", "/bough/shutdown", {"stop_computes": 1}),
    ("GET", "/projects?limit=0", None), ("GET", "/projects?limit=401", None),
    ("GET", "/projects?limit=1x", None),
    ("GET", "P/branches?limit=10001", None), ("GET", "P/branches?cursor=-1", None),
    ("GET", "P/branches?cursor=2", None), ("GET", "P/branches?cursor=u.1.2.", None),
    ("GET", "P/branches?cursor=c.1.2.br-x", None), ("GET", "P/branches?cursor=u.1.99999999999999999999.br-x", None),
    ("GET", "P/branches?sort_by=name&cursor=n.1.6.br-x", None),
    ("GET", "P/branches?sort_by=name&cursor=n.1.00.br-x", None),
    ("GET", "P/branches?sort_by=name&cursor=n.1..br-x", None), ("GET", f"P/branches?cursor=u.1.2.{'x' * 64}", None),
    ("GET", "/projects?cursor=p", None), ("GET", "/projects?cursor=1", None), ("GET", "/projects?cursor=1.", None),
    ("GET", "P/branches?sort_by=size", None),
    ("GET", "P/branches?sort_order=up", None), ("GET", "P/operations?limit=1001", None),
    ("GET", "P/operations?cursor=99999999999999999999", None)]


@pytest.mark.parametrize("method, path, body", WRONG_TYPES, ids=lambda v: str(v)[:60])
def test_a_value_that_breaks_a_rule_is_refused(api, shop, method, path, body):
    before = api("GET", f"{shop.path}/operations")["operations"]
    assert api(method, spell(shop, path), body, 400)["code"] == "INVALID"
    assert api("GET", f"{shop.path}/operations")["operations"] == before
    assert [p["name"] for p in api("GET", "/projects")["projects"]] == ["shop"]


UNSUPPORTED = [
    ("POST", "/projects", {"project": {"settings": {"allowed_ips": {"ips": ["10.0.0.1"]}}}}),
    ("POST", "/projects", {"project": {"store_passwords": False}}),
    ("POST", "/projects", {"project": {"pg_version": 12}}),
    ("POST", "/projects", {"project": {"pg_version": 99}}),
    ("POST", "P/branches", {"branch": {"archived": True}}),
    ("POST", "P/branches", {"endpoints": [{}, {}]}),
    ("POST", "P/branches", {"endpoints": [{"settings": {"pg_settings": {"a": "b"}}}]}),
    ("PATCH", "E", {"endpoint": {"disabled": True}}),
    ("PATCH", "E", {"endpoint": {"pooler_enabled": True}}),
    ("PATCH", "E", {"endpoint": {"type": "read_only"}}),
    ("PATCH", "E", {"endpoint": {"branch_id": "br-other-branch-000000"}}),
    ("PATCH", "E", {"endpoint": {"settings": {"pg_settings": {"a": "b"}}}})]


@pytest.mark.parametrize("method, path, body", UNSUPPORTED, ids=lambda v: str(v)[:60])
def test_what_would_act_and_does_not_is_refused(api, shop, method, path, body):
    assert api(method, spell(shop, path), body, 422)["code"] == "UNSUPPORTED"
    assert shop.names() == {"main"} and len(api("GET", "/projects")["projects"]) == 1


def test_what_is_off_or_empty_is_accepted(api, shop):
    off = {"protected": False, "expires_at": None}
    assert api("PATCH", shop.main_path, {"branch": off})["branch"]["protected"] is False
    made = api("POST", f"{shop.path}/branches", {
        "branch": off | {"name": "off", "parent_lsn": "", "archived": False,
                         "init_source": "parent-data"},
        "endpoints": [{"type": "read_write", "settings": {}, "autoscaling_limit_min_cu": 0.25,
                       "provisioner": "k8s-pod"}],
        "annotation_value": {}}, 201)
    api("DELETE", f"{shop.path}/branches/{made['branch']['id']}")


WRONG_MOMENTS = [
    ({"parent_lsn": "x"}, 400), ({"parent_lsn": "0/0"}, 400), ({"parent_lsn": "123456789/0"}, 400),
    ({"parent_lsn": "0/15D4A50", "parent_timestamp": "2026-01-01T00:00:00Z"}, 400),
    ({"parent_timestamp": "yesterday"}, 400), ({"parent_timestamp": "2026-01-01T00:00:00"}, 400),
    ({"parent_timestamp": "2100-01-01T00:00:00Z"}, 400), ({"parent_timestamp": "2001-01-01T00:00:00Z"}, 400),
    ({"parent_lsn": "0/1"}, 404), ({"parent_lsn": "FFFFFFFF/0"}, 400)]


@pytest.mark.parametrize("fields, status", WRONG_MOMENTS, ids=lambda v: str(v)[:60])
def test_a_moment_that_is_none_is_refused(api, shop, fields, status):
    api("POST", f"{shop.path}/branches", {"branch": fields | {"name": "no"}}, status)
    assert shop.names() == {"main"}


def test_a_branch_is_restored(api, shop):
    made = api("POST", f"{shop.path}/branches", {"branch": {"name": "dev"}, "endpoints": [{"type": "read_write"}]}, 201)
    path = f"{shop.path}/branches/{made['branch']['id']}"
    for body, status in (({}, 400), ({"source_branch_id": "br-no-such-000000"}, 404), ({"source_branch_id": 1}, 400),
                         ({"source_branch_id": made["branch"]["id"]}, 400)):
        api("POST", f"{path}/restore", body, status)
    main = made["branch"]["parent_id"]
    back = api("POST", f"{path}/restore", {"source_branch_id": main, "preserve_under_name": "dev-old"})
    assert back["branch"]["id"] == made["branch"]["id"] and back["branch"]["parent_id"] == main
    assert back["branch"]["last_reset_at"] and back["operations"][0]["event"] == "timeline_restore"
    kept = [b for b in api("GET", f"{shop.path}/branches")["branches"] if b["name"] == "dev-old"]
    assert len(kept) == 1
    for branch in (kept[0]["id"], made["branch"]["id"]):
        api("DELETE", f"{shop.path}/branches/{branch}?hard_delete=true")


NOT_THERE = [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/operations"), ("GET", "/operations/x"),
             ("GET", "/connection_uri"), ("GET", "/branches"), ("POST", "/branches"), ("GET", "/branches/count"),
             ("GET", "/branches/x"), ("PATCH", "/branches/x"), ("DELETE", "/branches/x"),
             ("POST", "/branches/x/export"), ("POST", "/branches/x/restore"), ("POST", "/branches/x/recover"),
             ("POST", "/branches/x/set_as_default"),
             ("GET", "/branches/x/endpoints"), ("GET", "/branches/x/databases"),
             ("POST", "/branches/x/databases"), ("GET", "/branches/x/databases/y"),
             ("PATCH", "/branches/x/databases/y"),
             ("DELETE", "/branches/x/databases/y"),
             ("GET", "/branches/x/roles"), ("POST", "/branches/x/roles"),
             ("GET", "/branches/x/roles/y"), ("DELETE", "/branches/x/roles/y"),
             ("GET", "/branches/x/roles/y/reveal_password"),
             ("POST", "/branches/x/roles/y/reset_password"), ("GET", "/endpoints"),
             ("POST", "/endpoints"), ("GET", "/endpoints/x"), ("PATCH", "/endpoints/x"), ("DELETE", "/endpoints/x"),
             ("POST", "/endpoints/x/start"),
             ("POST", "/endpoints/x/suspend"), ("POST", "/endpoints/x/restart")]
BODIES = {"/export": {"path": "/nowhere"},
          "/databases": {"database": {"name": "a", "owner_name": "b"}},
          "/roles": {"role": {"name": "a"}}, "/endpoints": {"endpoint": {"branch_id": "x"}}}


@pytest.mark.parametrize("method, path", NOT_THERE, ids=str)
def test_what_is_not_there_is_named(api, shop, method, path):
    body = next((b for end, b in BODIES.items() if method == "POST" and path.endswith(end)), {})
    if method == "GET":
        body = None
    answer = api(method, f"/projects/nosuch{path}", body, 404)
    assert answer["code"] == "NOT_FOUND" and answer["message"] == 'no project has the id "nosuch"'
    if re.fullmatch("DELETE /(branches|endpoints)/x", f"{method} {path}"):
        return  # these are deleted already
    if "/x" in path or path == "/endpoints" and method == "POST":
        answer = api(method, f"{shop.path}{path}", body, 404)
        assert re.fullmatch(r'no (deleted branch|branch|endpoint|operation) has the id "x" in this project',
                            answer["message"])


# ---- who, what ----

def test_the_server_tells_who_one_is_and_how_it_fares(api):
    me = api("GET", "/users/me")
    assert me["login"] == h.OS_USER.pw_name
    assert api("GET", "/users/me/organizations")["organizations"][0]["id"] == "local"
    assert api("GET", "/auth")["auth_method"] == "api_key_user"
    assert len(api("GET", "/regions")["regions"]) == 1
    status = api("GET", "/bough/status")
    assert status["store"] == api.server.store and h.is_alive(status["pid"])
    assert h.PG in [p["major"] for p in status["postgresql"] if p["has_tools"]]
    assert ("no Landlock" in " ".join(status["warnings"])) == (status["landlock_abi"] == 0)


# ---- projects ----

def test_a_project_is_made_with_all_that_clients_read(api, shop):
    made = shop.made
    assert made["project"]["name"] == "shop" and made["project"]["pg_version"] == h.PG \
        and made["existing"] is False
    branch, endpoint, database, role = (made[k] if k == "branch" else made[k][0]
                                        for k in ("branch", "endpoints", "databases", "roles"))
    assert branch["name"] == "main" and branch["default"] and branch["primary"] and "parent_id" \
        not in branch
    assert endpoint["branch_id"] == database["branch_id"] == role["branch_id"] == branch["id"]
    assert endpoint["type"] == "read_write" and endpoint["current_state"] == "active" and \
        not endpoint["disabled"]
    assert (database["name"], database["owner_name"], role["name"]) == ("neondb", "neondb_owner",
                                                                        "neondb_owner")
    assert {o["action"] for o in made["operations"]} == {"create_timeline", "start_compute"}
    parameters = made["connection_uris"][0]["connection_parameters"]
    assert parameters["role"] == "neondb_owner" and parameters["host"] == endpoint["host"]
    with connect(made["connection_uris"][0]["connection_uri"]) as c:
        assert c.one("SELECT current_user, current_database()") == ("neondb_owner", "neondb")
    assert api("GET", shop.path)["project"] == made["project"]
    assert api("GET", "/projects/shared")["projects"] == []


def test_a_project_is_made_once_renamed_and_deleted(api, shop):
    made = api("POST", "/projects", {"project": {
        "name": "bänk 1", "pg_version": h.PG, "region_id": "aws-us-east-1", "org_id": "local",
        "settings": {},
        "branch": {"name": "trunk", "database_name": "da ta", "role_name": "o'wner"}}}, 201)
    path = f"/projects/{made['project']['id']}"
    with connect(made["connection_uris"][0]["connection_uri"]) as c:
        assert c.one("SELECT current_user, current_database()") == ("o'wner", "da ta")
    assert made["branch"]["name"] == "trunk"
    again = {"project": {"name": "bänk 1"}}
    assert "bänk 1" in api("POST", "/projects", again, 409)["message"]
    same = api("POST", "/projects?if_exists=return", again, 200)
    assert same["existing"] and same["project"]["id"] == made["project"]["id"] \
        and same["operations"] == []
    other = {"project": {"name": "bänk 1", "source": "/nosuch.dump"}}
    assert api("POST", "/projects?if_exists=return", other, 409)["hint"]
    api("PATCH", path, {"project": {"name": "shop"}}, 409)
    assert api("PATCH", path, {"project": {"name": "bank"}})["project"]["name"] == "bank"
    assert api("GET", path)["project"]["name"] == "bank"
    endpoint = os.path.join(api.server.store, "run", made["endpoints"][0]["id"])
    assert os.path.isdir(endpoint)
    assert api("DELETE", path)["project"]["id"] == made["project"]["id"]
    api("GET", path, status=404)
    api("DELETE", path, status=404)
    assert not os.path.exists(endpoint)
    assert not os.path.exists(os.path.join(api.server.store, "branches", made["branch"]["id"]))


@pytest.mark.parametrize("database, role",
                         [("postgres", "postgres_owner"), ("ü" * 31, "ü" * 28 + "_owner"),
                                            ("a" * 63, "a" * 57 + "_owner")])
def test_the_owner_is_named_after_the_database(api, database, role):
    made = api.project("named", branch={"database_name": database})
    assert [r["name"] for r in made["roles"]] == [role]
    with connect(made["connection_uris"][0]["connection_uri"]) as c:
        assert c.one("SELECT current_user, current_database()") == (role, database)
        c.run("CREATE TABLE t ()")
    api("DELETE", f"/projects/{made['project']['id']}")


def test_projects_are_listed_page_by_page(api, shop):
    ids = [api.project(f"page {i}")["project"]["id"] for i in range(3)]
    seen, query = [], "?limit=2"
    while (page := api("GET", f"/projects{query}"))["projects"]:
        assert len(page["projects"]) <= 2 and len(seen) < 9
        seen += [p["id"] for p in page["projects"]]
        query = f"?limit=2&cursor={page['pagination']['cursor']}"
    assert seen == [shop.id, *ids]
    assert [p["id"] for p in api("GET", "/projects?search=PAGE")["projects"]] == ids
    assert [p["id"] for p in api("GET", f"/projects?search={ids[1]}")["projects"]] == [ids[1]]
    assert "pagination" not in api("GET", "/projects?search=nosuch")
    for one in ids:
        api("DELETE", f"/projects/{one}")


def test_the_next_page_does_not_need_the_last_project_of_the_one_before(api, shop):
    ids = [api.project(f"gone {i}")["project"]["id"] for i in range(3)]
    page = api("GET", "/projects?search=gone&limit=2")
    assert [p["id"] for p in page["projects"]] == ids[:2]
    api("DELETE", f"/projects/{ids[1]}")
    rest = api("GET", f"/projects?search=gone&limit=2&cursor={page['pagination']['cursor']}")
    assert [p["id"] for p in rest["projects"]] == ids[2:]
    for one in (ids[0], ids[2]):
        api("DELETE", f"/projects/{one}")


def test_making_a_project_can_be_followed(api):
    c = http.client.HTTPConnection("127.0.0.1", api.server.port, timeout=60)
    c.request("POST", "/api/v2/projects",
              json.dumps({"project": {"name": "stream", "pg_version": h.PG}}),
              {"Authorization": f"Bearer {api.key}",
               "Accept": "application/x-ndjson, application/json;q=0.5"})
    answer = c.getresponse()
    assert answer.status == 200 and answer.getheader("content-type") == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.read().splitlines()]
    c.close()
    for line in lines:
        spec.check_answer(("POST", "/projects"), 200, line, stream=True)
    assert len(lines) >= 2 and all("progress" in line for line in lines[:-1]) \
        and lines[-1]["status"] == 201
    spec.check_answer(("POST", "/projects"), 201, lines[-1]["body"])
    api("DELETE", f"/projects/{lines[-1]['body']['project']['id']}")


# ---- branches ----

def test_a_branch_is_made_shown_renamed_and_deleted(api, shop):
    made = shop.branch("feature/ü 1")
    branch, path = made["branch"], f"{shop.path}/branches/{made['branch']['id']}"
    assert branch["parent_id"] == shop.main and branch["parent_name"] == "main" and \
        not branch["default"]
    assert [e["branch_id"] for e in made["endpoints"]] == [branch["id"]] and made["existing"] \
        is False
    assert {o["action"] for o in made["operations"]} == {"create_branch", "start_compute"}
    with connect(made["connection_uris"][0]["connection_uri"]) as c:
        assert c.one("SELECT current_database()") == "neondb"
    got = api("GET", path)
    assert got["branch"]["id"] == branch["id"] == got["annotation"]["object"]["id"]
    assert api("GET", f"{shop.path}/branches/count")["count"] == 2
    assert api("GET", f"{shop.path}/branches/count?search=FEAT")["count"] == 1
    assert api("PATCH", path, {"branch": {"name": "better"}})["branch"]["name"] == "better"
    assert api("PATCH", path, {"branch": {"name": "main"}}, 409)["code"] == "BRANCH_ALREADY_EXISTS"
    assert shop.names() == {"main", "better"}
    gone = api("DELETE", path)
    assert gone["branch"]["id"] == branch["id"] and gone["operations"][0]["action"] \
        == "delete_timeline"
    api("DELETE", path, status=204)
    api("GET", path, status=404)
    assert shop.names() == {"main"}


def test_a_branch_without_a_name_gets_one(api, shop):
    made = api("POST", f"{shop.path}/branches", {}, 201)
    assert made["branch"]["name"] and made["endpoints"] == [] and "connection_uris" not in made
    api("DELETE", f"{shop.path}/branches/{made['branch']['id']}")


def test_the_same_branch_again_is_the_same_and_another_a_conflict(api, shop):
    first = shop.branch("twice")
    assert api.branch(shop.id, "twice", 409)["code"] == "BRANCH_ALREADY_EXISTS"
    assert "hint" not in api.branch(shop.id, "twice", 409)
    again = shop.branch("twice", query="?if_exists=return", status=200)
    assert again["existing"] and again["branch"]["id"] == first["branch"]["id"] \
        and again["operations"] == []
    assert again["connection_uris"] == first["connection_uris"]
    child = first["branch"]["id"]
    answer = shop.branch("twice", query="?if_exists=return", parent_id=child, status=409)
    assert answer["message"] == 'branch already exists; branch_name:"twice"' \
        and "main" in answer["hint"]
    assert "root" in shop.branch("main", query="?if_exists=return", status=409)["hint"]
    assert shop.branch("x", parent_id="br-no-such-000000", status=404)["code"] == "NOT_FOUND"
    api("DELETE", f"{shop.path}/branches/{child}")


def test_a_branch_that_others_need_stays(api, shop):
    a = shop.branch("a", endpoint=False)["branch"]["id"]
    b = shop.branch("b", endpoint=False, parent_id=a)["branch"]["id"]
    answer = api("DELETE", f"{shop.path}/branches/{a}", status=409)
    assert "child" in answer["message"] and answer["hint"]
    assert "default" in api("DELETE", shop.main_path, status=422)["message"]
    for one in (b, a):
        api("DELETE", f"{shop.path}/branches/{one}")


def test_a_deleted_branch_is_hidden_and_recovered_or_removed(api, shop):
    branch = shop.branch("buried")["branch"]["id"]
    path = f"{shop.path}/branches/{branch}"
    gone = api("DELETE", path)["branch"]
    assert gone["recoverable_seconds"] > 6.9 * 86400 and gone["recoverable_until"][:4] >= "2026"
    def listed(query=""):
        return {b["id"] for b in api("GET", f"{shop.path}/branches{query}")["branches"]}
    assert branch not in listed("?include_deleted=false") and branch in listed("?include_deleted=true")
    assert api("GET", "/bough/status")["deleted_branches"] >= 1
    assert not [e for e in api("GET", f"{shop.path}/endpoints")["endpoints"]
                if e["branch_id"] == branch]
    back = api("POST", f"{path}/recover", {"name": "back"})
    assert back["branch"]["name"] == "back" and "deleted_at" not in back["branch"]
    assert back["operations"][0]["event"] == "branch_recovered"
    api("POST", f"{path}/recover", {}, status=404)
    api("DELETE", f"{path}?hard_delete=true")
    assert branch not in listed("?include_deleted=true")
    api("POST", f"{path}/recover", {}, status=404)


def test_another_branch_becomes_the_default(api, shop):
    branch = shop.branch("next", endpoint=False)["branch"]["id"]
    path = f"{shop.path}/branches/{branch}"
    made = api("POST", f"{path}/set_as_default")
    assert made["branch"]["default"] and made["operations"][0]["event"] == "set_default_branch"
    assert not api("GET", shop.main_path)["branch"]["default"]
    assert "default" in api("DELETE", path, status=422)["message"]
    assert "child" in api("DELETE", shop.main_path, status=409)["message"]
    assert api("POST", f"{shop.main_path}/set_as_default")["branch"]["default"]
    assert api("POST", f"{shop.main_path}/set_as_default")["operations"] == []
    api("DELETE", path)


def test_a_branch_is_detached(api, shop):
    path = f"{shop.path}/branches/{shop.branch('free', endpoint=False)['branch']['id']}"
    made = api("POST", f"{path}/detach")
    assert "parent_id" not in made["branch"] and made["operations"][0]["action"] == "detach_parent_branch"
    assert api("POST", f"{path}/detach", {})["operations"] == []
    api("DELETE", f"{path}?hard_delete=true")


def test_the_clock_is_confirmed(api):
    assert api("POST", "/bough/clock/confirm", {})["is_held"] is False


def test_branches_are_sorted_and_listed_page_by_page(api, shop):
    made = [shop.branch(name, endpoint=False)["branch"]["id"] for name in ("sort-2", "sort-1",
                                                                           "sort-3")]
    def names(query):
        return [b["name"] for b in api("GET",
                                       f"{shop.path}/branches?search=sort-&{query}")["branches"]]
    assert names("") == ["sort-3", "sort-1", "sort-2"]
    assert names("sort_by=name&sort_order=asc") == ["sort-1", "sort-2", "sort-3"]
    assert names("sort_by=created_at&sort_order=asc") == ["sort-2", "sort-1", "sort-3"]
    seen, query = [], ""
    while query is not None and len(seen) < 9:
        page = api("GET", f"{shop.path}/branches?limit=3&sort_by=name&sort_order=asc{query}")
        seen += [b["name"] for b in page["branches"]]
        query = f"&cursor={page['pagination']['next']}" if "next" in page["pagination"] else None
    assert query is None and seen == ["main", "sort-1", "sort-2", "sort-3"]
    whole = api("GET", f"{shop.path}/branches?search=sort-")["branches"]
    brief = api("GET", f"{shop.path}/branches?search=sort-&brief=true")["branches"]
    for one, all_of_it in zip(brief, whole, strict=True):
        assert "history_bytes" not in one and "updated_at" not in one
        assert one == {name: all_of_it[name] for name in one} and one["own_bytes"] == all_of_it["own_bytes"]
    for one in made:
        api("DELETE", f"{shop.path}/branches/{one}")


@pytest.mark.parametrize("order", ("", "&sort_order=asc", "&sort_by=name", "&sort_by=name&sort_order=asc",
                                   "&sort_by=created_at", "&sort_by=created_at&sort_order=asc"))
def test_a_branch_is_listed_whatever_becomes_of_others_between_the_pages(api, shop, order):
    made = {name: shop.branch(f"pg-{name}\u00e9", endpoint=False)["branch"]["id"] for name in "dbeca"}
    def page(cursor):
        answer = api("GET", f"{shop.path}/branches?search=pg-&limit=2{order}{cursor}")
        return ([b["id"] for b in answer["branches"]],
                f"&cursor={answer['pagination']['next']}" if "next" in answer["pagination"] else None)
    first, cursor = page("")
    api("DELETE", f"{shop.path}/branches/{first[1]}")  # what the cursor tells of
    rest = set(made.values()) - set(first)
    changed = min(rest)
    api("PATCH", f"{shop.path}/branches/{changed}", {"branch": {"protected": True}})
    seen = []
    while cursor and len(seen) < 9:
        got, cursor = page(cursor)
        seen += got
    assert not cursor and sorted(seen) == sorted(rest), "each of them once"
    api("PATCH", f"{shop.path}/branches/{changed}", {"branch": {"protected": False}})
    for one in {*made.values()} - {first[1]}:
        api("DELETE", f"{shop.path}/branches/{one}?hard_delete=true")
    api("DELETE", f"{shop.path}/branches/{first[1]}?hard_delete=true")


def test_an_answer_of_several_pieces_does_not_wait_for_an_acknowledgement(api, shop):
    made = []
    for name in ("long-1", "long-2", "long-3", "long-4", "long-5"):
        made.append(api("POST", f"{shop.path}/branches", {
            "branch": {"name": name}, "annotation_value": {"note": "x" * 8000}}, 201)["branch"]["id"])
    connection = http.client.HTTPConnection("127.0.0.1", api.server.port, timeout=60)
    seconds = []
    for _ in range(20):
        before = time.monotonic()
        connection.request("GET", f"/api/v2{shop.path}/branches", headers={"Authorization": f"Bearer {api.key}"})
        answer = connection.getresponse().read()
        seconds.append(time.monotonic() - before)
    connection.close()
    assert len(answer) > 40000
    assert min(seconds) < 0.03  # an acknowledgement is put off by 40 ms
    for one in made:
        api("DELETE", f"{shop.path}/branches/{one}")


def test_a_branch_is_exported_where_nothing_is(api, shop, directory):
    export, out = f"{shop.main_path}/export", os.path.join(directory, "out")
    os.mkdir(out)
    os.chown(out, h.OS_USER.pw_uid, h.OS_USER.pw_gid)
    for target in (f"{out}/missing", f"{out}/empty"):
        if target.endswith("empty"):
            os.mkdir(target)
            os.chown(target, h.OS_USER.pw_uid, h.OS_USER.pw_gid)
        done = api("POST", export, {"path": target})
        assert done["branch_id"] == shop.main and os.path.exists(f"{target}/global/pg_control")
    answer = api("POST", export, {"path": out}, 409)
    assert out in answer["message"] and sorted(os.listdir(out)) == ["empty", "missing"]
    assert os.path.exists(f"{out}/empty/global/pg_control")  # nothing was emptied
    api("POST", export, {"path": f"{directory}/no/such"}, 404)
    api("POST", export, {"path": "/etc/passwd"}, (409, 412))
    store = api.server.store
    for inside in (f"{store}/tmp/x", f"{store}/tmp/../tmp", f"{store}/wal"):
        assert "inside the store" in api("POST", export, {"path": inside}, 400)["message"]
    assert os.listdir(f"{store}/tmp") == [] and os.path.isdir(f"{store}/wal")


# ---- endpoints ----

def test_an_endpoint_is_suspended_started_and_restarted(api, shop):
    path = f"{shop.path}/endpoints/{shop.endpoint}"
    def state():
        return api("GET", path)["endpoint"]["current_state"]
    def pid():
        with connect(api("GET", f"{shop.path}/connection_uri")["uri"]) as c:
            return c.one("SELECT pg_postmaster_start_time()")
    for _ in range(2):  # twice is as good as once
        assert api("POST", f"{path}/suspend")["endpoint"]["current_state"] == "idle"
    assert state() == "idle" and "started_at" not in api("GET", path)["endpoint"]
    started = api("POST", f"{path}/start")
    assert started["endpoint"]["current_state"] == "active" and started["operations"][0]["action"] \
        == "start_compute"
    assert api("POST", f"{path}/start")["operations"] == []
    first = pid()
    assert api("POST", f"{path}/restart")["endpoint"]["current_state"] == "active"
    assert pid() != first
    api("POST", f"{path}/suspend")
    uri = api("GET", f"{shop.path}/connection_uri")["uri"]
    assert state() == "idle"  # asking for the URI wakes nothing
    connect(uri).close()
    assert state() == "active"
    api("POST", f"{path}/suspend")
    by_socket = api("GET", f"{shop.path}/connection_uri?socket=true")["uri"]
    assert state() == "active" and h.uri_parts(by_socket)["host"].startswith(api.server.store)
    connect(by_socket).close()
    why = api("GET", f"{path}/why")["why"]
    assert why["state"] == "active" and why["cause"] == "its Unix socket was asked for"
    assert [e["id"] for e in api("GET", f"{shop.path}/endpoints")["endpoints"]] == [shop.endpoint]
    assert [e["id"] for e in api("GET", f"{shop.main_path}/endpoints")["endpoints"]] \
        == [shop.endpoint]


def test_a_branch_gets_and_loses_its_endpoint(api, shop):
    branch = shop.branch("bare", endpoint=False)["branch"]["id"]
    uri = f"{shop.path}/connection_uri?branch_id={branch}"
    assert api("GET", uri, status=404)["hint"]
    assert api("GET", f"{shop.path}/branches/{branch}/endpoints")["endpoints"] == []
    api("POST", f"{shop.path}/branches/{branch}/roles", {"role": {"name": "r"}}, 412)
    wish = {"endpoint": {"branch_id": branch, "type": "read_write", "suspend_timeout_seconds": 60}}
    made = api("POST", f"{shop.path}/endpoints", wish, 201)["endpoint"]
    assert made["current_state"] == "active" and made["suspend_timeout_seconds"] == 60
    api("POST", f"{shop.path}/endpoints", wish, 409)
    path = f"{shop.path}/endpoints/{made['id']}"
    update = {"endpoint": {"suspend_timeout_seconds": -1, "branch_id": branch, "disabled": False}}
    assert api("PATCH", path, update)["endpoint"]["suspend_timeout_seconds"] == -1
    assert api("GET", path)["endpoint"]["suspend_timeout_seconds"] == -1
    with connect(api("GET", uri)["uri"]) as c:
        c.run("CREATE TABLE kept ()")
    assert api("DELETE", path)["endpoint"]["current_state"] == "idle"
    api("DELETE", path, status=204)
    assert not os.path.exists(made["host"])
    api("POST", f"{shop.path}/endpoints", wish, 201)
    with connect(api("GET", uri)["uri"]) as c:
        c.run("SELECT * FROM kept")
    api("DELETE", f"{shop.path}/branches/{branch}")


# ---- roles and databases ----

WEIRD = 'we"ird \'näme\'; -- %s \\ $1'


def test_a_role_is_made_logs_in_and_gets_another_password(api, shop):
    roles = f"{shop.main_path}/roles"
    made = api("POST", roles, {"role": {"name": WEIRD}}, 201)["role"]
    path = f"{roles}/{quote(WEIRD)}"
    assert api("GET", path)["role"]["name"] == WEIRD and "password" not in api("GET", path)["role"]
    assert api("GET", f"{path}/reveal_password")["password"] == made["password"]
    assert all("password" not in r for r in api("GET", roles)["roles"])
    uri = f"{shop.path}/connection_uri?database_name=neondb&role_name={quote(WEIRD)}&pooled=true"
    first = api("GET", uri)["uri"]
    with connect(first) as c:
        assert c.one("SELECT current_user") == WEIRD
        assert c.one("SELECT rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname ="
                     " current_user") \
            == (False, True, True)
    api("POST", roles, {"role": {"name": WEIRD}}, (409, 422))
    reset = api("POST", f"{path}/reset_password")["role"]
    assert reset["password"] not in (made["password"],
                                     "") and reset["updated_at"] >= made["updated_at"]
    with pytest.raises(psycopg2.OperationalError, match="authentication failed"):
        connect(first)
    connect(api("GET", uri)["uri"]).close()
    assert api("GET", f"{path}/reveal_password")["password"] == reset["password"]
    assert api("DELETE", path)["role"]["name"] == WEIRD
    api("DELETE", path, status=204)
    assert "no role is named" in api("GET", path, status=404)["message"]
    api("GET", f"{path}/reveal_password", status=404)
    api("POST", f"{path}/reset_password", status=404)
    with pytest.raises(psycopg2.OperationalError):
        connect(first)


def test_a_role_that_cannot_log_in_has_no_password_until_it_gets_one(api, shop):
    roles = f"{shop.main_path}/roles"
    assert "password" not in api("POST", roles, {"role": {"name": "group", "no_login": True}},
                                 201)["role"]
    assert "not stored" in api("GET", f"{roles}/group/reveal_password", status=412)["message"]
    assert api("POST", f"{roles}/group/reset_password")["role"]["password"]
    connect(api("GET", f"{shop.path}/connection_uri?role_name=group")["uri"]).close()
    api("DELETE", f"{roles}/group")


def test_a_database_is_made_renamed_given_away_and_dropped(api, shop):
    databases = f"{shop.main_path}/databases"
    wish = {"database": {"name": WEIRD, "owner_name": "neondb_owner"}}
    made = api("POST", databases, wish, 201)["database"]
    path = f"{databases}/{quote(WEIRD)}"
    assert api("GET", path)["database"] == made
    assert [d["name"] for d in api("GET", databases)["databases"]] == ["neondb", WEIRD]
    assert api("POST", databases, wish, 409)["code"] == "CONFLICT"
    assert "nobody" in api("POST", databases, {"database": {"name": "b", "owner_name": "nobody"}},
                           404)["message"]
    with connect(api("GET",
                     f"{shop.path}/connection_uri?database_name={quote(WEIRD)}")["uri"]) as c:
        c.run("CREATE TABLE t (n int); INSERT INTO t VALUES (7)")
    h.wait_for(lambda: api("PATCH", path, {"database": {"name": "renamed"}}, (200, 422))
               and api.status == 200,
               "the session that has ended is gone", 5)
    api("GET", path, status=404)
    path = f"{databases}/renamed"
    assert api("GET", path)["database"]["id"] == made["id"]
    api("PATCH", path, {"database": {"name": "neondb"}}, 409)
    api("PATCH", path, {"database": {"owner_name": "nobody"}}, 404)
    api("POST", f"{shop.main_path}/roles", {"role": {"name": "heir"}}, 201)
    assert api("PATCH", path, {"database": {"owner_name": "heir"}})["database"]["owner_name"] \
        == "heir"
    with connect(api("GET", f"{shop.path}/connection_uri?database_name=renamed")["uri"]) as c:
        assert c.one("SELECT current_user, (SELECT pg_get_userbyid(datdba) FROM pg_database WHERE"
                     " datname ="
                     " current_database())") == ("heir", "heir")
        api("DELETE", f"{shop.main_path}/roles/heir", status=422)  # it owns the database
        assert api("DELETE", path)["database"]["name"] == "renamed"  # though a session is open
    api("DELETE", path, status=204)
    api("DELETE", f"{shop.main_path}/roles/heir")


def test_roles_and_databases_of_a_parent_are_its_childs_too(api, shop):
    api("POST", f"{shop.main_path}/roles", {"role": {"name": "worker"}}, 201)
    api("POST", f"{shop.main_path}/databases",
        {"database": {"name": "jobs", "owner_name": "worker"}}, 201)
    child = shop.branch("inherits")["branch"]["id"]
    path = f"{shop.path}/branches/{child}"
    assert [d["name"] for d in api("GET", f"{path}/databases")["databases"]] == ["neondb", "jobs"]
    with connect(api("GET", f"{shop.path}/connection_uri?branch_id={child}&database_name=jobs")[
        "uri"]) as c:
        assert c.one("SELECT current_user") == "worker"
    api("POST", f"{path}/roles/worker/reset_password")
    # the parent's stays
    with connect(api("GET", f"{shop.path}/connection_uri?database_name=jobs")["uri"]) as c:
        assert c.one("SELECT current_user") == "worker"
    api("DELETE", f"{path}/databases/jobs")
    assert "jobs" in [d["name"] for d in api("GET", f"{shop.main_path}/databases")["databases"]]
    api("DELETE", path)
    api("DELETE", f"{shop.main_path}/databases/jobs")
    api("DELETE", f"{shop.main_path}/roles/worker")


def test_a_connection_uri_is_of_what_was_asked_for(api, shop):
    base = f"{shop.path}/connection_uri"
    assert api("GET", base)["uri"] == shop.made["connection_uris"][0]["connection_uri"]
    assert api("GET", f"{base}?endpoint_id={shop.endpoint}&branch_id={shop.main}")["uri"] \
        == api("GET", base)["uri"]
    other = shop.branch("other")["branch"]["id"]
    assert api("GET", f"{base}?branch_id={other}")["uri"] != api("GET", base)["uri"]
    for query in ("branch_id=nosuch", "endpoint_id=nosuch", "database_name=nosuch",
                  "role_name=nosuch",
                  f"endpoint_id={shop.endpoint}&branch_id={other}"):
        assert api("GET", f"{base}?{query}", status=404)["code"] == "NOT_FOUND"
    api("DELETE", f"{shop.path}/branches/{other}")


# ---- operations ----

def test_operations_are_listed_page_by_page_and_outlive_their_branch(api, shop):
    branch = shop.branch("short")["branch"]["id"]
    api("DELETE", f"{shop.path}/branches/{branch}")
    everything = api("GET", f"{shop.path}/operations")["operations"]
    assert [o["action"] for o in everything if o.get("branch_id") == branch] \
        == ["delete_timeline", "start_compute", "create_branch"]
    assert everything[0]["action"] == "delete_timeline" and everything[-1]["action"] \
        == "create_timeline"
    seen, page = [], api("GET", f"{shop.path}/operations?limit=7")
    while page["operations"] and len(seen) <= len(everything):
        seen += page["operations"]
        page = api("GET", f"{shop.path}/operations?limit=7&cursor={page['pagination']['cursor']}")
    assert seen == everything
    assert api("GET", f"{shop.path}/operations/{everything[0]['id']}")["operation"] == everything[0]
    assert all(o["status"] == "finished" and o["failures_count"] == 0 for o in everything)


# ---- at the same time ----

def branch_directories(server):
    return {d for d in os.listdir(os.path.join(server.store, "branches")) if d.startswith("br-")}


def test_eight_branches_of_one_parent_at_once(api, shop):
    with connect(api("GET", f"{shop.path}/connection_uri")["uri"]) as c:
        c.run("CREATE TABLE numbers AS SELECT generate_series(1, 1000) n")
    made = all_at_once(lambda i: Api(api.server).branch(shop.id, f"at once {i}"), range(8))
    assert len({m["branch"]["id"] for m in made}) == len({m["endpoints"][0]["id"] for m in made}) \
        == 8
    for one in made:
        with connect(one["connection_uris"][0]["connection_uri"]) as c:
            assert c.one("SELECT sum(n) FROM numbers") == 500500
    def delete(one):
        return Api(api.server)("DELETE", f"{shop.path}/branches/{one['branch']['id']}")
    all_at_once(delete, made)
    assert shop.names() == {"main"}


@pytest.mark.parametrize("query, wanted", [("", 409), ("?if_exists=return", 200)])
def test_eight_branches_of_one_name_at_once_are_one(api, shop, query, wanted):
    before = branch_directories(api.server)
    def create(_):
        mine = Api(api.server)
        return mine.branch(shop.id, "one name", (201, wanted), query), mine.status
    made = all_at_once(create, range(8))
    assert sorted(status for _, status in made) == sorted([201] + [wanted] * 7)
    ids = {answer["branch"]["id"] for answer, status in made if status < 300}
    assert len(ids) == 1 and branch_directories(api.server) == before | ids
    def delete(_):
        mine = Api(api.server)
        mine("DELETE", f"{shop.path}/branches/{next(iter(ids))}?hard_delete=true",
             status=(200, 204))
        return mine.status
    assert sorted(all_at_once(delete, range(4))) == [200, 204, 204, 204]
    assert branch_directories(api.server) == before


def test_projects_of_one_name_at_once_are_one(api):
    def create(_):
        mine = Api(api.server)
        mine("POST", "/projects", {"project": {"name": "same", "pg_version": h.PG}},
             (201, 409, 423))
        return mine.status
    assert sorted(all_at_once(create, range(4))) == [201, 409, 409, 409]
    found = api("GET", "/projects?search=same")["projects"]
    assert len(found) == 1
    api("DELETE", f"/projects/{found[0]['id']}")


def test_a_name_that_is_long_being_made_is_busy(api):
    """423, in the words for which Neon's clients try again. The source never answers."""
    with socket.create_server(("127.0.0.1", h.free_port())) as deaf:
        slow = http.client.HTTPConnection("127.0.0.1", api.server.port, timeout=60)
        url = f"postgresql://u:secret-of-deaf@127.0.0.1:{deaf.getsockname()[1]}/d"
        slow.request("POST", "/api/v2/projects",
                     json.dumps({"project": {"name": "slow", "source": url}}),
                     {"Authorization": f"Bearer {api.key}"})
        deaf.settimeout(20)
        accepted, _ = deaf.accept()  # now it is under way
        answer = api("POST", "/projects", {"project": {"name": "slow"}}, 423)
        assert answer["code"] == "BUSY" and "running conflicting operations" in answer["message"]
        accepted.close()
        done = slow.getresponse()
        assert done.status == 503 and b"secret-of-deaf" not in done.read()
        slow.close()
    made = api.project("slow")  # the name is free again
    api("DELETE", f"/projects/{made['project']['id']}")


# ---- secrets ----

def test_the_key_is_private_and_only_its_hash_is_recorded(api):
    store = api.server.store
    for name in ("api_key", "secret_key", "admin_password", "bough.db", "boughd.log"):
        assert stat.S_IMODE(os.stat(os.path.join(store, name)).st_mode) == 0o600, name
    assert stat.S_IMODE(os.stat(store).st_mode) == 0o700
    with sqlite3.connect(f"file:{store}/bough.db?mode=ro", uri=True) as db:
        rows = db.execute("SELECT * FROM api_keys").fetchall()
    db.close()
    assert len(rows) == 1 and api.key not in str(rows) and re.search("[0-9a-f]{64}", str(rows))


def test_no_secret_reaches_a_log_the_catalogue_or_a_command_line(api, shop):
    """After all of the above: passwords made, reset, revealed, failed imports, wrong keys."""
    store = api.server.store
    url = f"postgresql://u:secret-of-import@127.0.0.1:{h.free_port()}/d?password=secret-of-query"
    failed = api("POST", "/projects", {"project": {"name": "refused", "source": url}}, 503)
    assert "secret-of" not in json.dumps(failed)
    secrets = [api.key.encode(), b"secret-of-", b"bough_wrong"]
    roles = api("GET", f"{shop.main_path}/roles")["roles"]
    secrets += [api("GET",
                    f"{shop.main_path}/roles/{quote(r['name'])}/reveal_password")[
        "password"].encode() for r in roles]
    for name in ("admin_password", "secret_key"):
        with open(os.path.join(store, name), "rb") as f:
            secrets.append(f.read().strip())
    paths = [os.path.join(store, n) for n in ("boughd.log", "bough.db", "bough.db-wal",
                                              "run/server.json")]
    paths += glob.glob(f"{store}/branches/*/*.log") + glob.glob(f"{store}/branches/*/pgdata/*.conf")
    paths += [f"/proc/{pid}/cmdline" for pid in h.processes_below(store)] \
        + [f"/proc/{api('GET', '/bough/status')['pid']}/cmdline"]
    read = 0
    for path in paths:
        if os.path.exists(path):
            with open(path, "rb") as f:
                text = f.read()
            read += len(text)
            assert not [s for s in secrets if s in text], path
    assert read > 1000 and len(secrets) >= 6


# ---- the end ----

def test_a_shut_down_server_ends_and_its_computes_as_asked(make_server):
    server = make_server("down")
    api = Api(server)
    made = api.project("p")
    pid = server.pid()
    assert api("POST", "/bough/shutdown", {}, 202) == {"stop_computes": False}
    h.wait_for(lambda: not h.is_alive(pid), "the server has ended")
    assert h.processes_below(server.store)  # its compute goes on
    server.up()
    connect(made["connection_uris"][0]["connection_uri"]).close()
    pid = server.pid()
    api("POST", "/bough/shutdown", {"stop_computes": True}, 202)
    h.wait_for(lambda: not h.is_alive(pid), "the server has ended")
    assert not h.processes_below(server.store)


def test_every_route_of_the_specification_was_used(request):
    assert_used(request)
