"""POST /sql: queries over HTTP, as edge drivers send them."""
import http.client
import json
import socket
import struct
import threading
import time

import pytest

import harness as h
from api import Api, Shop, connect
from test_door import cpu_ticks

RAW = {"Neon-Raw-Text-Output": "true"}


class Sql:
    """Asks a server's /sql with the connection string of a project's default branch."""

    def __init__(self, server, shop):
        self.server, self.shop = server, shop
        made = shop.made["connection_uris"][0]["connection_parameters"]
        self.password = made["password"]
        self.uri = self.make_uri(host=made["host"])

    def make_uri(self, user="neondb_owner", password=None, host=None, database="neondb", query=""):
        host = host or f"{self.shop.endpoint}.localhost"
        return f"postgresql://{user}:{self.password if password is None else password}@{host}/{database}{query}"

    def request(self, body, headers=None, method="POST", uri=None):
        """Status, headers and the body, parsed."""
        c = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        head = {"Neon-Connection-String": uri or self.uri, "Content-Type": "text/plain;charset=UTF-8"} | (headers or {})
        try:
            c.request(method, "/sql", body if isinstance(body, (str, bytes)) else json.dumps(body),
                      {k: v for k, v in head.items() if v is not None})
            answer = c.getresponse()
            text = answer.read()
            return answer.status, dict(answer.getheaders()), json.loads(text) if text else None
        finally:
            c.close()

    def __call__(self, query, *params, status=200, headers=None, uri=None, **more):
        got, head, answer = self.request({"query": query, "params": list(params)} | more, headers, uri=uri)
        assert got == status, f"{got}: {answer}"
        assert head["Access-Control-Allow-Origin"] == "*" and head["Content-Type"] == "application/json"
        return answer

    def batch(self, *queries, status=200, headers=None):
        asked = [q if isinstance(q, dict) else {"query": q} for q in queries]
        got, _, answer = self.request({"queries": asked}, headers)
        assert got == status, f"{got}: {answer}"
        return answer


@pytest.fixture(scope="module", name="sql")
def fixture_sql(shared_server, shop):
    return Sql(shared_server, shop)


def values(answer):
    return [list(r.values()) if isinstance(r, dict) else r for r in answer["rows"]]


def test_a_query_wakes_the_branch_and_tells_fields_rows_and_count(api, shop, sql):
    api("POST", f"{shop.path}/endpoints/{shop.endpoint}/suspend")
    answer = sql("SELECT $1::int AS n, $2::text AS t, NULL AS nothing", "7", 'a"b\\c\n\x01ä', headers=RAW)
    assert answer["rows"] == [{"n": "7", "t": 'a"b\\c\n\x01ä', "nothing": None}]
    assert answer["command"] == "SELECT" and answer["rowCount"] == 1 and answer["rowAsArray"] is False
    assert [f["name"] for f in answer["fields"]] == ["n", "t", "nothing"]
    assert answer["fields"][0] == {"name": "n", "dataTypeID": 23, "tableID": 0, "columnID": 0, "dataTypeSize": 4,
                                   "dataTypeModifier": -1, "format": "text"}
    assert api("GET", f"{shop.path}/endpoints/{shop.endpoint}")["endpoint"]["current_state"] == "active"


def test_it_is_the_role_that_was_named_and_no_other(sql):
    answer = sql("SELECT current_user::text, rolsuper FROM pg_roles WHERE rolname = current_user", headers=RAW)
    assert values(answer) == [["neondb_owner", "f"]]


def test_rows_are_arrays_where_that_is_asked_for(sql):
    answer = sql("SELECT 1 AS a, 2 AS a", headers=RAW | {"Neon-Array-Mode": "true"})
    assert answer["rows"] == [["1", "2"]] and answer["rowAsArray"] is True
    assert sql("SELECT 1 AS a, 2 AS a", headers=RAW)["rows"] == [{"a": "2"}]  # as an object has it
    assert sql("SELECT 1 AS a", headers=RAW, arrayMode=True)["rows"] == [["1"]]


