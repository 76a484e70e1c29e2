"""Every value that triggers write down is the one that `TableExtract` reads, in the same type."""

from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy import Engine

from tasks.change_columns import BEFORE, COMMITTED_AT, OPERATION, POSITION
from tasks.dialects import dialect_of
from tasks.extract.feed import Home
from tasks.extract.table import TableExtract
from tasks.extract.triggers import TriggerExtract
from tasks.window import Window
from tests.conftest import Databases
from tests.extract.followed import execute

COLUMNS = {
    "postgresql": (
        "a smallint, b boolean, c double precision, d numeric(38, 9), e numeric, f date, g time, h timestamp, "
        "i timestamptz, j uuid, k jsonb, l bytea, m int[], n varchar(9), o char(5), p real, q interval, r inet, "
        "s int GENERATED ALWAYS AS (a * 2) STORED",
        [
            """-7, true, 0.1, 12345678901234567890123456789.123456789, 1e-20, '2024-02-29', '23:59:59.999999',
            '2024-02-29 12:00:00.000001', '2024-02-29 12:00:00.5+02', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
            '{"a": "é"}', '\\x00ff', '{1,NULL,3}', 'ß"''\\', 'x', 0.1, '1 day 2 hours', '10.0.0.1/8'""",
            "NULL, false, 'NaN', 0, 'NaN', '0001-01-01', '00:00', '1969-12-31', '1969-12-31', NULL, '[]', '', '{}', "
            "'', '', '-Infinity', NULL, NULL",
        ],
    ),
    "sqlite": (
        "a integer, b boolean, c real, d numeric, f date, h timestamp, l blob, n varchar(9), o, "
        "s integer GENERATED ALWAYS AS (a * 2) STORED, v integer GENERATED ALWAYS AS (a * 3) VIRTUAL",
        [
            "-7, 1, 0.1, 12.5, '2024-02-29', '2024-02-29 12:00:00.000001', x'00ff', 'ß\"''\\', 'x'",
            "9007199254740993, 0, 1e300, 0, '0001-01-01', '1969-12-31 00:00:00', x'', '', 7",
        ],
    ),
    "mariadb": (
        "a tinyint, b boolean, c double, d decimal(38, 9), e decimal(20, 0) unsigned, f date, g time(6), "
        "h datetime(6), i timestamp(3) NULL, j bigint unsigned, k json, l varbinary(300), m bit(12), n varchar(300), "
        "o char(5), p float, q enum('x', 'ß''', ''), r set('a', 'b'), t year, u mediumint zerofill, w longblob, "
        "x binary(4), y tinytext, z bit(1), aa inet6, bb uuid, cc varchar(9) CHARACTER SET latin1, dd datetime, "
        "s int GENERATED ALWAYS AS (a * 2) STORED, v int GENERATED ALWAYS AS (a * 3) VIRTUAL",
        [
            """-7, true, 0.1, 12345678901234567890123456789.123456789, 12345678901234567890, '2024-02-29',
            '23:59:59.999999', '2024-02-29 12:00:00.000001', '2024-02-29 12:00:00.5', 18446744073709551615,
            '{"a": "é"}', x'00ff', b'101', 'ß"''\\\\', 'x', 0.1, 'ß''', 'a,b', 2024, 42, x'0001', 'ab', 'tiny', 1,
            '::1', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'é', '1000-01-01 00:00:00'""",
            """NULL, false, -1e300, 0, 0, '0001-01-01', '00:00:00', '1969-12-31', '2038-01-19 03:14:07', 0, '[]', '', 0,
            '', '', 16777217, '', '', 1901, 0, '', '', '', 0, NULL, NULL, '', '9999-12-31 23:59:59'""",
        ],
    ),
}
# SQLAlchemy knows no inet6 and no uuid of MariaDB's; they are read all the same.
pytestmark = pytest.mark.filterwarnings("ignore:Did not recognize type")

OWN = (OPERATION, BEFORE, POSITION, COMMITTED_AT)


def followed(target: Engine, position: str | None) -> tuple[pa.Table, str | None]:
    """The changes after `position`, and where they end."""
    feed = TriggerExtract("source", "kinds", key=["id"])
    with feed.open(Home("kinds", "tidegate_kinds", target, dialect_of(target), "only"), position) as chunk:
        batches = list(chunk.batches())
        chunk.acknowledge()
        return pa.concat_tables(batches, promote_options="permissive") if batches else pa.table({}), chunk.position


def table(name: str = "kinds") -> pa.Table:
    return pa.concat_tables(list(TableExtract("source", name).batches(Window()))).sort_by("id")


def columns(rows: pa.Table) -> dict[str, tuple[pa.DataType, list[object]]]:
    # As text, since NaN is not equal to itself.
    return {
        name: (rows.column(name).type, list(map(repr, rows.column(name).to_pylist())))
        for name in rows.column_names
        if name not in OWN
    }


