"""The server: starting, ending, dying; stores it refuses, users, what keeps computes apart."""
import contextlib
import glob
import http.server
import json
import os
import pwd
import re
import shutil
import signal
import socket
import sqlite3
import stat
import struct
import subprocess
import threading

import psycopg2
import pytest

import harness as h

BOUGHD = os.path.join(h.BUILD, "src/server/boughd")
as_root = pytest.mark.skipif(not h.IS_ROOT, reason="needs root")


def files(directory):
    return sorted(os.path.join(d, n) for d, _, names in os.walk(directory) for n in names)


def port_of(server):
    return int(server.status()["api_url"].split(":")[2].split("/")[0])


# ---- up and down ----

def test_up_twice_is_one_server_and_down_twice_is_down(make_server):
    server = make_server()
    pid = server.pid()
    again = server.json("up")
    assert again["already_running"] and again["pid"] == pid
    assert server.status()["running"]
    server.down()
    assert not h.is_alive(pid) and not os.path.exists(f"{server.store}/run/server.json")
    server.down()
    server.refused("status", status="unreachable", says="no server runs", hint="bough up")
    server.up()
    assert server.pid() != pid


def test_two_ups_at_once_are_one_server(make_server):
    server = make_server(up=False)
    started = [subprocess.Popen([h.BOUGH, "up", "--json", "--store", server.store],
                                stdin=subprocess.DEVNULL, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=server.env)
               for _ in range(4)]
    done = [(p.communicate(timeout=60), p.returncode) for p in started]
    assert [code for _, code in done] == [0] * 4, done
    assert len({json.loads(out)["pid"] for (out, _), _ in done}) == 1


def test_up_needs_no_standard_descriptors(make_server):
    """As a job of cron's may run it. The log's descriptor had one of their numbers, and so had the one for being
    ready."""
    server = make_server(up=False)
    h.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", h.BOUGH, "up", "--port", server.port, "--listen",
           f"127.0.0.1:{server.door}", "--store", server.store], env=server.env, timeout=60)
    assert server.status()["running"] and "listening" in server.log()


def test_boughd_gives_no_file_the_number_of_a_standard_descriptor(make_server):
    """What it writes into its log would get into that file."""
    server = make_server(up=False)
    boughd = subprocess.Popen(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", BOUGHD, "--store", server.store, "--port",
                               str(server.port), "--listen", f"127.0.0.1:{server.door}"], env=server.env)
    try:
        h.wait_for(lambda: os.path.exists(f"{server.store}/run/server.json"), "it is ready")
        for n in range(3):
            assert os.readlink(f"/proc/{boughd.pid}/fd/{n}") == "/dev/null"
            with open(f"/proc/{boughd.pid}/fdinfo/{n}", encoding="ascii") as f:
                flags = int(re.search(r"flags:\s+(\d+)", f.read()).group(1), 8)
            assert flags & os.O_ACCMODE == os.O_RDWR and not flags & os.O_CLOEXEC
    finally:
        boughd.terminate()
        boughd.wait(60)


def test_a_second_boughd_on_the_store_is_refused(server):
    done = h.run([BOUGHD, "--store", server.store], check=False, timeout=30)
    assert done.returncode == h.EXIT["busy"]
    lines = done.stderr.strip().split("\n")
    assert lines[-2] == f'boughd: error: another server has the store "{server.store}"' \
        and "bough down" in lines[-1]
    assert server.status()["running"]


def test_a_port_that_is_taken(server, make_server):
    other = make_server("other", up=False)
    other.refused("up", "--port", str(port_of(server)), status="conflict", says="is taken",
                  hint="--port")
    other.up()
    assert port_of(other) == other.port


@pytest.mark.parametrize("args", [["status"], ["branch", "list"], ["project", "create", "x"],
                                  ["psql"], ["cs", "main"],
                                  ["endpoint", "start", "main"], ["export", "main", "/nowhere/x"]],
                         ids=" ".join)
def test_without_a_server_every_command_says_how_to_start_it(make_server, args):
    server = make_server(up=False)
    server.refused(*args, status="unreachable", says="no server runs", hint="bough up")
    assert not os.path.exists(server.store)


# ---- dying ----

