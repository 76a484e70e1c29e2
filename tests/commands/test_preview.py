"""`tidegate preview`: the first rows of a source, judged, and nothing written."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy import Engine, inspect, text

from tasks.errors import ConfigError
from tasks.extract.debezium import DebeziumExtract
from tasks.extract.debezium_events import DebeziumEvents
from tasks.extract.log import LogExtract
from tasks.extract.rows import RowsExtract
from tasks.extract.sequence import SequenceExtract
from tasks.extract.snapshot import SnapshotDiff
from tasks.extract.table import TableExtract
from tasks.extract.triggers import TriggerExtract
from tasks.load.scd2 import Scd2
from tasks.pipeline import Pipeline, WholeWindow, remove_feed, run_pipeline
from tasks.running.preview import preview
from tasks.window import Window
from tests.commands.conftest import Declare, Tidegate, untouched
from tests.conftest import Databases, on_every_target
from tests.extract.shop import WHOLE, Serve, record
from tests.orders import DAY, ORDERS, START, OrderSchema, order, put
from tests.paged_api import PagedApi

FOLLOWED = """
from dataclasses import replace
from tasks.extract.triggers import TriggerExtract
from tests.orders import ORDERS
PIPELINE = replace(ORDERS, name="followed", extract=TriggerExtract("source", "orders", ["id"]))
"""


def everything(engine: Engine) -> dict[str, list[tuple[object, ...]]]:
    """Every table of a database and its rows, the state tables among them."""
    quote = engine.dialect.identifier_preparer.quote
    with engine.connect() as connection:
        return {
            name: sorted((tuple(row) for row in connection.execute(text(f"SELECT * FROM {quote(name)}"))), key=repr)
            for name in inspect(connection).get_table_names()
        }


@untouched
@on_every_target
def test_good_rows_and_rejected_ones_are_shown_and_nothing_is_written(
    databases: Databases, orders: str, tidegate: Tidegate
) -> None:
    put(databases.source, [order(1), order(2, amount=-1), order(3, day=1)])
    shown = tidegate("preview", orders, "--json")
    assert shown.exit_code == 0
    told = json.loads(shown.stdout)
    assert (told["read"], told["added"], told["filtered"]) == (3, 0, 0)
    assert told["valid"][0] == {"id": 1, "customer": "ann", "amount": 1.0, "updated_at": START.isoformat()}
    assert [row["id"] for row in told["valid"]] == [1, 3]
    (bad,) = told["rejected"]
    assert (bad["record"]["id"], bad["reasons"][0]["column"], bad["reasons"][0]["value"]) == (2, "amount", -1.0)
    assert inspect(databases.target).get_table_names() == []
    assert inspect(databases.source).get_table_names() == ["orders"]


def test_after_a_run_neither_a_row_nor_a_state_row_changes(sqlite: Databases, orders: str, tidegate: Tidegate) -> None:
    put(sqlite.source, [order(1), order(2, amount=-1)])
    run_pipeline(ORDERS)
    put(sqlite.source, [order(3, day=1), order(4, amount=-1, day=1)])
    before = everything(sqlite.target), everything(sqlite.source)
    assert "4 rows read, 2 valid, 2 rejected" in tidegate("preview", orders).stdout
    assert (everything(sqlite.target), everything(sqlite.source)) == before


def test_a_range_is_looked_at_and_one_that_cannot_be_read_is_refused(
    sqlite: Databases, orders: str, declare: Declare, tidegate: Tidegate
) -> None:
    declare("followed", FOLLOWED)
    put(sqlite.source, [order(number, day=number) for number in range(5)])
    told = json.loads(tidegate("preview", orders, "--start", "2026-01-03", "--end", "2026-01-05", "--json").stdout)
    assert [row["id"] for row in told["valid"]] == [2, 3]
    refused = tidegate("preview", "followed", "--start", "2026-01-03")
    assert refused.exit_code == 1
    assert "followed from a position, and has no past" in refused.stderr


@dataclass(frozen=True)
class Endless:
    """Batches of ten rows without an end; it counts those that were asked for."""

    asked: list[int] = field(default_factory=list, compare=False)
    closed: list[bool] = field(default_factory=list, compare=False)

    connection = "source"
    dataset = "endless"
    cursor = None
    lookback = timedelta(0)
    initial = None
    tells_deletes = False

    def bound(self) -> None:
        return None

    def null_cursors(self) -> int:
        return 0

    def batches(self, window: Window) -> Iterator[pa.Table]:
        try:
            while True:
                self.asked.append(10)
                rows = [order(number) for number in range(10)]
                yield pa.Table.from_pylist(rows)
        finally:
            self.closed.append(True)


def test_the_source_is_read_no_further_than_it_takes(sqlite: Databases) -> None:
    source = Endless()
    seen = preview(Pipeline("endless", source, OrderSchema, ORDERS.load), rows=25)
    assert (seen.read, seen.valid.num_rows) == (25, 25)
    assert (source.asked, source.closed) == ([10, 10, 10], [True])


def test_of_an_api_only_the_pages_that_it_takes_are_asked_for(serve: Serve, sqlite: Databases) -> None:
    server = serve(PagedApi([record(number) for number in range(100)]))
    assert preview(WHOLE, rows=15).read == 15
    assert server.targets == ["/number?page=1", "/number?page=2"]


FEEDS = [
    SnapshotDiff("source", "orders", key=["id"]),
    SequenceExtract("source", "orders", cursor="id"),
    TriggerExtract("source", "orders", ["id"]),
]


@untouched
@pytest.mark.parametrize("feed", FEEDS, ids=lambda feed: type(feed).__name__)
def test_a_feed_shows_the_table_as_it_is_and_leaves_nothing_at_its_source(
    sqlite: Databases, feed: SnapshotDiff | SequenceExtract | TriggerExtract
) -> None:
    put(sqlite.source, [order(1), order(2, amount=-1)])
    before = everything(sqlite.source)
    seen = preview(replace(ORDERS, name="fed", extract=feed))
    assert (seen.read, seen.valid.column("id").to_pylist(), len(seen.rejected)) == (2, [1], 1)
    assert "as they are now" in seen.notes[0]
    assert everything(sqlite.source) == before
    assert inspect(sqlite.target).get_table_names() == []


def test_a_slot_is_neither_made_nor_moved(postgresql: Databases) -> None:
    followed = replace(ORDERS, name="logged", extract=LogExtract("source", "orders"))
    put(postgresql.source, [order(1)])
    slots = text(
        "SELECT slot_name, confirmed_flush_lsn::text FROM pg_replication_slots WHERE database = current_database()"
    )

    def there() -> list[tuple[object, ...]]:
        with postgresql.source.connect() as connection:
            return [tuple(row) for row in connection.execute(slots)]

    assert preview(followed).read == 1
    assert there() == []
    run_pipeline(followed)
    try:
        put(postgresql.source, [order(2)])
        before, state = there(), everything(postgresql.target)
        assert preview(followed).read == 2
        assert (there(), everything(postgresql.target)) == (before, state)
        assert run_pipeline(followed).counts.inserted == 1
    finally:
        remove_feed(followed)


@pytest.mark.parametrize("kind", ["engine", "events"])
def test_what_only_hands_out_what_is_then_gone_is_refused(sqlite: Databases, kind: str) -> None:
    feed = DebeziumExtract("source", "orders") if kind == "engine" else DebeziumEvents(files="*.json", table="orders")
    with pytest.raises(ConfigError, match="There is nothing to preview"):
        preview(replace(ORDERS, name="fed", extract=feed))


def test_a_history_and_a_transform_of_whole_windows_are_looked_at_too(sqlite: Databases) -> None:
    put(sqlite.source, [order(1), order(2, day=1)])
    history = replace(ORDERS, load=Scd2("target", "dim_orders", key=["id"]))
    assert preview(history).valid.column_names == ["id", "customer", "amount", "updated_at"]
    whole = replace(ORDERS, transform=WholeWindow(lambda frame: frame.assign(amount=frame["amount"].sum())))
    seen = preview(whole)
    assert seen.valid.column("amount").to_pylist() == [2.0, 2.0]
    assert "only these here" in seen.notes[0]


def test_deleted_rows_are_told_apart(sqlite: Databases) -> None:
    rows = pa.Table.from_pylist([order(1) | {"gone": False}, order(2) | {"gone": True}])
    with sqlite.source.begin() as connection:
        rows.to_pandas().to_sql("marked", connection, index=False)
    marked = replace(ORDERS, extract=TableExtract("source", "marked", deleted="gone"))
    assert preview(marked).valid.select(["id", "etl_deleted"]).to_pylist() == [
        {"id": 1, "etl_deleted": False}, {"id": 2, "etl_deleted": True}
    ]  # fmt: skip


def test_a_source_without_rows_has_nothing_to_show(sqlite: Databases, orders: str, tidegate: Tidegate) -> None:
    put(sqlite.source, [])
    assert "0 rows read, 0 valid, 0 rejected" in tidegate("preview", orders).stdout


def test_its_windows_are_those_of_a_first_run(sqlite: Databases) -> None:
    put(sqlite.source, [order(number, day=number) for number in range(4)])
    begun = TableExtract("source", "orders", cursor="updated_at", initial=START + 2 * DAY)
    assert preview(replace(ORDERS, extract=begun, split=DAY)).valid.column("id").to_pylist() == [2, 3]


def test_rows_in_memory_are_only_sliced(sqlite: Databases, tmp_path: Path) -> None:
    rows = RowsExtract(pa.Table.from_pylist([order(number) for number in range(100)]), "made")
    assert preview(Pipeline("made", rows, OrderSchema, ORDERS.load), rows=7).read == 7
