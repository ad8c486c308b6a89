"""What a project says of its new endpoints: default_endpoint_settings of Neon's API."""
import pytest

import harness as h
from api import connect

USUAL = {"autoscaling_limit_min_cu": 1, "autoscaling_limit_max_cu": 1, "suspend_timeout_seconds": 0}
SMALL = {"autoscaling_limit_min_cu": 0.25, "autoscaling_limit_max_cu": 0.5, "suspend_timeout_seconds": 3600}


def settings_of(endpoint):
    return {name: endpoint[name] for name in USUAL}


def change(api, path, status=200, **settings):
    return api("PATCH", path, {"project": {"default_endpoint_settings": settings}}, status)


def test_a_project_that_says_nothing_has_the_usual(api, shop):
    assert shop.made["project"]["default_endpoint_settings"] == USUAL
    assert settings_of(shop.made["endpoints"][0]) == USUAL
    assert api("GET", shop.path)["project"]["default_endpoint_settings"] == USUAL
    listed = api("GET", "/projects?limit=400")["projects"]
    assert next(p for p in listed if p["id"] == shop.id)["default_endpoint_settings"] == USUAL


def test_all_new_endpoints_get_what_the_project_says(api):
    made = api.project("small", default_endpoint_settings=SMALL)
    path, main = f"/projects/{made['project']['id']}", made["branch"]["id"]
    assert made["project"]["default_endpoint_settings"] == SMALL
    first = made["endpoints"][0]
    assert settings_of(first) == SMALL
    with connect(made["connection_uris"][0]["connection_uri"]) as c:
        assert c.one("SELECT current_setting('shared_buffers')") == "64MB"
        c.run("CREATE TABLE t AS SELECT 1 AS id")
    child = api.branch(made["project"]["id"], "child")
    assert settings_of(child["endpoints"][0]) == SMALL
    with connect(child["connection_uris"][0]["connection_uri"]) as c:
        assert c.one("SELECT current_setting('shared_buffers')") == "64MB"
    schema = api.branch(made["project"]["id"], "schema", init_source="schema-only")
    assert settings_of(schema["endpoints"][0]) == SMALL
    # deleted and made again, at the branch and of its own
    api("DELETE", f"{path}/endpoints/{child['endpoints'][0]['id']}")
    again = api("POST", f"{path}/endpoints", {"endpoint": {"branch_id": child["branch"]["id"], "type": "read_write"}},
                201)
    assert settings_of(again["endpoint"]) == SMALL
    # what a restore keeps under another name
    api("POST", f"{path}/branches/{main}/restore",
        {"source_branch_id": child["branch"]["id"], "preserve_under_name": "before"})
    endpoints = api("GET", f"{path}/endpoints")["endpoints"]
    assert len(endpoints) == 4 and all(settings_of(e) == SMALL for e in endpoints)
    # a look has the size, and does not stay awake for long
    look = api("POST", f"{path}/branches", {"branch": {"look": True}, "endpoints": [{"type": "read_write"}]}, 201)
    assert settings_of(look["endpoints"][0]) == SMALL | {"suspend_timeout_seconds": 0}


def test_a_request_may_say_otherwise(api):
    made = api.project("other", default_endpoint_settings=SMALL)
    path = f"/projects/{made['project']['id']}"

    def create(name, **more):
        body = {"branch": {"name": name}, "endpoints": [{"type": "read_write", **more}]}
        return api("POST", f"{path}/branches", body, 201)["endpoints"][0]
    assert settings_of(create("a", suspend_timeout_seconds=0)) == SMALL | {"suspend_timeout_seconds": 0}
    assert settings_of(create("b", autoscaling_limit_max_cu=0.25)) == SMALL | {"autoscaling_limit_max_cu": 0.25}
    assert settings_of(create("c", autoscaling_limit_min_cu=2)) == SMALL | {
        "autoscaling_limit_min_cu": 2, "autoscaling_limit_max_cu": 2}
    branch = api.branch(made["project"]["id"], "d", endpoint=False)["branch"]["id"]
    body = {"endpoint": {"branch_id": branch, "autoscaling_limit_max_cu": 1, "suspend_timeout_seconds": -1}}
    assert settings_of(api("POST", f"{path}/endpoints", body, 201)["endpoint"]) == SMALL | {
        "autoscaling_limit_max_cu": 1, "suspend_timeout_seconds": -1}


def test_a_change_is_for_endpoints_to_come_and_outlives_the_server(api, shared_server):
    made = api.project("changed", autoscaling_limit_min_cu=0.5, autoscaling_limit_max_cu=2)
    path, project = f"/projects/{made['project']['id']}", made["project"]["id"]
    before = USUAL | {"autoscaling_limit_min_cu": 0.5, "autoscaling_limit_max_cu": 2}
    assert made["project"]["default_endpoint_settings"] == before
    assert change(api, path, suspend_timeout_seconds=120)["project"]["default_endpoint_settings"] == before | {
        "suspend_timeout_seconds": 120}
    assert change(api, path)["project"]["default_endpoint_settings"]["suspend_timeout_seconds"] == 120
    change(api, path, pg_settings={}, pgbouncer_settings={}, autoscaling_limit_min_cu=0.25)
    shared_server.down()
    shared_server.up()
    after = {"autoscaling_limit_min_cu": 0.25, "autoscaling_limit_max_cu": 2, "suspend_timeout_seconds": 120}
    assert api("GET", path)["project"]["default_endpoint_settings"] == after
    first = api("GET", f"{path}/endpoints/{made['endpoints'][0]['id']}")["endpoint"]
    assert settings_of(first) == before
    assert settings_of(api.branch(project, "new")["endpoints"][0]) == after


@pytest.mark.parametrize("bad, status", [
    ({"autoscaling_limit_max_cu": 17}, 400), ({"autoscaling_limit_min_cu": 0.3}, 400),
    ({"autoscaling_limit_min_cu": 2, "autoscaling_limit_max_cu": 1}, 400), ({"autoscaling_limit_max_cu": -1}, 400),
    ({"autoscaling_limit_max_cu": "1"}, 400), ({"suspend_timeout_seconds": 1}, 400),
    ({"suspend_timeout_seconds": 604801}, 400), ({"suspend_timeout_seconds": "300"}, 400),
    ({"pg_settings": {"work_mem": "64MB"}}, 422), ({"pgbouncer_settings": {"default_pool_size": "5"}}, 422),
    ({"provisioner": "k8s-neonvm"}, 422)])
def test_what_cannot_be_had_is_refused_and_changes_nothing(api, shop, bad, status):
    answer = change(api, shop.path, status, **bad)
    assert next(iter(bad)) in answer["message"] or "size" in answer["message"], answer
    if "pg_settings" in bad:
        assert "ALTER DATABASE" in answer["hint"]
    body = {"project": {"name": "never", "pg_version": h.PG, "default_endpoint_settings": bad}}
    api("POST", "/projects", body, status)
    assert api("GET", shop.path)["project"]["default_endpoint_settings"] == USUAL
    assert not api("GET", "/projects?search=never")["projects"]
    api("PATCH", shop.path, {"project": {"default_endpoint_settings": [1]}}, 400)
