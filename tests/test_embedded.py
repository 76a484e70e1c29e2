"""`EmbeddedPostgres`: it is there when asked for, for as long as anybody uses it, and gone afterwards."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tasks.embedded import EmbeddedPostgres
from tasks.errors import TargetUnavailable
from tests.servers.cluster import remove_folder

USE = """
import sys
from pathlib import Path
from tasks.embedded import EmbeddedPostgres

EmbeddedPostgres(Path(sys.argv[1])).use()
print("up", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the server's own user may reach."""
    path = Path(tempfile.mkdtemp(prefix="tidegate-embedded-"))
    yield path
    remove_folder(path)


@pytest.fixture
def server(cluster: EmbeddedPostgres) -> EmbeddedPostgres:
    """A second user of the session's cluster, in this process."""
    return EmbeddedPostgres(cluster.folder)


def test_a_cluster_that_was_never_started_says_so(folder: Path) -> None:
    with pytest.raises(TargetUnavailable, match="does not run"):
        _ = EmbeddedPostgres(folder).pid


def test_the_server_stays_while_one_of_its_users_does(cluster: EmbeddedPostgres, server: EmbeddedPostgres) -> None:
    before = cluster.pid
    server.use()
    server.use()
    server.release()
    server.release()
    assert cluster.running
    assert cluster.pid == before


def test_the_last_user_stops_the_server_and_the_data_stays(folder: Path) -> None:
    server = EmbeddedPostgres(folder).use()
    server.ensure_database("kept")
    with _connect(server, "kept") as connection:
        connection.execute("CREATE TABLE rows AS SELECT 7 AS number")
    server.release()
    assert not server.running
    server.use()
    with _connect(server, "kept") as connection:
        assert connection.execute("SELECT number FROM rows").fetchone() == (7,)
    server.release()


@pytest.mark.slow
def test_a_server_whose_users_were_killed_is_taken_over(folder: Path) -> None:
    """Two processes share it; neither can say goodbye."""
    users = [_user(folder) for _ in range(2)]
    server = EmbeddedPostgres(folder)
    pid = server.pid
    for user in users:
        user.send_signal(signal.SIGKILL)
        user.communicate(timeout=60)
    assert server.running
    assert server.use().pid == pid
    server.release()
    assert not server.running


def test_a_database_is_made_once(server: EmbeddedPostgres) -> None:
    server.use()
    for _ in range(2):
        server.ensure_database('with "quotes"; and more')
    with _connect(server, "postgres") as connection:
        query = "SELECT count(*) FROM pg_database WHERE datname = %s"
        assert connection.execute(query, ('with "quotes"; and more',)).fetchone() == (1,)
    server.release()


def test_a_socket_path_that_is_too_long_moves_to_the_temporary_folder(folder: Path) -> None:
    deep = EmbeddedPostgres(folder / ("x" * 100))
    assert deep.socket_folder.parent == Path(tempfile.gettempdir())
    assert deep.socket_folder != EmbeddedPostgres(folder / ("y" * 100)).socket_folder
    assert len(str(deep.socket_folder / ".s.PGSQL.5432")) <= 107
    assert EmbeddedPostgres(folder).socket_folder.parent == folder


def test_it_listens_on_no_port(cluster: EmbeddedPostgres) -> None:
    with _connect(cluster, "postgres") as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        assert connection.execute("SHOW wal_level").fetchone() == ("logical",)


def _connect(server: EmbeddedPostgres, database: str) -> "psycopg.Connection[tuple[object, ...]]":
    return psycopg.connect(host=str(server.socket_folder), user="postgres", dbname=database)


def _user(folder: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", USE, str(folder)], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process
