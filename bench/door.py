"""The front door: waking, what a connection costs, and many branches at once.

What is "direct" is the stock postgres on a plain copy of the same branch, by TCP on the loopback interface, with the
compute's own settings and, for TLS, a key of the same kind: a compute itself has no TCP port.
"""
import contextlib
import os
import re
import shutil
import statistics
import subprocess
import threading
import time

from rig import (Plain, Rig, Sample, free_port, note, owned, percentile, pgbench_tps, psycopg2, run, select_once,
                 tool, wait_for)


class Door:
    """Ways to an endpoint through the front door."""

    def __init__(self, rig, project, branch):
        self.rig, self.project = rig, project
        rig_endpoints = rig.api.call("GET", f"/projects/{project}/branches/{branch}/endpoints")["endpoints"]
        self.endpoint = rig_endpoints[0]["id"]
        dsn = psycopg2.extensions.parse_dsn(rig.server.bough("cs", branch, "--project", project).stdout.strip())
        self.login = {k: dsn[k] for k in ("user", "password", "dbname")} | {"port": rig.server.door}

    def clear(self):
        return self.login | {"host": "127.0.0.1", "sslmode": "disable", "options": f"endpoint={self.endpoint}"}

    def tls(self):
        return self.login | {"host": f"{self.endpoint}.localhost", "hostaddr": "127.0.0.1", "sslmode": "require"}

    def suspend(self):
        self.rig.api.call("POST", f"/projects/{self.project}/endpoints/{self.endpoint}/suspend")


class Tcp(Plain):
    """A plain copy that listens on TCP, with TLS."""

    def __init__(self, data, uri, certificate):
        super().__init__(data, uri)
        self.port = free_port()
        for name in ("tls.crt", "tls.key"):
            shutil.copy(os.path.join(certificate, name), os.path.join(data, "direct." + name[-3:]))
        run(["chown", "--reference", data, f"{data}/direct.crt", f"{data}/direct.key"])
        with open(f"{data}/pg_hba.conf", "a", encoding="utf-8") as f:
            f.write("host all all 127.0.0.1/32 scram-sha-256\n")
        for setting in ("listen_addresses=127.0.0.1", f"port={self.port}", "ssl=on",
                        f"ssl_cert_file={data}/direct.crt", f"ssl_key_file={data}/direct.key"):
            self.args += ["-c", setting]
        self.connection["port"] = self.port

    def tcp(self, sslmode):
        return {k: v for k, v in self.connection.items() if k != "port"} | {
            "host": "127.0.0.1", "port": self.port, "sslmode": sslmode}

    def start(self):
        link = os.path.join(self.sockets, ".s.PGSQL.5432")  # what Plain waits for
        if not os.path.islink(link):
            os.symlink(f".s.PGSQL.{self.port}", link)
        return super().start()


def _ms(call):
    before = time.perf_counter()
    call()
    return (time.perf_counter() - before) * 1000


def _wake_one(plain, door, rounds):
    """Bare starts and wakes in turns."""
    bare, woken = [], []
    for _ in range(rounds):
        bare.append(plain.timed_start())
        door.suspend()
        woken.append(_ms(lambda: select_once(**door.clear())))
    unit = statistics.median(bare)
    p50, p99 = percentile(woken, 50), percentile(woken, 99)
    text = f"{p50 / unit:.2f} x and {p99 / unit:.2f} x; {Sample(woken)}, bare start {Sample(bare)}"
    yield ("connect to a suspended endpoint, to first SELECT, p50 and p99", "1.5 x and 4 x", text,
           p50 <= 1.5 * unit and p99 <= 4 * unit)


def _wake_many(rig, plain, project, main, n):
    """All at once; until the last has its answer."""
    doors = []
    for _ in range(n):
        made = rig.branch(project, main)
        doors.append(Door(rig, project, made["branch"]["id"]))
        doors[-1].suspend()
    failures, waits = [], []
    for _ in range(3):
        unit = statistics.median(plain.timed_start() for _ in range(5))

        def connect(door):
            try:
                select_once(**door.clear())
            except psycopg2.Error as e:
                failures.append(str(e))

        threads = [threading.Thread(target=connect, args=(d,)) for d in doors]
        before = time.perf_counter()
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        waits.append((time.perf_counter() - before) * 1000 / unit)
        for d in doors:
            d.suspend()
    limit = n / os.cpu_count() * 1.5
    text = f"{statistics.median(waits):.1f} x (of 3: {', '.join(f'{w:.1f}' for w in waits)})"
    if failures:
        text += f"; {len(failures)} failed: {failures[0].strip()}"
    yield (f"{n} endpoints woken at once, until the last has its answer", f"{limit:.1f} x bare start", text,
           statistics.median(waits) <= limit and not failures)


