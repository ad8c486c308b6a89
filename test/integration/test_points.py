"""kill -9 of the server at every named point (src/util/crashpoint.h), and what must be so after a new start.

A point is killed at once or more; then the operation is wholly there or wholly not, as the table says, what
else there was is untouched, nothing is left over, and the operation can be done (again).
"""
import contextlib
import glob
import http.client
import os
import random
import re
import subprocess
import threading

import harness as h
import pytest
from psycopg2.extensions import parse_dsn
from faults import Faults
from test_kill import assert_nothing_left

pytestmark = pytest.mark.slow

# operation -> its points; THERE and GONE say what must be so afterwards, EITHER what may
THERE, GONE, EITHER = "there", "gone", "either"
POINTS = {
    "create": {
        "seal.prepared": GONE, "seal.gate-closed": GONE, "seal.moment-linked": GONE, "seal.head-moved:1": GONE,
        "seal.head-moved:3": GONE, "seal.head-moved:5": GONE, "seal.head-replaced:1": GONE,
        "seal.head-replaced:5": GONE, "seal.stack-replaced": GONE, "seal.published": GONE,
        "seal.directories-synced": GONE, "seal.indexed": GONE, "fork.control-written": GONE,
        "fork.stack-written": GONE, "fork.pending-written": GONE, "fork.child-named": GONE,
        "create.forked": GONE, "create.started": GONE, "create.committed": THERE, "create.ready": THERE,
        "sync.begun": THERE, "sync.layer-durable": THERE, "sync.all-durable": THERE, "sync.pending-removed": THERE},
    "create-at": {
        "sync.begun": THERE, "sync.head-durable": THERE, "sync.all-durable": THERE,
        "sync.pending-removed": THERE},
    "create-from-sleeping": {
        "seal.gate-closed": GONE, "seal.head-moved:2": GONE, "seal.head-replaced:4": GONE,
        "seal.stack-replaced": GONE, "seal.directories-synced": GONE, "seal.indexed": GONE},
    "delete": {
        "delete.stopped": THERE, "delete.committed": GONE, "delete.branch-discarded": GONE,
        "delete.layers-discarded": GONE, "delete.removed": GONE, "purge.one-removed": GONE},
    "restore": {
        "restore.files-made": GONE, "restore.recorded": GONE, "restore.exchanged": THERE,
        "restore.committed": THERE},
    "snapshot": {"snapshot.forked": GONE, "snapshot.committed": THERE},
    "snapshot-delete": {"snapshot.deleted": GONE},
    "snapshot-restore": {"finalize.stopped": GONE, "finalize.committed": THERE},
    "snapshot-restore-at-once": {
        "create.committed": GONE, "create.ready": GONE, "finalize.stopped": GONE, "finalize.committed": THERE},
    "merge": {
        "merge.made": THERE, "merge.named": THERE, "merge.stack-replaced": THERE, "merge.points-rewritten": THERE},
    "mend": {
        "mend.told": THERE, "mend.rewritten": THERE, "mend.indexed": THERE, "mend.durable": THERE,
        "settle.control-written": THERE},
    "point": {
        "seal.prepared": GONE, "seal.gate-closed": GONE, "seal.moment-linked": GONE, "seal.head-moved:3": GONE,
        "seal.stack-replaced": GONE, "seal.published": GONE, "seal.indexed": GONE, "point.taken": GONE,
        "point.stack-linked": GONE, "point.made": THERE},
    "forget": {
        "forget.point-renamed": GONE, "forget.point-removed": GONE, "forget.segment-removed:1": GONE,
        "forget.segment-removed:2": GONE},
    "reset": {"reset.recorded": THERE, "reset.changed": THERE},
    "schema": {"schema.copied": GONE, "schema.committed": THERE},
    "start": {"start.configured": THERE, "start.spawned": THERE, "start.ready": THERE},
    "stop": {"stop.ended": THERE, "stop.let-go": THERE},
    "standby": {"standby.forked": GONE, "standby.discarded": GONE},
    "export": {
        "export.forked": GONE, "export.control-written": GONE, "export.files-written": GONE,
        "export.synced": GONE, "export.written": THERE},
    "project": {"project.files-made": GONE, "project.furnished": GONE, "project.committed": THERE},
    "project-delete": {
        "project-delete.stopped": THERE, "project-delete.committed": GONE, "project-delete.one-removed": GONE},
    "template": {
        "template.initialised": GONE, "template.adopted": GONE, "template.recorded": GONE, "adopt.named": GONE},
    "import": {
        "import.copied": GONE, "adopt.control-moved": GONE, "adopt.directory-moved:1": GONE,
        "adopt.directory-moved:4": GONE, "adopt.indexed": GONE, "adopt.layer-durable": GONE,
        "adopt.pgdata-moved": GONE, "adopt.stacked": GONE, "adopt.named": GONE},
    "reindex": {"settle.marked": THERE, "reindex.indexed": THERE},  # test_kill.py: it takes a power cut
}
SEED = os.environ.get("BOUGH_POINTS_SEED") or str(random.randrange(10**6))
CASES = [(operation, point, outcome) for operation, points in POINTS.items() for point, outcome in points.items()]


