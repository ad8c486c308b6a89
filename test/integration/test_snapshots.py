"""Snapshots: they hold their moment whatever happens, are restored, expire, and are taken by schedules."""
import contextlib
import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import harness as h
from api import assert_used, connect
from test_kill import assert_nothing_left
from test_lifecycle import DAY, HOUR, actions, fixture_clock, fixture_p, make  # noqa: F401 (fixtures)

ROUTES = ("/projects/{project_id}/branches/{branch_id}/snapshot",
          "/projects/{project_id}/branches/{branch_id}/finalize_restore",
          "/projects/{project_id}/branches/{branch_id}/backup_schedule",
          "/projects/{project_id}/snapshots",
          "/projects/{project_id}/snapshots/{snapshot_id}",
          "/projects/{project_id}/snapshots/{snapshot_id}/restore")


def names(p):
    return [s["name"] for s in p.json("snapshot", "list")]


def take(p, branch, *options):
    return p.json("snapshot", "create", branch, *options)


def schedule(api, path, *lines):
    api("PUT", f"{path}/backup_schedule", {"schedule": list(lines)})
    return api("GET", f"{path}/backup_schedule")["schedule"]


# ---- the API ----


def test_a_snapshot_is_taken_renamed_restored_and_deleted(api, shop):
    uri = shop.made["connection_uris"][0]["connection_uri"]
    with connect(uri) as c:
        c.run("CREATE TABLE s AS SELECT 1 AS id")
        lsn = c.one("SELECT pg_current_wal_insert_lsn()::text")
    made = api("POST", f"{shop.main_path}/snapshot?name=first", {})
    one = made["snapshot"]
    assert one["name"] == "first" and one["manual"] and one["source_branch_id"] == shop.main
    assert made["operations"][0]["event"] == "create_snapshot"
    api("POST", f"{shop.main_path}/snapshot?name=first", status=409)
    with connect(uri) as c:
        c.run("INSERT INTO s VALUES (2)")
    path = f"{shop.path}/snapshots/{one['id']}"
    assert api("PATCH", path, {"snapshot": {"name": "renamed"}})["snapshot"]["name"] == "renamed"
    assert api("GET", path)["snapshot"]["name"] == "renamed"
    assert [s["id"] for s in api("GET", f"{shop.path}/snapshots")["snapshots"]] == [one["id"]]
    at = api("POST", f"{shop.main_path}/snapshot?lsn={lsn.replace('/', '%2F')}")["snapshot"]
    look = api("POST", f"{path}/restore", {"name": "look"})
    assert look["branch"]["restored_from"] == one["id"] and look["branch"]["restore_status"] == "restored"
    assert look["branch"]["name"] == "look" and look["branch"]["restored_as"] == shop.main
    again = api("POST", f"{shop.path}/snapshots/{at['id']}/restore", {})
    for branch in (look, again):
        uri = api("GET", f"{shop.path}/connection_uri?branch_id={branch['branch']['id']}&database_name=neondb"
                         "&role_name=neondb_owner")["uri"]
        with connect(uri) as c:
            assert c.one("SELECT array_agg(id) FROM s") == [1]
        api("DELETE", f"{shop.path}/branches/{branch['branch']['id']}?hard_delete=true")
    for gone in (one, at):
        assert api("DELETE", f"{shop.path}/snapshots/{gone['id']}", status=202)["operations"]
    api("DELETE", path, status=404)
    assert not api("GET", f"{shop.path}/snapshots")["snapshots"]


