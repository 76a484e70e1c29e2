"""SQLite without waiting for the disk."""

import sqlite3
from typing import Any

from sqlalchemy import Engine, event


@event.listens_for(Engine, "connect")
def not_durable(connection: Any, _record: Any) -> None:
    """For files that nobody needs after a power cut; they survive the death of a process like any other."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = off").close()