def _turns(rounds, one, other):
    """Ratios of one to the other, A B B A."""
    ratios, values = [], []
    for _ in range(rounds):
        a = one()
        b = other() + other()
        a += one()
        ratios.append(a / b)
        values.append((a / 2, b / 2))
    return ratios, values


def _ratio_row(name, target, ratios, values, unit):
    ratio = statistics.median(ratios)
    text = (f"{ratio:.2f} ({percentile(ratios, 25):.2f} to {percentile(ratios, 75):.2f}, n={len(ratios)}); "
            f"{statistics.median(a for a, _ in values):.0f} and {statistics.median(b for _, b in values):.0f} {unit}")
    return name, f"{target:.2f}", text, ratio >= target


def _throughput(plain, door, quick):
    rounds, seconds = (2, 3) if quick else (5, 8)
    clients = ("-c", "4", "-j", "2", "-S")
    plain.start()
    try:
        for what, through, direct in (("in clear", door.clear(), plain.tcp("disable")),
                                      ("with TLS", door.tls(), plain.tcp("require"))):
            for target in (through, direct):
                pgbench_tps(target, 1, *clients)
            yield _ratio_row(f"select-only TPS through the front door / direct, {what}", 0.98, *_turns(
                rounds, lambda t=through: pgbench_tps(t, seconds, *clients),
                lambda t=direct: pgbench_tps(t, seconds, *clients)), "TPS")
        for what, through, direct in (("in clear", door.clear(), plain.tcp("disable")),
                                      ("with TLS", door.tls(), plain.tcp("require"))):
            yield _ratio_row(f"new connections per second through the front door / direct, {what}", 0.8, *_turns(
                rounds, lambda t=through: pgbench_tps(t, seconds, *clients, "-C"),
                lambda t=direct: pgbench_tps(t, seconds, *clients, "-C")), "connections/s")
    finally:
        plain.stop()


def _processes():
    """(pid, command line) of all."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as f:
                    yield int(name), f.read().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue


def _below(rig):
    """Processes of this store's computes."""
    found = []
    for pid, _ in _processes():
        try:
            if os.readlink(f"/proc/{pid}/cwd").startswith(rig.server.store + "/branches/"):
                found.append(pid)
        except OSError:
            continue
    return found


def _rss(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) / 1024


