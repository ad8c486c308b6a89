"""Fixtures. Servers and directories of a test end with it, whatever happened."""
import os
import random
import shutil
import subprocess
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness as h  # noqa: E402
from api import Api, Shop  # noqa: E402

# what is chosen by chance when tests are collected: all worker processes must choose the same
for seed in ("BOUGH_FAULT_SEED", "BOUGH_POINTS_SEED", "BOUGH_POWER_SEED", "BOUGH_SOAK_SEED"):
    os.environ.setdefault(seed, str(random.randrange(10**6)))


def pytest_collection_modifyitems(items):
    if not os.access(h.BOUGH, os.X_OK):
        pytest.exit(f"{h.BOUGH} is missing; run ./check, or set BOUGH_TEST_BUILD", 2)
    if not h.PG:
        pytest.exit("no PostgreSQL from 13 to 18 below /usr/lib/postgresql", 2)
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


class SayAtOnce:
    """What fails is named when it does, with the reason: the end of a long run may be hours away."""

    def __init__(self, config):
        self.config = config

    def pytest_runtest_logreport(self, report):
        terminal = self.config.pluginmanager.getplugin("terminalreporter")
        if report.failed and terminal:
            why = [line for line in report.longreprtext.split("\n") if line.startswith("E ")]
            terminal.write_line("\n".join([f"\n{report.when} of {report.nodeid} failed", *why[:20]]))


def pytest_configure(config):
    if not hasattr(config, "workerinput"):  # of pytest-xdist
        config.pluginmanager.register(SayAtOnce(config))


def pytest_report_header():
    return f"PostgreSQL {h.PG} in {h.PG_BIN}"


def pytest_generate_tests(metafunc):
    if "major" in metafunc.fixturenames:
        majors = [h.PG]
        if 18 not in majors and (h.LONG or metafunc.definition.get_closest_marker("every_version")):
            majors.append(18)
        if h.LONG and h.PG17 and 17 not in majors:
            majors.append(17)
        metafunc.parametrize("major", majors, ids=[f"pg{m}" for m in majors], scope="session")


MEMORY = "/dev/shm"


def has_room_in_memory():
    """Also for attributes of files, which tmpfs has since Linux 6.6."""
    try:
        with open("/proc/meminfo", encoding="ascii") as f:
            free = next(int(line.split()[1]) << 10 for line in f if line.startswith("MemAvailable:"))
        about = os.statvfs(MEMORY)
        with tempfile.NamedTemporaryFile(dir=MEMORY) as probe:
            os.setxattr(probe.name, "user.bough.probe", b"1")
        return min(free, about.f_bavail * about.f_frsize) >= 8 << 30
    except OSError:
        return False


def base_dir():
    """On disk; in memory for every second of the processes that run tests, so that both are tested and no disk is
    waited for by all of them."""
    is_second = not h.LONG and int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 2
    return os.environ.get("BOUGH_TEST_DIR") or (MEMORY if is_second and has_room_in_memory() else "/var/tmp")


@pytest.fixture(scope="session")
def session_dir():
    """A directory that user postgres can walk to."""
    base = base_dir()
    path = tempfile.mkdtemp(prefix="bough-test-", dir=base)
    os.chmod(path, 0o755)
    yield path
    h.kill_below(path)
    h.forget_memory(path)
    if os.environ.get("BOUGH_TEST_KEEP") != "1":
        shutil.rmtree(path, ignore_errors=True)


def readable(bindir, session_dir, name):
    """A bin directory that user postgres can read, or None."""
    if not bindir:
        return None
    probe = subprocess.run(h.as_server([f"{bindir}/postgres", "--version"]), capture_output=True, check=False)
    if probe.returncode:
        copy = os.path.join(session_dir, name)
        shutil.copytree(os.path.dirname(bindir), copy, symlinks=True)
        bindir = os.path.join(copy, "bin")
    return bindir


@pytest.fixture(scope="session", autouse=True)
def main_version(session_dir):
    """The chosen one is where user postgres can read it."""
    h.PG_BIN = readable(h.PG_BIN, session_dir, f"postgresql-{h.PG}")


@pytest.fixture(scope="session")
def pg18(session_dir, main_version):
    """bin directory of PostgreSQL 18 where user postgres can read it, or None where it is not there or the main one;
    that of 17 is made readable, too."""
    if h.PG == 18:
        return None
    h.PG17 = readable(h.PG17, session_dir, "postgresql-17")
    return readable(os.environ.get("BOUGH_TEST_PG18"), session_dir, "postgresql-18")


@pytest.fixture
def directory(session_dir, request):
    """The test's own directory."""
    path = tempfile.mkdtemp(prefix="t", dir=session_dir)
    os.chmod(path, 0o755)
    yield path
    h.kill_below(path)
    if getattr(request.node, "failed", False):
        _show_logs(path)
    h.forget_memory(path)
    if os.environ.get("BOUGH_TEST_KEEP") != "1":
        shutil.rmtree(path, ignore_errors=True)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    report = (yield).get_result()
    if report.failed:
        item.failed = True


def _show_logs(path):
    for directory, _, names in os.walk(path):
        for name in sorted(names):
            if name.endswith(".log"):
                with open(os.path.join(directory, name), encoding="utf-8", errors="replace") as f:
                    lines = f.read().split("\n")[-25:]
                print(f"---- {os.path.join(directory, name)}\n" + "\n".join(lines))


@pytest.fixture
def counted(record_property):
    """Call it with what was done and how often, for the report of ./check --long (dev/report)."""
    def count(what, number=1):
        record_property(what, number)
    return count


@pytest.fixture
def make_server(directory, pg18):
    """Make servers, each with a store of its own."""
    made = []

    def make(name="s", store=None, up=True):
        path = os.path.join(directory, name)
        os.makedirs(path, mode=0o755, exist_ok=True)
        server = h.Bough(path, pg18, store)
        made.append(server)
        return server.up() if up else server
    yield make
    for server in made:
        server.destroy()


@pytest.fixture
def server(make_server):
    return make_server()


@pytest.fixture
def project(server, major, pg18):
    """An empty project on a server of its own."""
    if major == 18 and major != h.PG and not pg18:
        pytest.skip("PostgreSQL 18 could not be fetched")
    return server.project("p", major=major)


@pytest.fixture
def make_stock(directory):
    made = []

    def make(name="stock", bindir=None):
        stock = h.Stock(os.path.join(directory, name), bindir)
        made.append(stock)
        return stock
    yield make
    for stock in made:
        stock.stop()


@pytest.fixture(scope="module")
def shared_server(session_dir, pg18):
    """One server for the tests of a module that change nothing that another test sees."""
    path = tempfile.mkdtemp(prefix="m", dir=session_dir)
    os.chmod(path, 0o755)
    server = h.Bough(path, pg18).up()
    yield server
    server.destroy()
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def api(shared_server):
    return Api(shared_server)


@pytest.fixture(scope="module")
def shop(api):
    """A project that the tests of a module share."""
    return Shop(api, api.project("shop"))
