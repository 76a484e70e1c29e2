"""Every type on every target: read back to the last digit, unchanged when it comes again, or a dead letter."""

import json
import math
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import pandas as pd
import pandera.pandas as pa
import pyarrow
import pytest
from sqlalchemy import select, text

from tasks import connections
from tasks.errors import ContractError, TargetError
from tasks.extract.table import TableExtract
from tasks.load.upsert import Upsert
from tasks.pipeline import Pipeline, Sla, run_pipeline
from tasks.running.assembly import Assembly
from tasks.state.tables import dead_letters
from tasks.transform.contract import Json, UtcTimestamp, Uuid
from tests.conftest import Databases

NAN, INFINITY = math.nan, math.inf


class TypedSchema(pa.DataFrameModel):
    """A column of every type that any target holds."""

    id: int
    exact: Annotated[pd.ArrowDtype, pyarrow.decimal128(38, 9)] = pa.Field(nullable=True)
    large: Annotated[pd.ArrowDtype, pyarrow.int64()] = pa.Field(nullable=True)
    flag: Annotated[pd.ArrowDtype, pyarrow.bool_()] = pa.Field(nullable=True)
    day: Annotated[pd.ArrowDtype, pyarrow.date32()] = pa.Field(nullable=True)
    instant: UtcTimestamp = pa.Field(nullable=True)
    naive: Annotated[pd.ArrowDtype, pyarrow.timestamp("us")] = pa.Field(nullable=True)
    clock: Annotated[pd.ArrowDtype, pyarrow.time64("us")] = pa.Field(nullable=True)
    uid: Uuid = pa.Field(nullable=True)
    document: Json = pa.Field(nullable=True)
    words: str = pa.Field(nullable=True)
    raw: Annotated[pd.ArrowDtype, pyarrow.binary()] = pa.Field(nullable=True)
    number: Annotated[pd.ArrowDtype, pyarrow.float64()] = pa.Field(nullable=True)


SOURCE = """
    CREATE TABLE typed (id bigint, exact numeric(38, 9), large bigint, flag boolean, day date, instant timestamptz,
                        naive timestamp, clock time, uid uuid, document jsonb, words text, raw bytea,
                        number double precision)
"""

VALUES: dict[str, list[Any]] = {
    "exact": [Decimal("99999999999999999999999999999.999999999"), Decimal("-99999999999999999999999999999.999999999"),
              Decimal("0.000000001"), Decimal("0E-9"), Decimal("1.500000000")],
    "large": [2**63 - 1, -(2**63), 0],
    "flag": [True, False],
    "day": [date(1, 1, 1), date(9999, 12, 31), date(2024, 2, 29)],
    "instant": [datetime(2026, 1, 1, 12, 0, 0, 1, UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC),
                datetime(1, 1, 1, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC)],
    "naive": [datetime(2026, 3, 29, 2, 30, 0, 1), datetime.max, datetime.min],
    "clock": [time(), time(23, 59, 59, 999_999)],
    "uid": [UUID("f81d4fae-7dec-11d0-a765-00a0c91e6bf6"), UUID(int=0), UUID(int=2**128 - 1)],
    "document": ['{"a": [1, null, "ü🌊\\\\\\"\\n"], "b": 1.10}', "[]", "null", '""', "12345678901234567890.123"],
    "words": ["", " ", "a", "A", "a ", "é", "e\u0301", "🌊", "O'Brien \"quoted\" \\ back\\", "tab\t line\r\nline",
              "%s :x ?", "NULL", "\\N", "x" * 70_000],
    "raw": [b"", bytes(range(256)), b"\x00", b"a", b"a "],
    "number": [0.1, 5e-324, 1.7976931348623157e308, -1.5, 1e15, 123456789.123456789, 0.0],
}  # fmt: skip
"""What all three hold; NULL besides."""

NUMBERS = {"postgresql": [NAN, INFINITY, -INFINITY, -0.0], "sqlite": [INFINITY, -INFINITY], "mariadb": []}
"""Further ones that a target holds. SQLite and MariaDB do not keep the sign of a zero."""

