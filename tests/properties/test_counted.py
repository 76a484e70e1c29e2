"""Random histories of a source with runs that look back: every version counts once, good or bad, whenever it comes."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from hypothesis import strategies as st

from tasks.counts import Counted
from tasks.load.append import Append
from tasks.load.partition import ReplacePartition
from tasks.load.scd2 import Scd2
from tasks.load.strategy import Load
from tasks.load.upsert import Upsert
from tasks.pipeline import run_pipeline
from tests.conftest import Databases
from tests.properties.changes import HOUR, LOOKBACK, Change, World
from tests.properties.effort import Prove, effort
from tests.variants import slow_but

STRATEGIES: dict[str, Callable[[str], Load]] = {
    "Upsert": lambda table: Upsert("target", table, key=["id"]),
    "Append": lambda table: Append("target", table, key=["id"]),
    "Scd2": lambda table: Scd2("target", table, key=["id"]),
    "ReplacePartition": lambda table: ReplacePartition(
        "target", table, key=["id"], partition="updated_at", grain="hour", allow_empty=True, max_shrink=1
    ),
}


@dataclass(frozen=True)
class Write:
    """A row is new, or has a new version, `late` hours behind the clock; no two versions are the same."""

    key: int | None
    late: int
    bad: bool
    ghost: bool


@dataclass(frozen=True)
class Round:
    """Some writes, the clock moves, perhaps the reference lands that ghosts lack, and then a run."""

    writes: tuple[Write, ...]
    hours: int
    lands: bool


@dataclass(frozen=True)
class Story:
    """What happens, loaded how, and in windows how long."""

    strategy: str
    split: timedelta | None
    rounds: tuple[Round, ...]


WRITES = st.builds(
    Write,
    key=st.sampled_from([0, 0, 1, 1, 2, None]),
    late=st.sampled_from([0, 1, 2, LOOKBACK]),
    bad=st.booleans(),
    ghost=st.sampled_from([False, False, False, True]),
)
ROUNDS = st.builds(
    Round,
    writes=st.lists(WRITES, max_size=5).map(tuple),
    hours=st.integers(0, 3),
    lands=st.sampled_from([False, False, False, True]),
)


def stories(*strategies: str) -> st.SearchStrategy[Story]:
    """Some rounds, loaded by one of `strategies`."""
    return st.builds(
        Story,
        strategy=st.sampled_from(strategies),
        split=st.sampled_from([None, None, 2 * HOUR]),
        rounds=st.lists(ROUNDS, min_size=3, max_size=6).map(tuple),
    )


@pytest.mark.parametrize("strategy", slow_but(["Upsert"], STRATEGIES.keys()))
@effort(few=2, many=50)
def test_every_version_counts_once_on_sqlite(sqlite: Databases, prove: Prove, strategy: str) -> None:
    prove(stories(strategy), lambda story: _assert_counts_once(sqlite, story))


@pytest.mark.slow
@effort(few=2, many=80)
def test_every_version_counts_once_on_postgresql(postgresql: Databases, prove: Prove) -> None:
    prove(stories(*STRATEGIES), lambda story: _assert_counts_once(postgresql, story))


@pytest.mark.mariadb
@effort(few=2, many=10)
def test_every_version_counts_once_on_mariadb(mariadb_target: Databases, prove: Prove) -> None:
    prove(stories(*STRATEGIES), lambda story: _assert_counts_once(mariadb_target, story))


def _assert_counts_once(databases: Databases, story: Story) -> None:
    """A version counts in the first run that reads it, and once more where it is judged otherwise later."""
    world = World(databases, log=False)
    world.pipeline = replace(world.pipeline, load=STRATEGIES[story.strategy](world.target), split=story.split)
    numbers, counted, seen = itertools.count(1), Counted(), set[tuple[Change, bool]]()
    now, lost, landed = 1, 0, False
    watermark: int | None = None
    for one in (*story.rounds, Round((), 1, lands=False), Round((), 0, lands=False)):
        for write in one.writes:
            key = next(numbers) + 10 if write.key is not None and story.strategy == "Append" else write.key
            before = max((row.at for row in world.source if row.key == key), default=0)
            amount = next(numbers) * (-1 if write.bad else 1)
            world.change([Change(key, max(now - write.late, before), amount, "ghost" if write.ghost else "ann")])
        now += one.hours
        world.tick_to(now)
        if one.lands and not landed:
            world.land("ghost")
            landed = True
        begin = None if watermark is None else min(watermark - LOOKBACK, now)
        read = [row for row in world.source if row.at < now and (begin is None or row.at >= begin)]
        watermark = max([row.at for row in read] + ([] if watermark is None else [watermark]), default=None)
        judged = {(row, row.key is not None and row.amount > 0 and (landed or row.customer != "ghost")) for row in read}
        fresh = judged - seen
        seen |= judged
        report = run_pipeline(world.pipeline)
        # What a partition lost is a change, too.
        gone = report.counts.deleted
        assert report.counted == Counted(len(fresh) + gone, sum(not good for _, good in fresh))
        counted += report.counted
        lost += gone
    assert counted == Counted(len(seen) + lost, sum(not good for _, good in seen))
    ledger = world.ledger()
    assert sum(entry["extracted"] + entry["added"] - entry["reread"] for entry in ledger) == counted.incoming
    assert sum(entry["rejected"] - entry["reread_rejected"] for entry in ledger) == counted.rejected
    world.remove()
