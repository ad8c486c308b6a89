"""What benchmarks share: the units they are measured in, a store to measure on, interleaving, spread.

A figure is a ratio within one run: what is compared is measured in turns, in the same minutes, on the same file
system, and given as the median with the quartiles.
"""
import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
os.environ.setdefault("BOUGH_TEST_BUILD", os.path.join(ROOT, "build-bench"))
sys.path.insert(0, os.path.join(ROOT, "test", "integration"))

import psycopg2  # noqa: E402
from harness import (OS_USER, IS_ROOT, PG_BIN, Bough, admin_user, allocated, as_server, free_port, run,  # noqa: E402
                     tool, wait_for)

__all__ = ["Api", "Plain", "Rig", "Sample", "allocated", "as_server", "free_port", "interleave", "median", "note",
           "owned", "percentile", "pgbench_tps", "psycopg2", "run", "select_once", "tool", "wait_for", "PG_BIN"]


def note(text):
    """Progress, on standard error."""
    print(f"  {text}", file=sys.stderr, flush=True)


def median(values):
    return statistics.median(values)


def percentile(values, p):
    """The smallest value that at least p % of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * p // 100) - 1)]


class Sample:
    """Values of one thing, in ms unless said otherwise."""

    def __init__(self, values):
        self.values = list(values)

    def __str__(self):
        v = self.values
        return f"{median(v):.1f} ms ({percentile(v, 25):.1f} to {percentile(v, 75):.1f}, n={len(v)})"

    @property
    def median(self):
        return median(self.values)

    def over(self, unit):
        """Ratio of medians, with the quartiles of the ratios of neighbours in time."""
        n = min(len(self.values), len(unit.values))
        ratios = [self.values[i] / unit.values[i] for i in range(n)]
        return (self.median / unit.median, percentile(ratios, 25), percentile(ratios, 75))


def interleave(rounds, *measures):
    """Call each in turn, `rounds` times; a Sample for each. One more round before, which does not count."""
    values = [[] for _ in measures]
    for i in range(rounds + 1):
        for k, measure in enumerate(measures):
            value = measure()
            if i:
                values[k].append(value)
    return [Sample(v) for v in values]


def select_once(**connection):
    """Connect and run one SELECT."""
    c = psycopg2.connect(connect_timeout=60, **connection)
    try:
        with c.cursor() as cur:
            cur.execute("SELECT 1")
            cur.fetchone()
    finally:
        c.close()


def owned(path):
    """Make a directory that the server's user owns."""
    os.makedirs(path, exist_ok=True)
    if IS_ROOT:
        os.chown(path, OS_USER.pw_uid, OS_USER.pw_gid)
    return path


# ---- Bough ----

