"""PostgreSQL's own regression and isolation suites on a branch three layers deep, its parent under load.

What counts is that a plain cluster of the same binaries gives the same in the same run: the source may be of
another minor version, and then some tests fail on both. dev/upstream-tests is this alone.
"""
import collections
import glob
import os
import re
import shutil
import subprocess
import time

import harness as h
import pytest

pytestmark = pytest.mark.skipif(not h.LONG and os.environ.get("BOUGH_UPSTREAM") != "1",
                                reason="only with --long, or by dev/upstream-tests")
DATABASES = {"regress": "regression", "isolation": "isolation_regression"}


@pytest.fixture(name="source", scope="module")
def fixture_source():
    with_it = os.path.join(os.path.dirname(h.CHOSEN or ""), "src/test")
    if h.CHOSEN and os.path.isdir(with_it):  # built from source: its tests are there
        return with_it
    done = subprocess.run([os.path.join(h.ROOT, "dev/upstream-source"), str(h.PG)], capture_output=True, text=True,
                          check=False)
    if done.returncode and os.environ.get("CI") != "true":
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return os.path.join(done.stdout.strip(), "src/test")


def library():
    """The main version's $libdir."""
    return os.path.join(os.path.dirname(h.PG_BIN), "lib")


def results(said):
    """{test: ok or another word} of what pg_regress said: in TAP from 16 on."""
    found = dict(re.findall(r"^(?:test|\s+)\s*(\S+)\s+\.\.\. (ok|FAILED|failed \(ignored\))", said, re.M))
    return found or {test: word for word, test in re.findall(r"^(ok|not ok) \d+\s+[-+] (\S+)", said, re.M)}


class Target:
    """A server that the suites run on. Their files are in its PGDATA: a compute may read nothing else."""

    def __init__(self, label, data, host, port, password, user=h.ADMIN):
        self.label, self.host, self.port, self.user = label, host, str(port), user
        self.work = os.path.join(data, "upstream")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "BOUGH_", "LD_"))}
        self.env |= {"PGPASSWORD": password, "PGPORT": self.port, "PGHOST": host, "LC_ALL": "C.UTF-8"}

    def prepare(self, source):
        shutil.copytree(source, self.work)
        for name in ("autoinc.so", "refint.so"):
            shutil.copy(os.path.join(library(), name), os.path.join(self.work, "regress"))
        h.run(["chown", "-R", f"{h.OS_USER.pw_uid}:{h.OS_USER.pw_gid}", self.work])

    def suite(self, name):
        """Run one; returns {test: result}, and the outputs in results()."""
        program = {"regress": "pg_regress", "isolation": "pg_isolation_regress"}[name]
        schedule = {"regress": "parallel_schedule", "isolation": "isolation_schedule"}[name]
        inputs = os.path.join(self.work, name)
        began = time.monotonic()
        done = h.run(h.as_server([
            f"{library()}/pgxs/src/test/{name}/{program}", f"--inputdir={inputs}",
            f"--outputdir={inputs}", f"--bindir={h.PG_BIN}", f"--dlpath={self.work}/regress",
            f"--schedule={inputs}/{schedule}", "--max-connections=8", f"--host={self.host}", f"--port={self.port}",
            f"--user={self.user}", f"--dbname={DATABASES[name]}"]),
            check=False, timeout=1200, env=self.env, cwd=inputs)
        found = results(done.stdout)
        assert len(found) > 50, f"{name} on {self.label} did not run: {done.stdout[-3000:]}{done.stderr[-2000:]}"
        print(f"{name} on {self.label}: {sum(r == 'ok' for r in found.values())} of {len(found)} passed in "
              f"{time.monotonic() - began:.0f} s")
        return found

    def output(self, suite, test):
        path = os.path.join(self.work, suite, "results", f"{test}.out")
        if not os.path.exists(path):
            return None
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read().replace(self.work, "WORK")

    def difference(self, suite, test):
        with open(os.path.join(self.work, suite, "regression.diffs"), encoding="utf-8", errors="replace") as f:
            return next((part[:3000] for part in f.read().split("diff -U3 ") if f"/{test}.out" in part), "")

    def tool(self, name, *args, check=True):
        return h.run([h.tool(name), "-h", self.host, "-p", self.port, "-U", self.user, *args], check=check,
                     env=self.env, timeout=600)

    def dump(self):
        """Lines of the regression database as SQL, less what no two runs share: ids, clock times, keys, random()."""
        text = self.tool("pg_dump", "--no-blobs", "--exclude-table-data=random_tbl", "regression").stdout
        text = text.replace(self.work, "WORK")
        # 15.14 and later: a key made anew for each dump
        lines = (line for line in text.split("\n") if not re.match(r"\\(un)?restrict ", line))
        return collections.Counter(re.sub(r"\d{5,}", "N", re.sub(r"\d\d:\d\d:\d\d(\.\d+)?", "T", line))
                                   for line in lines)

    def large_objects(self):
        return self.tool("psql", "-X", "-A", "-t", "-d", "regression", "-c",
                         "SELECT md5(lo_get(oid)) FROM pg_largeobject_metadata ORDER BY 1").stdout

    def amcheck(self):
        return self.tool("pg_amcheck", "-d", "regression", "--install-missing", "--heapallindexed", check=False)


