"""What others change between the first look of an operation at the catalogue and its commit, and crashes there."""

import pytest

import harness as h
from test_kill import assert_nothing_left

SAID = "SELECT said FROM t"


@pytest.fixture(name="held")
def fixture_held(make_server):
    return h.Held(make_server(up=False))


@pytest.fixture(name="p")
def fixture_p(held):
    p = held.server.up().project("p")
    p.sql("main", "CREATE TABLE t AS SELECT 'main' AS said")
    return p


def victim(p, name="vict", **fields):
    """A branch that says its name."""
    status, _, made = p.server.api("POST", f"/projects/{p.id}/branches", {
        "branch": {"name": name, **fields}, "endpoints": [{"type": "read_write"}]})
    assert status == 201, made
    p.sql(name, f"UPDATE t SET said = '{name}'")
    return made["branch"]["id"]


def ask(p, method, of, more="", **body):
    status, _, answer = p.server.api(method, f"/projects/{p.id}/branches/{of}{more}", body or None)
    return status, answer


def patch(p, branch, **fields):
    return ask(p, "PATCH", branch, branch=fields)


def restore(p, branch, **fields):
    return ask(p, "POST", branch, "/restore", source_branch_id=p.get("main")["id"], **fields)


# ---- a create that fails, a project that goes ----

@pytest.mark.parametrize("first", ["schema", "project"])
def test_a_project_goes_with_the_branch_that_was_made_of_a_schema_meanwhile(held, p, first):
    body = {"branch": {"name": "bare", "init_source": "schema-only"}, "endpoints": [{"type": "read_write"}]}

    def create():
        return p.server.api("POST", f"/projects/{p.id}/branches", body)

    def delete():
        return p.server.api("DELETE", f"/projects/{p.id}")
    with held.at("schema.copied", create) as made:
        with held.at("project-delete.stopped", delete) as deleted:
            if first == "schema":
                held.let_go("schema.copied")
                h.wait_for(lambda: "bare" in p.branches(), "the branch is made")
        # else its project has gone when it is to be recorded
    assert deleted.value[0] == 200, deleted.value
    assert made.value[0] in ((201, 404) if first == "schema" else (404,)), made.value
    assert not p.server.projects()
    assert_nothing_left(p.server)