@contextlib.contextmanager
def stranger(port):
    """Somebody listens there, knows nothing, and keeps what comes."""
    told = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            told.append(f"{self.requestline} {self.headers}")
            self.send_error(404)
        do_POST = do_GET

        def log_message(self, *_):
            pass
    with http.server.HTTPServer(("127.0.0.1", port), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever)
        thread.start()
        try:
            yield told
        finally:
            listener.shutdown()
            thread.join()


@pytest.mark.parametrize("has_mark", [True, False])
def test_who_gets_the_number_and_the_port_of_a_dead_server_does_not_get_its_key(make_server, has_mark):
    server = make_server()
    server.kill()
    path = f"{server.store}/run/server.json"
    with open(path, encoding="utf-8") as f:
        said = json.load(f)
    said["pid"] = os.getpid()
    if not has_mark:
        del said["process"]
    with open(path, "w", encoding="utf-8") as f:
        json.dump(said, f)
    with stranger(server.port) as told:
        server.refused("status", status="unreachable", says="no server runs", hint="bough up")
        server.refused("project", "list", status="unreachable", hint="bough up")
        server.port = h.free_port()
        server.up()
        assert server.status()["running"] and port_of(server) == server.port
        assert told == []


def test_a_server_of_before_there_were_marks_is_known(make_server):
    server = make_server()
    path = f"{server.store}/run/server.json"
    with open(path, encoding="utf-8") as f:
        said = json.load(f)
    del said["process"]
    with open(path, "w", encoding="utf-8") as f:
        json.dump(said, f)
    assert server.status()["running"]
    pid = server.pid()
    server.down()
    assert not h.is_alive(pid)


def test_a_server_that_was_killed_is_started_again_and_finds_its_computes(server):
    project = server.project("shop")
    project.branch("feature")
    with project.connect() as session:
        session.run("CREATE TABLE t AS SELECT 1 AS n")
        computes = {b: project.postmaster(b) for b in ("main", "feature")}
        pgdata = {b: project.pgdata(b) for b in computes}
        server.kill()
        assert session.one("SELECT n FROM t") == 1  # nobody who is connected notices
        project.refused("branch", "list", status="unreachable", hint="bough up")
        server.refused("down", status="precondition", says="2 of its computes", hint="bough up")
        os.kill(computes["feature"], signal.SIGKILL)
        h.kill_below(pgdata["feature"])
        server.up()
        assert session.one("SELECT n FROM t") == 1
        assert project.postmaster("main") == computes["main"] and server.status()["computes"] == 1
        assert project.one("feature", "SELECT 1") == 1
        project.branch("again")  # from a compute that was taken over
    server.down()
    assert not h.processes_below(server.store)


@pytest.mark.parametrize("how", ["deleted", "killed", "killed with its server", "deleted after that"])
def test_no_shared_memory_outlives_a_compute(server, how):
    """The kernel keeps 4096 segments, and those of the dead until somebody removes them."""
    project = server.project("shop")
    project.branch("feature")
    compute = project.postmaster("feature")
    assert h.segments_of({compute})
    if how == "deleted":
        project.purge("feature")
    elif how == "killed":
        project.kill_compute("feature")
    else:
        server.kill()
        os.kill(compute, signal.SIGKILL)
        h.wait_for(lambda: not h.is_alive(compute), "the compute has ended")
        server.up()
        if how == "deleted after that":
            project.purge("feature")
    h.wait_for(lambda: not h.segments_of({compute}), "its shared memory is gone")


def test_computes_that_were_left_running_are_taken_over(server):
    project = server.project("shop")
    compute = project.postmaster()
    server.down("--keep-computes")
    assert h.is_alive(compute)
    server.up()
    assert project.postmaster() == compute and server.status()["computes"] == 1
    server.down()
    assert not h.is_alive(compute)


# ---- stores ----

def edit_db(server, sql):
    with contextlib.closing(sqlite3.connect(f"{server.store}/bough.db")) as db, db:
        db.execute(sql)


@pytest.mark.parametrize("what", ["format", "catalogue"])
def test_a_store_of_a_newer_version_is_refused_and_left_alone(make_server, what):
    server = make_server()
    server.down()
    if what == "format":
        with open(f"{server.store}/format", "w", encoding="ascii") as f:
            f.write("99\n")
    else:
        edit_db(server, "PRAGMA user_version = 99")
    before = [p for p in files(server.store) if not p.endswith((".log", "-wal", "-shm"))]
    server.refused("up", status="unsupported", says="99", hint="newer")
    assert [p for p in files(server.store) if not p.endswith((".log", "-wal", "-shm"))] == before


