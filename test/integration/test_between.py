"""What others change between the first look of an operation at the catalogue and its commit, and crashes there."""
import contextlib
import glob
import os
import sqlite3

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


def catalogue(server):
    return contextlib.closing(sqlite3.connect(f"{server.store}/bough.db"))


# ---- a restore ----

def test_a_branch_whose_lifetime_is_longer_than_any_that_is_given_is_restored(held, p):
    far = victim(p, "far", expires_at="2200-01-01T00:00:00Z")
    status, answer = restore(p, far)
    assert status == 200 and answer["branch"]["expires_at"] == "2200-01-01T00:00:00Z", answer
    p.sql("far", "UPDATE t SET said = 'far'")
    with held.at("restore.exchanged", lambda: restore(p, far)):
        p.server.kill()
    p.server.up()
    assert p.one("far", SAID) == "main" and p.get("far")["expires_at"] == "2200-01-01T00:00:00Z"


def test_the_name_of_what_is_kept_is_nobody_elses_from_when_it_is_recorded(held, p):
    vict, other = victim(p), victim(p, "other")
    gone = victim(p, "kept-v")
    p.delete("kept-v")
    p.bough("snapshot", "create", "other", "--name", "s")
    p.bough("snapshot", "restore", "s", "--name", "look")
    look = p.get("look")["id"]
    # before: a name that is given to another is refused, and nothing has happened
    with held.at("restore.files-made", lambda: restore(p, vict, preserve_under_name="kept-v")) as done:
        assert patch(p, other, name="kept-v")[0] == 200
    status, answer = done.value
    assert status == 409 and answer["code"] == "BRANCH_ALREADY_EXISTS", answer
    assert p.one("vict", SAID) == "vict" and p.one("kept-v", SAID) == "other"
    assert patch(p, other, name="other")[0] == 200
    # after: nobody gets it, and a crash does not lose it
    with held.at("restore.exchanged", lambda: restore(p, vict, preserve_under_name="kept-v")):
        assert patch(p, other, name="kept-v")[0] == 409
        assert ask(p, "POST", gone, "/recover")[0] == 409
        assert ask(p, "POST", look, "/finalize_restore", name="kept-v")[0] == 409
        p.server.kill()
    p.server.up()
    assert p.one("vict", SAID) == "main" and p.one("kept-v", SAID) == "vict" and p.one("other", SAID) == "other"
    p.bough("branch", "undelete", gone, "--name", "back")
    assert p.one("back", SAID) == "kept-v"
    assert_nothing_left(p.server)


def test_what_is_kept_gets_a_free_name_where_its_own_was_not_reserved(held, p):
    """As a server left it that reserved none."""
    vict, other = victim(p), victim(p, "other")
    with held.at("restore.exchanged", lambda: restore(p, vict, preserve_under_name="kept-v")):
        p.server.kill()
    with catalogue(p.server) as db, db:
        db.execute("UPDATE branches SET name = 'kept-v' WHERE id = ?", (other,))
    p.server.up()
    assert p.one("kept-v", SAID) == "other" and p.one("kept-v (kept)", SAID) == "vict"
    assert p.one("vict", SAID) == "main"


def test_one_restore_that_cannot_be_ended_does_not_keep_the_server_from_starting(held, p):
    vict = victim(p)
    with held.at("restore.exchanged", lambda: restore(p, vict, preserve_under_name="kept-v")):
        p.server.kill()
    with catalogue(p.server) as db, db:
        db.execute("CREATE TRIGGER no BEFORE INSERT ON endpoints BEGIN SELECT RAISE(ABORT, 'no'); END")
    p.server.up()
    assert p.get("vict")["current_state"] == "failed" and p.one("main", SAID) == "main"
    assert "can neither be finished nor undone" in p.server.log()
    p.server.down()
    with catalogue(p.server) as db, db:
        db.execute("DROP TRIGGER no")
    p.server.up()
    assert p.get("vict")["current_state"] == "ready"
    assert p.one("vict", SAID) == "main" and p.one("kept-v", SAID) == "vict"
    assert_nothing_left(p.server)


def test_a_restore_does_not_replace_what_was_protected_meanwhile(held, p):
    vict = victim(p)
    with held.at("restore.files-made", lambda: restore(p, vict)) as done:
        assert patch(p, vict, protected=True)[0] == 200
    status, answer = done.value
    assert status == 412 and "protected" in answer["message"], answer
    assert p.one("vict", SAID) == "vict"
    assert patch(p, vict, protected=False)[0] == 200
    # too late: that is said, rather than a protection that protects nothing
    with held.at("restore.recorded", lambda: restore(p, vict)) as done:
        status, answer = patch(p, vict, protected=True)
        assert status == 423 and "is being restored" in answer["message"], answer
        assert patch(p, vict, name="renamed")[0] == 200
    assert done.value[0] == 200 and p.one("renamed", SAID) == "main"
    assert patch(p, vict, protected=True)[0] == 200
    assert_nothing_left(p.server)


# ---- putting a restored branch in another's place ----

@pytest.fixture(name="look")
def fixture_look(p):
    """What main showed, restored to be looked at."""
    p.bough("snapshot", "create", "main", "--name", "s")
    p.sql("main", "UPDATE t SET said = 'later'")
    p.bough("snapshot", "restore", "s", "--name", "look")
    return p.get("look")["id"]


def test_what_takes_a_place_takes_it_as_it_is_at_that_moment(held, p, look):
    k1, main = victim(p, "k1"), p.get("main")["id"]
    with held.at("finalize.stopped", lambda: ask(p, "POST", look, "/finalize_restore")) as done:
        assert ask(p, "POST", k1, "/set_as_default")[0] == 200
        assert patch(p, main, name="renamed")[0] == 200
    assert done.value[0] == 200, done.value
    branches = p.branches()
    assert set(branches) == {"k1", "renamed", "renamed (old)"}
    assert branches["k1"]["default"] and not branches["renamed"]["default"]
    assert branches["renamed"]["id"] == look and branches["renamed (old)"]["id"] == main
    assert p.one("renamed", SAID) == "main" and p.one("renamed (old)", SAID) == "later"


def test_what_was_protected_meanwhile_is_not_replaced(held, p, look):
    main = p.get("main")["id"]
    with held.at("finalize.stopped", lambda: ask(p, "POST", look, "/finalize_restore")) as done:
        assert patch(p, main, protected=True, name="renamed")[0] == 200
    status, answer = done.value
    assert status == 422 and "protected" in answer["message"], answer
    assert set(p.branches()) == {"look", "renamed"} and p.get("renamed")["id"] == main
    assert p.one("renamed", SAID) == "later" and p.one("look", SAID) == "main"


# ---- a create that fails, a project that goes ----

def test_a_protected_branch_that_could_not_be_made_whole_is_taken_back(held, p):
    body = {"branch": {"name": "half", "protected": True},
            "endpoints": [{"type": "read_write"}, {"type": "read_only"}]}
    with held.at("standby.forked", lambda: p.server.api("POST", f"/projects/{p.id}/branches", body)) as done:
        for name in glob.glob(f"{p.server.store}/branches/ep-*/pgdata/PG_VERSION"):
            os.unlink(name)
    assert done.value[0] >= 400, done.value
    assert list(p.branches()) == ["main"]
    assert_nothing_left(p.server)
    p.server.bough("project", "delete", p.id)


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
