"""`Scd2`: the history of a key is a function of its changes, in whatever order and in however many runs they come."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count, groupby
from typing import Any

import pandera.pandas as pa
import pyarrow as arrow
import pyarrow.compute as pc
import pytest
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, insert, text

from tasks.change_columns import OPERATION
from tasks.column_types import UTC_TIMESTAMP
from tasks.dialects import dialect_of
from tasks.extract.rows import RowsExtract
from tasks.extract.snapshot import SnapshotDiff
from tasks.load.scd2 import Scd2
from tasks.load.target import staged_table
from tasks.load.writer import Incoming
from tasks.pipeline import Pipeline, Sla, run_pipeline
from tasks.state.dead_letters import rejected_table
from tasks.state.staged import CHANGED_AT, DELETED, ROW
from tasks.transform.contract import Contract, UtcTimestamp
from tests.conftest import Databases
from tests.properties.effort import Prove, effort

START = datetime(2026, 1, 1, tzinfo=UTC)
INSTANTS, KEYS = 7, 2

Place = tuple[int, int]
"""A key, and an instant in hours after `START`."""
Version = tuple[int, int, int | None, str | None, str | None]
"""Of a key: from, to, what is tracked and what is not."""


class ThingSchema(pa.DataFrameModel):
    """A thing; its note is not tracked."""

    id: int
    colour: str = pa.Field(nullable=True)
    note: str = pa.Field(nullable=True)
    updated_at: UtcTimestamp


THINGS = Pipeline(
    name="things",
    extract=RowsExtract(arrow.table({}), "things", "updated_at"),
    schema=ThingSchema,
    load=Scd2("target", "dim_things", key=["id"], untracked=["note"]),
    sla=Sla(abort_error_rate=1.0),
)


BROUGHT = arrow.schema(
    {"id": arrow.int64(), "colour": arrow.string(), "note": arrow.string(), "updated_at": UTC_TIMESTAMP,
     DELETED: arrow.bool_()}
)  # fmt: skip


@dataclass(frozen=True)
class Event:
    """What happened to a key; a deleted one has no colour and no note."""

    deleted: bool
    colour: str | None
    note: str | None


Events = Mapping[Place, Event]
Changes = Sequence[tuple[Place, Event]]


def model(events: Events) -> set[Version]:
    """The versions, by looking at every instant there is: brute force."""
    found = set()
    for key in {key for key, _ in events}:
        states = [newest(events, key, instant) for instant in range(INSTANTS)]
        instant = 0
        for _, run in groupby(states, key=lambda state: (state is None or state.deleted, state and state.colour)):
            seen = list(run)
            begins, instant, last = instant, instant + len(seen), seen[-1]
            if last is not None and not last.deleted:
                found.add((key, begins, instant if instant < INSTANTS else None, last.colour, last.note))
    return found


def newest(events: Events, key: int, instant: int) -> Event | None:
    """The state of a key at an instant, by the last event until then."""
    return next((events[key, at] for at in range(instant, -1, -1) if (key, at) in events), None)


ROWS = st.builds(Event, st.just(False), st.sampled_from(["red", "blue", None]), st.sampled_from(["one", "two", None]))
GONE = Event(True, None, None)
DELETES = st.just(GONE)
EVENTS = st.dictionaries(
    st.tuples(st.integers(0, KEYS - 1), st.integers(0, INSTANTS - 1)), ROWS | ROWS | DELETES, min_size=1, max_size=9
)


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[Events, list[list[Place]]]:
    """Changes, and the batches they come in: in any order, some of them more than once."""
    events = draw(EVENTS)
    places = list(events)
    order = draw(st.permutations(places)) + draw(st.lists(st.sampled_from(places), max_size=3))
    cuts = sorted(draw(st.sets(st.integers(1, len(order)), max_size=2)))
    return events, [order[a:b] for a, b in zip([0, *cuts], [*cuts, len(order)], strict=True) if order[a:b]]


@effort(few=25, many=2_500)
def test_any_order_and_any_batches_give_the_history_of_the_model(sqlite: Databases, prove: Prove) -> None:
    """The writer alone, which is quick; a pipeline comes next."""
    prove_writer(sqlite.target, prove)


@pytest.mark.mariadb
@effort(few=5, many=300)
def test_mariadb_makes_the_same_of_the_same_statements(mariadb: Databases, prove: Prove) -> None:
    prove_writer(mariadb.source, prove)


def prove_writer(engine: Engine, prove: Prove) -> None:
    """Stage changes and let the writer write, without a pipeline around it."""
    dialect, columns = dialect_of(engine), Contract("things", ThingSchema, key=["id"]).columns
    staged = staged_table("staged", columns, changes=True, dated=True)
    rejected = rejected_table("rejected", arrow.schema([columns.field("id")]))
    target = THINGS.load.target(columns)
    companions = THINGS.load.companions(columns, "updated_at", tells_deletes=True)
    incoming = Incoming(target, staged, rejected, "updated_at", START, companions)
    for table in (target, *companions, staged, rejected):
        table.metadata.create_all(engine)

    def load(first: int, changes: Changes) -> int:
        with dialect.transaction(engine) as connection:
            connection.execute(insert(staged), [
                {**row, ROW: number, CHANGED_AT: row["updated_at"]}
                for number, row in enumerate(rows_of(first, changes))
            ])  # fmt: skip
            writer = THINGS.load.writer(incoming)
            repeated = writer.deduplicate(connection)
            assert writer.absent(connection) == (0, 0)
            classes = writer.classify(connection)
            assert repeated + classes.new + classes.changed + classes.deleted + classes.unchanged == len(changes)
            written = writer.write(connection, classes, 0)
            connection.execute(delete(staged))
        return written

    prove_histories(engine, load, prove)


@effort(few=3, many=100)
def test_a_pipeline_gives_it_too(databases: Databases, prove: Prove) -> None:
    def load(first: int, changes: Changes) -> int:
        rows = arrow.Table.from_pylist(rows_of(first, changes), BROUGHT)
        operations = pc.if_else(rows.column(DELETED), "delete", "update")
        raw = rows.drop_columns(DELETED).append_column(OPERATION, operations)
        report = run_pipeline(replace(THINGS, extract=RowsExtract(raw, "things", "updated_at")))
        return report.windows[0].entry.written

    prove_histories(databases.target, load, prove)


@effort(few=3, many=80)
def test_snapshots_give_the_history_of_what_they_saw(sqlite: Databases, prove: Prove) -> None:
    """A row that a snapshot lacks was deleted by then; what is read again and is as it was is no event."""
    numbers = count()
    pipeline = replace(
        THINGS, extract=SnapshotDiff("source", "things", ["id"], max_shrink=1.0, clock="(SELECT at FROM clocks)")
    )

    def claim(states: list[Mapping[int, Event]]) -> None:
        name = f"dim_things_{next(numbers)}"
        own = replace(pipeline, name=name, load=Scd2("target", name, key=["id"], untracked=["note", "updated_at"]))
        for instant, state in enumerate(states):
            show(sqlite.source, state, instant)
            run_pipeline(own)
        seen = {(key, at): state.get(key, GONE) for at, state in enumerate(states) for key in range(KEYS)}
        assert versions(sqlite.target, 0, name) == model(seen)
        again = run_pipeline(own)
        assert again.counts.extracted == again.windows[0].entry.written == 0

    prove(st.lists(st.dictionaries(st.integers(0, KEYS - 1), ROWS), min_size=2, max_size=INSTANTS), claim)


def show(source: Engine, state: Mapping[int, Event], instant: int) -> None:
    """Let the source hold `state`, and a row that is always there, and its clock stand at `instant`."""
    rows = [{"id": key, "colour": event.colour, "note": event.note} for key, event in state.items()]
    with source.begin() as connection:
        for table in ("things", "clocks"):
            connection.execute(text(f"DROP TABLE IF EXISTS {table}"))
        connection.execute(text("CREATE TABLE clocks (at text)"))
        at = (START + timedelta(hours=instant)).isoformat()
        connection.execute(text("INSERT INTO clocks VALUES (:at)"), {"at": at})
        connection.execute(text("CREATE TABLE things (id bigint, colour text, note text, updated_at datetime)"))
        statement = text("INSERT INTO things VALUES (:id, :colour, :note, '2026-01-01 00:00:00')")
        # Empty is not deleted: a source without a row would be refused.
        connection.execute(statement, [*rows, {"id": KEYS, "colour": "grey", "note": None}])


def prove_histories(target: Engine, load: Callable[[int, Changes], int], prove: Prove) -> None:
    """`load` brings changes, their keys counted from a first one, and tells how many versions it wrote."""
    numbers = count()

    def claim(example: tuple[Events, list[list[Place]]]) -> None:
        events, batches = example
        # Keys that no other example has had: the others' histories are there, and stay.
        first = next(numbers) * KEYS
        for batch in batches:
            load(first, [(place, events[place]) for place in batch])
        expected = model(events)
        assert_no_overlap_and_no_gap_without_a_delete(events, expected)
        assert versions(target, first) == expected
        assert load(first, [(place, events[place]) for place in batches[-1]]) == 0
        assert versions(target, first) == expected

    prove(deliveries(), claim)


def rows_of(first: int, changes: Changes) -> list[dict[str, Any]]:
    """As they are staged, but for number and time."""
    return [
        {
            "id": first + key,
            "colour": event.colour,
            "note": event.note,
            "updated_at": START + timedelta(hours=at),
            DELETED: event.deleted,
        }
        for (key, at), event in changes
    ]


def versions(target: Engine, first: int, table: str = "dim_things") -> set[Version]:
    """The versions of an example's keys, in the model's terms."""
    statement = text(
        f"SELECT id, valid_from, valid_to, is_current, colour, note FROM {table} WHERE id BETWEEN :a AND :b"
    )
    with target.connect() as connection:
        rows = connection.execute(statement, {"a": first, "b": first + KEYS - 1}).all()
    assert all(bool(row.is_current) == (row.valid_to is None) for row in rows)
    found = {(row.id - first, hour(row.valid_from), hour(row.valid_to), row.colour, row.note) for row in rows}
    assert len(found) == len(rows)
    return found


def hour(value: Any) -> Any:
    """Hours after `START`, of a time as the database gives it."""
    if value is None:
        return None
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    return (at.replace(tzinfo=at.tzinfo or UTC) - START) // timedelta(hours=1)


def assert_no_overlap_and_no_gap_without_a_delete(events: Events, found: set[Version]) -> None:
    """What the commit checks, checked of the model: so the two are about the same thing."""
    for key in {version[0] for version in found}:
        mine = sorted(version for version in found if version[0] == key)
        for (_, begins, ends, *_), following in zip(mine, [*mine[1:], None], strict=True):
            assert ends is None or begins < ends
            assert (ends is None) <= (following is None)
            if ends is not None and (following is None or following[1] != ends):
                assert events[key, ends].deleted
