"""`reconcile_pipeline`: source against target, each row that differs explained, and repaired where it is asked for."""

import time
from collections.abc import Sequence
from datetime import datetime

from tasks.declaration import Pipeline
from tasks.dialects.checksum.canonical import Family, canonical
from tasks.errors import NotComparable
from tasks.masking import hiding
from tasks.observe import causes
from tasks.observe.events import emit
from tasks.recovery.reconcile.comparison import MOST_ROWS, Comparison, compare
from tasks.recovery.reconcile.difference import Difference, Explained
from tasks.recovery.reconcile.judged_side import JudgedSide
from tasks.recovery.reconcile.repair import repair as repaired
from tasks.recovery.reconcile.report import ReconcileReport, counted
from tasks.recovery.reconcile.rules import open_rules
from tasks.recovery.reconcile.sides import Sides, read_of, sides
from tasks.recovery.reconcile.table_side import TableSide, Texts
from tasks.report import RunReport
from tasks.run_scope import run_scope
from tasks.running.assembly import Assembly
from tasks.state.attempts import other_writers
from tasks.state.letters import Wanted, count_letters
from tasks.state.schema import ensure_schema
from tasks.state.watermarks import Watermark, read_watermark
from tasks.window import Window, to_utc


@run_scope()
def reconcile_pipeline(
    pipeline: Pipeline,
    start: datetime | None = None,
    end: datetime | None = None,
    *,
    deep: bool = False,
    repair: bool = False,
    most_rows: int = MOST_ROWS,
) -> ReconcileReport:
    """Compare source and target by checksums that the databases compute, and read only the blocks that differ.

    What the last run could not have read yet is left out. Every row that differs is looked at a second time, on both
    sides, so that what a run does meanwhile is no difference.

    Args:
        pipeline: what to compare.
        start: first instant of the cursor that is compared, UTC if naive; None is the beginning.
        end: first instant that is left out; None, or a later one, is as far as the last run is proven to have read.
        deep: read every row of the source through the pipeline's transform and contract.
        repair: run what puts the differences right, and look at them again.
        most_rows: rows of a side that are read one by one, and kept in memory, at most.

    Raises:
        NotComparable: it cannot be compared, or not so; the message names the remedy.
        TidegateError: see `tasks.errors`.
    """
    with hiding(pipeline.masking):
        report = _reconciled(pipeline, Window.parse(start, end), deep=deep, repairing=repair, most_rows=most_rows)
    emit(causes.RECONCILED, pipeline.name, report.payload)
    return report


def _reconciled(pipeline: Pipeline, asked: Window, *, deep: bool, repairing: bool, most_rows: int) -> ReconcileReport:
    began = time.monotonic()
    parts = Assembly(pipeline)
    seen = _seen(pipeline, parts)
    window = _window(pipeline, parts, seen, asked)
    with parts.target_errors(pipeline.name):
        table = parts.dialect.relation(parts.engine, pipeline.load.table)
    compared = sides(pipeline, parts, table, window, deep=deep)
    found = compare(compared, most_rows)
    explained = _explained(pipeline, compared, seen)
    differences = _look_again(pipeline, parts, compared, explained, found)
    notes, runs, before = list(compared.notes), list[RunReport](), None
    if found.unread:
        notes.append(
            f"More than {most_rows:,} rows lie in blocks that differ, so {found.unread:,} blocks were not read. Run "
            "the pipeline over what differs, or compare a shorter range."
        )
    if repairing:
        before = counted(differences)
        runs = repaired(pipeline, parts, compared, differences, notes)
        if runs:
            differences = _look_again(pipeline, parts, compared, explained, found)
    return ReconcileReport(
        pipeline=pipeline.name,
        window=window,
        source_rows=found.source_rows,
        target_rows=found.target_rows,
        levels=found.levels,
        blocks=found.blocks,
        unread=found.unread,
        rows_read=found.rows_read,
        most_rows=found.most_rows,
        differences=differences,
        found=before,
        repairs=runs,
        notes=notes,
        open_letters=_open_letters(parts),
        seconds=time.monotonic() - began,
    )


