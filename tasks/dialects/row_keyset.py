"""`RowKeyset`: a keyset whose keys are compared as rows, which PostgreSQL finds in an index whole."""

from typing import Any

import pyarrow as pa
from psycopg import sql
from sqlalchemy import ColumnElement, Select, literal_column, tuple_

from tasks.dialects.keyset import Keyset


class RowKeyset(Keyset):
    """The order of a keyset read from PostgreSQL."""

    def rows_behind(self, statement: Select[Any], last: pa.Table | None, rows: int) -> Select[Any]:
        """The next `rows` of `statement` behind the last row of `last`, as ADBC gave it."""
        chunk = statement.order_by(*self.columns).limit(rows)
        if last is None:
            return chunk
        values = [last.column(name)[-1].as_py() for name in self.key]
        # A quoted literal of no type takes that of the column it is compared with.
        literals: list[ColumnElement[Any]] = [literal_column(sql.Literal(value).as_string()) for value in values]
        return chunk.where(tuple_(*self.columns) > tuple_(*literals))
