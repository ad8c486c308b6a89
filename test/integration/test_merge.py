"""Stacks stay short, and what they show stays the same."""
import os
import random

import pytest

import harness as h

pytestmark = pytest.mark.slow


@pytest.fixture(name="p")
def fixture_p(server):
    return server.project("merge")


def depth(p, branch="main"):
    return p.get(branch)["depth"]


def layers(p, branch="main"):
    path = f"{p.server.store}/layers/{p.get(branch)['id']}"
    return sorted(n for n in os.listdir(path) if n[0] != ".") if os.path.isdir(path) else []


CHANGES = [
    "UPDATE a SET fill = md5(fill) WHERE id % {k} = 0", "DELETE FROM a WHERE id % {k} = 1",
    "INSERT INTO a SELECT g, 'more' FROM generate_series({n}00000, {n}00000 + 2000) g", "TRUNCATE b",
    "INSERT INTO b SELECT g, md5(g::text) FROM generate_series(1, {k}000) g", "VACUUM a", "VACUUM FULL b",
    "DROP TABLE IF EXISTS c; CREATE TABLE c AS SELECT generate_series(1, {k}00) AS id", "REINDEX TABLE a",
    "ALTER TABLE a ADD COLUMN IF NOT EXISTS x{k} int DEFAULT {n}",
    "SELECT lo_from_bytea(0, decode(repeat('ab', {k}000), 'hex'))",
    "CREATE INDEX IF NOT EXISTS i{k} ON a (fill) WHERE id % {k} = 0",
]


def change(p, chance, n):
    for _ in range(chance.randrange(1, 4)):
        p.sql("main", chance.choice(CHANGES).format(k=chance.randrange(2, 9), n=n + 10))


def state(p, branch):
    with p.connect(branch) as c:
        return (h.digest(c, "a", "t::text"), h.digest(c, "b", "t::text"),
                c.one("SELECT count(*) FROM pg_largeobject_metadata"))


def prepare(p):
    p.sql("main", "CREATE TABLE a AS SELECT g AS id, md5(g::text) AS fill FROM generate_series(1, 20000) g")
    p.sql("main", "CREATE TABLE b (id int, fill text)")


@pytest.mark.parametrize("asleep", h.times(["by chance"], [False, True]))
def test_layers_that_nothing_separates_become_one(p, asleep):
    seed = random.randrange(10**9)
    print("seed", seed)
    chance = random.Random(seed)
    asleep = chance.random() < 0.5 if asleep == "by chance" else asleep
    prepare(p)
    for i in range(h.times(16, 100)):
        change(p, chance, i)
        p.branch("b")
        p.purge("b")
        if chance.random() < 0.1:
            p.crash()
        if i % 8 == 5:
            p.branch(f"keep{i}")
    before = {name: state(p, name) for name in p.branches()}
    if asleep:
        p.suspend()
    h.wait_for(lambda: depth(p) <= 16, "the stack is short", 60)
    if not asleep:
        with p.connect() as c:
            c.run("UPDATE a SET fill = fill WHERE id % 3 = 0")
    p.bough("endpoint", "start", "main")  # crashes are held against it when it is woken
    for name, was in before.items():
        assert state(p, name) == was, name
    h.assert_clean(p)
    h.assert_clean(p, "keep5")
    known = set()
    for path in [f"{p.server.store}/branches/{b['id']}/stack" for b in p.branches().values()]:
        with open(path, encoding="ascii") as f:
            known |= {line.strip().split("/")[1] for line in f if line.startswith(p.get()["id"])}
    for path in h.glob.glob(f"{p.server.store}/branches/*/points/*/stack"):
        with open(path, encoding="ascii") as f:
            known |= {line.strip().split("/")[1] for line in f if line.startswith(p.get()["id"])}
    h.wait_for(lambda: set(layers(p)) == known, "what nothing stands on is gone")
    h.wait_for(lambda: not os.listdir(f"{p.server.store}/trash"), "and its bytes are given back, without a deletion")


def test_layers_merge_under_a_load_and_the_past_is_still_there(p):
    bank = h.Bank(p).init()
    with bank.running():
        moments = []
        for i in range(h.times(12, 40)):
            p.branch("b")
            p.purge("b")
            moments.append(h.now())
        h.wait_for(lambda: depth(p) <= 12, "the stack is short", 60)
        for i in (3, 11):
            p.bough("branch", "create", f"m{i}", "--at", moments[i])
            with p.connect(f"m{i}") as c:
                bank.check(c)
    with p.connect() as c:
        bank.check(c)
    h.assert_clean(p)