def test_without_raw_text_values_have_jsons_types(sql):
    answer = sql("""SELECT true AS b, 7::int AS i, 1.5::float8 AS f, 'NaN'::float8 AS nan, 1e300::float8 AS big,
        9007199254740993::int8 AS i8, 1.10::numeric AS num, '{"a": [1, null]}'::jsonb AS j, ARRAY[1, NULL, 3] AS ai,
        ARRAY['a,b', 'c"d', NULL, 'NULL'] AS at, '{{t,f},{f,t}}'::bool[] AS ab, '[2:3]={4,5}'::int[] AS bounds,
        '{}'::int[] AS none, '(1,2)'::point AS p""")
    assert answer["rows"] == [{"b": True, "i": 7, "f": 1.5, "nan": "NaN", "big": 1e300, "i8": "9007199254740993",
                               "num": "1.10", "j": {"a": [1, None]}, "ai": [1, None, 3], "p": "(1,2)",
                               "at": ["a,b", 'c"d', None, "NULL"], "ab": [[True, False], [False, True]],
                               "bounds": [4, 5], "none": []}]


def test_parameters_of_every_json_type_arrive(sql):
    answer = sql("SELECT $1::int, $2::bool, $3::jsonb, $4::text[], $5::text, $6::float8, $7::text", 5, True, {"k": "v"},
                 ["a", 'q"\\', None, "x,y"], None, 2.5, "", headers={"Neon-Array-Mode": "true"})
    assert answer["rows"] == [[5, True, {"k": "v"}, ["a", 'q"\\', None, "x,y"], None, 2.5, ""]]
    assert sql("SELECT $1::int[] AS a", [[1, 2], [3, 4]])["rows"] == [{"a": [[1, 2], [3, 4]]}]


def test_commands_have_their_count(sql):
    assert sql("CREATE TABLE counted (n int)")["command"] == "CREATE"
    made = sql("INSERT INTO counted SELECT generate_series(1, 5)")
    assert (made["command"], made["rowCount"], made["rows"], made["fields"]) == ("INSERT", 5, [], [])
    assert sql("UPDATE counted SET n = 0 RETURNING n")["rowCount"] == 5
    assert sql("DROP TABLE counted")["rowCount"] is None
    assert sql("")["rows"] == []


def test_an_error_of_postgresql_is_told_with_all_its_fields(sql):
    answer = sql("SELECT nothing FROM pg_class", status=400)
    assert answer["code"] == "42703" and answer["severity"] == "ERROR" and answer["position"] == "8"
    assert "nothing" in answer["message"] and answer["routine"]
    sql("CREATE TABLE strict (n int CHECK (n > 0))")
    answer = sql("INSERT INTO strict VALUES (-1)", status=400)
    assert (answer["code"], answer["table"], answer["schema"]) == ("23514", "strict", "public")
    assert answer["constraint"] == "strict_n_check" and "-1" in answer["detail"]
    assert sql("SELECT 1; SELECT 2", status=400)["code"] == "42601"  # one statement, as with Neon
    sql("DROP TABLE strict")


def test_a_batch_is_one_transaction(sql):
    sql("CREATE TABLE batch (n int PRIMARY KEY)")
    answer = sql.batch({"query": "INSERT INTO batch VALUES ($1)", "params": ["1"]},
                       "SELECT count(*)::int AS n FROM batch")
    assert [r["command"] for r in answer["results"]] == ["INSERT", "SELECT"]
    assert answer["results"][1]["rows"] == [{"n": 1}]
    failed = sql.batch("INSERT INTO batch VALUES (2)", "INSERT INTO batch VALUES (1)", status=400)
    assert failed["code"] == "23505"
    assert sql("SELECT count(*)::int AS n FROM batch")["rows"] == [{"n": 1}]
    assert sql.batch()["results"] == []
    sql("DROP TABLE batch")


@pytest.mark.parametrize("level,name", [("ReadUncommitted", "read uncommitted"), ("ReadCommitted", "read committed"),
                                        ("RepeatableRead", "repeatable read"), ("Serializable", "serializable")])
def test_a_batch_has_the_isolation_that_was_asked_for(sql, level, name):
    head = {"Neon-Batch-Isolation-Level": level, "Neon-Batch-Read-Only": "true", "Neon-Batch-Deferrable": "true"}
    answer = sql.batch("SELECT current_setting('transaction_isolation') AS i, current_setting('transaction_read_only')"
                       " AS r, current_setting('transaction_deferrable') AS d", headers=head)
    assert answer["results"][0]["rows"] == [{"i": name, "r": "on", "d": "on"}]
    assert sql.batch("CREATE TABLE no ()", headers=head, status=400)["code"] == "25006"
    sql.batch("SELECT 1", headers={"Neon-Batch-Isolation-Level": "Chaos"}, status=400)


@pytest.mark.parametrize("change,code", [({"password": "wrong"}, "28P01"), ({"database": "nowhere"}, "3D000"),
                                         ({"host": "ep-no-such-000000.localhost"}, None),
                                         ({"host": "localhost"}, None), ({"user": "nobody"}, "28P01"),
                                         ({"user": "bough_admin"}, None)])
