"""Random orders and items, failures in every run, runs at random instants: in the end the target is the source."""

import itertools
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import strategies as st
from sqlalchemy import Column, MetaData, Table, inspect, select

from tasks.column_types import UtcDateTime
from tasks.errors import SourceError, SourceUnavailable
from tasks.load.append import Append
from tasks.load.upsert import Upsert
from tasks.pipeline import Pipeline, run_pipeline
from tests.conftest import Databases
from tests.extract.family import Orders, at, changed, children, rows
from tests.properties.effort import Prove, effort
from tests.scripted_server import Reply, ScriptedServer, Seen

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Item:
    """Something comes to an order: a new item, as late as the lookback allows, or a version of an old one."""

    order: int
    late: bool
    old: int | None


@dataclass(frozen=True)
class Run:
    """An incremental run, or one over a range.

    Attributes:
        hours: after what came before it.
        refused: orders that are refused, and with what status.
        breaks: after how many requests for items the source is away; None: never.
        backfill: how far back the range starts, and its length, in hours.
        refresh: read everything anew.
    """

    hours: int
    refused: tuple[tuple[int, int], ...]
    breaks: int | None
    backfill: tuple[int, int] | None
    refresh: bool


@dataclass(frozen=True)
class History:
    """What happens, and how it is read and loaded."""

    events: tuple[Item | Run, ...]
    at_once: int
    checkpoint: int | None
    size: int
    appends: bool
    lookback: int


COMINGS = st.builds(
    Item,
    order=st.sampled_from([0, 0, 1, 1, 2, 3, 4]),
    late=st.booleans(),
    old=st.sampled_from([None, None, 0, 1]),
)


@st.composite
def runs(draw: st.DrawFn) -> Run:
    """Mostly a run that comes to its end, with a parent or two refused; now and then one that breaks off."""
    breaks = draw(st.sampled_from([False, False, True]))
    ranges = draw(st.sampled_from([False, False, True]))
    return Run(
        hours=draw(st.integers(0, 3)),
        refused=tuple(draw(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([403, 404, 410])), max_size=2))),
        breaks=draw(st.integers(0, 8)) if breaks else None,
        backfill=(draw(st.integers(1, 4)), draw(st.integers(1, 4))) if ranges else None,
        refresh=draw(st.sampled_from([False] * 5 + [True])),
    )


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Rounds of items, each with a run after it."""
    events: list[Item | Run] = []
    for _ in range(draw(st.integers(3, 7))):
        events += draw(st.lists(COMINGS, min_size=1, max_size=5))
        events.append(draw(runs()))
    return History(
        events=tuple(events),
        at_once=draw(st.sampled_from([1, 3])),
        checkpoint=draw(st.sampled_from([1, 2, 5, None])),
        size=draw(st.sampled_from([1, 2, 5])),
        appends=draw(st.booleans()),
        lookback=draw(st.sampled_from([0, 4])),
    )


@pytest.mark.slow
@effort(few=6, many=150)
def test_in_the_end_the_target_is_the_source_on_sqlite(
    sqlite: Databases, monkeypatch: pytest.MonkeyPatch, prove: Prove
) -> None:
    prove(histories(), lambda history: _assert_target_is_source(sqlite, monkeypatch, history))


@pytest.mark.slow
@effort(few=4, many=60)
def test_in_the_end_the_target_is_the_source_on_postgresql(
    postgresql: Databases, monkeypatch: pytest.MonkeyPatch, prove: Prove
) -> None:
    prove(histories(), lambda history: _assert_target_is_source(postgresql, monkeypatch, history))


def _assert_target_is_source(databases: Databases, monkeypatch: pytest.MonkeyPatch, history: History) -> None:
    api = Orders(size=history.size, hour=10)
    pipeline = _pipeline(history)
    with ScriptedServer(api) as server:
        monkeypatch.setenv("TIDEGATE_SHOP_URL", server.url)
        for number, event in enumerate(history.events):
            if isinstance(event, Run):
                _run(databases, api, pipeline, event)
            elif event.old is None or history.appends:
                api.add(str(event.order), 1_000 + number, api.hour - 0.25 - event.late * history.lookback)
            else:
                api.add(str(event.order), event.order * 10 + event.old, api.hour - 0.25)
            api.hour += 0.5
        api.refused, api.before = {}, lambda seen, order: None
        api.hour += 1
        run_pipeline(pipeline)
        assert _loaded(databases, pipeline) == {
            item["id"]: (order, datetime.fromisoformat(item["at"]))
            for order, items in api.items.items()
            for item in items
        }
        # A backfill's letter stays open until its window has been read.
        still_open = f"""
            SELECT runs.kind FROM etl_dead_letters letters JOIN etl_runs runs ON runs.run_id = letters.run_id
            WHERE letters.pipeline = '{pipeline.name}' AND letters.status = 'open'"""
        assert {kind for (kind,) in rows(databases.target, still_open)} <= {"explicit"}

        api.asked.clear()
        api.hour += 1
        again = run_pipeline(pipeline).counts
        assert again.extracted == again.unchanged + again.deduplicated
        assert len(api.asked) <= _pages(api)
    finished = f"WHERE pipeline = '{pipeline.name}' AND status IN ('committed', 'partial')"
    outcomes = "inserted + updated + deleted + unchanged + deduplicated + stale + rejected + filtered"
    for incoming, outcome in rows(databases.target, f"SELECT extracted + added, {outcomes} FROM etl_runs {finished}"):
        assert incoming == outcome


def _pipeline(history: History) -> Pipeline:
    number = next(_numbers)
    load = Append if history.appends else Upsert
    declared = changed(children(checkpoint=history.checkpoint, lookback=timedelta(hours=history.lookback)),
                       concurrency=history.at_once)  # fmt: skip
    return replace(declared, name=f"items_{number}", load=load("target", f"items_{number}", key=["id"]))


def _run(databases: Databases, api: Orders, pipeline: Pipeline, run: Run) -> None:
    api.hour += run.hours
    api.refused = {str(order): status for order, status in run.refused}
    left = itertools.count()

    def before(seen: Seen, order: str) -> Reply | None:
        return Reply(status=503) if order and run.breaks is not None and next(left) >= run.breaks else None

    api.before = before
    api.asked.clear()
    known = _loaded(databases, pipeline)
    try:
        if run.backfill is not None:
            back, hours = run.backfill
            run_pipeline(pipeline, at(api.hour - back), at(api.hour - back + hours))
        else:
            run_pipeline(pipeline, full_refresh=run.refresh)
    except SourceUnavailable:
        assert run.breaks is not None
    except SourceError as error:
        assert "parents were refused" in str(error) and run.refused
    assert known.keys() <= _loaded(databases, pipeline).keys()
    # What the last run left of its window, and what has come since.
    assert len(api.asked) <= 2 * _pages(api)


def _loaded(databases: Databases, pipeline: Pipeline) -> dict[Any, Any]:
    if not inspect(databases.target).has_table(pipeline.load.table):
        return {}
    table = Table(pipeline.load.table, MetaData(), Column("id"), Column("order_id"), Column("at", UtcDateTime))
    with databases.target.connect() as connection:
        found = {row.id: (row.order_id, row.at) for row in connection.execute(select(table))}
    return found


def _pages(api: Orders) -> int:
    """How many requests it takes to read every order's items."""
    return sum(max(1, -(-len(items) // api.size)) for items in api.items.values())
