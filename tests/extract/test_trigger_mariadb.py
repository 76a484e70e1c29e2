"""`TriggerExtract` on MariaDB: what its change log does to whoever writes, and what a server that dies does to it."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from tasks import connections
from tasks.errors import SourceError, SourceUnavailable
from tasks.pipeline import run_pipeline
from tests.conftest import Databases
from tests.extract.followed import BOOKINGS, TABLE, execute, loaded, log_of, rows, session, terms, waiting
from tests.extract.test_trigger_logs import ONCE
from tests.servers.mariadb import MariadbServer

pytestmark = pytest.mark.mariadb


@pytest.fixture
def own_server() -> Iterator[MariadbServer]:
    """A server that a test may stop; it starts with an empty database `shop`."""
    folder = Path(tempfile.mkdtemp(prefix="tidegate-mariadb-"))
    server = MariadbServer(folder / "server").start()
    server.create_database("shop")
    yield server
    connections.dispose()
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def shop(own_server: MariadbServer, postgresql: Databases, monkeypatch: pytest.MonkeyPatch) -> Databases:
    monkeypatch.setenv("TIDEGATE_SOURCE_URL", own_server.url("shop"))
    databases = Databases("mariadb", own_server.url("shop"), postgresql.target_url)
    execute(databases.source, TABLE, "INSERT INTO bookings VALUES (1, 'A', 1), (2, 'B', 2)")
    return databases


def test_deleting_what_is_loaded_waits_for_nobody_and_nobody_waits_for_it(mariadb: Databases) -> None:
    source = mariadb.source
    execute(source, TABLE)
    run_pipeline(BOOKINGS)
    with session(source) as first, session(source) as middle, session(source) as last:
        for writer in (first, middle, last):
            writer.execute(text("SET innodb_lock_wait_timeout = 0"))
        first.execute(text("INSERT INTO bookings VALUES (1, 'first', 1)"))
        execute(source, "INSERT INTO bookings SELECT seq, 'A', 1 FROM seq_100_to_199")
        middle.execute(text("INSERT INTO bookings VALUES (2, 'middle', 1)"))
        execute(source, "INSERT INTO bookings SELECT seq, 'A', 1 FROM seq_200_to_299")
        last.execute(text("INSERT INTO bookings VALUES (3, 'last', 1)"))
        assert terms(run_pipeline(BOOKINGS)) == {"extracted": 200, "inserted": 200}
        assert waiting(source) == 0
        for writer in (first, middle, last):
            writer.execute(text("UPDATE bookings SET price = 2 WHERE id < 4 AND id = :id"), {"id": 1})
            writer.rollback() if writer is middle else writer.commit()
    assert terms(run_pipeline(BOOKINGS))["extracted"] == 4
    assert loaded(mariadb.target) == rows(source)


def test_what_rolled_back_leaves_nothing_in_the_position(mariadb: Databases) -> None:
    source = mariadb.source
    execute(source, TABLE)
    run_pipeline(BOOKINGS)
    lengths = []
    for number in range(5):
        with session(source) as writer:
            for other in range(20):
                writer.execute(text(f"INSERT INTO bookings VALUES ({1000 + other}, 'A', 1)"))
                if other % 2:
                    writer.rollback()
        execute(source, f"INSERT INTO bookings VALUES ({number}, 'A', 1)")
        run_pipeline(BOOKINGS)
        lengths.append(len(rows(mariadb.target, "SELECT position FROM etl_watermarks")[0][0]))
    assert max(lengths[1:]) - lengths[1] < 5


def test_a_log_whose_numbers_go_up_in_threes_is_read_whole(mariadb: Databases) -> None:
    source = mariadb.source
    execute(source, TABLE)
    run_pipeline(BOOKINGS)
    with session(source) as node, session(source) as other:
        node.execute(text("SET auto_increment_increment = 3, auto_increment_offset = 1"))
        other.execute(text("SET auto_increment_increment = 3, auto_increment_offset = 2"))
        node.execute(text("INSERT INTO bookings VALUES (1, 'A', 1), (2, 'A', 1), (3, 'A', 1)"))
        other.execute(text("INSERT INTO bookings VALUES (4, 'B', 1), (5, 'B', 1)"))
        node.commit()
        assert terms(run_pipeline(BOOKINGS)) == {"extracted": 3, "inserted": 3}
        other.commit()
        assert terms(run_pipeline(BOOKINGS)) == {"extracted": 2, "inserted": 2}


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_a_server_that_was_started_again_is_followed_where_it_was(
    own_server: MariadbServer, shop: Databases, ending: str
) -> None:
    run_pipeline(BOOKINGS)
    execute(shop.source, "SET GLOBAL innodb_flush_log_at_trx_commit = 1", "INSERT INTO bookings VALUES (3, 'C', 3)")
    run_pipeline(BOOKINGS)
    execute(shop.source, "INSERT INTO bookings VALUES (4, 'D', 4)")
    connections.dispose()
    getattr(own_server, ending)()
    own_server.start()
    execute(shop.source, "INSERT INTO bookings VALUES (5, 'E', 5)")
    assert terms(run_pipeline(BOOKINGS)) == {"extracted": 2, "inserted": 2}
    assert terms(run_pipeline(BOOKINGS)) == {}


def test_a_server_restored_from_a_backup_is_a_clear_error(own_server: MariadbServer, shop: Databases) -> None:
    run_pipeline(BOOKINGS)
    connections.dispose()
    own_server.stop()
    shutil.copytree(own_server.folder, own_server.folder.with_name("backup"), symlinks=True)
    own_server.start()
    for number in (3, 4):
        execute(shop.source, f"INSERT INTO bookings VALUES ({number}, 'C', 3)")
        run_pipeline(BOOKINGS)
    connections.dispose()
    own_server.stop()
    shutil.rmtree(own_server.folder)
    own_server.folder.with_name("backup").rename(own_server.folder)
    own_server.start()
    with pytest.raises((SourceError, SourceUnavailable), match=r"restored from a backup.*full_refresh"):
        run_pipeline(ONCE)
    run_pipeline(BOOKINGS, full_refresh=True)
    assert loaded(shop.target) == rows(shop.source)


def test_who_waits_for_a_lock_or_is_in_a_deadlock_is_told_of_it(mariadb: Databases) -> None:
    """An error that is not the log's own is the writer's to see: half a transaction must not go on."""
    source = mariadb.source
    execute(source, TABLE, "CREATE TABLE others (id bigint PRIMARY KEY)")
    run_pipeline(BOOKINGS)
    execute(source, "INSERT INTO bookings VALUES (1, 'A', 1)")
    with session(source) as holder, session(source) as writer:
        holder.execute(text(f"SELECT * FROM {log_of(source)} FOR UPDATE")).all()
        writer.execute(text("SET innodb_lock_wait_timeout = 0"))
        with pytest.raises(Exception, match="1205"):
            writer.execute(text("INSERT INTO bookings VALUES (2, 'B', 1)"))
        writer.rollback()
    assert terms(run_pipeline(BOOKINGS)) == {"extracted": 1, "inserted": 1}
