"""`PostgresqlReader`: a relation of PostgreSQL at one moment, by binary COPY, hashed by the server."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import Boolean, ColumnElement, Select, Table, literal, literal_column, select

from tasks.dialects.exported_snapshot import ExportedSnapshot
from tasks.dialects.snapshot_reader import HASH, signature
from tasks.errors import SourceError

_RECIPE = "1 md5 row text"
_ROW = "etl_source"

# A row's text has all digits of its numbers, and does not depend on how a role or a database likes it.
_EXACT_TEXT = (
    "DateStyle=ISO,YMD",
    "IntervalStyle=postgres",
    "extra_float_digits=1",
    "bytea_output=hex",
    "xmlbinary=base64",
)


class PostgresqlReader:
    """Reads over connections of its own, which all import one snapshot.

    Args:
        conninfo: how libpq connects.
        relation: a table, or a query as a subquery.
        key: its key.
        rendered: makes a statement a text, with its values in it.
        plain: makes ADBC's rows what tidegate reads.
        where: the database, for messages.
    """

    def __init__(
        self,
        conninfo: str,
        relation: Any,
        key: Sequence[str],
        rendered: Callable[[Select[Any]], str],
        plain: Callable[[pa.Table, dict[str, Any]], pa.Table],
        where: str,
    ) -> None:
        options = " ".join([str(conninfo_to_dict(conninfo)["options"]), *(f"-c {option}" for option in _EXACT_TEXT)])
        self._snapshot = ExportedSnapshot(make_conninfo(conninfo, options=options), where)
        self._relation = relation.alias(_ROW) if isinstance(relation, Table) else relation
        self._key = tuple(key)
        self._rendered = rendered
        self._plain = plain
        self._where = where
        self._types = {column.name: column.type for column in relation.columns}

    def close(self) -> None:
        """Let the snapshot go."""
        self._snapshot.__exit__(None, None, None)

    def schema(self) -> pa.Schema:
        """See `SnapshotReader`."""
        # A row of NULLs: of an empty result ADBC hands on nothing that would tell the types.
        one = select(literal(1).label("etl_one")).subquery("etl_one")
        outer = one.outerjoin(self._relation, literal_column("false", Boolean))
        [row] = self._read(select(literal_column(f"{self._name}.*")).select_from(outer))
        return row.schema

    def hashes(self) -> Iterator[pa.Table]:
        """See `SnapshotReader`."""
        signed = signature(_RECIPE, self.schema().names)
        # `name.*` is the row whatever its columns are called.
        hashed: ColumnElement[bytes] = literal_column(f"decode(md5('{signed}' || ({self._name}.*)::text), 'hex')")
        keys = [self._relation.c[name] for name in self._key]
        return self._read(select(*keys, hashed.label(HASH)).select_from(self._relation))

    def rows(self) -> Iterator[pa.Table]:
        """See `SnapshotReader`."""
        return self._read(self._all())

    def rows_with(self, keys: pa.Table) -> Iterator[pa.Table]:
        """See `SnapshotReader`."""
        arrays = [
            f"ARRAY[{', '.join(self._literal(value, kind) for value in keys.column(name).to_pylist())}]::{kind}[]"
            for name, kind in zip(self._key, self._key_types, strict=True)
        ]
        columns = ", ".join(f"{self._name}.{sql.Identifier(name).as_string()}" for name in self._key)
        wanted = f"({columns}) IN (SELECT * FROM unnest({', '.join(arrays)}))"
        return self._read(self._all().where(literal_column(wanted, Boolean)))

    @property
    def _name(self) -> str:
        return sql.Identifier(self._relation.name).as_string()

    @cached_property
    def _key_types(self) -> list[str]:
        """The key's types as SQL names them."""
        kinds = []
        for name in self._key:
            nothing = self._rendered(select(self._relation.c[name]).limit(0))
            kind: ColumnElement[str] = literal_column(f"pg_typeof(({nothing}))::text")
            [row] = self._read(select(kind.label("etl_kind")))
            kinds.append(str(row.column(0)[0].as_py()))
        return kinds

    def _literal(self, value: Any, kind: str) -> str:
        if isinstance(value, bytes) and kind == "uuid":
            value = value.hex()
        elif isinstance(value, bytes) and kind != "bytea":
            raise SourceError(f"{self._where}: a key of type {kind} cannot be looked up. Cast it to text in a query.")
        return sql.Literal(value).as_string()

    def _all(self) -> Select[Any]:
        return select(literal_column(f"{self._name}.*")).select_from(self._relation)

    def _read(self, statement: Select[Any]) -> Iterator[pa.Table]:
        rendered = self._rendered(statement)
        # A connection that breaks is not replaced: rows of the same statement would come twice.
        for batch in self._snapshot.read(lambda _: iter([rendered]), lambda _: False):
            yield self._plain(batch, self._types)
