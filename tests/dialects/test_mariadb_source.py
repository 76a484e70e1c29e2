"""MariaDB as a source: one snapshot, streamed; a bound that is never past what may still appear; errors by number."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psutil
import pytest
from sqlalchemy import Connection, Engine, NullPool, create_engine, make_url, text

from tasks import connections
from tasks.errors import ConfigError, SourceError, SourceUnavailable
from tasks.extract.feed import Feed
from tasks.extract.table import TableExtract
from tasks.pipeline import run_pipeline
from tasks.window import Window
from tests.conftest import Databases
from tests.orders import ORDERS, loaded, order, put
from tests.servers.mariadb import MariadbServer

pytestmark = pytest.mark.mariadb

LAG = timedelta(milliseconds=10)
EXTRACT = TableExtract("source", "orders", cursor="updated_at", lag=LAG)
PIPELINE = replace(ORDERS, extract=EXTRACT)
LATE_ROW = "INSERT INTO orders VALUES (1, 'late', 1.0, UTC_TIMESTAMP(6))"


@contextmanager
def other_session(url: str) -> Iterator[Connection]:
    """Another client's connection."""
    with create_engine(
        url, poolclass=NullPool, connect_args={"init_command": "SET time_zone = '+00:00'"}
    ).connect() as it:
        yield it


def write(source: Engine, statement: str) -> None:
    with source.begin() as connection:
        connection.execute(text(statement))


def numbers(databases: Databases) -> list[int]:
    return [row["id"] for row in loaded(databases.target)]


def fill(source: Engine, rows: int, filler: int = 100) -> None:
    """A table of `rows` rows."""
    write(source, "CREATE TABLE big (id integer PRIMARY KEY, filler text)")
    write(source, f"INSERT INTO big SELECT seq, REPEAT('x', {filler}) FROM seq_1_to_{rows}")


# -- reading -----------------------------------------------------------------------------------------------------------


def test_a_read_is_one_snapshot(mariadb: Databases) -> None:
    """Also of the rows that the server has not come to when others change them."""
    fill(mariadb.source, 50_000)
    reading = TableExtract("source", "big").batches(Window())
    first = next(reading)
    write(mariadb.source, "DELETE FROM big WHERE id > 100")
    write(mariadb.source, "INSERT INTO big VALUES (60000, 'new')")
    read = first.column("id").to_pylist() + [n for batch in reading for n in batch.column("id").to_pylist()]
    assert sorted(read) == list(range(1, 50_001))


def test_a_read_cannot_write(mariadb: Databases) -> None:
    fill(mariadb.source, 1)
    write(mariadb.source, "CREATE FUNCTION intrude() RETURNS integer DETERMINISTIC MODIFIES SQL DATA "
                          "BEGIN INSERT INTO big VALUES (2, 'intruder'); RETURN 1; END")  # fmt: skip
    with pytest.raises(SourceError, match="READ ONLY"):
        list(TableExtract("source", query="SELECT intrude() AS n").batches(Window()))


@pytest.mark.slow
def test_reading_takes_the_memory_of_a_batch(mariadb: Databases) -> None:
    """400 MB go through; a driver that fetches everything would hold them."""
    fill(mariadb.source, 200_000, filler=2_000)
    process = psutil.Process()
    before = process.memory_info().rss
    read, most = 0, 0
    for batch in TableExtract("source", "big").batches(Window()):
        read += batch.num_rows
        most = max(most, process.memory_info().rss - before)
    assert read == 200_000
    assert most < 250_000_000


def test_a_read_that_is_left_half_way_leaves_no_session_busy(mariadb: Databases) -> None:
    fill(mariadb.source, 100_000)
    for _ in range(3):
        reading = TableExtract("source", "big").batches(Window())
        next(reading)
        reading.close()  # type: ignore[attr-defined]
    with mariadb.source.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM big")).scalar_one() == 100_000
        # One that was cut off may take a moment to notice.
        busy = text("SELECT count(*) FROM information_schema.processlist WHERE db = DATABASE() AND command = 'Query' "
                    "AND id <> CONNECTION_ID()")  # fmt: skip
        deadline = datetime.now(UTC) + timedelta(seconds=20)
        while connection.execute(busy).scalar_one() and datetime.now(UTC) < deadline:
            connection.execute(text("DO SLEEP(0.05)"))
        assert connection.execute(busy).scalar_one() == 0


# -- the bound ---------------------------------------------------------------------------------------------------------