TYPED = Pipeline(
    name="typed",
    extract=TableExtract("source", "typed"),
    schema=TypedSchema,
    load=Upsert("target", "fct_typed", key=["id"]),
    sla=Sla(abort_error_rate=1.0),
)


@pytest.fixture
def typed(postgresql: Databases, targets: Databases, monkeypatch: pytest.MonkeyPatch) -> Databases:
    """A PostgreSQL source, which holds more than any of the targets, and each target."""
    monkeypatch.setenv("TIDEGATE_SOURCE_URL", postgresql.source_url)
    return Databases(targets.kind, postgresql.source_url, targets.target_url)


def rows(kind: str) -> list[dict[str, Any]]:
    """As many as the longest column of values needs; NULL in those that are shorter."""
    values = VALUES | {"number": VALUES["number"] + NUMBERS[kind]}
    longest = max(map(len, values.values())) + 1
    columns = {name: found + [None] * (longest - len(found)) for name, found in values.items()}
    return [{"id": number, **{name: columns[name][number] for name in columns}} for number in range(longest)]


def fill(databases: Databases, found: list[dict[str, Any]]) -> None:
    """Let the source hold these rows."""
    names = list(found[0])
    with databases.source.begin() as connection:
        connection.execute(text(SOURCE))
        places = ", ".join(f"CAST(:{name} AS jsonb)" if name == "document" else f":{name}" for name in names)
        connection.execute(text(f"INSERT INTO typed ({', '.join(names)}) VALUES ({places})"), found)


def read(pipeline: Pipeline) -> list[dict[str, Any]]:
    """The target's rows, by id."""
    target = Assembly(pipeline).target
    with connections.engine("target").connect() as connection:
        return [dict(row._mapping) for row in connection.execute(select(target).order_by(target.c.id))]


def exactly(value: Any) -> Any:
    """A value that equals another only if both are the same to the last bit; documents by what they say."""
    return (type(value), repr(value))


def test_every_type_is_read_back_exactly_and_unchanged_when_it_comes_again(typed: Databases) -> None:
    written = rows(typed.kind)
    fill(typed, written)
    assert run_pipeline(TYPED).counts.inserted == len(written)
    for row, kept in zip(written, read(TYPED), strict=True):
        documents = [None if each is None else json.loads(each) for each in (row.pop("document"), kept.pop("document"))]
        assert documents[0] == documents[1]
        assert {name: exactly(kept[name]) for name in row} == {name: exactly(value) for name, value in row.items()}
    again = run_pipeline(TYPED).counts
    assert (again.unchanged, again.extracted) == (len(written), len(written))


@pytest.mark.parametrize(
    ("column", "old", "new"),
    [
        ("words", "a", "A"),
        ("words", "a", "a "),
        ("words", "", None),
        ("words", "é", "e\u0301"),
        ("raw", b"a", b"a "),
        ("document", '{"a": 1}', '{"a": 2}'),
        ("document", "null", None),
        ("number", 0.1, math.nextafter(0.1, 1)),
        ("exact", Decimal("0.000000001"), Decimal("0.000000002")),
        ("instant", datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC)),
        ("flag", False, None),
        ("uid", UUID(int=0), UUID(int=1)),
    ],
)
@pytest.mark.slow
def test_the_least_difference_is_an_update(typed: Databases, column: str, old: Any, new: Any) -> None:
    fill(typed, [{"id": 1, column: old}])
    run_pipeline(TYPED)
    with typed.source.begin() as connection:
        value = "CAST(:value AS jsonb)" if column == "document" else ":value"
        connection.execute(text(f"UPDATE typed SET {column} = {value}"), {"value": new})
    assert run_pipeline(TYPED).counts.updated == 1
    assert exactly(read(TYPED)[0][column]) == exactly(new)


