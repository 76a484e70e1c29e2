"""`TableSide`: a table whose checksums, and few of whose rows, are asked of its own database."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Text, and_, func, literal_column, or_, select, true, tuple_

from tasks.dialects import dialect_of
from tasks.dialects.checksum.canonical import Family, digest, joined, value_of
from tasks.dialects.checksum.checksums import Checksums
from tasks.dialects.dialect import Dialect
from tasks.errors import FatalError, NotComparable, RetriableError
from tasks.recovery.reconcile.blocks import Block, Level, Total, windows_of
from tasks.window import Window

Texts = tuple[str | None, ...]
"""A row: the canonical text of each column, those of the key first."""

_MOST_WINDOWS = 200
_MOST_DIGITS = 1_000
_AT_ONCE = 5_000
_KEYS = 500


@dataclass
class TableSide:
    """One side of a comparison.

    Attributes:
        what: for messages: `orders: the source 'shop'`.
        engine: its database.
        relation: the table.
        families: the columns that are compared, and the families of their types; those of the key first.
        key: how many of them are the key.
        cursor: the column that the blocks go by, an instant; or None.
        summed: the columns that the checksums are of.
        conditions: which of its rows are there.
        window: the slice of the cursor that is compared.
        unavailable: raised where another attempt may help.
        refused: raised where none does.
    """

    what: str
    engine: Engine
    relation: Any
    families: Mapping[str, Family]
    key: int
    cursor: str | None
    summed: Sequence[str]
    conditions: Sequence[ColumnElement[bool]]
    window: Window
    unavailable: type[RetriableError]
    refused: type[FatalError]

    def __post_init__(self) -> None:
        self.dialect: Dialect = dialect_of(self.engine)
        checksums = self.dialect.checksums
        if checksums is None:
            raise NotComparable(
                f"{self.what}: {self.dialect.name} makes no checksums that other databases make too. Compare with "
                "--deep, which reads every row."
            )
        self._checksums: Checksums = checksums
        self._texts = {name: checksums.text(self.relation.c[name], family) for name, family in self.families.items()}

    @property
    def _key_digest(self) -> ColumnElement[str]:
        names = list(self.families)[: self.key]
        keys = [self._texts[name] for name in names]
        return self._checksums.digest(self._checksums.joined(keys, [self.families[name] for name in names]))

    def extent(self) -> tuple[int, str | None, str | None]:
        """How many rows there are, and the first and the last cursor, as texts."""
        ends: list[Any] = [literal_column("NULL"), literal_column("NULL")]
        if self.cursor is not None:
            # The column's own order, and so its index, where it has one.
            column = self.relation.c[self.cursor]
            ends = [self._checksums.text(_typed(end, column), self.families[self.cursor])
                    for end in (func.min(column), func.max(column))]  # fmt: skip
        with self._connected() as connection:
            row = connection.execute(
                select(func.count(), *ends).select_from(self.relation).where(*self._counted())
            ).one()
        return int(row[0]), row[1], row[2]

    def totals(self, level: Level, within: Sequence[Block] | None) -> dict[Block, Total]:
        """Rows and checksum of every block of `level`, or of those that are parts of `within`."""
        families = [self.families[name] for name in self.summed]
        digested = self._checksums.digest(self._checksums.joined([self._texts[name] for name in self.summed], families))
        parts = self._parts(level)
        statement = (
            select(*parts, func.count(), self._checksums.total(digested))
            .select_from(self.relation)
            .where(*self._counted(), *self._inside(within))
            .group_by(*parts)
        )
        known = None if within is None else set(within)
        coarser = None if not within else Level(len(within[0].time), len(within[0].digits))
        found: dict[Block, Total] = {}
        with self._connected() as connection:
            for *named, rows, total in connection.execute(statement):
                names = [name or "" for name in named]
                block = Block(names.pop(0) if level.time else "", names[0] if level.digits else "")
                if known is None or (coarser is not None and block.within(coarser) in known):
                    found[block] = Total(int(rows), int(total or 0))
        return found

    def rows(self, level: Level, blocks: Sequence[Block]) -> Iterator[Texts]:
        """The rows of some blocks of `level`, as texts; a few more where they lie in the same windows."""
        statement = select(*self._texts.values()).select_from(self.relation)
        statement = statement.where(*self._counted(), *self._inside(blocks))
        with self._connected() as connection:
            options = {"stream_results": True, "yield_per": _AT_ONCE}
            for row in connection.execute(statement, execution_options=options):
                yield tuple(row)

    def rows_with(self, keys: Sequence[Texts]) -> Iterator[Texts]:
        """The rows of some keys, wherever they lie now."""
        names = list(self.families)[: self.key]
        columns = [self.relation.c[name] for name in names]
        with self._connected() as connection:
            for start in range(0, len(keys), _KEYS):
                values = [
                    tuple(value_of(text, self.families[name]) for name, text in zip(names, key, strict=True))
                    for key in keys[start : start + _KEYS]
                ]
                wanted = (
                    columns[0].in_([value[0] for value in values]) if len(names) == 1 else tuple_(*columns).in_(values)
                )
                statement = select(*self._texts.values()).where(*self.conditions, wanted)
                yield from (tuple(row) for row in connection.execute(statement))

    def _parts(self, level: Level) -> list[ColumnElement[Any]]:
        parts: list[ColumnElement[Any]] = []
        if level.time:
            assert self.cursor is not None, "only such levels are asked for"
            parts.append(func.substr(self._texts[self.cursor], 1, literal_column(str(level.time)), type_=Text))
        if level.digits:
            parts.append(func.substr(self._key_digest, 1, literal_column(str(level.digits)), type_=Text))
        return parts

    def _counted(self) -> list[ColumnElement[bool]]:
        """Which rows are compared: those that are there, in the window."""
        if self.cursor is None:
            return list(self.conditions)
        return [*self.conditions, self.relation.c[self.cursor].is_not(None), self._between(self.window)]

    def _inside(self, blocks: Sequence[Block] | None) -> list[ColumnElement[bool]]:
        """Which rows lie in the blocks, or near them: many windows are looked for as one."""
        if not blocks:
            return []
        found: list[ColumnElement[bool]] = []
        if self.cursor is not None and blocks[0].time:
            windows = windows_of(blocks)
            if len(windows) > _MOST_WINDOWS:
                windows = [Window(windows[0].start, windows[-1].end)]
            found.append(or_(*map(self._between, windows)))
        beginnings = sorted({block.digits for block in blocks})
        if beginnings[0] and len(beginnings) <= _MOST_DIGITS:
            length: ColumnElement[Any] = literal_column(str(len(beginnings[0])))
            found.append(func.substr(self._key_digest, 1, length, type_=Text).in_(beginnings))
        return found

    def _between(self, window: Window) -> ColumnElement[bool]:
        assert self.cursor is not None
        column = self.relation.c[self.cursor]
        compared = self.dialect.cursor_expression(column)
        bounds = [true()]
        if window.start is not None:
            bounds.append(compared >= self.dialect.cursor_literal(column, window.start))
        if window.end is not None:
            bounds.append(compared < self.dialect.cursor_literal(column, window.end))
        return and_(*bounds)

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        with (
            self.dialect.translated(self.what, self.unavailable, self.refused),
            self.dialect.snapshot(self.engine) as connection,
        ):
            self._checksums.prepare(connection)
            yield connection


def _typed(end: Any, column: ColumnElement[Any]) -> ColumnElement[Any]:
    end.type = column.type
    typed: ColumnElement[Any] = end
    return typed


def block_of(row: Texts, level: Level, families: Sequence[Family], key: int, cursor: int | None) -> Block:
    """The block of `level` that a row lies in.

    Args:
        row: its texts.
        level: which blocks.
        families: of its columns.
        key: how many columns are the key.
        cursor: the place of the cursor among them.
    """
    digits = digest(joined(row[:key], families[:key]))[: level.digits] if level.digits else ""
    time = (row[cursor] or "")[: level.time] if level.time and cursor is not None else ""
    return Block(time, digits)