class Api:
    """The HTTP API over one connection that stays open."""

    def __init__(self, server):
        with open(os.path.join(server.store, "api_key"), encoding="ascii") as f:
            self.key = f.read().strip()
        self.c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)

    def call(self, method, path, body=None):
        text = self.text(path, method, body)
        return json.loads(text) if text else None

    def text(self, path, method="GET", body=None):
        """The answer as it comes, for what is timed: Python takes long to read a thousand branches."""
        args = (method, "/api/v2" + path, json.dumps(body) if body is not None else None,
                {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"})
        try:
            self.c.request(*args)
        except (BrokenPipeError, ConnectionResetError):  # idle for long: the server has closed it
            self.c.close()
            self.c.request(*args)
        answer = self.c.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {text.decode()}")
        return text


class Rig:
    """A server on a store of its own, with one project."""

    def __init__(self, directory, store=None, boughd=None):
        self.dir = directory
        self.server = Bough(directory, store=store)
        if boughd:
            self.server.env["BOUGH_BOUGHD"] = boughd
        self.server.up()
        self.api = Api(self.server)
        self.made = 0

    def project(self, name):
        made = self.server.json("project", "create", name, timeout=600)
        return made["project"]["id"]

    def branches(self, project):
        return {b["name"]: b for b in self.api.call("GET", f"/projects/{project}/branches")["branches"]}

    def branch(self, project, parent):
        """Make a branch of the branch with this id; the API's answer."""
        self.made += 1
        body = {"branch": {"name": f"b{self.made}", "parent_id": parent}, "endpoints": [{"type": "read_write"}]}
        return self.api.call("POST", f"/projects/{project}/branches", body)

    def delete(self, project, branch):
        self.api.call("DELETE", f"/projects/{project}/branches/{branch}?hard_delete=true")

    def uri(self, project, branch):
        return self.server.bough("cs", branch, "--socket", "--project", project).stdout.strip()

    def admin(self, project, branch, database=None):
        """Connection parameters of the superuser."""
        parts = psycopg2.extensions.parse_dsn(self.uri(project, branch))
        with open(os.path.join(self.server.store, "admin_password"), encoding="ascii") as f:
            password = f.read().strip()
        return {"host": parts["host"], "port": parts["port"], "user": admin_user(parts["host"]),
                "password": password,
                "dbname": database or parts["dbname"]}

    def admin_sql(self, project, branch, *statements):
        c = psycopg2.connect(**self.admin(project, branch))
        c.autocommit = True
        try:
            with c.cursor() as cur:
                for sql in statements:
                    cur.execute(sql)
                return cur.fetchall() if cur.description else None
        finally:
            c.close()

    def suspend(self, project, branch):
        for e in self.api.call("GET", f"/projects/{project}/branches/{branch}/endpoints")["endpoints"]:
            self.api.call("POST", f"/projects/{project}/endpoints/{e['id']}/suspend")

    def start(self, project, branch):
        for e in self.api.call("GET", f"/projects/{project}/branches/{branch}/endpoints")["endpoints"]:
            self.api.call("POST", f"/projects/{project}/endpoints/{e['id']}/start")

    def timed_branch(self, project, parent):
        """ms from asking for a branch to the answer of its first SELECT; the branch is deleted afterwards."""
        before = time.perf_counter()
        made = self.branch(project, parent)
        select_once(dsn=made["connection_uris"][0]["connection_uri"])
        ms = (time.perf_counter() - before) * 1000
        self.delete(project, made["branch"]["id"])
        return ms, made

    def plain_copy(self, project, branch, directory):
        """The branch's data as a plain PGDATA with the compute's own settings, stopped cleanly."""
        self.server.bough("export", branch, directory, "--project", project, timeout=1200)
        return Plain(directory, self.uri(project, branch))

    def close(self):
        with contextlib.suppress(AssertionError):  # it may have ended
            self.server.down()
        self.server.destroy()


# ---- a stock PostgreSQL on plain files ----

class Plain:
    """A plain PGDATA, with the settings of a compute, run by the stock postgres without the library."""

    # what differs between an exported configuration and a compute's (src/pg/conf.c)
    SETTINGS = {"shared_buffers": "128MB", "max_wal_size": "48MB", "checkpoint_completion_target": "0.2",
                "recovery_init_sync_method": "syncfs",
                "dynamic_shared_memory_type": "mmap", "huge_pages": "off", "wal_level": "replica",
                "listen_addresses": "", "logging_collector": "off", "log_destination": "stderr",
                "min_wal_size": "32MB", "wal_compression": "lz4"}

    def __init__(self, data, uri):
        self.data, self.sockets = data, data + ".sockets"
        owned(self.sockets)
        if IS_ROOT:
            run(["chown", "-R", f"{OS_USER.pw_uid}:{OS_USER.pw_gid}", data])
        self.role = psycopg2.extensions.parse_dsn(uri)
        self.connection = {"host": self.sockets, "port": 5432, "user": self.role["user"],
                           "password": self.role["password"], "dbname": self.role["dbname"]}
        self.args = [f"{PG_BIN}/postgres", "-D", data, "-k", self.sockets, "-p", "5432"]
        for name, value in self.SETTINGS.items():
            self.args += ["-c", f"{name}={value}"]
        self.p = None

    def start(self):
        """ms from exec to the answer of the first SELECT."""
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "BOUGH_", "LD_"))}
        socket_path = os.path.join(self.sockets, ".s.PGSQL.5432")
        before = time.perf_counter()
        with open(self.data + ".log", "a", encoding="utf-8") as log:
            who = {"user": OS_USER.pw_uid, "group": OS_USER.pw_gid, "extra_groups": []} if IS_ROOT else {}
            self.p = subprocess.Popen(self.args, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                      start_new_session=True, env=env, **who)
        while True:
            if os.path.exists(socket_path):
                try:
                    select_once(**self.connection)
                    return (time.perf_counter() - before) * 1000
                except psycopg2.OperationalError:
                    pass
            if self.p.poll() is not None:
                raise RuntimeError(f"the stock server ended; see {self.data}.log")
            time.sleep(0.0005)

    def admin_sql(self, sql):
        """As the superuser, whom the exported pg_hba.conf lets in by peer."""
        run(as_server([tool("psql"), "-X", "-q", "-h", self.sockets, "-U", "bough_admin", "-d", "postgres", "-c", sql]),
            timeout=1200, cwd="/")

    def stop(self):
        if self.p and self.p.poll() is None:
            self.p.send_signal(2)
            self.p.wait(120)
        self.p = None

    def timed_start(self):
        ms = self.start()
        self.stop()
        return ms


# ---- load ----

def pgbench_tps(connection, seconds, *args):
    """TPS that pgbench reports, without the time to connect."""
    done = run([tool("pgbench"), "-n", "-T", seconds, *args, psycopg2.extensions.make_dsn(**connection)],
               timeout=seconds + 120)
    for line in done.stdout.splitlines():
        if line.startswith("tps ="):
            return float(line.split()[2])
    raise RuntimeError(f"no TPS in: {done.stdout}{done.stderr}")
