"""SQLite's bound: nothing older appears once it is told, because every writer of its moment has ended."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, make_url

from tasks import connections
from tasks.errors import ConfigError, SourceUnavailable
from tasks.extract.table import TableExtract
from tasks.pipeline import run_pipeline
from tasks.window import Window
from tests.conftest import Databases
from tests.orders import ORDERS, loaded, order, put

EXTRACT = TableExtract("source", "orders", cursor="updated_at")
SECOND = timedelta(seconds=1)


@pytest.fixture(params=["wal", "delete"])
def source(request: pytest.FixtureRequest, sqlite: Databases) -> Path:
    """The source's file, with a table in it, in both ways SQLite keeps a journal."""
    put(sqlite.source, [order(0)])
    file = Path(str(make_url(sqlite.source_url).database))
    with closing(sqlite3.connect(file)) as connection:
        (mode,) = connection.execute(f"PRAGMA journal_mode = {request.param}").fetchone()
    assert mode == request.param
    return file


def writer(source: Path) -> sqlite3.Connection:
    """Another program's connection, which begins and commits when it is told to."""
    return sqlite3.connect(source, isolation_level=None, check_same_thread=False)


def write_now(connection: sqlite3.Connection, number: int) -> datetime:
    """A row with the time of this moment; which that is."""
    now = datetime.now(UTC)
    stamp = now.replace(tzinfo=None).isoformat(" ")
    connection.execute("INSERT INTO orders VALUES (?, 'late', 1.0, ?)", (number, stamp))
    return now


@pytest.fixture
def asked_for_lock(sqlite: Databases) -> threading.Event:
    """Set when our own side asks for the write lock."""
    asked = threading.Event()

    @event.listens_for(sqlite.source, "before_cursor_execute")
    def _note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement == "BEGIN IMMEDIATE":
            asked.set()

    return asked


def test_a_row_being_written_while_a_run_begins_is_not_lost(
    sqlite: Databases, source: Path, asked_for_lock: threading.Event
) -> None:
    """The run waits for the writer, and reads what it wrote."""
    with closing(writer(source)) as late, ThreadPoolExecutor(1) as threads:
        late.execute("BEGIN IMMEDIATE")
        write_now(late, 1)
        # SQLite's own clock is cut to the second: the row is older than the bound one second on.
        running = threads.submit(_run_a_second_later)
        assert asked_for_lock.wait(30)
        assert not running.done()
        late.execute("COMMIT")
        running.result(30)
    assert [row["id"] for row in loaded(sqlite.target)] == [0, 1]


def _run_a_second_later() -> None:
    begun = datetime.now(UTC).replace(microsecond=0)
    while datetime.now(UTC).replace(microsecond=0) == begun:
        pass
    run_pipeline(ORDERS)


def test_the_bound_is_read_before_the_lock_is_had(
    sqlite: Databases, source: Path, asked_for_lock: threading.Event
) -> None:
    """Who comes second may take a later time, and no earlier one."""
    with closing(writer(source)) as late, ThreadPoolExecutor(1) as threads:
        late.execute("BEGIN IMMEDIATE")
        asked = threads.submit(EXTRACT.bound)
        assert asked_for_lock.wait(30)
        now = datetime.now(UTC)
        write_now(late, 1)
        late.execute("COMMIT")
        bound = asked.result(30)
    assert bound is not None and bound <= now


def test_a_writer_that_does_not_end_makes_the_source_unavailable(
    sqlite: Databases, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_SOURCE_URL", f"{sqlite.source_url}?timeout=0.2")
    with closing(writer(source)) as stuck:
        stuck.execute("BEGIN IMMEDIATE")
        write_now(stuck, 1)
        with pytest.raises(SourceUnavailable, match="database is locked"):
            EXTRACT.bound()
    assert EXTRACT.bound() is not None


def test_a_file_that_cannot_be_locked_needs_a_lag(
    sqlite: Databases, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_SOURCE_URL", f"sqlite:///file:{source}?mode=ro&uri=true")
    with pytest.raises(ConfigError, match=r"cannot be locked.*declare a `lag`"):
        EXTRACT.bound()
    bound = TableExtract("source", "orders", cursor="updated_at", lag=SECOND).bound()
    assert bound is not None and bound <= datetime.now(UTC) - SECOND
    assert sum(batch.num_rows for batch in EXTRACT.batches(Window())) == 1
    connections.dispose()


def test_asking_for_the_bound_writes_nothing(sqlite: Databases, source: Path) -> None:
    before = source.read_bytes()
    EXTRACT.bound()
    assert source.read_bytes() == before


def test_a_reader_holds_the_bound_back_as_little_as_the_bound_holds_the_reader(sqlite: Databases, source: Path) -> None:
    reading = EXTRACT.batches(Window())
    next(reading)
    assert EXTRACT.bound() is not None
    assert list(reading) == []