def test_messages_that_are_no_utf8_are_shown_all_the_same(server):
    """A message of PostgreSQL's may be of another encoding, or be cut within a character."""
    project = server.project("p")
    project.suspend()
    server.down()
    with contextlib.closing(sqlite3.connect(f"{server.store}/bough.db")) as db, db:
        db.execute("UPDATE endpoints SET last_error = CAST(x'636166e9' AS TEXT)")
        db.execute("UPDATE operations SET failure = CAST(x'636166c3' AS TEXT)")
    server.up()
    assert [e["last_error"] for e in project.json("endpoint", "list")] == ["caf\ufffd"]
    assert {o["error"] for o in project.json("operation", "list")} == {"caf\ufffd"}


def test_a_damaged_store_is_refused_by_name(make_server):
    server = make_server()
    server.project("shop")
    server.down()
    for name, content, says in (("format", b"x\n", "format"),
                                ("bough.db", b"no database" * 1000, "damaged"),
                                ("secret_key", b"short", "secret_key"),
                                ("secret_key", None, "secret_key"),
                                ("api_key", b"x", "api_key"),
                                ("admin_password", b"x", "admin_password")):
        path = f"{server.store}/{name}"
        os.rename(path, f"{path}.good")
        if content is not None:
            with open(path, "wb") as f:
                f.write(content)
            os.chown(path, h.OS_USER.pw_uid, h.OS_USER.pw_gid)
        done = server.bough("up", check=False)
        assert done.returncode == 7 and says in done.stderr and done.stderr.count("\n") <= 2, \
            done.stderr
        assert content is None or os.path.getsize(path) == len(content)  # it is evidence
        os.rename(f"{path}.good", path)
    server.up()
    assert [p["name"] for p in server.projects()] == ["shop"]


def test_a_new_key_ends_the_old_one(make_server):
    server = make_server()
    old = server.key()
    assert server.api("GET", "/users/me", key=old)[0] == 200
    server.down()
    os.unlink(f"{server.store}/api_key")
    server.up()
    assert server.key() != old and stat.S_IMODE(os.stat(f"{server.store}/api_key").st_mode) == 0o600
    assert server.api("GET", "/users/me", key=old)[0] == 401
    assert server.api("GET", "/users/me", key=server.key())[0] == 200


@contextlib.contextmanager
def mounted(kind, place, *options):
    os.mkdir(place)
    done = h.run(["mount", "-t", kind, *options, "none", place], check=False)
    if done.returncode:
        pytest.skip(f"cannot mount {kind}: {done.stderr.strip()}")
    try:
        yield
    finally:
        h.run(["umount", place])


@as_root
def test_an_unfit_file_system_is_refused_and_left_empty(make_server, directory):
    with mounted("ramfs", f"{directory}/ram"):
        server = make_server("x", store=f"{directory}/ram/store", up=False)
        server.refused("up", status="unsupported", says="is unfit for a store", hint="ext4")
        assert [p for p in files(f"{directory}/ram") if not p.endswith(("/lock", "/format", ".log",
                                                                        ".so"))] == []


@as_root
def test_a_read_only_file_system(make_server, directory):
    with mounted("tmpfs", f"{directory}/ro", "-o", "ro"):
        server = make_server("x", store=f"{directory}/ro/store", up=False)
        server.refused("up", says="read-only file system")


def test_places_where_no_store_can_be(make_server, directory):
    with open(f"{directory}/file", "w", encoding="ascii"):
        pass
    make_server("a", store=f"{directory}/file", up=False).refused("up")
    make_server("b", store=f"{directory}/file/store", up=False).refused("up")
    make_server("c", store=f"{directory}/{'x' * 80}", up=False).refused("up", status="invalid",
                                                                        says="too long",
                                                                     hint="shorter")
    if h.IS_ROOT:
        os.makedirs(f"{directory}/roots/own")  # somebody else's directory is not taken over
        make_server("d", store=f"{directory}/roots",
                    up=False).refused("up", says="does not belong", hint="--store")
        assert os.listdir(f"{directory}/roots/own") == []


