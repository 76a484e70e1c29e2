"""A run that follows a table by Debezium dies around its commit: nothing it loaded is loaded again, nothing is lost."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import pytest

from tasks.extract.debezium import DebeziumExtract
from tasks.pipeline import run_pipeline
from tests.conftest import Databases
from tests.crash.child import Job, Strike, run_child
from tests.crash.fault_points import COMMIT, Point
from tests.extract.test_log import BOOKINGS as LOGGED
from tests.extract.test_log import drop_slots, execute, rows, slot, terms
from tests.servers.debezium import MARIADB_JARS

BOOKINGS = replace(LOGGED, extract=DebeziumExtract("source", "bookings", patience=60, jars=MARIADB_JARS))
EVERYTHING = "SELECT id, seat, price FROM bookings ORDER BY id"


@pytest.fixture
def both(debezium_sources: Databases) -> Iterator[Databases]:
    """A table of bookings on either connector, that has not been followed yet."""
    execute(
        debezium_sources.source,
        "CREATE TABLE bookings (id bigint PRIMARY KEY, seat text, price double precision)",
        "INSERT INTO bookings VALUES (1, 'A', 1), (2, 'B', 2)",
    )
    yield debezium_sources
    if debezium_sources.kind == "postgresql":
        drop_slots(debezium_sources.source)


@pytest.mark.debezium
@pytest.mark.slow
@pytest.mark.parametrize("strike", ["kill client", "kill backend"])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("first", [True, False], ids=["the snapshot", "changes"])
def test_a_run_that_dies_around_its_commit_is_finished_by_the_next(
    both: Databases, first: bool, moment: Literal["before", "after"], strike: Strike
) -> None:
    """Killed after COMMIT, it is dead between the load and the slot's advance."""
    if not first:
        run_pipeline(BOOKINGS)
        execute(
            both.source,
            "INSERT INTO bookings VALUES (3, 'C', 1)",
            "UPDATE bookings SET seat = 'Z' WHERE id = 1",
            "DELETE FROM bookings WHERE id = 2",
        )
    urls = {"source": both.source_url, "target": both.target_url}
    outcome = run_child(Job(BOOKINGS, urls, point=Point(moment, COMMIT), strike=strike))
    committed = moment == "after" or outcome.exit_code == 0
    whole = {"extracted": 2, "inserted": 2} if first else {"extracted": 3, "inserted": 1, "updated": 1, "deleted": 1}
    assert terms(run_pipeline(BOOKINGS)) == ({} if committed else whole)
    assert rows(both.target) == rows(both.source, EVERYTHING)
    if both.kind == "postgresql":
        position = rows(both.target, "SELECT position FROM etl_watermarks")[0][0]
        assert slot(both.source).confirmed_flush_lsn == position