def test_texts_that_differ_in_a_letter_or_a_blank_are_different_keys(typed: Databases) -> None:
    class Words(pa.DataFrameModel):
        words: str = pa.Field(str_length={"max_value": 20})

    names = ["a", "A", "a ", "é", "e\u0301", "e", "", " "]
    fill(typed, [{"words": name} for name in names])
    pipeline = Pipeline("words", TableExtract("source", "typed"), Words, Upsert("target", "dim_words", key=["words"]))
    first, second = (run_pipeline(pipeline).counts for _ in range(2))
    assert (first.inserted, second.unchanged) == (len(names), len(names))


def test_arrays_are_arrays_on_postgresql_and_refused_elsewhere(typed: Databases) -> None:
    class Arrays(pa.DataFrameModel):
        id: int
        numbers: Annotated[pd.ArrowDtype, pyarrow.list_(pyarrow.int64())] = pa.Field(nullable=True)
        words: Annotated[pd.ArrowDtype, pyarrow.list_(pyarrow.string())] = pa.Field(nullable=True)

    query = r"""SELECT 1::bigint AS id, ARRAY[1, NULL, 9223372036854775807] AS numbers, '{}'::text[] AS words
                UNION ALL SELECT 2, NULL, ARRAY['', NULL, 'NULL', '{"a,b\}', '🌊']"""
    extract, load = TableExtract("source", query=query), Upsert("target", "fct_arrays", key=["id"])
    pipeline = Pipeline("arrays", extract, Arrays, load)
    if typed.kind != "postgresql":
        with pytest.raises(ContractError, match=rf"column 'numbers' is declared as list.* {typed.kind} has no arrays"):
            run_pipeline(pipeline)
        return
    first, second = (run_pipeline(pipeline).counts for _ in range(2))
    assert (first.inserted, second.unchanged) == (2, 2)
    assert read(pipeline) == [
        {"id": 1, "numbers": [1, None, 2**63 - 1], "words": []},
        {"id": 2, "numbers": None, "words": ["", None, "NULL", '{"a,b\\}', "🌊"]},
    ]


@dataclass(frozen=True)
class Unheld:
    """A value that a target cannot hold.

    Attributes:
        target: which.
        column: of `TypedSchema`.
        value: an SQL expression for it, in a PostgreSQL or, where that cannot hold it either, in a SQLite.
        told: how the dead letter tells it.
        rule: the rule it names.
    """

    target: str
    column: str
    value: str
    told: Any
    rule: str

    @property
    def source(self) -> str:
        return "sqlite" if "char(0)" in self.value else "postgresql"


_YEARS = "a day of the years 1 to 9999"