# ---- PostgreSQL that is not there ----

@as_root
def test_without_postgresql_the_server_says_what_to_install(make_server, directory):
    """In a mount namespace where /usr/lib/postgresql is empty."""
    os.mkdir(f"{directory}/empty")
    server = make_server()
    server.pg_path(h.CHOSEN and h.PG_BIN)
    project = server.project("shop")
    server.down()
    env = server.env | {"PATH": f"{directory}/empty", "BOUGH_PG_PATH": ""}
    done = h.run(["/usr/bin/unshare", "-m", "/bin/sh", "-c",
                  '/bin/mount -t tmpfs none /usr/lib/postgresql && exec "$0" up --store "$1"',
                  h.BOUGH, server.store],
                 check=False, env=env)
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no mount namespaces: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert "PostgreSQL is not installed" in server.status()["warnings"] \
        and server.status()["postgresql"] == []
    server.refused("project", "create", "x", status="unsupported",
                   says="PostgreSQL is not installed",
                   hint="Install the package postgresql-")
    project.refused("endpoint", "start", "main", status="unsupported",
                    says=f"PostgreSQL {h.PG} is not installed",
                    hint=f"Install the package postgresql-{h.PG}")
    server.down()
    server.up()
    assert project.one("main", "SELECT 1") == 1


def test_a_directory_without_postgresql_in_the_path_changes_nothing(make_server, directory):
    os.mkdir(f"{directory}/empty")
    server = make_server("s", up=False)
    server.env["BOUGH_PG_PATH"] = f"{directory}/empty:{directory}/nosuch:{h.PG_BIN if h.CHOSEN else ''}"
    server.up()
    assert h.PG in [p["major"] for p in server.status()["postgresql"]]


# ---- users ----

@as_root
@pytest.mark.skipif(h.IS_SANITIZED, reason="its copy of the library has a sanitizer")
def test_an_ordinary_user_can_do_everything(directory, pg18):
    user = pwd.getpwnam("nobody")
    home, programs = f"{directory}/home", f"{directory}/programs"
    os.mkdir(home)
    os.chown(home, user.pw_uid, user.pw_gid)
    os.mkdir(programs, 0o755)
    for path in (h.BOUGH, BOUGHD, os.path.join(h.BUILD, "src/preload/libbough_pg.so")):
        shutil.copy(path, programs)
    env = {"PATH": os.environ["PATH"], "HOME": home, "LC_ALL": "C.UTF-8", "XDG_DATA_HOME": ""}
    if h.CHOSEN:
        env["BOUGH_PG_PATH"] = h.PG_BIN
    def bough(*args, check=True):
        return h.run(["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}",
                      "--clear-groups",
                      f"{programs}/bough", *args], check=check, env=env, cwd="/")
    bough("up", "--port", str(h.free_port()))
    try:
        status = json.loads(bough("status", "--json").stdout)
        assert status["store"] == f"{home}/.local/share/bough"
        bough("project", "create", "mine", "--pg-version", str(h.PG))
        bough("branch", "create", "feature")
        assert bough("psql", "feature", "--", "-Atc", "SELECT 42").stdout.strip() == "42"
        bough("endpoint", "suspend", "feature")
        bough("endpoint", "start", "feature")
        bough("export", "feature", f"{home}/out")
        assert os.stat(f"{home}/out").st_uid == user.pw_uid \
            and os.path.exists(f"{home}/out/PG_VERSION")
        pids = h.processes_below(status["store"]) + [status["pid"]]
        assert len(pids) > 2 and {os.stat(f"/proc/{p}").st_uid for p in pids} == {user.pw_uid}
        room = f"{status['store']}/branches"
        assert {os.lstat(p).st_uid for p in files(room) + glob.glob(f"{status['store']}/*")} \
            == {user.pw_uid}
        bough("branch", "delete", "feature")
        bough("project", "delete", "mine", "--yes")
        refused = h.run([f"{programs}/boughd", "--store", f"{home}/other", "--run-as", "nosuch"],
                        check=False)
        assert refused.returncode == h.EXIT["precondition"] and '"nosuch"' in refused.stderr
    finally:
        bough("down", check=False)