def test_a_restored_branch_replaces_the_one_its_snapshot_is_of(api, shop):
    dev = shop.branch("dev")
    uri, path = dev["connection_uris"][0]["connection_uri"], f"{shop.path}/branches/{dev['branch']['id']}"
    with connect(uri) as c:
        c.run("CREATE TABLE d AS SELECT 1 AS id")
    schedule(api, path, {"frequency": "daily", "hour": 3})
    one = api("POST", f"{path}/snapshot")["snapshot"]
    with connect(uri) as c:
        c.run("INSERT INTO d VALUES (2)")
    api("POST", f"{path}/roles/neondb_owner/reset_password")
    uri = api("GET", f"{shop.path}/connection_uri?branch_id={dev['branch']['id']}&database_name=neondb"
                     "&role_name=neondb_owner")["uri"]
    restored = api("POST", f"{shop.path}/snapshots/{one['id']}/restore", {})["branch"]
    api("POST", f"{shop.path}/branches/{dev['branch']['id']}/finalize_restore", status=422)
    api("POST", f"{shop.path}/branches/{restored['id']}/finalize_restore", {"name": "dev before"})
    now = {b["name"]: b for b in api("GET", f"{shop.path}/branches")["branches"]}
    assert now["dev"]["id"] == restored["id"] and now["dev"]["restore_status"] == "finalized"
    assert now["dev before"]["id"] == dev["branch"]["id"]
    with connect(uri) as c:  # the same address, and the password that was known last
        assert c.one("SELECT count(*) FROM d") == 1
    assert api("GET", f"{shop.path}/branches/{restored['id']}/backup_schedule")["schedule"][0]["hour"] == 3
    assert not api("GET", f"{path}/backup_schedule")["schedule"]
    # again, at once; and the name is made
    final = api("POST", f"{shop.path}/snapshots/{one['id']}/restore", {"finalize_restore": True,
                                                                      "target_branch_id": restored["id"]})
    assert final["branch"]["name"] == "dev" and final["branch"]["id"] not in (restored["id"], dev["branch"]["id"])
    assert "dev (old)" in shop.names()
    assert final["endpoints"][0]["id"] == dev["endpoints"][0]["id"]
    # a protected branch is not replaced, and nothing is left of the attempt
    api("PATCH", f"{shop.path}/branches/{final['branch']['id']}", {"branch": {"protected": True}})
    before = shop.names()
    api("POST", f"{shop.path}/snapshots/{one['id']}/restore",
        {"finalize_restore": True, "target_branch_id": final["branch"]["id"]}, status=422)
    assert shop.names() == before
    api("DELETE", f"{shop.path}/snapshots/{one['id']}", status=202)


@pytest.mark.parametrize("line,says", [
    ({"frequency": "often"}, "frequency"), ({"frequency": "daily", "hour": 24}, "hour"),
    ({"frequency": "weekly", "day": 8}, "day"), ({"frequency": "hourly", "hour": 1}, "hour"),
    ({"frequency": "daily", "day": 1}, "day"), ({"frequency": "monthly", "month": 2}, "month"),
    ({"frequency": "daily", "retention_seconds": 60}, "retention")])
def test_a_schedule_that_makes_no_sense_is_refused(api, shop, line, says):
    status, _, answer = api.server.api("PUT", f"{shop.main_path}/backup_schedule", {"schedule": [line]}, key=api.key)
    assert status == 400 and says in answer["message"], answer


def test_snapshots_of_moments_that_are_not_there_are_refused(api, shop):
    api("POST", f"{shop.main_path}/snapshot?timestamp=2001-01-01T00:00:00Z", status=400)
    api("POST", f"{shop.main_path}/snapshot?timestamp=2101-01-01T00:00:00Z", status=400)
    api("POST", f"{shop.main_path}/snapshot?lsn=FFFF%2F0", status=400)
    api("POST", f"{shop.main_path}/snapshot?expires_at=2001-01-01T00:00:00Z", status=400)
    assert not api("GET", f"{shop.path}/snapshots")["snapshots"]


@pytest.mark.parametrize("name", ["a" * 256, "a" + "\U0001f600" * 255, "\u00e9" * 256], ids=("ascii", "wide", "two"))
def test_a_snapshot_that_nobody_named_has_a_name_that_one_may_have(api, shop, name):
    path = f"{shop.path}/branches/{shop.branch(name, endpoint=False)['branch']['id']}"
    made = api("POST", f"{path}/snapshot")["snapshot"]
    assert len(made["name"]) == 256 and made["name"].startswith(name[:231] + " 2")
    assert made["source_branch_name"] == name
    assert made["name"] in [s["name"] for s in api("GET", f"{shop.path}/snapshots")["snapshots"]]
    restored = api("POST", f"{shop.path}/snapshots/{made['id']}/restore", {})["branch"]
    assert restored["name"] == made["name"][:245] + " (restored)"
    api("DELETE", f"{shop.path}/branches/{restored['id']}?hard_delete=true")
    api("DELETE", f"{shop.path}/snapshots/{made['id']}", status=202)
    api("DELETE", f"{path}?hard_delete=true")


def test_a_name_that_was_cut_within_a_character_spoils_no_list(api, shop):
    """As one that a former version has made."""
    made = api("POST", f"{shop.main_path}/snapshot")["snapshot"]
    with contextlib.closing(sqlite3.connect(f"{api.server.store}/bough.db", timeout=20)) as c, c:
        c.execute("UPDATE snapshots SET name = CAST(X'61F09F982032303236' AS TEXT) WHERE id = ?", (made["id"],))
    path = f"{shop.path}/snapshots/{made['id']}"
    assert api("GET", path)["snapshot"]["name"] == "a\ufffd\ufffd\ufffd 2026"
    assert [s["id"] for s in api("GET", f"{shop.path}/snapshots")["snapshots"]] == [made["id"]]
    restored = api("POST", f"{path}/restore", {})["branch"]
    assert restored["name"] == "a (restored)"
    api("DELETE", f"{shop.path}/branches/{restored['id']}?hard_delete=true")
    assert api("PATCH", path, {"snapshot": {"name": "mended"}})["snapshot"]["name"] == "mended"
    api("DELETE", path, status=202)


