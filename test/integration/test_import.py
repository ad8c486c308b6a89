"""Projects from running servers and from dumps: complete and owned rightly, or nothing at all."""
import contextlib
import glob
import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading

import pytest

import harness as h

PASSWORD = "the password of alice"


# ---- sources ----

def set_hba(source, *lines):
    with open(os.path.join(source.data, "pg_hba.conf"), "w", encoding="utf-8") as f:
        f.write("".join(f"{line}\n" for line in lines))
    with source.connect() as c:
        c.run("SELECT pg_reload_conf()")


@pytest.fixture(scope="module", name="work")
def fixture_work(session_dir):
    path = tempfile.mkdtemp(prefix="i", dir=session_dir)
    os.chmod(path, 0o755)
    yield path
    h.kill_below(path)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module", name="source")
def fixture_source(work):
    """A server in use: databases, roles, things of superusers, slot, subscription, archiving."""
    source = h.Stock(os.path.join(work, "source")).init(
        wal_level="logical", max_wal_senders=8, archive_mode="on",
        archive_command=f"touch {work}/archived-%f",
        work_mem="7MB").start()
    with source.connect() as c:
        c.run(f"CREATE ROLE alice LOGIN CREATEDB REPLICATION PASSWORD '{PASSWORD}'; GRANT"
              " pg_read_all_settings TO alice")
        c.run("CREATE ROLE bob LOGIN PASSWORD 'other'; CREATE ROLE staff NOLOGIN; GRANT staff TO"
              " bob")
        c.run("CREATE DATABASE shop OWNER alice")
        c.run("CREATE DATABASE office")
        c.run("SELECT pg_create_physical_replication_slot('standby', true)")
    with source.connect("shop", "alice") as c:
        c.run("CREATE TABLE items AS SELECT n, md5(n::text) AS name FROM generate_series(1,"
              " 50000) n")
        c.run("ALTER TABLE items ADD PRIMARY KEY (n); CREATE SEQUENCE counter; SELECT"
              " setval('counter', 41)")
        c.run("GRANT SELECT ON items TO staff")
    with source.connect("office") as c:  # all of it is a superuser's
        c.run("CREATE EXTENSION pgcrypto; CREATE SCHEMA hr; CREATE TABLE hr.people (id serial"
              " PRIMARY KEY, name text)")
        c.run("INSERT INTO hr.people (name) SELECT 'p' || n FROM generate_series(1, 500) n")
        c.run("CREATE VIEW hr.first AS SELECT * FROM hr.people LIMIT 1; CREATE TYPE hr.mood AS"
              " ENUM ('a', 'b')")
        c.run("CREATE FUNCTION hr.two() RETURNS int LANGUAGE sql AS 'SELECT 2'; SELECT"
              " lo_from_bytea(4711, 'large')")
        c.run("CREATE SUBSCRIPTION mirror CONNECTION 'host=nowhere.invalid dbname=x' PUBLICATION p"
              " WITH (connect = false, slot_name = 'm')")
    set_hba(source, "local all all trust", "host all,replication postgres 127.0.0.1/32 trust",
            "host all,replication all 127.0.0.1/32 scram-sha-256")
    yield source
    source.stop()


def url_of(source, database="shop", user="alice", password=PASSWORD):
    login = f"{user}:{password.replace(' ', '%20')}" if password else user
    return f"postgresql://{login}@127.0.0.1:{source.port}/{database}"


@pytest.fixture(scope="module", name="server")
def fixture_server(shared_server):
    """A server on which the first empty project has been made, and which has nothing else."""
    made = shared_server.project("first")
    shared_server.bough("project", "delete", made.id)
    h.wait_for(lambda: not os.listdir(os.path.join(shared_server.store, "trash")),
               "the trash is emptied")
    return shared_server


# ---- nothing is left ----

def processes_of(server):
    """Those that no postmaster has made: its autovacuum workers come and go."""
    found = []
    for pid in h.processes_below(server.store):
        with contextlib.suppress(OSError):
            if not h.is_child_of_postgres(pid):
                found.append(pid)
    return sorted(found)


def inventory(server, source=None):
    """Whatever an import could leave behind."""
    left = {room: sorted(os.listdir(os.path.join(server.store, room)))
            for room in ("branches", "layers", "tmp", "run", "trash", "wal")}
    left["projects"] = sorted(p["name"] for p in server.projects())
    left["processes"] = processes_of(server)
    if source:
        with source.connect() as c:
            left["slots"] = c.rows("SELECT slot_name FROM pg_replication_slots ORDER BY 1")
            left["roles"] = c.rows("SELECT rolname FROM pg_roles ORDER BY 1")
            left["senders"] = c.rows("SELECT pid, application_name FROM pg_stat_activity WHERE"
                                     " backend_type = 'walsender'")
    return left


@contextlib.contextmanager
def leaving_nothing(server, source=None):
    h.wait_for(lambda: not os.listdir(os.path.join(server.store, "trash")),
               "the trash of the test before is emptied")
    before = inventory(server, source)
    yield
    def same():
        return inventory(server, source) == before
    with contextlib.suppress(AssertionError):
        h.wait_for(same, "all is as it was", 20)
    assert inventory(server, source) == before


