"""Branches with a schema and no rows: what is there, and that no file holds a row."""
import glob
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

import harness as h

MARK = "Zq7vMarkerOfARow"


def files_of(p, branch):
    """Every file that the branch has or stands on."""
    directory = os.path.dirname(p.pgdata(branch))
    with open(f"{directory}/stack", encoding="utf-8", errors="replace") as f:
        layers = re.findall(r"^(?:layer )?([\w.-]+/[\w.-]+)$", f.read(), re.M)
    assert layers, "the stack names no layer"
    return [directory] + [f"{p.server.store}/layers/{layer}" for layer in layers], layers


def holds(directories, text):
    done = subprocess.run(["grep", "-rlaF", text, *directories], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.split()


@pytest.fixture(name="p")
def fixture_p(server):
    p = server.project("p")
    with p.connect() as c:
        c.run("CREATE ROLE reader NOLOGIN")
        c.run("CREATE SCHEMA app")
        c.run("CREATE EXTENSION pgcrypto")
        c.run("CREATE TABLE app.item (id bigserial PRIMARY KEY, name text NOT NULL, CHECK (name <> ''))")
        c.run("COMMENT ON TABLE app.item IS 'what is sold'")
        c.run("GRANT USAGE ON SCHEMA app TO reader")
        c.run("GRANT SELECT ON app.item TO reader")
        c.run("CREATE INDEX ON app.item (lower(name))")
        c.run("CREATE VIEW app.names AS SELECT name FROM app.item")
        c.run("CREATE MATERIALIZED VIEW app.kept AS SELECT name FROM app.item")
        c.run("CREATE FUNCTION app.twice(n int) RETURNS int LANGUAGE sql AS 'SELECT n * 2'")
        c.run(f"INSERT INTO app.item (name) SELECT '{MARK}' || n FROM generate_series(1, 3000) n")
        c.run("REFRESH MATERIALIZED VIEW app.kept")
        c.run(f"SELECT lo_from_bytea(0, '{MARK}')")
        c.run("ANALYZE")
    return p


def test_the_schema_is_there_and_no_file_holds_a_row(p):
    p.branch("dev")
    p.bough("branch", "create", "bare", "--parent", "dev", "--schema-only")
    assert sorted(p.branches()) == ["bare", "dev", "main"], "nothing else is left"
    got = p.get("bare")
    assert not got.get("parent_id") and h.password(p.uri("bare")) == h.password(p.uri("dev"))
    with p.connect("bare") as c:
        assert c.one("SELECT count(*) FROM app.item") == 0 and c.one("SELECT app.twice(4)") == 8
        assert c.one("SELECT obj_description('app.item'::regclass)") == "what is sold"
        assert c.one("SELECT has_table_privilege('reader', 'app.item', 'SELECT')")
        assert not c.one("SELECT has_table_privilege('reader', 'app.item', 'INSERT')")
        assert c.one("SELECT count(*) FROM pg_extension WHERE extname = 'pgcrypto'") == 1
        assert c.one("SELECT count(*) FROM pg_largeobject_metadata") == 0
        assert not c.one("SELECT relispopulated FROM pg_class WHERE relname = 'kept'")
        assert c.one("SELECT tableowner FROM pg_tables WHERE tablename = 'item'") == \
            c.one("SELECT current_user")
    # before anything is written to it
    directories, layers = files_of(p, "bare")
    mine = {layer for branch in ("main", "dev") for layer in files_of(p, branch)[1]}
    own = {layer.split("/")[0] for layer in mine if not layer.startswith("pg")}
    assert not any(layer.split("/")[0] in own for layer in layers), (layers, mine)
    with p.admin("bare") as c:
        c.run("CHECKPOINT")
    p.suspend("bare")
    assert holds([os.path.dirname(p.pgdata("main"))] + glob.glob(f"{p.server.store}/layers/*"), MARK), "grep finds it"
    assert holds(directories, MARK) == []
    with p.connect("bare") as c:
        c.run("INSERT INTO app.item (name) VALUES ('one')")
        assert c.one("SELECT id FROM app.item") == 1, "sequences begin anew"
    dump = [re.sub(r"^\\(un)?restrict .*$", "", h.run([h.tool("pg_dump"), "-s", p.uri(b)]).stdout, flags=re.M)
            for b in ("dev", "bare")]
    assert dump[0] == dump[1]
    h.assert_clean(p, "bare")


def test_a_schema_of_a_moment_with_its_roles_and_databases(p):
    p.bough("branch", "protect", "main")
    when = h.now()
    with p.connect() as c:
        c.run("DROP SCHEMA app CASCADE")
        c.run("CREATE ROLE later")
    p.bough("branch", "create", "ci-then", "--schema-only", "--at", when, "--expires-in", "1h")
    got = p.get("ci-then")
    assert got["ttl_interval_seconds"] in (3600, 3601)
    assert h.password(p.uri("ci-then")) != h.password(p.uri("main")), "of a protected branch"
    with p.connect("ci-then") as c:
        assert c.one("SELECT count(*) FROM app.item") == 0
        assert c.one("SELECT count(*) FROM pg_roles WHERE rolname = 'later'") == 0
    p.refused("branch", "create", "ci-then", "--schema-only", status="conflict")
    p.refused("branch", "create", "x", "--schema-only", "--at", "2001-01-01", says="before")
    p.purge("ci-then")
    assert list(p.branches()) == ["main"]


def test_a_schema_only_branch_by_the_api(p):
    with p.admin() as c:
        c.run('CREATE DATABASE "Other db"')
    main = p.get("main")["id"]
    status, _, made = p.server.api("POST", f"/projects/{p.id}/branches",
                                   {"branch": {"name": "bare", "parent_id": main, "init_source": "schema-only"}})
    assert status == 201 and made["endpoints"] == [] and "parent_id" not in made["branch"], made
    assert made["operations"][0]["action"] == "apply_schema_from_branch"
    status, _, answer = p.server.api("POST", f"/projects/{p.id}/endpoints",
                                     {"endpoint": {"branch_id": made["branch"]["id"], "type": "read_write"}})
    assert status == 201, answer
    assert p.one("bare", "SELECT count(*) FROM app.item") == 0
    with p.admin("bare", "Other db") as c:
        assert c.one("SELECT current_database()") == "Other db"


def test_one_that_is_there_is_given_back_where_it_is_of_the_same(p):
    def ask(name, wanted, query="?if_exists=return", **more):
        body = {"branch": {"name": name, "init_source": "schema-only", **more}, "endpoints": [{"type": "read_write"}]}
        status, _, answer = p.server.api("POST", f"/projects/{p.id}/branches{query}", body)
        assert status == wanted, answer
        return answer
    made = ask("bare", 201)
    again = ask("bare", 200)
    assert again["existing"] and again["branch"]["id"] == made["branch"]["id"] and again["operations"] == []
    assert again["connection_uris"] == made["connection_uris"]
    assert sorted(p.branches()) == ["bare", "main"], "no look is left"
    assert "hint" not in ask("bare", 409, query="")
    dev = p.json("branch", "create", "dev")["branch"]["id"]
    assert "another branch" in ask("bare", 409, parent_id=dev)["hint"]
    assert "has rows" in ask("dev", 409)["hint"]
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: p.server.api("POST", f"/projects/{p.id}/branches?if_exists=return", {
            "branch": {"name": "twice", "init_source": "schema-only"}})[::2], range(2)))
    assert sorted(s for s, _ in both) == [200, 201] and both[0][1]["branch"]["id"] == both[1][1]["branch"]["id"]


