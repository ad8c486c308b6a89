"""Changes by PATCH: wholly there or wholly not, and beside others."""
from api import Api, Shop, all_at_once


def test_changes_at_once_of_a_project_and_of_an_endpoint_are_all_kept(make_server):
    """What each of them has read of the catalogue does not undo what the other has written."""
    server = make_server(up=False)
    server.env["BOUGH_DELAY_AT"] = "project.read:100,endpoint.read:100"
    server.up()
    api = Api(server)
    shop = Shop(api, api.project("shop"))
    path = f"{shop.path}/endpoints/{shop.endpoint}"
    for i in range(10):
        seconds, size = {"suspend_timeout_seconds": 60 + i}, {"autoscaling_limit_min_cu": 1 + i % 2,
                                                              "autoscaling_limit_max_cu": 2 + i % 3}
        ips, protected = {"ips": [f"10.0.0.{i}"]}, {"protected_branches_only": i % 2 == 0}
        all_at_once(lambda change: Api(server)("PATCH", *change), [
            (path, {"endpoint": seconds}), (path, {"endpoint": size}),
            (shop.path, {"project": {"settings": {"allowed_ips": ips}}}),
            (shop.path, {"project": {"settings": {"allowed_ips": protected}}})])
        endpoint = api("GET", path)["endpoint"]
        assert {k: endpoint[k] for k in (seconds | size)} == seconds | size, f"round {i}"
        assert api("GET", shop.path)["project"]["settings"]["allowed_ips"] == ips | protected, f"round {i}"


def test_a_change_of_a_project_that_is_refused_is_not_half_done(api, shop):
    path = f"/projects/{api.project('refused')['project']['id']}"
    before = api("GET", path)["project"]
    change = {"name": "shop", "history_retention_seconds": 3600, "settings": {"allowed_ips": {"ips": ["10.9.9.9"]}},
              "default_endpoint_settings": {"autoscaling_limit_max_cu": 8}}
    api("PATCH", path, {"project": change}, 409)
    assert api("GET", path)["project"] == before
    api("PATCH", path, {"project": {**change, "name": "other",
                                    "default_endpoint_settings": {"pg_settings": {"a": "b"}}}}, 422)
    assert api("GET", path)["project"] == before
    after = api("PATCH", path, {"project": {**change, "name": "other"}})["project"]
    assert after["name"] == "other" and after["history_retention_seconds"] == 3600
    assert after["settings"]["allowed_ips"]["ips"] == ["10.9.9.9"]
    assert after["default_endpoint_settings"]["autoscaling_limit_max_cu"] == 8
    api("DELETE", path)
