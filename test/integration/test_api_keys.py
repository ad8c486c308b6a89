"""Keys of the API: scopes, reading only, expiry, revocation, limits."""
import datetime
import http.client
import json
import re
import sqlite3
import time

import pytest

import harness as h
from api import Api, Shop, all_at_once, assert_used

ROUTES = ("/api_keys", "/api_keys/{key_id}", "/organizations/{org_id}/api_keys",
          "/organizations/{org_id}/api_keys/{key_id}")


def make(api, name="k", **more):
    return api("POST", "/api_keys", {"key_name": name, **more})


@pytest.fixture(scope="module", name="other")
def fixture_other(api):
    """A second project, of which a key of the first must learn nothing."""
    return Shop(api, api.project("other"))


@pytest.fixture(scope="module", name="side")
def fixture_side(shop):
    """A branch of the first project besides main."""
    return shop.branch("side")["branch"]["id"]


def test_a_key_is_shown_once_works_and_is_revoked_at_once(api):
    made = make(api, "first")
    key = made["key"]
    assert api("GET", "/users/me", key=key)
    listed = {k["id"]: k for k in api("GET", "/api_keys", key=key)}
    assert listed[made["id"]]["name"] == "first" and "key" not in listed[made["id"]]
    assert listed[made["id"]]["last_used_at"] and listed[made["id"]]["last_used_from_addr"] == "127.0.0.1"
    assert key not in json.dumps(list(listed.values()))
    assert api("DELETE", f"/api_keys/{made['id']}")["revoked"]
    api("GET", "/users/me", key=key, status=401)
    api("DELETE", f"/api_keys/{made['id']}", status=404)
    assert made["id"] not in [k["id"] for k in api("GET", "/api_keys")]


def test_only_hashes_are_kept(api):
    made = make(api, "hashed")
    with sqlite3.connect(f"file:{api.server.store}/bough.db?mode=ro", uri=True) as db:
        rows = str(db.execute("SELECT * FROM api_keys").fetchall())
    db.close()
    assert made["key"] not in rows and len(re.findall("[0-9a-f]{64}", rows)) >= 2
    assert made["key"] not in api.server.log()


def test_the_key_of_the_file_stays(api):
    local = [k for k in api("GET", "/api_keys") if k["local"]]
    assert len(local) == 1
    api("DELETE", f"/api_keys/{local[0]['id']}", status=412)
    api("GET", "/users/me")


def test_an_organisation_has_keys_in_neons_way(api, shop):
    made = api("POST", "/organizations/local/api_keys", {"key_name": "org", "project_id": shop.id})
    assert made["project_id"] == shop.id
    assert made["id"] in [k["id"] for k in api("GET", "/organizations/local/api_keys")]
    assert api("DELETE", f"/organizations/local/api_keys/{made['id']}")["revoked"]
    api("GET", "/organizations/another/api_keys", status=404)


@pytest.mark.parametrize("body,status", [
    ({}, 400), ({"key_name": ""}, 400), ({"key_name": "x" * 65}, 400), ({"key_name": 5}, 400),
    ({"key_name": "x", "scope": "all"}, 422), ({"key_name": "x", "project_id": "no-such"}, 404),
    ({"key_name": "x", "branch_id": "br-no-such"}, 400), ({"key_name": "x", "read_only": "yes"}, 400),
    ({"key_name": "x", "expires_at": "2001-01-01T00:00:00Z"}, 400),
    ({"key_name": "x", "expires_at": "tomorrow"}, 400)])
def test_a_key_that_cannot_be_is_refused(api, body, status):
    api("POST", "/api_keys", body, status=status)


def test_a_key_of_a_branch_is_for_a_branch_of_that_project(api, shop, other):
    api("POST", "/api_keys", {"key_name": "x", "project_id": shop.id, "branch_id": other.main}, status=404)


