"""A large branch goes back in its own past, in place."""
import datetime
import time

from rig import Rig, median, note, percentile

ROWS_PER_GIB = 131072  # a row fills a page


def rows(directory, quick):
    """Yields (figure, target, measured, is_reached)."""
    gib, rounds = (1, 3) if quick else (10, 10)
    rig = Rig(directory)
    try:
        project = rig.project("restore")
        main = rig.branches(project)["main"]["id"]
        # the WAL of the rows is no part of what is measured
        rig.api.call("PATCH", f"/projects/{project}", {"project": {"history_retention_seconds": 0}})
        rig.admin_sql(project, main, "CREATE TABLE big (id int, fill text)",
                      "ALTER TABLE big ALTER fill SET STORAGE PLAIN")
        for i in range(gib):
            rig.admin_sql(project, main, "INSERT INTO big SELECT g, repeat(md5(g::text), 240) FROM generate_series("
                          f"{i * ROWS_PER_GIB}, {(i + 1) * ROWS_PER_GIB - 1}) g")
            note(f"{i + 1} GiB")
        rig.admin_sql(project, main, "CHECKPOINT")
        rig.api.call("PATCH", f"/projects/{project}", {"project": {"history_retention_seconds": 604800}})
        rig.suspend(project, main)  # and start: history begins with a restore point
        rig.start(project, main)
        size = rig.admin_sql(project, main, "SELECT pg_table_size('big')")[0][0] / (1 << 30)
        rig.admin_sql(project, main, "CREATE TABLE seen (id int)")
        time.sleep(6)  # the clock looks for restore points every 5 s
        taken = []
        for i in range(rounds):
            rig.admin_sql(project, main, f"INSERT INTO seen VALUES ({i})")
            moment = datetime.datetime.now(datetime.timezone.utc).isoformat()
            rig.admin_sql(project, main, "INSERT INTO seen VALUES (-1)", "UPDATE big SET id = -1 WHERE ctid = '(7,1)'")
            before = time.perf_counter()
            rig.api.call("POST", f"/projects/{project}/branches/{main}/restore",
                         {"source_branch_id": main, "preserve_under_name": f"kept{i}", "source_timestamp": moment})
            last = rig.admin_sql(project, main, "SELECT id FROM seen ORDER BY ctid DESC LIMIT 1")[0][0]
            taken.append(time.perf_counter() - before)
            if last != i:
                raise RuntimeError(f"restored to something else: {last}, not {i}")
        yield (f"restore in place of a branch of {gib} GiB to a moment ago, to first SELECT, median", "1 s",
               f"{median(taken):.2f} s ({percentile(taken, 25):.2f} to {percentile(taken, 75):.2f}, n={len(taken)};"
               f" table of {size:.1f} GiB)", median(taken) <= 1)
    finally:
        rig.close()
