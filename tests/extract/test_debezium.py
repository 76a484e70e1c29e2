"""`DebeziumExtract` with the real engine, on the log of a real PostgreSQL and the binlog of a real MariaDB."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Annotated

import pandas as pd
import pandera.pandas as pa
import pyarrow as arrow
import pytest
from sqlalchemy import Engine, text

from tasks.counts import Counts
from tasks.errors import SourceError
from tasks.extract.debezium import DebeziumExtract
from tasks.extract.log import LogExtract
from tasks.load.append import Append
from tasks.load.upsert import Upsert
from tasks.pipeline import remove_feed, run_pipeline
from tests.conftest import Databases
from tests.extract.test_log import BOOKINGS as LOGGED
from tests.extract.test_log import LONG, drop_slots, execute, rows, slot, terms, writes_once
from tests.servers.debezium import MARIADB_JARS

pytestmark = [pytest.mark.debezium, pytest.mark.timeout(240)]

BOOKINGS = replace(LOGGED, extract=DebeziumExtract("source", "bookings", patience=60, jars=MARIADB_JARS))
CREATE = "CREATE TABLE bookings (id bigint PRIMARY KEY, seat text, price double precision)"
EVERYTHING = "SELECT id, seat, price FROM bookings ORDER BY id"


@pytest.fixture
def source(debezium_postgresql: Databases) -> Iterator[Engine]:
    """A table of bookings; the slot goes with the test."""
    execute(debezium_postgresql.source, CREATE)
    yield debezium_postgresql.source
    drop_slots(debezium_postgresql.source)


@pytest.fixture
def target(debezium_postgresql: Databases) -> Engine:
    return debezium_postgresql.target


@pytest.fixture
def both(debezium_sources: Databases) -> Iterator[Databases]:
    """Each test that asks for it runs on either connector, on a table of bookings."""
    execute(debezium_sources.source, CREATE)
    yield debezium_sources
    if debezium_sources.kind == "postgresql":
        drop_slots(debezium_sources.source)


def test_a_snapshot_then_only_what_changed_then_nothing(both: Databases) -> None:
    execute(both.source, "INSERT INTO bookings VALUES (1, '1A', 100), (2, '2B', NULL), (3, '3C', 50)")
    assert terms(run_pipeline(BOOKINGS)) == {"extracted": 3, "inserted": 3}
    execute(
        both.source,
        "INSERT INTO bookings VALUES (4, '4D', 70)",
        "UPDATE bookings SET seat = '9F' WHERE id = 1",
        "DELETE FROM bookings WHERE id = 2",
        "UPDATE bookings SET id = 7, seat = 'ß' WHERE id = 3",
    )
    report = run_pipeline(BOOKINGS)
    assert terms(report) == {"extracted": 5, "inserted": 2, "updated": 1, "deleted": 2}
    assert rows(both.target) == rows(both.source, EVERYTHING)
    assert report.covered_until is not None and len(report.windows) == 1
    assert run_pipeline(BOOKINGS).counts == Counts()


@pytest.mark.slow
def test_what_commits_while_the_snapshot_is_read_comes_once_and_in_order(both: Databases) -> None:
    execute(both.source, *(f"INSERT INTO bookings VALUES ({number}, 'A', 1)" for number in range(10)))
    pipeline = replace(BOOKINGS, transform=writes_once(both.source, "UPDATE bookings SET seat = 'B', price = 2"))
    counts = run_pipeline(pipeline).counts, run_pipeline(pipeline).counts
    assert sum(count.extracted for count in counts) == 20
    assert sum(count.inserted for count in counts) == sum(count.updated for count in counts) == 10
    assert rows(both.target) == rows(both.source, EVERYTHING)


@pytest.mark.slow
def test_keys_that_change_places_end_where_they_belong(both: Databases) -> None:
    execute(both.source, "INSERT INTO bookings VALUES (1, 'A', 1)", "INSERT INTO bookings VALUES (2, 'B', 2)")
    run_pipeline(BOOKINGS)
    with both.source.begin() as connection:
        for old, new in ((1, 9), (2, 1), (9, 2)):
            connection.execute(text("UPDATE bookings SET id = :new WHERE id = :old"), {"old": old, "new": new})
    run_pipeline(BOOKINGS)
    assert rows(both.target, "SELECT id, seat FROM fct_bookings ORDER BY id") == [(1, "B"), (2, "A")]


def test_truncate_empties_the_target_and_what_follows_is_loaded(both: Databases) -> None:
    execute(both.source, *(f"INSERT INTO bookings VALUES ({number}, 'A', 1)" for number in range(1, 6)))
    run_pipeline(BOOKINGS)
    execute(
        both.source,
        "INSERT INTO bookings VALUES (6, 'B', 1)",
        "TRUNCATE TABLE bookings",
        "INSERT INTO bookings VALUES (2, 'C', 2)",
    )
    report = run_pipeline(BOOKINGS)
    assert terms(report) == {"extracted": 2, "added": 4, "updated": 1, "deleted": 4, "deduplicated": 1}
    assert rows(both.target) == [(2, "C", 2.0)]


@pytest.mark.slow
@pytest.mark.parametrize("identity", ["DEFAULT", "FULL"])
def test_a_long_value_that_an_update_left_alone_is_kept(source: Engine, target: Engine, identity: str) -> None:
    execute(
        source,
        f"ALTER TABLE bookings REPLICA IDENTITY {identity}",
        "ALTER TABLE bookings ALTER seat SET STORAGE EXTERNAL",
        f"INSERT INTO bookings VALUES (1, {LONG}, 1), (2, {LONG}, 1), (3, {LONG}, 1)",
    )
    run_pipeline(BOOKINGS)
    execute(
        source,
        "UPDATE bookings SET price = 2",
        "UPDATE bookings SET id = 10 WHERE id = 1",
        "UPDATE bookings SET price = 3 WHERE id = 2",
        "DELETE FROM bookings WHERE id = 2",
        f"UPDATE bookings SET seat = {LONG} WHERE id = 3",
    )
    run_pipeline(BOOKINGS)
    assert [len(row[1]) for row in rows(target)] == [64_000, 64_000]
    assert rows(target) == rows(source, EVERYTHING)


@pytest.mark.slow
def test_bytes_json_and_arrays_that_an_update_left_alone_are_kept(source: Engine, target: Engine) -> None:
    class Long(pa.DataFrameModel):
        id: int
        n: int
        x: Annotated[pd.ArrowDtype, arrow.binary()]
        j: str
        a: str

    execute(
        source,
        "CREATE TABLE long (id int PRIMARY KEY, n int, x bytea, j jsonb, a text[])",
        *(f"ALTER TABLE long ALTER {name} SET STORAGE EXTERNAL" for name in "xja"),
        f"INSERT INTO long SELECT 1, 1, convert_to(t, 'UTF8'), jsonb_build_object('t', t), ARRAY[t] FROM {LONG} t",
    )
    pipeline = replace(BOOKINGS, name="long", extract=DebeziumExtract("source", "long"), schema=Long,
                       load=Upsert("target", "long", key=["id"]))  # fmt: skip
    run_pipeline(pipeline)
    before = rows(target, "SELECT x, j, a FROM long")
    execute(source, "UPDATE long SET n = 2")
    run_pipeline(pipeline)
    assert rows(target, "SELECT n FROM long") == [(2,)]
    assert rows(target, "SELECT x, j, a FROM long") == before and len(before[0][0]) == 64_000


@pytest.mark.slow
def test_the_row_before_comes_along_where_the_log_has_all_of_it(both: Databases) -> None:
    class Before(pa.DataFrameModel):
        id: int
        seat: str = pa.Field(nullable=True)
        old_seat: str = pa.Field(nullable=True)

    def transform(raw: pd.DataFrame) -> pd.DataFrame:
        befores = arrow.array(raw["etl_before"]).to_pylist()
        return raw.assign(old_seat=[before and before["seat"] for before in befores])

    pipeline = replace(BOOKINGS, schema=Before, transform=transform)
    if both.kind == "postgresql":
        execute(both.source, "ALTER TABLE bookings REPLICA IDENTITY FULL")
    execute(both.source, "INSERT INTO bookings VALUES (1, 'A', 1)")
    run_pipeline(pipeline)
    execute(both.source, "UPDATE bookings SET seat = 'B' WHERE id = 1")
    run_pipeline(pipeline)
    assert rows(both.target, "SELECT id, seat, old_seat FROM fct_bookings") == [(1, "B", "A")]


@pytest.mark.slow
def test_changes_can_be_kept_as_events_with_their_place_and_time(both: Databases) -> None:
    class Change(pa.DataFrameModel):
        etl_position: str
        etl_operation: str
        id: int
        etl_committed_at: datetime = pa.Field(nullable=True)

    events = replace(BOOKINGS, name="events", schema=Change, load=Append("target", "events", key=["etl_position"]))
    execute(both.source, "INSERT INTO bookings VALUES (0, 'A', 1)")
    run_pipeline(events)
    before = datetime.now(UTC).replace(microsecond=0)
    for number in (3, 1, 2):
        execute(both.source, f"INSERT INTO bookings VALUES ({number}, 'A', 1)")
    run_pipeline(events)
    execute(both.source, "UPDATE bookings SET seat = 'X' WHERE id > 0")
    run_pipeline(events)
    found = rows(both.target, "SELECT etl_operation, id, etl_committed_at FROM events ORDER BY etl_position")
    assert [row[:2] for row in found[:4]] == [("insert", 0), ("insert", 3), ("insert", 1), ("insert", 2)]
    assert sorted(row[:2] for row in found[4:]) == [("update", 1), ("update", 2), ("update", 3)]
    times = [row[2].replace(tzinfo=UTC) for row in found[1:]]
    assert before <= times[0] <= times[1] <= times[2] <= times[3] == times[5] <= datetime.now(UTC)


@pytest.mark.slow
def test_a_transaction_that_rolled_back_never_comes(both: Databases) -> None:
    run_pipeline(BOOKINGS)
    with both.source.connect() as connection:
        connection.execute(text("INSERT INTO bookings VALUES (1, 'A', 1)"))
        connection.rollback()
        with connection.begin():
            connection.execute(text("INSERT INTO bookings VALUES (2, 'B', 1)"))
            with connection.begin_nested() as savepoint:
                connection.execute(text("INSERT INTO bookings VALUES (3, 'C', 1)"))
                savepoint.rollback()
    assert terms(run_pipeline(BOOKINGS)) == {"extracted": 1, "inserted": 1}
    assert rows(both.target) == [(2, "B", 1.0)]


@pytest.mark.slow
def test_a_chunk_ends_with_a_transaction_and_the_run_goes_on_with_the_next(both: Databases) -> None:
    pipeline = replace(BOOKINGS, extract=DebeziumExtract("source", "bookings", chunk=10, jars=MARIADB_JARS))
    run_pipeline(pipeline)
    for start in range(0, 40, 8):
        values = ", ".join(f"({number}, 'A', 1)" for number in range(start, start + 8))
        execute(both.source, f"INSERT INTO bookings VALUES {values}")
    report = run_pipeline(pipeline)
    assert [window.entry.counts.inserted for window in report.windows] == [16, 16, 8]
    assert len({window.entry.position for window in report.windows}) == 3
    assert rows(both.target, "SELECT count(*) FROM fct_bookings") == [(40,)]


@pytest.mark.slow
def test_the_slot_lets_go_of_the_log_also_when_the_table_is_quiet(source: Engine, target: Engine) -> None:
    run_pipeline(BOOKINGS)
    execute(source, "CREATE TABLE others AS SELECT repeat('x', 100) FROM generate_series(1, 20000)")
    run_pipeline(BOOKINGS)
    with source.connect() as connection:
        lag = connection.execute(
            text("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn) FROM pg_replication_slots "
                 "WHERE database = current_database()")
        ).scalar_one()  # fmt: skip
    assert lag < 100_000


def test_debezium_never_moves_the_slot_past_what_is_committed(source: Engine, target: Engine) -> None:
    run_pipeline(BOOKINGS)
    before = slot(source).confirmed_flush_lsn
    execute(source, "INSERT INTO bookings VALUES (1, 'A', 1)")
    found = []

    def looks(raw: pd.DataFrame) -> pd.DataFrame:
        found.append(slot(source).confirmed_flush_lsn)
        return raw

    run_pipeline(replace(BOOKINGS, transform=looks))
    assert found == [before]
    assert slot(source).confirmed_flush_lsn == rows(target, "SELECT position FROM etl_watermarks")[0][0] != before


@pytest.mark.slow
def test_a_table_altered_between_and_within_runs_is_read_as_it_was_at_each_change(both: Databases) -> None:
    class WithMeal(pa.DataFrameModel):
        id: int
        seat: str = pa.Field(nullable=True)
        meal: str = pa.Field(nullable=True)

    pipeline = replace(BOOKINGS, schema=WithMeal, transform=lambda raw: raw if "meal" in raw else raw.assign(meal=None))
    execute(both.source, "INSERT INTO bookings VALUES (1, 'A', 1)")
    run_pipeline(pipeline)
    execute(
        both.source,
        "INSERT INTO bookings VALUES (2, 'B', 1)",
        "ALTER TABLE bookings ADD COLUMN meal varchar(9) DEFAULT 'none'",
        "INSERT INTO bookings VALUES (3, 'C', 1, 'fish')",
        "INSERT INTO bookings VALUES (4, 'D', 1, NULL)",
    )
    run_pipeline(pipeline)
    execute(
        both.source,
        "INSERT INTO bookings VALUES (5, 'E', 1, 'rice')",
        "ALTER TABLE bookings DROP COLUMN price",
        "INSERT INTO bookings VALUES (6, 'F', 'soup')",
    )
    run_pipeline(pipeline)
    execute(both.source, "INSERT INTO bookings VALUES (7, 'G', 'cake')")
    run_pipeline(pipeline)
    assert rows(both.target, "SELECT id, seat, meal FROM fct_bookings ORDER BY id") == [
        (1, "A", None), (2, "B", None), (3, "C", "fish"), (4, "D", None), (5, "E", "rice"), (6, "F", "soup"),
        (7, "G", "cake"),
    ]  # fmt: skip


@pytest.mark.slow
def test_a_new_snapshot_deletes_what_is_gone_and_writes_only_what_differs(both: Databases) -> None:
    execute(both.source, *(f"INSERT INTO bookings VALUES ({number}, 'A', 1)" for number in range(1, 11)))
    run_pipeline(BOOKINGS)
    execute(both.source, "DELETE FROM bookings WHERE id > 8", "UPDATE bookings SET seat = 'B' WHERE id = 1")
    report = run_pipeline(BOOKINGS, full_refresh=True)
    assert terms(report) == {"extracted": 8, "added": 2, "updated": 1, "deleted": 2, "unchanged": 7}
    assert rows(both.target) == rows(both.source, EVERYTHING)


@pytest.mark.slow
def test_a_snapshot_that_broke_off_begins_anew(both: Databases) -> None:
    execute(both.source, "INSERT INTO bookings VALUES (1, 'A', 1)")
    with pytest.raises(Exception, match=r"column 'price' is missing"):
        run_pipeline(replace(BOOKINGS, transform=lambda raw: raw.drop(columns="price")))
    execute(both.source, "DELETE FROM bookings WHERE id = 1", "INSERT INTO bookings VALUES (2, 'B', 1)")
    assert terms(run_pipeline(BOOKINGS)) == {"extracted": 1, "inserted": 1}
    assert rows(both.target) == [(2, "B", 1.0)]


@pytest.mark.slow
def test_changes_that_are_gone_are_a_clear_error_and_a_new_snapshot_mends_it(both: Databases) -> None:
    execute(both.source, "INSERT INTO bookings VALUES (1, 'A', 1)", "INSERT INTO bookings VALUES (2, 'B', 1)")
    run_pipeline(BOOKINGS)
    if both.kind == "postgresql":
        drop_slots(both.source)
    else:
        execute(both.source, "DELETE FROM bookings WHERE id = 1", "FLUSH BINARY LOGS")
        last = rows(both.source, "SHOW MASTER STATUS")[0][0]
        # InnoDB may need the one before a moment longer.
        while rows(both.source, "SHOW BINARY LOGS")[0][0] != last:
            execute(both.source, f"PURGE BINARY LOGS TO '{last}'")
    with pytest.raises(SourceError, match=r"cannot be read any more.*full_refresh"):
        run_pipeline(BOOKINGS)
    execute(both.source, "DELETE FROM bookings WHERE id = 1")
    run_pipeline(BOOKINGS, full_refresh=True)
    assert rows(both.target) == [(2, "B", 1.0)]


def test_log_extract_goes_on_where_debezium_stopped_and_back(source: Engine, target: Engine) -> None:
    logged = replace(BOOKINGS, extract=LogExtract("source", "bookings"))
    for number, pipeline in enumerate([BOOKINGS, logged, BOOKINGS]):
        execute(source, f"INSERT INTO bookings VALUES ({number}, 'A', 1)")
        assert terms(run_pipeline(pipeline)) == {"extracted": 1, "inserted": 1}


def test_what_the_feed_made_at_the_source_can_be_taken_away(source: Engine, target: Engine) -> None:
    run_pipeline(BOOKINGS)
    assert slot(source) is not None
    remove_feed(BOOKINGS)
    assert slot(source) is None
    assert rows(source, "SELECT * FROM pg_publication") == []
    remove_feed(BOOKINGS)


@pytest.mark.slow
def test_two_pipelines_on_one_table_do_not_disturb_each_other(both: Databases) -> None:
    other = replace(BOOKINGS, name="others", load=Upsert("target", "others", key=["id"]))
    execute(both.source, "INSERT INTO bookings VALUES (1, 'A', 1)")
    for pipeline in (BOOKINGS, other):
        run_pipeline(pipeline)
    execute(both.source, "INSERT INTO bookings VALUES (2, 'B', 1)")
    assert [terms(run_pipeline(pipeline)) for pipeline in (BOOKINGS, other)] == [{"extracted": 1, "inserted": 1}] * 2


@pytest.mark.slow
def test_names_that_need_quotes_are_quoted(debezium_postgresql: Databases) -> None:
    source = debezium_postgresql.source
    execute(
        source,
        'CREATE SCHEMA "S 1"',
        'CREATE TABLE "S 1"."Book-ings,x" ("Id" bigint PRIMARY KEY, "se at" text, price float8)',
        'INSERT INTO "S 1"."Book-ings,x" VALUES (1, \'A\', 1)',
    )
    pipeline = replace(
        BOOKINGS,
        extract=DebeziumExtract("source", "S 1.Book-ings,x"),
        transform=lambda raw: raw.rename(columns={"Id": "id", "se at": "seat"}),
    )
    try:
        run_pipeline(pipeline)
        execute(source, 'UPDATE "S 1"."Book-ings,x" SET "Id" = 2', 'INSERT INTO "S 1"."Book-ings,x" VALUES (3)')
        run_pipeline(pipeline)
        assert rows(debezium_postgresql.target) == [(2, "A", 1.0), (3, None, None)]
    finally:
        drop_slots(source)


def test_every_type_of_postgresql_has_its_exact_value(source: Engine, target: Engine) -> None:
    columns = (
        "s int2, b bool, r float8, n numeric(38,9), d date, t time, ts timestamp, tz timestamptz, u uuid, j jsonb, "
        "x bytea, a int[], v varchar(9), free numeric, i bigint NOT NULL DEFAULT 7, o text DEFAULT 'default'"
    )

    class Types(pa.DataFrameModel):
        id: int
        s: int = pa.Field(nullable=True)
        b: bool = pa.Field(nullable=True)
        r: float = pa.Field(nullable=True)
        n: Annotated[pd.ArrowDtype, arrow.decimal128(38, 9)] = pa.Field(nullable=True)
        d: Annotated[pd.ArrowDtype, arrow.date32()] = pa.Field(nullable=True)
        t: Annotated[pd.ArrowDtype, arrow.time64("us")] = pa.Field(nullable=True)
        ts: datetime = pa.Field(nullable=True)
        tz: Annotated[pd.ArrowDtype, arrow.timestamp("us", "UTC")] = pa.Field(nullable=True)
        u: str = pa.Field(nullable=True)
        j: str = pa.Field(nullable=True)
        x: Annotated[pd.ArrowDtype, arrow.binary()] = pa.Field(nullable=True)
        a: str = pa.Field(nullable=True)
        v: str = pa.Field(nullable=True)
        free: str = pa.Field(nullable=True)
        i: int
        o: str = pa.Field(nullable=True)

    pipeline = replace(BOOKINGS, name="types", schema=Types, extract=DebeziumExtract("source", "types"),
                       load=Upsert("target", "types", key=["id"]))  # fmt: skip
    execute(source, f"CREATE TABLE types (id int PRIMARY KEY, {columns})")
    full = """'{}', -7, true, 0.1, 12345678901234567890123456789.123456789, '2024-02-29', '23:59:59.999999',
        '2024-02-29 12:00:00.000001', '2024-02-29 12:00:00.5+02', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
        '{{"a": "\\u00e9\\n"}}', '\\x00ff', '{{1,NULL,3}}', 'ß"''\\', 1e-20, 9223372036854775807, NULL"""
    execute(source, f"INSERT INTO types VALUES ({full.format(1)})")
    run_pipeline(pipeline)
    execute(source, f"INSERT INTO types VALUES ({full.format(2)})", "INSERT INTO types (id) VALUES (3)",
            "INSERT INTO types (id, r, b) VALUES (4, 'NaN', false), (5, '-Infinity', NULL)")  # fmt: skip
    assert terms(run_pipeline(pipeline)) == {"extracted": 4, "inserted": 4}
    found = rows(target, "SELECT * FROM types ORDER BY id")
    assert found[0][1:] == found[1][1:], "the snapshot and the log tell the same"
    assert found[0][:8] == (
        1, -7, True, 0.1, Decimal("12345678901234567890123456789.123456789"), date(2024, 2, 29),
        time(23, 59, 59, 999999), datetime(2024, 2, 29, 12, 0, 0, 1),
    )  # fmt: skip
    assert found[0][8].astimezone(UTC) == datetime(2024, 2, 29, 10, 0, 0, 500000, tzinfo=UTC)
    assert found[0][9] == "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11" and found[0][11] == b"\x00\xff"
    assert json.loads(found[0][10]) == {"a": "é\n"} and found[0][12] == "[1,null,3]"
    assert found[0][13:] == ("ß\"'\\", "0.00000000000000000001", 2**63 - 1, None), "a NULL is no default"
    assert found[2][1:15] == (None,) * 14 and found[2][15:] == (7, "default")
    assert str(found[3][3]) == "nan" and found[4][3] == float("-inf") and found[3][2] is False


def test_every_type_of_mysql_has_its_exact_value(debezium_binlogs: Databases) -> None:
    source, target = debezium_binlogs.source, debezium_binlogs.target

    class Types(pa.DataFrameModel):
        id: int
        s: int = pa.Field(nullable=True)
        u: Annotated[pd.ArrowDtype, arrow.decimal128(20, 0)] = pa.Field(nullable=True)
        r: float = pa.Field(nullable=True)
        n: Annotated[pd.ArrowDtype, arrow.decimal128(38, 9)] = pa.Field(nullable=True)
        d: Annotated[pd.ArrowDtype, arrow.date32()] = pa.Field(nullable=True)
        t: Annotated[pd.ArrowDtype, arrow.time64("us")] = pa.Field(nullable=True)
        dt: datetime = pa.Field(nullable=True)
        ts: Annotated[pd.ArrowDtype, arrow.timestamp("us", "UTC")] = pa.Field(nullable=True)
        x: Annotated[pd.ArrowDtype, arrow.binary()] = pa.Field(nullable=True)
        e: str = pa.Field(nullable=True)
        b: int = pa.Field(nullable=True)
        y: int = pa.Field(nullable=True)
        v: str = pa.Field(nullable=True)
        o: str = pa.Field(nullable=True)

    pipeline = replace(BOOKINGS, name="types", schema=Types, load=Upsert("target", "types", key=["id"]),
                       extract=DebeziumExtract("source", "types", jars=MARIADB_JARS))  # fmt: skip
    execute(
        source,
        "CREATE TABLE types (id int PRIMARY KEY, s smallint, u bigint unsigned, r double, n decimal(38,9), d date, "
        "t time(6), dt datetime(6), ts timestamp(6) NULL, x varbinary(9), e enum('a','ß'), b bit(5), y year, "
        "v varchar(9), o varchar(9) DEFAULT 'default')",
    )
    full = """{}, -7, 18446744073709551615, 0.1, 12345678901234567890123456789.123456789, '2024-02-29',
        '23:59:59.999999', '2024-02-29 12:00:00.000001', '2024-02-29 10:00:00.5', x'00ff', 'ß', b'00101', 2024,
        'ß"''', NULL"""
    execute(source, f"INSERT INTO types VALUES ({full.format(1)})")
    run_pipeline(pipeline)
    execute(source, f"INSERT INTO types VALUES ({full.format(2)})", "INSERT INTO types (id) VALUES (3)")
    assert terms(run_pipeline(pipeline)) == {"extracted": 2, "inserted": 2}
    found = rows(target, "SELECT * FROM types ORDER BY id")
    assert found[0][1:] == found[1][1:], "the snapshot and the binlog tell the same"
    assert found[0][:8] == (
        1, -7, Decimal(2**64 - 1), 0.1, Decimal("12345678901234567890123456789.123456789"), date(2024, 2, 29),
        time(23, 59, 59, 999999), datetime(2024, 2, 29, 12, 0, 0, 1),
    )  # fmt: skip
    # It was written in UTC; the server's own zone, in which it shows it to others, is +05:30.
    assert found[0][8].astimezone(UTC) == datetime(2024, 2, 29, 10, 0, 0, 500000, tzinfo=UTC)
    assert found[0][9:] == (b"\x00\xff", "ß", 5, 2024, "ß\"'", None), "a NULL is no default"
    assert found[2][1:] == (*[None] * 13, "default")
