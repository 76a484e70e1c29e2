"""`ExportedSnapshot`: PostgreSQL as it was at one moment, for every connection that imports it."""

from collections.abc import Callable, Iterator
from types import TracebackType

import adbc_driver_manager.dbapi
import adbc_driver_postgresql
import adbc_driver_postgresql.dbapi as adbc
import psycopg
import pyarrow as pa
from psycopg import sql

from tasks.errors import SourceUnavailable

_READ_BYTES = 2 << 20


class ExportedSnapshot:
    """A snapshot that outlives the connections that read from it, for as long as the session that keeps it.

    Args:
        conninfo: how libpq connects; the sessions are read-only and repeatable-read by default.
        where: the database, for messages.
    """

    def __init__(self, conninfo: str, where: str) -> None:
        self._conninfo = conninfo
        self._where = where
        self._keeper = psycopg.connect(conninfo)
        row = self._keeper.execute("SELECT pg_export_snapshot()").fetchone()
        assert row is not None
        self._import = sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(row[0])).as_string(self._keeper)

    def __enter__(self) -> "ExportedSnapshot":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._keeper.close()

    def count(self, statement: str) -> int:
        """The one number that `statement` gives."""
        row = self._keeper.execute(statement.encode()).fetchone()
        assert row is not None
        return int(row[0])

    def read(
        self, statements: Callable[[pa.Table | None], Iterator[str]], is_lost: Callable[[Exception], bool]
    ) -> Iterator[pa.Table]:
        """The rows of several statements; a connection that breaks is replaced as long as reading gets on.

        Args:
            statements: what is left to read behind the last batch, or from the start. The next is asked for when the
                rows of the one before have been handed on.
            is_lost: whether an error means that a connection broke.

        Raises:
            SourceUnavailable: the snapshot is gone.
        """
        last: pa.Table | None = None
        while True:
            begun_at = last
            try:
                with adbc.connect(self._conninfo) as connection, connection.cursor() as reader:
                    reader.execute(self._import)
                    for statement in statements(last):
                        for batch in stream(reader, statement):
                            yield batch
                            last = batch
                return
            except Exception as error:
                self._still_kept(error)
                if last is begun_at or not is_lost(error):
                    raise

    def _still_kept(self, error: Exception) -> None:
        try:
            self._keeper.execute("SELECT 1")
        except psycopg.Error:
            raise SourceUnavailable(
                f"{self._where}: the connections broke, and with the last one the snapshot. What was read of it is "
                "left, since the rest would be of another moment."
            ) from error


def stream(reader: adbc_driver_manager.dbapi.Cursor, statement: str) -> Iterator[pa.Table]:
    """The rows of `statement` by binary COPY, in batches of a few megabytes."""
    size = adbc_driver_postgresql.StatementOptions.BATCH_SIZE_HINT_BYTES.value
    reader.adbc_statement.set_options(**{size: str(_READ_BYTES)})
    reader.execute(statement)
    for batch in reader.fetch_record_batch():
        if batch.num_rows:
            yield pa.Table.from_batches([batch])
