"""A full read by key: in chunks, all of one snapshot, every row once, and on PostgreSQL across a broken connection."""

import random
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import Engine, NullPool, bindparam, create_engine, text

from tasks.connections import READ_ONLY_NAME
from tasks.errors import ConfigError, SourceError, SourceUnavailable
from tasks.extract.table import TableExtract
from tasks.window import Window
from tests.conftest import Databases
from tests.variants import slow_but

BY_ID = TableExtract("source", "big", key=["id"])

NUMBERS = {
    "postgresql": "SELECT n FROM generate_series(1, {rows}) AS n",
    "mariadb": "SELECT seq AS n FROM seq_1_to_{rows}",
    "sqlite": "WITH RECURSIVE up(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM up WHERE n < {rows}) SELECT n FROM up",
}


def write(source: Engine, *statements: str) -> None:
    with source.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def fill(databases: Databases, rows: int, filler: str = "'x'", key: str = "PRIMARY KEY") -> None:
    """Rows numbered from 1."""
    numbers = NUMBERS[databases.kind].format(rows=rows)
    write(
        databases.source,
        f"CREATE TABLE big (id integer {key}, filler text)",
        f"INSERT INTO big SELECT n, {filler} FROM ({numbers}) AS numbers WHERE n BETWEEN 1 AND {rows}",
    )


def ids(batches: Iterator[pa.Table]) -> list[int]:
    return [number for batch in batches for number in batch.column("id").to_pylist()]


# -- chunks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [0, 1, 50_000, 100_001])
def test_every_row_is_read_once_in_the_order_of_the_key(sources: Databases, rows: int) -> None:
    """Also where the last chunk is full, and where there is none."""
    fill(sources, rows)
    assert ids(BY_ID.batches(Window())) == list(range(1, rows + 1))


def test_chunks_have_the_columns_of_the_table_and_nothing_else(sources: Databases) -> None:
    fill(sources, 3)
    (by_key,) = BY_ID.batches(Window())
    (whole,) = TableExtract("source", "big").batches(Window())
    assert by_key == whole


def test_a_query_is_read_by_key_too(sources: Databases) -> None:
    fill(sources, 60_000)
    extract = TableExtract("source", query="SELECT id, filler FROM big WHERE id % 2 = 0", key=["id"])
    assert ids(extract.batches(Window())) == list(range(2, 60_001, 2))


