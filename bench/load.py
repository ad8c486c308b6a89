"""What a branch costs a parent under load, and how soon the child is there."""
import glob
import os
import subprocess
import time

from rig import Rig, note, owned, percentile, run, tool


def _transactions(prefix):
    """(end in seconds since 1970, latency in ms) of every transaction, from pgbench's log."""
    found = []
    for path in glob.glob(f"{prefix}.*"):
        with open(path, encoding="ascii") as f:
            for line in f:
                words = line.split()
                if len(words) >= 6:
                    found.append((int(words[4]) + int(words[5]) / 1e6, int(words[2]) / 1000))
    return sorted(found)


def _worst(transactions, begin, end):
    """The longest of those that were under way between two moments."""
    return max((ms for at, ms in transactions if at >= begin and at - ms / 1000 <= end), default=0)


def rows(directory, quick):
    """Yields (figure, target, measured, is_reached)."""
    rounds = 6 if quick else 20
    rig = Rig(directory)
    try:
        project = rig.project("load")
        uri = rig.uri(project, "main")
        main = rig.branches(project)["main"]["id"]
        note("pgbench scale 20, 4 clients")
        run([tool("pgbench"), "-i", "-q", "-s", 20, uri], timeout=600)
        logs = owned(f"{directory}/pgbench")
        load = subprocess.Popen([tool("pgbench"), "-n", "-c", "4", "-j", "2", "-T", "3600", "-l", "--log-prefix",
                                 os.path.join(logs, "log"), uri], stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
        try:
            time.sleep(10)
            windows, ready, gates = [], [], []
            for i in range(rounds):
                quiet = time.time()
                time.sleep(2)
                begin = time.time()
                ms, made = rig.timed_branch(project, main)
                windows.append((quiet, begin, begin + ms / 1000))
                ready.append(ms)
                gates.append(made["timings_ms"]["gate"])
                note(f"branch {i + 1} of {rounds}: {ms:.0f} ms")
            time.sleep(1)  # pgbench writes its log in blocks
        finally:
            load.terminate()
            load.wait(60)
        transactions = _transactions(os.path.join(logs, "log"))
        quiet = [_worst(transactions, q, b) for q, b, _ in windows]
        during = [_worst(transactions, b, e) for _, b, e in windows]
        yield ("parent under pgbench -c 4: its longest transaction while a branch is made, p95", "25 ms",
               f"{percentile(during, 95):.0f} ms, median {percentile(during, 50):.0f} ms (in 2 s without a branch: "
               f"p95 {percentile(quiet, 95):.0f} ms, median {percentile(quiet, 50):.0f} ms; gate closed "
               f"{percentile(gates, 50):.1f} ms, at most {max(gates):.1f} ms; n={rounds})",
               percentile(during, 95) <= 25)
        yield ("the same: child ready, p95", "1 s",
               f"{percentile(ready, 95) / 1000:.2f} s, median {percentile(ready, 50) / 1000:.2f} s",
               percentile(ready, 95) <= 1000)
    finally:
        rig.close()
