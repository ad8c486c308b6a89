"""What a role that Bough made may do, and that the API knows what SQL has made."""
import contextlib
import sqlite3

import psycopg2
import pytest

import harness as h
from api import connect, quote


@pytest.fixture(scope="module", name="owner")
def fixture_owner(shop):
    """A function that connects as the owner, or as another role or to another database."""
    def as_role(database="neondb", role="neondb_owner"):
        query = f"database_name={quote(database)}&role_name={quote(role)}"
        return connect(shop.api("GET", f"{shop.path}/connection_uri?{query}")["uri"])
    return as_role


def test_an_owner_can_do_what_an_application_needs(owner):
    with owner() as c:
        c.run("CREATE SCHEMA app")
        c.run("CREATE TABLE app.item (id serial PRIMARY KEY, name text)")
        c.run("CREATE TABLE public.open (n int)")
        for extension in ("pg_trgm", "hstore", "pgcrypto", "citext", "btree_gin"):  # trusted, with PostgreSQL
            c.run(f"CREATE EXTENSION {extension}")
        c.run("CREATE ROLE reader LOGIN PASSWORD 'of-reader'")
        c.run("GRANT USAGE ON SCHEMA app TO reader; GRANT SELECT ON ALL TABLES IN SCHEMA app TO reader")
        c.run("ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO reader")
        c.run("CREATE FUNCTION app.f() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'")
        c.run("CREATE DATABASE made_by_owner")
        c.run("ALTER ROLE reader SET statement_timeout = '5s'")
        c.run("ALTER DATABASE neondb SET work_mem = '8MB'")


@pytest.mark.parametrize("sql", [
    "ALTER ROLE neondb_owner SUPERUSER", "ALTER ROLE neondb_owner REPLICATION", "ALTER ROLE neondb_owner BYPASSRLS",
    "CREATE ROLE evil SUPERUSER", "GRANT bough_admin TO neondb_owner", "SET ROLE bough_admin",
    "ALTER ROLE bough_admin PASSWORD 'mine'", "DROP ROLE bough_admin", "SET SESSION AUTHORIZATION bough_admin",
    "UPDATE pg_authid SET rolsuper = true", "SELECT rolpassword FROM pg_authid", "CREATE EXTENSION file_fdw",
    "CREATE LANGUAGE plpython3u", "SET session_preload_libraries = 'x'", "SELECT pg_reload_conf()",
    "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1' PUBLICATION p", "CREATE TABLESPACE t LOCATION '/tmp'",
    "CREATE FUNCTION evil() RETURNS int LANGUAGE c AS '/lib/x86_64-linux-gnu/libc.so.6', 'system'"])
def test_an_owner_cannot_become_a_superuser(owner, sql):
    with owner() as c:
        with pytest.raises(psycopg2.Error):
            c.run(sql)
            pytest.fail(f"{sql} succeeded", pytrace=False)
        assert c.one("SELECT rolsuper OR rolreplication OR rolbypassrls FROM pg_roles WHERE rolname = current_user") \
            is False


def test_what_sql_has_made_is_listed(api, shop, owner):
    roles, databases = f"{shop.main_path}/roles", f"{shop.main_path}/databases"
    with owner() as c:
        c.run("CREATE ROLE by_sql LOGIN PASSWORD 'p'")
        c.run("CREATE DATABASE db_by_sql")
        assert "by_sql" in [r["name"] for r in api("GET", roles)["roles"]]
        assert api("GET", f"{databases}/db_by_sql")["database"]["owner_name"] == "neondb_owner"
        api("GET", f"{roles}/by_sql/reveal_password", status=412)  # nobody told it
        c.run("GRANT by_sql TO neondb_owner")
        c.run("ALTER DATABASE db_by_sql OWNER TO by_sql")
        assert api("GET", f"{databases}/db_by_sql")["database"]["owner_name"] == "by_sql"
        c.run("DROP DATABASE db_by_sql")
        c.run("DROP ROLE by_sql")
    assert "by_sql" not in [r["name"] for r in api("GET", roles)["roles"]]
    api("GET", f"{databases}/db_by_sql", status=404)
    assert not [r for r in api("GET", roles)["roles"] if r["name"].startswith(("pg_", "bough_"))]


