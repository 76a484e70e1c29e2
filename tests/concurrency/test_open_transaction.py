"""A watermark never passes what could still change: a source transaction that stays open across a run loses no row."""

import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Connection, Engine, NullPool, create_engine, make_url, text

from tasks import connections
from tasks.connections import READ_ONLY_NAME
from tasks.embedded import EmbeddedPostgres
from tasks.errors import ConfigError, SourceUnavailable
from tasks.extract.table import TableExtract
from tasks.pipeline import Pipeline, run_pipeline
from tasks.state.watermarks import Watermark, read_watermark
from tasks.window import Window
from tests.conftest import Databases
from tests.orders import DAY, ORDERS, START, loaded, order, put
from tests.servers.cluster import remove_folder

LATE_ROW = "INSERT INTO orders VALUES (1, 'late', 1.0, now())"
OTHER_ROW = "INSERT INTO orders VALUES (2, 'other', 1.0, clock_timestamp())"


@contextmanager
def _open_transaction(source: Engine) -> Iterator[tuple[Connection, datetime]]:
    """Another client's transaction that has called `now()` and written nothing; what it got."""
    other = create_engine(source.url, poolclass=NullPool)
    with other.connect() as connection:
        now = connection.execute(text("SELECT now()")).scalar_one()
        yield connection, now.astimezone(UTC)


def _ids(databases: Databases) -> list[int]:
    return [row["id"] for row in loaded(databases.target)]


def _covered(databases: Databases, pipeline: Pipeline = ORDERS) -> Watermark:
    with databases.target.connect() as connection:
        return read_watermark(connection, pipeline.name)


def _write(source: Engine, statement: str) -> None:
    with source.begin() as connection:
        connection.execute(text(statement))


def test_a_transaction_that_called_now_before_a_run_and_writes_after_it_loses_no_row(postgresql: Databases) -> None:
    put(postgresql.source, [order(0)])
    with _open_transaction(postgresql.source) as (late, called_now):
        _write(postgresql.source, OTHER_ROW)
        run_pipeline(ORDERS)
        covered = _covered(postgresql).covered_until
        assert covered is not None and covered <= called_now
        assert _ids(postgresql) == [0]
        late.execute(text(LATE_ROW))
        late.commit()
    run_pipeline(ORDERS)
    assert _ids(postgresql) == [0, 1, 2]
    assert loaded(postgresql.target)[1]["updated_at"] == called_now


def test_a_transaction_that_wrote_before_a_run_and_commits_after_it_loses_no_row(postgresql: Databases) -> None:
    put(postgresql.source, [order(0)])
    with _open_transaction(postgresql.source) as (late, called_now):
        late.execute(text(LATE_ROW))
        _write(postgresql.source, OTHER_ROW)
        run_pipeline(ORDERS)
        covered = _covered(postgresql).covered_until
        assert covered is not None and covered <= called_now
        late.commit()
    run_pipeline(ORDERS)
    assert _ids(postgresql) == [0, 1, 2]


def test_an_explicit_window_is_clipped_at_an_open_transaction(postgresql: Databases) -> None:
    put(postgresql.source, [order(0)])
    with _open_transaction(postgresql.source) as (_late, called_now):
        _write(postgresql.source, OTHER_ROW)
        report = run_pipeline(ORDERS, START, datetime.now(UTC) + DAY)
    assert report.window.end is not None and report.window.end <= called_now
    assert _ids(postgresql) == [0]


def test_a_transaction_of_another_database_holds_nothing_back(postgresql: Databases) -> None:
    put(postgresql.source, [order(0)])
    with _open_transaction(postgresql.target) as (_elsewhere, called_now):
        _write(postgresql.source, OTHER_ROW)
        run_pipeline(ORDERS)
        covered = _covered(postgresql).covered_until
    assert covered is not None and covered > called_now
    assert _ids(postgresql) == [0, 2]


def test_our_own_reading_holds_nothing_back(postgresql: Databases) -> None:
    put(postgresql.source, [order(0)])
    extract = TableExtract("source", "orders", cursor="updated_at")
    began = datetime.now(UTC)
    reading = extract.batches(Window())
    next(reading)
    sessions = text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE application_name = :name AND datname = current_database() AND xact_start IS NOT NULL"
    )
    with postgresql.source.connect() as connection:
        assert connection.execute(sessions, {"name": READ_ONLY_NAME}).scalar_one() == 1
    bound = extract.bound()
    assert list(reading) == []
    assert bound is not None and bound > began
    # A server ends its side of a COPY shortly after the last row; where it never does, the test times out.
    with postgresql.source.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while connection.execute(sessions, {"name": READ_ONLY_NAME}).scalar_one():
            pass


def test_our_read_only_sessions_cannot_write(postgresql: Databases) -> None:
    put(postgresql.source, [order(0)])
    read_only = TableExtract(
        "source", query="SELECT id, current_setting('transaction_read_only') AS read_only FROM orders"
    )
    assert [batch.column("read_only").to_pylist() for batch in read_only.batches(Window())] == [["on"]]


# -- rights ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def limited(postgresql: Databases, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A role that may read the source and nothing else; declarations reach `source` as it from then on."""
    put(postgresql.source, [order(0)])
    role = f"limited_{uuid4().hex}"
    owner = create_engine(postgresql.source.url, poolclass=NullPool)
    _write(owner, f"CREATE ROLE {role} LOGIN; GRANT SELECT ON orders TO {role}")
    connections.dispose()
    as_role = make_url(postgresql.source_url).set(username=role).render_as_string(hide_password=False)
    monkeypatch.setenv("TIDEGATE_SOURCE_URL", as_role)
    yield role
    connections.dispose()
    _write(owner, f"DROP OWNED BY {role}; DROP ROLE {role}")