def test_the_database_postgres_keeps_what_belongs_to_a_database(server):
    status, _, made = server.api("POST", "/projects", {
        "project": {"name": "own", "pg_version": h.PG, "branch": {"database_name": "postgres", "role_name": "own"}}})
    assert status == 201, made
    p = h.Project(server, made["project"]["id"], "own", made, made["project"]["pg_version"])
    with p.connect() as c:
        c.run("CREATE TABLE there (n int); CREATE ROLE reader NOLOGIN")
        c.run("ALTER DATABASE postgres SET work_mem = '9MB'; GRANT CREATE ON DATABASE postgres TO reader")
    with p.admin() as c:
        c.run("ALTER ROLE own IN DATABASE postgres SET maintenance_work_mem = '33MB'")
        c.run("COMMENT ON DATABASE postgres IS 'ours'")
        c.run("ALTER DATABASE postgres SET default_transaction_read_only = on")
    p.bough("branch", "create", "bare", "--schema-only")
    asked = ("SELECT (SELECT row(pg_get_userbyid(datdba), datacl, shobj_description(oid, 'pg_database'))::text FROM"
             " pg_database WHERE datname = 'postgres'), current_setting('work_mem'),"
             " current_setting('maintenance_work_mem'), current_user")
    with p.connect("bare") as c, p.connect() as source:
        assert c.one(asked) == source.one(asked)
        assert c.one(asked)[1:] == ("9MB", "33MB", "own")
        c.run("SET default_transaction_read_only = off")
        c.run("CREATE TABLE more (n int); INSERT INTO there VALUES (1)")
    p.branch("child", "bare")
    assert p.one("child", "SELECT n FROM there") == 1


def test_a_branch_has_no_database_that_its_source_lacks(p):
    with p.admin() as c:
        c.run("DROP DATABASE postgres")
    p.bough("branch", "create", "bare", "--schema-only")
    with p.connect("bare") as c:
        assert c.rows("SELECT datname FROM pg_database WHERE NOT datistemplate") == [("neondb",)]
    p.suspend("bare")
    assert p.one("bare", "SELECT count(*) FROM app.item") == 0
