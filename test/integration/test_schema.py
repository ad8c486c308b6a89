"""GET .../schema and .../compare_schema: what pg_dump and diff say of branches, now and at moments."""
import pytest

from api import assert_used, connect, quote

ROUTES = ("/projects/{project_id}/branches/{branch_id}/schema",
          "/projects/{project_id}/branches/{branch_id}/compare_schema")


@pytest.fixture(scope="module", name="tree")
def fixture_tree(api, shop):
    """main has a table; its child `changed` has one more column and one more table."""
    with connect(shop.made["connection_uris"][0]["connection_uri"]) as c:
        c.run("CREATE TABLE item (id int PRIMARY KEY, name text NOT NULL UNIQUE,"
              " twice int GENERATED ALWAYS AS (id * 2) STORED)")
        shop.lsn = c.one("SELECT pg_current_wal_insert_lsn()::text")
    changed = shop.branch("changed")
    with connect(changed["connection_uris"][0]["connection_uri"]) as c:
        c.run("ALTER TABLE item ADD price numeric(10, 2)")
        c.run('CREATE SCHEMA "Other"')
        c.run('CREATE TABLE "Other".line (item int REFERENCES item, no int, PRIMARY KEY (item, no))')
    shop.changed = changed["branch"]["id"]
    return shop


def schema(api, shop, branch, **query):
    text = "&".join(f"{k}={quote(v)}" for k, v in ({"db_name": "neondb"} | query).items())
    return api("GET", f"{shop.path}/branches/{branch}/schema?{text}")


def test_a_schema_can_be_run_again_and_two_readings_are_the_same(api, tree, directory, make_stock):
    sql = schema(api, tree, tree.changed)["sql"]
    assert "CREATE TABLE public.item" in sql and 'CREATE TABLE "Other".line' in sql
    assert "bough_admin" not in sql and "\\restrict" not in sql
    assert schema(api, tree, tree.changed, format="sql")["sql"] == sql
    stock = make_stock().init().start()
    with stock.connect() as c:
        c.run("CREATE ROLE neondb_owner")
        c.run(sql)
        assert c.one('SELECT count(*) FROM "Other".line') == 0


def test_tables_columns_and_constraints_are_told_as_json(api, tree):
    tables = {(t["schema"], t["name"]): t
              for t in schema(api, tree, tree.changed, format="json")["json"]["tables"]}
    assert set(tables) == {("public", "item"), ("Other", "line")}
    item, line = tables["public", "item"], tables["Other", "line"]
    assert [(c["name"], c["type"], c["nullable"], c["generated"]) for c in item["columns"]] == [
        ("id", "integer", False, False), ("name", "text", False, False),
        ("twice", "integer", True, True), ("price", "numeric(10,2)", True, False)]
    assert {c["type"] for c in item["constraints"]} == {"primary_key", "unique"}
    kinds = {c["type"]: c for c in line["constraints"]}
    assert kinds["primary_key"]["columns"] == ["item", "no"]
    assert kinds["foreign_key"]["referenced_table"] == {"schema": "public", "table": "item",
                                                        "columns": ["id"]}


def test_a_moment_of_the_past_has_the_schema_of_then(api, tree):
    before = tree.names()
    with connect(tree.made["connection_uris"][0]["connection_uri"]) as c:
        c.run("CREATE TABLE later ()")
    assert "public.later" in schema(api, tree, tree.main)["sql"]
    then = schema(api, tree, tree.main, lsn=tree.lsn)["sql"]
    assert "public.later" not in then and "public.item" in then
    assert tree.names() == before  # the branch that was looked at is gone, for good
    assert "schema-" not in str(api("GET", f"{tree.path}/branches?include_deleted=true"))
    with connect(tree.made["connection_uris"][0]["connection_uri"]) as c:
        c.run("DROP TABLE later")


def test_a_branch_without_an_endpoint_has_a_schema(api, tree):
    made = tree.branch("still", endpoint=False)["branch"]["id"]
    assert "public.item" in schema(api, tree, made)["sql"]
    assert not api("GET", f"{tree.path}/branches/{made}/endpoints")["endpoints"]


def test_the_difference_names_what_was_added(api, tree):
    path = f"{tree.path}/branches/{tree.changed}/compare_schema?db_name=neondb"
    diff = api("GET", path)["diff"]  # to its parent
    assert diff.startswith("--- a/main\n+++ b/changed\n@@") and "\n+    price numeric(10,2)" in diff
    assert api("GET", f"{path}&base_branch_id={tree.main}")["diff"] == diff
    assert api("GET", f"{path}&base_branch_id={tree.changed}")["diff"] == ""
    back = api("GET", f"{tree.main_path}/compare_schema?db_name=neondb&base_branch_id={tree.changed}")
    assert "\n-    price numeric(10,2)" in back["diff"]


@pytest.mark.parametrize("query,status", [
    ("", 400), ("db_name=", 400), ("db_name=nothing", 404), ("db_name=neondb&format=xml", 400),
    ("db_name=neondb&lsn=x", 400), ("db_name=neondb&timestamp=yesterday", 400),
    ("db_name=neondb&lsn=0/1&timestamp=2026-01-01T00:00:00Z", 400),
    ("db_name=neondb&timestamp=2001-01-01T00:00:00Z", (400, 404)),
    ("db_name=-h%20127.0.0.1", 404), ("db_name=host%3D127.0.0.1", 404)])
def test_a_schema_of_nothing_is_refused(api, tree, query, status):
    api("GET", f"{tree.main_path}/schema?{query}", status=status)


def test_the_root_branch_is_compared_with_a_named_one_only(api, tree):
    api("GET", f"{tree.main_path}/compare_schema?db_name=neondb", status=400)
    api("GET", f"{tree.main_path}/compare_schema?db_name=neondb&base_branch_id=br-none", status=404)


def test_reading_a_schema_wakes_the_branch_and_is_undisturbed_by_what_users_made(api, tree):
    """A function that shadows one of PostgreSQL's own must not run as the superuser that reads."""
    with connect(tree.made["connection_uris"][0]["connection_uri"]) as c:
        c.run("CREATE FUNCTION public.format_type(oid, int) RETURNS text LANGUAGE plpgsql AS"
              " $$ BEGIN RAISE 'shadowed'; END $$")
    api("POST", f"{tree.path}/endpoints/{tree.endpoint}/suspend")
    assert schema(api, tree, tree.main, format="json")["json"]["tables"]
    assert api("GET", f"{tree.path}/endpoints/{tree.endpoint}")["endpoint"]["current_state"] == "active"


def test_every_route_of_this_file_was_used(request):
    assert_used(request)
