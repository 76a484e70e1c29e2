"""Change events as Debezium writes them, for tests that need no Java: of a table of `id`, `seat` and `price`."""

import base64
import json
from typing import Any

COLUMNS = [
    {"type": "int64", "optional": False, "field": "id"},
    {"type": "string", "optional": True, "field": "seat"},
    {"type": "double", "optional": True, "field": "price"},
]


def envelope_schema(columns: list[dict[str, Any]]) -> dict[str, Any]:
    """The schema part of an envelope."""
    row = {"type": "struct", "optional": True, "fields": columns}
    return {"type": "struct", "fields": [{**row, "field": "before"}, {**row, "field": "after"}, {"field": "op"}]}


def event(
    operation: str,
    after: dict[str, Any] | None = None,
    before: dict[str, Any] | None = None,
    *,
    lsn: int = 100,
    commit: int | None = None,
    columns: list[dict[str, Any]] | None = None,
    **source: Any,
) -> dict[str, Any]:
    """One event; with a schema part where `columns` are given. `commit` is where the transaction before it ended."""
    commit = lsn if commit is None else commit
    origin = {
        "connector": "postgresql", "db": "shop", "schema": "public", "table": "bookings", "lsn": lsn, "txId": commit,
        "sequence": json.dumps([str(commit), str(lsn)]), "ts_ms": 1_700_000_000_000, "ts_us": 1_700_000_000_123_456,
        "snapshot": "true" if operation == "r" else "false",
    }  # fmt: skip
    payload = {"before": before, "after": after, "source": origin | source, "op": operation, "ts_ms": 1}
    return payload if columns is None else {"schema": envelope_schema(columns), "payload": payload}


def row(number: int, seat: str | None = "A", price: float | None = 1.0) -> dict[str, Any]:
    """A row of that table."""
    return {"id": number, "seat": seat, "price": price}


def column(name: str, kind: str, semantic: str | None = None, **parameters: str) -> dict[str, Any]:
    """The schema of a column."""
    return {"field": name, "type": kind, "optional": True, "name": semantic, "parameters": parameters}


def in_base_64(octets: bytes) -> str:
    """As JSON has bytes."""
    return base64.b64encode(octets).decode()


def unscaled(number: int) -> str:
    """As JSON has the digits of a decimal."""
    return in_base_64(number.to_bytes((number.bit_length() + 8) // 8, "big", signed=True))