def test_who_may_not_connect_is_refused_as_by_the_front_door(sql, change, code):
    answer = sql("SELECT 1", status=400, uri=sql.make_uri(**change))
    assert answer["message"] and "rows" not in answer
    assert code is None or answer["code"] == code
    assert sql.password not in json.dumps(answer)


def test_the_superuser_of_bough_cannot_come_this_way(sql):
    admin = sql.server.admin_password()
    answer = sql("SELECT 1", status=400, uri=sql.make_uri(user="bough_admin", password=admin))
    assert "rows" not in answer


@pytest.mark.parametrize("uri", ["", "nonsense://", "postgresql://neondb_owner@ep-x.localhost/neondb",
                                 "postgresql://:pw@ep-x.localhost/neondb", "postgresql://u:" + "p" * 2000 + "@ep-x/d",
                                 "host=ep-x service=/etc/passwd user=u password"])
def test_a_connection_string_that_is_none_is_refused(sql, uri):
    status, _, answer = sql.request({"query": "SELECT 1"}, {"Neon-Connection-String": uri})
    assert status == 400 and answer["message"]


def test_files_and_addresses_in_a_connection_string_do_nothing(sql, directory):
    """Nobody may have the server read a file, or connect elsewhere."""
    with socket.socket() as trap:
        trap.bind(("127.0.0.1", 0))
        trap.listen()
        trap.settimeout(0.2)
        port = trap.getsockname()[1]
        query = f"?hostaddr=127.0.0.1&port={port}&passfile={directory}/x&sslkey={directory}/y&service=z&sslmode=disable"
        assert values(sql("SELECT 1 AS n", uri=sql.make_uri(query=query))) == [[1]]
        with pytest.raises(TimeoutError):
            trap.accept()


@pytest.mark.parametrize("body", ["", "[]", "{", '{"query": 5}', '{"params": []}', '{"query": "SELECT 1", "params": 5}',
                                  '{"queries": 5}', '{"queries": [5]}', '{"query": "SELECT \\u0000"}',
                                  '{"query": "SELECT $1", "params": ["\\u0000"]}', '{"query":"x","arrayMode":7}',
                                  '{"query": "SELECT $1::int[]", "params": [[[[[[[[[1]]]]]]]]]}', b"\xff\xfe"])
def test_a_body_that_is_no_query_is_refused(sql, body):
    status, _, answer = sql.request(body)
    assert status == 400 and answer["message"]


def test_too_large_a_request_and_too_large_an_answer_are_refused(sql):
    status, _, answer = sql.request(json.dumps({"query": "SELECT 1 -- " + "x" * 9_000_000}))
    assert status == 200 and answer["rowCount"] == 1
    try:
        status = sql.request("x" * 11_000_000)[0]
    except (BrokenPipeError, ConnectionResetError):
        status = 413
    assert status == 413
    answer = sql("SELECT repeat('x', 1000000) AS t FROM generate_series(1, 1000000)", status=507)
    assert "too large" in answer["message"]
    h.wait_for(lambda: not busy(sql), "the backend has stopped")


def busy(sql):
    """Backends of queries over HTTP, besides the one that asks."""
    return sql("SELECT count(*)::int AS n FROM pg_stat_activity WHERE backend_type = 'client backend' AND"
               " pid <> pg_backend_pid() AND state = 'active'")["rows"][0]["n"]


def test_a_client_that_goes_away_has_its_query_cancelled(sql):
    c = http.client.HTTPConnection("127.0.0.1", sql.server.port, timeout=60)
    c.request("POST", "/sql", json.dumps({"query": "SELECT pg_sleep(600)"}), {"Neon-Connection-String": sql.uri})
    h.wait_for(lambda: busy(sql) == 1, "the query runs")
    c.close()
    h.wait_for(lambda: busy(sql) == 0, "the query was cancelled", 5)