def routes(shop, branch, endpoint):
    """Things of a project and branch to ask for."""
    p, b = f"/projects/{shop.id}", f"/projects/{shop.id}/branches/{branch}"
    return [p, f"{p}/branches", f"{p}/operations", f"{p}/endpoints", f"{p}/connection_uri", b, f"{b}/databases",
            f"{b}/roles", f"{b}/endpoints", f"{b}/roles/neondb_owner/reveal_password", f"{p}/endpoints/{endpoint}",
            f"{b}/schema?db_name=neondb"]


def test_a_key_of_a_project_sees_it_and_no_other(api, shop, other):
    key = make(api, "of project", project_id=shop.id)["key"]
    assert [p["id"] for p in api("GET", "/projects", key=key)["projects"]] == [shop.id]
    assert api("GET", "/projects?search=other", key=key)["projects"] == []
    for path in routes(shop, shop.main, shop.endpoint):
        api("GET", path, key=key)
    for path in routes(other, other.main, other.endpoint):
        told = api("GET", path, key=key, status=404)
        absent = api("GET", path.replace(other.id, "no-such-project"), status=404)
        assert told["message"].replace(other.id, "X") == absent["message"].replace("no-such-project", "X")
    for method, path, body in [("DELETE", f"/projects/{other.id}", None), ("PATCH", f"/projects/{other.id}", {}),
                               ("POST", f"/projects/{other.id}/branches", {}),
                               ("POST", f"/projects/{other.id}/branches/{other.main}/restore", {})]:
        api(method, path, body, key=key, status=404)
    assert "other" in [p["name"] for p in api("GET", "/projects")["projects"]]


def test_a_key_of_a_project_works_within_and_rules_nothing_else(api, shop, directory):
    key = make(api, "worker", project_id=shop.id)["key"]
    made = api("POST", f"{shop.path}/branches", {"branch": {"name": "by key"}}, 201, key=key)
    api("DELETE", f"{shop.path}/branches/{made['branch']['id']}", key=key)
    for method, path, body in [("POST", "/projects", {"project": {"name": "new"}}), ("GET", "/api_keys", None),
                               ("POST", "/api_keys", {"key_name": "more"}), ("GET", "/bough/status", None),
                               ("POST", "/bough/shutdown", {}), ("DELETE", f"/projects/{shop.id}", None),
                               ("POST", f"{shop.main_path}/export", {"path": f"{directory}/x"})]:
        assert api(method, path, body, key=key, status=403)["code"] == "FORBIDDEN"
    api("GET", "/users/me", key=key)
    api("GET", f"{shop.path}")


def test_a_key_of_a_branch_sees_it_and_no_other(api, shop, side):
    key = make(api, "of branch", project_id=shop.id, branch_id=side)["key"]
    endpoint = api("GET", f"{shop.path}/branches/{side}/endpoints")["endpoints"][0]["id"]
    assert [b["id"] for b in api("GET", f"{shop.path}/branches", key=key)["branches"]] == [side]
    assert api("GET", f"{shop.path}/branches/count", key=key)["count"] == 1
    assert [e["id"] for e in api("GET", f"{shop.path}/endpoints", key=key)["endpoints"]] == [endpoint]
    operations = api("GET", f"{shop.path}/operations", key=key)["operations"]
    assert operations and {o["branch_id"] for o in operations} == {side}
    assert side in json.dumps(api("GET", f"{shop.path}/branches/{side}", key=key))
    assert endpoint in api("GET", f"{shop.path}/connection_uri?branch_id={side}", key=key)["uri"]
    api("GET", f"{shop.path}/endpoints/{endpoint}", key=key)
    api("POST", f"{shop.path}/endpoints/{endpoint}/suspend", key=key)
    mine = api("GET", f"{shop.path}/operations", key=key)["operations"][0]["id"]
    api("GET", f"{shop.path}/operations/{mine}", key=key)


