"""The statements that make a target, or change it, as SQLAlchemy runs them and as one would type them."""

from collections.abc import Iterator, Sequence

from sqlalchemy import DDL, Table
from sqlalchemy import Dialect as SqlDialect
from sqlalchemy.schema import CreateColumn, CreateTable, ExecutableDDLElement, SetColumnComment

from tasks.dialects.ddl_text import ddl_text
from tasks.dialects.dialect import Dialect
from tasks.load.drift import Change


def creation(target: Table, on: SqlDialect) -> Iterator[ExecutableDDLElement]:
    """Make a table."""
    yield CreateTable(target)
    yield from _comments(target, target.columns.keys(), on)


def evolution(
    target: Table, changes: Sequence[Change], dialect: Dialect, on: SqlDialect
) -> Iterator[ExecutableDDLElement]:
    """Carry out `changes` on a table that is there."""
    quote = on.identifier_preparer.quote
    clauses: list[str] = []
    for change in changes:
        if change.there is None:
            clauses.append(f"ADD COLUMN {ddl_text(CreateColumn(change.wanted), on)}")
        else:
            clauses.extend(dialect.altered(quote(change.wanted.name), change.there, change.wanted, on))
    for statement in dialect.alter_table(on.identifier_preparer.format_table(target), clauses):
        made: ExecutableDDLElement = DDL(statement.replace("%", "%%"))  # type: ignore[no-untyped-call]
        yield made
    yield from _comments(target, [change.wanted.name for change in changes if change.missing], on)


def _comments(target: Table, names: Sequence[str], on: SqlDialect) -> Iterator[ExecutableDDLElement]:
    """Where a column's comment is a statement of its own; elsewhere it is part of the column, or there is none."""
    if on.supports_comments and not on.inline_comments:
        for name in names:
            if target.c[name].comment is not None:
                yield SetColumnComment(target.c[name])