def test_without_a_lag_no_bound_is_claimed(mariadb: Databases) -> None:
    put(mariadb.source, [order(0)])
    with pytest.raises(ConfigError, match=r"no bound is safe without a `lag`.*GRANT PROCESS"):
        TableExtract("source", "orders", cursor="updated_at").bound()


def test_on_a_quiet_source_the_bound_is_its_clock_less_the_lag(mariadb: Databases) -> None:
    put(mariadb.source, [order(0)])
    before = datetime.now(UTC)
    bound = EXTRACT.bound()
    assert bound is not None and before - LAG <= bound <= datetime.now(UTC) - LAG


def test_a_transaction_that_wrote_before_a_run_and_commits_after_it_loses_no_row(mariadb: Databases) -> None:
    put(mariadb.source, [order(0)])
    with other_session(mariadb.source_url) as late:
        late.execute(text(LATE_ROW))
        write(mariadb.source, "INSERT INTO orders VALUES (2, 'other', 1.0, UTC_TIMESTAMP(6))")
        write(mariadb.source, "DO SLEEP(1.1)")  # the start of a transaction is shown in whole seconds
        run_pipeline(PIPELINE)
        assert numbers(mariadb) == [0]
        late.commit()
    write(mariadb.source, "DO SLEEP(0.02)")
    run_pipeline(PIPELINE)
    assert numbers(mariadb) == [0, 1, 2]


def test_a_list_of_transactions_from_before_the_clock_was_read_is_not_believed(mariadb: Databases) -> None:
    """The server keeps the list for a tenth of a second: one read just before a transaction began hides it."""
    put(mariadb.source, [order(0)])
    others = text("SELECT count(*) FROM information_schema.innodb_trx")
    with other_session(mariadb.source_url) as monitor, other_session(mariadb.source_url) as late:
        for _ in range(10):
            monitor.execute(others)
            monitor.rollback()
            late.execute(text("START TRANSACTION"))
            late.execute(text("INSERT INTO orders VALUES (1, 'late', 1.0, UTC_TIMESTAMP(6))"))
            wrote = late.execute(text("SELECT updated_at FROM orders WHERE id = 1")).scalar_one().replace(tzinfo=UTC)
            bound = EXTRACT.bound()
            late.rollback()
            assert bound is not None and bound <= wrote


def test_a_reader_that_cannot_write_holds_nothing_back(mariadb: Databases) -> None:
    put(mariadb.source, [order(0)])
    reading = EXTRACT.batches(Window())
    next(reading)
    with other_session(mariadb.source_url) as reader:
        reader.execute(text("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"))
        began = datetime.now(UTC)
        write(mariadb.source, "DO SLEEP(1.1)")
        bound = EXTRACT.bound()
    assert bound is not None and bound > began
    assert list(reading) == []


def test_a_transaction_that_has_not_touched_a_row_is_covered_by_the_lag_alone(mariadb: Databases) -> None:
    """Nothing shows that it has called NOW(): that is what the lag is for, and why there has to be one."""
    put(mariadb.source, [order(0)])
    patient = replace(PIPELINE, extract=replace(EXTRACT, lag=timedelta(minutes=1)))
    with other_session(mariadb.source_url) as late:
        late.execute(text("START TRANSACTION"))
        late.execute(text("SET @called = UTC_TIMESTAMP(6)"))
        run_pipeline(patient)
        with mariadb.source.connect() as connection:
            assert connection.execute(text("SELECT count(*) FROM information_schema.innodb_trx "
                                           "WHERE NOT trx_is_read_only")).scalar_one() == 0  # fmt: skip
        late.execute(text("INSERT INTO orders VALUES (1, 'late', 1.0, @called)"))
        late.commit()
    assert not isinstance(patient.extract, Feed)
    bound = patient.extract.bound()
    assert bound is not None and bound < datetime.now(UTC) - timedelta(seconds=59)
    assert numbers(mariadb) == [0]


