"""What a branch owns after it changed a little of much."""
from rig import Rig, note


def rows(directory, quick):
    """Yields (figure, target, measured, is_reached)."""
    pages = 8192 if quick else 131072
    rig = Rig(directory)
    try:
        project = rig.project("bytes")
        note(f"a table of {pages // 128} MiB")
        # incompressible rows of 1 KiB; room on each page for a second version of one row
        rig.admin_sql(project, "main",
                      "CREATE TABLE big (id bigint PRIMARY KEY, n int, fill bytea) WITH (fillfactor = 85)",
                      "ALTER TABLE big ALTER fill SET STORAGE PLAIN",
                      f"INSERT INTO big SELECT g, 0, decode(repeat(md5(g::text), 4) || md5((-g)::text) ||"
                      f" repeat(md5((2 * g)::text), 27), 'hex') FROM generate_series(1, {pages * 12}) g")
        rig.admin_sql(project, "main", "VACUUM (ANALYZE) big", "CHECKPOINT")
        size = rig.admin_sql(project, "main", "SELECT pg_relation_size('big') / 8192")[0][0]
        main = rig.branches(project)["main"]["id"]
        for name, checkpoint in (("own bytes after updating 1 % of the pages of a 1 GiB table", True),):
            made = rig.branch(project, main)
            branch = made["branch"]["id"]
            changed = size // 100
            rig.admin_sql(project, branch,
                          "UPDATE big SET n = n + 1 WHERE ctid = ANY (ARRAY(SELECT format('(%s,1)', p * 100)::tid"
                          f" FROM generate_series(0, {changed - 1}) p))")
            if checkpoint:
                rig.admin_sql(project, branch, "CHECKPOINT")
            own = rig.api.call("GET", f"/projects/{project}/branches/{branch}")["branch"]["own_bytes"]
            ratio = own / (changed * 8192)
            yield name, "1.3 x", f"{ratio:.2f} x those pages ({own / 1048576:.1f} MiB)", ratio <= 1.3
            rig.delete(project, branch)
    finally:
        rig.close()
