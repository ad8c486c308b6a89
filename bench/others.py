"""The same data copied by other means, beside a branch of it."""
import contextlib
import os
import shutil
import subprocess
import time

from rig import IS_ROOT, OS_USER, Plain, Rig, interleave, note, owned, run, tool


@contextlib.contextmanager
def _xfs(directory, gigabytes):
    """A loop-mounted XFS with reflinks, owned by the server's user; None where that cannot be had."""
    image, at = f"{directory}/xfs.img", f"{directory}/xfs"
    mounted = False
    try:
        if IS_ROOT and shutil.which("mkfs.xfs"):
            run(["truncate", "-s", f"{gigabytes}G", image])
            run(["mkfs.xfs", "-q", "-m", "reflink=1", image])
            os.makedirs(at, exist_ok=True)
            mounted = run(["mount", "-o", "loop", image, at], check=False).returncode == 0
        if mounted:
            os.chown(at, OS_USER.pw_uid, OS_USER.pw_gid)
        yield at if mounted else None
    finally:
        if mounted:
            run(["umount", at])
        with contextlib.suppress(OSError):
            os.unlink(image)


def _ms(call):
    before = time.perf_counter()
    call()
    return (time.perf_counter() - before) * 1000


def _template(plain):
    ms = _ms(lambda: plain.admin_sql(f"CREATE DATABASE copied TEMPLATE {plain.role['dbname']}"))
    plain.admin_sql("DROP DATABASE copied")
    return ms


def _dump(plain):
    env = os.environ | {"PGPASSWORD": plain.role["password"], "PGHOST": plain.sockets, "PGPORT": "5432",
                        "PGUSER": plain.role["user"]}

    def copy():
        with subprocess.Popen([tool("pg_dump"), "-Fc", "-Z0", plain.role["dbname"]], env=env,
                              stdout=subprocess.PIPE) as dump:
            run([tool("pg_restore"), "-d", "restored", "--no-owner"], env=env, stdin=dump.stdout, timeout=1200)
    run([tool("createdb"), "restored"], env=env)
    try:
        return _ms(copy)
    finally:
        run([tool("dropdb"), "restored"], env=env)


def _reflink(master, uri, directory):
    copy = owned(f"{directory}/clone")

    def clone():
        run(["cp", "-a", "--reflink=always", f"{master}/.", copy], timeout=600)
        plain = Plain(copy, uri)
        try:
            plain.start()
        finally:
            plain.stop()
    try:
        return _ms(clone)
    finally:
        shutil.rmtree(copy)


def rows(directory, quick):
    """Yields (figure, target, measured, is_reached)."""
    rounds = 1 if quick else 3
    rig = Rig(directory)
    try:
        project = rig.project("others")
        main = rig.branches(project)["main"]["id"]
        uri = rig.uri(project, "main")
        note("pgbench scale 100")
        run([tool("pgbench"), "-i", "-q", "-s", 100, uri], timeout=1200)
        rig.admin_sql(project, "main", "VACUUM (ANALYZE)", "CHECKPOINT")
        master = f"{directory}/master"
        plain = rig.plain_copy(project, "main", master)
        measures = [lambda: rig.timed_branch(project, main)[0]]
        names = ["a branch"]
        plain.start()
        try:
            note("CREATE DATABASE TEMPLATE, pg_dump and pg_restore")
            samples = interleave(rounds, *measures, lambda: _template(plain), lambda: _dump(plain))
            names += ["CREATE DATABASE ... TEMPLATE", "pg_dump into pg_restore"]
        finally:
            plain.stop()
        with _xfs(directory, 8) as xfs:
            if xfs:
                note("reflink copy on a loop-mounted XFS")
                on_xfs = owned(f"{xfs}/master")
                run(["cp", "-a", f"{master}/.", on_xfs], timeout=600)
                samples += interleave(rounds, lambda: _reflink(on_xfs, uri, xfs))
                names.append("reflink copy on XFS, then start")
                shutil.rmtree(on_xfs)
        for name, sample in zip(names, samples):
            times = sample.median / samples[0].median
            yield f"for comparison, 1.6 GB: {name}", "-", f"{sample}; {times:.0f} x a branch", None
        if len(names) == 3:
            yield "for comparison: reflink copy", "-", "not measured: needs root, mkfs.xfs and a loop device", None
    finally:
        rig.close()
