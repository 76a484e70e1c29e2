"""The change log of `TriggerExtract`: made, altered, taken away, lost, and found to be another."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, make_url

from tasks import connections
from tasks.dialects import dialect_of
from tasks.errors import SourceError, SourceUnavailable
from tasks.extract.feed import Home
from tasks.extract.triggers import TriggerExtract
from tasks.pipeline import remove_feed, run_pipeline
from tests.conftest import Databases
from tests.extract.followed import (
    BOOKINGS,
    TABLE,
    execute,
    loaded,
    log_of,
    logs,
    rows,
    session,
    terms,
    triggers,
    waiting,
)

ONCE = replace(BOOKINGS, max_attempts=1)


@pytest.fixture
def source(sources: Databases) -> Engine:
    execute(sources.source, TABLE, "INSERT INTO bookings VALUES (1, 'A', 1), (2, 'B', 2)")
    return sources.source


@pytest.fixture
def target(sources: Databases) -> Engine:
    return sources.target


def drop_a_trigger(engine: Engine) -> None:
    table = " ON bookings" if engine.dialect.name == "postgresql" else ""
    execute(engine, f"DROP TRIGGER {triggers(engine)[0]}{table}")


def read(target: Engine, attempt: str, position: str | None, *, acknowledge: bool = True) -> tuple[str | None, int]:
    """What a run does at the source: where its chunk ends, and how many rows it has, markers included."""
    feed = TriggerExtract("source", "bookings", key=["id"])
    with feed.open(Home("bookings", "tidegate_x", target, dialect_of(target), attempt), position) as chunk:
        found = sum(batch.num_rows for batch in chunk.batches())
        if acknowledge:
            chunk.acknowledge()
        return chunk.position, found


# -- taken away -----------------------------------------------------------------------------------------------------


def test_what_the_feed_made_at_the_source_can_be_taken_away(source: Engine, target: Engine) -> None:
    run_pipeline(BOOKINGS)
    assert logs(source) and triggers(source)
    for _ in range(2):
        remove_feed(BOOKINGS)
        assert logs(source) == triggers(source) == []
    execute(source, "UPDATE bookings SET seat = 'C'")
    assert terms(run_pipeline(BOOKINGS))["extracted"] == 2
    assert loaded(target) == rows(source)


def test_a_feed_can_be_taken_away_whose_table_is_gone(source: Engine) -> None:
    run_pipeline(BOOKINGS)
    execute(source, "DROP TABLE bookings")
    remove_feed(BOOKINGS)
    assert logs(source) == []


# -- pruned ---------------------------------------------------------------------------------------------------------


def test_a_chunk_that_could_not_be_acknowledged_is_deleted_after_the_next(source: Engine, target: Engine) -> None:
    position, _ = read(target, "1", None)
    execute(source, "INSERT INTO bookings VALUES (3, 'C', 3)")
    position, found = read(target, "2", position, acknowledge=False)
    assert (found, waiting(source)) == (1, 1)
    position, found = read(target, "3", position, acknowledge=False)
    assert (found, waiting(source)) == (0, 1)
    execute(source, "INSERT INTO bookings VALUES (4, 'D', 3)")
    position, found = read(target, "4", position)
    assert (found, waiting(source)) == (1, 0)
    assert read(target, "5", position)[1] == 0


# -- altered --------------------------------------------------------------------------------------------------------


def test_a_new_column_makes_a_new_log_and_a_new_snapshot(source: Engine, target: Engine) -> None:
    run_pipeline(BOOKINGS)
    execute(source, "ALTER TABLE bookings ADD COLUMN meal varchar(9) DEFAULT 'fish'")
    execute(
        source,
        "INSERT INTO bookings (id, seat, price, meal) VALUES (3, 'C', 3, 'rice')",
        "DELETE FROM bookings WHERE id = 1",
    )
    assert terms(run_pipeline(BOOKINGS)) == {"extracted": 2, "added": 1, "inserted": 1, "deleted": 1, "unchanged": 1}
    execute(source, "UPDATE bookings SET meal = 'soup', seat = 'Z' WHERE id = 3")
    assert terms(run_pipeline(BOOKINGS)) == {"extracted": 1, "updated": 1}
    assert loaded(target) == rows(source)


def test_a_log_made_anew_for_a_run_that_died_is_not_gone_on_with(source: Engine, target: Engine) -> None:
    position, _ = read(target, "1", None)
    execute(source, *[f"INSERT INTO bookings VALUES ({number}, 'C', 3)" for number in range(10, 20)])
    position, found = read(target, "2", position, acknowledge=False)
    assert found == 10
    execute(source, "ALTER TABLE bookings ADD COLUMN meal varchar(9)")
    read(target, "3", position, acknowledge=False)
    for attempt in ("4", "5"):
        assert read(target, attempt, position, acknowledge=False)[1] == 13
    position, _ = read(target, "6", position)
    assert read(target, "7", position)[1] == 0


@pytest.mark.parametrize("kind", ["postgresql", pytest.param("mariadb", marks=pytest.mark.mariadb)])
@pytest.mark.parametrize(
    "change",
    ["DROP COLUMN price", "RENAME COLUMN price TO cost", "ALTER_SEAT"],
)
def test_who_writes_after_an_alteration_gets_no_error_and_a_new_snapshot_is_taken(
    request: pytest.FixtureRequest, kind: str, change: str
) -> None:
    databases: Databases = request.getfixturevalue(kind)
    source = databases.source
    execute(source, TABLE, "INSERT INTO bookings VALUES (1, 'A', 1), (2, 'B', 2), (4, 'D', 4), (5, 'E', 5)")
    run_pipeline(BOOKINGS)
    longer = {"postgresql": "ALTER seat TYPE varchar(90)", "mariadb": "MODIFY seat varchar(90)"}[kind]
    execute(source, f"ALTER TABLE bookings {longer if change == 'ALTER_SEAT' else change}")
    execute(
        source,
        "INSERT INTO bookings (id, seat) VALUES (3, 'C')",
        f"UPDATE bookings SET seat = '{'x' * (80 if change == 'ALTER_SEAT' else 8)}' WHERE id = 1",
        "UPDATE bookings SET id = 9 WHERE id = 1",
        "DELETE FROM bookings WHERE id = 2",
    )
    run_pipeline(replace(BOOKINGS, transform=lambda raw: raw if "price" in raw else raw.assign(price=None)))
    assert rows(databases.target, "SELECT id, seat FROM fct_bookings ORDER BY id") == rows(
        source, "SELECT id, seat FROM bookings ORDER BY id"
    )


@pytest.mark.parametrize("kind", ["postgresql", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def test_a_column_that_was_dropped_and_made_again_between_two_runs_is_read_anew(
    request: pytest.FixtureRequest, kind: str
) -> None:
    databases: Databases = request.getfixturevalue(kind)
    execute(databases.source, TABLE, "INSERT INTO bookings VALUES (1, 'A', 1), (2, 'B', 2)")
    run_pipeline(BOOKINGS)
    if kind == "mariadb":
        # The server tells the time of an alteration to the second.
        execute(databases.source, "SELECT SLEEP(1.1)")
    execute(databases.source, "ALTER TABLE bookings DROP COLUMN price")
    execute(databases.source, "ALTER TABLE bookings ADD COLUMN price double precision DEFAULT 7")
    run_pipeline(BOOKINGS)
    assert loaded(databases.target) == [(1, "A", 7.0), (2, "B", 7.0)]


# -- lost -----------------------------------------------------------------------------------------------------------


def test_a_trigger_that_somebody_dropped_is_a_clear_error_and_a_full_refresh_mends_it(
    source: Engine, target: Engine
) -> None:
    run_pipeline(BOOKINGS)
    drop_a_trigger(source)
    execute(source, "UPDATE bookings SET seat = 'C'", "DELETE FROM bookings WHERE id = 1")
    with pytest.raises(SourceError, match=r"has lost the trigger 'tidegate_bookings_.*full_refresh"):
        run_pipeline(BOOKINGS)
    run_pipeline(BOOKINGS, full_refresh=True)
    execute(source, "INSERT INTO bookings VALUES (5, 'E', 5)")
    assert terms(run_pipeline(BOOKINGS)) == {"extracted": 1, "inserted": 1}
    assert loaded(target) == rows(source)


def test_a_trigger_that_somebody_disabled_is_a_clear_error(postgresql: Databases) -> None:
    execute(postgresql.source, TABLE)
    run_pipeline(BOOKINGS)
    execute(postgresql.source, "ALTER TABLE bookings DISABLE TRIGGER USER")
    with pytest.raises(SourceError, match=r"has lost the trigger.*or it is switched off.*full_refresh"):
        run_pipeline(BOOKINGS)


@pytest.mark.parametrize("kind", ["postgresql", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def test_a_log_that_somebody_dropped_is_a_clear_error_for_the_run_and_none_for_who_writes(
    request: pytest.FixtureRequest, kind: str
) -> None:
    databases: Databases = request.getfixturevalue(kind)
    source = databases.source
    execute(source, TABLE, "INSERT INTO bookings VALUES (1, 'A', 1), (2, 'B', 2)")
    run_pipeline(BOOKINGS)
    execute(source, "INSERT INTO bookings VALUES (3, 'C', 3)")
    execute(source, f"DROP TABLE {log_of(source)}")
    for statement in (
        "INSERT INTO bookings VALUES (4, 'C', 3)",
        "UPDATE bookings SET id = id + 10 WHERE id = 4",
        "DELETE FROM bookings WHERE id = 1",
    ):
        execute(source, statement)
        with session(source) as another:
            another.exec_driver_sql(statement.replace("4", "5"))
            another.commit()
    with pytest.raises(SourceError, match=r"tidegate_bookings_\w{8}.*is not there.*full_refresh"):
        run_pipeline(BOOKINGS)
    run_pipeline(BOOKINGS, full_refresh=True)
    assert loaded(databases.target) == rows(source)


def test_a_log_that_was_dropped_and_made_again_is_not_taken_for_the_one_that_was_read(
    source: Engine, target: Engine
) -> None:
    run_pipeline(BOOKINGS)
    [name] = logs(source)
    feed = TriggerExtract("source", "bookings", key=["id"])
    home = Home("bookings", name, target, dialect_of(target), "other")
    feed.remove(home)
    with feed.open(home, None):
        pass
    with pytest.raises(SourceError, match=r"is another than the one that was read.*full_refresh"):
        run_pipeline(BOOKINGS)


# -- restored -------------------------------------------------------------------------------------------------------


def test_a_target_restored_from_a_backup_is_a_clear_error_and_a_full_refresh_mends_it(
    source: Engine, target: Engine
) -> None:
    run_pipeline(BOOKINGS)
    execute(source, "INSERT INTO bookings VALUES (3, 'C', 3)")
    run_pipeline(BOOKINGS)
    execute(target, "CREATE TABLE saved AS SELECT * FROM etl_watermarks")
    execute(source, "INSERT INTO bookings VALUES (4, 'D', 4)")
    run_pipeline(BOOKINGS)
    execute(
        target,
        "UPDATE etl_watermarks SET position = (SELECT position FROM saved)",
        "DELETE FROM fct_bookings WHERE id = 4",
    )
    with pytest.raises(SourceUnavailable, match=r"was either restored from a backup.*full_refresh"):
        run_pipeline(ONCE)
    run_pipeline(BOOKINGS, full_refresh=True)
    assert loaded(target) == rows(source)


@pytest.mark.parametrize("acknowledged", [True, False])
def test_a_source_restored_from_a_backup_is_a_clear_error(
    sqlite: Databases, tmp_path: Path, acknowledged: bool
) -> None:
    execute(sqlite.source, TABLE, "INSERT INTO bookings VALUES (1, 'A', 1), (2, 'B', 2)")
    run_pipeline(BOOKINGS)
    execute(sqlite.source, "INSERT INTO bookings VALUES (3, 'C', 3)")
    if acknowledged:
        run_pipeline(BOOKINGS)
    file = make_url(sqlite.source_url).database
    assert file is not None
    connections.dispose()
    shutil.copy(file, tmp_path / "backup")
    for number in (4, 5):
        execute(sqlite.source, f"INSERT INTO bookings VALUES ({number}, 'D', 4)")
        run_pipeline(BOOKINGS)
    connections.dispose()
    shutil.copy(tmp_path / "backup", file)
    with pytest.raises((SourceError, SourceUnavailable), match=r"restored from a backup.*full_refresh"):
        run_pipeline(ONCE)


def test_a_source_restored_from_a_backup_of_just_before_the_last_run_is_a_clear_error(
    postgresql: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy is of the same cluster, whose transactions go on counting; only the rows of the log can tell."""
    execute(postgresql.source, TABLE, "INSERT INTO bookings VALUES (1, 'A', 1)")
    run_pipeline(BOOKINGS)
    name = postgresql.source.url.database
    connections.dispose()
    with postgresql.target.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"CREATE DATABASE backup_of_{name} TEMPLATE {name}")
    execute(postgresql.source, "INSERT INTO bookings VALUES (2, 'B', 1)")
    run_pipeline(BOOKINGS)
    monkeypatch.setenv("TIDEGATE_SOURCE_URL", postgresql.source_url.replace(f"/{name}?", f"/backup_of_{name}?"))
    with pytest.raises(SourceError, match=r"was the source restored from a backup.*full_refresh"):
        run_pipeline(BOOKINGS)
    connections.dispose()
    with postgresql.target.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"DROP DATABASE backup_of_{name}")
