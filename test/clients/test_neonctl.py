"""neonctl, today's and the one that Neon's GitHub actions pin, with nothing but the API's address changed."""
import datetime
import json

import pytest

import harness as h
from api import connect
from clients import NEONCTL

pytestmark = pytest.mark.parametrize("version", NEONCTL)


@pytest.fixture(name="ctl")
def fixture_ctl(guest, version):
    def ctl(*args, **kw):
        at = args.index("--") if "--" in args else len(args)
        return guest.neonctl(version, *args[:at], "--project-id", guest.shop.id, *args[at:], **kw)
    return ctl


def names(rows):
    return {r["name"] for r in rows}


def test_projects_are_made_listed_changed_and_deleted(guest, version):
    def run(*args, **kw):
        return guest.neonctl(version, *args, **kw)
    made = run("projects", "create", "--name", f"by-{version}", "--database", "shop", "--role", "ada")
    assert made["project"]["name"] == f"by-{version}" and "ada:" in json.dumps(made["connection_uris"])
    project = made["project"]["id"]
    listed = run("projects", "list")
    assert f"by-{version}" in json.dumps(listed)
    assert run("projects", "get", project)["id"] == project
    assert run("projects", "update", project, "--name", f"again-{version}")["name"] == f"again-{version}"
    assert f"again-{version}" in run("projects", "list", plain=True)
    sized = run("projects", "update", project, "--cu", "0.5-2")["default_endpoint_settings"]
    assert (sized["autoscaling_limit_min_cu"], sized["autoscaling_limit_max_cu"]) == (0.5, 2)
    assert run("projects", "delete", project)["id"] == project
    assert project not in json.dumps(run("projects", "list"))
    assert run("me")["login"] and run("orgs", "list")


def test_branches_live_their_whole_life(guest, ctl):
    made = ctl("branches", "create", "--name", "feature")
    branch = made["branch"]["id"]
    assert made["endpoints"][0]["branch_id"] == branch and made["connection_uris"]
    assert {"main", "feature"} <= names(ctl("branches", "list"))
    assert "feature" in ctl("branches", "list", plain=True)
    assert ctl("branches", "get", "feature")["id"] == branch
    assert ctl("branches", "rename", "feature", "renamed")["name"] == "renamed"
    assert ctl("branches", "set-expiration", "renamed", "--expires-at", "2026-12-20T00:00:00Z")["expires_at"]
    assert "expires_at" not in ctl("branches", "set-expiration", "renamed")
    assert ctl("branches", "set-default", "renamed")["default"]
    assert ctl("branches", "set-default", "main")["default"]
    assert ctl("branches", "reset", "renamed", "--parent", "--preserve-under-name", "before")["last_reset_at"]
    assert "before" in names(ctl("branches", "list"))
    assert ctl("branches", "restore", "renamed", "main")["id"] == branch
    for name in ("renamed", "before"):
        assert ctl("branches", "delete", name)["name"] == name
    refused = ctl("branches", "get", "renamed", check=False)
    assert refused.returncode == 1 and "not found" in refused.stderr


def test_a_branch_gets_its_compute_later(ctl):
    made = ctl("branches", "create", "--name", "still", "--no-compute")
    assert not made.get("endpoints")
    added = ctl("branches", "add-compute", "still", "--type", "read_write")
    assert added["branch_id"] == made.get("branch", made)["id"]
    ctl("branches", "delete", "still")


def test_a_branch_gets_computes_that_only_read(guest, ctl):
    added = ctl("branches", "add-compute", "main", "--type", "read_only")
    assert added["type"] == "read_only"
    uri = ctl("connection-string", "main", "--endpoint-type", "read_only", plain=True).strip()
    assert added["id"] in uri and guest.shop.endpoint in ctl("connection-string", "main", plain=True)
    done = h.run([h.tool("psql"), uri, "-XAtc", "SELECT pg_is_in_recovery()"], env=guest.env)
    assert done.stdout == "t\n"
    made = ctl("branches", "create", "--name", "read", "--type", "read_only")
    assert [e["type"] for e in made["endpoints"]] == ["read_only"]
    assert made["endpoints"][0]["id"] in made["connection_uris"][0]["connection_uri"]
    ctl("branches", "delete", "read")
    guest.api("DELETE", f"{guest.shop.path}/endpoints/{added['id']}")


def test_two_schemas_are_compared(guest, ctl):
    ctl("branches", "create", "--name", "changed")
    branch = ctl("branches", "get", "changed")["id"]
    uri = guest.api("GET", f"{guest.shop.path}/connection_uri?branch_id={branch}")["uri"]
    with connect(uri) as c:
        c.run("CREATE TABLE added (id int)")
    shown = ctl("branches", "schema-diff", "main", "changed", plain=True)
    assert "+CREATE TABLE public.added" in shown
    ctl("branches", "delete", "changed")


def test_databases_roles_and_operations(ctl, version):
    assert names(ctl("databases", "list")) == {"neondb"}
    assert ctl("databases", "create", "--name", "more", "--owner-name", "neondb_owner")["name"] == "more"
    assert ctl("databases", "delete", "more")["name"] == "more"
    assert ctl("roles", "create", "--name", "eve")["name"] == "eve"
    assert "eve" in names(ctl("roles", "list"))
    assert ctl("roles", "delete", "eve")["name"] == "eve"
    operations = ctl("operations", "list")
    assert operations and {o["status"] for o in operations} == {"finished"}
    assert ctl("operations", "list", plain=True).count("\n") > len(operations)