def _owner(databases: Databases) -> Engine:
    return create_engine(databases.source_url, poolclass=NullPool)


def test_a_role_that_may_not_see_other_sessions_is_told_what_to_grant(postgresql: Databases, limited: str) -> None:
    with _open_transaction(_owner(postgresql)), pytest.raises(ConfigError, match="GRANT pg_read_all_stats") as raised:
        run_pipeline(ORDERS)
    assert "`lag`" in str(raised.value)


def test_a_role_that_may_not_see_other_sessions_can_declare_a_lag_instead(postgresql: Databases, limited: str) -> None:
    lag = timedelta(hours=1)
    lagging = replace(ORDERS, extract=TableExtract("source", "orders", cursor="updated_at", lag=lag))
    with _open_transaction(_owner(postgresql)):
        run_pipeline(lagging)
    covered = _covered(postgresql).covered_until
    assert covered is not None and covered <= datetime.now(UTC) - lag
    assert _ids(postgresql) == [0]


def test_a_role_with_the_grant_sees_the_open_transaction(postgresql: Databases, limited: str) -> None:
    owner = _owner(postgresql)
    _write(owner, f"GRANT pg_read_all_stats TO {limited}")
    with _open_transaction(owner) as (late, called_now):
        _write(owner, OTHER_ROW)
        run_pipeline(ORDERS)
        assert _ids(postgresql) == [0]
        late.execute(text(LATE_ROW))
        late.commit()
    run_pipeline(ORDERS)
    assert _ids(postgresql) == [0, 1, 2]
    assert loaded(postgresql.target)[1]["updated_at"] == called_now


def test_a_role_that_is_alone_in_its_database_needs_no_grant(postgresql: Databases, limited: str) -> None:
    run_pipeline(ORDERS)
    assert _ids(postgresql) == [0]


@pytest.mark.slow
def test_a_session_that_is_just_connecting_is_not_one_that_may_not_be_seen(postgresql: Databases) -> None:
    put(postgresql.source, [order(0)])
    extract = TableExtract("source", "orders", cursor="updated_at")
    done = threading.Event()

    def connect_all_the_time() -> None:
        connecting = _owner(postgresql)
        while not done.is_set():
            connecting.connect().close()

    with ThreadPoolExecutor(8) as threads:
        try:
            clients = [threads.submit(connect_all_the_time) for _ in range(4)]
            bounds = [threads.submit(lambda: [extract.bound() for _ in range(30)]) for _ in range(4)]
            assert all(bound is not None for found in bounds for bound in found.result())
        finally:
            done.set()
        for client in clients:
            client.result()


# -- prepared transactions ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def preparing_cluster() -> Iterator[EmbeddedPostgres]:
    """A server that allows prepared transactions, which the embedded one does not."""
    folder = Path(tempfile.mkdtemp(prefix="tidegate-prepared-"))
    server = EmbeddedPostgres(folder / "postgres").use()
    admin = create_engine(server.url("postgres"), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text("ALTER SYSTEM SET max_prepared_transactions = 5"))
    server.release()
    yield server.use()
    server.release()
    remove_folder(folder)


@pytest.fixture
def preparing(preparing_cluster: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[Databases]:
    """A source and a target there, empty."""
    urls = {}
    for name in ("source", "target"):
        database = f"{name}_{uuid4().hex}"
        preparing_cluster.ensure_database(database)
        urls[name] = preparing_cluster.url(database)
        monkeypatch.setenv(f"TIDEGATE_{name.upper()}_URL", urls[name])
    yield Databases("postgresql", urls["source"], urls["target"])
    connections.dispose()


@pytest.mark.slow
def test_a_prepared_transaction_loses_no_row(preparing: Databases) -> None:
    """The catalogue tells when it was prepared, not when it began; so nothing is read past it."""
    patient = replace(ORDERS, max_attempts=1)
    put(preparing.source, [order(0)])
    with _open_transaction(preparing.source) as (late, _):
        late.execute(text(LATE_ROW))
        _write(preparing.source, OTHER_ROW)
        late.execute(text("PREPARE TRANSACTION 'late'"))
    with pytest.raises(SourceUnavailable, match="COMMIT PREPARED"):
        run_pipeline(patient)
    _commit_prepared(preparing)
    run_pipeline(patient)
    assert _ids(preparing) == [0, 1, 2]


@pytest.mark.slow
def test_a_lag_longer_than_a_prepared_transaction_bounds_what_is_read(preparing: Databases) -> None:
    lagging = replace(ORDERS, extract=TableExtract("source", "orders", cursor="updated_at", lag=timedelta(minutes=5)))
    put(preparing.source, [order(0)])
    with _open_transaction(preparing.source) as (late, called_now):
        late.execute(text(LATE_ROW))
        late.execute(text("PREPARE TRANSACTION 'late'"))
    run_pipeline(lagging)
    covered = _covered(preparing).covered_until
    _commit_prepared(preparing)
    assert covered is not None and covered <= called_now


def _commit_prepared(databases: Databases) -> None:
    with databases.source.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("COMMIT PREPARED 'late'"))
