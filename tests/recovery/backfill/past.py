"""Rows of the ledger, as if attempts had been made."""

from collections.abc import Iterable
from datetime import timedelta
from functools import cache
from typing import Any

from sqlalchemy import delete, insert

from tasks.counts import Counts
from tasks.running.assembly import Assembly
from tasks.state.attempts import new_token
from tasks.state.tables import runs
from tests.conftest import Databases
from tests.orders import ORDERS, START, put

MINUTE = timedelta(minutes=1)
LOADED = START + timedelta(days=200)
"""When the first attempt was made."""


@cache
def today() -> str:
    """The contract of `ORDERS`."""
    return Assembly(ORDERS).contract.fingerprint


def attempted(
    start: float | None,
    end: float | None,
    *,
    at: float = 0,
    kind: str = "explicit",
    status: str = "committed",
    contract: str | None = None,
    opened: float | None = None,
    **also: Any,
) -> dict[str, Any]:
    """An attempt at `[start, end)`, minutes after `START`, that ended `at` minutes after `LOADED`."""
    counts = Counts().as_dict() if status in ("committed", "partial") else {}
    return {
        **dict.fromkeys(column.name for column in runs.columns),
        **counts,
        "attempt": new_token(),
        "run_id": new_token(),
        "pipeline": "orders",
        "target": "fct_orders",
        "kind": kind,
        "window_start": None if start is None else START + start * MINUTE,
        "window_end": None if end is None else START + end * MINUTE,
        "status": status,
        "contract": contract or today(),
        "started_at": LOADED + (at if opened is None else opened) * MINUTE,
        "finished_at": LOADED + at * MINUTE,
        **also,
    }


def remember(databases: Databases, attempts: Iterable[dict[str, Any]]) -> None:
    """Have these in the ledger, and nothing else; the source is there, and empty."""
    put(databases.source, [])
    with databases.target.begin() as connection:
        connection.execute(delete(runs))
        rows = list(attempts)
        if rows:
            connection.execute(insert(runs), rows)