# ---- what they hold ----


def test_a_snapshot_outlives_history_its_branch_and_what_was_merged(server):
    p = server.project("p")
    bank = h.Bank(p, "main").init()
    p.branch("dev")
    p.sql("dev", "CREATE TABLE t AS SELECT generate_series(1, 1000) AS id")
    when = h.now()
    p.sql("dev", "DELETE FROM t")
    past = take(p, "dev", "--at", when, "--name", "past")
    with bank.running():
        present = take(p, "main", "--name", "present")
    p.suspend("dev")
    asleep = take(p, "dev", "--name", "asleep")
    assert past["lsn"] and present["lsn"] and asleep["lsn"]
    assert all(s["own_bytes"] > 0 for s in p.json("snapshot", "list"))
    assert "of its own" in p.bough("snapshot", "get", "past").stdout
    assert "OWN BYTES" in p.bough("snapshot", "list").stdout
    assert "postmaster.pid" not in os.listdir(p.pgdata("dev")), "it was woken"
    # history goes, then the branch
    status, _, answer = server.api("PATCH", f"/projects/{p.id}", {"project": {"history_retention_seconds": 0}})
    assert status == 200, answer
    p.purge("dev")
    server.down()
    server.up()
    assert sorted(names(p)) == ["asleep", "past", "present"]
    p.bough("snapshot", "restore", "past", "--name", "a")
    assert p.one("a", "SELECT count(*) FROM t") == 1000
    assert not p.get("a").get("parent_id")
    p.bough("snapshot", "restore", "asleep", "--name", "b")
    assert p.one("b", "SELECT count(*) FROM t") == 0
    p.bough("snapshot", "restore", "present", "--name", "c")
    with p.connect("c") as c:
        bank.check(c)
    h.assert_clean(p, "c")
    for name in ("a", "b", "c"):
        p.purge(name)
    p.refused("snapshot", "restore", "past", "--finalize", says="gone")
    used = h.allocated(server.store)
    for name in ("asleep", "past", "present"):
        p.bough("snapshot", "delete", name)
    assert not names(p)
    h.wait_for(lambda: h.allocated(server.store) < used, "space is given back")
    assert_nothing_left(server)


def test_passwords_of_a_protected_branch_stay_its_own(server):
    p = server.project("p")
    p.bough("branch", "protect", "main")
    take(p, "main", "--name", "s")
    p.bough("snapshot", "restore", "s", "--name", "look")
    assert h.password(p.uri("look")) != h.password(p.uri("main"))
    assert p.one("look", "SELECT 1") == 1


# ---- the clock ----


def test_a_snapshot_expires_when_both_clocks_say_so(p, clock):
    take(p, "main", "--name", "short", "--expires-in", "2h")
    take(p, "main", "--name", "long", "--expires-in", "7d")
    take(p, "main", "--name", "kept")
    take(p, "main", "--name", "canary", "--expires-in", "1m")
    clock.jumps(365 * DAY)
    clock.passes(62)
    h.wait_for(lambda: "canary" not in names(p), "the clock was looked at")
    assert {"short", "long", "kept"} <= set(names(p))
    clock.jumps(-365 * DAY)
    clock.passes(2 * HOUR)
    h.wait_for(lambda: "short" not in names(p), "it has expired")
    assert {"long", "kept"} <= set(names(p))
    clock.passes(7 * DAY)
    h.wait_for(lambda: "long" not in names(p), "it has expired")
    assert "kept" in names(p)
    assert actions(p, "snapshot_expired")


def patch(p, branch, **fields):
    path = f"/projects/{p.id}/branches/{p.get(branch)['id']}"
    status, _, answer = p.server.api("PATCH", path, {"branch": fields})
    assert status == 200, answer
    return answer["branch"]


