"""What a branch owns after it changed a little of much."""
from rig import Rig, note

# The page images in the WAL are compressed: what the rows hold decides how much WAL stands beside the pages.
FILLS = (("rows of text", "convert_to(repeat('customer ' || g || ' ordered ', 40), 'UTF8')"),
         ("rows of random bytes", "(SELECT string_agg(sha512((g * 16 + k)::text::bytea), '')"
                                  " FROM generate_series(1, 14) k)"))


def rows(directory, quick):
    """Yields (figure, target, measured, is_reached)."""
    pages = 8192 if quick else 131072
    rig = Rig(directory)
    try:
        project = rig.project("bytes")
        for name, fill in FILLS:
            # rows of 1 KiB; room on each page for a second version of one row
            rig.admin_sql(project, "main",
                          "CREATE TABLE big (id bigint PRIMARY KEY, n int, fill bytea) WITH (fillfactor = 85)",
                          "ALTER TABLE big ALTER fill SET STORAGE PLAIN",
                          f"INSERT INTO big SELECT g, 0, {fill} FROM generate_series(1, {pages * 7}) g",
                          "VACUUM (ANALYZE) big", "CHECKPOINT")
            size = rig.admin_sql(project, "main", "SELECT pg_relation_size('big') / 8192")[0][0]
            note(f"{name}: {size // 128} MiB")
            made = rig.branch(project, rig.branches(project)["main"]["id"])
            branch = made["branch"]["id"]
            changed = size // 100
            rig.admin_sql(project, branch,
                          "UPDATE big SET n = n + 1 WHERE ctid = ANY (ARRAY(SELECT format('(%s,1)', p * 100)::tid"
                          f" FROM generate_series(0, {changed - 1}) p))", "CHECKPOINT")
            own = rig.api.call("GET", f"/projects/{project}/branches/{branch}")["branch"]["own_bytes"]
            ratio = own / (changed * 8192)
            yield (f"own bytes after updating 1 % of the pages of a 1 GiB table, {name}", "1.3 x",
                   f"{ratio:.2f} x those pages ({own / 1048576:.1f} MiB)", ratio <= 1.3)
            rig.delete(project, branch)
            rig.admin_sql(project, "main", "DROP TABLE big")
    finally:
        rig.close()