@pytest.fixture(name="plain")
def fixture_plain(make_stock, source):
    stock = make_stock().init(max_connections=100).start()
    # the owner of the catalogues must have the name that it has in a branch
    with stock.connect() as c:
        c.run("CREATE ROLE renamer SUPERUSER LOGIN")
    with stock.connect(user="renamer") as c:
        c.run(f"ALTER ROLE postgres RENAME TO {h.ADMIN}")
    with stock.connect(user=h.ADMIN) as c:
        c.run("DROP ROLE renamer")
    target = Target("a plain cluster", stock.data, stock.dir, stock.port, "")
    target.prepare(source)
    return target


@pytest.fixture(name="branch")
def fixture_branch(server, source):
    """The third layer: main, a, b, c; main and b have load."""
    p = server.project("p")
    bank = h.Bank(p).init()
    parent, loads = "main", []
    for name in ("a", "b", "c"):
        p.branch(name, parent)
        p.sql(name, f"CREATE TABLE of_{name} AS SELECT generate_series(1, 1000) AS id")
        parent = name
    with bank.running(), h.Bank(p, "b", clients=2).running():
        at = p.socket("c")  # the front door lets nobody in as the owner of the catalogues
        target = Target("the branch", p.pgdata("c"), at["host"], at["port"], server.admin_password(),
                        h.admin_user(at["host"]))
        if h.PG >= 17:  # the role has it off for Bough's own sessions; the suites' users see what theirs see
            target.tool("psql", "-X", "-d", "postgres", "-c", f"ALTER ROLE {h.ADMIN} RESET event_triggers")
        target.prepare(source)
        target.project, target.loads = p, loads
        yield target
    with p.connect() as c:
        h.Bank.check(c)


def compare(suite, plain, branch, found):
    """One line for each difference. What fails on the plain cluster alone is not the branch's fault, and shown."""
    differences = []
    for test in sorted(set(found[plain]) | set(found[branch])):
        results = found[plain].get(test), found[branch].get(test)
        if results[0] != results[1] and results[1] != "ok":
            differences.append(f"{suite}/{test}: {results[0]} on the plain cluster, {results[1]} on the branch")
        elif results[0] != results[1]:
            print(f"{suite}/{test}: {results[0]} on the plain cluster alone: {plain.difference(suite, test)}")
        elif results[0] != "ok" and plain.output(suite, test) != branch.output(suite, test):
            differences.append(f"{suite}/{test}: fails on both, with another output")
    return differences


def test_upstream_suites_give_the_same_on_a_branch_as_on_a_plain_cluster(plain, branch, counted):
    differences = []
    for suite in DATABASES:
        found = {target: target.suite(suite) for target in (plain, branch)}
        differences += compare(suite, plain, branch, found)
        counted(f"tests of PostgreSQL's {suite} suite that pass", list(found[branch].values()).count("ok"))
        counted(f"tests of PostgreSQL's {suite} suite", len(found[branch]))
        for test, result in found[branch].items():
            if result != "ok":
                print(f"{suite}/{test}: {result}; on the plain cluster: {found[plain].get(test)}")
    dumps = plain.dump(), branch.dump()
    for these, others, where in ((*dumps, "plain cluster"), (*dumps[::-1], "branch")):
        lines = list((these - others).elements())
        if lines:
            differences.append(f"{len(lines)} lines of dump on the {where} only: {lines[:10]}")
    if plain.large_objects() != branch.large_objects():
        differences.append("the large objects differ")
    checks = [target.amcheck() for target in (plain, branch)]
    if checks[0].returncode != checks[1].returncode or checks[0].stdout != checks[1].stdout:
        differences.append(f"pg_amcheck: {checks[0].returncode} on the plain cluster, {checks[1].returncode} on the "
                           f"branch: {checks[1].stdout[-1000:]}{checks[1].stderr[-1000:]}")
    for path in glob.glob(f"{branch.work}/*/regression.diffs"):
        with open(path, encoding="utf-8", errors="replace") as f:
            print(path, f.read()[:6000])
    p = branch.project
    shutil.rmtree(branch.work)
    p.suspend("c")
    target = os.path.join(p.server.dir, "export")
    p.bough("export", "c", target, timeout=300)
    done = h.run([h.tool("pg_checksums"), "--check", "-D", target], check=False)
    if done.returncode:
        differences.append(f"pg_checksums on the export: {done.stdout}{done.stderr}")
    print(f"{sum(dumps[0].values())} lines of dump compared; {done.stdout.strip()}")
    assert not differences, "\n".join(differences)