def cases(operation):
    """All points with --long; else a quarter of them, others in the next run. BOUGH_POINTS_SEED does the same again."""
    some = list(POINTS[operation].items())
    if not h.LONG:
        some = random.Random(SEED + operation).sample(some, (len(some) + 3) // 4)
    return pytest.mark.parametrize("point,outcome", some)


def test_every_point_has_a_test_and_every_operation_has_points():
    named = set()
    for path in glob.glob(os.path.join(h.ROOT, "src/**/*.c"), recursive=True):
        with open(path, encoding="utf-8") as f:
            found = re.findall(r'BOUGH_POINT\(\w+, "([^"]+)"\)', f.read())
        assert len(found) == len(set(found)) and not named & set(found), f"{path}: a name is used twice"
        named |= set(found)
    tested = {point.split(":")[0] for _, point, _ in CASES}
    assert named == tested, f"without a test: {named - tested}; without a point: {tested - named}"
    # what the store and the server can do in more than one step
    operations = {name.split(".")[0] for name in named}
    assert operations == {"seal", "fork", "point", "forget",
                          "create", "sync", "delete", "purge", "start", "stop", "export", "project",
                          "project-delete", "template", "import", "adopt", "restore", "snapshot", "finalize", "merge",
                          "schema", "standby", "mend", "settle", "reset", "reindex"}


class State:
    """One server with a project for all tests: only what a test makes may change."""

    def __init__(self, server):
        self.server, self.number = server, 0
        self.p = server.project("p")
        self.bank = h.Bank(self.p).init()
        self.p.branch("other")
        self.p.sql("other", "CREATE TABLE t AS SELECT generate_series(1, 1000) AS id")

    def name(self):
        self.number += 1
        return f"b{self.number}"

    def check(self):
        """What was there before is there, and works."""
        assert_nothing_left(self.server)
        with self.p.connect() as c:
            self.bank.check(c)
            c.run("UPDATE pgbench_branches SET filler = 'touched'")
        assert self.p.one("other", "SELECT count(*) FROM t") == 1000


@pytest.fixture(scope="module")
def state(session_dir, pg18):
    directory = os.path.join(session_dir, "points")
    os.makedirs(directory, mode=0o755)
    server = h.Bough(directory, pg18).up()
    yield State(server)
    server.destroy()


def crash(server, point, *args, call=None, dead=None):
    """Start the server so that it dies at a point, run a command (or call the API), see that it died, start it again.

    `dead` is called before the next one, which may do by itself what this one did not come to.
    Returns whether the command said that it succeeded.
    """
    pid = None
    while not pid:
        server.down("--keep-computes")
        server.env["BOUGH_CRASH_AT"] = point
        try:
            server.up()
            pid = server.pid()
        except AssertionError:  # a restore point that was due came there before
            del server.env["BOUGH_CRASH_AT"]
            server.up()
        finally:
            server.env.pop("BOUGH_CRASH_AT", None)
    command, failed = None, []

    def work():
        try:
            with contextlib.suppress(OSError, http.client.HTTPException):
                call()
        except BaseException as e:  # pylint: disable=broad-exception-caught # told below
            failed.append(e)
    caller = threading.Thread(target=work)
    if call:
        caller.start()
    else:
        command = subprocess.Popen([h.BOUGH, *args, "--store", server.store], env=server.env,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                   text=True, start_new_session=True)
    died, said = False, ""
    try:
        h.wait_for(lambda: not h.is_alive(pid), f"the server has come to {point}", 30)
        died = True
        if dead:
            dead()
    finally:
        if command:
            said = command.communicate(timeout=60)[1]
        assert died or not said, f"the server has not come to {point}; the command said: {said}"
        if call:
            caller.join(5)  # a statement waits for the next server where this one has closed the gate
        with contextlib.suppress(AssertionError):
            server.up()
        if call:
            caller.join(60)
    if failed:
        raise failed[0]
    return bool(command) and command.returncode == 0


@pytest.fixture(autouse=True)
def _count(request, counted):
    if "point" in request.fixturenames:
        counted("kills at named points")


def expect(there, outcome, acknowledged):
    assert outcome == EITHER or there == (outcome == THERE), f"it is {'there' if there else 'gone'}, not {outcome}"
    assert there or not acknowledged, "it was acknowledged and is gone"


@cases("create")
def test_a_branch_of_a_running_parent(state, point, outcome):
    name = state.name()
    with state.bank.running():
        acknowledged = crash(state.server, point, "branch", "create", name, "--project", state.p.id)
    expect(name in state.p.branches(), outcome, acknowledged)
    if name not in state.p.branches():
        state.p.branch(name)
    with state.p.connect(name) as c:
        state.bank.check(c)
    state.p.purge(name)
    state.check()


@cases("create-at")
def test_a_branch_of_a_moment(state, point, outcome):
    name = state.name()
    state.p.sql("main", "UPDATE pgbench_tellers SET filler = 'something to replay'")
    at = state.p.one("main", "SELECT pg_current_wal_flush_lsn()")
    acknowledged = crash(state.server, point, "branch", "create", name, "--at", at, "--project", state.p.id)
    expect(name in state.p.branches(), outcome, acknowledged)
    assert state.p.one(name, "SELECT count(*) FROM pgbench_tellers WHERE filler LIKE 'something%'")
    pending = f"{state.server.store}/branches/{state.p.get(name)['id']}/pending"
    h.wait_for(lambda: not os.path.exists(pending), "it is durable")
    with state.p.connect(name) as c:
        state.bank.check(c)
    state.p.purge(name)
    state.check()


@cases("create-from-sleeping")
def test_a_branch_of_a_sleeping_parent(state, point, outcome):
    name = state.name()
    state.p.sql("main", "UPDATE pgbench_tellers SET filler = 'head is not empty'")
    state.p.suspend()
    acknowledged = crash(state.server, point, "branch", "create", name, "--project", state.p.id)
    expect(name in state.p.branches(), outcome, acknowledged)
    state.check()
    state.p.branch(state.name())
    with state.p.connect(f"b{state.number}") as c:
        state.bank.check(c)
    state.p.purge(f"b{state.number}")
    state.check()


@cases("delete")
def test_deleting_a_branch(state, point, outcome):
    name = state.name()
    state.p.branch(name)
    crash(state.server, point, "branch", "delete", name, "--purge", "--project", state.p.id)
    there = name in state.p.branches()
    expect(there, outcome, False)
    if there:
        with state.p.connect(name) as c:
            state.bank.check(c)
        state.p.purge(name)
    state.check()


@cases("reset")
def test_resetting_a_password(state, point, outcome):
    name = state.name()
    state.p.branch(name)
    before = parse_dsn(state.p.uri(name))
    path = f"/projects/{state.p.id}/branches/{state.p.get(name)['id']}"
    crash(state.server, point, call=lambda: state.server.api("POST",
                                                             f"{path}/roles/{before['user']}/reset_password"))
    state.p.branch("of-" + name, name)  # has what its parent has, and does not know either
    for branch in ("of-" + name, name):
        now = parse_dsn(state.p.uri(branch))
        expect(now["password"] != before["password"], outcome, False)
        assert state.p.one(branch, "SELECT 1") == 1
    status, _, answer = state.server.api("GET", f"{path}/roles/{before['user']}/reveal_password")
    assert status == 200 and answer["password"] == parse_dsn(state.p.uri(name))["password"]
    state.p.purge("of-" + name)
    state.p.purge(name)
    state.check()


@cases("restore")
def test_restoring_a_branch(state, point, outcome):
    name = state.name()
    state.p.branch(name)
    state.p.sql(name, "CREATE TABLE r AS SELECT 1 AS id")
    when = h.now()
    state.p.sql(name, "INSERT INTO r VALUES (2)")
    branch = state.p.get(name)["id"]
    acknowledged = crash(state.server, point, "branch", "restore", name, "--at", when, "--preserve-under-name",
                         f"{name}-kept", "--project", state.p.id)
    there = f"{name}-kept" in state.p.branches()
    expect(there, outcome, acknowledged)
    assert state.p.get(name)["id"] == branch
    assert state.p.one(name, "SELECT array_agg(id ORDER BY id) FROM r") == ([1] if there else [1, 2])
    if there:
        assert state.p.one(f"{name}-kept", "SELECT count(*) FROM r") == 2
    state.check()
    state.p.purge(name)
    if there:
        state.p.purge(f"{name}-kept")
    state.check()


@cases("schema")
def test_a_branch_with_a_schema_alone(state, point, outcome):
    name = state.name()
    acknowledged = crash(state.server, point, "branch", "create", name, "--schema-only", "--project", state.p.id)
    expect(name in state.p.branches(), outcome, acknowledged)
    for look in (b for b in state.p.branches() if b.startswith("tmp-look-")):  # it would go by itself
        state.p.purge(look)
    if name not in state.p.branches():
        state.p.bough("branch", "create", name, "--schema-only")
    assert state.p.one(name, "SELECT count(*) FROM pgbench_accounts") == 0
    state.p.purge(name)
    state.check()


def snapshots(state):
    return {s["name"] for s in state.p.json("snapshot", "list")}


@cases("snapshot")
def test_taking_a_snapshot(state, point, outcome):
    name = state.name()
    with state.bank.running():
        acknowledged = crash(state.server, point, "snapshot", "create", "main", "--name", name,
                             "--project", state.p.id)
    expect(name in snapshots(state), outcome, acknowledged)
    if name not in snapshots(state):
        state.p.bough("snapshot", "create", "main", "--name", name)
    state.p.bough("snapshot", "restore", name, "--name", f"{name}-look")
    with state.p.connect(f"{name}-look") as c:
        state.bank.check(c)
    state.p.purge(f"{name}-look")
    state.p.bough("snapshot", "delete", name)
    state.check()


@cases("snapshot-delete")
def test_deleting_a_snapshot(state, point, outcome):
    name = state.name()
    state.p.bough("snapshot", "create", "main", "--name", name)
    crash(state.server, point, "snapshot", "delete", name, "--project", state.p.id)
    expect(name in snapshots(state), outcome, False)
    state.check()


@cases("snapshot-restore")
def test_a_restored_branch_takes_the_place_of_another(state, point, outcome):
    name = state.name()
    state.p.branch(name)
    state.p.sql(name, "CREATE TABLE r AS SELECT 1 AS id")
    state.p.bough("snapshot", "create", name, "--name", f"{name}-snap")
    state.p.sql(name, "INSERT INTO r VALUES (2)")
    uri = state.p.uri(name)
    state.p.bough("snapshot", "restore", f"{name}-snap", "--name", f"{name}-look")
    acknowledged = crash(state.server, point, "snapshot", "finalize", f"{name}-look", "--old-name", f"{name}-old",
                         "--project", state.p.id)
    there = f"{name}-old" in state.p.branches()
    expect(there, outcome, acknowledged)
    assert (f"{name}-look" in state.p.branches()) == (not there)
    assert state.p.one(name, "SELECT array_agg(id ORDER BY id) FROM r") == ([1] if there else [1, 2])
    with state.p.connect(uri=uri) as c:  # the address and the password are those that were known
        assert c.one("SELECT count(*) FROM r") == (1 if there else 2)
    assert state.p.one(f"{name}-old" if there else f"{name}-look", "SELECT count(*) FROM r") == (2 if there else 1)
    state.check()
    for branch in (name, f"{name}-old") if there else (f"{name}-look", name):
        state.p.purge(branch)
    state.p.bough("snapshot", "delete", f"{name}-snap")


@cases("snapshot-restore-at-once")
def test_a_snapshot_replaces_a_branch_at_once(state, point, outcome):
    name = state.name()
    state.p.branch(name)
    state.p.sql(name, "CREATE TABLE r AS SELECT 1 AS id")
    state.p.bough("snapshot", "create", name, "--name", f"{name}-snap")
    state.p.sql(name, "INSERT INTO r VALUES (2)")
    before = set(state.p.branches())
    acknowledged = crash(state.server, point, "snapshot", "restore", f"{name}-snap", "--finalize", "--name",
                         f"{name}-old", "--project", state.p.id)
    there = f"{name}-old" in state.p.branches()
    expect(there, outcome, acknowledged)
    assert set(state.p.branches()) == before | ({f"{name}-old"} if there else set())
    assert state.p.one(name, "SELECT array_agg(id ORDER BY id) FROM r") == ([1] if there else [1, 2])
    state.check()
    for branch in (name, f"{name}-old") if there else (name,):
        state.p.purge(branch)
    state.p.bough("snapshot", "delete", f"{name}-snap")


@cases("merge")
def test_merging_layers(state, point, outcome):
    project = state.server.project(state.name())
    project.sql("main", "CREATE TABLE r (id int)")
    done = []

    def seal():
        """Until the server ends; what was committed is in `done`."""
        with contextlib.suppress(Exception), project.connect() as c, project.admin() as admin:
            for i in range(60):
                c.run(f"INSERT INTO r VALUES ({i})")
                done.append(i)
                admin.run("CHECKPOINT")  # so that there is something to seal
                project.branch("b")
                project.purge("b")

    crash(state.server, point, call=seal)
    expect("main" in project.branches(), outcome, False)
    rows = project.one("main", "SELECT array_agg(id ORDER BY id) FROM r")
    assert rows[:len(done)] == done and len(rows) <= len(done) + 1
    project.sql("main", "INSERT INTO r VALUES (1000)")
    # where the first round came too early, the next one does it
    h.wait_for(lambda: project.get()["depth"] <= 8, "the stack is short", 120)
    assert project.one("main", "SELECT count(*) FROM r") == len(rows) + 1
    state.check()
    h.assert_clean(project)
    state.server.bough("project", "delete", project.id)
    state.check()


def restore_points(project):
    path = f"{project.server.store}/branches/{project.get()['id']}"
    h.wait_for(lambda: not [name for name in os.listdir(path) + os.listdir(f"{path}/points") if "~" in name],
               "no work is left that did not end")
    return sorted(name for name in os.listdir(f"{path}/points") if "~" not in name)


def keep_history(project, seconds):
    """A restore point is due at once where the last one is older than an eighth of that."""
    with project.admin() as admin:
        admin.run("SELECT pg_switch_wal()")
        admin.run("CHECKPOINT")  # so that there is something to seal
    project.server.api("PATCH", f"/projects/{project.id}", {"project": {"history_retention_seconds": seconds}})


def branch_at(project, name, point):
    project.bough("branch", "create", name, "--at", f"{point[:8].lstrip('0') or 0}/{point[8:]}")


@cases("point")
def test_making_a_restore_point(state, point, outcome):
    project = state.server.project(state.name())

    def shorten():
        keep_history(project, 1)

    project.sql("main", "CREATE TABLE r AS SELECT generate_series(1, 1000) AS id")
    before = restore_points(project)
    points, left = f"{state.server.store}/branches/{project.get()['id']}/points", []
    crash(state.server, point, call=shorten, dead=lambda: left.extend(n for n in os.listdir(points) if "~" not in n))
    expect(bool(set(left) - set(before)), outcome, False)
    assert project.one("main", "SELECT count(*) FROM r") == 1000
    project.sql("main", "INSERT INTO r VALUES (1001)")
    high, low = project.one("main", "SELECT pg_current_wal_insert_lsn()").split("/")
    shorten()
    h.wait_for(lambda: int(restore_points(project)[-1], 16) >= int(high, 16) << 32 | int(low, 16),
               "a point is made after all")
    branch_at(project, "then", restore_points(project)[-1])
    assert project.one("then", "SELECT count(*) FROM r") == 1001
    state.check()
    h.assert_clean(project)
    state.server.bough("project", "delete", project.id)
    state.check()


@cases("forget")
def test_forgetting_history(state, point, outcome):
    project = state.server.project(state.name())
    first = restore_points(project)[0]
    project.sql("main", "CREATE TABLE r (id int)")
    for i in range(4):
        project.sql("main", f"INSERT INTO r VALUES ({i})")
        before = restore_points(project)[-1]
        h.wait_for(lambda: keep_history(project, 1) or restore_points(project)[-1] > before,  # noqa: B023
                   "a point is made")
        keep_history(project, 600000)
    crash(state.server, point, call=lambda: keep_history(project, 1))
    expect(first in restore_points(project), outcome, False)
    keep_history(project, 600000)
    oldest = restore_points(project)[0]
    branch_at(project, "then", oldest)  # which needs the WAL from its redo on
    assert 1 <= project.one("then", "SELECT count(*) FROM r") <= 4
    assert project.one("main", "SELECT count(*) FROM r") == 4
    state.check()
    h.assert_clean(project)
    state.server.bough("project", "delete", project.id)
    state.check()


@cases("start")
def test_starting_a_compute(state, point, outcome):
    state.p.suspend("other")
    crash(state.server, point, "endpoint", "start", "other", "--project", state.p.id)
    expect("other" in state.p.branches(), outcome, False)
    state.check()
    assert state.p.one("other", "SELECT 1") == 1


@cases("stop")
def test_stopping_a_compute(state, point, outcome):
    state.p.start("other")
    crash(state.server, point, "endpoint", "suspend", "other", "--project", state.p.id)
    expect("other" in state.p.branches(), outcome, False)
    state.check()


@cases("standby")
def test_a_read_only_compute(state, point, outcome):
    endpoint = state.p.json("endpoint", "create", "other", "--type", "read_only")["id"]
    verb = "suspend" if point == "standby.discarded" else "start"
    if verb == "start":
        state.p.suspend(endpoint)
    crash(state.server, point, "endpoint", verb, endpoint, "--project", state.p.id)
    there = state.p.json("endpoint", "get", endpoint)["current_state"] == "active"
    expect(there, outcome, False)
    assert not os.path.exists(f"{state.server.store}/branches/{endpoint}")
    state.check()
    with state.p.connect(uri=state.p.bough("cs", "other", "--endpoint", endpoint).stdout.strip()) as c:
        assert c.one("SELECT count(*) FROM t") == 1000 and c.one("SELECT pg_is_in_recovery()")
    state.p.bough("endpoint", "delete", endpoint)
    state.check()


@cases("mend")
def test_mending_a_layer(session_dir, state, point, outcome):
    """The disk refuses a layer once; boughd dies on its way to have it durable after all."""
    directory = os.path.join(session_dir, f"points-{state.name()}")
    os.makedirs(directory, mode=0o755)
    fault = Faults(directory)
    parent, child = state.name(), state.name()
    state.p.branch(parent)
    state.p.sql(parent, "CREATE TABLE r AS SELECT g AS id, repeat('x', 500) AS fill FROM generate_series(1, 1000) g")
    state.server.env |= fault.env()
    try:
        with fault.failing("sync", "EIO", path="*/layers/*/data/base/*", program="boughd"):
            path = f"/projects/{state.p.id}/branches"
            body = {"branch": {"name": child, "parent_id": state.p.get(parent)["id"]},
                    "endpoints": [{"type": "read_write"}]}
            crash(state.server, point, call=lambda: state.server.api("POST", path, body))
            assert fault.fired
    finally:
        for name in fault.env():
            del state.server.env[name]
    expect(child in state.p.branches(), outcome, False)
    h.wait_for(lambda: not glob.glob(f"{state.server.store}/layers/*/*/refused"), "the layer is mended")
    for branch in (child, parent):
        assert state.p.one(branch, "SELECT count(*) FROM r") == 1000
        state.p.sql(branch, "UPDATE r SET id = -id")
    state.p.branch(f"{child}-of", child)
    assert state.p.one(f"{child}-of", "SELECT count(*) FROM r WHERE id < 0") == 1000
    for branch in (f"{child}-of", child, parent):
        state.p.suspend(branch)  # where its last fsync fails, since it was told of the layer, it recovers
        h.assert_clean(state.p, branch)
        state.p.purge(branch)
    state.check()


@cases("export")
def test_exporting_a_branch(state, point, outcome, directory, make_stock):
    target = os.path.join(state.server.dir, f"export-{state.name()}")
    os.mkdir(target, 0o700)
    if h.IS_ROOT:
        os.chown(target, h.OS_USER.pw_uid, h.OS_USER.pw_gid)
    path = f"/projects/{state.p.id}/branches/{state.p.get('other')['id']}/export"
    state.p.suspend("other")  # so that the export is of a clean stop
    # by the API: the command line removes what it made when the server dies
    crash(state.server, point, call=lambda: state.server.api("POST", path, {"path": target}))
    expect(os.path.exists(f"{target}/global/pg_control"), outcome, False)
    state.check()
    stock = make_stock()
    os.makedirs(stock.dir, mode=0o755, exist_ok=True)
    if h.IS_ROOT:
        os.chown(stock.dir, h.OS_USER.pw_uid, h.OS_USER.pw_gid)
    if outcome == GONE:
        done = h.run(h.as_server([f"{stock.bin}/postgres", "--single", "-D", target, "postgres"]), check=False)
        assert done.returncode != 0, "a postgres starts on half an export"
    else:
        done = h.run([h.tool("pg_checksums"), "--check", "-D", target], check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@cases("project")
def test_making_a_project(state, point, outcome):
    name = state.name()
    acknowledged = crash(state.server, point, "project", "create", name, "--pg-version", str(h.PG))
    made = [p for p in state.server.projects() if p["name"] == name]
    expect(bool(made), outcome, acknowledged)
    state.check()
    if not made:
        made = [{"id": state.server.project(name).id}]
    assert h.Project(state.server, made[0]["id"], name, None, h.PG).one("main", "SELECT 1") == 1
    state.server.bough("project", "delete", made[0]["id"])
    state.check()


@cases("project-delete")
def test_deleting_a_project(state, point, outcome):
    name = state.name()
    project = state.server.project(name)
    project.branch("child")
    crash(state.server, point, "project", "delete", project.id)
    there = any(p["name"] == name for p in state.server.projects())
    expect(there, outcome, False)
    state.check()
    if there:
        assert project.one("child", "SELECT 1") == 1
        state.server.bough("project", "delete", project.id)
        state.check()


@cases("template")
def test_the_first_project_of_a_version(make_server, point, outcome):
    server = make_server()
    acknowledged = crash(server, point, "project", "create", "p", "--pg-version", str(h.PG))
    expect(bool(server.projects()), outcome, acknowledged)
    assert_nothing_left(server)
    assert server.project("p").one("main", "SELECT 1") == 1
    assert_nothing_left(server)


@pytest.fixture(name="source", scope="module")
def fixture_source(session_dir):
    stock = h.Stock(os.path.join(session_dir, "points-source")).init(wal_level="replica", max_wal_senders=4).start()
    with stock.connect() as c:
        c.run("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id")
    yield stock
    stock.stop()


@cases("import")
def test_importing_a_cluster(state, source, point, outcome):
    name = state.name()
    acknowledged = crash(state.server, point, "project", "create", name, "--from", source.url())
    expect(any(p["name"] == name for p in state.server.projects()), outcome, acknowledged)
    state.check()
    with source.connect() as c:
        h.wait_for(lambda: c.one("SELECT count(*) FROM pg_stat_replication") == 0, "the import has left its source")


def test_after_all_that_every_page_is_right(state):
    for branch in h.times(("main",), ("main", "other")):
        h.assert_clean(state.p, branch)
