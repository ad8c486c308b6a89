"""How long requests wait while very many branches expire at once."""
import datetime
import time

from rig import Rig, note, percentile, wait_for


def sample(rig, paths, goes_on):
    """ms of each request while goes_on() says so, in turns."""
    taken = []
    while goes_on():
        for path in paths:
            before = time.perf_counter()
            rig.api.call("GET", path)
            taken.append((time.perf_counter() - before) * 1000)
    return taken


def rows(directory, quick):
    """Yields (figure, target, measured, is_reached)."""
    n = 60 if quick else 1000
    rig = Rig(directory)
    try:
        project = rig.project("expiry")
        base = f"/projects/{project}"
        main = rig.branches(project)["main"]["id"]
        paths = [f"{base}/branches/{main}", f"{base}/branches/count", f"{base}/endpoints", "/bough/status"]
        made = [rig.api.call("POST", f"{base}/branches", {"branch": {"name": f"b{i}"}})["branch"]["id"]
                for i in range(n)]
        note(f"{n} branches")
        until = time.monotonic() + 5
        before = sample(rig, paths, lambda: time.monotonic() < until)
        at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=5 + n / 50)
        for one in made:
            rig.api.call("PATCH", f"{base}/branches/{one}",
                         {"branch": {"expires_at": at.isoformat(timespec="seconds")}})
        def count():
            return rig.api.call("GET", f"{base}/branches/count")["count"]
        wait_for(lambda: count() < n + 1, "the first has expired", 120)
        began = time.monotonic()
        meanwhile = sample(rig, paths, lambda: count() > 1)
        seconds = time.monotonic() - began
        p99 = percentile(meanwhile, 99)
        yield (f"expiry of {n:,} branches at once: a request meanwhile, p99", "50 ms",
               f"{p99:.1f} ms (before: {percentile(before, 99):.1f} ms; {seconds:.1f} s, n={len(meanwhile)})",
               p99 <= 50)
    finally:
        rig.close()