def _pss(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        return int(re.search(r"Pss:\s+(\d+)", f.read()).group(1)) / 1024


def _bare_idle(plain):
    """MiB of a postgres that nobody uses, on a plain copy; its libraries are shared with no other."""
    plain.start()
    try:
        select_once(**plain.tcp("disable"))
        pids = []
        for pid, _ in _processes():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/cwd") == os.path.realpath(plain.data):
                    pids.append(pid)
        return sum(_pss(pid) for pid in pids)
    finally:
        plain.stop()


def _idle(rig, plain, project, main, n, units):
    """`units`: a size, or None for the one that they have by themselves."""
    doors = []
    for _ in range(n):
        made = rig.branch(project, main)
        door = Door(rig, project, made["branch"]["id"])
        if units:
            rig.api.call("PATCH", f"/projects/{project}/endpoints/{door.endpoint}",
                         {"endpoint": {"autoscaling_limit_max_cu": units}})
        door.suspend()
        select_once(**door.clear())
        doors.append(door)
    pids = _below(rig)
    pss = sum(_pss(pid) for pid in pids)
    beside = "" if units else f"; a bare postgres alone: {_bare_idle(plain):.1f} MiB"
    yield (f"{n} awake idle computes of {units or 1} unit{'s' * bool(units)}: memory (PSS)", f"{1024 * n // 100} MiB",
           f"{pss:.0f} MiB in {len(pids)} processes{beside}", pss <= 1024 * n / 100)
    for d in doors:
        d.suspend()


def _lists(call):
    """(p50, p99, the longest) of 100 calls, in ms."""
    times = [_ms(call) for _ in range(100)]
    return percentile(times, 50), percentile(times, 99), max(times)


def _many(rig, n):
    """Exactly `n` branches, all in one project of its own; those of the parts before are deleted with theirs."""
    for p in rig.api.call("GET", "/projects")["projects"]:
        rig.api.call("DELETE", f"/projects/{p['id']}")
    project = rig.project("many")
    main = rig.branches(project)["main"]["id"]
    for _ in range(n - 1):
        made = rig.branch(project, main)
        rig.api.call("POST", f"/projects/{project}/endpoints/{made['endpoints'][0]['id']}/suspend")
    rig.suspend(project, main)
    rig.server.down()
    rig.server.up()
    rig.api = type(rig.api)(rig.server)
    count = len(_below(rig))
    first = _ms(lambda: rig.api.text(f"/projects/{project}/branches"))
    branches = len(rig.api.call("GET", f"/projects/{project}/branches")["branches"])
    if branches != n:
        raise RuntimeError(f"{branches} branches, not {n}")
    # the server measures all of them when it starts, and meanwhile lists are told without
    wait_for(lambda: all("own_bytes" in b for b in rig.api.call("GET", f"/projects/{project}/branches")["branches"]),
             "the bytes of all branches are known")
    api = _lists(lambda: rig.api.text(f"/projects/{project}/branches"))
    page = _lists(lambda: rig.api.text(f"/projects/{project}/branches?limit=100"))
    command = _lists(lambda: rig.server.bough("branch", "list", "--project", project))
    rss = _rss(rig.server.pid())
    yield f"{n:,} suspended branches: postgres processes", "0", str(count), count == 0
    yield (f"{n:,} suspended branches: boughd, resident, after 300 lists", "64 MiB", f"{rss:.0f} MiB",
           rss <= 64)
    for what, (p50, p99, longest) in (("list by the API, all in one answer", api),
                                      ("the same, a page of 100", page),
                                      ("`bough branch list`, the whole command", command)):
        yield (f"{n:,} suspended branches: {what}, p99", "20 ms",
               f"{p99:.1f} ms (p50 {p50:.1f}, the longest {longest:.1f}, n=100)", p99 <= 20)
    yield f"{n:,} suspended branches: the first list by the API after the server's start", "-", f"{first:.0f} ms", None


def _wrk(rig, path, seconds, cores):
    """Requests per second over connections that stay open; boughd on one processor, wrk on the others."""
    argv = ["wrk", "-t", "1", "-c", "8", "-d", f"{seconds}s", "-H", f"Authorization: Bearer {rig.api.key}",
            f"http://127.0.0.1:{rig.server.port}/api/v2{path}"]
    done = run(["taskset", "-c", cores, *argv], timeout=seconds + 60).stdout
    if "Non-2xx" in done:
        raise RuntimeError(done)
    return float(re.search(r"Requests/sec:\s+([0-9.]+)", done).group(1))


def _requests(rig, project, main, quick):
    pid = rig.server.pid()
    last = os.cpu_count() - 1
    run(["taskset", "-a", "-p", "-c", "0", str(pid)])
    try:
        seconds = 3 if quick else 10
        cores = f"1-{last}" if last else "0"
        one = _wrk(rig, f"/projects/{project}/branches/{main}", seconds, cores)
        page = _wrk(rig, f"/projects/{project}/branches?limit=100", seconds, cores)
    finally:
        run(["taskset", "-a", "-p", "-c", f"0-{last}", str(pid)])
    yield "GET of a branch, requests per second, boughd on one processor", "5,000", f"{one:,.0f}", one >= 5000
    yield "the same: GET of the project's list of branches", "5,000", f"{page:,.0f}", page >= 5000


def rows(directory, quick):
    """Yields (figure, target, measured, is_reached)."""
    rig = Rig(directory)
    try:
        yield from _rows(rig, directory, quick)
    finally:
        rig.close()


def _rows(rig, directory, quick):
    project = rig.project("door")
    main = rig.branches(project)["main"]["id"]
    note("pgbench scale 10")
    run([tool("pgbench"), "-i", "-q", "-s", 10, rig.uri(project, "main")], timeout=600)
    rig.admin_sql(project, "main", "VACUUM (ANALYZE)", "CHECKPOINT")
    copy = owned(f"{directory}/plain")
    rig.suspend(project, main)
    uri = rig.uri(project, "main")
    rig.server.bough("export", "main", copy, "--project", project, timeout=600)
    plain = Tcp(copy, uri, f"{rig.server.store}/tls/server")
    note("waking one")
    yield from _wake_one(plain, Door(rig, project, main), 20 if quick else 100)
    rig.start(project, main)
    if shutil.which("wrk"):
        note("GET requests")
        yield from _requests(rig, project, main, quick)
    else:
        note("GET requests: needs wrk (dev/install bench)")
    note("throughput and new connections")
    yield from _throughput(plain, Door(rig, project, main), quick)
    note("waking many")
    yield from _wake_many(rig, plain, project, main, 10 if quick else 50)
    note("idle computes")
    for units in (None, 0.25):
        yield from _idle(rig, plain, project, main, 20 if quick else 100, units)
    note("suspended branches")
    yield from _many(rig, 200 if quick else 1000)
