"""Staging is written without waiting for the disk, so a server crash can empty it: that is seen, and read again."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from sqlalchemy import Connection, event, inspect, select, text
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from tasks import connections
from tasks.embedded import EmbeddedPostgres
from tasks.pipeline import run_pipeline
from tasks.state.tables import runs
from tests.conftest import Databases
from tests.orders import ORDERS, loaded, order, put
from tests.servers.cluster import remove_folder


class Truncation:
    """Empties a staging table, on a connection of its own, when the first commit is about to lock its target."""

    def __init__(self, databases: Databases, prefix: str) -> None:
        self.emptied: list[str] = []
        self._engine = databases.target
        self._prefix = prefix
        event.listen(self._engine, "before_cursor_execute", self._before)

    def _before(self, _connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if self.emptied or not ("etl_targets" in statement and "FOR UPDATE" in statement):
            return
        self.emptied = [name for name in inspect(self._engine).get_table_names() if name.startswith(self._prefix)]
        with self._engine.begin() as connection:
            connection.execute(text(f"TRUNCATE {', '.join(self.emptied)}"))


@pytest.mark.parametrize("prefix", ["etl_staged_", "etl_rejected_"])
def test_an_attempt_that_lost_its_staging_is_refused_and_read_again(postgresql: Databases, prefix: str) -> None:
    put(postgresql.source, [order(1), order(2, amount=-1), order(3)])
    truncation = Truncation(postgresql, prefix)
    report = run_pipeline(ORDERS)
    assert len(truncation.emptied) == 1
    assert (report.counts.extracted, report.counts.inserted, report.counts.rejected) == (3, 2, 1)
    assert [row["id"] for row in loaded(postgresql.target)] == [1, 3]
    with postgresql.target.connect() as connection:
        lost, whole = connection.execute(select(runs.c.status, runs.c.message).order_by(runs.c.started_at)).all()
    assert lost.status == "failed" and "staging holds 0 rows" in lost.message
    assert whole.status == "committed"


class ServerCrash:
    """Kills the target's server process that writes the log, when the first attempt has staged everything.

    The server restarts without what it had not yet written: the staged rows, whose COPY did not wait for the disk.
    """

    def __init__(self, server: EmbeddedPostgres, databases: Databases) -> None:
        self.happened = False
        self._staged = self._read = False
        self._server = server
        event.listen(databases.target, "after_cursor_execute", self._after)
        event.listen(databases.target.pool, "checkin", self._checkin)

    def _after(self, _connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        self._staged = self._staged or "synchronous_commit = off" in statement
        self._read = self._staged and "clock_timestamp" in statement

    def _checkin(self, *_: Any) -> None:
        """No connection is in use but the one that holds the attempt."""
        if self.happened or not self._read:
            return
        self.happened = True
        processes = psutil.Process(self._server.pid).children()
        [writer] = [process for process in processes if "walwriter" in " ".join(process.cmdline())]
        writer.kill()
        psutil.wait_procs(processes, 30)
        polling = Retrying(
            retry=retry_if_exception_type(psycopg.OperationalError), stop=stop_after_delay(60), wait=wait_fixed(0.05)
        )
        polling(lambda: self._server.ensure_database("postgres"))


@pytest.fixture
def lazy(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[EmbeddedPostgres, Databases]]:
    """A server that leaves its log in memory for ten seconds unless a commit asks for more, and databases on it."""
    folder = Path(tempfile.mkdtemp(prefix="tidegate-lazy-"))
    server = EmbeddedPostgres(folder / "postgres").use()
    with psycopg.connect(host=str(server.socket_folder), user="postgres", dbname="postgres", autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
        admin.execute("SELECT pg_reload_conf()")
    for name in ("source", "target"):
        server.ensure_database(name)
        monkeypatch.setenv(f"TIDEGATE_{name.upper()}_URL", server.url(name))
    try:
        yield server, Databases("postgresql", server.url("source"), server.url("target"))
    finally:
        connections.dispose()
        server.release()
        remove_folder(folder)


@pytest.mark.slow
def test_a_server_crash_between_staging_and_commit_is_noticed_and_the_window_read_again(
    lazy: tuple[EmbeddedPostgres, Databases],
) -> None:
    server, databases = lazy
    put(databases.source, [order(1), order(2, amount=-1), order(3)])
    crash = ServerCrash(server, databases)
    report = run_pipeline(ORDERS)
    assert crash.happened
    assert (report.counts.extracted, report.counts.inserted, report.counts.rejected) == (3, 2, 1)
    assert [row["id"] for row in loaded(databases.target)] == [1, 3]
    with databases.target.connect() as connection:
        lost, whole = connection.execute(select(runs.c.status, runs.c.message).order_by(runs.c.started_at)).all()
    assert lost.status == "failed" and "staging holds 0 rows" in lost.message
    assert whole.status == "committed"
