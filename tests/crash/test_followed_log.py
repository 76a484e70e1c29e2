"""A run that follows a log dies around its commit: what it loaded is not loaded again, and nothing is lost."""

from collections.abc import Iterator
from typing import Literal

import pytest
from sqlalchemy import Engine

from tasks import connections
from tasks.counts import Counts
from tasks.embedded import EmbeddedPostgres
from tasks.pipeline import run_pipeline
from tests.conftest import Databases
from tests.crash.child import Job, Strike, run_child
from tests.crash.fault_points import COMMIT, Point
from tests.extract.test_log import BOOKINGS, drop_slots, execute, rows, slot, terms
from tests.servers.proxy import Fault, PostgresProxy

CHANGES = (
    "INSERT INTO bookings VALUES (3, 'C', 1)",
    "UPDATE bookings SET seat = 'Z' WHERE id = 1",
    "DELETE FROM bookings WHERE id = 2",
)


@pytest.fixture
def source(postgresql: Databases) -> Iterator[Engine]:
    """A table of bookings that has not been followed yet."""
    execute(
        postgresql.source,
        "CREATE TABLE bookings (id bigint PRIMARY KEY, seat text, price float8)",
        "INSERT INTO bookings VALUES (1, 'A', 1), (2, 'B', 2)",
    )
    yield postgresql.source
    drop_slots(postgresql.source)


@pytest.mark.slow
@pytest.mark.parametrize("strike", ["kill client", "kill backend"])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("first", [True, False], ids=["the snapshot", "changes"])
def test_a_run_that_dies_around_its_commit_is_finished_by_the_next(
    postgresql: Databases, source: Engine, first: bool, moment: Literal["before", "after"], strike: Strike
) -> None:
    """Killed after COMMIT, it is dead between the load and the slot's advance."""
    if not first:
        run_pipeline(BOOKINGS)
        execute(source, *CHANGES)
    urls = {"source": postgresql.source_url, "target": postgresql.target_url}
    outcome = run_child(Job(BOOKINGS, urls, point=Point(moment, COMMIT), strike=strike))
    committed = moment == "after" or outcome.exit_code == 0
    whole = {"extracted": 2, "inserted": 2} if first else {"extracted": 3, "inserted": 1, "updated": 1, "deleted": 1}
    assert terms(run_pipeline(BOOKINGS)) == ({} if committed else whole)
    assert rows(postgresql.target) == rows(source, "SELECT * FROM bookings ORDER BY id")
    assert slot(source).confirmed_flush_lsn == rows(postgresql.target, "SELECT position FROM etl_watermarks")[0][0]


@pytest.mark.parametrize("fault", ["reply lost", "request lost"])
def test_a_commit_whose_reply_or_request_is_lost_loads_everything_once(
    cluster: EmbeddedPostgres,
    postgresql: Databases,
    source: Engine,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
) -> None:
    run_pipeline(BOOKINGS)
    execute(source, *CHANGES)
    database = postgresql.target.url.database
    assert database is not None
    connections.dispose()
    with PostgresProxy(cluster) as proxy:
        monkeypatch.setenv("TIDEGATE_TARGET_URL", proxy.url(database))
        proxy.arm(fault)
        report = run_pipeline(BOOKINGS)
        assert proxy.struck.is_set()
        connections.dispose()
    monkeypatch.setenv("TIDEGATE_TARGET_URL", postgresql.target_url)
    assert terms(report) == {"extracted": 3, "inserted": 1, "updated": 1, "deleted": 1}
    assert run_pipeline(BOOKINGS).counts == Counts()
    assert rows(postgresql.target) == rows(postgresql.source, "SELECT * FROM bookings ORDER BY id")