def told(done, status, says="", hint=""):
    """What a failed command told by --json: no progress, one object."""
    statuses = [h.EXIT[s] for s in ([status] if isinstance(status, str) else status)]
    assert done.returncode in statuses, \
        f"exited with {done.returncode}, not {status}: {done.stderr}{done.stdout}"
    error = json.loads(done.stderr)
    assert set(error) <= {"code", "message", "hint"} and done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert re.search(says, error["message"], re.I), error
    assert re.search(hint, error.get("hint", ""), re.I), error
    return done.stderr


def refused(server, what, *args, source=None, **kw):
    """The import must fail, say why, and leave nothing."""
    with leaving_nothing(server, source):
        return told(server.bough("project", "create", "refused", "--from", what, "--json", *args,
                                 check=False), **kw)


def project_of(server, made, name):
    return h.Project(server, made["project"]["id"], name, made, made["project"]["pg_version"])


def import_from(server, name, what, *args):
    return project_of(server, server.json("project", "create", name, "--from", what, *args), name)


# ---- running servers ----

def test_a_server_is_imported_while_it_is_written_to(server, source):
    with source.connect() as c:
        c.run("CREATE DATABASE bank OWNER alice")
    bank = f"postgresql://postgres@127.0.0.1:{source.port}/bank"
    h.run([h.tool("pgbench"), "-i", "-q", "-s", "2", bank])
    archived = len(glob.glob(os.path.join(os.path.dirname(source.dir), "archived-*")))
    try:
        with source.connect("bank") as c, h.pgbench(bank, "-c", 3):
            h.wait_for(lambda: c.one("SELECT count(*) FROM pgbench_history") > 100, "the load runs")
            project = import_from(server, "busy", url_of(source, "bank"))
            at_the_end = c.one("SELECT count(*) FROM pgbench_history")
        with project.connect(uri=uri_of(project, "bank")) as c:
            assert c.one("SELECT current_user") == "alice"
        rows = admin_rows(project, "bank", """
            SELECT (SELECT sum(abalance) FROM pgbench_accounts),
                   (SELECT sum(tbalance) FROM pgbench_tellers),
                   (SELECT sum(bbalance) FROM pgbench_branches),
                   (SELECT sum(delta) FROM pgbench_history),
                   (SELECT count(*) FROM pgbench_history)""")[0]
        assert rows[0] == rows[1] == rows[2] == rows[3] and 100 < rows[4] <= at_the_end
        assert len(glob.glob(os.path.join(os.path.dirname(source.dir), "archived-*"))) >= archived
        project.server.bough("project", "delete", project.id)
    finally:
        with source.connect() as c:
            c.run("DROP DATABASE bank WITH (FORCE)")


def uri_of(project, database, role=None):
    args = ["--database", database] + (["--role", role] if role else [])
    return project.bough("cs", "main", *args).stdout.strip()


def admin_rows(project, database, sql):
    with project.admin(database=database) as c:
        return c.rows(sql)


@pytest.fixture(scope="module", name="copied")
def fixture_copied(server, source):
    project = import_from(server, "copied", url_of(source))
    yield project
    server.bough("project", "delete", project.id)


def test_an_import_keeps_databases_roles_and_ownership(copied, source):
    with copied.connect(uri=uri_of(copied, "shop")) as c:
        assert c.one("SELECT current_user") == "alice"
        assert c.one("SELECT count(*), sum(n), min(name) = (SELECT min(md5(n::text)) FROM"
                     " generate_series(1, 50000) n)"
                     " FROM items") == (50000, 1250025000, True)
        assert c.one("SELECT nextval('counter')") == 42
        assert c.rows("SELECT rolname, rolsuper, rolcanlogin FROM pg_roles WHERE rolname IN"
                      " ('alice', 'bob', 'staff')"
                      " ORDER BY 1") == [("alice", False, True), ("bob", False, True),
                                         ("staff", False, False)]
        assert c.one("SELECT pg_has_role('bob', 'staff', 'MEMBER'), has_table_privilege('staff',"
                     " 'items', 'SELECT')") \
            == (True, True)
        assert c.one("SHOW work_mem") == "7MB"
        c.run("CREATE TABLE more (n int); INSERT INTO items VALUES (0, 'new')")
    with source.connect("shop") as c:
        assert c.one("SELECT count(*) FROM items") == 50000
        assert c.one("SELECT count(*) FROM pg_roles WHERE rolname LIKE '%bough%'") == 0


def test_what_superusers_own_goes_to_a_role_that_users_may_have(copied):
    with copied.connect(uri=uri_of(copied, "office")) as c:
        assert c.one("SELECT current_user, (SELECT rolsuper FROM pg_roles WHERE rolname ="
                     " current_user)") \
            == ("office_owner", False)
        c.run("ALTER TABLE hr.people ADD note text; INSERT INTO hr.people (name, note) VALUES"
              " ('x', 'y')")
        c.run("CREATE OR REPLACE FUNCTION hr.two() RETURNS int LANGUAGE sql AS 'SELECT 3'; ALTER"
              " TYPE hr.mood ADD VALUE 'c'")
        c.run("CREATE OR REPLACE VIEW hr.first AS SELECT * FROM hr.people LIMIT 2; CREATE SCHEMA"
              " mine; DROP SCHEMA mine")
        assert c.one("SELECT hr.two(), lo_get(4711)::text, length(gen_random_bytes(4))") \
            == (3, "\\x6c61726765", 4)
        c.run("SELECT lo_unlink(4711)")


