"""What users get wrong: a line that says what, a hint, the right exit status, no harm done."""
import os

import pytest

import harness as h


@pytest.fixture(scope="module", name="project")
def fixture_project(shared_server):
    project = shared_server.project("shop")
    project.branch("feature-a")
    project.branch("staging")
    yield project
    # nothing of the below did anything
    assert sorted(project.branches()) == ["feature-a", "main", "staging"]
    assert [p["name"] for p in shared_server.projects()] == ["shop"]


@pytest.mark.parametrize("name, says", [("", "empty"), ("   ", "empty"), ("a\nb", "control"),
                                        ("a\x1b[31mb", "control"),
                                        ("x" * 257, "256"), ("ü" * 257, "256")], ids=range(6))
def test_a_name_that_breaks_the_rule(project, name, says):
    status = ["invalid", "usage"]
    for done in (project.refused("branch", "create", name, status=status, says=says),
                 project.refused("branch", "rename", "staging", name, status=status, says=says),
                 project.server.refused("project", "create", name, status=status, says=says)):
        assert "\x1b" not in done.stderr


def test_a_name_that_is_no_utf8(project):
    project.refused("branch", "create", os.fsdecode(b"\xff\xfe"), status=["invalid", "usage"])


@pytest.mark.parametrize("args", [["branch", "get", "fature-a"], ["branch", "delete", "feature-b"],
                                  ["psql", "feature"],
                                  ["cs", "Feature-A"], ["endpoint", "start", "feature-aa"],
                                  ["branch", "create", "x", "--parent", "featur-a"],
                                  ["branch", "rename", "feature_a", "y"],
                                  ["export", "feature-1", "/nowhere/x"]], ids=" ".join)
def test_the_nearest_branch_is_suggested(project, args):
    project.refused(*args, status="notfound", says="no branch is named", hint='"feature-a"')


@pytest.mark.parametrize("name", ["nosuch", "br-no-such-000000", "%", "../..", "x' OR 1=1 --"])
def test_an_unknown_branch_without_a_neighbour(project, name):
    done = project.refused("branch", "get", name, status="notfound")
    assert "Did you mean" not in done.stderr


def test_an_unknown_project(shared_server, project):
    shared_server.refused("branch", "list", "--project", "shup", status="notfound", hint='"shop"')
    shared_server.refused("project", "get", "nosuch", status="notfound")
    shared_server.refused("project", "delete", "nosuch", "--yes", status="notfound")
    other = shared_server.project("other")
    shared_server.refused("branch", "list", status=["usage", "invalid", "precondition",
                                                    "conflict"], hint="--project")
    shared_server.bough("project", "delete", other.id, "--yes")


@pytest.mark.parametrize("args", [["--nosuch"], ["branch", "create", "x", "--nosuch"],
                                  ["branch", "create", "x", "--parent"],
                                  ["branch", "create"], ["branch", "create", "a", "b"],
                                  ["branch", "nosuch"], ["nosuch"],
                                  ["up", "-x"]], ids=" ".join)
def test_a_command_line_that_is_wrong(shared_server, project, args):
    shared_server.refused(*args, status="usage", hint="bough")


@pytest.mark.parametrize("args, says", [
    (["up", "--port", "0"], "1 to 65535"), (["up", "--port", "65536"], "1 to 65535"),
    (["up", "--port", "1x"], "1 to 65535"),
    (["project", "create", "x", "--pg-version", "fifteen"], "whole number"),
    (["branch", "list", "--json=yes"], "no value"),
    (["operation", "list", "--limit", "0"], "1 to 1000")], ids=str)
def test_a_value_that_an_option_does_not_take(shared_server, project, args, says):
    shared_server.refused(*args, status="usage", says=says)


@pytest.mark.parametrize("args, hint",
                         [(["brnach", "list"], "branch"), (["branch", "crate", "x"], "create"),
                                        (["branch", "create", "x", "--parnet", "main"],
                                         "--parent")], ids=str)
def test_the_nearest_command_is_suggested(shared_server, project, args, hint):
    shared_server.refused(*args, status="usage", hint=hint)


def test_what_is_refused_because_of_what_there_is(project):
    project.refused("branch", "create", "staging", "--parent", "feature-a", status="conflict",
                    says="already exists",
                    hint="main")
    project.refused("branch", "rename", "staging", "main", status="conflict", says="already exists")
    project.refused("branch", "delete", "main", says="default branch")
    project.server.refused("project", "create", "shop", "--pg-version",
                           "14" if h.PG != 14 else "13", status="conflict",
                           hint=f"PostgreSQL {h.PG}")
    project.branch("deeper", parent="staging")
    project.refused("branch", "delete", "staging", status="conflict", says="child", hint="first")
    project.delete("deeper")


@pytest.mark.parametrize("option", [["--database", "nosuch"], ["--role", "nosuch"]], ids=" ".join)
def test_a_connection_to_what_is_not_there(project, option):
    project.refused("cs", "main", *option, status="notfound", says='"nosuch"')
    project.refused("psql", "main", *option, "--", "-c", "SELECT 1", status="notfound",
                    says='"nosuch"')


def test_psql_tells_its_own_exit_status(project):
    assert project.bough("psql", "main", "--", "-c", "SELECT nosuch", check=False).returncode == 1
    assert project.bough("psql", "main", "--", "-v", "ON_ERROR_STOP=1", "-f", "/dev/stdin",
                         check=False,
                         timeout=60).returncode == 0


def test_an_export_to_where_something_is(project, directory):
    os.mkdir(f"{directory}/full")
    with open(f"{directory}/full/precious", "w", encoding="ascii"):
        pass
    project.refused("export", "main", f"{directory}/full", status="conflict", says="not empty",
                    hint=".")
    project.refused("export", "main", f"{directory}/full/precious", says="precious")
    project.refused("export", "main", f"{directory}/no/such", status="notfound", hint=".")
    assert os.listdir(f"{directory}/full") == ["precious"]


def test_a_version_of_postgresql_that_is_not_there(shared_server, project):
    missing = next(m for m in (13, 14, 16, 17) if not h.find_pg(m))
    shared_server.refused("project", "create", "x", "--pg-version", str(missing),
                          status="unsupported",
                          says=f"PostgreSQL {missing} is not installed",
                          hint=f"postgresql-{missing}")
    for version in ("19", "99"):
        shared_server.refused("project", "create", "x", "--pg-version", version,
                              status="unsupported", hint="13 to 18")


def test_with_json_an_error_is_json(project):
    done = project.bough("branch", "get", "fature-a", "--json", check=False)
    assert done.returncode == h.EXIT["notfound"] and done.stdout == ""
    assert '"code":"NOT_FOUND"' in done.stderr and "feature-a" in done.stderr
