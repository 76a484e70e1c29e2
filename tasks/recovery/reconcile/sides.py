"""`Sides`: the source and the target of a pipeline as they can be compared, or why they cannot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

from sqlalchemy import ColumnElement, Table, false, or_, true

from tasks.connections import engine
from tasks.declaration import Pipeline
from tasks.dialects import dialect_of
from tasks.dialects.checksum.canonical import Family, family_of
from tasks.dialects.source import python_type
from tasks.errors import NotComparable, SourceError, SourceUnavailable, TargetError, TargetUnavailable
from tasks.extract.api import ApiExtract
from tasks.extract.changes import Extract
from tasks.extract.feed import Derived
from tasks.extract.log import LogExtract
from tasks.extract.sequence import SequenceExtract
from tasks.extract.snapshot import SnapshotDiff
from tasks.extract.table import TableExtract
from tasks.extract.triggers import TriggerExtract
from tasks.load.append import Append
from tasks.recovery.reconcile.judged_side import JudgedSide
from tasks.recovery.reconcile.table_side import TableSide
from tasks.running.assembly import Assembly
from tasks.version_columns import IS_CURRENT
from tasks.window import Window


@dataclass(frozen=True)
class Sides:
    """What is compared with what.

    Attributes:
        source: what the checksums of the source are of.
        judged: its rows as the pipeline makes them; None where they are taken as they are.
        target: the target.
        cursor: the column that blocks go by, or None.
        once: only missing rows are differences.
        deep: every row of the source is read.
        notes: what is not compared, a sentence each.
    """

    source: TableSide | JudgedSide
    judged: JudgedSide | None
    target: TableSide
    cursor: str | None
    once: bool
    deep: bool
    notes: tuple[str, ...]

    @property
    def rows_of(self) -> TableSide | JudgedSide:
        """What the rows of the source are read from."""
        return self.source if self.judged is None else self.judged


def read_of(pipeline: Pipeline) -> Extract:
    """What is read of the source: the extract, or, for one that is followed, its table as it is now.

    Raises:
        NotComparable: it cannot be read twice.
    """
    extract = pipeline.extract
    if isinstance(extract, SnapshotDiff | SequenceExtract):
        return TableExtract(extract.connection, extract.table, query=extract.query)
    if isinstance(extract, LogExtract | TriggerExtract):
        return TableExtract(extract.connection, extract.table)
    if isinstance(extract, Derived):
        raise NotComparable(
            f"{pipeline.name}: {extract.dataset!r} is made of other tables of the target, so there is no source to "
            f"compare it with. Compare the pipelines that load those, and run `tidegate run {pipeline.name} "
            "--full-refresh` to make it anew."
        )
    if isinstance(extract, TableExtract | ApiExtract):
        return extract
    kind = type(extract).__name__
    raise NotComparable(
        f"{pipeline.name}: {extract.dataset!r} comes as {kind} hands it out, and cannot be read again beside its runs. "
        "Compare it by hand, or run the pipeline with --full-refresh."
    )


def sides(pipeline: Pipeline, parts: Assembly, table: Table, window: Window, *, deep: bool) -> Sides:
    """How a pipeline is compared.

    Args:
        pipeline: which.
        parts: its parts.
        table: the target as it is in the database.
        window: the slice of the cursor; unbounded without one.
        deep: read every row through the pipeline, whatever checksums could tell.

    Raises:
        NotComparable: it cannot be, or not without `deep`; the message names the remedy.
        SourceUnavailable: the source did not answer.
        SourceError: it refused.
    """
    extract, name, load = read_of(pipeline), pipeline.name, pipeline.load
    once = isinstance(load, Append)
    notes: list[str] = []
    timed = extract.cursor if parts.contract.time_cursor is not None else None
    families = _families(pipeline, parts, table, timed, notes, once=once)
    key = len(load.key)
    target = TableSide(
        what=f"{name}: the target {load.connection!r}",
        engine=parts.engine,
        relation=table,
        families=families,
        key=key,
        cursor=timed,
        summed=list(families),
        conditions=_current(pipeline, table),
        window=window,
        unavailable=TargetUnavailable,
        refused=TargetError,
    )
    judged = JudgedSide(pipeline, parts, extract, families, key, timed, list(families), window, by_window=not deep)
    if deep:
        return Sides(judged, judged, target, timed, once, True, tuple(notes))
    relation = _plain(pipeline, extract)
    made = pipeline.transform is not None or bool(pipeline.lookups)
    held = _held(extract, relation, families)
    needed = [*load.key, *([timed] if timed else [])]
    lacking = [column for column in needed if column not in held]
    if lacking:
        raise NotComparable(
            f"{name}: the column {lacking[0]!r} of {load.table!r} is not in {extract.dataset!r} as it is loaded, so "
            "checksums cannot compare them. Compare with --deep, which reads every row through the pipeline."
        )
    summed = needed if made else [column for column in families if column in held]
    if made:
        notes.append(
            f"Checksums are of {', '.join(summed)}: the other columns come from a transform. Values were compared "
            "only in blocks that differ; --deep reads every row through the pipeline's transform."
        )
    elif len(summed) < len(families):
        left = ", ".join(column for column in families if column not in summed)
        notes.append(f"Not compared, since the source keeps them in other types: {left}. --deep compares them.")
        target = replace(target, families={column: families[column] for column in summed})
    target = replace(target, summed=summed)
    source = TableSide(
        what=f"{name}: the source {extract.connection!r}",
        engine=engine(extract.connection),
        relation=relation,
        families={column: families[column] for column in summed},
        key=key,
        cursor=timed,
        summed=summed,
        conditions=_alive(extract, relation),
        window=window,
        unavailable=SourceUnavailable,
        refused=SourceError,
    )
    return Sides(source, judged if made else None, target, timed, once, False, tuple(notes))


def _families(
    pipeline: Pipeline, parts: Assembly, table: Table, timed: str | None, notes: list[str], *, once: bool
) -> Mapping[str, Family]:
    """The columns that can be compared: those of the key, the cursor, and the others."""
    first = [*pipeline.load.key, *([timed] if timed and timed not in pipeline.load.key else [])]
    others = [] if once else [name for name in parts.contract.columns.names if name not in first]
    found: dict[str, Family] = {}
    left = []
    for name in [*first, *others]:
        family = family_of(parts.contract.columns.field(name).type)
        if family is not None and name in table.c:
            found[name] = family
        elif name in first:
            raise NotComparable(
                f"{pipeline.name}: {name!r} is of type {parts.contract.columns.field(name).type}, by which rows are "
                "not compared. Reconcile needs a key of numbers, texts, times or bytes."
            )
        else:
            left.append(name)
    if left:
        notes.append(f"Not compared: {', '.join(left)}, which are of types that have no one text.")
    if once:
        notes.append("The target keeps the first version of every row, so only what is missing is a difference.")
    return found


def _plain(pipeline: Pipeline, extract: Extract) -> Table:
    """The source's table, where checksums can be asked of it.

    Raises:
        NotComparable: only reading tells.
    """
    reasons = (
        (not isinstance(extract, TableExtract), "it is an API, of which nobody can ask a checksum"),
        (isinstance(extract, TableExtract) and extract.table is None, "it is read by a query"),
        (isinstance(extract, TableExtract) and extract.zone is not None, "its cursor is in a time zone of its own"),
        (pipeline.drops_rows or pipeline.adds_rows, "the transform adds rows or leaves rows out"),
    )
    for wrong, why in reasons:
        if wrong:
            raise NotComparable(
                f"{pipeline.name}: {extract.dataset!r} cannot be compared by checksums: {why}. Compare it with --deep, "
                "which reads every row through the pipeline."
            )
    assert isinstance(extract, TableExtract) and extract.table is not None
    source = engine(extract.connection)
    dialect = dialect_of(source)
    with dialect.translated(f"{pipeline.name}: the source {extract.connection!r}", SourceUnavailable, SourceError):
        return dialect.relation(source, extract.table)


def _held(extract: Extract, relation: Table, families: Mapping[str, Family]) -> set[str]:
    """The columns that the source keeps in a type of the same family."""
    checksums = dialect_of(engine(extract.connection)).checksums
    if checksums is None:
        return set()
    return {
        name for name, family in families.items() if name in relation.c and checksums.takes(relation.c[name], family)
    }


def _current(pipeline: Pipeline, table: Table) -> Sequence[ColumnElement[bool]]:
    """Which rows of the target stand for one of the source that is there now."""
    found: list[ColumnElement[bool]] = []
    if pipeline.load.soft_delete is not None:
        found.append(table.c[pipeline.load.soft_delete].is_(None))
    if pipeline.load.dated:
        found.append(table.c[IS_CURRENT].is_(true()))
    return found


def _alive(extract: Extract, relation: Table) -> Sequence[ColumnElement[bool]]:
    """Which rows of the source are not marked as gone."""
    assert isinstance(extract, TableExtract)
    if extract.deleted is None:
        return []
    column: ColumnElement[Any] = relation.c[extract.deleted]
    kind = python_type(column)
    if kind in (datetime, date):
        return [column.is_(None)]
    if kind is str:
        return [or_(column.is_(None), column.in_(["", "0"]), column.ilike("false"))]
    return [or_(column.is_(None), column == (false() if kind is bool else 0))]
