"""The connection is lost around COMMIT: what the database says of the window decides, and nothing is done twice."""

from collections.abc import Iterator

import pytest
from sqlalchemy import select, text
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from tasks import connections
from tasks.embedded import EmbeddedPostgres
from tasks.pipeline import run_pipeline
from tasks.state.tables import runs, windows
from tests.conftest import Databases
from tests.orders import ORDERS, loaded, order, put
from tests.servers.proxy import Fault, PostgresProxy

_ROWS = [order(1), order(2, amount=-1), order(3)]


@pytest.fixture
def proxy(cluster: EmbeddedPostgres, postgresql: Databases, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresProxy]:
    """A proxy through which declarations reach `target`; `postgresql` itself goes past it."""
    with PostgresProxy(cluster) as running:
        database = postgresql.target.url.database
        assert database is not None
        connections.dispose()
        monkeypatch.setenv("TIDEGATE_TARGET_URL", running.url(database))
        yield running
        connections.dispose()


def test_through_an_idle_proxy_a_run_is_an_ordinary_run(postgresql: Databases, proxy: PostgresProxy) -> None:
    put(postgresql.source, _ROWS)
    assert run_pipeline(ORDERS).counts.inserted == 2


@pytest.mark.parametrize("fault", ["reply lost", "request late"])
def test_a_commit_whose_reply_is_lost_is_found_committed_and_not_repeated(
    postgresql: Databases, proxy: PostgresProxy, fault: Fault
) -> None:
    put(postgresql.source, _ROWS)
    # Late enough: the client has come back to ask, and waits for the commit that is still under way.
    proxy.arm(fault, lambda: _wait_until_somebody_waits_for_a_lock(postgresql))
    report = run_pipeline(ORDERS)
    assert proxy.struck.is_set()
    counts = report.counts
    assert (counts.extracted, counts.inserted, counts.rejected, counts.unchanged) == (3, 2, 1, 0)
    assert [row["id"] for row in loaded(postgresql.target)] == [1, 3]
    assert _attempts(postgresql) == [("committed", "committed", report.run_id)]
    assert len(report.windows) == 1


def test_a_commit_that_never_reached_the_server_is_tried_again_as_a_new_attempt(
    postgresql: Databases, proxy: PostgresProxy
) -> None:
    put(postgresql.source, _ROWS)
    proxy.arm("request lost")
    report = run_pipeline(ORDERS)
    assert proxy.struck.is_set()
    assert (report.counts.extracted, report.counts.inserted, report.counts.rejected) == (3, 2, 1)
    assert [row["id"] for row in loaded(postgresql.target)] == [1, 3]
    assert _attempts(postgresql) == [("failed", "failed", report.run_id), ("committed", "committed", report.run_id)]


def _attempts(databases: Databases) -> list[tuple[str, str, str]]:
    """Of every attempt, oldest first: its status in the ledger and as a window, and its run."""
    joined = runs.join(windows, runs.c.attempt == windows.c.attempt)
    statement = select(runs.c.status, windows.c.status, runs.c.run_id).select_from(joined).order_by(runs.c.started_at)
    with databases.target.connect() as connection:
        return [(entry, window, run) for entry, window, run in connection.execute(statement)]


def _wait_until_somebody_waits_for_a_lock(databases: Databases) -> None:
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    with databases.source.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        polling = Retrying(
            retry=retry_if_result(lambda found: not found), stop=stop_after_delay(30), wait=wait_fixed(0.02)
        )
        polling(lambda: connection.execute(waiting).scalar_one())