KEYS: dict[str, tuple[dict[str, str], list[Any]]] = {
    "numbers": ({"*": "bigint"}, [-(2**63), -1, 0, 1, 2**63 - 1]),
    "texts": (
        {"postgresql": "text", "sqlite": "text", "mariadb": "varchar(50)"},
        ["", "'", "a", 'B"', "\\", "%s", "%%", ":x", "ü", "🌊", "z z"],
    ),
    "times": (
        {"postgresql": "timestamptz", "mariadb": "datetime(6)"},
        [datetime(2026, 1, 1, tzinfo=UTC) + n * timedelta(microseconds=1) for n in range(4)],
    ),
    "decimals": (
        {"postgresql": "numeric", "mariadb": "decimal(40,20)"},
        [Decimal(n) / 7 // Decimal("1E-18") * Decimal("1E-18") for n in range(-3, 4)],
    ),
    "identifiers": ({"postgresql": "uuid", "mariadb": "uuid"}, [str(uuid.UUID(int=n << 90)) for n in range(1, 5)]),
    "bytes": ({"postgresql": "bytea", "mariadb": "varbinary(20)", "sqlite": "blob"}, [b"", b"\x00", b"'\\", b"\xff"]),
}


@pytest.mark.parametrize("kind", slow_but(["texts", "times"], KEYS.keys()))
def test_a_key_of_two_columns_leads_through_every_row(sources: Databases, kind: str) -> None:
    """More rows than a chunk holds, so that chunks end between equal firsts; in what order, the database says."""
    types, values = KEYS[kind]
    declared = types.get(sources.kind, types.get("*"))
    if declared is None:
        pytest.skip(f"{sources.kind} has no such type")
    write(sources.source, f"CREATE TABLE pairs (a {declared} NOT NULL, b integer NOT NULL, PRIMARY KEY (a, b))")
    each = 120_000 // len(values) if sources.kind != "mariadb" else 45_000 // len(values)
    numbers = NUMBERS[sources.kind].format(rows=each)
    with sources.source.begin() as connection:
        insert = text(f"INSERT INTO pairs SELECT :a, n FROM ({numbers}) AS numbers")
        if sources.kind == "postgresql":
            insert = text(f"INSERT INTO pairs SELECT CAST(:a AS {declared}), n FROM ({numbers}) AS numbers")
        for value in values:
            naive = value.replace(tzinfo=None) if isinstance(value, datetime) and sources.kind == "mariadb" else value
            connection.execute(insert.bindparams(bindparam("a", naive)))
    batches = list(TableExtract("source", "pairs", key=["a", "b"]).batches(Window()))
    read = [(row["a"], row["b"]) for batch in batches for row in batch.to_pylist()]
    assert len(batches) > 1
    assert len(read) == len(set(read)) == each * len(values)


def test_chunks_find_their_place_by_the_index(postgresql: Databases) -> None:
    """An OFFSET, or a key that no index finds, would make the last chunk as slow as all before it."""
    fill(postgresql, 200_000)
    write(postgresql.source, "ANALYZE big")
    assert len(ids(BY_ID.batches(Window()))) == 200_000
    statement = text("SELECT idx_tup_read FROM pg_stat_user_indexes WHERE relname = 'big'")
    deadline = datetime.now(UTC) + timedelta(seconds=20)
    read = 0
    while read < 200_000 and datetime.now(UTC) < deadline:
        # Statistics come when a session has ended.
        with postgresql.source.begin() as connection:
            read = connection.execute(statement).scalar_one()
    assert 200_000 <= read <= 200_100


# -- keys that are none ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", ["NULL", "7"], ids=["null", "twice"])
def test_a_key_that_does_not_lead_through_every_row_is_refused(sources: Databases, rows: str) -> None:
    """Never silently: a row would be missing."""
    fill(sources, 50_000, key="NULL")
    # Enough of them that some lie beyond the end of a chunk.
    write(sources.source, f"INSERT INTO big SELECT {rows}, filler FROM big")
    with pytest.raises(SourceError, match=r"reading by the key \(id\) gave .* of 100,000 rows\. A key is unique"):
        list(BY_ID.batches(Window()))


@pytest.mark.mariadb
def test_an_enumeration_is_counted_since_it_sorts_otherwise_than_it_compares(mariadb: Databases) -> None:
    fill(mariadb, 45_000)
    write(mariadb.source, "CREATE TABLE sizes (size enum('small', 'big') NOT NULL, id integer, PRIMARY KEY (size, id))",
          "INSERT INTO sizes SELECT IF(id % 2, 'small', 'big'), id FROM big")  # fmt: skip
    with pytest.raises(SourceError, match=r"reading by the key \(size, id\) gave"):
        list(TableExtract("source", "sizes", key=["size", "id"]).batches(Window()))


@pytest.mark.mariadb
def test_a_table_without_snapshots_is_not_read_in_chunks(mariadb: Databases) -> None:
    write(mariadb.source, "CREATE TABLE old (id integer PRIMARY KEY) ENGINE=MyISAM")
    with pytest.raises(SourceError, match="is kept by MyISAM, which has no snapshots"):
        list(TableExtract("source", "old", key=["id"]).batches(Window()))
    assert list(TableExtract("source", "old").batches(Window())) is not None


def test_a_key_that_is_not_there_is_named_with_the_columns(sources: Databases) -> None:
    fill(sources, 1)
    with pytest.raises(SourceError, match="no column 'number' to be in the key; the columns are id, filler"):
        list(TableExtract("source", "big", key=["number"]).batches(Window()))


def test_a_key_is_a_list_and_for_reading_everything() -> None:
    with pytest.raises(ConfigError, match=r"a key is a list of columns, got 'id'. Write \['id'\]"):
        TableExtract("source", "big", key="id")
    with pytest.raises(ConfigError, match="a key cuts a read of everything into chunks, and the cursor 'at' reads"):
        TableExtract("source", "big", "at", key=["id"])


# -- one snapshot ------------------------------------------------------------------------------------------------------


def change_while_reading(databases: Databases, reading: Iterator[pa.Table]) -> list[dict[str, Any]]:
    """What is read when every row changes, some go and some come after the first batch."""
    first = next(reading)
    source = create_engine(databases.source_url, poolclass=NullPool)
    write(source, "UPDATE big SET filler = 'changed'", "DELETE FROM big WHERE id % 3 = 0",
          "INSERT INTO big VALUES (-1, 'new'), (10000000, 'new')")  # fmt: skip
    return [row for batch in [first, *reading] for row in batch.to_pylist()]


@pytest.mark.parametrize("key", [["id"], []], ids=["by key", "whole"])
def test_all_chunks_are_of_one_snapshot(sources: Databases, key: list[str]) -> None:
    fill(sources, 120_000)
    if sources.kind == "sqlite":
        # With a rollback journal nobody could write meanwhile.
        with closing(sqlite3.connect(str(sources.source.url.database))) as connection:
            connection.execute("PRAGMA journal_mode = wal")
    read = change_while_reading(sources, TableExtract("source", "big", key=key).batches(Window()))
    assert sorted(row["id"] for row in read) == list(range(1, 120_001))
    assert {row["filler"] for row in read} == {"x"}


def test_with_a_rollback_journal_a_writer_waits_for_the_reader(sqlite: Databases) -> None:
    fill(sqlite, 60_000)
    reading = BY_ID.batches(Window())
    first = next(reading)
    impatient = create_engine(sqlite.source_url, poolclass=NullPool, connect_args={"timeout": 0})
    with pytest.raises(Exception, match="database is locked"):
        write(impatient, "DELETE FROM big")
    assert first.num_rows + sum(batch.num_rows for batch in reading) == 60_000
    write(impatient, "DELETE FROM big")


# -- a connection that breaks ------------------------------------------------------------------------------------------

OURS = f"datname = current_database() AND application_name = '{READ_ONLY_NAME}'"
# The session that keeps the snapshot is the oldest.
READER = f"pid <> (SELECT pid FROM pg_stat_activity WHERE {OURS} ORDER BY backend_start LIMIT 1)"


def cut_off(databases: Databases, which: str) -> int:
    """End our reading sessions that fit `which`, and wait until they are gone; how many there were."""
    patient = {"options": "-c statement_timeout=0"}
    other = create_engine(databases.source_url, poolclass=NullPool, connect_args=patient)
    with other.connect() as connection:
        ended = connection.execute(
            text(f"SELECT count(pg_terminate_backend(pid, 30000)) FROM pg_stat_activity WHERE {OURS} AND {which}")
        ).scalar_one()
    return int(ended)


def test_reading_goes_on_behind_the_last_key_when_its_connection_breaks(postgresql: Databases) -> None:
    """After every fifth batch: no key is read twice or left out, and no later change shows."""
    rows = 200_000
    fill(postgresql, rows, filler="repeat('x', 100)")
    reading = BY_ID.batches(Window())
    read = [next(reading)]
    write(postgresql.source, "UPDATE big SET filler = 'changed'", "DELETE FROM big WHERE id % 3 = 0",
          "INSERT INTO big VALUES (-1, 'new'), (10000000, 'new')")  # fmt: skip
    broken = 0
    for batch in reading:
        read.append(batch)
        if len(read) % 5 == 0:
            broken += cut_off(postgresql, READER)
    rows_read = pa.concat_tables(read)
    assert broken >= 2
    assert rows_read.column("id").to_pylist() == list(range(1, rows + 1))
    assert set(rows_read.column("filler").to_pylist()) == {"x" * 100}


def test_random_breaks_lose_and_double_nothing(postgresql: Databases) -> None:
    rows = 150_000
    fill(postgresql, rows, filler="repeat('x', 60)")
    draw = random.Random(7)
    extract = TableExtract("source", query="SELECT filler, id FROM big", key=["id"])
    read: list[int] = []
    for batch in extract.batches(Window()):
        read += batch.column("id").to_pylist()
        if draw.random() < 0.4:
            cut_off(postgresql, READER)
    assert read == list(range(1, rows + 1))


def test_when_the_snapshot_is_gone_too_the_source_is_unavailable(postgresql: Databases) -> None:
    fill(postgresql, 200_000, filler="repeat('x', 100)")
    reading = BY_ID.batches(Window())
    next(reading)
    assert cut_off(postgresql, "true") == 2
    with pytest.raises(SourceUnavailable, match="and with the last one the snapshot"):
        list(reading)


def test_a_connection_that_breaks_again_at_once_is_given_up(postgresql: Databases) -> None:
    """Another attempt has pauses; this loop has none, and would go on for ever."""
    fill(postgresql, 200_000, filler="repeat('x', 100)")
    reading = BY_ID.batches(Window())
    next(reading)
    write(postgresql.source, f"ALTER DATABASE {postgresql.source.url.database} SET statement_timeout = '1ms'")
    cut_off(postgresql, READER)
    with pytest.raises(SourceUnavailable, match="statement timeout"):
        list(reading)


@pytest.mark.mariadb
def test_elsewhere_a_broken_connection_starts_over(mariadb: Databases) -> None:
    """As a new attempt, with a snapshot of its own."""
    fill(mariadb, 60_000)
    reading = BY_ID.batches(Window())
    next(reading)
    with create_engine(mariadb.source_url, poolclass=NullPool).connect() as other:
        session = other.execute(text("SELECT id FROM information_schema.processlist WHERE db = DATABASE() "
                                     "AND id <> CONNECTION_ID()")).scalars()  # fmt: skip
        for number in session.all():
            other.execute(text(f"KILL CONNECTION {number}"))
    with pytest.raises(SourceUnavailable):
        list(reading)
    assert ids(BY_ID.batches(Window())) == list(range(1, 60_001))


def test_nothing_is_left_open_when_reading_ends(postgresql: Databases) -> None:
    fill(postgresql, 200_000)
    for stop_early in (False, True):
        reading = BY_ID.batches(Window())
        next(reading)
        if stop_early:
            reading.close()  # type: ignore[attr-defined]
        else:
            list(reading)
        with postgresql.source.connect() as connection:
            statement = text("SELECT count(*) FROM pg_stat_activity "
                             "WHERE datname = current_database() AND application_name = :name")  # fmt: skip
            deadline = datetime.now(UTC) + timedelta(seconds=20)
            while connection.execute(statement, {"name": READ_ONLY_NAME}).scalar_one():
                assert datetime.now(UTC) < deadline
                connection.rollback()