def test_an_import_does_not_act_as_the_original(copied, work):
    assert admin_rows(copied, "office", "SELECT count(*) FROM pg_subscription") == [(0,)]
    assert admin_rows(copied, "office", "SELECT slot_name FROM pg_replication_slots") == []
    assert admin_rows(copied, "office", "SHOW archive_mode") == [("off",)]
    before = set(os.listdir(work))
    admin_rows(copied, "office", "SELECT pg_switch_wal()")
    admin_rows(copied, "office", "SELECT pg_switch_wal()")
    assert set(os.listdir(work)) == before


def test_branches_of_an_import_work(copied):
    copied.branch("child")
    with copied.connect(uri=copied.bough("cs", "child", "--database", "shop").stdout.strip()) as c:
        assert c.one("SELECT count(*) >= 50000 FROM items")
    copied.delete("child")


def test_the_password_of_the_source_is_shown_nowhere(copied):
    shown = copied.server.bough("project", "get", copied.id).stdout
    assert "alice:***@127.0.0.1" in shown and PASSWORD.split()[1] not in shown
    assert PASSWORD not in str(copied.made)
    for path in ["boughd.log", *(os.path.relpath(p, copied.server.store)
                                 for p in glob.glob(f"{copied.server.store}/branches/*/*.log"))]:
        with open(os.path.join(copied.server.store, path), encoding="utf-8", errors="replace") as f:
            assert not re.search("the(%20| )password", f.read()), path


def test_the_same_import_again_is_the_same_and_another_a_conflict(server, copied, source):
    again = server.json("project", "create", "copied", "--from", url_of(source))
    assert again["existing"] and again["project"]["id"] == copied.id
    for args in (["--from", url_of(source, "office")], []):
        done = server.bough("project", "create", "copied", "--json", *args, check=False)
        assert PASSWORD.replace(" ", "%20") not in told(done, "conflict", "already exists",
                                                        "another source")


@pytest.mark.parametrize("what, status, says", [
    ("postgresql://u@nosuch.invalid/d", "unreachable", "could not (connect|translate)"),
    ("postgresql://u@127.0.0.1:1/d", "unreachable", "could not connect"),
    ("postgresql://u:p@h:port/d", "unreachable", "invalid integer value"),
    ("postgresql://u:p%zz@h/d", "invalid", "not a valid connection URL"),
    ("postgresql://u:p@h/d?nosuch=1", "invalid", "nosuch"),
    ("mysql://u:p@h/d", "invalid", r'a "mysql://" URL cannot be imported'),
], ids=lambda v: v[:30])
def test_a_url_that_leads_nowhere_is_refused(server, what, status, says):
    words = refused(server, what, status=status, says=says, hint=".")
    assert "mysql" in what or ":p@" not in words and "p%zz" not in words


def test_who_may_not_copy_is_refused(server, source):
    url = url_of(source, password="mistaken")
    refused(server, url, source=source, status="unreachable",
            says="password authentication failed", hint="password")
    assert "mistaken" not in refused(server, url, source=source, status="unreachable")
    refused(server, url_of(source, user="bob", password="other"), source=source,
            status="precondition",
            says='"bob" of the source lacks REPLICATION', hint="REPLICATION")
    with source.connect() as c:  # shared_preload_libraries is hidden from it
        c.run("CREATE ROLE \"Copier\" LOGIN REPLICATION PASSWORD 'third'")
    refused(server, url_of(source, user="Copier", password="third"), source=source,
            status="precondition", says='"Copier" of the source may not see all settings',
            hint='GRANT pg_read_all_settings TO "Copier"')
    refused(server, url_of(source, "nosuch"), source=source, status="unreachable",
            says='"nosuch" does not exist')


def test_a_source_that_takes_no_replication_connection_is_refused(server, source):
    trusted = ["local all all trust", "host all,replication postgres 127.0.0.1/32 trust"]
    set_hba(source, *trusted, "host all all 127.0.0.1/32 scram-sha-256")
    try:
        refused(server, url_of(source), source=source, status="unreachable",
                says="for replication", hint="pg_hba.conf")
    finally:
        set_hba(source, *trusted, "host all,replication all 127.0.0.1/32 scram-sha-256")


def test_a_source_with_tablespaces_is_refused(server, source, work):
    place = os.path.join(work, "space")
    os.mkdir(place)
    os.chown(place, h.OS_USER.pw_uid, h.OS_USER.pw_gid)
    with source.connect() as c:
        c.run(f"CREATE TABLESPACE \"far away\" LOCATION '{place}'")
    try:
        refused(server, url_of(source), source=source, status="unsupported", says='"far away"',
                hint="dump")
    finally:
        with source.connect() as c:
            c.run('DROP TABLESPACE "far away"')


def test_a_source_of_another_major_version_is_refused(server, source):
    refused(server, url_of(source), "--pg-version", "17" if h.PG != 17 else "16", source=source,
            status="invalid",
            says=f"the source is PostgreSQL {h.PG}, not 1", hint="dump")


