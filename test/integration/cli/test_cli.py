"""The command line: what it prints where, suggestions, completion, Ctrl-C, and that no list of
processes shows a password."""
import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import time

import harness as h
import pytest


@pytest.fixture(scope="module")
def shop(shared_server):
    project = shared_server.project("cli shop")
    project.branch("dev")
    project.branch("dev fix", parent="dev")
    return project


def on_terminal(server, *args, keys=None, wait_for_text=None, timeout=60):
    """Run on a terminal of its own; send `keys` once `wait_for_text` was seen.

    Returns status and screen.
    """
    argv = [h.BOUGH, *args, "--store", server.store]
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(argv[0], argv, server.env | {"TERM": "xterm"})
    screen, until = b"", time.monotonic() + timeout
    try:
        while time.monotonic() < until:
            if keys and re.search(wait_for_text, screen):
                os.write(fd, keys)
                keys = None
            if not select.select([fd], [], [], 0.05)[0]:
                continue
            try:
                data = os.read(fd, 65536)
            except OSError:
                break
            if not data:
                break
            screen += data
        else:
            os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"{argv} still ran after {timeout} s: {screen!r}")
    finally:
        _, status = os.waitpid(pid, 0)
        os.close(fd)
    return os.waitstatus_to_exitcode(status), screen.decode()


def run(*args, **kw):
    """Without a store of the test's."""
    return h.run([h.BOUGH, *args], **kw)


def completions(server, *words):
    done = run("completion", "words", "--", *words, env=server.env | {"BOUGH_STORE": server.store})
    return done.stdout.split("\n")[:-1]


# ---- output ----

def test_a_list_is_a_tree_on_a_terminal_and_plain_elsewhere(shop):
    status, screen = on_terminal(shop.server, "branch", "list", "--project", shop.id)
    assert status == 0
    for text in ("main *", "└─ dev", "   └─ dev fix", "OWN BYTES"):
        assert text in screen, screen
    plain = shop.bough("branch", "list").stdout
    assert plain.startswith("NAME ")
    assert not [c for c in "└*\033" if c in plain]
    assert [line.split("  ")[0] for line in plain.split("\n")[1:-1]] == ["main", "dev", "dev fix"]


def test_json_of_branch_create_has_uri_and_timings_each_time(shop):
    for existing in (False, True):
        made = shop.json("branch", "create", "timed")
        assert set(made) == {"branch", "connection_uri", "timings_ms", "existing"}
        assert set(made["timings_ms"]) == {"checkpoint", "seal", "gate", "create", "start", "ready", "total"}
        assert made["existing"] is existing and made["branch"]["name"] == "timed"
        assert made["connection_uri"].startswith("postgresql://")
    shop.delete("timed")


def test_every_command_has_help_without_a_server():
    names = run("help", "--list").stdout
    assert len(names.split("\n")) > 20
    for name in names.split("\n")[:-1]:
        done = run(*name.split()[1:], "--help")
        assert f"Usage: {name}" in done.stdout and "--json" in done.stdout and not done.stderr, name


