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

LOOKBACK = 2

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Item:
    """Something comes to an order: a new item, `late` hours behind the source's clock, or a version of an old one."""

    order: int
    late: int
    old: int | None


@dataclass(frozen=True)
class Run:
    """An incremental run, or one over a range.

    Attributes:
        hours: after what came before it.
        refused: orders that are refused, and with what status.
        breaks: after how many requests for items the source is away; None: never.
        backfill: start and length of the range, in hours.
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


COMINGS = st.builds(
    Item,
    order=st.integers(0, 9),
    late=st.sampled_from([0, 0, 0, LOOKBACK]),
    old=st.none() | st.none() | st.integers(0, 2),
)
RUNS = st.builds(
    Run,
    hours=st.integers(0, 3),
    refused=st.lists(st.tuples(st.integers(0, 9), st.sampled_from([403, 404, 410])), max_size=6).map(tuple),
    breaks=st.none() | st.integers(0, 12),
    backfill=st.none() | st.none() | st.tuples(st.integers(0, 6), st.integers(1, 6)),
    refresh=st.sampled_from([False, False, False, True]),
)
HISTORIES = st.builds(
    History,
    events=st.lists(st.one_of(COMINGS, COMINGS, COMINGS, RUNS), min_size=5, max_size=40).map(tuple),
    at_once=st.sampled_from([1, 3]),
    checkpoint=st.sampled_from([1, 2, 5, None]),
    size=st.sampled_from([1, 2, 5]),
    appends=st.booleans(),
)


@effort(few=20, many=300)
def test_in_the_end_the_target_is_the_source_on_sqlite(
    sqlite: Databases, monkeypatch: pytest.MonkeyPatch, prove: Prove
) -> None:
    prove(HISTORIES, lambda history: _assert_target_is_source(sqlite, monkeypatch, history))


@effort(few=4, many=150)
def test_in_the_end_the_target_is_the_source_on_postgresql(
    postgresql: Databases, monkeypatch: pytest.MonkeyPatch, prove: Prove
) -> None:
    prove(HISTORIES, lambda history: _assert_target_is_source(postgresql, monkeypatch, history))


def _assert_target_is_source(databases: Databases, monkeypatch: pytest.MonkeyPatch, history: History) -> None:
    api = Orders(size=history.size, hour=10)
    pipeline = _pipeline(history)
    with ScriptedServer(api) as server:
        monkeypatch.setenv("TIDEGATE_SHOP_URL", server.url)
        for number, event in enumerate(history.events):
            if isinstance(event, Run):
                _run(databases, api, pipeline, event)
            elif event.old is None or history.appends:
                api.add(str(event.order), 1_000 + number, api.hour - 0.25 - event.late)
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
        # A backfill's stays open until its window has been read.
        if not any(isinstance(event, Run) and event.backfill for event in history.events):
            mine = f"WHERE pipeline = '{pipeline.name}' AND status = 'open'"
            assert rows(databases.target, f"SELECT * FROM etl_dead_letters {mine}") == []

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
    declared = changed(children(checkpoint=history.checkpoint, lookback=timedelta(hours=LOOKBACK)),
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
            start, hours = run.backfill
            run_pipeline(pipeline, at(8 + start), at(8 + start + hours))
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
