"""Limits of processor time and memory: control groups, with files in place of the kernel's, and the kernel's."""
import contextlib
import os
import re
import stat

import pytest

import harness as h


def wrapper(directory, before="", after=""):
    """A boughd with a command before it, or options after it."""
    path = os.path.join(directory, "limited-boughd")
    with open(path, "w", encoding="ascii") as f:
        f.write(f'#!/bin/sh\n{before}\nexec "{h.BUILD}/src/server/boughd" "$@" {after}\n')
    os.chmod(path, stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
    return path


class Group:
    """What boughd takes for its control group."""

    def __init__(self, directory, controllers="cpuset cpu io memory pids"):
        self.path = os.path.join(directory, "group")
        os.mkdir(self.path)
        for name, text in (("cgroup.controllers", controllers), ("cgroup.type", "domain"), ("cgroup.procs", ""),
                           ("cgroup.subtree_control", "")):
            with open(os.path.join(self.path, name), "w", encoding="ascii") as f:
                f.write(text)
        for path in [self.path] + [os.path.join(self.path, n) for n in os.listdir(self.path)]:
            os.chown(path, h.OS_USER.pw_uid, h.OS_USER.pw_gid)

    def get(self, name):
        with open(os.path.join(self.path, name), encoding="ascii") as f:
            return f.read()

    def groups(self):
        return {n for n in os.listdir(self.path) if os.path.isdir(os.path.join(self.path, n))}

    def limits(self, endpoint):
        return self.get(f"{endpoint}/cpu.max"), self.get(f"{endpoint}/memory.max"), self.get(f"{endpoint}/cgroup.procs")


@pytest.fixture(name="group")
def fixture_group(directory):
    return Group(directory)


@pytest.fixture(name="limited")
def fixture_limited(make_server, group, directory):
    server = make_server(up=False)
    server.env["BOUGH_BOUGHD"] = wrapper(directory, after=f'--test-cgroup "{group.path}"')
    return server.up()


def test_each_compute_has_a_group_of_its_size_while_it_runs(limited, group):
    assert limited.status()["limits"] == {"cpu": True, "memory": True, "why": ""}
    assert "limits    processors and memory" in limited.bough("status").stdout
    assert group.groups() == {"bough-server"} and group.get("bough-server/cgroup.procs") == "0"
    assert group.get("cgroup.subtree_control") == "+cpu+memory"
    project = limited.project("p")
    endpoint = project.json("endpoint", "get", "main")["id"]
    assert group.limits(endpoint) == ("100000 100000", str(4 << 30), "0")
    project.branch("child")
    child = project.json("endpoint", "get", "child")["id"]
    assert group.groups() == {"bough-server", endpoint, child}
    project.json("endpoint", "resize", "main", "0.25")
    assert group.limits(endpoint)[0] == "100000 100000"
    project.suspend()
    assert group.groups() == {"bough-server", child}
    assert project.one("main", "SELECT 1") == 1
    assert group.limits(endpoint) == ("25000 100000", str(1 << 30), "0")
    # what a server that was killed has left
    limited.kill()
    os.mkdir(os.path.join(group.path, "ep-nobodys-000000"))
    limited.up()
    assert "ep-nobodys-000000" not in group.groups()
    project.bough("branch", "delete", "child", "--purge")
    assert child not in group.groups()
    limited.down()
    assert group.groups() == {"bough-server"}


def test_a_compute_whose_group_cannot_be_made_starts_without(limited, group):
    project = limited.project("p")
    project.suspend()
    endpoint = project.json("endpoint", "get", "main")["id"]
    with open(os.path.join(group.path, endpoint), "w", encoding="ascii"):
        pass
    assert project.one("main", "SELECT 1") == 1
    assert re.search(f"a compute runs without a limit.*{endpoint}", limited.log())


@pytest.mark.parametrize("controllers, limits, why", [
    ("memory", (False, True), "no cpu controller"), ("cpu", (True, False), "no memory controller"),
    ("hugetlb", (False, False), "neither")])
def test_what_the_kernel_does_not_have_is_said_and_left_out(make_server, directory, controllers, limits, why):
    group = Group(directory, controllers)
    server = make_server(up=False)
    server.env["BOUGH_BOUGHD"] = wrapper(directory, after=f'--test-cgroup "{group.path}"')
    server.up()
    status = server.status()["limits"]
    assert (status["cpu"], status["memory"]) == limits and why in status["why"]
    assert why in server.bough("status").stdout and server.log().count(why) == 1
    project = server.project("p")
    endpoint = project.json("endpoint", "get", "main")["id"]
    assert os.path.exists(os.path.join(group.path, endpoint, "cpu.max")) == limits[0]
    assert os.path.exists(os.path.join(group.path, endpoint, "memory.max")) == limits[1]


# ---- the kernel's own ----

def unified():
    """Where version 2 is mounted with both controllers, and which group we are in; or why that is not so."""
    if not h.IS_ROOT:
        return None, "groups can be made by root alone"
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        mounts = [line.split() for line in f if " - cgroup2 " in line]
    for mount in mounts:
        with contextlib.suppress(OSError), open(f"{mount[4]}/cgroup.subtree_control", encoding="ascii") as f:
            if {"cpu", "memory"} <= set(f.read().split()) and os.access(mount[4], os.W_OK):
                return mount[4], ""
    return None, "the kernel has no cpu and memory controllers of cgroups version 2 to give"


@pytest.fixture(name="delegated")
def fixture_delegated():
    """A group for a boughd, as systemd makes it with Delegate=yes."""
    mount, why = unified()
    if not mount:
        pytest.skip(why)
    path = f"{mount}/bough-test-{os.getpid()}"
    os.mkdir(path)
    yield path

    def is_gone():
        for directory, _, _ in os.walk(path, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        return not os.path.exists(path)
    h.wait_for(is_gone, "nobody is in the group any more")


def test_the_kernel_holds_a_compute_to_its_size(delegated, make_server, directory):
    server = make_server(up=False)
    server.env["BOUGH_BOUGHD"] = wrapper(directory, before=f'echo $$ > "{delegated}/cgroup.procs"')
    server.up()
    assert server.status()["limits"] == {"cpu": True, "memory": True, "why": ""}
    project = server.project("p")
    project.json("endpoint", "resize", "main", "0.25")
    project.bough("endpoint", "restart", "main")
    endpoint = project.json("endpoint", "get", "main")["id"]
    with open(f"{delegated}/{endpoint}/cgroup.procs", encoding="ascii") as f:
        assert len(f.read().split()) > 3, "the postmaster and its children are in it"
    with open(f"{delegated}/{endpoint}/memory.max", encoding="ascii") as f:
        assert f.read().strip() == str(1 << 30)
    project.one("main", "SELECT count(*) FROM generate_series(1, 3000000)")
    with open(f"{delegated}/{endpoint}/cpu.stat", encoding="ascii") as f:
        stats = dict(line.split() for line in f)
    assert int(stats["nr_throttled"]) > 0
    project.suspend()
    assert not os.path.exists(f"{delegated}/{endpoint}")
    server.down()
