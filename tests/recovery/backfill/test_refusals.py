"""What has no past is refused by the plan, in the words of a run, and by nothing that was written or asked."""

from dataclasses import replace
from datetime import timedelta

import pytest

from tasks.errors import ConfigError
from tasks.extract.changes import Extract
from tasks.extract.debezium import DebeziumExtract
from tasks.extract.debezium_events import DebeziumEvents
from tasks.extract.feed import Feed
from tasks.extract.log import LogExtract
from tasks.extract.sequence import SequenceExtract
from tasks.extract.snapshot import SnapshotDiff
from tasks.extract.sql import SqlTransform
from tasks.extract.table import TableExtract
from tasks.extract.triggers import TriggerExtract
from tasks.load.partition import ReplacePartition
from tasks.partitioned import Partitioned
from tasks.pipeline import run_pipeline
from tasks.recovery.backfill.plan import plan_backfill
from tests.conftest import Databases
from tests.orders import DAY, ORDERS, START, put

FOLLOWED: dict[str, Feed] = {
    "snapshot": SnapshotDiff("source", "orders", key=["id"]),
    "sequence": SequenceExtract("source", "orders", cursor="id"),
    "log": LogExtract("source", "orders"),
    "triggers": TriggerExtract("source", "orders", key=["id"]),
    "debezium": DebeziumExtract("source", "orders"),
    "events": DebeziumEvents("events/*.jsonl"),
}
WHOLE: dict[str, Extract] = {
    "table": TableExtract("source", "orders"),
    "mart": SqlTransform("target", query="SELECT * FROM orders", upstreams=["orders"]),
}


@pytest.mark.parametrize("name", [*FOLLOWED, *WHOLE])
def test_a_pipeline_without_a_past_is_refused_with_the_command_for_a_new_snapshot(sqlite: Databases, name: str) -> None:
    pipeline = replace(ORDERS, extract=(FOLLOWED | WHOLE)[name])
    with pytest.raises(ConfigError) as refused:
        plan_backfill(pipeline, START, START + DAY)
    why = "is followed from a position, and has no past" if name in FOLLOWED else "there is no past to read a range of"
    assert str(refused.value).startswith("orders: ") and why in str(refused.value)
    assert "`tidegate run orders --full-refresh` takes a new snapshot" in str(refused.value)


@pytest.mark.parametrize("name", ["snapshot", "table"])
def test_a_run_over_a_range_is_refused_in_the_same_words(sqlite: Databases, name: str) -> None:
    put(sqlite.source, [])
    pipeline = replace(ORDERS, extract=(FOLLOWED | WHOLE)[name])
    with pytest.raises(ConfigError) as planned:
        plan_backfill(pipeline, START, START + DAY)
    with pytest.raises(ConfigError) as run:
        run_pipeline(pipeline, START, START + DAY)
    assert str(run.value) == str(planned.value)


def test_a_mart_of_ranges_has_a_past_and_no_clock(sqlite: Databases) -> None:
    query = "SELECT * FROM changes WHERE updated_at >= :start AND updated_at < :end"
    pipeline = replace(
        ORDERS,
        extract=SqlTransform("target", query=query, upstreams=["changes"], by=Partitioned("updated_at", "day")),
        load=ReplacePartition("target", "fct_days", key=["id"], partition="updated_at", grain="day"),
    )
    half = timedelta(hours=12)
    plan = plan_backfill(pipeline, START + half, START + DAY + half, "hour")
    # Whole days, although it was asked for hours.
    assert [one.window.duration for one in plan.windows] == [DAY, DAY]
    with pytest.raises(ConfigError, match=r"has no clock\. Give an end"):
        plan_backfill(pipeline, START, None)


def test_without_a_start_the_initial_of_the_extract_is_where_it_begins(sqlite: Databases) -> None:
    put(sqlite.source, [])
    pipeline = replace(ORDERS, extract=TableExtract("source", "orders", cursor="updated_at", initial=START))
    assert plan_backfill(pipeline, None, START + DAY).windows[0].window.start == START