@as_root
def test_a_server_that_root_starts_is_not_roots(shared_server):
    server = shared_server
    server.project("rights")
    pids = h.processes_below(server.store) + [server.pid()]
    assert len(pids) > 2
    for pid in pids:
        try:
            with open(f"/proc/{pid}/status", encoding="ascii") as f:
                fields = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
        except (FileNotFoundError, ProcessLookupError):  # a backend that has ended meanwhile
            continue
        assert set(fields["Uid"].split()) == {str(h.OS_USER.pw_uid)} \
            and set(fields["Gid"].split()) \
            == {str(h.OS_USER.pw_gid)}
        assert int(fields["CapPrm"], 16) == 0 and "0" not in fields["Groups"].split()


@as_root
def test_another_user_reads_nothing_of_a_store(shared_server):
    def find(*as_whom):
        return h.run([*as_whom, "find", shared_server.store, "-mindepth", "1", "-readable"],
                     check=False).stdout
    assert find("setpriv", "--reuid=65534", "--regid=65534",
                "--clear-groups") == "" and find().count("\n") > 5


# ---- confinement ----

class Cell:
    """SQL as the superuser of one compute, who can run programs: what do they reach?"""

    def __init__(self, server):
        self.server = server
        self.project = server.project("shop")
        self.project.branch("sibling")
        self.project.sql("sibling", "CREATE TABLE secret AS SELECT 'precious' AS word")
        self.c = self.project.admin("main")
        self.c.run("CREATE TABLE said (n serial, line text)")

    def sh(self, command):
        """What a command says, and its exit status as the last word."""
        assert "'" not in command
        self.c.run("TRUNCATE said")
        self.c.run(f"COPY said (line) FROM PROGRAM '( {command} ) 2>&1; echo $?' WITH (FORMAT"
                   f" csv, DELIMITER E'\\x01',"
                   " QUOTE E'\\x02')")
        return "\n".join(line or "" for (line,) in self.c.rows("SELECT line FROM said ORDER BY n"))

    def denied(self, command):
        said = self.sh(command)
        assert not said.endswith("\n0") and said != "0", f"{command} succeeded: {said[:200]}"
        return said


@pytest.fixture(scope="module", name="cell")
def fixture_cell(shared_server):
    if shared_server.status()["landlock_abi"] == 0:
        pytest.skip("this kernel has no Landlock")
    cell = Cell(shared_server)
    yield cell
    cell.c.close()


def test_a_compute_reads_its_own_files(cell):
    """What the tests below would see if nothing held programs back."""
    assert cell.sh("cat PG_VERSION") == f"{h.PG}\n0"
    assert cell.sh("ls base >/dev/null; echo own > own_file; cat own_file; rm own_file") == "own\n0"
    assert cell.sh("cat /etc/passwd | grep -c root").endswith("\n0")


def test_a_compute_reads_no_file_of_its_store_or_its_neighbours(cell):
    store, sibling = cell.server.store, cell.project.pgdata("sibling")
    postmaster = cell.project.postmaster("sibling")
    paths = [f"{store}/{n}" for n in ("bough.db", "api_key", "admin_password", "secret_key",
                                      "format", "run/server.json")]
    paths += [f"{sibling}/PG_VERSION", f"{sibling}/postmaster.pid", f"{sibling}/pg_hba.conf",
              "/etc/shadow", "/root/.bashrc",
              f"/proc/{cell.server.pid()}/environ", f"/proc/{postmaster}/environ",
              *glob.glob(f"{sibling}/base/*/*")[:3],
              *glob.glob(f"{sibling}/pg_wal/0*")[:1]]
    there = [p for p in paths if os.path.exists(p)]
    assert len(there) > 10
    for path in there:
        assert "denied" in cell.denied(f"cat {path}"), path
        # and not only programs: postgres itself
        with pytest.raises(psycopg2.Error, match="denied"):
            cell.c.one("SELECT length(pg_read_binary_file(%s))", path)
    for path in (f"{store}/branches", sibling, f"{store}/run", "/root", "/home", "/var/tmp"):
        assert "denied" in cell.denied(f"ls {path}"), path


