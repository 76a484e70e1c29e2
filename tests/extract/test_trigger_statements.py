"""`TriggerExtract` and the statements that do more than they say: TRUNCATE, upserts, REPLACE, triggers of others."""

import pytest
from sqlalchemy import Engine

from tasks.errors import GuardRefused
from tasks.pipeline import run_pipeline
from tests.conftest import Databases
from tests.extract.followed import BOOKINGS, TABLE, execute, loaded, rows, terms


@pytest.fixture
def source(sources: Databases) -> Engine:
    execute(sources.source, TABLE)
    return sources.source


@pytest.fixture
def target(sources: Databases) -> Engine:
    return sources.target


def test_a_table_emptied_by_truncate_empties_the_target_of_what_came_before(postgresql: Databases) -> None:
    execute(postgresql.source, TABLE, *[f"INSERT INTO bookings VALUES ({number}, 'A', 1)" for number in range(5)])
    run_pipeline(BOOKINGS)
    execute(
        postgresql.source,
        "INSERT INTO bookings VALUES (6, 'B', 1)",
        "TRUNCATE bookings",
        "INSERT INTO bookings VALUES (2, 'C', 2)",
    )
    run_pipeline(BOOKINGS)
    assert loaded(postgresql.target) == [(2, "C", 2.0)]


def test_a_delete_of_everything_is_a_delete_of_each(source: Engine, target: Engine) -> None:
    execute(source, "INSERT INTO bookings VALUES (1, 'A', 1), (2, 'B', 1)")
    run_pipeline(BOOKINGS)
    execute(source, "DELETE FROM bookings", "INSERT INTO bookings VALUES (2, 'C', 2)")
    assert terms(run_pipeline(BOOKINGS)) == {"extracted": 3, "updated": 1, "deleted": 1, "deduplicated": 1}
    assert loaded(target) == [(2, "C", 2.0)]


def test_an_upsert_comes_as_what_it_did(source: Engine, target: Engine) -> None:
    execute(source, "INSERT INTO bookings VALUES (1, 'A', 1)")
    run_pipeline(BOOKINGS)
    conflict = {
        "mariadb": "ON DUPLICATE KEY UPDATE price = VALUES(price)",
    }.get(source.dialect.name, "ON CONFLICT (id) DO UPDATE SET price = excluded.price")
    execute(source, f"INSERT INTO bookings VALUES (1, 'X', 7), (2, 'B', 8) {conflict}")
    assert terms(run_pipeline(BOOKINGS)) == {"extracted": 2, "inserted": 1, "updated": 1}
    assert loaded(target) == rows(source) == [(1, "A", 7.0), (2, "B", 8.0)]


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def test_what_replace_deletes_for_another_unique_constraint_is_deleted(
    request: pytest.FixtureRequest, kind: str
) -> None:
    databases: Databases = request.getfixturevalue(kind)
    execute(databases.source, TABLE, "CREATE UNIQUE INDEX seats ON bookings (seat)")
    execute(databases.source, "INSERT INTO bookings VALUES (1, 'A', 1), (2, 'B', 1), (3, 'C', 1)")
    run_pipeline(BOOKINGS)
    execute(databases.source, "REPLACE INTO bookings VALUES (1, 'B', 9), (4, 'C', 9)")
    run_pipeline(BOOKINGS)
    assert loaded(databases.target) == rows(databases.source) == [(1, "B", 9.0), (4, "C", 9.0)]


TOUCH = {
    "postgresql": (
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS "
        "$$BEGIN NEW.seat := upper(NEW.seat); RETURN NEW; END$$",
        "CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON bookings FOR EACH ROW EXECUTE FUNCTION touch()",
    ),
    "sqlite": (
        "CREATE TRIGGER touch AFTER INSERT ON bookings BEGIN "
        "UPDATE bookings SET seat = upper(seat) WHERE id = NEW.id; END",
        "CREATE TRIGGER again AFTER UPDATE OF price ON bookings BEGIN "
        "UPDATE bookings SET seat = upper(seat) WHERE id = NEW.id; END",
    ),
    "mariadb": (
        "CREATE TRIGGER touch BEFORE INSERT ON bookings FOR EACH ROW SET NEW.seat = UPPER(NEW.seat)",
        "CREATE TRIGGER again BEFORE UPDATE ON bookings FOR EACH ROW SET NEW.seat = UPPER(NEW.seat)",
        "CREATE TRIGGER quiet AFTER INSERT ON bookings FOR EACH ROW SET @seen = NEW.id",
    ),
}


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_row_that_another_trigger_alters_comes_as_it_is_kept(source: Engine, target: Engine, when: str) -> None:
    touch = TOUCH[source.dialect.name]
    if when == "before":
        execute(source, *touch)
    run_pipeline(BOOKINGS)
    if when == "after":
        execute(source, *touch)
    execute(
        source, "INSERT INTO bookings VALUES (1, 'a', 1), (2, 'b', 2)", "UPDATE bookings SET price = 3 WHERE id = 1"
    )
    run_pipeline(BOOKINGS)
    assert loaded(target) == rows(source) == [(1, "A", 3.0), (2, "B", 2.0)]


@pytest.mark.mariadb
def test_truncate_which_fires_no_trigger_is_noticed_and_a_new_snapshot_is_taken(mariadb: Databases) -> None:
    execute(mariadb.source, TABLE, *[f"INSERT INTO bookings VALUES ({number}, 'A', 1)" for number in range(5)])
    run_pipeline(BOOKINGS)
    execute(mariadb.source, "INSERT INTO bookings VALUES (5, 'B', 1)", "TRUNCATE bookings")
    with pytest.raises(GuardRefused):
        run_pipeline(BOOKINGS)
    execute(mariadb.source, *[f"INSERT INTO bookings VALUES ({number}, 'C', 2)" for number in range(4)])
    run_pipeline(BOOKINGS)
    assert loaded(mariadb.target) == rows(mariadb.source)