def test_names_that_are_no_utf8_are_left_out(api, shop, owner):
    """Whoever may make databases may make such: one in SQL_ASCII takes any bytes."""
    roles, databases = f"{shop.main_path}/roles", f"{shop.main_path}/databases"
    with owner() as c:
        c.run("CREATE DATABASE bytes ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    api("GET", f"{databases}/bytes")
    with owner("bytes") as c, c.c.cursor() as cursor:
        c.run("SET client_encoding TO sql_ascii")
        cursor.execute(b'CREATE ROLE "r\xe9le"')
        cursor.execute(b'GRANT "r\xe9le" TO neondb_owner')
        cursor.execute(b'CREATE DATABASE "d\xe9"')
        cursor.execute(b'ALTER DATABASE bytes OWNER TO "r\xe9le"')
        assert {r["name"] for r in api("GET", roles)["roles"]} >= {"neondb_owner"}
        assert {d["name"] for d in api("GET", databases)["databases"]} >= {"neondb", "bytes"}
        assert not [r for r in api("GET", roles)["roles"] if not r["name"].isascii() or "?" in r["name"]]
        assert api("POST", "/projects?if_exists=return", {"project": {"name": "shop"}})["existing"]
        made = shop.branch("of-bytes")
        path = f"{shop.path}/branches/{made['branch']['id']}"
        assert {d["name"] for d in made["databases"]} >= {"neondb", "bytes"} and made["connection_uris"]
        assert "neondb_owner" in [r["name"] for r in api("GET", f"{path}/roles")["roles"]]
        api("DELETE", f"{path}?hard_delete=true")
        cursor.execute(b'ALTER DATABASE bytes OWNER TO neondb_owner')
        cursor.execute(b'DROP DATABASE "d\xe9"')
        cursor.execute(b'DROP ROLE "r\xe9le"')
    api("DELETE", f"{databases}/bytes")


def test_names_that_are_no_utf8_and_were_recorded_spoil_no_answer(api, shop):
    """As a former version has recorded them: the branch sleeps, so nobody looks anew."""
    made = shop.branch("recorded")
    branch, path = made["branch"]["id"], f"{shop.path}/branches/{made['branch']['id']}"
    api("POST", f"{shop.path}/endpoints/{made['endpoints'][0]['id']}/suspend")
    with contextlib.closing(sqlite3.connect(f"{api.server.store}/bough.db", timeout=20)) as c, c:
        c.execute("INSERT INTO roles (branch_id, name, created_ms, updated_ms) VALUES (?, CAST(X'72E96C65' AS TEXT),"
                  " 1, 1)", (branch,))
        c.execute("UPDATE databases SET name = CAST(X'64E9' AS TEXT) WHERE branch_id = ? AND name = 'neondb'",
                  (branch,))
    assert "r\ufffdle" in [r["name"] for r in api("GET", f"{path}/roles")["roles"]]
    assert "d\ufffd" in [d["name"] for d in api("GET", f"{path}/databases")["databases"]]
    child = shop.branch("of-recorded", parent_id=branch)
    assert "d\ufffd" in [d["name"] for d in child["databases"]]
    assert all(u["connection_parameters"]["database"].isascii() for u in child["connection_uris"])
    assert "of-recorded" in shop.names()
    api("DELETE", f"{shop.path}/branches/{child['branch']['id']}?hard_delete=true")
    api("DELETE", f"{path}?hard_delete=true")


def test_listing_does_not_wake(api, shop):
    api("POST", f"{shop.path}/endpoints/{shop.endpoint}/suspend")
    assert "neondb_owner" in [r["name"] for r in api("GET", f"{shop.main_path}/roles")["roles"]]
    assert api("GET", f"{shop.path}/endpoints/{shop.endpoint}")["endpoint"]["current_state"] == "idle"


def test_a_deleted_roles_tables_go_to_the_databases_owner(api, shop, owner):
    api("POST", f"{shop.main_path}/roles", {"role": {"name": "worker"}}, 201)
    with owner() as c:
        c.run("GRANT CREATE ON DATABASE neondb TO worker; GRANT CREATE, USAGE ON SCHEMA public TO worker")
    with owner(role="worker") as c:
        c.run("CREATE TABLE of_worker (n int); INSERT INTO of_worker VALUES (7)")
        c.run("CREATE SCHEMA worker_schema; CREATE TABLE worker_schema.t ()")
    assert api("DELETE", f"{shop.main_path}/roles/worker")["role"]["name"] == "worker"
    with owner() as c:
        assert c.one("SELECT n FROM of_worker") == 7
        assert c.one("SELECT tableowner FROM pg_tables WHERE schemaname = 'worker_schema'") == "neondb_owner"
        assert c.one("SELECT count(*) FROM pg_roles WHERE rolname = 'worker'") == 0


def test_a_role_that_owns_a_database_stays_whole(api, shop):
    api("POST", f"{shop.main_path}/roles", {"role": {"name": "lord"}}, 201)
    api("POST", f"{shop.main_path}/databases", {"database": {"name": "manor", "owner_name": "lord"}}, 201)
    refused = api("DELETE", f"{shop.main_path}/roles/lord", status=422)
    assert "manor" in refused["message"]
    uri = api("GET", f"{shop.path}/connection_uri?database_name=manor&role_name=lord")["uri"]
    connect(uri).close()
    api("DELETE", f"{shop.main_path}/databases/manor")
    api("DELETE", f"{shop.main_path}/roles/lord")


def test_passwords_are_encrypted_at_rest_and_verifiers_inside(api, shop):
    made = api("POST", f"{shop.main_path}/roles", {"role": {"name": "secretive"}}, 201)["role"]
    with sqlite3.connect(f"file:{api.server.store}/bough.db?mode=ro", uri=True) as db:
        secret = db.execute("SELECT secret FROM roles WHERE name = 'secretive'").fetchone()[0]
    db.close()
    assert secret and made["password"].encode() not in secret
    socket = api("GET", f"{shop.path}/connection_uri?socket=true")["uri"]
    host = socket.split("host=")[1].split("&")[0].replace("%2F", "/")
    user, password = h.admin_user(host), api.server.admin_password()
    with connect(f"host={host} port=5432 user={user} dbname=neondb password={password}") as c:
        assert c.one("SELECT rolpassword FROM pg_authid WHERE rolname = 'secretive'").startswith("SCRAM-SHA-256$")
    api("DELETE", f"{shop.main_path}/roles/secretive")