def test_a_source_whose_version_is_not_installed_is_refused(make_server, make_stock, pg18):
    if not pg18 or h.find_pg(18):
        pytest.skip("needs PostgreSQL 18 where the server does not look for it")
    source = make_stock("eighteen", pg18).init().start()
    without = make_server("without")
    without.bough("down")
    without.pg_path(h.CHOSEN and h.PG_BIN)
    without.up()
    refused(without, source.url(), source=source, status="unsupported",
            says="PostgreSQL 18 is not installed",
            hint="postgresql-18")
    with_it = make_server("with")  # its server is there, its pg_basebackup is not
    refused(with_it, source.url(), source=source, status="unsupported",
            says='"pg_basebackup" of PostgreSQL 18',
            hint="postgresql-client-18")


def test_what_a_source_sets_for_everybody_is_not_for_boughs_own_sessions(server, make_stock):
    source = make_stock().init().start()
    with source.connect() as c:
        c.run("CREATE ROLE plain NOLOGIN")
        c.run("CREATE DATABASE archive")
        c.run("ALTER DATABASE archive SET role = plain")
        c.run("ALTER DATABASE postgres SET role = plain")
        c.run("ALTER DATABASE archive SET default_transaction_isolation = serializable")
        c.run("ALTER DATABASE archive SET standard_conforming_strings = off")
        for setting in ("default_transaction_read_only = on", "lock_timeout = '1h'", "statement_timeout = '1min'",
                        "idle_in_transaction_session_timeout = '1min'", "session_replication_role = local"):
            c.run(f"ALTER SYSTEM SET {setting}")
    with source.connect("archive") as c:
        c.run("SET role = none")
        c.run("CREATE TABLE kept AS SELECT 1 AS n")
    with source.connect() as c:
        c.run("SET role = none")
        c.run("SELECT pg_reload_conf()")
    def is_set():
        with source.connect() as c:
            return c.one("SHOW default_transaction_read_only") == "on"
    h.wait_for(is_set, "the source has read its settings")
    project = import_from(server, "archive", source.url("archive"))
    with project.connect(uri=uri_of(project, "archive")) as c:
        assert c.one("SHOW default_transaction_read_only") == "on", "it is carried"
        assert c.one("SHOW statement_timeout") == "1min"
    roles = f"/projects/{project.id}/branches/{project.get('main')['id']}/roles"
    status, _, answer = server.api("POST", roles, {"role": {"name": "rr"}})
    assert status == 201, answer
    status, _, answer = server.api("DELETE", f"{roles}/rr")
    assert status == 200, answer
    project.bough("branch", "create", "bare", "--schema-only")
    uri = project.bough("cs", "bare", "--database", "archive").stdout.strip()
    with project.connect(uri=uri) as c:
        c.run("SET role = none")
        assert c.one("SELECT count(*) FROM kept") == 0
        assert c.one("SELECT current_user") == "archive_owner"
    server.bough("project", "delete", project.id)


# ---- dumps ----

@pytest.fixture(scope="module", name="dumps")
def fixture_dumps(source, work):
    """The database office by every format of pg_dump, where the server can read it."""
    place = os.path.join(work, "dumps")
    os.mkdir(place, 0o755)
    kinds = {"custom": "-Fc", "directory": "-Fd", "tar": "-Ft", "plain": "-Fp"}
    for name, flag in kinds.items():
        h.run([h.tool("pg_dump"), flag, "-h", source.dir, "-p", source.port, "-U", "postgres",
               "-f", f"{place}/{name}",
               "office"])
    with open(f"{place}/plain", "rb") as plain, gzip.open(f"{place}/gzip", "wb") as packed:
        packed.write(plain.read())
    with open(f"{place}/all", "wb") as f:
        f.write(subprocess.run([h.tool("pg_dumpall"), "-h", source.dir, "-p", str(source.port),
                                "-U", "postgres"],
                               check=True, stdout=subprocess.PIPE).stdout)
    h.run(["chown", "-R", f"{h.OS_USER.pw_uid}", place]) if h.IS_ROOT else None
    h.run(["chmod", "-R", "a+rX", place])
    return place


@pytest.mark.parametrize("kind", ["custom", "directory", "tar", "plain", "gzip"])
def test_a_dump_is_restored_and_owned_by_the_projects_role(server, dumps, kind):
    project = import_from(server, f"from {kind}", f"{dumps}/{kind}", "--pg-version", str(h.PG))
    with project.connect() as c:
        assert c.one("SELECT current_user, current_database()") == ("neondb_owner", "neondb")
        assert c.one("SELECT count(*), max(name) FROM hr.people") == (500, "p99")
        c.run("INSERT INTO hr.people (name) VALUES ('x'); ALTER TABLE hr.people ADD note text")
        assert c.one("SELECT max(id) FROM hr.people") == 501
        assert c.one("SELECT hr.two(), lo_get(4711)::text, length(gen_random_bytes(4))") \
            == (2, "\\x6c61726765", 4)
        assert c.rows("SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace"
                      " = 'hr'::regnamespace") \
            == [("neondb_owner",)]
        assert c.one("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'bough_import%' OR"
                     " (rolsuper AND rolname <>"
                     " 'bough_admin')") == 0
        assert c.one("SELECT count(*) FROM pg_stats WHERE schemaname = 'hr'") > 0  # it is analyzed
    assert admin_rows(project, "neondb", "SELECT count(*) FROM pg_subscription") == [(0,)]
    server.bough("project", "delete", project.id)


