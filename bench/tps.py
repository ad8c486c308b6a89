"""Throughput on a branch over that on a plain copy, same file system, in turns."""
import shutil

from rig import Plain, Rig, note, owned, percentile, pgbench_tps, psycopg2, run, tool

CLIENTS = ("-c", "4", "-j", "2")


def _median(values):
    return percentile(values, 50)


def _figure(name, target, pairs):
    ratios = [branch / plain for branch, plain in pairs]
    ratio = _median(ratios)
    text = (f"{ratio:.2f} ({percentile(ratios, 25):.2f} to {percentile(ratios, 75):.2f}, n={len(ratios)}); "
            f"{_median([b for b, _ in pairs]):.0f} and {_median([p for _, p in pairs]):.0f} TPS")
    return name, f"{target:.2f}", text, ratio >= target


def rows(directory, quick):
    """Yields (figure, target, measured, is_reached)."""
    rounds, seconds = (3, 10) if quick else (7, 16)
    rig = Rig(directory)
    try:
        project = rig.project("tps")
        main = rig.branches(project)["main"]["id"]
        note("pgbench scale 50")
        run([tool("pgbench"), "-i", "-q", "-s", 50, rig.uri(project, "main")], timeout=1200)
        rig.admin_sql(project, "main", "VACUUM (ANALYZE)", "CHECKPOINT")
        rig.suspend(project, main)
        master = f"{directory}/master"
        uri = rig.uri(project, "main")
        rig.suspend(project, main)
        rig.server.bough("export", "main", master, "--project", project, timeout=1200)
        selects, first, steady = [], [], []
        for i in range(rounds):
            note(f"round {i + 1} of {rounds}")
            made = rig.branch(project, main)
            # both by their own Unix sockets: what the front door costs is not in question here
            branch = psycopg2.extensions.parse_dsn(rig.uri(project, made["branch"]["id"]))
            copy = owned(f"{directory}/copy{i}")
            run(["cp", "-a", f"{master}/.", copy], timeout=600)
            plain = Plain(copy, uri)
            plain.start()
            try:
                targets = [branch, plain.connection]
                order = [0, 1] if i % 2 else [1, 0]
                for results in (first, steady):
                    pair = [0.0, 0.0]
                    for k in order:
                        pair[k] = pgbench_tps(targets[k], seconds, *CLIENTS)
                    results.append(tuple(pair))
                rig.admin_sql(project, made["branch"]["id"], "CHECKPOINT")
                plain.admin_sql("CHECKPOINT")
                for k in order:
                    pgbench_tps(targets[k], 2, *CLIENTS, "-S")
                pair = [0.0, 0.0]
                for k in order + order[::-1]:  # A B B A: what drifts cancels out
                    pair[k] += pgbench_tps(targets[k], seconds // 2, *CLIENTS, "-S") / 2
                selects.append(tuple(pair))
            finally:
                plain.stop()
                rig.delete(project, made["branch"]["id"])
                shutil.rmtree(copy)
        yield _figure("TPS on a branch / on a plain copy: select-only", 0.97, selects)
        yield _figure("the same: TPC-B, first touch", 0.90, first)
        yield _figure("the same: TPC-B, steady", 0.95, steady)
    finally:
        rig.close()