def test_a_full_disk_below_standard_output_is_a_failure(shop):
    with open("/dev/full", "w", encoding="ascii") as full:
        done = subprocess.run([h.BOUGH, "--help"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == h.EXIT["nospace"], done.stderr


# ---- failures ----

@pytest.mark.parametrize("args, status, hint", [
    (["branch", "get", "dve"], "notfound", "dev"),
    (["psql", "mian"], "notfound", "main"),
    (["cs", "nothing-like-it"], "notfound", "bough branch list"),
    (["branch", "create", "x", "--parent", "dve"], "notfound", "dev"),
    (["branch", "lsit"], "usage", "bough branch list"),
    (["branhc", "list"], "usage", "bough branch"),
    (["help", "branch", "creat"], "usage", "bough branch create"),
    (["branch", "list", "--jsno"], "usage", "--json"),
    (["psql", "main", "-c", "select 1"], "usage", " -- "),
    (["export", "main", "/etc/passwd"], "invalid", "does not exist yet"),
    (["export", "main", "/"], "conflict", "does not exist yet"),
])
def test_a_failure_suggests_what_to_do(shop, args, status, hint):
    where = ["--store", shop.server.store, "--project", shop.id]
    where = [] if args[0] in ("branhc", "help") else where
    done = run(*args, *where, check=False)
    assert done.returncode == h.EXIT[status] and done.stdout == "", done
    assert re.fullmatch(r"bough: error: .+\nbough: hint: .+\n", done.stderr), done.stderr
    done = run(*args, *where, "--json", check=False)
    answer = json.loads(done.stderr)
    assert done.stdout == "" and set(answer) == {"code", "message", "hint"}
    assert hint.lower() in answer["hint"].lower()


@pytest.mark.parametrize("before", range(4))
def test_a_failure_tells_all_that_it_can_of_a_name_that_it_cuts(shop, before):
    """Within a message a name may be cut inside a character, and the message itself at its end."""
    name = "a" * before + "\u20ac" * 340
    done = shop.bough("branch", "get", name, "--json", check=False)
    answer = json.loads(done.stderr)
    assert done.returncode == h.EXIT["notfound"] and answer["code"] == "NOT_FOUND"
    assert "\u20ac" * 20 in answer["message"] and answer["hint"]


def test_a_file_that_is_not_utf8_is_named_as_far_as_can_be(shop):
    done = subprocess.run([h.BOUGH.encode(), b"export", b"main", b"/nowhere/caf\xe9/x", b"--json",
                           b"--store", shop.server.store.encode(), b"--project", shop.id.encode()],
                          env=shop.server.env, capture_output=True, check=False, timeout=60)
    answer = json.loads(done.stderr)
    assert "/nowhere/caf\ufffd/x" in answer["message"] and answer["hint"] == "Create it first."


def test_a_project_must_be_named_only_where_there_are_several(make_server):
    server = make_server()
    server.refused("branch", "list", status="notfound", hint="bough project create")
    server.project("one")
    server.bough("branch", "list")
    server.project("two")
    server.refused("branch", "list", status="usage", hint="--project")


def test_a_store_that_is_a_file_is_refused(shop):
    done = run("up", "--store", "/etc/passwd", check=False)
    assert done.returncode == h.EXIT["invalid"] and "not a directory" in done.stderr


@pytest.mark.parametrize("command", [["up"], ["status"], ["down"], ["ca"], ["branch", "list"]], ids=" ".join)
def test_a_store_whose_path_is_not_utf8_is_refused_before_it_is_made(directory, command):
    """Whether it is named so, or what a link leads to, or where we are."""
    odd, link = os.path.join(directory, os.fsdecode(b"caf\xe9")), os.path.join(directory, "link")
    os.mkdir(odd)
    os.symlink(odd, link)
    for store, where in ((f"{odd}/s", directory), (link, directory), ("s", odd)):
        for more in ([], ["--json"]):
            done = run(*command, *more, "--store", store, cwd=where, check=False, errors="surrogateescape")
            assert done.returncode == h.EXIT["invalid"] and done.stdout == "", done
            assert "is not UTF-8" in done.stderr and "another with --store" in done.stderr
    assert os.listdir(odd) == []


def test_boughd_refuses_a_store_whose_path_is_not_utf8(directory):
    store = os.path.join(directory, os.fsdecode(b"caf\xe9"))
    done = h.run([os.path.join(h.BUILD, "src/server/boughd"), "--store", store], check=False, errors="surrogateescape")
    assert done.returncode == h.EXIT["invalid"] and "is not UTF-8" in done.stderr
    assert os.listdir(directory) == []


def test_status_tells_a_changed_key_from_no_server(make_server):
    server = make_server()
    path = os.path.join(server.store, "api_key")
    with open(path, encoding="ascii") as f:
        key = f.read()
    with open(path, "w", encoding="ascii") as f:
        f.write("x" * len(key))
    server.refused("status", status="auth", hint="was changed")
    server.refused("down", status="auth", hint="was changed")
    with open(path, "w", encoding="ascii") as f:
        f.write(key)
    server.kill()
    server.refused("status", status="unreachable", hint="bough up")


# ---- sizes ----

@pytest.mark.parametrize("size", ["inf", "nan", "1e400", "1e1", "0x1", "0", "1-0", "2-1", "-1", "1-", "1-2-3", "+1",
                                  " 1", "1.2.3", ".", "1" * 40, "1-inf"])
def test_a_size_that_is_none_is_refused(shop, size):
    for command in (["endpoint", "resize", "main", "--", size],
                    ["endpoint", "create", "main", "--type", "read_only", f"--size={size}"]):
        shop.server.refused(*command[:2], "--project", shop.id, *command[2:], status="usage", says="is no size")
    assert len(shop.json("endpoint", "list")) == 3


def test_a_size_may_have_two_ends(shop):
    assert "0.25-2 units" in shop.bough("endpoint", "resize", "dev", "0.25-2").stdout
    endpoint = shop.json("endpoint", "get", "dev")
    assert (endpoint["autoscaling_limit_min_cu"], endpoint["autoscaling_limit_max_cu"]) == (0.25, 2)


# ---- connecting ----

def test_psql_shows_no_password_in_its_arguments(shop):
    argv = [h.BOUGH, "psql", "dev", "--project", shop.id, "--store", shop.server.store,
            "--", "-c", "SELECT pg_sleep(60)"]
    password = re.search(r":([^:@/]+)@", shop.uri("dev")).group(1)
    nothing = subprocess.DEVNULL
    p = subprocess.Popen(argv, env=shop.server.env, stdin=nothing, stdout=nothing, stderr=nothing,
                         start_new_session=True)
    try:
        def arguments():
            with open(f"/proc/{p.pid}/cmdline", "rb") as f:
                text = f.read().decode()
            return text if "psql" in text.split("\0")[0] else None
        assert password not in h.wait_for(arguments, "bough has become psql")
    finally:
        os.killpg(p.pid, signal.SIGKILL)
        p.wait()


def test_psql_ignores_an_environment_that_leads_elsewhere(shop):
    env = shop.server.env | {"PGHOST": "/nowhere", "PGPORT": "1", "PGUSER": "nobody",
                             "PGDATABASE": "none", "PGPASSWORD": "wrong", "PGSERVICE": "none",
                             "PGHOSTADDR": "127.0.0.9", "PGPASSFILE": "/nowhere"}
    done = run("psql", "dev", "--project", shop.id, "--store", shop.server.store, "--", "-Atc",
               "SELECT 1", env=env)
    assert done.stdout == "1\n"


# ---- completion ----

def test_completion_offers_commands_options_and_names(shop):
    server = shop.server
    assert completions(server, "br") == ["branch"]
    assert "create" in completions(server, "branch", "")
    assert completions(server, "branch", "create", "x", "--par") == ["--parent"]
    assert completions(server, "project", "get", "--store", server.store, "cli") == ["cli shop"]
    at = ["--store", server.store, "--project", shop.id]
    assert sorted(completions(server, "branch", "get", *at, "d")) == ["dev", "dev fix"]
    assert sorted(completions(server, "branch", "create", *at, "--parent=d")) == \
        ["--parent=dev", "--parent=dev fix"]
    assert sorted(completions(server, "branch", "create", *at, "--parent", "=", "d")) == \
        ["dev", "dev fix"]
    assert completions(server, "export", *at, "dev", "") == ["@files"]
    assert completions(server, "psql", *at, "dev", "--", "") == ["@files"]


def test_completion_without_a_server_is_silent():
    done = run("completion", "words", "--", "branch", "get", "--store", "/nowhere", "")
    assert done.stdout == "" and done.stderr == ""


def test_bash_completes_names_with_blanks(shop):
    env = shop.server.env | {"BOUGH_STORE": shop.server.store, "BOUGH_PROJECT": shop.id,
                             "PATH": os.path.dirname(h.BOUGH) + ":" + os.environ["PATH"]}
    script = """source <(bough completion bash)
                COMP_WORDS=(bough branch get "dev ") COMP_CWORD=3
                _bough
                printf '%s\\n' "${COMPREPLY[@]}" """
    assert h.run(["bash", "-c", script], env=env).stdout == "dev\\ fix\n"


# ---- Ctrl-C ----

def test_ctrl_c_at_a_question_deletes_nothing(make_server):
    server = make_server()
    server.project("kept")

    def delete(keys):
        return on_terminal(server, "project", "delete", "kept", keys=keys,
                           wait_for_text=rb"\[y/N\]")
    status, screen = delete(b"\x03")
    assert status == 130, screen
    status, screen = delete(b"n\n")
    assert status == 130 and "nothing was deleted" in screen
    assert [p["name"] for p in server.projects()] == ["kept"]
    status, screen = delete(b"y\n")
    assert status == 0 and server.projects() == []


def test_ctrl_c_during_an_export_leaves_nothing_behind(make_server):
    server = make_server()
    project = server.project("p")
    project.sql("main", "CREATE TABLE t AS "
                        "SELECT i, repeat('x', 500) FROM generate_series(1, 400000) i")
    target = os.path.join(server.dir, "out")
    status, screen = on_terminal(server, "export", "main", target, "--project", project.id,
                                 keys=b"\x03", wait_for_text=rb"exporting")
    assert status == 130 and "nothing was left behind" in screen, screen
    assert not os.path.exists(target)


# ---- exports into one directory ----

class Exports:
    """A server that rests at a point of each export, for a time of chance."""

    def __init__(self, make_server, point):
        self.server = make_server(up=False)
        self.server.env["BOUGH_DELAY_AT"] = f"{point}:8000"
        self.server.up()
        self.project = self.server.project("p")
        self.project.suspend("main")  # so that the export is of a clean stop
        self.running = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for p in self.running:
            if p.poll() is None:
                p.kill()
            p.communicate()

    def target(self, name, is_there):
        path = os.path.join(self.server.dir, name)
        if is_there:
            os.mkdir(path, 0o700)
            if h.IS_ROOT:
                os.chown(path, h.OS_USER.pw_uid, h.OS_USER.pw_gid)
        return path

    def start(self, target):
        p = subprocess.Popen([h.BOUGH, "export", "main", target, "--project", self.project.id, "--store",
                              self.server.store], env=self.server.env, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.running.append(p)
        return p

    def comes_to(self, point, target):
        def is_there():
            if point == "export.forked":
                return [n for n in os.listdir(f"{self.server.store}/branches") if n.startswith("export-")]
            return os.path.exists(f"{target}/global/pg_control.unfinished")
        h.wait_for(is_there, f"the export is at {point}")


@pytest.mark.parametrize("point", ["export.forked", "export.files-written"])
def test_an_export_into_the_directory_of_another_leaves_that_alone(make_server, point):
    with Exports(make_server, point) as e:
        for n in range(10):  # until the first rests long enough
            target = e.target(f"out{n}", is_there=True)
            first = e.start(target)
            e.comes_to(point, target)
            e.project.refused("export", "main", target, status="conflict", says="another export|is not empty",
                              hint="does not exist yet")
            was_first = first.poll() is None
            out, err = first.communicate(timeout=60)
            assert first.returncode == 0 and "is in" in out, err
            h.run([h.tool("pg_checksums"), "--check", "-D", target])
            if was_first:
                break
        assert was_first
        e.project.refused("export", "main", target, status="conflict", says="is not empty")
        h.run([h.tool("pg_checksums"), "--check", "-D", target])


@pytest.mark.parametrize("is_there", [False, True])
def test_what_a_server_that_died_left_of_an_export_goes_with_the_directory(make_server, is_there):
    """Where the command made that; else it only says so."""
    with Exports(make_server, "export.files-written") as e:
        for n in range(10):
            target = e.target(f"out{n}", is_there)
            command = e.start(target)
            e.comes_to("export.files-written", target)
            e.server.kill()
            _, err = command.communicate(timeout=60)
            if command.returncode:
                break
            e.server.up()
        assert command.returncode == h.EXIT["unreachable"], err
        assert os.path.exists(target) is is_there and ("Something is left" in err) is is_there


def test_a_directory_that_another_server_exports_into_is_left_alone(shop, directory):
    target = os.path.join(directory, "out")
    os.mkdir(target)
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        shop.refused("export", "main", target, status="conflict", says="another export", hint="does not exist yet")
        assert os.path.exists(target)
    finally:
        os.close(fd)
    shop.bough("export", "main", target)
    assert os.path.exists(f"{target}/global/pg_control")


# ---- documentation ----

def test_manual_and_reference_say_what_the_programs_say():
    h.run([os.path.join(h.ROOT, "dev/cli-docs"), "--check", h.BUILD])


def test_how_long_the_past_is_kept_is_shown_and_changed(shared_server):
    project = shared_server.project("kept")
    assert "history     7 d" in shared_server.bough("project", "get", "kept").stdout
    assert "14 d of history" in shared_server.bough("project", "update", "kept", "--history-retention", "14d").stdout
    assert project.json("project", "get")["history_retention_seconds"] == 14 * 86400
    assert "nothing of" in shared_server.bough("project", "update", project.id, "--history-retention", "0").stdout
    changed = shared_server.json("project", "update", project.id, "--name", "kept on", "--history-retention", "12h")
    assert changed["name"] == "kept on" and changed["history_retention_seconds"] == 12 * 3600
    shared_server.refused("project", "update", project.id, "--history-retention", "36d", says="between 0 and")
    shared_server.refused("project", "update", project.id, "--history-retention", "soon", says="soon")
    shared_server.refused("project", "update", project.id, says="what to change")
