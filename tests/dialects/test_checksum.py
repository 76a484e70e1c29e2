"""The hash of a row is the same in every database, and the same as in Python."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID as Uuid

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Engine, Integer, MetaData, Table, delete, insert, select

from tasks.column_types import TABLE_OPTIONS, UTC_TIMESTAMP, UUID, sql_type
from tasks.dialects import dialect_of
from tasks.dialects.checksum.canonical import canonical, digest, family_of, joined, number, value_of
from tests.conftest import Databases

KINDS: dict[str, pa.DataType] = {
    "whole": pa.int64(),
    "flag": pa.bool_(),
    "words": pa.string(),
    "amount": pa.decimal128(30, 10),
    "share": pa.float64(),
    "at": UTC_TIMESTAMP,
    "local": pa.timestamp("us"),
    "day": pa.date32(),
    "code": UUID,
    "raw": pa.binary(),
}
NASTY: list[dict[str, Any]] = [
    {},
    {"words": "", "raw": b""},
    {"words": "N"},
    {"words": "1:a2:bb", "raw": b"\x00\xff"},
    {"words": "naïve 日本 🚢 e\u0301 \x1f\x1e '\\ %s", "flag": False, "whole": 0},
    {"words": "trailing  ", "whole": -(2**63), "flag": True},
    {"amount": Decimal("0.0000000000"), "share": -0.0, "whole": 2**63 - 1},
    {"amount": Decimal("-0.0000000001"), "share": 0.1},
    {"amount": Decimal("12345678901234567890.1000000000"), "share": 1e22},
    {"amount": Decimal("1500.0000000000"), "share": 5e-324},
    {"amount": Decimal("-1.5000000000"), "share": 1.7976931348623157e308},
    {"share": 2 / 3, "at": datetime(1, 1, 1, tzinfo=UTC), "local": datetime(999, 12, 31, 23, 59, 59, 1)},
    {"share": 123456789.125, "at": datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), "day": date(1, 1, 1)},
    {"share": -1e100, "at": datetime(2026, 3, 1, 12, tzinfo=UTC), "day": date(9999, 12, 31)},
    {"at": datetime(2026, 3, 1, 12, 0, 0, 120000, tzinfo=UTC), "day": date(1970, 1, 1)},
    {"code": Uuid("00000000-0000-0000-0000-00000000abcd"), "day": date(999, 1, 2)},
]

ROWS = st.fixed_dictionaries(
    {},
    optional={
        "whole": st.integers(-(2**63), 2**63 - 1),
        "flag": st.booleans(),
        "words": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40),
        "amount": st.decimals(-(10**19), 10**19, places=10),
        "share": st.floats(allow_nan=False, allow_infinity=False),
        "at": st.datetimes(timezones=st.just(UTC)),
        "local": st.datetimes(),
        "day": st.dates(),
        "code": st.uuids(),
        "raw": st.binary(max_size=20),
    },
)


def table_of(engine: Engine) -> Table:
    columns = [Column(name, sql_type(kind), nullable=True) for name, kind in KINDS.items()]
    table = Table(
        "hashed", MetaData(), Column("row", Integer, primary_key=True, autoincrement=False), *columns, **TABLE_OPTIONS
    )
    table.create(engine, checkfirst=True)
    return table


def hashed(engine: Engine, rows: list[dict[str, Any]]) -> tuple[list[list[str | None]], list[str], int]:
    """The texts, the hashes and the sum that the database makes."""
    table, checksums = table_of(engine), dialect_of(engine).checksums
    assert checksums is not None
    with dialect_of(engine).transaction(engine) as connection:
        checksums.prepare(connection)
        connection.execute(delete(table))
        for place, row in enumerate(rows):
            connection.execute(insert(table).values(row=place, **(dict.fromkeys(KINDS) | row)))
        texts = [checksums.text(table.c[name], family) for name, family in families().items()]
        digested = checksums.digest(checksums.joined(texts, list(families().values())))
        found = connection.execute(select(*texts, digested).order_by(table.c.row)).all()
        total = connection.execute(select(checksums.total(digested))).scalar_one()
    return [list(row[:-1]) for row in found], [row[-1] for row in found], int(total)


def families() -> dict[str, Any]:
    return {name: family_of(kind) for name, kind in KINDS.items()}


def modelled(rows: list[dict[str, Any]]) -> tuple[list[list[str | None]], list[str], int]:
    texts = [[canonical(row.get(name), family) for name, family in families().items()] for row in rows]
    digested = [digest(joined(row, list(families().values()))) for row in texts]
    return texts, digested, sum(map(number, digested))


def test_nasty_values_have_one_text_and_one_hash_everywhere(targets: Databases) -> None:
    assert hashed(targets.target, NASTY) == modelled(NASTY)


@pytest.mark.parametrize("examples", [10, pytest.param(300, marks=pytest.mark.slow)])
def test_any_rows_have_one_text_and_one_hash_everywhere(targets: Databases, examples: int) -> None:
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(ROWS, min_size=1, max_size=5))
    def hold(rows: list[dict[str, Any]]) -> None:
        assert hashed(targets.target, rows) == modelled(rows)

    hold()


def test_a_text_gives_its_value_back() -> None:
    for row in NASTY:
        for name, family in families().items():
            given_value = row.get(name)
            assert value_of(canonical(given_value, family), family) == given_value


def test_rows_that_differ_have_different_texts() -> None:
    _, digests, _ = modelled(NASTY)
    assert len(set(digests)) == len(NASTY)
