"""`PostgresqlReading`: one repeatable-read transaction, every statement of it by binary COPY."""

from collections.abc import Callable, Iterator
from typing import Any

import adbc_driver_manager.dbapi
import pyarrow as pa
from sqlalchemy import Engine, Executable, Select, TextualSelect

from tasks.dialects.exported_snapshot import stream
from tasks.dialects.reading import Reading

PlainTypes = Callable[[pa.Table, dict[str, Any]], pa.Table]


class PostgresqlReading(Reading):
    """Values come as `TableExtract` reads them.

    Args:
        engine: the source.
        connection: of the transaction.
        plain: replaces the driver's own types.
    """

    def __init__(self, engine: Engine, connection: adbc_driver_manager.dbapi.Connection, plain: PlainTypes) -> None:
        self._engine = engine
        self._adbc = connection
        self._plain = plain

    def rows(self, statement: Executable) -> list[tuple[Any, ...]]:
        """See `Reading.rows`."""
        with self._adbc.cursor() as cursor:
            cursor.execute(self._rendered(statement))
            return [tuple(row) for row in cursor.fetchall()]

    def tables(self, statement: Select[Any] | TextualSelect) -> Iterator[pa.Table]:
        """See `Reading.tables`."""
        types = {column.name: column.type for column in statement.selected_columns}
        with self._adbc.cursor() as cursor:
            for batch in stream(cursor, self._rendered(statement)):
                yield self._plain(batch, types)

    def lock(self, table: str) -> None:
        """Keep a quoted table as it is, against DDL and TRUNCATE; called before the snapshot is taken."""
        with self._adbc.cursor() as cursor:
            cursor.execute(f"LOCK TABLE {table} IN ACCESS SHARE MODE")

    def _rendered(self, statement: Any) -> str:
        compiled = statement.compile(self._engine, compile_kwargs={"literal_binds": True})
        # SQLAlchemy doubles every percent sign for a driver that formats; ADBC does not.
        return str(compiled).replace("%%", "%")