UNHELD = [
    Unheld("postgresql", "words", "'a' || char(0) || 'b'", "a\0b", "no NUL in a text"),
    Unheld("postgresql", "document", """'"\\u0000"' || substr(char(0), 2)""", '"\\u0000"', "no NUL in a text of JSON"),
    Unheld("mariadb_target", "number", "'NaN'::float8", NAN, "no NaN and no infinity"),
    Unheld("mariadb_target", "number", "'-Infinity'::float8", -INFINITY, "no NaN and no infinity"),
    Unheld("mariadb_target", "day", "'12000-01-01'::date", "12000-01-01", _YEARS),
    Unheld("mariadb_target", "naive", "'0001-01-01 BC'::timestamp", "0000-01-01 00:00:00.000000", _YEARS),
    Unheld("sqlite", "number", "'NaN'::float8", NAN, "no NaN"),
    Unheld("sqlite", "instant", "'10000-01-01 00:00Z'::timestamptz", "10000-01-01 00:00:00.000000Z", _YEARS),
]


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            each,
            id=f"{each.target} {each.column} {number}",
            marks=[pytest.mark.mariadb] if each.target == "mariadb_target" else [],
        )
        for number, each in enumerate(UNHELD)
    ],
)
def test_a_value_that_the_target_cannot_hold_is_a_dead_letter_that_says_so(
    request: pytest.FixtureRequest, case: Unheld, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = {kind: request.getfixturevalue(kind).source_url for kind in ("postgresql", "sqlite")}
    databases: Databases = request.getfixturevalue(case.target)
    monkeypatch.setenv("TIDEGATE_TARGET_URL", databases.target_url)
    monkeypatch.setenv("TIDEGATE_SOURCE_URL", sources[case.source])
    columns = {case.column: TypedSchema.__annotations__[case.column], "id": int}
    schema = type("Narrow", (pa.DataFrameModel,), {"__annotations__": columns, case.column: pa.Field(nullable=True)})
    good = f"SELECT 1 AS id, {case.value} AS {case.column}"
    query = f"{good} UNION ALL SELECT 2, NULL"
    pipeline = Pipeline(
        "narrow", TableExtract("source", query=query), schema, Upsert("target", "fct_narrow", key=["id"]),
        sla=Sla(abort_error_rate=1.0),
    )  # fmt: skip
    counts = run_pipeline(pipeline).counts
    assert (counts.inserted, counts.rejected) == (1, 1)
    with connections.engine("target").connect() as connection:
        letter = connection.execute(select(dead_letters)).one()
    [reason] = json.loads(letter.reasons)
    assert reason["column"] == case.column and repr(reason["value"]) == repr(case.told)
    assert case.rule in reason["rule"] and databases.kind in reason["rule"]
    assert (letter.row_key, letter.status) == ("1", "open")
    assert run_pipeline(pipeline).counts.unchanged == 1, "the good row is untouched"


def test_a_text_that_is_too_long_for_a_key_is_a_dead_letter(mariadb_target: Databases) -> None:
    class Words(pa.DataFrameModel):
        words: str

    query = "SELECT printf('%.255c', 'x') AS words UNION ALL SELECT printf('%.256c', 'y')"
    load = Upsert("target", "dim_words", key=["words"])
    pipeline = Pipeline("words", TableExtract("source", query=query), Words, load, sla=Sla(abort_error_rate=1.0))
    counts = run_pipeline(pipeline).counts
    assert (counts.inserted, counts.rejected) == (1, 1)
    with mariadb_target.target.connect() as connection:
        [reason] = json.loads(connection.execute(select(dead_letters.c.reasons)).scalar_one())
    assert reason == {
        "rule": "mariadb holds it: at most 255 characters in a key",
        "column": "words",
        "value": "y" * 256,
    }


def test_a_row_that_is_longer_than_a_statement_may_be_is_refused_at_once(mariadb_target: Databases) -> None:
    """It fits into no dead letter either; the server would hang up on it, which looks as if it were not available."""

    class Long(pa.DataFrameModel):
        id: int
        words: str

    query = "SELECT 1 AS id, printf('%.9000000c', 'x') AS words"
    pipeline = Pipeline("long", TableExtract("source", query=query), Long, Upsert("target", "fct_long", key=["id"]))
    with pytest.raises(TargetError, match=r"A row of 9,000,000 bytes is longer.*max_allowed_packet is 16,777,216"):
        run_pipeline(pipeline)
    shorter = TableExtract("source", query=query.replace("9000000", "8000000"))
    assert run_pipeline(replace(pipeline, extract=shorter)).counts.inserted == 1


def test_a_key_that_may_be_longer_than_a_key_can_be_is_refused(mariadb_target: Databases) -> None:
    class Wide(pa.DataFrameModel):
        a: str
        b: str
        c: str
        d: str

    query = "SELECT 'a' AS a, 'b' AS b, 'c' AS c, 'd' AS d"
    load = Upsert("target", "dim_wide", key=["a", "b", "c", "d"])
    with pytest.raises(ContractError, match=r"may take 4,080 bytes.*str_length=\{'max_value': 50\}"):
        run_pipeline(Pipeline("wide", TableExtract("source", query=query), Wide, load))

    class Bounded(Wide):
        d: str = pa.Field(str_length=1)

    assert run_pipeline(Pipeline("wide", TableExtract("source", query=query), Bounded, load)).counts.inserted == 1