def test_a_key_of_a_branch_is_told_that_others_are_not_there(api, shop, side, other):
    key = make(api, "of branch", project_id=shop.id, branch_id=side)["key"]
    operation = [o["id"] for o in api("GET", f"{shop.path}/operations")["operations"]
                 if o.get("branch_id") == shop.main][0]
    for method, path, body in [
            ("GET", shop.main_path, None), ("PATCH", shop.main_path, {"branch": {"name": "mine"}}),
            ("DELETE", shop.main_path, None), ("GET", f"{shop.main_path}/roles/neondb_owner/reveal_password", None),
            ("GET", f"{shop.main_path}/schema?db_name=neondb", None), ("GET", f"{shop.path}/connection_uri", None),
            ("GET", f"{shop.path}/connection_uri?endpoint_id={shop.endpoint}", None),
            ("GET", f"{shop.path}/endpoints/{shop.endpoint}", None),
            ("POST", f"{shop.path}/endpoints/{shop.endpoint}/suspend", None),
            ("PATCH", f"{shop.path}/endpoints/{shop.endpoint}", {"endpoint": {}}),
            ("GET", f"{shop.path}/operations/{operation}", None),
            ("POST", f"{shop.path}/branches/{side}/restore", {"source_branch_id": shop.main}),
            ("GET", f"{shop.path}/branches/{side}/compare_schema?db_name=neondb", None),
            ("POST", f"{shop.path}/endpoints", {"endpoint": {"branch_id": shop.main, "type": "read_write"}}),
            ("GET", f"/projects/{other.id}", None)]:
        api(method, path, body, key=key, status=404)
    for method, path, body in [("POST", f"{shop.path}/branches", {}), ("PATCH", shop.path, {"project": {}}),
                               ("POST", f"{shop.path}/branches/{side}/set_as_default", None)]:
        api(method, path, body, key=key, status=403)


def test_a_key_of_a_branch_makes_no_branch_by_a_restore(api, shop, side):
    key = make(api, "of branch", project_id=shop.id, branch_id=side)["key"]
    before, wish = shop.names(), {"source_branch_id": side, "preserve_under_name": "kept"}
    refused = api("POST", f"{shop.path}/branches/{side}/restore", wish, key=key, status=403)
    assert refused["code"] == "FORBIDDEN" and shop.names() == before
    api("POST", f"{shop.main_path}/restore", wish, key=key, status=404)  # another's: not there
    api("POST", f"{shop.path}/branches/{side}/restore", {"source_branch_id": side}, key=key, status=400)


def test_a_key_that_reads_changes_nothing_and_sees_no_password(api, shop):
    key = make(api, "reader", read_only=True)["key"]
    for path in [f"{shop.path}", f"{shop.path}/branches", f"{shop.main_path}/roles", f"{shop.main_path}/databases",
                 f"{shop.main_path}/schema?db_name=neondb", f"{shop.path}/operations", "/projects", "/bough/status"]:
        assert "password\":" not in json.dumps(api("GET", path, key=key))
    for method, path, body in [
            ("POST", "/projects", {"project": {"name": "new"}}), ("PATCH", shop.path, {"project": {"name": "n"}}),
            ("POST", f"{shop.path}/branches", {}), ("DELETE", shop.main_path, None),
            ("POST", "/api_keys", {"key_name": "x"}),
            ("POST", f"{shop.path}/endpoints/{shop.endpoint}/suspend", None),
            ("GET", f"{shop.path}/connection_uri", None),
            ("GET", f"{shop.main_path}/roles/neondb_owner/reveal_password", None),
            ("POST", f"{shop.main_path}/roles/neondb_owner/reset_password", None)]:
        assert api(method, path, body, key=key, status=403)["code"] == "FORBIDDEN"


def test_a_key_expires(api):
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=2)
    made = make(api, "short", expires_at=soon.isoformat())
    api("GET", "/users/me", key=made["key"])
    h.wait_for(lambda: api("GET", "/users/me", key=made["key"], status=(200, 401)) and api.status == 401,
               "the key has expired", 10)


