"""A run that follows changes dies around its commit: what it loaded is not loaded again, and nothing is lost."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pytest
from sqlalchemy import Engine

from tasks import connections
from tasks.counts import Counts
from tasks.embedded import EmbeddedPostgres
from tasks.extract.triggers import TriggerExtract
from tasks.pipeline import Pipeline, run_pipeline
from tests.conftest import Databases
from tests.crash.child import Job, Strike, run_child
from tests.crash.fault_points import COMMIT, Point
from tests.extract import followed
from tests.extract.test_log import BOOKINGS, drop_slots, execute, rows, slot, terms
from tests.servers.proxy import Fault, PostgresProxy

CHANGES = (
    "INSERT INTO bookings VALUES (3, 'C', 1)",
    "UPDATE bookings SET seat = 'Z' WHERE id = 1",
    "DELETE FROM bookings WHERE id = 2",
)


FOLLOWED = {
    "log": ("postgresql", BOOKINGS),
    "triggers": ("postgresql", followed.BOOKINGS),
    "triggers of mariadb": ("mariadb", followed.BOOKINGS),
}


@dataclass(frozen=True)
class Case:
    """A table of bookings, not followed yet, and the pipeline that follows it into a PostgreSQL."""

    databases: Databases
    pipeline: Pipeline

    @property
    def source(self) -> Engine:
        return self.databases.source

    def forgotten(self) -> bool:
        """Whether the source has let go of everything that is loaded."""
        if isinstance(self.pipeline.extract, TriggerExtract):
            return followed.waiting(self.source) == 0
        position = rows(self.databases.target, "SELECT position FROM etl_watermarks")[0][0]
        return bool(slot(self.source).confirmed_flush_lsn == position)


@pytest.fixture(params=["log", "triggers", pytest.param("triggers of mariadb", marks=pytest.mark.mariadb)])
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    kind, pipeline = FOLLOWED[request.param]
    databases: Databases = request.getfixturevalue(kind)
    execute(
        databases.source,
        "CREATE TABLE bookings (id bigint NOT NULL PRIMARY KEY, seat varchar(20), price double precision)",
        "INSERT INTO bookings VALUES (1, 'A', 1), (2, 'B', 2)",
    )
    yield Case(databases, pipeline)
    if kind == "postgresql":
        drop_slots(databases.source)


@pytest.mark.slow
@pytest.mark.parametrize("strike", ["kill client", "kill backend"])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("first", [True, False], ids=["the snapshot", "changes"])
def test_a_run_that_dies_around_its_commit_is_finished_by_the_next(
    case: Case, first: bool, moment: Literal["before", "after"], strike: Strike
) -> None:
    """Killed after COMMIT, it is dead between the load and what it tells the source."""
    databases, pipeline = case.databases, case.pipeline
    if not first:
        run_pipeline(pipeline)
        execute(case.source, *CHANGES)
    urls = {"source": databases.source_url, "target": databases.target_url}
    outcome = run_child(Job(pipeline, urls, point=Point(moment, COMMIT), strike=strike))
    committed = moment == "after" or outcome.exit_code == 0
    whole = {"extracted": 2, "inserted": 2} if first else {"extracted": 3, "inserted": 1, "updated": 1, "deleted": 1}
    assert terms(run_pipeline(pipeline)) == ({} if committed else whole)
    assert rows(databases.target) == rows(case.source, "SELECT * FROM bookings ORDER BY id")
    assert case.forgotten()


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["reply lost", "request lost"])
def test_a_commit_whose_reply_or_request_is_lost_loads_everything_once(
    cluster: EmbeddedPostgres, case: Case, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    databases, pipeline = case.databases, case.pipeline
    run_pipeline(pipeline)
    execute(case.source, *CHANGES)
    database = databases.target.url.database
    assert database is not None
    connections.dispose()
    with PostgresProxy(cluster) as proxy:
        monkeypatch.setenv("TIDEGATE_TARGET_URL", proxy.url(database))
        proxy.arm(fault)
        report = run_pipeline(pipeline)
        assert proxy.struck.is_set()
        connections.dispose()
    monkeypatch.setenv("TIDEGATE_TARGET_URL", databases.target_url)
    assert terms(report) == {"extracted": 3, "inserted": 1, "updated": 1, "deleted": 1}
    assert run_pipeline(pipeline).counts == Counts()
    assert rows(databases.target) == rows(case.source, "SELECT * FROM bookings ORDER BY id")
    assert case.forgotten()
