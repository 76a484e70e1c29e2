"""Invariant 4: any windows, in any order, one after another or at once, load what one incremental run loads."""

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from hypothesis import strategies as st

from tasks.pipeline import run_pipeline
from tests.conftest import Databases
from tests.properties.changes import Change, World, hour
from tests.properties.effort import Prove, effort

END = 12
"""Hours after the beginning, by which every change has happened."""


@dataclass(frozen=True)
class Backfill:
    """A source that has come to rest, and the windows that cover it, in the order they are run."""

    changes: tuple[Change, ...]
    windows: tuple[tuple[int, int], ...]
    updates: bool = True


CHANGES = st.builds(
    Change,
    key=st.integers(0, 5) | st.just(None),
    at=st.integers(0, END - 1),
    amount=st.integers(-1, 3),
    customer=st.sampled_from(["ann", "ann", "ghost"]),
)


@st.composite
def backfills(draw: st.DrawFn, changes: st.SearchStrategy[list[Change]], updates: st.SearchStrategy[bool]) -> Backfill:
    cuts = sorted({0, END, *draw(st.lists(st.integers(1, END - 1), max_size=6))})
    windows = draw(st.permutations(list(itertools.pairwise(cuts))))
    return Backfill(tuple(draw(changes)), tuple(windows), draw(updates))


VERSIONS = backfills(st.lists(CHANGES, min_size=3, max_size=16), st.just(True))
ROWS = backfills(st.lists(CHANGES, min_size=3, max_size=8, unique_by=lambda change: change.key), st.booleans())


@effort(few=2, many=40)
def test_windows_in_any_order_load_what_one_incremental_run_loads(databases: Databases, prove: Prove) -> None:
    """From a source that keeps every version of a row."""
    prove(VERSIONS, lambda backfill: _same_as_one_run(databases, backfill, threads=1, letters=False))


@effort(few=3, many=40)
def test_windows_in_any_order_leave_the_letters_of_one_incremental_run(sqlite: Databases, prove: Prove) -> None:
    """From a source that holds each row once, appended or upserted."""
    prove(ROWS, lambda backfill: _same_as_one_run(sqlite, backfill, threads=1, letters=True))


@effort(few=2, many=40)
def test_windows_at_once_load_what_one_incremental_run_loads(postgresql: Databases, prove: Prove) -> None:
    prove(VERSIONS, lambda backfill: _same_as_one_run(postgresql, backfill, threads=3, letters=False))


def _same_as_one_run(databases: Databases, backfill: Backfill, *, threads: int, letters: bool) -> None:
    once, piecewise = (World(databases, updates=backfill.updates) for _ in range(2))
    for world in (once, piecewise):
        world.change(backfill.changes)
        world.tick_to(END)
    run_pipeline(once.pipeline)
    _run_windows(piecewise, backfill.windows, threads)
    assert piecewise.loaded() == once.loaded()
    if letters:
        assert piecewise.open_letters() == once.open_letters()
    once.remove()
    piecewise.remove()


def _run_windows(world: World, windows: Sequence[tuple[int, int]], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(run_pipeline, world.pipeline, hour(start), hour(end)) for start, end in windows]:
            done.result()