def test_a_compute_writes_no_file_of_others(cell):
    store, sibling = cell.server.store, cell.project.pgdata("sibling")
    for path in (f"{store}/x", f"{sibling}/x", f"{sibling}/PG_VERSION", f"{store}/run/x",
                 "/tmp/bough-x", "/var/tmp/bough-x",
                 "/dev/shm/bough-x"):
        said = cell.denied(f"echo x >> {path}")
        assert "denied" in said or "cannot create" in said, said
        assert path.endswith("PG_VERSION") or not os.path.exists(path)
    layer = files(f"{store}/layers")[0]
    cell.denied(f"rm {layer}")
    cell.denied(f"mv {sibling} {sibling}.gone")
    cell.denied(f"ln {sibling}/PG_VERSION stolen")
    assert os.path.isdir(sibling) and os.path.exists(layer)
    assert cell.project.one("sibling", "SELECT word FROM secret") == "precious"


def test_a_compute_opens_no_tcp_connection(cell):
    if cell.server.status()["landlock_abi"] < 4:
        pytest.skip("this kernel's Landlock knows no network rules")
    with socket.create_server(("127.0.0.1", h.free_port())) as listener:
        port = listener.getsockname()[1]
        inside = f"bash -c \"exec 3<>/dev/tcp/127.0.0.1/{port}\""
        # from here it can be reached
        assert h.run(["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}"]).returncode == 0
        assert "denied" in cell.denied(inside)
        assert "denied" in cell.denied(inside.replace(str(port), str(port_of(cell.server))))
    cell.c.run("CREATE EXTENSION IF NOT EXISTS dblink")
    with pytest.raises(psycopg2.Error, match="denied"):
        cell.c.one("SELECT dblink_connect('out', 'host=127.0.0.1 user=x password=x dbname=x"
                   " port=%s')" % port)
    listens = f"import socket; socket.create_server((\\\"127.0.0.1\\\", {h.free_port()}))"
    if shutil.which("python3"):
        assert "denied" in cell.denied(f"/usr/bin/python3 -c \"{listens}\"")


def test_a_compute_signals_no_other_process(cell):
    if cell.server.status()["landlock_abi"] < 6:
        pytest.skip("this kernel's Landlock does not scope signals")
    assert cell.sh("kill -0 $$") == "0"
    for pid in (cell.server.pid(), cell.project.postmaster("sibling")):
        cell.denied(f"kill -0 {pid}")
        cell.denied(f"kill -9 {pid}")
        assert h.is_alive(pid)


def test_a_compute_does_not_get_into_its_neighbour_by_its_socket(cell):
    sibling = cell.project.socket("sibling")
    for user in (h.ADMIN, "postgres", sibling["user"]):
        said = cell.denied(f"psql -w -h {sibling['host']} -U {user} -d {sibling['dbname']} -c"
                           f" \"TABLE secret\"")
        assert "precious" not in said


def psql_inside(cell, at, user, password=None):
    """What psql says that a hostile compute runs."""
    env = f"PGPASSWORD={password} " if password else ""
    return cell.denied(f"{env}{h.tool('psql')} -w -h {at['host']} -U {user} -d {at['dbname']} -Atc"
                       f" \"SELECT word FROM secret\"")


def test_what_one_compute_knows_opens_no_other(cell):
    """It knows the role's password, which is the store's, and its own key."""
    password, own, sibling = cell.server.admin_password(), cell.project.socket("main"), cell.project.socket("sibling")
    keys = {h.admin_user(p["host"]) for p in (own, sibling)}
    assert len(keys) == 2 and all(re.fullmatch(h.ADMIN + r"\.[0-9a-f]{32}", k) for k in keys)
    assert "Bough alone" in psql_inside(cell, sibling, h.ADMIN, password)
    guesses = [h.admin_user(own["host"]), f"{h.ADMIN}.", f"{h.ADMIN}.{'0' * 32}", f"{h.admin_user(sibling['host'])}0",
               h.admin_user(sibling["host"])[:-1]]
    for user in guesses:
        said = psql_inside(cell, sibling, user, password)
        assert "precious" not in said and "authentication failed" in said, said
    with cell.project.admin("sibling") as c:  # whom Bough has given the key comes in, as the role
        assert c.one("SELECT session_user") == h.ADMIN


