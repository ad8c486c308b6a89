"""The model: random file calls through the library and plainly show the same (test/model/model.h)."""
import os
import random
import re

import harness as h
import pytest

pytestmark = pytest.mark.slow

RUN = os.path.join(h.ROOT, "test/model/run")
with open(os.path.join(h.ROOT, "test/model/regressions"), encoding="utf-8") as f:
    REGRESSIONS = [line.split() for line in f if line.strip() and not line.startswith("#")]


def run(counted, directory, operations, *arguments):
    done = h.run([RUN, "--build", h.PLAIN_BUILD, "--dir", directory, "--ops", operations, *arguments], timeout=1800)
    print(done.stdout)
    for number, what in re.findall(r"(\d+) (operations|seals|restarts|kills|faults)", done.stdout):
        counted(f"the model: {what}", int(number))


def memory_or(directory):
    """A file system in memory where there is one: more operations in the same time."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else directory


@pytest.mark.parametrize("line", REGRESSIONS[:h.times(6, len(REGRESSIONS))], ids=lambda line: line[0])
def test_a_seed_that_once_failed(line, directory, counted):
    seed, operations, *apart = line
    run(counted, memory_or(directory), operations, *(f"--{word}" for word in apart), seed)


def test_file_calls_show_what_a_plain_directory_shows(directory, counted):
    first = random.randrange(10**6)
    run(counted, directory, 3000, first)
    last = first + h.times(1, 100)
    run(counted, memory_or(directory), h.times(10000, 20000), f"{first + 1}-{last}")


def test_a_child_shows_one_moment_of_each_of_its_parents_processes(directory, counted):
    first = random.randrange(10**6)
    run(counted, directory, h.times(6000, 60000), "--apart", f"{first}-{first + h.times(1, 40)}")


def test_files_that_all_make_at_once_have_what_each_wrote(directory, counted):
    first = random.randrange(10**6)
    run(counted, memory_or(directory), h.times(40000, 200000), "--shared", f"{first}-{first + h.times(1, 20)}")
