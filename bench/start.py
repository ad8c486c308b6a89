"""How long until the first SELECT of a branch, in units of a bare start of the stock postgres."""
from rig import Rig, interleave, median, note, run, tool


def _fill(rig, project, scale):
    run([tool("pgbench"), "-i", "-q", "-s", scale, rig.uri(project, "main")], timeout=1200)


def _tables(rig, project, count):
    """Tables with a primary key, a TOAST table and its index, and a sequence: 5 files each."""
    main = rig.branches(project)["main"]["id"]
    rig.admin_sql(project, "main", f"""
        DO $$ BEGIN FOR i IN 1..{count} LOOP
            EXECUTE format('CREATE TABLE t%s (id serial PRIMARY KEY, note text)', i);
            EXECUTE format('INSERT INTO t%s (note) VALUES (''x'')', i);
            IF i % 200 = 0 THEN COMMIT; END IF;
        END LOOP; END $$""")
    return main


def _settle(rig, project):
    rig.admin_sql(project, "main", "VACUUM (ANALYZE)", "CHECKPOINT")


def _ratio(sample, unit):
    ratio, low, high = sample.over(unit)
    return f"{ratio:.2f} x ({low:.2f} to {high:.2f})", ratio


def rows(directory, quick):
    """Yields (figure, target, measured, is_reached)."""
    rounds = 8 if quick else 30
    rig = Rig(directory)
    try:
        yield from _rows(rig, directory, rounds, quick)
    finally:
        rig.close()


def _rows(rig, directory, rounds, quick):
    note("a project of about 1,000 files")
    small = rig.project("small")
    _fill(rig, small, 10)
    _settle(rig, small)
    main = rig.branches(small)["main"]["id"]
    plain = rig.plain_copy(small, "main", f"{directory}/plain")

    answers = []

    def branch_of(project, parent):
        def measure():
            ms, made = rig.timed_branch(project, parent)
            answers.append(made)
            return ms
        return measure

    note("idle parent")
    bare, idle = interleave(rounds, plain.timed_start, branch_of(small, main))
    yield "bare start: exec postgres to first SELECT", "-", str(bare), None
    text, ratio = _ratio(idle, bare)
    yield "branch create to first SELECT, idle parent, p50", "2.5 x", f"{text}; {idle}", ratio <= 2.5
    own = median([a["branch"]["own_bytes"] for a in answers])
    yield "own bytes of a new branch (allocated blocks)", "1 MiB", f"{own / 1048576:.2f} MiB", own <= 1 << 20

    note("suspended parent")
    rig.suspend(small, main)
    bare, asleep = interleave(rounds, plain.timed_start, branch_of(small, main))
    text, ratio = _ratio(asleep, bare)
    yield "the same, suspended parent", "2.5 x", f"{text}; {asleep}", ratio <= 2.5

    note("ten times the data")
    large = rig.project("large")
    _fill(rig, large, 100)
    _settle(rig, large)
    large_main = rig.branches(large)["main"]["id"]
    rig.start(small, main)
    one, ten = interleave(rounds, branch_of(small, main), branch_of(large, large_main))
    text, ratio = _ratio(ten, one)
    yield "the same, 10 x the data, over 1 x", "1.10 x", text, ratio <= 1.10
    rig.suspend(large, large_main)

    count = 1000 if quick else 10000
    note(f"{count} tables")
    many = rig.project("many")
    _tables(rig, many, count)
    _settle(rig, many)
    many_main = rig.branches(many)["main"]["id"]
    bare, tables = interleave(rounds, plain.timed_start, branch_of(many, many_main))
    text, ratio = _ratio(tables, bare)
    yield f"the same, {count:,} tables ({5 * count + 1000:,} files)", "5 x", f"{text}; {tables}", ratio <= 5
