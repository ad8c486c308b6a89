"""What tests need: a server on a store of its own, stock PostgreSQL servers, clients, load, and checks.

Every test has its own directory below one directory per run. User postgres can walk to it, and nothing of
the source tree is needed by that user. Ports are below 32768, so that no outgoing connection takes them.
"""
import contextlib
import datetime
import glob
import http.client
import json
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.parse

import psycopg2

LONG = os.environ.get("BOUGH_LONG") == "1"
IS_ROOT = os.geteuid() == 0
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("BOUGH_TEST_BUILD", os.path.join(ROOT, "build-check"))
# dev/sanitized: BUILD's programs have a sanitizer; this is for processes that have none, as postgres
PLAIN_BUILD = os.environ.get("BOUGH_TEST_PLAIN_BUILD", BUILD)
IS_SANITIZED = PLAIN_BUILD != BUILD
BOUGH = os.path.join(BUILD, "src/cli/bough")
ADMIN = "bough_admin"
OS_USER = pwd.getpwnam("postgres") if IS_ROOT else pwd.getpwuid(os.geteuid())

EXIT = {"invalid": 2, "notfound": 3, "conflict": 4, "busy": 5, "unsupported": 6, "pg": 8, "auth": 9,
        "unreachable": 10, "nospace": 12, "precondition": 13, "usage": 64}


def times(normal, long):
    """How many rounds: fewer in ./check, more in ./check --long."""
    return long if LONG else normal


# ---- processes ----

