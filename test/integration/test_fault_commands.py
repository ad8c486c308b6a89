"""Memory that runs out in a command, and files that it can't read or write: the nth of them fails.

What it prints is whole, or it fails with an error that says why; it never dies of it.
"""
import errno
import os
import random
import re

import harness as h
import pytest
from faults import COUNT, ONCE, Faults, Served, mask, served

SEED = os.environ.get("BOUGH_FAULT_SEED") or str(random.randrange(10**6))
SOME = h.times(8, 80)  # failures of each kind in each command

COMMANDS = [
    "project list", "project get", "project get --json", "project update --name p",
    "project update --history-retention 6h", "branch list", "branch list --json", "branch list --deleted",
    "branch get other", "branch protect other", "branch unprotect other", "branch set-expiration other --never",
    "branch rename other other", "branch get none", "endpoint list", "endpoint get other", "endpoint why other",
    "endpoint start other", "endpoint resize other 1", "ip-allow list", "ip-allow add 127.0.0.1", "ip-allow reset",
    "snapshot list", "snapshot get snap", "snapshot rename snap snap", "snapshot schedule other",
    "snapshot schedule other hourly", "store usage", "store gc --dry-run", "cs other", "cs other --json",
    "api-key list", "api-key list --json", "operation list", "status", "status --json", "ca", "help", "help --json",
    "help branch create", "completion bash", "completion fish", "version --json", "branch crate",
    "server confirm-clock"]
OF_NO_STORE = ("help", "completion", "version")
KINDS = {"memory": (("malloc",), errno.ENOMEM), "files": (("open", "read", "write"), errno.EIO)}


class World(Served):
    def __init__(self, directory, pg18):
        super().__init__(directory, pg18)
        self.p.branch("other")
        self.p.bough("snapshot", "create", "other", "--name", "snap")

    def start(self):
        self.server.up()  # what fails is the command

    def run(self, command):
        """With the fault's library in the command alone."""
        ours = self.fault.env()
        self.server.env |= ours
        store = [] if command.split()[0] in OF_NO_STORE else ["--store", self.server.store]
        try:
            return h.run([h.BOUGH, *command.split(), *store], check=False, timeout=60, env=self.server.env)
        finally:
            for name in ours:
                del self.server.env[name]


@pytest.fixture(name="world", scope="module")
def fixture_world(session_dir, pg18):
    with served(World, session_dir, "fault-commands", pg18) as world:
        yield world


def shape(text):
    """What does not change from one call to the next: the first word of each line, without numbers."""
    return [re.sub(r"\d+", "N", (line.split() or [""])[0]) for line in text.split("\n")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_prints_all_or_fails(world, command, kind, counted):
    calls, error = KINDS[kind]
    world.fault.arm(COUNT, mask(*calls), program="bough")
    plain = world.run(command)
    seen = world.fault.seen
    world.fault.disarm()
    if not seen:
        pytest.skip("it uses no file")
    wanted = {"branch crate": "usage", "branch get none": "notfound"}.get(command)
    assert plain.returncode == (h.EXIT[wanted] if wanted else 0), plain.stderr
    chance = random.Random(f"{SEED} {command} {kind}")
    fired = 0
    for n in sorted(chance.sample(range(1, seen + 1), min(SOME, seen))):
        world.fault.arm(ONCE, mask(*calls), error, n, program="bough")
        done = world.run(command)
        world.fault.disarm()
        what = f"bough {command}, {kind}, {n} of {seen}, seed {SEED}: {done.returncode} {done.stdout} {done.stderr}"
        if not world.fault.fired:
            continue
        fired += 1
        assert 0 <= done.returncode < 128, what
        if done.returncode == plain.returncode:
            assert shape(done.stdout) == shape(plain.stdout), what
        else:
            assert done.stderr.strip() and len(done.stderr.strip().split("\n")) <= 2, what
            assert not done.stdout or shape(plain.stdout)[:1] == shape(done.stdout)[:1], what
    counted("allocations and file calls that failed in commands", fired)
    # the server was not harmed by half a request
    assert set(world.p.branches()) == {"main", "other"}


@pytest.mark.parametrize("command", ["cs other", "project get --json"])
def test_nothing_is_lost_of_what_is_asked_and_answered(world, command):
    """Every allocation from the last request on: libcurl lost a query, and jansson a byte, and both went on."""
    world.fault.arm(COUNT, mask("malloc"), program="bough")
    plain = world.run(command)
    seen = world.fault.seen
    for n in range(max(1, seen - 120), seen + 1):
        world.fault.arm(ONCE, mask("malloc"), errno.ENOMEM, n, program="bough")
        done = world.run(command)
        world.fault.disarm()
        assert done.returncode or done.stdout == plain.stdout, f"allocation {n} of {seen}: {done.stdout}"


@pytest.mark.parametrize("kind", KINDS)
def test_up_starts_a_server_or_says_why(make_server, directory, kind, counted):
    """What fails leaves no server behind, or says that it does, and the next `bough up` starts one."""
    fault, server = Faults(directory), make_server("up", up=False)
    server.up()  # the store is there
    calls, error = KINDS[kind]
    def up():
        server.env |= fault.env()
        try:
            return server.bough("up", "--port", str(server.port), "--listen", f"127.0.0.1:{server.door}", check=False,
                                timeout=60)
        finally:
            for name in fault.env():
                del server.env[name]
    server.down()
    fault.arm(COUNT, mask(*calls), program="bough")
    assert up().returncode == 0
    seen, fired = fault.seen, 0
    for n in sorted(random.Random(f"{SEED} up {kind}").sample(range(1, seen + 1), min(SOME, seen))):
        server.down()
        fault.arm(ONCE, mask(*calls), error, n, program="bough")
        done = up()
        fault.disarm()
        what = f"bough up, {kind}, {n} of {seen}, seed {SEED}: {done.returncode} {done.stdout} {done.stderr}"
        fired += fault.fired
        assert 0 <= done.returncode < 128, what
        runs = server.bough("status", check=False).returncode == 0
        assert runs == (done.returncode == 0 or "has been started" in done.stderr), what
        if done.returncode:
            assert fault.fired and done.stderr.startswith("bough: error: "), what
            server.up()
    assert fired, "nothing failed"
    counted("allocations and file calls that failed in commands", fired)