def test_what_is_called_temporary_expires_however_it_was_made(p, clock):
    make(p, "dev")
    take(p, "dev", "--name", "s")
    take(p, "dev", "--name", "tmp-s")
    p.bough("snapshot", "restore", "s", "--name", "tmp-x")
    p.bough("snapshot", "restore", "tmp-s")
    p.bough("branch", "restore", "dev", "--from", "main", "--preserve-under-name", "tmp-kept")
    p.bough("snapshot", "restore", "s", "--name", "look")
    look = f"/projects/{p.id}/branches/{p.get('look')['id']}"
    assert p.server.api("POST", f"{look}/finalize_restore", {"name": "tmp-old"})[0] == 200
    names_of = {"tmp-x", "tmp-s (restored)", "tmp-kept", "tmp-old"}
    for name in names_of:
        assert p.get(name)["expires_in_seconds"] in range(DAY - 60, DAY + 2), name
    for name in ("main", "dev"):
        assert "expires_at" not in p.get(name), name
    p.bough("branch", "detach", "dev")  # for which the one that it replaced would wait
    clock.passes(DAY + 2)
    h.wait_for(lambda: not names_of & set(p.branches()), "all have expired")
    assert set(p.branches()) == {"main", "dev"}


def test_what_takes_a_place_has_the_expiry_of_that_place(p, clock):
    make(p, "dev")
    take(p, "main", "--name", "s")
    p.bough("snapshot", "restore", "s", "--name", "look")
    patch(p, "look", ttl_interval_seconds=HOUR)
    p.bough("snapshot", "finalize", "look")
    assert p.get("main")["default"] and "expires_at" not in p.get("main")
    assert patch(p, "main", name="renamed")["name"] == "renamed"
    p.bough("branch", "set-default", "dev")
    # one that expires is replaced
    make(p, "tmp-demo", "--expires-in", "7d", "--cascade")
    take(p, "tmp-demo", "--name", "d")
    ends = p.get("tmp-demo")["expires_at"]
    p.bough("snapshot", "restore", "d", "--name", "again")
    assert "expires_at" not in p.get("again")
    p.bough("snapshot", "finalize", "again")
    for name in ("tmp-demo", "tmp-demo (old)"):
        got = p.get(name)
        assert got["expires_at"] == ends and got["expiry_mode"] == "cascade", name
    clock.passes(2 * HOUR)
    take(p, "main (old)", "--name", "canary", "--expires-in", "1m")
    clock.passes(62)
    h.wait_for(lambda: "canary" not in names(p), "the clock was looked at")
    assert set(p.branches()) == {"renamed", "main (old)", "dev", "tmp-demo", "tmp-demo (old)"}


def test_a_schedule_takes_snapshots_and_forgets_them(p, clock):
    out = p.bough("snapshot", "schedule", "main", "hourly,keep=2h", "daily,hour=3,keep=7d")
    assert "hourly" in out.stdout and "hour=3" in out.stdout
    clock.passes(HOUR)
    h.wait_for(lambda: len(names(p)) == 1, "an hour has passed")
    one = p.json("snapshot", "list")[0]
    assert one["frequency"] == "hourly" and not one["manual"]
    clock.jumps(400 * DAY)  # not a reason to take any, nor to delete that one
    clock.passes(60)
    assert len(names(p)) == 1
    clock.jumps(-400 * DAY)
    p.server.down()
    clock.passes(24 * HOUR)
    p.server.up()
    h.wait_for(lambda: {s["frequency"] for s in p.json("snapshot", "list")} == {"hourly", "daily"},
               "each that was missed is taken once")
    h.wait_for(lambda: one["name"] not in names(p), "its time has passed")
    assert len(names(p)) == 2
    p.bough("snapshot", "schedule", "main", "--clear")
    clock.passes(8 * DAY)
    h.wait_for(lambda: not names(p), "all have expired and none is taken any more")
    assert p.json("snapshot", "schedule", "main")["schedule"] == []


def test_a_schedule_names_the_snapshots_of_any_branch(p, clock):
    name = "a" + "\U0001f600" * 255
    make(p, name)
    p.bough("snapshot", "schedule", name, "hourly")
    clock.passes(HOUR)
    h.wait_for(lambda: len(names(p)) == 1, "an hour has passed")
    assert len(names(p)[0]) == 256 and names(p)[0].startswith(name[:222] + " 2") and names(p)[0].endswith("Z (hourly)")


def test_a_schedule_is_kept_beside_other_operations(p, clock):
    """What stands in the way for a moment puts a snapshot off to the next look, not to a later one."""
    p.bough("snapshot", "schedule", "main", "hourly,keep=2d")
    over = threading.Event()

    def others():
        while not over.is_set():
            make(p, "other")
            p.bough("branch", "delete", "other", "--purge")

    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(others)
        try:
            for n in range(1, 21):
                clock.passes(HOUR)
                h.wait_for(lambda: len(names(p)) == n, f"snapshot {n} is taken beside {busy}")  # noqa: B023
        finally:
            over.set()
        busy.result()


def test_every_route_of_this_file_was_used(request):
    assert_used(request)
