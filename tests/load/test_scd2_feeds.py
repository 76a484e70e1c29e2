"""`Scd2` fed by logs and triggers: a version begins when its change was made or committed at the source."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from tasks.dialects import dialect_of
from tasks.extract.debezium_events import DebeziumEvents
from tasks.extract.log import LogExtract
from tasks.load.scd2 import Scd2
from tasks.pipeline import Pipeline, run_pipeline
from tests.conftest import Databases
from tests.extract.envelopes import event, row
from tests.extract.followed import BOOKINGS, TABLE, execute, session, terms
from tests.extract.test_log import drop_slots

TRIGGERED = replace(BOOKINGS, load=Scd2("target", "dim_bookings", key=["id"]))
LOGGED = replace(TRIGGERED, extract=LogExtract("source", "bookings"))

Version = tuple[int, str | None, datetime, datetime | None]


@pytest.fixture
def logged(postgresql: Databases) -> Iterator[Databases]:
    """A PostgreSQL source whose slots go with the test."""
    yield postgresql
    drop_slots(postgresql.source)


def versions(target: Engine) -> list[Version]:
    """Key, seat, from and to, by key and time."""
    query = text("SELECT id, seat, valid_from, valid_to FROM dim_bookings ORDER BY id, valid_from")
    with target.connect() as connection:
        return [(found.id, found.seat, instant(found.valid_from), instant(found.valid_to))
                for found in connection.execute(query)]  # fmt: skip


def instant(value: Any) -> Any:
    if value is None:
        return None
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    return at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC)


def clock(engine: Engine) -> datetime:
    """The source's, to the millisecond that SQLite's triggers write down."""
    with engine.connect() as connection:
        now = dialect_of(engine).clock(connection)
    return now.replace(microsecond=now.microsecond // 1_000 * 1_000)


@contextlib.contextmanager
def timed(engine: Engine) -> Iterator[list[datetime]]:
    """The source's clock before and after the block, and no return before its shortest tick has passed.

    SQLite's triggers tell the time in milliseconds: what is changed twice within one has no version between.
    """
    times = [clock(engine)]
    yield times
    with engine.connect() as connection:
        times.append(dialect_of(engine).clock(connection))
        while dialect_of(engine).clock(connection) < times[1] + timedelta(milliseconds=2):
            pass


def assert_dated_by_changes(pipeline: Pipeline, databases: Databases) -> None:
    """A row there at the snapshot, updated, deleted, and inserted again; each while its own two times were read."""
    source = databases.source
    execute(source, TABLE, "INSERT INTO bookings VALUES (1, 'A', 1), (2, 'Z', 1)")
    with timed(source) as snapshot:
        run_pipeline(pipeline)
    statements = ["UPDATE bookings SET seat = 'B' WHERE id = 1", "DELETE FROM bookings WHERE id = 1",
                  "INSERT INTO bookings VALUES (1, 'B', 1)"]  # fmt: skip
    told = []
    for statement in statements:
        with timed(source) as times:
            execute(source, statement)
        told.append(times)
    run_pipeline(pipeline)
    mine, others = versions(databases.target)[:3], versions(databases.target)[3:]
    assert [seat for _, seat, _, _ in mine] == ["A", "B", "B"]
    for at, (before, after) in zip(
        [mine[0][2], mine[1][2], mine[1][3], mine[2][2]], [snapshot, *told], strict=True
    ):  # fmt: skip
        assert at is not None and before <= at <= after
    assert (mine[0][3], mine[2][3]) == (mine[1][2], None)
    assert [(seat, ends) for _, seat, _, ends in others] == [("Z", None)]


def test_a_version_of_a_log_begins_with_its_commit(logged: Databases) -> None:
    assert_dated_by_changes(LOGGED, logged)


def test_a_version_of_triggers_begins_with_its_change(sources: Databases) -> None:
    assert_dated_by_changes(TRIGGERED, sources)


def test_a_change_that_a_snapshot_did_not_show_comes_after_it(postgresql: Databases) -> None:
    """It was made before the snapshot was taken, and committed after: the trigger tells the former."""
    source = postgresql.source
    execute(source, TABLE, "INSERT INTO bookings VALUES (1, 'A', 1)")
    run_pipeline(TRIGGERED)
    with session(source) as other:
        other.execute(text("UPDATE bookings SET seat = 'B'"))
        refreshed = clock(source)
        run_pipeline(TRIGGERED, full_refresh=True)
        other.commit()
    run_pipeline(TRIGGERED)
    [(_, first, begins, ends), (_, second, turned, _)] = versions(postgresql.target)
    assert (first, second) == ("A", "B")
    assert ends == turned
    assert begins < refreshed <= turned < clock(source)


def test_a_truncate_ends_every_version_also_of_what_comes_again(logged: Databases) -> None:
    """Two of them in one chunk: what was there between the two has a version of its own."""
    source = logged.source
    execute(source, TABLE, "INSERT INTO bookings VALUES (1, 'A', 1), (2, 'B', 1)")
    run_pipeline(LOGGED)
    execute(source, "TRUNCATE bookings")
    execute(source, "INSERT INTO bookings VALUES (1, 'A', 1), (3, 'C', 1)")
    execute(source, "TRUNCATE bookings")
    execute(source, "INSERT INTO bookings VALUES (3, 'C', 1)")
    counts = run_pipeline(LOGGED).counts
    assert (counts.extracted, counts.added, counts.deleted, counts.inserted, counts.updated) == (3, 4, 4, 1, 2)
    found = versions(logged.target)
    assert [(key, seat, ends is None) for key, seat, _, ends in found] == [
        (1, "A", False), (1, "A", False), (2, "B", False), (3, "C", False), (3, "C", True)
    ]  # fmt: skip
    first, second = found[0][3], found[1][3]
    assert found[2][3] == first and found[3][3] == second
    assert first is not None and second is not None and first < found[1][2] < second < found[4][2]


def test_a_truncate_and_what_it_replaces_in_one_transaction_leave_no_gap(logged: Databases) -> None:
    source = logged.source
    execute(source, TABLE, "INSERT INTO bookings VALUES (1, 'A', 1), (2, 'B', 1), (3, 'C', 1)")
    run_pipeline(LOGGED)
    with source.begin() as connection:
        for statement in (
            "INSERT INTO bookings VALUES (4, 'D', 1)",
            "TRUNCATE bookings",
            "INSERT INTO bookings VALUES (1, 'A', 1), (2, 'X', 1)",
        ):
            connection.execute(text(statement))
    counts = run_pipeline(LOGGED).counts
    assert (counts.extracted, counts.added, counts.deleted, counts.deduplicated) == (3, 2, 2, 1)
    found = versions(logged.target)
    assert [(key, seat, ends is None) for key, seat, _, ends in found] == [
        (1, "A", True), (2, "B", False), (2, "X", True), (3, "C", False)
    ]  # fmt: skip
    assert found[1][3] == found[2][2] == found[3][3]


def test_the_rows_of_a_snapshot_among_events_have_the_time_at_which_they_were_read(sqlite: Databases) -> None:
    seconds = 1_700_000_000
    events = [
        event("r", row(1), lsn=1, ts_ms=seconds * 1_000, ts_us=seconds * 1_000_000),
        event("r", row(2), lsn=1, ts_ms=seconds * 1_000, ts_us=seconds * 1_000_000),
        event("u", row(1, "B"), row(1), lsn=5, ts_ms=(seconds + 7) * 1_000, ts_us=(seconds + 7) * 1_000_000),
        event("d", None, row(2), lsn=6, ts_ms=(seconds + 9) * 1_000, ts_us=(seconds + 9) * 1_000_000),
    ]
    pipeline = replace(TRIGGERED, extract=DebeziumEvents(events=events, key=["id"]))
    assert terms(run_pipeline(pipeline)) == {"extracted": 4, "inserted": 2, "updated": 1, "deleted": 1}
    first, second, third = (datetime.fromtimestamp(seconds + more, UTC) for more in (0, 7, 9))
    assert versions(sqlite.target) == [
        (1, "A", first, second), (1, "B", second, None), (2, "A", first, third)
    ]  # fmt: skip