@pytest.fixture
def kinds(sources: Databases) -> tuple[Databases, str]:
    """A table of every type, followed and still empty."""
    declared, _ = COLUMNS[sources.kind]
    execute(sources.source, f"CREATE TABLE kinds (id bigint NOT NULL PRIMARY KEY, {declared})")
    _, position = followed(sources.target, None)
    assert position is not None
    return sources, position


def insert(databases: Databases) -> None:
    _, values = COLUMNS[databases.kind]
    named = ", ".join(part.split()[0] for part in _declared(databases.kind))
    for number, row in enumerate([*values, ", ".join(["NULL"] * len(_declared(databases.kind)))]):
        execute(databases.source, f"INSERT INTO kinds (id, {named}) VALUES ({number}, {row})")


def _declared(kind: str) -> list[str]:
    """The columns that can be written."""
    depth, parts = 0, [""]
    for letter in COLUMNS[kind][0]:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part for part in parts if "GENERATED" not in part]


def test_what_is_inserted_has_the_values_and_types_that_a_table_read_gives(kinds: tuple[Databases, str]) -> None:
    databases, position = kinds
    insert(databases)
    changes, _ = followed(databases.target, position)
    assert columns(changes) == columns(table())


def test_what_is_updated_has_them_too_and_before_it_the_old_ones(kinds: tuple[Databases, str]) -> None:
    databases, position = kinds
    insert(databases)
    before = table()
    _, position = followed(databases.target, position)  # type: ignore[assignment]
    execute(databases.source, "UPDATE kinds SET a = 3")
    changes, _ = followed(databases.target, position)
    assert set(changes.column(OPERATION).to_pylist()) == {"update"}
    changes = changes.sort_by("id")
    assert columns(changes) == columns(table())
    old = pa.Table.from_struct_array(changes.column(BEFORE).combine_chunks())
    assert columns(old) == columns(before)


def test_what_is_deleted_has_the_old_ones(kinds: tuple[Databases, str]) -> None:
    databases, position = kinds
    insert(databases)
    before = table()
    _, position = followed(databases.target, position)  # type: ignore[assignment]
    execute(databases.source, "DELETE FROM kinds")
    changes, _ = followed(databases.target, position)
    assert columns(changes.sort_by("id")) == columns(before)


@pytest.mark.mariadb
def test_whoever_writes_with_another_zone_and_mode_is_written_down_exactly(mariadb: Databases) -> None:
    execute(
        mariadb.source, "CREATE TABLE kinds (id bigint NOT NULL PRIMARY KEY, i timestamp NULL, f date, n varchar(3))"
    )
    _, position = followed(mariadb.target, None)
    with mariadb.source.connect() as writer:
        writer.detach()
        for statement in (
            "SET time_zone = '-07:00', sql_mode = ''",
            "INSERT INTO kinds VALUES (1, '2024-03-10 02:30:00', '0000-00-00', 'too long')",
            "INSERT INTO kinds VALUES (2, '0000-00-00 00:00:00', '2024-02-31', 'ok')",
            "SET sql_mode = 'ALLOW_INVALID_DATES'",
            "INSERT INTO kinds VALUES (3, NULL, '2024-02-31', 'ok')",
        ):
            writer.exec_driver_sql(statement)
        writer.commit()
    changes, _ = followed(mariadb.target, position)
    assert columns(changes) == columns(table())


@pytest.mark.mariadb
def test_a_row_as_long_as_a_row_may_be_is_written_down(mariadb: Databases) -> None:
    execute(mariadb.source, "CREATE TABLE kinds (id bigint NOT NULL PRIMARY KEY, a varchar(16000), b varbinary(1000))")
    _, position = followed(mariadb.target, None)
    execute(mariadb.source, "INSERT INTO kinds VALUES (1, REPEAT('é', 16000), REPEAT('b', 1000))")
    execute(mariadb.source, "UPDATE kinds SET a = REPEAT('ß', 16000)")
    changes, _ = followed(mariadb.target, position)
    assert changes.column("a").to_pylist() == ["é" * 16_000, "ß" * 16_000]
    assert changes.schema.field("b").type == table().schema.field("b").type


@pytest.mark.mariadb
def test_rows_loaded_from_a_file_and_many_at_once_are_written_down(mariadb: Databases, tmp_path: Path) -> None:
    execute(mariadb.source, "CREATE TABLE kinds (id bigint NOT NULL PRIMARY KEY, n varchar(9))")
    _, position = followed(mariadb.target, None)
    file = tmp_path / "rows.csv"
    file.write_text("1\ta\n2\tb\n")
    tmp_path.chmod(0o755)
    execute(
        mariadb.source,
        f"LOAD DATA INFILE '{file}' INTO TABLE kinds",
        "INSERT INTO kinds SELECT seq, 'c' FROM seq_3_to_500",
        "INSERT IGNORE INTO kinds VALUES (1, 'x'), (501, 'y')",
    )
    changes, _ = followed(mariadb.target, position)
    assert columns(changes.sort_by("id")) == columns(table())
