"""What is MariaDB's own: its GTIDs, which lead on after a failover, its types, and what the connector cannot read."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tasks import connections
from tasks.errors import ConfigError, SourceError
from tasks.pipeline import run_pipeline
from tests.conftest import Databases
from tests.extract.test_debezium import BOOKINGS, CREATE, EVERYTHING
from tests.extract.test_log import execute, rows, terms
from tests.servers.debezium import needs_mariadb_jars
from tests.servers.mariadb import MariadbServer
from tests.servers.relay import Relay

pytestmark = [pytest.mark.debezium, pytest.mark.mariadb, pytest.mark.timeout(240)]


class Pair:
    """A server and its replica, either of which can be the source."""

    def __init__(self, stack: contextlib.ExitStack, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._servers, self._ports = [], []
        for number in (1, 2):
            server = MariadbServer(folder / str(number), f"--server-id={number}", "--log-slave-updates").start()
            stack.callback(server.stop)
            self._servers.append(server)
            self._ports.append(stack.enter_context(Relay(server.socket)).port)
        stack.callback(connections.dispose)
        self._servers[1].execute(
            f"CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={self._ports[0]}, MASTER_USER='root', "
            "MASTER_USE_GTID=slave_pos"
        )
        self._servers[1].execute("START SLAVE")
        self._servers[0].create_database("shop")
        self.use(0)

    def use(self, number: int) -> Engine:
        """Let it be the source."""
        connections.dispose()
        url = f"mariadb+pymysql://root@127.0.0.1:{self._ports[number]}/shop"
        self._monkeypatch.setenv("TIDEGATE_SOURCE_URL", url)
        return connections.engine("source")

    def fail_over(self) -> Engine:
        """The replica has everything, and is the source from now on."""
        [(written,)] = rows(self.use(0), "SELECT @@gtid_binlog_pos")
        replica = self.use(1)
        assert rows(replica, f"SELECT MASTER_GTID_WAIT('{written}', 60)") == [(0,)]
        execute(replica, "STOP SLAVE")
        return replica


@pytest.fixture
def replicated(
    postgresql: Databases, debezium_ports: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pair]:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        yield Pair(stack, Path(folder), monkeypatch)


@needs_mariadb_jars
def test_after_a_failover_the_replica_is_followed_on(postgresql: Databases, replicated: Pair) -> None:
    first = connections.engine("source")
    execute(first, CREATE, "INSERT INTO bookings VALUES (1, 'A', 1)", *["FLUSH BINARY LOGS"] * 5)
    run_pipeline(BOOKINGS)
    execute(first, "INSERT INTO bookings VALUES (2, 'B', 1)")
    run_pipeline(BOOKINGS)
    execute(first, "INSERT INTO bookings VALUES (3, 'C', 1)")
    second = replicated.fail_over()
    execute(second, "DELETE FROM bookings WHERE id = 1")
    assert terms(run_pipeline(BOOKINGS)) == {"extracted": 2, "inserted": 1, "deleted": 1}
    execute(second, "ALTER TABLE bookings ADD COLUMN meal text", "UPDATE bookings SET seat = 'D' WHERE id = 2")
    assert terms(run_pipeline(BOOKINGS)) == {"extracted": 1, "updated": 1}
    assert terms(run_pipeline(BOOKINGS)) == {}
    assert rows(postgresql.target) == rows(second, EVERYTHING)


@needs_mariadb_jars
def test_a_replica_that_lacks_what_was_read_is_a_clear_error(postgresql: Databases, replicated: Pair) -> None:
    first = connections.engine("source")
    execute(first, CREATE)
    second = replicated.fail_over()
    execute(replicated.use(0), "INSERT INTO bookings VALUES (1, 'A', 1)")
    run_pipeline(BOOKINGS)
    replicated.use(1)
    with pytest.raises(SourceError, match=r"cannot be read any more: the server has written only up to.*full_refresh"):
        run_pipeline(BOOKINGS)
    assert rows(second, "SELECT * FROM bookings") == []


@pytest.mark.parametrize(
    ("statement", "undo", "message"),
    [
        ("SET GLOBAL log_bin_compress = 1", "SET GLOBAL log_bin_compress = 0", "log_bin_compress=ON.*full_refresh"),
        ("ALTER TABLE bookings ADD SYSTEM VERSIONING", "SELECT 1", "system-versioned"),
        ("ALTER TABLE bookings ADD COLUMN (u uuid, i inet6)", "SELECT 1", "misreads.*columns of them: u, i"),
    ],
)
def test_what_the_connector_passes_over_or_misreads_is_refused(
    debezium_mariadb: Databases, statement: str, undo: str, message: str
) -> None:
    execute(debezium_mariadb.source, CREATE, statement)
    try:
        with pytest.raises(ConfigError, match=message):
            run_pipeline(BOOKINGS)
    finally:
        execute(debezium_mariadb.source, undo)


@needs_mariadb_jars
def test_transactions_of_several_replication_domains_come_once(debezium_mariadb: Databases) -> None:
    execute(debezium_mariadb.source, CREATE)
    run_pipeline(BOOKINGS)
    for number, domain in enumerate((5, 0, 5, 7, 0)):
        with debezium_mariadb.source.connect() as connection:
            connection.detach()
            connection.exec_driver_sql(f"SET SESSION gtid_domain_id = {domain}")
            connection.exec_driver_sql(f"INSERT INTO bookings VALUES ({number}, 'A', 1)")
            connection.commit()
        assert terms(run_pipeline(BOOKINGS)) == {"extracted": 1, "inserted": 1}


@needs_mariadb_jars
def test_a_binlog_begun_anew_is_followed_from_its_beginning_and_noticed_later(debezium_mariadb: Databases) -> None:
    source = debezium_mariadb.source
    execute(source, CREATE, "INSERT INTO bookings VALUES (1, 'A', 1)", "RESET MASTER")
    assert terms(run_pipeline(BOOKINGS)) == {"extracted": 1, "inserted": 1}
    execute(source, "INSERT INTO bookings VALUES (2, 'A', 1)")
    assert terms(run_pipeline(BOOKINGS)) == {"extracted": 1, "inserted": 1}
    execute(source, "INSERT INTO bookings VALUES (3, 'A', 1)", "RESET MASTER")
    with pytest.raises(SourceError, match=r"written only up to no GTID.*full_refresh"):
        run_pipeline(BOOKINGS)
