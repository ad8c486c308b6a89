"""Who may come in: lists of addresses, and limits of wakes."""
import concurrent.futures
import struct

import harness as h
import test_door as t

UNTIL = "not allowed to connect"


def told(door, data):
    """What the door says to that."""
    with door.raw(data) as s:
        return t.read_all(s)


def allow(door, *words):
    return door.project.json("ip-allow", *words)


def test_a_list_is_held_before_a_wake_and_while_awake(project):
    door = t.Door(project)
    assert allow(door, "list") == {"ips": [], "protected_branches_only": False}
    door.project.suspend()
    assert allow(door, "add", "192.0.2.0/24", "2001:db8::/32")["ips"] == ["192.0.2.0/24", "2001:db8::/32"]
    named = {"options": f"project={project.name}"}
    for dsn in (door.clear(), door.tls(), door.clear(**named)):
        door.refused(dsn, UNTIL)
    assert door.state() == "idle"
    refusal = told(door, t.packet(user="x", database="x", options=f"endpoint={door.endpoint}"))
    assert t.error_of(refusal)["C"] == "28000"
    allow(door, "add", "127.0.0.1-127.0.0.9")
    with door.connect(door.clear()) as c:
        assert door.state() == "active"
        allow(door, "remove", "127.0.0.1-127.0.0.9")
        for dsn in (door.clear(), door.tls()):
            door.refused(dsn, UNTIL)
        assert c.one("SELECT 1") == 1  # who is in, stays
        project.server.kill()
        project.server.up()
        door.refused(door.clear(), UNTIL)
    assert allow(door, "reset")["ips"] == []
    door.connect(door.clear()).close()


def test_a_list_may_be_for_protected_branches_alone(project):
    door = t.Door(project)
    assert allow(door, "reset", "192.0.2.7", "--protected-only") == {
        "ips": ["192.0.2.7"], "protected_branches_only": True}
    door.connect(door.clear()).close()
    project.bough("branch", "protect", "main")
    door.refused(door.clear(), UNTIL)
    project.bough("branch", "unprotect", "main")
    door.connect(door.clear()).close()
    assert allow(door, "add", "--all-branches")["protected_branches_only"] is False
    door.refused(door.tls(), UNTIL)


def test_changes_at_once_do_not_undo_each_other(project):
    kept, gone, added = (["10.0.0.9"], [f"10.0.0.{n}" for n in range(1, 6)], [f"10.1.0.{n}" for n in range(1, 6)])
    project.bough("ip-allow", "reset", *kept, *gone)
    with concurrent.futures.ThreadPoolExecutor(11) as pool:
        jobs = [pool.submit(project.bough, "ip-allow", "remove", rule) for rule in gone] + \
            [pool.submit(project.bough, "ip-allow", "add", rule) for rule in added] + \
            [pool.submit(project.bough, "ip-allow", "add", "--protected-only")]
        for job in jobs:
            job.result()
    done = project.json("ip-allow", "list")
    assert sorted(done["ips"]) == sorted(kept + added) and done["protected_branches_only"] is True


def test_a_list_is_replaced_where_it_is_the_expected_one(project):
    path = f"/projects/{project.id}"

    def patch(expected, ips, **more):
        allowed = {"ips": ips, "expected": expected}
        status, _, body = project.server.api("PATCH", path, {"project": {"settings": {"allowed_ips": allowed}, **more}})
        return status, body
    nothing = {"ips": [], "protected_branches_only": False}
    assert patch(nothing, ["10.0.0.1"])[0] == 200
    for expected in (nothing, {}, {"ips": ["10.0.0.1"], "protected_branches_only": True}, {"ips": ["10.0.0.2"]}):
        status, body = patch(expected, ["10.0.0.3"], name="other")
        assert status == 412 and body["code"] == "PRECONDITION_FAILED" and body["hint"]
    assert patch({"ips": "10.0.0.1"}, [])[0] == 400
    assert patch({"ips": ["10.0.0.1"], "more": 1}, [])[0] == 422
    assert project.json("project", "get")["name"] == project.name
    assert project.json("ip-allow", "list")["ips"] == ["10.0.0.1"]
    assert patch({"ips": ["10.0.0.1"]}, [])[0] == 200


def test_a_rule_that_is_none_is_refused(project):
    for rule in ("localhost", "10.0.0.0/33", "10.0.0.9-10.0.0.1", "10.0.0.1-::1"):
        project.refused("ip-allow", "add", rule, status="invalid", says="no address, network or range")
    project.refused("ip-allow", "remove", "10.0.0.1", status="notfound")
    assert allow(t.Door(project), "list")["ips"] == []


def test_wakes_are_limited_for_each_endpoint_and_address(make_server):
    server = make_server(up=False)
    server.up("--wakes-per-endpoint", "3")
    door = t.Door(server.project("often"))
    for _ in range(3):
        door.project.suspend()
        door.connect(door.clear()).close()
    door.connect(door.clear()).close()  # it is awake: that is no wake
    door.project.suspend()
    refusal = t.error_of(told(door, t.packet(user="x", database="x", options=f"endpoint={door.endpoint}")))
    assert (refusal["C"], refusal["M"]) == ("57P03", "this endpoint is woken too often")
    assert "Try again in" in refusal["H"]
    door.refused(door.tls(), "woken too often")
    assert door.state() == "idle"
    door.project.bough("endpoint", "start", "main")  # who has the key may
    door.connect(door.clear()).close()
    server.down()
    server.up("--wakes-per-address", "2")
    for branch in ("a", "b", "c"):
        door.project.branch(branch)
        door.project.suspend(branch)
    for branch in ("a", "b"):
        door.connect(door.clear(options="", dbname=f"{door.login['dbname']}@{branch}")).close()
    door.refused(door.clear(options="", dbname=f"{door.login['dbname']}@c"), "this address wakes endpoints too often")
    door.connect(door.clear(options="", dbname=f"{door.login['dbname']}@a")).close()


def test_nothing_that_names_no_endpoint_wakes_one(project):
    """Nor does a cancel request with a process id that is nobody's."""
    door = t.Door(project)
    door.project.suspend()
    for data in (t.packet(user="x", database="x"), t.packet(user="x", database="x@nobody"),
                 t.packet(user="x", database="x", options="endpoint=ep-no-such-000000"),
                 t.packet(user="x", database="x' OR 1=1 --@../../main"),
                 struct.pack("!IIII", 16, 80877102, 1, 1)):
        told(door, data)
    assert door.state() == "idle"


def test_sizes_take_effect_at_the_next_start(project):
    sql = ("SELECT current_setting('shared_buffers'), current_setting('max_connections'),"
           " current_setting('work_mem'), current_setting('effective_cache_size')")
    door = t.Door(project)
    assert project.one("main", sql) == ("128MB", "100", "4MB", "4GB")
    made = project.json("endpoint", "resize", "main", "0.25-2")
    assert (made["autoscaling_limit_min_cu"], made["autoscaling_limit_max_cu"]) == (0.25, 2)
    assert project.one("main", sql) == ("128MB", "100", "4MB", "4GB")
    project.suspend()
    with door.connect(door.clear()) as c:
        assert c.one(sql) == ("256MB", "200", "8MB", "8GB")
    project.json("endpoint", "resize", "main", "0.25")
    project.bough("endpoint", "restart", "main")
    assert project.one("main", sql) == ("32MB", "50", "4MB", "1GB")
    for bad in ("0", "17", "0.3", "2-1", "x", "-1"):
        project.refused("endpoint", "resize", "main", bad, status=("invalid", "usage"))
