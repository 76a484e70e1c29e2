"""`docs/extract.md` is executed: every example loads what it says, and every proof it names exists."""

import re
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pandera.pandas as pa
import pytest
from sqlalchemy import text

from tasks.extract.log import LogExtract
from tasks.extract.table import TableExtract
from tasks.extract.triggers import TriggerExtract
from tasks.load.upsert import Upsert
from tasks.pipeline import Pipeline, run_pipeline
from tests.conftest import Databases
from tests.extract.test_log import BookingSchema, drop_slots, execute
from tests.orders import OrderSchema, order, put

ROOT = Path(__file__).parent.parent
EXTRACT = (ROOT / "docs" / "extract.md").read_text()
EXAMPLES = dict(re.findall(r"<!-- run: (\w+) -->\n```python\n(.*?)```", EXTRACT, re.DOTALL))


def _bookings(databases: Databases, table: str = "bookings") -> None:
    execute(
        databases.source,
        f"CREATE TABLE {table} (id bigint PRIMARY KEY, seat text, price float8)",
        f"INSERT INTO {table} VALUES (1, 'A', 1), (2, 'B', 2)",
    )


PREPARE: dict[str, Callable[[Databases], None]] = {
    "orders": lambda databases: put(databases.source, [order(1), order(2)]),
    "bookings": _bookings,
    "seats": partial(_bookings, table="seats"),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_loads_its_source_and_is_short(postgresql: Databases, name: str) -> None:
    PREPARE[name](postgresql)
    known: dict[str, Any] = {
        kind.__name__: kind
        for kind in (
            Pipeline,
            TableExtract,
            LogExtract,
            TriggerExtract,
            Upsert,
            OrderSchema,
            BookingSchema,
            timedelta,
            pa.Field,
        )
    }
    pipeline = eval(EXAMPLES[name], known)
    assert run_pipeline(pipeline).counts.inserted == 2
    with postgresql.target.connect() as connection:
        assert connection.execute(text(f"SELECT count(*) FROM fct_{name}")).scalar_one() == 2
    drop_slots(postgresql.source)
    declaration = EXAMPLES[name].split("extract=")[1].split("schema=")[0]
    assert len(declaration.strip().splitlines()) <= 5


def test_every_example_is_prepared() -> None:
    assert set(EXAMPLES) == set(PREPARE)


def test_every_proof_it_names_exists() -> None:
    tests = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", EXTRACT):
        assert f"def {name}(" in tests, name
    for path in re.findall(r"`(tests/[\w/]+\.py)`", EXTRACT):
        assert (ROOT / path).exists(), path
