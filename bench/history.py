"""Branches of moments of the past, and what keeping the past costs."""
import datetime
import os
import random
import re
import subprocess
import time

from rig import Rig, interleave, median, note, percentile, pgbench_tps, psycopg2, run, select_once, tool

SETTLE_SECONDS = 6  # the clock looks for restore points every 5 s


def _points(rig, branch):
    return [n for n in os.listdir(f"{rig.server.store}/branches/{branch}/points") if "~" not in n]


def _write_history(rig, project, main, mib):
    """pgbench until so much WAL is written; the time when it began."""
    uri = rig.uri(project, "main")
    at = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint"
    start, begun = rig.admin_sql(project, main, at)[0][0], time.time()
    load = subprocess.Popen([tool("pgbench"), "-n", "-c", "4", "-j", "2", "-T", "3600", uri], stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
    try:
        while rig.admin_sql(project, main, at)[0][0] - start < mib << 20:
            time.sleep(1)
    finally:
        load.terminate()
        load.wait(60)
    note(f"{mib} MiB of WAL in {time.time() - begun:.0f} s, {len(_points(rig, main))} restore points")
    return begun


def _branch_at(rig, project, main, when):
    """ms to the first SELECT, and MiB replayed."""
    rig.made += 1
    moment = datetime.datetime.fromtimestamp(when, datetime.timezone.utc).isoformat()
    body = {"branch": {"name": f"m{rig.made}", "parent_id": main, "parent_timestamp": moment},
            "endpoints": [{"type": "read_write"}]}
    before = time.perf_counter()
    made = rig.api.call("POST", f"/projects/{project}/branches", body)
    select_once(dsn=made["connection_uris"][0]["connection_uri"])
    ms = (time.perf_counter() - before) * 1000
    rig.delete(project, made["branch"]["id"])
    return ms, made["replay_bytes"] / (1 << 20)


def rows(directory, quick):
    """Yields (figure, target, measured, is_reached)."""
    targets, mib, seconds, rounds = (10, 256, 8, 2) if quick else (50, 1024, 20, 5)
    rig = Rig(directory)
    try:
        project = rig.project("history")
        main = rig.branches(project)["main"]["id"]
        note("pgbench scale 20")
        run([tool("pgbench"), "-i", "-q", "-s", 20, rig.uri(project, "main")], timeout=600)
        time.sleep(SETTLE_SECONDS)
        begun = _write_history(rig, project, main, mib)
        time.sleep(SETTLE_SECONDS)
        plain = rig.plain_copy(project, "main", f"{directory}/plain")
        ended, chance = time.time() - SETTLE_SECONDS, random.Random(1)
        taken = []
        def one():
            ms, replayed = _branch_at(rig, project, main, begun + (ended - begun) * chance.random())
            taken.append((ms, replayed))
            return ms
        past, bare = interleave(targets, one, plain.timed_start)
        replayed = [r for _, r in taken[1:]]
        ratios = [ms / (bare.median + 1.9 * r) for ms, r in taken[1:]]
        yield (f"branch at a moment, {mib / 1024:g} GiB of history, to first SELECT, p95 of {targets}", "0.6 s",
               f"{percentile(past.values, 95) / 1000:.2f} s, median {past.median / 1000:.2f} s (replayed: median "
               f"{median(replayed):.0f} MiB, at most {max(replayed):.0f} MiB)", percentile(past.values, 95) <= 600)
        yield ("the same over (bare start + 1.9 ms for each MiB replayed)", "1.3 x",
               f"{median(ratios):.2f} x ({percentile(ratios, 25):.2f} to {percentile(ratios, 75):.2f}); bare start "
               f"{bare.median:.0f} ms", median(ratios) <= 1.3)
        with open(f"{rig.server.store}/boughd.log", encoding="utf-8") as f:
            gates = [float(g) for g in re.findall(r'restore point made .*gate_ms="?([0-9.]+)', f.read())]
        if gates:
            yield ("pause of a busy parent by an automatic restore point, p99", "10 ms",
                   f"{percentile(gates, 99):.1f} ms, median {median(gates):.1f} ms (n={len(gates)})",
                   percentile(gates, 99) <= 10)
        note("TPS with history and without")
        connection = psycopg2.extensions.parse_dsn(rig.uri(project, "main"))
        pairs = []
        for i in range(rounds):
            pair = {}
            for retention in ((604800, 0) if i % 2 else (0, 604800)):
                rig.api.call("PATCH", f"/projects/{project}", {"project": {"history_retention_seconds": retention}})
                rig.admin_sql(project, main, "CHECKPOINT")
                pair[retention] = pgbench_tps(connection, seconds, "-c", "4", "-j", "2")
            pairs.append(pair[604800] / pair[0])
        yield ("TPS with history / without, TPC-B", "0.95",
               f"{median(pairs):.2f} ({percentile(pairs, 25):.2f} to {percentile(pairs, 75):.2f}, n={rounds})",
               median(pairs) >= 0.95)
    finally:
        rig.close()
