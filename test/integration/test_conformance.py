"""Small things of Neon's API that its clients rely on."""
import http.client
import json
import threading

import pytest

from api import assert_used

ROUTES = ("/organizations/{org_id}", "/organizations/{org_id}/members")


def test_there_is_one_organisation_with_one_member(api):
    one = api("GET", "/users/me/organizations")["organizations"][0]
    assert api("GET", f"/organizations/{one['id']}") == one
    assert len(api("GET", f"/organizations/{one['id']}/members")["members"]) == 1
    api("GET", "/organizations/other", status=404)
    api("GET", "/organizations/other/members", status=404)


def test_projects_are_of_the_only_organisation_and_never_recoverable(api, shop):
    assert [p["id"] for p in api("GET", "/projects?org_id=local")["projects"]] == [shop.id]
    api("GET", "/projects?org_id=other", status=404)
    assert api("GET", "/projects?recoverable=true")["projects"] == []
    api("GET", "/projects?recoverable=perhaps", status=400)


def test_what_a_client_notes_of_a_branch_is_kept(api, shop):
    note = {"github-commit-ref": "feature/ä", "n": "1"}
    made = api("POST", f"{shop.path}/branches", {"branch": {"name": "noted"}, "annotation_value": note}, 201)
    branch = made["branch"]["id"]
    one = api("GET", f"{shop.path}/branches/{branch}")["annotation"]
    assert one["value"] == note and one["object"] == {"type": "console/branch", "id": branch} and one["created_at"]
    listed = api("GET", f"{shop.path}/branches")["annotations"]
    assert set(listed) == {branch} and listed[branch]["value"] == note
    assert api("GET", shop.main_path)["annotation"]["value"] == {}
    api("DELETE", f"{shop.path}/branches/{branch}?hard_delete=true")
    assert api("GET", f"{shop.path}/branches")["annotations"] == {}


@pytest.mark.parametrize("note", [5, [], {"a": 1}, {"a": None}, {str(i): "x" for i in range(51)}, {"a": "x" * 8192}])
def test_a_note_that_is_none_is_refused(api, shop, note):
    api("POST", f"{shop.path}/branches", {"branch": {"name": "refused"}, "annotation_value": note}, status=400)
    assert "refused" not in shop.names()


def request_id(api, given):
    c = http.client.HTTPConnection("127.0.0.1", api.server.port, timeout=30)
    c.request("GET", "/api/v2/nothing", headers={"Authorization": f"Bearer {api.key}", "X-Request-ID": given})
    answer = c.getresponse()
    body = json.loads(answer.read())
    c.close()
    assert answer.getheader("X-Request-Id") == answer.getheader("X-Neon-Ret-Request-Id") == body["request_id"]
    return body["request_id"]


def test_a_client_may_name_its_request(api):
    assert request_id(api, "my-request_1.2") == "my-request_1.2"
    for wrong in ("", "x" * 64, "a b", 'a"b', "a<b>"):
        assert len(request_id(api, wrong)) == 36


@pytest.mark.parametrize("path", ["permissions", "jwks", "vpc_endpoints", "advisors", "transfer_requests",
                                  "available_preload_libraries", "auth/integrations"])
def test_what_a_project_does_not_have_is_told_in_neons_words(api, shop, path):
    assert api("GET", f"{shop.path}/{path}", status=404)["message"] == "this route does not exist"


@pytest.mark.parametrize("path", ["auth", "data-api/neondb", "buckets", "functions", "credentials",
                                  "masking_rules", "anonymized_status"])
def test_what_a_branch_does_not_have_is_told_in_neons_words(api, shop, path):
    assert api("GET", f"{shop.main_path}/{path}", status=404)["message"] == "this route does not exist"


def test_an_operation_under_way_is_423_and_the_same_again_succeeds(api, shop):
    """Neon's clients retry 423: what they then get is the branch."""

    got = []

    def make(i):
        got.append(api.__class__(api.server)("POST", f"{shop.path}/branches?if_exists=return",
                                             {"branch": {"name": "same"}}, status=(200, 201, 423)))
    threads = [threading.Thread(target=make, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert len({a["branch"]["id"] for a in got if "branch" in a}) == 1
    assert api("POST", f"{shop.path}/branches", {"branch": {"name": "same"}}, 409)["code"] == "BRANCH_ALREADY_EXISTS"


def test_every_route_of_this_file_was_used(request):
    assert_used(request)
