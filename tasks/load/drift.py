"""`Drift`: how a target differs from what its contract declares, and which of it a policy bridges."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import Column, Inspector, Table, text
from sqlalchemy import Dialect as SqlDialect
from sqlalchemy.engine.interfaces import ReflectedColumn

from tasks.column_types import MAX_LENGTH
from tasks.dialects.column_kind import TEXT, ColumnKind
from tasks.dialects.dialect import Dialect

SchemaDrift = Literal["evolve", "ignore", "freeze"]
"""What a run does with a target that differs: change it, as far as that is safe; leave it; write nothing."""


@dataclass(frozen=True)
class Change:
    """What can be done about a column that differs, without touching a value that is there.

    Attributes:
        said: the difference, as a message tells it.
        there: the column as the database describes it; None where it is missing.
        wanted: as it would be.
        harmless: the target as it is writes no value otherwise than it came: it refuses it, or has no place for it.
    """

    said: str
    there: Column[Any] | None
    wanted: Column[Any]
    harmless: bool

    @property
    def missing(self) -> bool:
        """Whether the target lacks the column."""
        return self.there is None


@dataclass(frozen=True)
class Drift:
    """How a target differs from its declaration. What it has beyond that, or holds more of, is no difference.

    Attributes:
        changes: what is safe to change.
        unsafe: what is not, as sentences; nobody can write to such a table.
    """

    changes: Sequence[Change]
    unsafe: Sequence[str]

    @classmethod
    def of(cls, inspector: Inspector, dialect: Dialect, target: Table, optional: Collection[str] = ()) -> "Drift":
        """Compare the table that is there with its declaration.

        Args:
            inspector: of the database.
            dialect: its dialect.
            target: the declaration.
            optional: columns that a load can do without.
        """
        found = _Comparison(inspector, dialect, target, optional)
        changes, unsafe = [], list(found.keys())
        for difference in found.columns():
            if isinstance(difference, str):
                unsafe.append(difference)
            else:
                changes.append(difference)
        return cls(changes, unsafe)

    def beyond(self, policy: SchemaDrift) -> list[str]:
        """What keeps a run under `policy` from writing."""
        if policy == "evolve":
            return list(self.unsafe)
        return [*self.unsafe, *(change.said for change in self.changes if policy == "freeze" or not change.harmless)]


class _Comparison:
    """One table against its declaration."""

    def __init__(self, inspector: Inspector, dialect: Dialect, target: Table, optional: Collection[str]) -> None:
        self._inspector = inspector
        self._optional = optional
        self._dialect = dialect
        self._target = target
        self._on: SqlDialect = inspector.dialect
        self._collation = dialect.table_collation(inspector, target)
        self._there = {column["name"]: column for column in inspector.get_columns(target.name, target.schema)}

    def keys(self) -> Iterator[str]:
        """Its key has to be unique there, too."""
        key = [column.name for column in self._target.primary_key]
        if key and set(key) not in self._unique():
            there = self._primary_key()
            yield (
                f"the key of the load is ({', '.join(key)}), and "
                f"{f'that of the table is ({chr(44).join(there)})' if there else 'the table has no primary key'}; "
                "make the columns unique there, or declare the table's own key"
            )

    def columns(self) -> Iterator[Change | str]:
        """Every column that differs, and one that cannot be left out."""
        folded = {name.lower(): name for name in self._there}
        for column in self._target.columns:
            there = self._there.get(column.name)
            if there is not None:
                yield from self._compared(column, there)
            elif column.name.lower() in folded:
                yield (
                    f"the column {column.name!r} is called {folded[column.name.lower()]!r} there; give both the same "
                    "name"
                )
            else:
                yield from self._missing(column)
        declared = {column.name.lower() for column in self._target.columns}
        for name, there in self._there.items():
            if name.lower() not in declared:
                yield from self._undeclared(name, there)

    def _missing(self, column: Column[Any]) -> Iterator[Change | str]:
        if column.primary_key:
            yield f"the column {column.name!r}, which is in the key, is not there"
            return
        addition = Column(column.name, column.type, nullable=True, comment=column.comment)
        yield Change(f"the column {column.name!r} is not there", None, addition, column.name in self._optional)

    def _compared(self, column: Column[Any], there: ReflectedColumn) -> Iterator[Change | str]:
        identity = there.get("identity")
        if there.get("computed") or (identity is not None and identity["always"]):
            yield f"the column {column.name!r} is filled in by the database there; take it out of the contract"
            return
        have, need = self._kind(there["type"]), self._needed(column)
        if have.family == TEXT and have.collation is None:
            # A column that compares as its table does says nothing of it.
            have = replace(have, collation=self._collation)
        nullable = there["nullable"] or bool(column.nullable and not column.primary_key)
        widened, said, harmless = there["type"], [], True
        if not have.holds(need):
            joined = have.joined(need)
            if joined is None:
                yield (
                    f"the column {column.name!r} is {self._named(there['type'])} there, and the contract declares "
                    f"{self._named(column.type)}, which it cannot hold unaltered; change the table by hand, or the "
                    "contract"
                )
                return
            widened = joined.type_for(column.type)
            said.append(f"is {self._named(there['type'])} there, and the contract needs {self._wanted(column)}")
            harmless = not have.alters(need)
        if nullable and not there["nullable"]:
            if not self._dialect.drops_not_null:
                yield (
                    f"the column {column.name!r} is NOT NULL there, the contract allows NULL, and {self._on.name} "
                    "cannot change that; make the table anew by hand, or declare the column as not nullable"
                )
                return
            said.append("is NOT NULL there, and the contract allows NULL")
        if said:
            before, after = (self._column(there, kind, null) for kind, null in (
                (there["type"], there["nullable"]), (widened, nullable)
            ))  # fmt: skip
            yield Change(f"the column {column.name!r} {' and '.join(said)}", before, after, harmless)

    def _undeclared(self, name: str, there: ReflectedColumn) -> Iterator[str]:
        filled = there.get("default") is not None or there.get("identity") or there.get("computed")
        if not (there["nullable"] or filled or there.get("autoincrement") is True):
            yield (
                f"the column {name!r} is NOT NULL there, has no default, and the contract does not declare it; declare "
                "it, or give it a default"
            )

    def _column(self, there: ReflectedColumn, kind: Any, nullable: bool) -> Column[Any]:
        default = there.get("default")
        return Column(
            there["name"],
            kind,
            nullable=nullable,
            # A colon is the default's own: it has no parameters.
            server_default=None if default is None else text(default.replace(":", "\\:")),
            comment=there.get("comment"),
        )

    def _needed(self, column: Column[Any]) -> ColumnKind:
        """What the declared column has to hold: a text no more than the contract lets it."""
        kind = self._kind(column.type)
        longest = column.info.get(MAX_LENGTH)
        if kind.family != TEXT or longest is None or (kind.size is not None and kind.size < longest):
            return kind
        return ColumnKind(TEXT, longest, collation=kind.collation)

    def _wanted(self, column: Column[Any]) -> str:
        longest = column.info.get(MAX_LENGTH)
        return self._named(column.type) + (f" of {longest} characters" if longest is not None else "")

    def _kind(self, kind: Any) -> ColumnKind:
        return self._dialect.column_kind(kind, self._on)

    def _named(self, kind: Any) -> str:
        return str(kind.compile(dialect=self._on)) if self._kind(kind).family != "unknown" else "of a type of its own"

    def _primary_key(self) -> list[str]:
        return self._inspector.get_pk_constraint(self._target.name, self._target.schema)["constrained_columns"]

    def _unique(self) -> Iterator[set[str]]:
        """The sets of columns that are unique in the table."""
        name, schema = self._target.name, self._target.schema
        yield set(self._primary_key())
        for constraint in self._inspector.get_unique_constraints(name, schema):
            yield set(constraint["column_names"])
        for index in self._inspector.get_indexes(name, schema):
            partial = any(option.endswith("_where") for option in index.get("dialect_options", {}))
            if index["unique"] and not index.get("expressions") and not partial:
                yield {column for column in index["column_names"] if column is not None}