def run(argv, check=True, timeout=120, **kw):
    """Run a command in its own process group; on timeout the whole group ends."""
    kw.setdefault("stdin", subprocess.DEVNULL)
    p = subprocess.Popen([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                         start_new_session=True, **kw)
    try:
        out, err = p.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(p.pid, signal.SIGKILL)
        out, err = p.communicate()
        raise AssertionError(f"{argv} still ran after {timeout} s\n{out}\n{err}") from None
    done = subprocess.CompletedProcess(argv, p.returncode, out, err)
    if check and p.returncode:
        raise AssertionError(f"{argv} exited with {p.returncode}\n{out}\n{err}")
    return done


def as_server(argv):
    """A command as the user that PostgreSQL runs as."""
    if not IS_ROOT:
        return list(argv)
    return ["setpriv", f"--reuid={OS_USER.pw_uid}", f"--regid={OS_USER.pw_gid}", "--init-groups"] + list(argv)


@contextlib.contextmanager
def server_user():
    """This process as that user, for peer authentication."""
    if not IS_ROOT:
        yield
        return
    os.setegid(OS_USER.pw_gid)
    os.seteuid(OS_USER.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def wait_for(condition, what, limit=30.0, pause=0.02):
    """Wait until condition() is true and return its value. Fails after `limit` seconds."""
    until = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until:
            raise AssertionError(f"not within {limit:.0f} s: {what}")
        time.sleep(pause)


def forget_memory(path):
    """The dynamic shared memory of computes below a directory that were killed: their next start would remove it."""
    link = "store/branches/*/pgdata/pg_dynshmem"
    for link in glob.glob(f"{glob.escape(path)}/*/{link}") + glob.glob(f"{glob.escape(path)}/*/*/{link}"):
        if os.path.islink(link) and os.readlink(link).startswith("/dev/shm/bough-"):
            shutil.rmtree(os.readlink(link), ignore_errors=True)


_given_ports = set()
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def free_port():
    """One that nobody listens on, and that was not given to another test of this run: each worker process has
    ports of its own."""
    span = 22000 // _WORKERS
    for _ in range(200):
        port = 10000 + _WORKER * span + random.randrange(span)
        if port in _given_ports:
            continue
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                _given_ports.add(port)
                return port
            except OSError:
                continue
    raise AssertionError("no free port")


def processes_below(directory):
    """Ids of processes whose working directory is below `directory`."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                cwd = os.readlink(f"/proc/{name}/cwd")
                if cwd == directory or cwd.startswith(directory + "/"):
                    found.append(int(name))
    return found


def segments():
    """{id of System V shared memory: the process that made it}"""
    with open("/proc/sysvipc/shm", encoding="ascii") as f:
        rows = [line.split() for line in f.readlines()[1:]]
    return {int(row[1]): int(row[4]) for row in rows}


def segments_of(pids):
    """Ids of System V shared memory that these processes made."""
    return {segment for segment, pid in segments().items() if pid in pids}


def kill_below(directory):
    """End what still works below a directory of ours: postgres servers and their children. Their ids."""
    killed = set()
    def left():
        pids = processes_below(directory)
        killed.update(pids)
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        return not pids
    wait_for(left, f"processes below {directory} are gone")
    return killed


def stat_of(pid):
    """What /proc/PID/stat says behind the name: state, parent and so on."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
        return f.read().rsplit(")", 1)[1].split()


def is_alive(pid):
    """Also while threads of it still work, or hold its descriptors."""
    try:
        words = stat_of(pid)
        return words[0] not in "ZX" or int(words[17]) > 1
    except OSError:
        return False


def is_child_of_postgres(pid):
    with open(f"/proc/{stat_of(pid)[1]}/comm", encoding="utf-8", errors="replace") as f:
        return f.read() == "postgres\n"


def allocated(directory):
    """Bytes on disk below a directory; hard links count once."""
    total, seen = 0, set()
    for path, _, names in os.walk(directory):
        for name in [os.path.join(path, n) for n in names] + [path]:
            with contextlib.suppress(OSError):
                st = os.lstat(name)
                if (st.st_dev, st.st_ino) not in seen:
                    seen.add((st.st_dev, st.st_ino))
                    total += st.st_blocks * 512
    return total


# ---- PostgreSQL installations ----

# bin directory of the version to run on (./check --pg); without it, the newest that is installed
CHOSEN = os.environ.get("BOUGH_TEST_PG_BIN")


def find_pg(major):
    """bin directory of a complete installation, or None."""
    if CHOSEN and major == PG:
        return PG_BIN
    for bindir in glob.glob(f"/usr/lib/postgresql/{major}/bin"):
        if os.path.exists(f"{bindir}/initdb"):
            return bindir
    return None


def main_pg():
    """Its major version, or None."""
    if CHOSEN:
        said = run([f"{CHOSEN}/postgres", "--version"]).stdout
        return int(re.match(r"postgres \(PostgreSQL\) (\d+)", said).group(1))
    majors = [int(d.split("/")[-2]) for d in glob.glob("/usr/lib/postgresql/*/bin")
              if os.path.exists(f"{d}/initdb")]
    return max((m for m in majors if 13 <= m <= 18), default=None)


PG = main_pg()
PG_BIN = CHOSEN or (find_pg(PG) if PG else None)
PG17 = os.environ.get("BOUGH_TEST_PG17")  # bin directory of a third version, for ./check --long


def tool(name):
    return os.path.join(PG_BIN, name)


# ---- clients ----

def password(uri):
    return urllib.parse.unquote(urllib.parse.urlsplit(uri).password)


def uri_parts(uri):
    u = urllib.parse.urlsplit(uri)
    q = dict(urllib.parse.parse_qsl(u.query))
    return {"user": urllib.parse.unquote(u.username or ""), "dbname": u.path.lstrip("/"),
            "host": q.get("host", u.hostname), "port": int(q.get("port", u.port or 5432))}


def now():
    """In UTC, as the API and `--at` take it."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat()


def admin_user(host):
    """The name by which the administrator comes in at a compute's Unix socket: its key is behind the role, in the
    memory of the compute (admin_key in src/preload/layout.h)."""
    with open(os.path.join(host, ".s.PGSQL.5432.lock"), encoding="ascii") as f:
        pid = int(f.readline())
    for fd in glob.glob(f"/proc/{pid}/fd/*"):
        with contextlib.suppress(FileNotFoundError):  # the postmaster has closed it meanwhile
            if os.readlink(fd).startswith("/memfd:bough"):
                with open(fd, "rb") as f:
                    f.seek(16 + 2 * 1024)
                    return f"{ADMIN}.{f.read(32).decode('ascii')}"
    raise AssertionError(f"no compute listens in {host}")


class Client:
    """A connection in autocommit mode."""

    def __init__(self, connection):
        self.c = connection
        self.c.autocommit = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def run(self, sql, *params):
        with self.c.cursor() as cur:
            cur.execute(sql, params or None)

    def rows(self, sql, *params):
        with self.c.cursor() as cur:
            cur.execute(sql, params or None)
            return cur.fetchall()

    def one(self, sql, *params):
        rows = self.rows(sql, *params)
        assert len(rows) == 1, rows
        return rows[0][0] if len(rows[0]) == 1 else rows[0]

    def close(self):
        self.c.close()


# ---- a server and its store ----

class Refused(Exception):
    """A command failed as it should: its exit status, its message and its hint."""


class Bough:
    def __init__(self, directory, pg_path=None, store=None):
        self.dir = str(directory)
        self.store = store or os.path.join(self.dir, "store")
        self.port = free_port()
        self.door = free_port()
        self.env = {k: v for k, v in os.environ.items()
                    if not k.startswith(("PG", "BOUGH_"))} | {"LC_ALL": "C.UTF-8"}
        self.pg_path(CHOSEN and PG_BIN, pg_path, PG17)
        if "BOUGH_TEST_PRELOAD" in os.environ:  # a server with a sanitizer, computes without
            self.env["BOUGH_PRELOAD"] = os.environ["BOUGH_TEST_PRELOAD"]
        if "BOUGH_TEST_COUNTERS" in os.environ:  # where computes count what they ran, despite their confinement
            self.env["BOUGH_TEST_COUNTERS"] = os.environ["BOUGH_TEST_COUNTERS"]

    def pg_path(self, *directories):
        """Where to look first for PostgreSQL."""
        self.env["BOUGH_PG_PATH"] = ":".join(d for d in directories if d)

    def bough(self, *args, check=True, timeout=120, **kw):
        argv = [BOUGH, *args]
        if "--" in args:
            at = argv.index("--")
            argv[at:at] = ["--store", self.store]
        else:
            argv += ["--store", self.store]
        return run(argv, check=check, timeout=timeout, env=self.env, **kw)

    def json(self, *args, **kw):
        return json.loads(self.bough(*args, "--json", **kw).stdout)

    def refused(self, *args, status=None, says=None, hint=None, **kw):
        """The command must fail: one line of error and a hint at most, and the right exit status."""
        done = self.bough(*args, check=False, **kw)
        assert done.returncode != 0, f"{args} succeeded\n{done.stdout}"
        assert done.returncode > 0, f"{args} died of signal {-done.returncode}"
        lines = done.stderr.strip().split("\n")
        assert len(lines) <= 2 and lines[0], f"{args}: not one line of error and a hint:\n{done.stderr}"
        if status:
            wanted = status if isinstance(status, (list, tuple)) else [status]
            assert done.returncode in [EXIT[s] for s in wanted], \
                f"{args} exited with {done.returncode}, not {status}: {done.stderr}"
        if says:
            assert re.search(says, done.stderr, re.I), f"{args}: {says!r} is not in {done.stderr!r}"
        if hint:
            assert len(lines) == 2 and re.search(hint, lines[1], re.I), f"{args}: no hint {hint!r}: {done.stderr!r}"
        return done

    def up(self, *args, **kw):
        listen = () if "--listen" in args else ("--listen", f"127.0.0.1:{self.door}")
        self.bough("up", "--port", str(self.port), *listen, *args, **kw)
        return self

    def down(self, *args):
        self.bough("down", *args)

    def status(self):
        return self.json("status")

    def pid(self):
        return self.status()["pid"]

    def log(self):
        with open(os.path.join(self.store, "boughd.log"), encoding="utf-8", errors="replace") as f:
            return f.read()

    def kill(self):
        """kill -9 of the server alone; computes go on."""
        pid = self.pid()
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not is_alive(pid), "boughd is gone")

    def admin_password(self):
        with open(os.path.join(self.store, "admin_password"), encoding="ascii") as f:
            return f.read().strip()

    def destroy(self):
        with contextlib.suppress(Exception):
            self.bough("down", check=False, timeout=60)
        with contextlib.suppress(OSError, ValueError, KeyError):
            with open(os.path.join(self.store, "run/server.json"), encoding="utf-8") as f:
                pid = json.load(f)["pid"]
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                if self.store.encode() in f.read():
                    os.kill(pid, signal.SIGKILL)
        for segment in segments_of(kill_below(self.dir)):  # the kernel keeps 4096, whoever made them is dead
            subprocess.run(["ipcrm", "-m", str(segment)], check=False, stderr=subprocess.DEVNULL)

    def project(self, name="p", *args, major=None, **kw):
        made = self.json("project", "create", name, *args, "--pg-version", str(major or PG), **kw)
        return Project(self, made["project"]["id"], name, made, major or PG)

    def projects(self):
        return self.json("project", "list")

    # the HTTP API

    def key(self):
        with open(self.status()["api_key_file"], encoding="ascii") as f:
            return f.read().strip()

    def api(self, method, path, body=None, key=None, raw=None, headers=None):
        """Returns status, headers, parsed body (None when empty)."""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        head = dict(headers or {})
        if key is None:
            key = self.key()
        if key:
            head["Authorization"] = f"Bearer {key}"
        data = raw if raw is not None else json.dumps(body) if body is not None else None
        if data is not None:
            head.setdefault("Content-Type", "application/json")
        try:
            c.request(method, "/api/v2" + path, body=data, headers=head)
            answer = c.getresponse()
            text = answer.read()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, json.loads(text) if text else None
        finally:
            c.close()


class Silent:
    """What listens on that socket, lets in whoever comes, and then says nothing. `asked`: somebody has asked it."""

    def __init__(self, listener):
        self.listener, self.sockets, self.asked = listener, [listener], threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client = self.listener.accept()[0]
                self.sockets.append(client)
                threading.Thread(target=self._welcome, args=(client,), daemon=True).start()

    def _welcome(self, client):
        def said(kind, *words):
            body = b"".join(word.encode() + b"\0" for word in words)
            return kind + (len(body) + 4).to_bytes(4, "big") + body
        with contextlib.suppress(OSError):
            while client.recv(4096)[4:8] in (b"\x04\xd2\x16\x2f", b"\x04\xd2\x16\x30"):
                client.sendall(b"N")  # neither TLS nor GSSAPI
            client.sendall(b"R\0\0\0\x08\0\0\0\0" + said(b"S", "server_version", f"{PG}.1") +
                           said(b"S", "client_encoding", "UTF8") + b"Z\0\0\0\x05I")
            while client.recv(4096):
                self.asked.set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for s in self.sockets:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()


class Held:
    """Operations of a server that stand still at a named point (src/util/crashpoint.h) for as long as a test wants.

    Made before the server is started.
    """

    def __init__(self, server):
        self.server, self.dir = server, os.path.join(server.dir, "held")
        os.makedirs(self.dir)
        os.chmod(self.dir, 0o777)
        server.env["BOUGH_HOLD_IN"] = self.dir

    def let_go(self, point):
        for name in (point, f"{point}.held"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.dir, name))

    @contextlib.contextmanager
    def at(self, point, work):
        """Run work() in a thread until it comes to the point; it goes on when the block ends. Yields an object whose
        `value` is what work() returned, after the block."""
        armed = os.path.join(self.dir, point)
        with open(armed, "w", encoding="ascii"):
            pass
        os.chmod(armed, 0o666)
        done = Outcome(work)
        done.thread.start()
        try:
            wait_for(lambda: os.path.exists(armed + ".held") or not done.thread.is_alive(), f"it comes to {point}", 60)
            assert os.path.exists(armed + ".held"), f"it never came to {point}: {done.value} {done.failed}"
            yield done
        finally:
            self.let_go(point)
            done.thread.join(90)
        assert not done.thread.is_alive(), f"it did not end after {point}"


class Outcome:
    """What a function came to in a thread of its own."""

    def __init__(self, work):
        self.value, self.failed, self.work = None, None, work
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        try:
            self.value = self.work()
        except Exception as e:  # pylint: disable=broad-exception-caught # what a server that is killed says
            self.failed = e


class Project:
    def __init__(self, server, project_id, name, made, major):
        self.server, self.id, self.name, self.made, self.major = server, project_id, name, made, major

    def bough(self, *args, **kw):
        return self.server.bough(*self._args(args), **kw)

    def json(self, *args, **kw):
        return self.server.json(*self._args(args), **kw)

    def refused(self, *args, **kw):
        return self.server.refused(*self._args(args), **kw)

    def _args(self, args):
        args = list(args)
        at = args.index("--") if "--" in args else len(args)
        return args[:at] + ["--project", self.id] + args[at:]

    def branch(self, name, parent=None, at=None, **kw):
        """Create; returns what --json prints."""
        more = (["--parent", parent] if parent else []) + (["--at", at] if at else [])
        return self.json("branch", "create", name, *more, **kw)

    def branches(self):
        return {b["name"]: b for b in self.json("branch", "list")}

    def get(self, branch="main"):
        return self.json("branch", "get", branch)

    def delete(self, branch):
        self.bough("branch", "delete", branch)

    def purge(self, branch):
        """For good: its files go."""
        self.bough("branch", "delete", branch, "--purge")

    def suspend(self, branch="main"):
        self.bough("endpoint", "suspend", branch)

    def start(self, branch="main"):
        self.bough("endpoint", "start", branch)

    def uri(self, branch="main"):
        return self.bough("cs", branch).stdout.strip()

    def socket(self, branch="main"):
        """host, port and dbname of the compute's Unix socket; starts it."""
        return uri_parts(self.bough("cs", branch, "--socket").stdout.strip())

    def connect(self, branch="main", uri=None):
        return Client(psycopg2.connect(uri or self.uri(branch), connect_timeout=20))

    def admin(self, branch="main", database=None):
        """As the superuser, by the store's admin password."""
        p = self.socket(branch)
        return Client(psycopg2.connect(host=p["host"], port=p["port"], user=admin_user(p["host"]),
                                       password=self.server.admin_password(),
                                       dbname=database or p["dbname"], connect_timeout=20))

    def sql(self, branch, sql, *params):
        with self.connect(branch) as c:
            c.run(sql, *params)

    def one(self, branch, sql, *params):
        with self.connect(branch) as c:
            return c.one(sql, *params)

    def rows(self, branch, sql, *params):
        with self.connect(branch) as c:
            return c.rows(sql, *params)

    def pgdata(self, branch="main"):
        return os.path.join(self.server.store, "branches", self.get(branch)["id"], "pgdata")

    def postmaster(self, branch="main"):
        with open(os.path.join(self.pgdata(branch), "postmaster.pid"), encoding="ascii") as f:
            return int(f.readline())

    def log(self, branch="main"):
        """Text of the compute's logs, for messages."""
        text = ""
        for path in glob.glob(os.path.join(self.server.store, "**/*.log"), recursive=True):
            if self.get(branch)["id"] in path or os.path.basename(path).startswith("postgres"):
                with open(path, encoding="utf-8", errors="replace") as f:
                    text += f.read()[-4000:]
        return text

    def kill_compute(self, branch="main"):
        """kill -9 of a whole compute, as the kernel's out-of-memory killer or a crash would."""
        pid = self.postmaster(branch)
        os.kill(pid, signal.SIGKILL)
        kill_below(self.pgdata(branch))

    def crash(self, branch="main"):
        """kill -9, and start anew: who asks for a start is not held to the limit of restarts."""
        self.kill_compute(branch)
        self.bough("endpoint", "restart", branch)


# ---- load and invariants ----

class Bank:
    """TPC-B by pgbench: sums of branches, tellers, accounts and history are equal at every moment."""

    def __init__(self, project, branch="main", scale=1, clients=4):
        self.project, self.name, self.scale, self.clients = project, branch, scale, clients
        self.load = None

    def init(self):
        uri = self.project.uri(self.name)
        run([tool("pgbench"), "-i", "-q", "-s", self.scale, uri])
        return self

    @contextlib.contextmanager
    def running(self):
        with pgbench(self.project.uri(self.name), "-c", self.clients) as load:
            with self.project.connect(self.name) as c:
                wait_for(lambda: c.one("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'")
                         >= self.clients and c.one("SELECT count(*) FROM pgbench_history") > 0, "the load runs")
            yield load

    @staticmethod
    def check(client):
        sums = client.rows("""
            SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
                   (SELECT sum(bbalance) FROM pgbench_branches), (SELECT coalesce(sum(delta), 0) FROM pgbench_history),
                   (SELECT count(*) FROM pgbench_history)""")[0]
        assert sums[0] == sums[1] == sums[2] == sums[3], f"balances differ: {sums}"
        return sums[4]


@contextlib.contextmanager
def pgbench(uri, *args, must_survive=True):
    """pgbench in the background until the block ends. It must not have ended by itself."""
    p = subprocess.Popen([tool("pgbench"), "-n", "-T", "3600", *map(str, args), uri], stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        yield p
        if must_survive:
            assert p.poll() is None, f"the load ended: {p.stdout.read()}"
    finally:
        with contextlib.suppress(OSError):
            os.killpg(p.pid, signal.SIGINT)
        try:
            p.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(p.pid, signal.SIGKILL)
            p.communicate()


class Ledger:
    """Clients that note each commit once it was acknowledged, and go on after the server came back."""

    def __init__(self, uri, clients=3):
        self.uri = uri
        self.acknowledged = [0] * clients
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._work, args=(i,), daemon=True) for i in range(clients)]

    @staticmethod
    def prepare(client):
        client.run("CREATE TABLE ledger (who int, n int, fill text, PRIMARY KEY (who, n))")

    def _work(self, who):
        n = 0
        while not self.stopping.is_set():
            try:
                c = psycopg2.connect(self.uri, connect_timeout=5)
            except psycopg2.Error:
                self.stopping.wait(0.05)
                continue
            try:
                with c, c.cursor() as cur:
                    cur.execute("SELECT coalesce(max(n), 0) FROM ledger WHERE who = %s", (who,))
                    n = cur.fetchone()[0]
                while not self.stopping.is_set():
                    with c, c.cursor() as cur:
                        cur.execute("INSERT INTO ledger VALUES (%s, %s, repeat('x', 200))", (who, n + 1))
                    n += 1
                    self.acknowledged[who] = max(self.acknowledged[who], n)
            except psycopg2.Error:
                pass
            finally:
                with contextlib.suppress(psycopg2.Error):
                    c.close()

    def __enter__(self):
        for t in self.threads:
            t.start()
        wait_for(lambda: min(self.acknowledged) > 0, "every client has committed once")
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for t in self.threads:
            t.join(30)

    def progress(self, by=20):
        """Wait until each client has committed so many times more."""
        now = list(self.acknowledged)
        wait_for(lambda: all(a >= b + by for a, b in zip(self.acknowledged, now)), "the clients make progress")

    @staticmethod
    def check(client, acknowledged):
        for who, n in enumerate(acknowledged):
            count, top = client.rows("SELECT count(*), coalesce(max(n), 0) FROM ledger WHERE who = %s", who)[0]
            assert top >= n, f"client {who}: commit {n} was acknowledged and is lost; {top} is the last"
            assert count == top, f"client {who}: {top - count} commits in the middle are lost"


def digest(client, table, order):
    """One value that stands for all rows of a table."""
    return client.one(f"SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY {order}), '')) FROM {table} t")


# ---- the end of a test ----

def assert_clean(project, branch="main"):
    """pg_amcheck finds nothing, and every page that a stock PostgreSQL would see has the right checksum."""
    p = project.socket(branch)
    env = os.environ | {"PGPASSWORD": project.server.admin_password()}
    done = run([tool("pg_amcheck"), "-h", p["host"], "-p", str(p["port"]), "-U", admin_user(p["host"]), "--all",
                "--install-missing", "--heapallindexed", "--parent-check"], check=False, env=env)
    assert done.returncode == 0, f"pg_amcheck on {branch}: {done.stdout}{done.stderr}"
    project.suspend(branch)
    if project.major != PG:
        return  # its tools are not here; pg_amcheck has read every page and so checked it
    directory = os.path.join(project.server.dir, f"export-{random.randrange(10**9)}")
    project.bough("export", branch, directory)
    try:
        done = run([tool("pg_checksums"), "--check", "-D", directory], check=False)
        assert done.returncode == 0, f"pg_checksums on {branch}: {done.stdout}{done.stderr}"
    finally:
        shutil.rmtree(directory)


# ---- stock PostgreSQL ----

class Stock:
    """A PostgreSQL without Bough, for imports from it and for starting exports."""

    def __init__(self, directory, bindir=None):
        self.dir, self.bin = str(directory), bindir or PG_BIN
        self.data = os.path.join(self.dir, "data")
        self.port = free_port()
        self.p = None

    def init(self, **settings):
        os.makedirs(self.dir, mode=0o755, exist_ok=True)
        if IS_ROOT:
            os.chown(self.dir, OS_USER.pw_uid, OS_USER.pw_gid)
        run(as_server([f"{self.bin}/initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-N", "-k",
                       "-E", "UTF8", "--locale", "C.UTF-8"]))
        with open(os.path.join(self.data, "postgresql.conf"), "a", encoding="utf-8") as f:
            for name, value in ({"fsync": "off", "max_connections": 40} | settings).items():
                f.write(f"{name} = '{value}'\n")
        return self

    def start(self, data=None, check=True, user="postgres", env=None):
        """Start on a PGDATA. With check=False, return the finished process if it ends by itself."""
        self.data = data or self.data
        self.log = os.path.join(self.dir, f"stock-{self.port}.log")
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "BOUGH_", "LD_"))} | (env or {})
        with open(self.log, "a", encoding="utf-8") as log:
            self.p = subprocess.Popen(as_server(
                [f"{self.bin}/postgres", "-D", self.data, "-p", str(self.port), "-c", "listen_addresses=127.0.0.1",
                 "-c", f"unix_socket_directories={self.dir}"]),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=env)
        def ready():
            if self.p.poll() is not None:
                return True
            try:
                self.connect("postgres", user).close()
                return True
            except psycopg2.OperationalError:
                return False
        wait_for(ready, "the stock server is ready or has ended", 60)
        if self.p.poll() is not None and check:
            with open(self.log, encoding="utf-8") as f:
                raise AssertionError(f"the stock server ended: {f.read()[-2000:]}")
        return self

    def connect(self, database="postgres", user="postgres"):
        return Client(psycopg2.connect(host=self.dir, port=self.port, user=user, dbname=database, connect_timeout=10))

    def url(self, database="postgres", user="postgres"):
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def stop(self):
        if self.p and self.p.poll() is None:
            self.p.send_signal(signal.SIGINT)
            try:
                self.p.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self.p.pid, signal.SIGKILL)
                self.p.wait()
