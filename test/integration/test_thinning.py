"""Restore points become fewer the older they are, layers merge where they were, and what is kept stays exact."""
import os
import random
import stat

import pytest

import harness as h
from test_history import points, write_wal

KIB = 512


@pytest.fixture(name="p")
def fixture_p(directory, make_server):
    """A restore point after each 512 KiB of WAL, instead of 32 MiB."""
    server = make_server(up=False)
    path = os.path.join(directory, "boughd-points")
    with open(path, "w", encoding="ascii") as f:
        f.write(f'#!/bin/sh\nexec "{h.BUILD}/src/server/boughd" "$@" --test-point-kib {KIB}\n')
    os.chmod(path, stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
    server.env["BOUGH_BOUGHD"] = path
    server.up()
    return server.project("points")


def distances(names):
    """From each of these restore points to the next, oldest first, in bytes of WAL."""
    at = sorted(int(name, 16) for name in names)
    return [b - a for a, b in zip(at, at[1:])]


@pytest.mark.skipif(not h.LONG, reason="four minutes of WAL; which points are kept is a unit test")
def test_restore_points_thin_out_towards_the_past_and_every_moment_is_still_there(p):
    seed = random.randrange(10**9)
    print("seed", seed)
    chance = random.Random(seed)
    p.sql("main", "CREATE TABLE t (id int)")
    marks, seen = [], set(points(p))

    def write(mib):
        p.sql("main", f"INSERT INTO t VALUES ({len(marks)})")
        marks.append(h.now())
        before = set(points(p))
        write_wal(p, mib)
        h.wait_for(lambda: set(points(p)) - before, "a restore point is made", 30)
        seen.update(points(p))
    for _ in range(40):
        write(1)
    for _ in range(4):  # the others are so far in the past then that a third of them will do
        write(24)
    assert len(seen) >= 44
    h.wait_for(lambda: len(points(p)) < 30, f"older ones go: {points(p)}")
    made = distances(seen)
    assert max(distances(points(p))[:4]) > 2 * sorted(made)[len(made) // 2], "not wider apart in the past"
    h.wait_for(lambda: p.get()["depth"] <= 16, "the stack is short", 60)
    for i in [0, *chance.sample(range(len(marks)), 4)]:
        p.bough("branch", "create", f"m{i}", "--at", marks[i])
        assert p.one(f"m{i}", "SELECT array_agg(id ORDER BY id) FROM t") == list(range(i + 1))
        p.purge(f"m{i}")
    h.assert_clean(p)