def ask(sql, query):
    """A connection that has asked, and does not wait for the answer."""
    body = json.dumps({"query": query}).encode()
    s = socket.create_connection(("127.0.0.1", sql.server.port), timeout=60)
    s.sendall(f"POST /sql HTTP/1.1\r\nHost: localhost\r\nNeon-Connection-String: {sql.uri}\r\n"
              f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return s


def test_a_client_that_resets_its_connection_has_its_query_cancelled(sql):
    """Nor does what it leaves keep the loop busy."""
    pid = sql.server.pid()
    s = ask(sql, "SELECT pg_sleep(600)")
    h.wait_for(lambda: busy(sql) == 1, "the query runs")
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    before = cpu_ticks(pid)
    s.close()
    h.wait_for(lambda: busy(sql) == 0, "the query was cancelled", 5)
    assert cpu_ticks(pid) - before < 50


def test_a_request_behind_one_that_runs_waits_and_costs_nothing(sql):
    before = cpu_ticks(sql.server.pid())
    with ask(sql, "SELECT pg_sleep(2)") as s:
        h.wait_for(lambda: busy(sql) == 1, "the query runs")
        s.sendall(b"OPTIONS /sql HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answers = b""
        while answers.count(b"HTTP/1.1 200 OK") < 2:
            more = s.recv(65536)
            assert more, answers
            answers += more
    assert b'"rowCount":1' in answers
    assert cpu_ticks(sql.server.pid()) - before < 100


def test_a_browser_may_ask_from_any_page(sql):
    c = http.client.HTTPConnection("127.0.0.1", sql.server.port, timeout=60)
    c.request("OPTIONS", "/sql", headers={"Origin": "https://example.org"})
    answer = c.getresponse()
    assert answer.status == 200 and answer.getheader("Access-Control-Allow-Origin") == "*"
    assert "Neon-Connection-String" in answer.getheader("Access-Control-Allow-Headers")
    c.close()
    assert sql.request("", method="GET")[0] == 405


def test_the_api_does_not_allow_other_origins(api):
    api("GET", "/projects")
    assert "access-control-allow-origin" not in {k.lower() for k in api.headers}


@pytest.mark.parametrize("options", ["FILECACHE", "ANALYZE, VERBOSE, BUFFERS, FILECACHE, FORMAT JSON",
                                     "FORMAT JSON, filecache true", "BUFFERS,ANALYZE,FILECACHE"])
def test_explain_takes_neons_own_option_and_leaves_it_out(sql, options):
    answer = sql(f"EXPLAIN ({options}) SELECT 1")
    assert "Result" in json.dumps(answer["rows"])
    assert sql("EXPLAIN (FILECACHES) SELECT 1", status=400)["code"] == "42601"


def test_a_pooler_host_leads_through_the_pooler(sql):
    uri = sql.make_uri(host=f"{sql.shop.endpoint}-pooler.localhost")
    assert values(sql("SELECT current_user::text, $1::int", 7, uri=uri)) == [["neondb_owner", 7]]
    batch = {"queries": [{"query": "CREATE TEMP TABLE t (n int)"}, {"query": "SELECT * FROM t"}]}
    status, _, answer = sql.request(batch, uri=uri)
    assert status == 200 and answer["results"][1]["rows"] == []
    assert sql("SELECT 1", status=400, uri=uri.replace(sql.password, "wrong"))["message"]


def test_copy_is_refused_and_the_server_goes_on(sql):
    sql("CREATE TABLE copied (n int)")
    for statement in ("COPY (SELECT 1) TO STDOUT", "COPY copied FROM STDIN"):
        assert "COPY" in sql(statement, status=400)["message"]
    assert values(sql("SELECT 1 AS n")) == [[1]]


def test_many_at_once_are_all_answered(sql):
    got = []

    def ask(i):
        got.append(values(sql("SELECT $1::int AS n, pg_sleep(0.05)", i))[0][0])
    threads = [threading.Thread(target=ask, args=(i,)) for i in range(40)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert sorted(got) == list(range(40))


def test_the_time_limit_ends_a_query(make_server):
    server = make_server(up=False)
    server.up("--sql-seconds", "2")
    api = Api(server)
    sql = Sql(server, Shop(api, api.project("p")))
    began = time.monotonic()
    assert "longer than 2 seconds" in sql("SELECT pg_sleep(600)", status=504)["message"]
    assert time.monotonic() - began < 10
    h.wait_for(lambda: busy(sql) == 0, "the query was cancelled", 5)


def test_a_database_in_another_encoding_answers_in_utf8(api, shop, sql):
    with connect(api("GET", f"{shop.path}/connection_uri")["uri"]) as c:
        for encoding in ("LATIN1", "SQL_ASCII"):
            c.run(f"CREATE DATABASE in_{encoding} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
    answer = sql("SELECT chr(228) || $1 AS t", "\u00fc", uri=sql.make_uri(database="in_latin1"))
    assert answer["rows"] == [{"t": "\u00e4\u00fc"}]
    answer = sql(r"SELECT E'a\377b' AS t", status=400, uri=sql.make_uri(database="in_sql_ascii"))
    assert answer["code"] == "22021"  # PostgreSQL lets nothing through that is no UTF-8
