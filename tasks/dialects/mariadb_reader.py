"""`MariadbReader`: a relation of MariaDB at one moment, hashed by the server."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pymysql.constants import FIELD_TYPE
from sqlalchemy import ColumnElement, literal_column, select, type_coerce
from sqlalchemy.dialects import mysql
from sqlalchemy.types import NullType

from tasks.dialects.snapshot_reader import HASH, RowReader, signature


class MariadbReader(RowReader):
    """Reads over one connection, in InnoDB's consistent snapshot."""

    recipe = "1 md5 lengths and bytes"

    def hashes(self) -> Iterator[pa.Table]:
        """See `SnapshotReader`. A row that is longer than the server's `max_allowed_packet` has no hash."""
        result = self.connection.execute(self._all().limit(0))
        described = list(zip(result.keys(), result.cursor._result.fields, strict=True))
        result.close()
        signed = signature(self.recipe, [name for name, _ in described])
        values = ", ".join(self._exact_text(name, field.type_code) for name, field in described)
        hashed: ColumnElement[bytes] = literal_column(f"UNHEX(MD5(CONCAT('{signed}', {values})))")
        for batch in self._read(select(*self._keys(), hashed.label(HASH)).select_from(self.relation)):
            yield batch.rename_columns([*self.key, HASH])

    def _keys(self) -> list[ColumnElement[Any]]:
        """As `rows` reads them: a FLOAT with all its digits."""
        return [
            type_coerce(literal_column("0e0") + column if isinstance(column.type, mysql.FLOAT) else column, NullType())
            .label(f"{HASH}_key_{place}")
            for place, column in enumerate(self.relation.c[name] for name in self.key)
        ]  # fmt: skip

    def _exact_text(self, name: str, type_code: int) -> str:
        """SQL for a text of a value behind which no other value can hide: its length in bytes, then the bytes."""
        column = self.connection.dialect.identifier_preparer.quote_identifier(name)
        if type_code == FIELD_TYPE.FLOAT:
            column = f"(0e0 + {column})"
        kept = f"CAST({column} AS BINARY)"
        return f"IF({column} IS NULL, 'N', CONCAT(LENGTH({kept}), ':', {kept}))"