def test_a_dump_goes_to_a_newer_version(server, dumps, pg18):
    if not pg18 and not h.find_pg(18):
        pytest.skip("PostgreSQL 18 could not be fetched")
    project = import_from(server, "newer", f"{dumps}/plain", "--pg-version", "18")
    with project.connect() as c:
        assert c.one("SELECT count(*), current_setting('server_version_num')::int / 10000 FROM"
                     " hr.people") == (500, 18)
    server.bough("project", "delete", project.id)


def test_roles_that_a_dump_names_are_made(server, dumps, source):
    h.run([h.tool("pg_dump"), "-Fc", "-h", source.dir, "-p", source.port, "-U", "postgres", "-f",
           f"{dumps}/shop", "shop"])
    h.run(["chmod", "a+r", f"{dumps}/shop"])
    project = import_from(server, "roles", f"{dumps}/shop", "--pg-version", str(h.PG))
    with project.connect() as c:
        assert c.one("SELECT has_table_privilege('staff', 'items', 'SELECT'), rolsuper,"
                     " rolcanlogin FROM pg_roles WHERE"
                     " rolname = 'staff'") == (True, False, False)
        assert c.one("SELECT count(*), nextval('counter') FROM items") == (50000, 42)
    server.bough("project", "delete", project.id)


# ---- event triggers ----

# What a role would do with the rights of a superuser who runs its function.
TAKES_OVER = ("CREATE OR REPLACE FUNCTION public.{name}() RETURNS {returns} LANGUAGE plpgsql AS $$ BEGIN IF"
              " (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN"
              " EXECUTE 'ALTER ROLE {role} SUPERUSER'; END IF; END $$")


@pytest.fixture(name="watched")
def fixture_watched(make_stock):
    """A server in which superusers' event triggers fire whatever the session is; one calls a helper."""
    source = make_stock().init(wal_level="logical").start()
    with source.connect() as c:
        c.run("CREATE DATABASE watched")
    with source.connect("watched") as c:
        c.run("CREATE TABLE mine (n int); CREATE TABLE heard (tag text)")
        c.run("CREATE SUBSCRIPTION mirror CONNECTION 'host=nowhere.invalid dbname=x' PUBLICATION p"
              " WITH (connect = false, slot_name = 'm')")
        c.run("CREATE FUNCTION helper() RETURNS void LANGUAGE plpgsql AS $$ BEGIN END $$")
        c.run("CREATE FUNCTION et() RETURNS event_trigger SECURITY DEFINER LANGUAGE plpgsql AS $$ BEGIN PERFORM"
              " public.helper(); INSERT INTO public.heard VALUES (tg_tag); END $$")
        c.run("CREATE FUNCTION cast_of(int) RETURNS point LANGUAGE sql IMMUTABLE AS 'SELECT point($1, $1)'")
        c.run("CREATE CAST (int AS point) WITH FUNCTION cast_of(int)")
        c.run("CREATE FUNCTION guard() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN IF EXISTS (SELECT FROM"
              " pg_catalog.pg_roles WHERE rolsuper AND rolname = current_user) THEN RAISE EXCEPTION"
              " 'no DDL here: %', tg_tag; END IF; END $$")
        if h.PG >= 17:
            c.run("CREATE FUNCTION came() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN IF session_user ="
                  f" '{h.ADMIN}' THEN RAISE EXCEPTION 'nobody logs in here'; END IF; END $$")
            c.run("CREATE EVENT TRIGGER came ON login EXECUTE FUNCTION came()")
            c.run("ALTER EVENT TRIGGER came ENABLE ALWAYS")
        c.run("CREATE EVENT TRIGGER watch ON ddl_command_start EXECUTE FUNCTION et()")
        c.run("ALTER EVENT TRIGGER watch ENABLE ALWAYS")
        c.run("CREATE EVENT TRIGGER guard ON ddl_command_start EXECUTE FUNCTION guard()")
        c.run("CREATE EVENT TRIGGER always ON ddl_command_end EXECUTE FUNCTION guard()")
        c.run("ALTER EVENT TRIGGER always ENABLE ALWAYS")
    return source


@pytest.fixture(name="heard", params=["server", "plain", "custom"])
def fixture_heard(server, watched, request):
    """A project made of it, its database and who owns that."""
    way, what = request.param, watched.url("watched")
    if way != "server":
        what = os.path.join(watched.dir, way)
        h.run([h.tool("pg_dump"), f"-F{way[0]}", "-h", watched.dir, "-p", watched.port, "-U", "postgres",
               "-f", what, "watched"])
        os.chmod(what, 0o644)
    project = import_from(server, f"heard {way}", what, "--pg-version", str(h.PG))
    database = "watched" if way == "server" else "neondb"
    yield project, database, f"{database}_owner"
    server.bough("project", "delete", project.id)