def test_a_key_goes_with_its_project_and_survives_the_server(make_server):
    server = make_server()
    api = Api(server)
    gone = Shop(api, api.project("gone"))
    of_it, other = make(api, "of it", project_id=gone.id), make(api, "other")
    api("GET", "/users/me", key=other["key"])
    api("DELETE", f"/projects/{gone.id}")
    server.down()
    server.up()
    api("GET", "/users/me", key=of_it["key"], status=401)
    listed = {k["name"]: k for k in api("GET", "/api_keys", key=other["key"])}
    assert "of it" not in listed and listed["other"]["last_used_at"]


def ask(server, key, path="/users/me"):
    """Status and Retry-After, on a connection of its own."""
    c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    c.request("GET", f"/api/v2{path}", headers={"Authorization": f"Bearer {key}"})
    answer = c.getresponse()
    answer.read()
    c.close()
    return answer.status, answer.getheader("Retry-After")


def test_a_key_is_limited_by_the_second_and_route(api):
    key = make(api, "fast")["key"]
    got = [ask(api.server, key) for _ in range(60)]
    refused = [g for g in got if g[0] == 429]
    assert 40 <= len(got) - len(refused) < 60 and {r[1] for r in refused} == {"1"}
    assert ask(api.server, key, "/regions")[0] == 200  # another route
    assert ask(api.server, api.key)[0] == 200 and all(ask(api.server, api.key)[0] == 200 for _ in range(60))
    h.wait_for(lambda: ask(api.server, key)[0] == 200, "it may ask again", 5)


def test_limits_are_as_the_server_was_told(make_server):
    server = make_server(up=False)
    server.up("--api-rate", "30", "--api-burst", "1000", "--limit-local-key")
    api = Api(server)
    got = [ask(server, api.key) for _ in range(40)]
    refused = [g for g in got if g[0] == 429]
    assert 8 <= len(refused) <= 11 and all(1 <= int(r[1]) <= 2 for r in refused)
    began = time.monotonic()
    h.wait_for(lambda: ask(server, api.key)[0] == 200, "it may ask again", 10)
    assert time.monotonic() - began < 5


def test_keys_made_and_revoked_at_once_are_so_afterwards(make_server):
    """What one of them has read of the catalogue does not undo what the other did."""
    server = make_server(up=False)
    server.env["BOUGH_DELAY_AT"] = "keys.listed:100"
    server.up()
    api = Api(server)
    old = make(api, "0")
    for name in range(1, 16):
        new, _ = all_at_once(lambda do: do(), [
            lambda n=name: make(Api(server), str(n)), lambda o=old: Api(server)("DELETE", f"/api_keys/{o['id']}")])
        api("GET", "/users/me", key=old["key"], status=401)
        api("GET", "/users/me", key=new["key"])
        old = new


def test_the_command_line_makes_lists_and_revokes(api, shop, side):
    server = api.server
    key = server.bough("api-key", "create", "ci", "--for-project", "shop", "--for-branch", "side", "--read-only",
                       "--expires-in", "30d").stdout.strip()
    assert re.fullmatch("bough_[0-9a-f]+", key)
    assert [b["id"] for b in api("GET", f"{shop.path}/branches", key=key)["branches"]] == [side]
    one = [k for k in server.json("api-key", "list") if k["name"] == "ci"][0]
    assert one["branch_id"] == side and one["read_only"] and one["expires_at"]
    assert re.search(rf"{one['id']} +ci +branch {side} +read", server.bough("api-key", "list").stdout)
    server.bough("api-key", "revoke", str(one["id"]))
    api("GET", "/users/me", key=key, status=401)
    server.refused("api-key", "revoke", str(one["id"]), status="notfound")
    server.refused("api-key", "create", "x", "--for-branch", "side", status="usage")
    server.refused("api-key", "create", "x", "--for-project", "nobody", status="notfound")


def test_every_route_of_this_file_was_used(request):
    assert_used(request)