def _seen(pipeline: Pipeline, parts: Assembly) -> Watermark:
    with parts.target_errors(pipeline.name):
        ensure_schema(parts.engine, parts.dialect)
        with parts.engine.connect() as connection:
            seen = read_watermark(connection, pipeline.name)
            others = other_writers(connection, pipeline.name, pipeline.load.table)
    if not seen.version:
        raise NotComparable(
            f"{pipeline.name} has not been loaded yet, so there is nothing to compare. Run it: `tidegate run "
            f"{pipeline.name}`."
        )
    if others:
        raise NotComparable(
            f"{pipeline.name}: {pipeline.load.table} is also written to by {', '.join(others)}, so nobody can tell "
            "whose a row is that is not in this source. Compare the pipelines by a query of your own."
        )
    return seen


def _open_letters(parts: Assembly) -> int:
    with parts.target_errors(parts.pipeline.name), parts.engine.connect() as connection:
        return count_letters(connection, Wanted(parts.pipeline.name))


def _window(pipeline: Pipeline, parts: Assembly, seen: Watermark, asked: Window) -> Window:
    """What is compared: what was asked for, as far as the last run is proven to have read."""
    extract = read_of(pipeline)
    if extract.cursor is None:
        if asked != Window():
            raise NotComparable(
                f"{pipeline.name}: {extract.dataset!r} is read without a cursor, so there is no range to compare. "
                "Leave start and end out."
            )
        return asked
    if parts.contract.time_cursor is None:
        raise NotComparable(
            f"{pipeline.name}: the cursor {extract.cursor!r} is of type "
            f"{parts.contract.columns.field(extract.cursor).type}, which is no instant, so nobody can tell what the "
            "last run has read. Declare it as UtcTimestamp."
        )
    if seen.covered_until is None:
        raise NotComparable(f"{pipeline.name}: nothing is covered yet. Run it: `tidegate run {pipeline.name}`.")
    start, end = asked.start, asked.end
    if extract.initial is not None:
        initial = to_utc(extract.initial)
        start = initial if start is None else max(start, initial)
    if start is not None and end is not None:
        end = max(start, end)
    return Window(start, end).clip(seen.covered_until)


def _explained(pipeline: Pipeline, compared: Sides, seen: Watermark) -> Explained:
    names = list(compared.target.families)
    covered = None
    if compared.cursor is not None:
        covered = canonical(seen.covered_until, Family.INSTANT)
    cursor = None if compared.cursor is None else names.index(compared.cursor)
    return Explained(names, compared.target.key, cursor, covered, compared.once, pipeline.masking)


def _look_again(
    pipeline: Pipeline, parts: Assembly, compared: Sides, explained: Explained, found: Comparison
) -> list[Difference]:
    """Explain every key that differed, by what both sides say of it now; the target first.

    A row that changes in between has a cursor that the last run could not have read, and is pending.
    """
    keys = found.keys
    if not keys:
        return []
    theirs = _by_key(compared.target, keys)
    ours = _by_key(compared.rows_of, keys)
    if ours is None:
        ours = found.ours
    rules = open_rules(parts, keys, compared.target.families)
    raw = compared.judged.asked if compared.judged is not None and pipeline.drops_rows else frozenset()
    explanations = (
        explained.explain(key, ours.get(key, []), (theirs or {}).get(key, []), rules.get(key), filtered=key in raw)
        for key in keys
    )
    return [one for one in explanations if one is not None]


def _by_key(side: TableSide | JudgedSide, keys: Sequence[Texts]) -> dict[Texts, list[Texts]] | None:
    rows = side.rows_with(keys)
    if rows is None:
        return None
    found: dict[Texts, list[Texts]] = {}
    for row in rows:
        found.setdefault(row[: side.key], []).append(row)
    return found