def test_boughs_own_statements_fire_no_event_trigger(server, heard):
    project, database, role = heard
    roles = f"/projects/{project.id}/branches/{project.get('main')['id']}/roles"
    status, _, answer = server.api("POST", roles, {"role": {"name": "rr"}})
    assert status == 201, answer
    with project.connect(uri=uri_of(project, database)) as c:
        assert c.one("SELECT current_user") == role
        assert c.one("SELECT count(*) FROM heard") == 0, "the import itself"
        c.run(TAKES_OVER.format(name="helper", returns="void", role=role))
        assert c.rows("SELECT tag FROM heard") == [("CREATE FUNCTION",)], "what others do is heard"
    with project.admin(database=database) as c:
        c.run("SET session_replication_role = replica; ALTER EVENT TRIGGER watch DISABLE;"
              " ALTER EVENT TRIGGER always DISABLE; CREATE TABLE left_behind (); ALTER TABLE left_behind OWNER TO"
              " rr; ALTER EVENT TRIGGER watch ENABLE ALWAYS; ALTER EVENT TRIGGER always ENABLE ALWAYS")
    status, _, answer = server.api("DELETE", f"{roles}/rr")
    assert status == 200, answer
    with project.connect(uri=uri_of(project, database)) as c:
        assert c.one("SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
        assert c.one("SELECT tableowner FROM pg_tables WHERE tablename = 'left_behind'") == role
        assert c.one("SELECT count(*) FROM heard") == 1
        assert c.rows("SELECT evtname, evtenabled FROM pg_event_trigger WHERE evtname <> 'came' ORDER BY 1") == \
            [("always", "A"), ("guard", "O"), ("watch", "A")]


def test_no_user_is_given_what_superusers_run_without_naming_it(heard):
    project, database, role = heard
    with project.connect(uri=uri_of(project, database)) as c:
        assert c.rows("SELECT proname, rolsuper, prosecdef FROM pg_proc p JOIN pg_roles r ON r.oid = proowner WHERE"
                      " pronamespace = 'public'::regnamespace AND proname <> 'came' ORDER BY 1") == \
            [("cast_of", True, False), ("et", True, False), ("guard", True, False), ("helper", False, False)]
        assert c.rows("SELECT DISTINCT rolsuper FROM pg_event_trigger JOIN pg_roles r ON r.oid = evtowner") == \
            [(True,)]
        with pytest.raises(h.psycopg2.Error, match="must be owner"):
            c.run(TAKES_OVER.format(name="et", returns="event_trigger", role=role))
        c.run(TAKES_OVER.format(name="helper", returns="void", role=role))
        c.run("CREATE TABLE more (n int)")  # et() runs as he does, though it was SECURITY DEFINER
        assert c.one("SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
        assert c.rows("SELECT tag FROM heard") == [("CREATE FUNCTION",), ("CREATE TABLE",)]


def put(path, data, mode=0o644):
    with open(path, "wb") as f:
        f.write(data)
    os.chmod(path, mode)
    return path


def read(path):
    with open(path, "rb") as f:
        return f.read()


def test_what_is_no_dump_is_refused(server, dumps, directory):
    refused(server, f"{directory}/nosuch", status="notfound", says="nosuch", hint=".")
    refused(server, put(f"{directory}/text", b"hello\n"), status="invalid",
            says="neither a connection URL nor a dump", hint=".")
    refused(server, put(f"{directory}/empty", b""), status="invalid", says="neither", hint=".")
    refused(server, put(f"{directory}/text.gz", gzip.compress(b"hello\n")), status="invalid",
            says="neither", hint=".")
    refused(server, f"{dumps}/all", status="invalid", hint="pg_dumpall")
    refused(server, directory, status="invalid", hint="toc.dat")
    refused(server, "/dev/zero", status="invalid", hint="regular file")
    os.mkfifo(f"{directory}/fifo", 0o644)
    refused(server, f"{directory}/fifo", status="invalid", hint="regular file")
    refused(server, put(f"{directory}/packed.gz", gzip.compress(read(f"{dumps}/custom"))),
            status="invalid", hint="gunzip")
    if h.IS_ROOT:
        refused(server, put(f"{directory}/mine", read(f"{dumps}/custom"), 0o600), status="notfound",
                says="Permission denied")


@pytest.mark.parametrize("kind", ["custom", "directory", "tar", "gzip"])
def test_a_truncated_dump_is_refused(server, dumps, directory, kind):
    target = f"{directory}/{kind}"
    if kind == "directory":
        shutil.copytree(f"{dumps}/{kind}", target)
        os.chmod(target, 0o755)
        path = max(glob.glob(f"{target}/*.dat.gz"), key=os.path.getsize)
    else:
        shutil.copy(f"{dumps}/{kind}", target)
        path = target
    os.truncate(path, os.path.getsize(path) // 2)
    refused(server, target, "--pg-version", str(h.PG), status=["pg", "invalid"])


def test_a_plain_dump_that_was_cut_off_is_refused(server, dumps, directory):
    text = read(f"{dumps}/plain")
    for name, part in (("data", text[:text.index(b"\n250\t") + 1]),
                       ("schema", text[:text.index(b"COPY hr.people")])):
        refused(server, put(f"{directory}/{name}", part), "--pg-version", str(h.PG),
                status=["pg", "invalid"])


def test_a_dump_that_does_not_restore_is_told_with_its_reason(server, dumps, directory):
    text = read(f"{dumps}/plain")
    extension = text.replace(b"EXTENSION IF NOT EXISTS pgcrypto", b"EXTENSION IF NOT EXISTS nosuch")
    refused(server, put(f"{directory}/extension", extension), "--pg-version", str(h.PG),
            status="pg", says="nosuch",
            hint="Install that extension")
    broken = text.replace(b"COPY hr.people", b"SELECT 1 / 0;\nCOPY hr.people")
    refused(server, put(f"{directory}/broken", broken), "--pg-version", str(h.PG), status="pg",
            says="division by zero")
    shell = text.replace(b"COPY hr.people", b"\\! touch /tmp/bough-was-here\nCOPY hr.people")
    refused(server, put(f"{directory}/shell", shell), "--pg-version", str(h.PG),
            status="unsupported")
    assert not os.path.exists("/tmp/bough-was-here")


def test_what_a_dump_hides_from_the_scan_starts_no_program(server, directory):
    """How psql reads strings can be changed by what no lexer sees: by a function's arguments."""
    dump = put(f"{directory}/hidden", rb"""-- PostgreSQL database dump
CREATE TABLE public.said (word text);
SELECT set_config('standard_' || 'conforming_strings', 'off', false);
SELECT '\' ' \set word `echo hello`
-- ';
;
INSERT INTO public.said VALUES (:'word');
-- PostgreSQL database dump complete
""")
    project = import_from(server, "hidden", dump, "--pg-version", str(h.PG))
    with project.connect() as c:
        assert c.rows("SELECT word FROM said") == [("",)]
    server.bough("project", "delete", project.id)


# ---- cancelling ----

class Dam:
    """A proxy in front of a source that lets so many bytes through and then holds all back."""

    def __init__(self, port, limit):
        self.port, self.limit, self.passed = port, limit, 0
        self.lock, self.is_open, self.full = threading.Lock(), threading.Event(), threading.Event()
        self.listener = socket.create_server(("127.0.0.1", h.free_port()))
        self.sockets = [self.listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client = self.listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self.port))
                self.sockets += [client, server]
                threading.Thread(target=self._pump, args=(client, server, False),
                                 daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, True),
                                 daemon=True).start()

    def _pump(self, source, target, counts):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                with self.lock:
                    self.passed += len(data) if counts else 0
                    if counts and self.passed > self.limit:
                        self.full.set()
                if counts and self.full.is_set():
                    self.is_open.wait(60)
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for s in self.sockets:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)  # close() alone would not wake who waits in recv()
            s.close()
        self.is_open.set()

    def url(self):
        port, password = self.listener.getsockname()[1], PASSWORD.replace(" ", "%20")
        return f"postgresql://alice:{password}@127.0.0.1:{port}/shop"


