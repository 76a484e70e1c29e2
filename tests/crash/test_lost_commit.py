"""The connection is lost around COMMIT: what the database says of the window decides, and nothing is done twice."""

from collections.abc import Iterator

import pytest
from sqlalchemy import NullPool, create_engine, select, text
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from tasks import connections
from tasks.pipeline import run_pipeline
from tasks.state.tables import runs, windows
from tests.conftest import Databases
from tests.orders import ORDERS, loaded, order, put
from tests.servers.proxy import Fault, MariadbProxy, PostgresProxy

_ROWS = [order(1), order(2, amount=-1), order(3)]


Proxy = PostgresProxy | MariadbProxy


@pytest.fixture(params=["postgresql", pytest.param("mariadb_target", marks=pytest.mark.mariadb)])
def reached(request: pytest.FixtureRequest) -> Databases:
    """Databases whose target has a proxy before it; they themselves go past it."""
    chosen: Databases = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def proxy(request: pytest.FixtureRequest, reached: Databases, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy through which declarations reach `target`."""
    made: Proxy
    if reached.kind == "mariadb":
        made = MariadbProxy(request.getfixturevalue("mariadb_server"))
    else:
        made = PostgresProxy(request.getfixturevalue("cluster"))
    with made as running:
        database = reached.target.url.database
        assert database is not None
        connections.dispose()
        monkeypatch.setenv("TIDEGATE_TARGET_URL", running.url(database))
        yield running
        connections.dispose()


def test_through_an_idle_proxy_a_run_is_an_ordinary_run(reached: Databases, proxy: Proxy) -> None:
    put(reached.source, _ROWS)
    assert run_pipeline(ORDERS).counts.inserted == 2


@pytest.mark.parametrize("fault", ["reply lost", "request late"])
def test_a_commit_whose_reply_is_lost_is_found_committed_and_not_repeated(
    reached: Databases, proxy: Proxy, fault: Fault
) -> None:
    put(reached.source, _ROWS)
    # Late enough: the client has come back to ask, and waits for the commit that is still under way.
    proxy.arm(fault, lambda: _wait_until_somebody_waits_for_a_lock(reached))
    report = run_pipeline(ORDERS)
    assert proxy.struck.is_set()
    counts = report.counts
    assert (counts.extracted, counts.inserted, counts.rejected, counts.unchanged) == (3, 2, 1, 0)
    assert [row["id"] for row in loaded(reached.target)] == [1, 3]
    assert _attempts(reached) == [("committed", "committed", report.run_id)]
    assert len(report.windows) == 1


def test_a_commit_that_never_reached_the_server_is_tried_again_as_a_new_attempt(
    reached: Databases, proxy: Proxy
) -> None:
    put(reached.source, _ROWS)
    proxy.arm("request lost")
    report = run_pipeline(ORDERS)
    assert proxy.struck.is_set()
    assert (report.counts.extracted, report.counts.inserted, report.counts.rejected) == (3, 2, 1)
    assert [row["id"] for row in loaded(reached.target)] == [1, 3]
    assert _attempts(reached) == [("failed", "failed", report.run_id), ("committed", "committed", report.run_id)]


def _attempts(databases: Databases) -> list[tuple[str, str, str]]:
    """Of every attempt, oldest first: its status in the ledger and as a window, and its run."""
    joined = runs.join(windows, runs.c.attempt == windows.c.attempt)
    statement = select(runs.c.status, windows.c.status, runs.c.run_id).select_from(joined).order_by(runs.c.started_at)
    with databases.target.connect() as connection:
        return [(entry, window, run) for entry, window, run in connection.execute(statement)]


def _wait_until_somebody_waits_for_a_lock(databases: Databases) -> None:
    waiting = text(
        "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
        if databases.kind == "mariadb"
        else "SELECT count(*) FROM pg_locks WHERE NOT granted"
    )
    # Not by way of the proxy, and not more often than MariaDB makes its list of transactions anew.
    past = create_engine(databases.target_url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with past.connect() as connection:
        polling = Retrying(
            retry=retry_if_result(lambda found: not found), stop=stop_after_delay(30), wait=wait_fixed(0.2)
        )
        polling(lambda: connection.execute(waiting).scalar_one())
