"""Changed partitions: a commit raises the version of those in which it writes a row, and of no other."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select

from tasks.dialects import dialect_of
from tasks.errors import ConfigError, GuardRefused
from tasks.extract.snapshot import SnapshotDiff
from tasks.load import parts
from tasks.load.append import Append
from tasks.load.partition import ReplacePartition
from tasks.load.replace import Replace
from tasks.load.upsert import Upsert
from tasks.partitioned import Partitioned
from tasks.pipeline import Pipeline, run_pipeline
from tasks.state.partitions import ChangedPartition, changed, mark_read
from tasks.state.schema import ensure_schema
from tasks.state.tables import partitions
from tests.conftest import Databases, on_every_target, on_postgresql_too
from tests.orders import DAY, ORDERS, SNAPSHOT, START, order, put, remove

BY_DAY = Partitioned("updated_at", "day")
WHERE: dict[str, Any] = {"connection": "target", "table": "fct_orders", "key": ["id"], "track": BY_DAY}

UPSERT = replace(ORDERS, load=Upsert(**WHERE))
REPLACE = replace(SNAPSHOT, load=Replace(**WHERE))
DIFFERENCE = replace(
    ORDERS, name="difference", extract=SnapshotDiff("source", "orders", key=["id"]), load=Upsert(**WHERE)
)
PARTITION = replace(ORDERS, load=ReplacePartition(**WHERE, partition="updated_at", grain="day"))


def versions(databases: Databases) -> dict[str, int]:
    """Of every partition of the target."""
    statement = select(partitions.c.part, partitions.c.version).where(partitions.c.target == "fct_orders")
    with databases.target.connect() as connection:
        return {part: version for part, version in connection.execute(statement)}


def four(databases: Databases, pipeline: Pipeline) -> None:
    """One order on each of four days, loaded."""
    put(databases.source, [order(number, day=number) for number in range(4)])
    run_pipeline(pipeline)
    assert versions(databases) == {"2026-01-01": 1, "2026-01-02": 1, "2026-01-03": 1, "2026-01-04": 1}


@pytest.mark.parametrize(
    "pipeline", [UPSERT, REPLACE, DIFFERENCE, PARTITION], ids=["upsert", "replace", "diff", "part"]
)
def test_unchanged_rows_touch_nothing(sqlite: Databases, pipeline: Pipeline) -> None:
    four(sqlite, pipeline)
    run_pipeline(pipeline, full_refresh=True)
    assert set(versions(sqlite).values()) == {1}


@on_every_target
def test_a_row_that_moves_touches_the_day_it_leaves_and_the_day_it_comes_to(databases: Databases) -> None:
    four(databases, UPSERT)
    put(databases.source, [order(1, day=4.5), order(2, amount=7, day=2)])
    run_pipeline(UPSERT, full_refresh=True)
    assert versions(databases) == {
        "2026-01-01": 1, "2026-01-02": 2, "2026-01-03": 2, "2026-01-04": 1, "2026-01-05": 1,
    }  # fmt: skip


@pytest.mark.parametrize("pipeline", [REPLACE, DIFFERENCE], ids=["did not come in", "told by a feed"])
def test_a_row_that_goes_touches_its_day(databases: Databases, pipeline: Pipeline) -> None:
    four(databases, pipeline)
    remove(databases.source, [1])
    run_pipeline(pipeline)
    assert versions(databases) == {"2026-01-01": 1, "2026-01-02": 2, "2026-01-03": 1, "2026-01-04": 1}


def test_a_replaced_partition_touches_the_days_of_the_rows_that_differ(databases: Databases) -> None:
    put(databases.source, [order(number, day=number / 2) for number in range(6)])
    run_pipeline(PARTITION)
    put(databases.source, [order(3, amount=5, day=1.5)])
    remove(databases.source, [4])
    run_pipeline(PARTITION, START, START + 3 * DAY)
    assert versions(databases) == {"2026-01-01": 1, "2026-01-02": 2, "2026-01-03": 2}


def test_an_append_touches_the_days_of_what_is_new(sqlite: Databases) -> None:
    append = replace(ORDERS, load=Append(**WHERE))
    four(sqlite, append)
    put(sqlite.source, [order(1, amount=9, day=1), order(7, day=3.5)])
    run_pipeline(append, full_refresh=True)
    assert versions(sqlite) == {"2026-01-01": 1, "2026-01-02": 1, "2026-01-03": 1, "2026-01-04": 2}


def test_a_stale_row_touches_nothing(sqlite: Databases) -> None:
    four(sqlite, UPSERT)
    put(sqlite.source, [order(3, amount=9, day=1)])
    assert run_pipeline(UPSERT, START + DAY, START + 2 * DAY).counts.stale == 1
    assert set(versions(sqlite).values()) == {1}


def test_a_refused_window_touches_nothing(sqlite: Databases) -> None:
    four(sqlite, REPLACE)
    remove(sqlite.source, [0, 1, 2])
    with pytest.raises(GuardRefused):
        run_pipeline(REPLACE)
    assert set(versions(sqlite).values()) == {1}


def test_a_row_without_a_partition_touches_none(sqlite: Databases) -> None:
    by_customer = replace(UPSERT, load=Upsert(**WHERE | {"track": Partitioned("customer")}))
    put(sqlite.source, [order(1), order(2, customer=None), order(3, customer="o'neill")])
    run_pipeline(by_customer)
    assert versions(sqlite) == {"ann": 1, "o'neill": 1}


@on_postgresql_too
def test_a_part_is_the_day_of_the_zone(databases: Databases) -> None:
    """Also where a day begins with no whole hour of UTC."""
    kathmandu = replace(UPSERT, load=Upsert(**WHERE | {"track": Partitioned("updated_at", "day", "Asia/Kathmandu")}))
    midnight = datetime(2026, 1, 1, 18, 15, tzinfo=UTC)
    times = [midnight.replace(minute=14, second=59), midnight, midnight.replace(hour=19)]
    put(databases.source, [order(place) | {"updated_at": time} for place, time in enumerate(times[:1])])
    run_pipeline(kathmandu)
    assert versions(databases) == {"2026-01-01": 1}
    put(databases.source, [order(place) | {"updated_at": time} for place, time in enumerate(times)])
    run_pipeline(kathmandu, full_refresh=True)
    assert versions(databases) == {"2026-01-01": 1, "2026-01-02": 1}


def test_no_more_partitions_than_memory_is_meant_for(sqlite: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MOST_PARTS", 3)
    put(sqlite.source, [order(number, day=number) for number in range(4)])
    with pytest.raises(ConfigError, match="One commit touches more than 3 partitions by 'updated_at'"):
        run_pipeline(UPSERT)
    assert versions(sqlite) == {}


def test_a_reader_is_told_of_what_changed_since_it_read(databases: Databases) -> None:
    four(databases, UPSERT)
    mart, other = "mart", "other"
    with databases.target.begin() as connection:
        read = changed(connection, mart, ["fct_orders", "fct_absent"])
        assert read == [ChangedPartition("fct_orders", f"2026-01-0{day}", 1) for day in (1, 2, 3, 4)]
        mark_read(connection, mart, read)
    put(databases.source, [order(1, amount=2, day=1)])
    run_pipeline(UPSERT, full_refresh=True)
    with databases.target.begin() as connection:
        assert changed(connection, mart, ["fct_orders"]) == [("fct_orders", "2026-01-02", 2)]
        assert len(changed(connection, other, ["fct_orders"])) == 4, "each reader has read what it has read"
        assert changed(connection, mart, ["fct_absent"]) == []
        mark_read(connection, mart, [("fct_orders", "2026-01-02", 2)])
        assert changed(connection, mart, ["fct_orders"]) == []


def test_what_changes_while_it_is_read_is_read_again(sqlite: Databases) -> None:
    four(sqlite, UPSERT)
    with sqlite.target.begin() as connection:
        read = changed(connection, "mart", ["fct_orders"])
    put(sqlite.source, [order(1, amount=2, day=1)])
    run_pipeline(UPSERT, full_refresh=True)
    with sqlite.target.begin() as connection:
        mark_read(connection, "mart", read)
        assert changed(connection, "mart", ["fct_orders"]) == [("fct_orders", "2026-01-02", 2)]


def test_as_many_partitions_as_there_are_can_be_marked(sqlite: Databases) -> None:
    ensure_schema(sqlite.target, dialect_of(sqlite.target))
    read = [("fct_orders", f"part {number}", number) for number in range(1_200)]
    with sqlite.target.begin() as connection:
        for _ in range(2):
            mark_read(connection, "mart", read)
        assert changed(connection, "mart", ["fct_orders"]) == []