COPYING = r"copying: +\d+%  [\d.]+ \w+ of [\d.]+ \w+(, [\d.]+ \w+/s)?(, [\d:]+ left)?\n"


def first_line(stream, beginning):
    """Read until a line that begins so."""
    for line in stream:
        if line.startswith(beginning):
            return line
    raise AssertionError(f"no line {beginning!r}")


@contextlib.contextmanager
def importing(server, what, *args):
    """`bough project create` in the background."""
    p = subprocess.Popen([h.BOUGH, "project", "create", "long", "--from", what, "--store",
                          server.store, *args],
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         text=True,
                         start_new_session=True, env=server.env)
    try:
        yield p
    finally:
        if p.poll() is None:
            p.kill()
        p.communicate()


def test_ctrl_c_in_the_middle_of_a_copy_leaves_nothing(server, source):
    with leaving_nothing(server, source), Dam(source.port, 5_000_000) as dam, \
        importing(server, dam.url()) as p:
        assert dam.full.wait(60), "the import does not get to the middle"
        assert re.fullmatch(COPYING, first_line(p.stderr, "copying"))
        assert os.listdir(os.path.join(server.store, "tmp"))
        words = [f"/proc/{pid}/cmdline" for pid in os.listdir("/proc") if pid.isdigit()]
        for path in words:  # meanwhile the password is in no command line but our own
            with contextlib.suppress(OSError), open(path, "rb") as f:
                line = f.read()
                assert b"the%20password" not in line and b"the password" not in line \
                    or b"project\0create" in line
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=30)
        assert p.returncode == 130 and out == "" and "cancelled" in err.split("\n")[-2], err
    again = import_from(server, "long", url_of(source))  # the name is free
    server.bough("project", "delete", again.id)


def test_ctrl_c_in_the_middle_of_a_restore_leaves_nothing(server, dumps, directory):
    text = read(f"{dumps}/plain").replace(b"COPY hr.people",
                                          b"SELECT pg_sleep(100);\nCOPY hr.people")
    with leaving_nothing(server), importing(server, put(f"{directory}/slow", text), "--pg-version",
                                            str(h.PG)) as p:
        h.wait_for(lambda: b"SELECT" in titles(server.store), "the restore sleeps")
        p.send_signal(signal.SIGINT)
        _, err = p.communicate(timeout=30)
        assert p.returncode == 130, err


def titles(store):
    """Process titles of what works below a store."""
    text = b""
    for pid in h.processes_below(store):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as f:
            text += f.read()
    return text


