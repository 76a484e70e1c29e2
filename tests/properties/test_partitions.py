"""`ReplacePartition` against the thirty lines that say what it does, and windows in any order against one run."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from hypothesis import strategies as st

from tasks.errors import GuardRefused
from tasks.load.partition import ReplacePartition
from tasks.pipeline import Pipeline, run_pipeline
from tests.conftest import Databases
from tests.properties.changes import Change, World, hour
from tests.properties.effort import Prove, effort

DAY = 24
STEP = 6
"""Hours between the times that rows have; windows are cut there, and so within days too."""
DAYS = 4
TIMES = st.integers(0, DAYS * DAY // STEP - 1).map(lambda step: step * STEP)

VERSIONS = st.lists(
    st.builds(
        Change,
        key=st.integers(0, 4) | st.just(None),
        at=TIMES,
        amount=st.integers(-1, 3),
        customer=st.sampled_from(["ann", "ann", "ann", "ghost"]),
    ),
    max_size=10,
)
"""A key may have several versions, on several days."""

HOMES = st.dictionaries(
    st.integers(0, 8), st.tuples(st.integers(0, DAY // STEP - 1), st.integers(-1, 3)), max_size=9
).map(
    lambda rows: [
        Change(key, key % DAYS * DAY + step * STEP, amount, "ann") for key, (step, amount) in sorted(rows.items())
    ]
)
"""A key has one version, always on the same day."""

WINDOW = st.tuples(TIMES, TIMES).map(lambda pair: (min(pair), max(pair) + STEP))


@st.composite
def covers(draw: st.DrawFn) -> tuple[tuple[int, int], ...]:
    """Windows that cover all days, in any order."""
    cuts = sorted({0, DAYS * DAY, *draw(st.lists(TIMES, max_size=4))})
    return tuple(draw(st.permutations(list(itertools.pairwise(cuts)))))


@dataclass(frozen=True)
class Model:
    """What a replaced window leaves of a target, given as the version of each key."""

    allow_empty: bool

    def replaced(
        self, target: dict[int, Change], source: Sequence[Change], window: tuple[int, int]
    ) -> dict[int, Change] | None:
        """The target afterwards; None where the window is refused."""
        start, end = window[0] // DAY * DAY, -(-window[1] // DAY) * DAY
        read = [change for change in source if start <= change.at < end]
        bad = {change.key for change in read if change.amount < 0 or change.customer == "ghost" or change.key is None}
        good: dict[int, Change] = {}
        for change in read:
            known = good.get(change.key) if change.key is not None else None
            if change.key is not None and _is_good(change) and (known is None or known.at <= change.at):
                good[change.key] = change
        inside = {key for key, change in target.items() if start <= change.at < end}
        gone = set() if None in bad else inside - good.keys() - bad
        left = {change.at // DAY for change in good.values()} | {target[key].at // DAY for key in inside & bad}
        if not self.allow_empty and ((gone and not read) or {target[key].at // DAY for key in gone} - left):
            return None
        after = {key: change for key, change in target.items() if key not in gone}
        for key, change in good.items():
            known = target.get(key)
            if known is None or known.at <= change.at or (key in inside and key not in bad):
                after[key] = change
        return after


def _is_good(change: Change) -> bool:
    return change.amount >= 0 and change.customer != "ghost"


@effort(few=3, many=80)
def test_a_window_leaves_what_the_model_says(databases: Databases, prove: Prove) -> None:
    """Whatever the source was before, and whichever windows have been read of it."""

    def claim(example: tuple[list[tuple[list[Change], tuple[int, int]]], bool]) -> None:
        history, allow_empty = example
        world, model, target = World(databases), Model(allow_empty), dict[int, Change]()
        pipeline = by_day(world, allow_empty=allow_empty)
        world.tick_to(DAYS * DAY)
        for state, window in history:
            world.clear()
            world.change(state)
            after = model.replaced(target, world.source, window)
            assert runs(pipeline, window) == (after is not None)
            target = target if after is None else after
            assert world.loaded() == [target[key].row for key in sorted(target)]
        world.remove()

    prove(st.tuples(st.lists(st.tuples(VERSIONS, WINDOW), min_size=3, max_size=4), st.booleans()), claim)


@pytest.mark.slow
@effort(few=3, many=60)
def test_windows_in_any_order_leave_what_one_run_leaves_of_an_older_state(sqlite: Databases, prove: Prove) -> None:
    """Rows that changed, came, went, or turned bad; a key has its day."""

    def claim(example: tuple[list[Change], list[Change], tuple[tuple[int, int], ...]]) -> None:
        before, now, windows = example
        once, piecewise, cut = (World(sqlite) for _ in range(3))
        for world, ranges in ((once, [(0, DAYS * DAY)]), (piecewise, windows), (cut, [(0, DAYS * DAY)])):
            pipeline = by_day(world, allow_empty=True)
            if world is cut:
                pipeline = replace(pipeline, split=timedelta(hours=30))
            world.change(before)
            world.tick_to(DAYS * DAY)
            run_pipeline(pipeline, hour(0), hour(DAYS * DAY))
            world.clear()
            world.change(now)
            for start, end in ranges:
                run_pipeline(pipeline, hour(start), hour(end))
        kept = {change.key: change for change in before if _is_good(change)}
        right = [change if _is_good(change) else kept.get(change.key) for change in now]
        assert once.loaded() == [change.row for change in right if change is not None]
        assert piecewise.loaded() == cut.loaded() == once.loaded()
        for world in (once, piecewise, cut):
            world.remove()

    prove(st.tuples(HOMES, HOMES, covers()), claim)


@effort(few=3, many=60)
def test_windows_in_any_order_leave_the_newest_version_of_a_key_that_has_several(
    databases: Databases, prove: Prove
) -> None:
    def claim(example: tuple[list[Change], tuple[tuple[int, int], ...]]) -> None:
        changes, windows = example
        once, piecewise = World(databases), World(databases)
        for world, ranges in ((once, [(0, DAYS * DAY)]), (piecewise, windows)):
            world.change(changes)
            world.tick_to(DAYS * DAY)
            for start, end in ranges:
                run_pipeline(by_day(world, allow_empty=False), hour(start), hour(end))
        newest = {
            change.key: change
            for change in sorted(changes, key=lambda change: change.at)
            if change.key is not None and _is_good(change)
        }
        assert piecewise.loaded() == once.loaded() == [newest[key].row for key in sorted(newest)]
        once.remove()
        piecewise.remove()

    prove(st.tuples(VERSIONS, covers()), claim)


def by_day(world: World, *, allow_empty: bool) -> Pipeline:
    """The world's pipeline, replacing days."""
    load = ReplacePartition(
        "target", world.target, ["id"], partition="updated_at", grain="day", allow_empty=allow_empty, max_shrink=1
    )
    return replace(world.pipeline, load=load)


def runs(pipeline: Pipeline, window: tuple[int, int]) -> bool:
    try:
        run_pipeline(pipeline, hour(window[0]), hour(window[1]))
    except GuardRefused:
        return False
    return True
