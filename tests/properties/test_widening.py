"""Evolving a target: whatever was in it is what it was, and whatever its new contract allows fits."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import strategies as st
from sqlalchemy import Engine, Table, insert, select, text
from sqlalchemy.schema import CreateTable

from tasks import connections
from tasks.dialects import dialect_of
from tasks.load.preparation import Preparation
from tasks.load.target import target_table
from tests.properties.effort import Prove, effort
from tests.servers.mariadb import MariadbServer

INTEGERS = [(pa.int16(), 16), (pa.int32(), 32), (pa.int64(), 64)]
BY_HAND: dict[str, dict[str, str]] = {
    "postgresql": {"text": "varchar(4)", "float": "real", "real": "double precision"},
    "sqlite": {"text": "varchar(4)", "float": "float"},
    "mariadb": {"text": "varchar(4) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin", "float": "float"},
}
"""Types that no contract makes, but somebody's hand."""


@dataclass(frozen=True)
class Widening:
    """A column of an old type, with values, and a new type, with values.

    Attributes:
        old: as a contract declared it.
        by_hand: the name in `BY_HAND` of the type it was made with instead.
        new: as the contract declares it now.
        before: values of the old type.
        after: values of the new one.
    """

    old: pa.DataType
    by_hand: str | None
    new: pa.DataType
    before: list[Any]
    after: list[Any]


def integers(bits: int) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    return st.integers(1 - 10**precision, 10**precision - 1).map(lambda digits: Decimal(digits).scaleb(-scale))


def values(of: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.none() | of, min_size=1, max_size=4)


@st.composite
def widenings(draw: st.DrawFn) -> Widening:
    family = draw(st.sampled_from(["integer", "decimal", "text", "float"]))
    if family == "integer":
        (old, few), (new, many) = sorted(draw(st.tuples(*[st.sampled_from(INTEGERS)] * 2)), key=lambda one: one[1])
        return Widening(old, None, new, draw(values(integers(few))), draw(values(integers(many))))
    if family == "decimal":
        sizes = st.tuples(st.integers(1, 18), st.integers(0, 9)).map(lambda one: (max(one), one[1]))
        (few, short), (many, long) = draw(sizes), draw(sizes)
        before, after = draw(values(decimals(few, short))), draw(values(decimals(many, long)))
        return Widening(pa.decimal128(few, short), None, pa.decimal128(many, long), before, after)
    if family == "text":
        # PostgreSQL takes no NUL, and no half of a pair.
        letters = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
        return Widening(
            pa.string(), "text", pa.string(), draw(values(letters.map(lambda one: one[:4]))), draw(values(letters))
        )
    finite = st.floats(allow_nan=False, allow_infinity=False)
    single = st.floats(allow_nan=False, allow_infinity=False, width=32, allow_subnormal=False)
    return Widening(pa.float64(), "float", pa.float64(), draw(values(single)), draw(values(finite)))


@effort(few=12, many=400)
def test_what_was_there_stays_and_what_is_new_fits(engine: Engine, prove: Prove) -> None:
    dialect = dialect_of(engine)

    def claim(example: Widening) -> None:
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE IF EXISTS widened"))
        old, new = declared(example.old), declared(example.new)
        make(engine, old, example.by_hand and BY_HAND[dialect.name][example.by_hand])
        write(engine, old, 0, example.before)
        before = example.before
        preparation = Preparation("widening", dialect, new)
        preparation.run(engine)
        assert read(engine, new) == before
        assert preparation.dry_run(engine).statements == ()
        write(engine, new, len(before), example.after)
        assert read(engine, new) == before + example.after

    prove(widenings(), claim)


def declared(kind: pa.DataType) -> Table:
    columns = [pa.field("number", pa.int64(), nullable=False), pa.field("value", kind)]
    return target_table("widened", ["number"], pa.schema(columns))


def make(engine: Engine, table: Table, by_hand: str | None) -> None:
    with engine.begin() as connection:
        if by_hand is None:
            connection.execute(CreateTable(table))
        else:
            connection.execute(text(f"CREATE TABLE widened (number bigint PRIMARY KEY, value {by_hand})"))


def write(engine: Engine, table: Table, first: int, written: list[Any]) -> None:
    rows = [{"number": first + place, "value": value} for place, value in enumerate(written)]
    with engine.begin() as connection:
        connection.execute(insert(table), rows)


def read(engine: Engine, table: Table) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(select(table.c.value).order_by(table.c.number)).scalars())


@pytest.fixture(params=["postgresql", "sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An empty target."""
    if request.param != "mariadb":
        request.getfixturevalue(request.param)
        yield connections.engine("target")
        return
    server: MariadbServer = request.getfixturevalue("mariadb_server")
    server.create_database("widening")
    monkeypatch.setenv("TIDEGATE_TARGET_URL", server.url("widening"))
    yield connections.engine("target")
    connections.dispose()
    server.drop_database("widening")