def test_a_connection_string_leads_there(guest, ctl, version):
    """As printed: TLS by name, with channel binding; and in clear to this machine's own port."""
    uri = ctl("connection-string", "main", plain=True).strip()
    assert guest.shop.endpoint in uri and "channel_binding=require" in uri
    guest.sleep()
    done = h.run([h.tool("psql"), uri, "-XAtc", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"],
                 env=guest.env)
    assert done.stdout == "t\n" and guest.is_awake()
    extended = ctl("cs", "main", "--extended")
    assert extended["role"] == "neondb_owner" and extended["password"] in uri
    psql = ("psql", "main") if version.startswith("5") else ("cs", "main", "--psql")
    assert "42" in ctl(*psql, "--", "-XAtc", "SELECT 42", plain=True)


def test_a_connection_string_leads_to_a_moment_of_the_past(guest, ctl):
    """As printed: TLS with channel binding to the branch's host name, and the moment within."""
    with connect(guest.shop.made["connection_uris"][0]["connection_uri"]) as c:
        c.run("DROP TABLE IF EXISTS past; CREATE TABLE past AS SELECT 1 AS id")
        lsn = c.one("SELECT pg_current_wal_insert_lsn()::text")
    moment = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(milliseconds=1)
    when = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")  # the only form that it takes
    h.wait_for(lambda: datetime.datetime.now(datetime.timezone.utc) > moment, "that has passed")
    with connect(guest.shop.made["connection_uris"][0]["connection_uri"]) as c:
        c.run("INSERT INTO past VALUES (2)")
    for moment in (when, lsn):
        uri = ctl("cs", f"main@{moment}", plain=True).strip()
        assert "channel_binding=require" in uri, uri
        done = h.run([h.tool("psql"), uri, "-XAtc", "SELECT count(*), ssl FROM past, pg_stat_ssl"
                      " WHERE pid = pg_backend_pid() GROUP BY ssl"], env=guest.env)
        assert done.stdout == "1|t\n", uri


def test_addresses_are_allowed_and_not(guest, ctl):
    assert ctl("ip-allow", "add", "127.0.0.1", "10.0.0.0/8")["IP_addresses"] == ["127.0.0.1", "10.0.0.0/8"]
    assert ctl("ip-allow", "remove", "10.0.0.0/8")["IP_addresses"] == ["127.0.0.1"]
    assert ctl("ip-allow", "list")["IP_addresses"] == ["127.0.0.1"]
    assert ctl("ip-allow", "reset")["IP_addresses"] == []


def test_keys_and_snapshots_are_made_listed_and_ended(guest, ctl, version):
    """2.22 knows neither."""
    made = guest.neonctl("5.0.1", "api-keys", "create", "--name", f"for-{version}")
    assert made["key"].startswith("bough_") and made["name"] in names(guest.neonctl("5.0.1", "api-keys", "list"))
    guest.neonctl("5.0.1", "api-keys", "revoke", str(made["id"]), plain=True)
    assert made["name"] not in names(guest.neonctl("5.0.1", "api-keys", "list"))
    if not version.startswith("5"):
        return
    assert ctl("snapshots", "create", "--name", "kept")["name"] == "kept"
    assert "kept" in names(ctl("snapshots", "list"))
    ctl("snapshots", "delete", "kept", plain=True)
    assert "kept" not in names(ctl("snapshots", "list"))


def test_a_database_is_inspected(guest, ctl, version, monkeypatch):
    if not version.startswith("5"):
        return
    with connect(guest.api("GET", f"{guest.shop.path}/connection_uri")["uri"]) as c:
        c.run("CREATE TABLE IF NOT EXISTS inspected (n int); INSERT INTO inspected VALUES (1)")
    monkeypatch.delitem(guest.env, "PGHOSTADDR")  # which its own driver takes for the lack of a host
    assert "inspected" in ctl("inspect", "db", "table-sizes", "--branch", "main", plain=True)


def test_the_directory_is_linked_to_a_branch(guest, version):
    """2.22 knows no checkout and no status, but follows the file that 5 writes."""
    ctl = guest.neonctl
    if not version.startswith("5"):
        with open(f"{guest.dir}/.neon", encoding="utf-8") as f:
            assert json.load(f)["projectId"] == guest.shop.id
        assert "main" in names(ctl(version, "branches", "list"))
        return
    # with a branch: looks of other tests are branches, too
    ctl(version, "link", "--project-id", guest.shop.id, "--branch", "main", plain=True)
    ctl(version, "checkout", "main", plain=True)
    with open(f"{guest.dir}/.env.local", encoding="utf-8") as f:
        assert guest.shop.endpoint in f.read()
    assert guest.shop.id in ctl(version, "status", plain=True)


def test_what_is_not_there_is_said_in_words_that_it_knows(ctl):
    done = ctl("branches", "delete", "nobody", check=False)
    assert done.returncode == 1 and "nobody not found" in done.stderr
    done = ctl("databases", "create", "--name", "neondb", check=False)
    assert done.returncode == 1 and "already exists" in done.stderr
