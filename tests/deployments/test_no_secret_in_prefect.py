"""What a flow tells Prefect holds no secret: every table of the server's own database is searched."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from prefect import flow
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from sqlalchemy import create_engine, inspect, text

from deployments.prefect_server import PrefectServer
from tasks.errors import SourceError
from tasks.pipeline import run_pipeline
from tasks.report import RunReport
from tests.conftest import Databases
from tests.extract.test_api_secrets import AUTHS, FAILURES, GRANTED, HIDDEN, PLAIN, SECRET, orders, pipeline
from tests.scripted_server import Reply, ScriptedServer, Seen

pytestmark = pytest.mark.prefect


@pytest.fixture
def server(prefect_server: PrefectServer) -> Iterator[PrefectServer]:
    """Flows called in this process report to the session's server, their logs included."""
    with temporary_settings({PREFECT_API_URL: prefect_server.api_url, PREFECT_LOGGING_TO_API_ENABLED: True}):
        yield prefect_server


def told(server: PrefectServer) -> str:
    """Everything in the server's database, once what is under way has arrived."""
    APILogWorker.drain_all()
    EventsWorker.drain_all()
    engine = create_engine(server.cluster.url("prefect"))
    with engine.connect() as connection:
        tables = inspect(connection).get_table_names()
        rows = [str(tuple(row)) for table in tables for row in connection.execute(text(f'SELECT * FROM "{table}"'))]
    engine.dispose()
    return "\n".join(rows)


@pytest.mark.smoke
@pytest.mark.parametrize("auth", ["key in the query", "refresh token"])
def test_neither_artifacts_nor_events_nor_logs_nor_states_hold_a_secret(
    server: PrefectServer, sqlite: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, auth: str
) -> None:
    monkeypatch.setenv("TIDEGATE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TIDEGATE_SECRET_AWKWARD", SECRET)
    monkeypatch.setenv("TIDEGATE_SECRET_PLAIN", PLAIN)
    name = f"no-secret-{auth.replace(' ', '-')}"

    @flow(name=name)
    def leaky() -> RunReport:
        return run_pipeline(pipeline(AUTHS[auth]))

    more: Sequence[Reply | Callable[[Seen], Reply]] = [FAILURES["403 in JSON"], Reply({"rows": [], "next_url": None})]
    with ScriptedServer({"/token": [Reply(GRANTED)], "/orders": [orders], "/more": more}) as api:
        monkeypatch.setenv("TIDEGATE_SHOP_URL", api.url)
        with pytest.raises(SourceError):
            leaky()
        leaky()
    # The server writes down what it is told a little later; where it never does, the test times out.
    while not all(
        part in (found := told(server)) for part in (name, "etl-orders", "etl.run.committed", "answered 403")
    ):
        pass
    assert HIDDEN not in found