def test_an_endpoint_has_another_key_at_each_start(server):
    p = server.project("p")
    host = p.socket()["host"]
    before = h.admin_user(host)
    server.kill()
    server.up()
    assert h.admin_user(host) == before
    server.api("POST", f"/projects/{p.id}/branches/{p.get()['id']}/roles", {"role": {"name": "adopted"}})
    p.bough("endpoint", "restart", "main")
    assert h.admin_user(p.socket()["host"]) != before
    with p.admin() as c:
        assert c.one("SELECT count(*) FROM pg_roles WHERE rolname = 'adopted'") == 1


def packet(*pairs, code=3 << 16):
    body = struct.pack("!i", code) + b"".join(x.encode() + b"\0" for pair in pairs for x in pair) + b"\0"
    return struct.pack("!i", len(body) + 4) + body


@pytest.mark.parametrize("how", ["second", "after-ssl", "in-pieces", "replication"])
def test_no_packet_names_the_administrator_without_the_key(cell, how):
    user, database = ("user", h.ADMIN), ("database", cell.project.socket("sibling")["dbname"])
    data = {"second": packet(("user", "somebody"), database, user), "after-ssl": packet(user, database),
            "in-pieces": packet(database, user),
            "replication": packet(user, ("replication", "true"))}[how]
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as s:
        s.settimeout(20)
        s.connect(os.path.join(cell.project.socket("sibling")["host"], ".s.PGSQL.5432"))
        if how == "after-ssl":
            s.sendall(struct.pack("!ii", 8, 80877103))
            assert s.recv(1) == b"N"
        for piece in ([data[i:i + 1] for i in range(len(data))] if how == "in-pieces" else [data]):
            s.sendall(piece)
        said = b""
        while more := s.recv(4096):
            said += more
        assert said[:1] == b"E" and b"Bough alone" in said


def test_no_hand_off_brings_a_client_that_has_not_come_by_tcp(cell):
    """Neighbours reach the socket by which boughd hands clients over, too."""
    data = packet(("user", h.ADMIN), ("database", "neondb"))
    where = os.path.join(cell.project.socket("sibling")["host"], "d/.s.PGSQL.5432")
    with contextlib.ExitStack() as stack:
        ours, theirs = (stack.enter_context(s) for s in socket.socketpair())
        pipe = os.pipe()
        for fd in pipe:
            stack.callback(os.close, fd)
        carrier = stack.enter_context(socket.socket(socket.AF_UNIX))
        with h.server_user():
            carrier.connect(where)
            socket.send_fds(carrier, [b"BHF1" + struct.pack("=II", 0, len(data)) + data], [theirs.fileno(), pipe[0]])
        carrier.settimeout(20)
        assert carrier.recv(1) == b"1"  # it was understood
        theirs.close()
        ours.settimeout(20)
        assert ours.recv(1) == b"", "postgres speaks to it"


@pytest.mark.parametrize("data", [
    b"", b"\0\0", struct.pack("!i", 7), struct.pack("!i", 20000), b"\x16\x03\x01\x02\0\x01", b"GET / HTTP/1.0\r\n\r\n",
    packet(("user", h.ADMIN))[:-1], packet(("user", h.ADMIN), code=2 << 16),
    struct.pack("!ii", 300, 2 << 16) + bytes(292)])
def test_nonsense_at_a_computes_socket_ends_its_connection_only(cell, data):
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as s:
        s.settimeout(20)
        s.connect(os.path.join(cell.project.socket("sibling")["host"], ".s.PGSQL.5432"))
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):  # it had not read all of it
            assert s.recv(1) != b"R"
    with cell.project.admin("sibling") as c:
        assert c.one("SELECT word FROM secret") == "precious"


def test_users_are_no_superusers(cell):
    refused = ["COPY said FROM PROGRAM 'id'", "SELECT pg_read_file('/etc/passwd')",
               "CREATE ROLE x SUPERUSER",
               "ALTER ROLE bough_admin NOLOGIN", "SET ROLE bough_admin",
               "CREATE EXTENSION file_fdw",
               "ALTER SYSTEM SET archive_command = 'id'", "LOAD '/tmp/x.so'"]
    # before, whoever may create roles may grant all that are no superusers
    if cell.project.major >= 16:
        refused.append("GRANT pg_execute_server_program TO current_user")
    with cell.project.connect() as c:
        for sql in refused:
            with pytest.raises(psycopg2.Error):
                c.run(sql)
                pytest.fail(f"{sql} succeeded", pytrace=False)