@pytest.fixture
def limited(mariadb: Databases, mariadb_server: MariadbServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A user who may read the source and nothing else; declarations reach `source` as it from then on."""
    put(mariadb.source, [order(0)])
    user = f"limited_{uuid4().hex[:8]}"
    database = make_url(mariadb.source_url).database
    mariadb_server.execute(f"CREATE USER {user}@localhost")
    mariadb_server.execute(f"GRANT SELECT ON `{database}`.* TO {user}@localhost")
    connections.dispose()
    monkeypatch.setenv("TIDEGATE_SOURCE_URL", mariadb_server.url(str(database), user))
    yield user
    connections.dispose()
    mariadb_server.execute(f"DROP USER {user}@localhost")


def test_a_user_who_may_not_see_transactions_is_bounded_by_the_lag(mariadb: Databases, limited: str) -> None:
    with other_session(mariadb.source_url) as late:
        late.execute(text(LATE_ROW))
        write(create_engine(mariadb.source_url, poolclass=NullPool), "DO SLEEP(1.1)")
        bound = EXTRACT.bound()
    assert bound is not None and abs(datetime.now(UTC) - LAG - bound) < timedelta(seconds=1)


def test_a_user_with_the_grant_sees_the_open_transaction(
    mariadb: Databases, limited: str, mariadb_server: MariadbServer
) -> None:
    mariadb_server.execute(f"GRANT PROCESS ON *.* TO {limited}@localhost")
    with other_session(mariadb.source_url) as late:
        late.execute(text(LATE_ROW))
        wrote = datetime.now(UTC)
        write(create_engine(mariadb.source_url, poolclass=NullPool), "DO SLEEP(1.1)")
        bound = EXTRACT.bound()
    assert bound is not None and bound <= wrote


def test_a_prepared_transaction_without_a_session_stops_the_bound(
    mariadb: Databases, mariadb_server: MariadbServer
) -> None:
    """After a restart its start is the server's, so that what it wrote would be lost."""
    put(mariadb.source, [order(0)])
    name = f"'{uuid4().hex}'"
    with other_session(mariadb.source_url) as late:
        for statement in (f"XA START {name}", LATE_ROW, f"XA END {name}", f"XA PREPARE {name}"):
            late.execute(text(statement))
        assert EXTRACT.bound() is not None
        late.invalidate()
    try:
        with pytest.raises(SourceUnavailable, match="XA COMMIT or XA ROLLBACK"):
            _until_gone()
    finally:
        mariadb_server.execute(f"XA ROLLBACK {name}")


def _until_gone() -> None:
    """The server notices a moment later that a client has left."""
    deadline = datetime.now(UTC) + timedelta(seconds=20)
    while datetime.now(UTC) < deadline:
        EXTRACT.bound()


# -- errors ------------------------------------------------------------------------------------------------------------


def test_a_reader_that_the_server_cuts_off_can_be_tried_again(mariadb: Databases) -> None:
    fill(mariadb.source, 100_000, filler=500)
    reading = TableExtract("source", "big").batches(Window())
    next(reading)
    with other_session(mariadb.source_url) as other:
        (session,) = other.execute(text("SELECT id FROM information_schema.processlist WHERE db = DATABASE() "
                                        "AND info LIKE 'SELECT%big%' AND id <> CONNECTION_ID()")).scalars()  # fmt: skip
        other.execute(text(f"KILL CONNECTION {session}"))
        with pytest.raises(SourceUnavailable, match="is tried again while attempts last"):
            list(reading)


@pytest.mark.parametrize(
    ("number", "transient"),
    [(1205, True), (1213, True), (1040, True), (1053, True), (1927, True), (1317, True), (1969, True), (2013, True),
     (1146, False), (1064, False), (1142, False), (1054, False)],
)  # fmt: skip
def test_an_error_is_told_by_its_number(mariadb: Databases, number: int, transient: bool) -> None:
    """Raised by the server itself."""
    client = {2013: "KILL CONNECTION CONNECTION_ID()"}
    signal_it = f"SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = 'as asked'"
    write(mariadb.source, f"CREATE FUNCTION fail() RETURNS integer DETERMINISTIC BEGIN {signal_it}; RETURN 1; END"
          if number not in client else "DO 0")  # fmt: skip
    query = "SELECT fail() AS n" if number not in client else "SELECT SLEEP(60) AS n"
    if number in client:
        _kill_soon(mariadb)
    with pytest.raises(SourceUnavailable if transient else SourceError):
        list(TableExtract("source", query=query).batches(Window()))


def _kill_soon(databases: Databases) -> None:
    """Cut off whoever sleeps, as soon as it does."""
    asleep = text(
        "SELECT id FROM information_schema.processlist "
        "WHERE db = DATABASE() AND info LIKE 'SELECT%SLEEP(60)%' AND id <> CONNECTION_ID()"
    )

    def kill() -> None:
        with other_session(databases.source_url) as other:
            while not (found := other.execute(asleep).scalars().all()):
                pass
            other.execute(text(f"KILL CONNECTION {found[0]}"))

    threading.Thread(target=kill, daemon=True).start()


def test_a_server_that_is_gone_can_be_tried_again(mariadb: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_SOURCE_URL", "mariadb://root@127.0.0.1:1/nothing")
    with pytest.raises(SourceUnavailable):
        list(TableExtract("source", "orders").batches(Window()))
