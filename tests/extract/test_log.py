"""`LogExtract` on a real slot of a real PostgreSQL."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pandas as pd
import pandera.pandas as pa
import pyarrow as arrow
import pytest
from sqlalchemy import Engine, text

from tasks.counts import Counts
from tasks.errors import ConfigError, GuardRefused, SourceError
from tasks.extract.log import LogExtract
from tasks.load.append import Append
from tasks.load.replace import Replace
from tasks.load.upsert import Upsert
from tasks.pipeline import Pipeline, Sla, remove_feed, run_pipeline
from tasks.report import RunReport
from tests.conftest import Databases
from tests.variants import slow_but


class BookingSchema(pa.DataFrameModel):
    id: int
    seat: str = pa.Field(nullable=True)
    price: float = pa.Field(nullable=True, ge=0)


BOOKINGS = Pipeline(
    name="bookings",
    extract=LogExtract("source", "bookings"),
    schema=BookingSchema,
    load=Upsert("target", "fct_bookings", key=["id"]),
    sla=Sla(abort_error_rate=1.0),
)


@pytest.fixture
def source(postgresql: Databases) -> Iterator[Engine]:
    """A table of bookings; the slot goes with the test."""
    execute(postgresql.source, "CREATE TABLE bookings (id bigint PRIMARY KEY, seat text, price float8)")
    yield postgresql.source
    drop_slots(postgresql.source)


@pytest.fixture
def target(postgresql: Databases) -> Engine:
    return postgresql.target


def execute(engine: Engine, *statements: str) -> None:
    """Each statement in a transaction of its own."""
    for statement in statements:
        with engine.begin() as connection:
            connection.exec_driver_sql(statement)


def drop_slots(engine: Engine) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(
            text(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
                "WHERE database = current_database()"
            )
        )


def rows(engine: Engine, query: str = "SELECT id, seat, price FROM fct_bookings ORDER BY id") -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def terms(report: RunReport) -> dict[str, int]:
    return {name: value for name, value in report.counts.as_dict().items() if value}


def slot(engine: Engine) -> Any:
    with engine.connect() as connection:
        return connection.execute(
            text("SELECT * FROM pg_replication_slots WHERE database = current_database()")
        ).one_or_none()


def test_the_first_run_takes_a_snapshot_and_the_next_only_what_changed(source: Engine, target: Engine) -> None:
    execute(source, "INSERT INTO bookings VALUES (1, '1A', 100), (2, '2B', NULL), (3, '3C', 50)")
    assert terms(run_pipeline(BOOKINGS)) == {"extracted": 3, "inserted": 3}
    execute(
        source,
        "INSERT INTO bookings VALUES (4, '4D', 70)",
        "UPDATE bookings SET seat = '9F' WHERE id = 1",
        "DELETE FROM bookings WHERE id = 2",
    )
    assert terms(run_pipeline(BOOKINGS)) == {"extracted": 3, "inserted": 1, "updated": 1, "deleted": 1}
    assert rows(target) == rows(source, "SELECT * FROM bookings ORDER BY id")
    again = run_pipeline(BOOKINGS)
    assert again.counts == Counts()
    assert rows(target) == [(1, "9F", 100.0), (3, "3C", 50.0), (4, "4D", 70.0)]


def test_what_commits_while_the_snapshot_is_read_comes_once_and_in_order(source: Engine, target: Engine) -> None:
    execute(source, "INSERT INTO bookings SELECT g, 'A', 1 FROM generate_series(1, 10) g")
    pipeline = replace(BOOKINGS, transform=writes_once(source, "UPDATE bookings SET seat = 'B', price = 2"))
    report = run_pipeline(pipeline)
    assert terms(report) == {"extracted": 20, "inserted": 10, "updated": 10}
    assert rows(target) == rows(source, "SELECT * FROM bookings ORDER BY id")


def writes_once(engine: Engine, statement: str) -> Any:
    """A transform that writes to the source in the middle of a run, the first time it is called."""
    done: list[bool] = []

    def transform(raw: pd.DataFrame) -> pd.DataFrame:
        if not done and len(raw):
            done.append(True)
            execute(engine, statement)
        return raw

    return transform


def test_a_changed_key_moves_the_row(source: Engine, target: Engine) -> None:
    execute(source, "INSERT INTO bookings VALUES (1, 'A', 1), (2, 'B', 2)")
    run_pipeline(BOOKINGS)
    execute(source, "UPDATE bookings SET id = 7, seat = 'C' WHERE id = 1")
    assert terms(run_pipeline(BOOKINGS)) == {"extracted": 2, "inserted": 1, "deleted": 1}
    assert rows(target) == [(2, "B", 2.0), (7, "C", 1.0)]


@pytest.mark.parametrize("identity", slow_but(["DEFAULT"], ["DEFAULT", "FULL"]))
def test_keys_that_change_places_end_where_they_belong(source: Engine, target: Engine, identity: str) -> None:
    execute(
        source, f"ALTER TABLE bookings REPLICA IDENTITY {identity}", "INSERT INTO bookings VALUES (1, 'A'), (2, 'B')"
    )
    run_pipeline(BOOKINGS)
    with source.begin() as connection:
        for old, new in ((1, 9), (2, 1), (9, 2)):
            connection.execute(text("UPDATE bookings SET id = :new WHERE id = :old"), {"old": old, "new": new})
    run_pipeline(BOOKINGS)
    assert rows(target, "SELECT id, seat FROM fct_bookings ORDER BY id") == [(1, "B"), (2, "A")]


def test_truncate_empties_the_target_and_what_follows_is_loaded(source: Engine, target: Engine) -> None:
    execute(source, "INSERT INTO bookings SELECT g, 'A', 1 FROM generate_series(1, 5) g")
    run_pipeline(BOOKINGS)
    execute(
        source,
        "INSERT INTO bookings VALUES (6, 'B', 1)",
        "TRUNCATE bookings",
        "INSERT INTO bookings VALUES (2, 'C', 2)",
    )
    report = run_pipeline(BOOKINGS)
    assert terms(report) == {"extracted": 2, "added": 4, "updated": 1, "deleted": 4, "deduplicated": 1}
    assert rows(target) == [(2, "C", 2.0)]


LONG = "repeat(md5(random()::text), 2000)"


@pytest.mark.parametrize("identity", slow_but(["DEFAULT"], ["DEFAULT", "FULL"]))
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
    assert rows(target) == rows(source, "SELECT * FROM bookings ORDER BY id")


def test_under_full_identity_the_row_before_comes_along(source: Engine, target: Engine) -> None:
    class Before(pa.DataFrameModel):
        id: int
        seat: str = pa.Field(nullable=True)
        old_seat: str = pa.Field(nullable=True)

    def transform(raw: pd.DataFrame) -> pd.DataFrame:
        if "etl_before" not in raw:
            return raw.assign(old_seat=None)
        befores = arrow.array(raw["etl_before"]).to_pylist()
        return raw.assign(old_seat=[before and before["seat"] for before in befores])

    pipeline = replace(BOOKINGS, schema=Before, transform=transform)
    execute(source, "ALTER TABLE bookings REPLICA IDENTITY FULL", "INSERT INTO bookings VALUES (1, 'A', 1)")
    run_pipeline(pipeline)
    execute(source, "UPDATE bookings SET seat = 'B' WHERE id = 1")
    run_pipeline(pipeline)
    assert rows(target, "SELECT id, seat, old_seat FROM fct_bookings") == [(1, "B", "A")]


def test_changes_can_be_kept_as_events_with_their_place_and_time(source: Engine, target: Engine) -> None:
    class Event(pa.DataFrameModel):
        etl_position: str
        etl_operation: str
        id: int
        etl_committed_at: datetime = pa.Field(nullable=True)

    events = Pipeline(
        name="events",
        extract=LogExtract("source", "bookings"),
        schema=Event,
        transform=lambda raw: (
            raw
            if "etl_position" in raw
            else raw.assign(etl_position=raw["id"].astype("string"), etl_operation="insert", etl_committed_at=None)
        ),
        load=Append("target", "booking_events", key=["etl_position"]),
    )
    run_pipeline(events)
    before = datetime.now(UTC) - timedelta(minutes=1)
    for number in (3, 1, 2):
        execute(source, f"INSERT INTO bookings VALUES ({number})")
    execute(source, "UPDATE bookings SET seat = 'X'")
    run_pipeline(events)
    found = rows(target, "SELECT etl_operation, id, etl_committed_at FROM booking_events ORDER BY etl_position")
    assert [row[:2] for row in found] == [
        ("insert", 3), ("insert", 1), ("insert", 2), ("update", 3), ("update", 1), ("update", 2),
    ]  # fmt: skip
    times = [row[2].replace(tzinfo=UTC) for row in found]
    assert before < times[0] <= times[1] <= times[2] <= times[3] == times[5] < datetime.now(UTC)


def test_every_type_has_the_value_that_a_table_read_gives(source: Engine, target: Engine) -> None:
    execute(
        source,
        "CREATE TABLE types (id int PRIMARY KEY, s int2, b bool, r float8, n numeric(38,9), d date, t time, "
        "ts timestamp, tz timestamptz, u uuid, j jsonb, x bytea, a int[], v varchar(9), free numeric)",
    )

    class Types(pa.DataFrameModel):
        id: int
        s: int = pa.Field(nullable=True)
        b: bool = pa.Field(nullable=True)
        r: float = pa.Field(nullable=True)
        n: pd.ArrowDtype(arrow.decimal128(38, 9)) = pa.Field(nullable=True)  # type: ignore[valid-type]
        d: pd.ArrowDtype(arrow.date32()) = pa.Field(nullable=True)  # type: ignore[valid-type]
        t: pd.ArrowDtype(arrow.time64("us")) = pa.Field(nullable=True)  # type: ignore[valid-type]
        ts: datetime = pa.Field(nullable=True)
        tz: pd.ArrowDtype(arrow.timestamp("us", "UTC")) = pa.Field(nullable=True)  # type: ignore[valid-type]
        u: str = pa.Field(nullable=True)
        j: str = pa.Field(nullable=True)
        x: pd.ArrowDtype(arrow.binary()) = pa.Field(nullable=True)  # type: ignore[valid-type]
        a: str = pa.Field(nullable=True)
        v: str = pa.Field(nullable=True)
        free: str = pa.Field(nullable=True)

    pipeline = replace(BOOKINGS, name="types", schema=Types, extract=LogExtract("source", "types"),
                       load=Upsert("target", "types", key=["id"]))  # fmt: skip
    run_pipeline(pipeline)
    execute(
        source,
        """INSERT INTO types VALUES (1, -7, true, 0.1, 12345678901234567890123456789.123456789, '2024-02-29',
        '23:59:59.999999', '2024-02-29 12:00:00.000001', '2024-02-29 12:00:00.5+02',
        'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a": "\\u00e9\\n"}', '\\x00ff', '{1,NULL,3}', 'ß"''\\', 1e-20)""",
        "INSERT INTO types (id) VALUES (2)",
        "INSERT INTO types (id, r, b) VALUES (3, 'NaN', false), (4, '-Infinity', NULL)",
    )
    report = run_pipeline(pipeline)
    assert terms(report) == {"extracted": 4, "inserted": 4}
    found = rows(target, "SELECT * FROM types ORDER BY id")
    assert found[0][:8] == (
        1, -7, True, 0.1, Decimal("12345678901234567890123456789.123456789"), datetime(2024, 2, 29).date(),
        datetime(2024, 2, 29, 23, 59, 59, 999999).time(), datetime(2024, 2, 29, 12, 0, 0, 1),
    )  # fmt: skip
    assert found[0][8].astimezone(UTC) == datetime(2024, 2, 29, 10, 0, 0, 500000, tzinfo=UTC)
    assert found[0][9:12] == ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", '{"a": "é\\n"}', b"\x00\xff")
    assert found[0][12:] == ("{1,NULL,3}", "ß\"'\\", "0.00000000000000000001")
    assert found[1] == (2, *[None] * 14)
    assert str(found[2][3]) == "nan" and found[3][3] == float("-inf") and found[2][2] is False


def test_a_new_column_is_passed_over_until_the_contract_declares_it(source: Engine, target: Engine) -> None:
    run_pipeline(BOOKINGS)
    execute(
        source,
        "INSERT INTO bookings VALUES (1, 'A', 1)",
        "ALTER TABLE bookings ADD COLUMN meal text DEFAULT 'none', ALTER price TYPE numeric(10, 2)",
        "INSERT INTO bookings VALUES (2, 'B', 2.5, 'fish')",
    )
    assert terms(run_pipeline(BOOKINGS)) == {"extracted": 2, "inserted": 2}

    class WithMeal(BookingSchema):
        meal: str = pa.Field(nullable=True)

    execute(source, "UPDATE bookings SET meal = 'rice' WHERE id = 1")
    run_pipeline(replace(BOOKINGS, schema=WithMeal))
    assert rows(target, "SELECT id, price, meal FROM fct_bookings ORDER BY id") == [(1, 1.0, "rice"), (2, 2.5, None)]


def test_a_dropped_column_that_the_contract_wants_stops_the_run_and_loses_nothing(
    source: Engine, target: Engine
) -> None:
    run_pipeline(BOOKINGS)
    execute(source, "ALTER TABLE bookings DROP COLUMN seat", "INSERT INTO bookings VALUES (1, 5)")
    with pytest.raises(Exception, match="column 'seat' is missing"):
        run_pipeline(BOOKINGS)
    mended = replace(BOOKINGS, transform=lambda raw: raw.assign(seat=None))
    assert terms(run_pipeline(mended)) == {"extracted": 1, "inserted": 1}


def test_a_transaction_that_rolled_back_never_comes(source: Engine, target: Engine) -> None:
    run_pipeline(BOOKINGS)
    with source.connect() as connection:
        connection.execute(text("INSERT INTO bookings VALUES (1, 'A', 1)"))
        connection.rollback()
        with connection.begin():
            connection.execute(text("INSERT INTO bookings VALUES (2, 'B', 1)"))
            with contextlib.suppress(RuntimeError), connection.begin_nested():
                connection.execute(text("INSERT INTO bookings VALUES (3, 'C', 1)"))
                raise RuntimeError
    assert terms(run_pipeline(BOOKINGS)) == {"extracted": 1, "inserted": 1}
    assert rows(target) == [(2, "B", 1.0)]


@pytest.mark.slow
def test_a_commit_that_does_not_wait_for_the_disk_is_read(source: Engine, target: Engine) -> None:
    run_pipeline(BOOKINGS)
    with source.begin() as connection:
        connection.execute(text("SET LOCAL synchronous_commit = off"))
        connection.execute(text("INSERT INTO bookings VALUES (1, 'A', 1)"))
    assert terms(run_pipeline(BOOKINGS)) == {"extracted": 1, "inserted": 1}


def test_a_chunk_ends_with_a_transaction_and_the_run_goes_on_with_the_next(source: Engine, target: Engine) -> None:
    pipeline = replace(BOOKINGS, extract=LogExtract("source", "bookings", chunk=10))
    run_pipeline(pipeline)
    for start in range(0, 40, 8):
        execute(source, f"INSERT INTO bookings SELECT g, 'A', 1 FROM generate_series({start}, {start + 7}) g")
    report = run_pipeline(pipeline)
    assert [window.entry.counts.inserted for window in report.windows] == [8, 8, 8, 8, 8, 0]
    positions = [window.entry.position for window in report.windows]
    assert len(set(positions)) == 6
    assert rows(target, "SELECT count(*) FROM fct_bookings") == [(40,)]


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


def test_a_bad_change_is_a_dead_letter_and_its_row_keeps_its_last_good_version(source: Engine, target: Engine) -> None:
    execute(source, "INSERT INTO bookings VALUES (1, 'A', 1)")
    run_pipeline(BOOKINGS)
    execute(source, "UPDATE bookings SET price = -5 WHERE id = 1")
    assert terms(run_pipeline(BOOKINGS)) == {"extracted": 1, "rejected": 1}
    assert rows(target) == [(1, "A", 1.0)]
    [letter] = rows(target, "SELECT status, record FROM etl_dead_letters")
    assert letter[0] == "open" and '"etl_operation": "update"' in letter[1]
    execute(source, "DELETE FROM bookings WHERE id = 1")
    assert terms(run_pipeline(BOOKINGS)) == {"extracted": 1, "deleted": 1}
    assert rows(target, "SELECT status FROM etl_dead_letters") == [("closed",)]


@pytest.mark.slow
def test_a_transform_that_cannot_stand_the_nulls_of_a_deleted_row_still_lets_it_be_deleted(
    source: Engine, target: Engine
) -> None:
    def strict(raw: pd.DataFrame) -> pd.DataFrame:
        return raw[raw["seat"].map(lambda seat: len(seat) > 0)]

    pipeline = replace(BOOKINGS, transform=strict)
    execute(source, "INSERT INTO bookings VALUES (1, 'A', 1), (2, 'B', 1)")
    run_pipeline(pipeline)
    execute(source, "DELETE FROM bookings WHERE id = 1")
    assert terms(run_pipeline(pipeline)) == {"extracted": 1, "deleted": 1}


@pytest.mark.slow
def test_a_key_that_the_transform_makes_is_made_for_deletes_too(source: Engine, target: Engine) -> None:
    pipeline = replace(BOOKINGS, transform=lambda raw: raw.assign(id=raw["id"] + 1000))
    execute(source, "INSERT INTO bookings VALUES (1, 'A', 1), (2, 'B', 1)")
    run_pipeline(pipeline)
    execute(source, "DELETE FROM bookings WHERE id = 1")
    run_pipeline(pipeline)
    assert rows(target, "SELECT id FROM fct_bookings") == [(1002,)]


def test_a_new_snapshot_deletes_what_is_gone_and_writes_only_what_differs(source: Engine, target: Engine) -> None:
    execute(source, "INSERT INTO bookings SELECT g, 'A', 1 FROM generate_series(1, 10) g")
    run_pipeline(BOOKINGS)
    execute(source, "DELETE FROM bookings WHERE id > 8", "UPDATE bookings SET seat = 'B' WHERE id = 1")
    report = run_pipeline(BOOKINGS, full_refresh=True)
    assert terms(report) == {"extracted": 8, "added": 2, "updated": 1, "deleted": 2, "unchanged": 7}
    assert rows(target) == rows(source, "SELECT * FROM bookings ORDER BY id")


@pytest.mark.slow
def test_a_new_snapshot_that_would_delete_too_much_is_refused(source: Engine, target: Engine) -> None:
    execute(source, "INSERT INTO bookings SELECT g, 'A', 1 FROM generate_series(1, 10) g")
    run_pipeline(BOOKINGS)
    execute(source, "DELETE FROM bookings WHERE id > 4")
    with pytest.raises(GuardRefused, match="max_shrink=50%"):
        run_pipeline(BOOKINGS, full_refresh=True)
    assert rows(target, "SELECT count(*) FROM fct_bookings") == [(10,)]
    with pytest.raises(SourceError, match="full_refresh"):
        run_pipeline(BOOKINGS)


@pytest.mark.slow
def test_a_slot_that_somebody_dropped_is_a_clear_error_and_a_new_snapshot_mends_it(
    source: Engine, target: Engine
) -> None:
    execute(source, "INSERT INTO bookings VALUES (1, 'A', 1), (2, 'B', 1)")
    run_pipeline(BOOKINGS)
    drop_slots(source)
    execute(source, "DELETE FROM bookings WHERE id = 1")
    with pytest.raises(SourceError, match=r"slot .tidegate_bookings_\w{8}. is not there.*full_refresh"):
        run_pipeline(BOOKINGS)
    run_pipeline(BOOKINGS, full_refresh=True)
    assert rows(target) == [(2, "B", 1.0)]


@pytest.mark.slow
def test_a_target_older_than_the_slot_is_a_clear_error(source: Engine, target: Engine) -> None:
    run_pipeline(BOOKINGS)
    execute(target, "CREATE TABLE saved AS SELECT * FROM etl_watermarks")
    execute(source, "INSERT INTO bookings VALUES (1, 'A', 1)")
    run_pipeline(BOOKINGS)
    execute(target, "UPDATE etl_watermarks SET position = (SELECT position FROM saved)")
    with pytest.raises(SourceError, match="the target is older than that, was it restored"):
        run_pipeline(BOOKINGS)


@pytest.mark.slow
def test_a_slot_far_behind_raises_the_alert_event(
    source: Engine, target: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = replace(BOOKINGS, extract=LogExtract("source", "bookings", max_lag=1))
    run_pipeline(pipeline)
    execute(source, "INSERT INTO bookings VALUES (1, 'A', 1)")
    with caplog.at_level("INFO", logger="tidegate"):
        run_pipeline(replace(pipeline, transform=writes_once(source, "INSERT INTO bookings VALUES (2, 'B', 1)")))
    assert any(record.levelname == "WARNING" and "bytes of log" in record.message for record in caplog.records)


@pytest.mark.slow
def test_two_pipelines_on_one_table_do_not_share_a_slot(source: Engine, target: Engine) -> None:
    other = replace(BOOKINGS, name="others", load=Upsert("target", "others", key=["id"]))
    execute(source, "INSERT INTO bookings VALUES (1, 'A', 1)")
    for pipeline in (BOOKINGS, other):
        run_pipeline(pipeline)
    execute(source, "INSERT INTO bookings VALUES (2, 'B', 1)")
    assert [terms(run_pipeline(pipeline)) for pipeline in (BOOKINGS, other)] == [{"extracted": 1, "inserted": 1}] * 2


def test_what_the_feed_made_at_the_source_can_be_taken_away(source: Engine, target: Engine) -> None:
    run_pipeline(BOOKINGS)
    assert slot(source) is not None
    remove_feed(BOOKINGS)
    assert slot(source) is None
    assert rows(source, "SELECT * FROM pg_publication") == []
    remove_feed(BOOKINGS)


@pytest.mark.slow
def test_a_partitioned_table_is_followed_by_its_own_name(postgresql: Databases) -> None:
    execute(
        postgresql.source,
        "CREATE TABLE bookings (id bigint PRIMARY KEY, seat text, price float8) PARTITION BY RANGE (id)",
        "CREATE TABLE low PARTITION OF bookings FOR VALUES FROM (0) TO (100)",
        "CREATE TABLE high PARTITION OF bookings FOR VALUES FROM (100) TO (200)",
        "INSERT INTO bookings VALUES (1, 'A', 1)",
    )
    try:
        run_pipeline(BOOKINGS)
        execute(
            postgresql.source, "INSERT INTO bookings VALUES (150, 'B', 1)", "UPDATE bookings SET id = 160 WHERE id = 1"
        )
        run_pipeline(BOOKINGS)
        assert rows(postgresql.target) == [(150, "B", 1.0), (160, "A", 1.0)]
    finally:
        drop_slots(postgresql.source)


def test_names_that_need_quotes_are_quoted(postgresql: Databases) -> None:
    execute(
        postgresql.source,
        'CREATE SCHEMA "S 1"',
        'CREATE TABLE "S 1"."Book""ings" ("Id" bigint PRIMARY KEY, "se at" text, price float8)',
        'INSERT INTO "S 1"."Book""ings" VALUES (1, \'A\', 1)',
    )
    pipeline = replace(
        BOOKINGS,
        extract=LogExtract("source", 'S 1.Book"ings'),
        transform=lambda raw: raw.rename(columns={"Id": "id", "se at": "seat"}),
    )
    try:
        run_pipeline(pipeline)
        execute(
            postgresql.source, 'UPDATE "S 1"."Book""ings" SET "Id" = 2', 'INSERT INTO "S 1"."Book""ings" VALUES (3)'
        )
        run_pipeline(pipeline)
        assert rows(postgresql.target) == [(2, "A", 1.0), (3, None, None)]
    finally:
        drop_slots(postgresql.source)


@pytest.mark.parametrize(
    ("table", "extract", "message"),
    [
        ("CREATE TABLE t (id int)", LogExtract("source", "t"), "no primary key"),
        ("CREATE TABLE t (id int)", LogExtract("source", "t", key=["id"]), "REPLICA IDENTITY FULL"),
        ("CREATE TABLE t (id int PRIMARY KEY, k int)", LogExtract("source", "t", key=["k"]), "only its primary key"),
        ("CREATE VIEW t AS SELECT 1 AS id", LogExtract("source", "t"), "no table"),
        ("SELECT 1", LogExtract("source", "t"), "There is no table 't'"),
        ("CREATE TABLE t (id int PRIMARY KEY)", LogExtract("source", "t", publication="p"), "does not hold the table"),
    ],
    ids=["no key", "no identity", "another key", "a view", "no table", "not published"],
)
def test_a_table_that_cannot_be_followed_is_refused_before_anything_is_made(
    postgresql: Databases, table: str, extract: LogExtract, message: str
) -> None:
    execute(postgresql.source, table)
    with pytest.raises((ConfigError, SourceError), match=message):
        run_pipeline(replace(BOOKINGS, extract=extract))
    assert slot(postgresql.source) is None
    assert rows(postgresql.source, "SELECT * FROM pg_publication") == []


def test_a_range_is_refused_with_the_way_to_a_new_snapshot(source: Engine) -> None:
    with pytest.raises(ConfigError, match="full-refresh"):
        run_pipeline(BOOKINGS, datetime(2026, 1, 1, tzinfo=UTC))


def test_replace_is_refused_for_a_feed(source: Engine) -> None:
    with pytest.raises(ConfigError, match="Load it with Upsert"):
        run_pipeline(replace(BOOKINGS, load=Replace("target", "fct_bookings", key=["id"])))


@pytest.mark.slow
def test_a_run_ends_although_the_source_is_written_to_faster_than_it_is_read(source: Engine, target: Engine) -> None:
    run_pipeline(BOOKINGS)
    numbers = iter(range(10_000))

    def busy(raw: pd.DataFrame) -> pd.DataFrame:
        for _ in range(10):
            execute(source, f"INSERT INTO bookings VALUES ({next(numbers)}, 'A', 1)")
        return raw

    busy(pd.DataFrame())
    report = run_pipeline(replace(BOOKINGS, extract=LogExtract("source", "bookings", chunk=5), transform=busy))
    assert report.counts.inserted >= 10
    assert len(report.windows) < 20


@pytest.mark.slow
def test_changes_come_by_a_publication_of_any_name(source: Engine, target: Engine) -> None:
    # pgoutput takes names for identifiers: without quotes this one is another's, and nothing would come.
    execute(source, 'CREATE PUBLICATION "Shop\'s, own" FOR TABLE bookings', "INSERT INTO bookings VALUES (1, 'A', 1)")
    pipeline = replace(BOOKINGS, extract=LogExtract("source", "bookings", publication="Shop's, own"))
    run_pipeline(pipeline)
    execute(source, "INSERT INTO bookings VALUES (2, 'B', 2)")
    run_pipeline(pipeline)
    assert rows(target) == [(1, "A", 1.0), (2, "B", 2.0)]
