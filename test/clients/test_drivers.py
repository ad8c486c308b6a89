"""Drivers and tools that know nothing of Bough: with TLS and channel binding, and in clear, each through a wake."""
import json
import os

import psycopg2
import pytest

import harness as h
from clients import HERE, MODULES

WAYS = pytest.mark.parametrize("tls", [True, False], ids=["tls", "clear"])
ME = "SELECT current_user || ' ' || ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


def said(tls):
    return f"neondb_owner {'true' if tls else 'false'}"


@WAYS
def test_psql_connects(guest, tls):
    guest.sleep()
    assert h.run([h.tool("psql"), guest.uri(tls), "-XAtc", ME], env=guest.env).stdout.strip() == said(tls)
    assert guest.is_awake()


@WAYS
def test_psycopg_connects(guest, tls):
    guest.sleep()
    with psycopg2.connect(guest.uri(tls, hostaddr="127.0.0.1")) as c, c.cursor() as cur:
        cur.execute(ME)
        assert cur.fetchone()[0] == said(tls)
    c.close()


@WAYS
def test_pgbench_runs(guest, tls):
    guest.sleep()
    h.run([h.tool("pgbench"), "-i", "-q", guest.uri(tls)], env=guest.env)
    guest.sleep()
    done = h.run([h.tool("pgbench"), "-c", "4", "-t", "20", guest.uri(tls)], env=guest.env)
    assert "transactions actually processed: 80/80" in done.stdout


@WAYS
def test_node_postgres_connects(guest, tls):
    guest.sleep()
    w = guest.login()
    options = {"host": w["host"] if tls else "127.0.0.1", "port": w["port"], "user": w["user"],
               "password": w["password"], "database": w["dbname"]}
    options |= {"ca": guest.ca, "enableChannelBinding": True} if tls else \
        {"options": f"endpoint={guest.shop.endpoint}"}
    got = guest.node("pg.mjs", json.dumps(options))
    assert got["who"] == "neondb_owner" and got["ssl"] is tls


@pytest.fixture(name="java", scope="module")
def fixture_java(guest):
    """Compiled by ecj, which a runtime without a compiler can run; names by a hosts file of its own."""
    driver = "/usr/share/java/postgresql.jar"
    h.run(["ecj", "-11", "-proc:none", "-d", guest.dir, os.path.join(HERE, "Jdbc.java")])
    hosts = os.path.join(guest.dir, "hosts")
    with open(hosts, "w", encoding="ascii") as f:
        f.write(f"127.0.0.1 localhost {guest.login()['host']}\n")
    return ["java", f"-Djdk.net.hosts.file={hosts}", "-cp", f"{guest.dir}:{driver}", "Jdbc"]


@WAYS
def test_jdbc_connects(guest, java, tls):
    """42.5 of Debian knows no channel binding; it checks the certificate against the local authority."""
    guest.sleep()
    w = guest.login()
    query = f"sslmode=verify-full&sslrootcert={guest.ca}" if tls else \
        f"sslmode=disable&options=endpoint%3D{guest.shop.endpoint}"
    url = f"jdbc:postgresql://{w['host']}:{w['port']}/{w['dbname']}?{query}"
    got = json.loads(h.run([*java, url, w["user"], w["password"]]).stdout)
    assert got == {"who": "neondb_owner", "ssl": tls}


def test_neons_serverless_driver_works_by_http_and_by_websocket(guest):
    w = guest.login()
    guest.sleep()
    got = guest.node("serverless.mjs", f"postgresql://{w['user']}:{w['password']}@{w['host']}/{w['dbname']}",
                     guest.env["BOUGH_HTTP"])
    assert got["rows"][0] | {"at": 0} == {"n": 7, "t": "ä", "nothing": None, "at": 0} and got["at"]
    assert got["full"]["rows"] == [[1, 2]] and got["full"]["rowCount"] == 1
    assert got["batch"] == [[{"one": 1}], [{"level": "serializable"}]]
    assert got["error"] == {"name": "NeonDbError", "code": "42703", "position": "8"}
    for label in ("pipelined", "plain"):
        assert got[label] == [{"who": "neondb_owner", "n": 5}]
        assert got[label + "Big"] == [3000000, 3000000] and got[label + "Rows"] == 1000
    assert got["pool"] == list(range(24))
    assert got["wrong"].get("code") == "28P01", got["wrong"]


def test_neons_libraries_for_javascript_work(guest):
    got = guest.node("sdk.mjs")
    assert got["name"] == "by the sdk" and got["branch"] == "from the sdk" and got["uri"].startswith("postgresql://")
    assert got["missing"]["status"] == 404 and got["refused"] == 401
    assert got["branches"] == ["main"] and got["endpoints"] == 1 and got["schema"] and got["deleted"]
    assert set(got["operations"]) == {"finished"} and got["databases"] == ["neondb"]


def test_neons_mcp_server_works_with_its_sql_address_mapped(guest):
    """Its SQL tools ask https://api.DOMAIN/sql, port 443; names.mjs does what a proxy for that name would."""
    project = guest.shop.id
    calls = [["list_projects", {}], ["describe_project", {"projectId": project}],
             ["create_branch", {"projectId": project, "branchName": "by mcp"}],
             ["describe_branch", {"projectId": project, "branchId": "$branch"}],
             ["run_sql", {"projectId": project, "branchId": "$branch", "databaseName": "neondb",
                          "sql": "SELECT 6 * 7 AS answer"}],
             ["run_sql_transaction", {"projectId": project, "branchId": "$branch", "databaseName": "neondb",
                                      "sqlStatements": ["CREATE TABLE by_mcp (n int)", "INSERT INTO by_mcp VALUES (5)",
                                                        "SELECT * FROM by_mcp"]}],
             ["get_database_tables", {"projectId": project, "branchId": "$branch", "databaseName": "neondb"}],
             ["describe_table_schema", {"projectId": project, "branchId": "$branch", "databaseName": "neondb",
                                        "tableName": "by_mcp"}],
             ["explain_sql_statement", {"projectId": project, "branchId": "$branch", "databaseName": "neondb",
                                        "sql": "SELECT * FROM by_mcp"}],
             ["get_connection_string", {"projectId": project, "branchId": "$branch"}],
             ["delete_branch", {"projectId": project, "branchId": "$branch"}]]
    guest.env["BOUGH_MAP_SQL"] = "1"
    guest.env["MCP_SERVER"] = os.path.join(MODULES, "@neondatabase/mcp-server-neon/dist/index.js")
    got = guest.node("mcp.mjs", json.dumps(calls))
    answers = {a["name"]: a for a in got["answers"]}
    assert not [a for a in got["answers"] if a["failed"]], got["answers"]
    assert project in answers["list_projects"]["said"] and "42" in answers["run_sql"]["said"]
    assert "by_mcp" in answers["get_database_tables"]["said"] and '"n"' in answers["describe_table_schema"]["said"]
    assert "by mcp" not in guest.shop.names()
