"""`docs/extract.md` is executed: every example loads what it says, and every proof it names exists."""

import gzip
import json
import re
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pandera.pandas as pa
import pytest
from sqlalchemy import text

from tasks.extract.api import ApiExtract
from tasks.extract.api_children import ApiChildren
from tasks.extract.debezium import DebeziumExtract
from tasks.extract.debezium_events import DebeziumEvents
from tasks.extract.http.auth.credentials import Bearer
from tasks.extract.http.pace.rate import RateLimit
from tasks.extract.http.pages.numbered import Offset
from tasks.extract.http.pages.paginators import Cursor, LinkHeader
from tasks.extract.http.shapes.shape import Shape
from tasks.extract.log import LogExtract
from tasks.extract.sequence import SequenceExtract
from tasks.extract.snapshot import SnapshotDiff
from tasks.extract.table import TableExtract
from tasks.extract.triggers import TriggerExtract
from tasks.load.append import Append
from tasks.load.replace import Replace
from tasks.load.upsert import Upsert
from tasks.pipeline import Pipeline, run_pipeline
from tasks.secret import Secret
from tests import pages
from tests.conftest import Databases
from tests.extract import parts
from tests.extract.envelopes import event, row
from tests.extract.shop import RecordSchema, Serve, record
from tests.extract.test_log import BookingSchema, drop_slots, execute
from tests.orders import OrderSchema, order, put
from tests.paged_api import PagedApi
from tests.scripted_server import Reply, Seen

ROOT = Path(__file__).parent.parent
EXTRACT = (ROOT / "docs" / "extract.md").read_text()
EXAMPLES = dict(re.findall(r"<!-- run: (\w+) -->\n```python\n(.*?)```", EXTRACT, re.DOTALL))
ON_DEBEZIUM = dict(re.findall(r"<!-- run on debezium: (\w+) -->\n```python\n(.*?)```", EXTRACT, re.DOTALL))


class CustomerSchema(pa.DataFrameModel):
    id: int
    name: str


class EventSchema(pa.DataFrameModel):
    number: int
    name: str


def _bookings(databases: Databases, table: str = "bookings") -> None:
    execute(
        databases.source,
        f"CREATE TABLE {table} (id bigint PRIMARY KEY, seat text, price float8)",
        f"INSERT INTO {table} VALUES (1, 'A', 1), (2, 'B', 2)",
    )


def _customers(databases: Databases) -> None:
    execute(
        databases.source,
        "CREATE TABLE customers (id bigint PRIMARY KEY, name text)",
        "INSERT INTO customers VALUES (1, 'ann'), (2, 'ben')",
    )


def _events(databases: Databases) -> None:
    execute(
        databases.source,
        "CREATE TABLE events (number bigint GENERATED ALWAYS AS IDENTITY, name text)",
        "INSERT INTO events (name) VALUES ('one'), ('two')",
    )


def _tickets(_: Databases) -> None:
    Path("events").mkdir()
    Path("events/bookings-1.jsonl").write_text("".join(json.dumps(event("c", row(n))) + "\n" for n in (1, 2)))


def _shop(_: Databases) -> None:
    """The API is served for every example."""


def _beside_pages(seen: Seen) -> Reply | None:
    """What `PagedApi` has none of: a password, resources below others, a file."""
    if seen.target.endswith("/items"):
        return Reply({"rows": [record(int(seen.target.split("/")[2]))]})
    if seen.target.endswith(".csv.gz"):
        return Reply(gzip.compress(b"id,at\n1,2013-01-08T00:00:00Z\n2,2013-01-08T00:00:00Z\n"))
    refused = seen.target.startswith("/link") and seen.headers.get("authorization") != "Bearer quite-secret"
    return Reply(status=401) if refused else None


PREPARE: dict[str, Callable[[Databases], None]] = {
    **dict.fromkeys(("readings", "changes", "numbers", "rates", "contacts", "paced", "items", "prices"), _shop),
    "orders": lambda databases: put(databases.source, [order(1), order(2)]),
    "bookings": _bookings,
    "customers": _customers,
    "events": _events,
    "parts": lambda databases: parts.put(databases.source, [parts.part(1), parts.part(2)]),
    "seats": partial(_bookings, table="seats"),
    "tickets": _tickets,
}


EXTRACTS = (
    TableExtract,
    SequenceExtract,
    SnapshotDiff,
    LogExtract,
    TriggerExtract,
    DebeziumExtract,
    DebeziumEvents,
    ApiExtract,
    ApiChildren,
)
HTTP = (Cursor, LinkHeader, Offset, Bearer, Secret, RateLimit, Shape)
LOADS = (Append, Replace, Upsert)
SCHEMAS = (OrderSchema, BookingSchema, CustomerSchema, EventSchema, parts.PartSchema, RecordSchema)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_loads_its_source_and_is_short(
    postgresql: Databases, serve: Serve, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDEGATE_SECRET_SHOP", "quite-secret")
    serve(PagedApi([record(1), record(2)], before=_beside_pages))
    _holds(postgresql, name, EXAMPLES[name])


@pytest.mark.debezium
@pytest.mark.parametrize("name", ON_DEBEZIUM)
def test_an_example_on_debezium_loads_its_source_and_is_short(debezium_postgresql: Databases, name: str) -> None:
    _holds(debezium_postgresql, name, ON_DEBEZIUM[name])


def _holds(databases: Databases, name: str, example: str) -> None:
    PREPARE[name](databases)
    known: dict[str, Any] = {kind.__name__: kind for kind in (*EXTRACTS, *HTTP, *LOADS, *SCHEMAS, Pipeline, timedelta)}
    pipeline = eval(example, known)
    assert run_pipeline(pipeline).counts.inserted == 2
    with databases.target.connect() as connection:
        assert connection.execute(text(f"SELECT count(*) FROM fct_{name}")).scalar_one() == 2
    drop_slots(databases.source)
    declaration = example.split("extract=")[1].split("schema=")[0]
    assert len(declaration.strip().splitlines()) <= 5


def test_every_example_is_prepared() -> None:
    assert set(EXAMPLES) == set(PREPARE)


@pytest.mark.parametrize("page", ["extract.md", "transform.md"])
def test_every_proof_a_page_names_exists(page: str) -> None:
    tests = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    names, paths = pages.proofs(page)
    assert [name for name in names if f"def {name}(" not in tests] == []
    assert [path for path in paths if not (ROOT / path).exists()] == []