def test_a_client_that_dies_cancels_its_import(server, source):
    with leaving_nothing(server, source), Dam(source.port, 5_000_000) as dam, \
        importing(server, dam.url()) as p:
        assert dam.full.wait(60)
        p.kill()


def test_a_source_that_dies_in_the_middle_is_told(server, source):
    with leaving_nothing(server, source), Dam(source.port, 5_000_000) as dam, \
        importing(server, dam.url(), "--json") as p:
        assert dam.full.wait(60)
        dam.__exit__()
        _, err = p.communicate(timeout=30)
        assert p.returncode in (h.EXIT["pg"], h.EXIT["unreachable"]), err
        assert len(err.strip().split("\n")) <= 2 and "pg_basebackup" in err


def test_a_server_that_is_killed_in_the_middle_clears_up_when_it_is_back(make_server, source):
    server = make_server("killed")
    with leaving_nothing(server, source):
        with Dam(source.port, 5_000_000) as dam, importing(server, dam.url()) as p:
            assert dam.full.wait(60)
            server.kill()
            _, err = p.communicate(timeout=30)
            assert p.returncode == h.EXIT["unreachable"], err
        server.up()


def test_a_server_that_is_ended_in_the_middle_ends_the_import(make_server, source):
    server = make_server("ended")
    with leaving_nothing(server, source):
        with Dam(source.port, 5_000_000) as dam, importing(server, dam.url()) as p:
            assert dam.full.wait(60)
            server.down()
            _, err = p.communicate(timeout=30)
            assert p.returncode in (130, h.EXIT["unreachable"]), err
        server.up()


@contextlib.contextmanager
def silent_source():
    with h.Silent(socket.create_server(("127.0.0.1", h.free_port()))) as silent:
        yield silent, f"postgresql://alice@127.0.0.1:{silent.listener.getsockname()[1]}/shop"


def test_ctrl_c_ends_an_import_from_a_source_that_says_nothing(server):
    with leaving_nothing(server), silent_source() as (silent, url), importing(server, url) as p:
        assert silent.asked.wait(60), "the source is not asked"
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=30)
        assert p.returncode == 130 and out == "", err
    server.bough("project", "delete", server.project("long").id)  # the name is free


def test_a_server_ends_though_a_source_says_nothing(make_server):
    server = make_server("silent")
    with silent_source() as (silent, url), importing(server, url) as p:
        assert silent.asked.wait(60), "the source is not asked"
        server.bough("down", timeout=30)
        p.communicate(timeout=30)
    server.up()
    assert server.projects() == []


def test_a_server_ends_though_what_was_restored_hangs(make_server, directory):
    """Code of the dump runs after it, too: ANALYZE evaluates the expression of an index."""
    dump = put(f"{directory}/hangs", b"""-- PostgreSQL database dump
CREATE FUNCTION public.slow(n integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
  IF current_setting('application_name') = 'bough' THEN PERFORM pg_sleep(3600); END IF;
  RETURN n;
END $$;
CREATE TABLE public.t (n integer);
INSERT INTO public.t VALUES (1), (2);
CREATE INDEX i ON public.t (public.slow(n));
-- PostgreSQL database dump complete
""")
    server = make_server("hung")
    server.bough("project", "delete", server.project("first").id)  # its template stays
    with leaving_nothing(server):
        with importing(server, dump, "--pg-version", str(h.PG)) as p:
            h.wait_for(lambda: b"ANALYZE" in titles(server.store), "the restore is analyzed")
            server.bough("down", timeout=60)
            p.communicate(timeout=30)
        server.up()


# ---- progress ----

def test_progress_is_told_line_by_line_where_there_is_no_terminal(server, source):
    with Dam(source.port, 5_000_000) as dam, importing(server, dam.url()) as p:
        lines = []
        for line in p.stderr:
            lines.append(line)
            if line.startswith("copying"):
                dam.is_open.set()
        assert p.wait(60) == 0 and "long is ready" in p.stdout.read()
    text = "".join(lines)
    assert "\r" not in text and "\033" not in text
    phases = list(dict.fromkeys(re.split(r":| \.\.\.", line)[0] for line in lines))
    known = ["checking the source", "copying", "replaying", "preparing", "syncing", "sealing",
             "starting"]
    assert phases == [k for k in known if k in phases], lines
    assert {"copying", "sealing", "starting"} <= set(phases), lines
    assert all(re.fullmatch(COPYING, line) for line in lines if line.startswith("copying")), lines
    server.bough("project", "delete", "long")


def test_a_restore_tells_how_far_it_is(server, dumps, directory):
    text = read(f"{dumps}/plain").replace(b"COPY hr.people", b"SELECT pg_sleep(1);\nCOPY hr.people")
    done = server.bough("project", "create", "told", "--from", put(f"{directory}/slow", text),
                        "--pg-version", str(h.PG))
    assert re.search(r"^restoring: +\d+%  [\d.]+ \w+ of [\d.]+ \w+", done.stderr, re.M), done.stderr
    server.bough("project", "delete", "told")
    assert server.json("project", "create", "told", "--from",
                       f"{dumps}/custom")["existing"] is False
    server.bough("project", "delete", "told")
