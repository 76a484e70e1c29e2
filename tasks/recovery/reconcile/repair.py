"""`repair`: what a comparison found, put right by the pipeline's own runs."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pyarrow as pa

from tasks.declaration import Pipeline
from tasks.dialects.checksum.canonical import Family, value_of
from tasks.extract.feed import Feed
from tasks.extract.gone import GoneExtract
from tasks.recovery.reconcile.difference import Difference
from tasks.recovery.reconcile.sides import Sides
from tasks.report import RunReport
from tasks.running.assembly import Assembly
from tasks.running.plan import rebuilds
from tasks.running.run import Run
from tasks.window import Window, joined_windows

_FROM_SOURCE = ("missing", "stale", "differs")
_NEAR = timedelta(minutes=1)
"""Rows whose cursors are no further apart are read again together."""
_INSTANT = timedelta(microseconds=1)


def repair(
    pipeline: Pipeline, parts: Assembly, sides: Sides, differences: Sequence[Difference], notes: list[str]
) -> list[RunReport]:
    """Run what is needed; what cannot be repaired is said in `notes`, with its remedy.

    Where there is a cursor, the windows around the rows that the target lacks, or has as they were, are read again;
    rows that are gone from the source are deleted where the pipeline takes deletes. Without one, everything is read
    again. The runs are the pipeline's own, so that its guards hold and the ledger has them.

    Raises:
        TidegateError: a run failed; those before it are committed.
    """
    again = [one for one in differences if one.kind in _FROM_SOURCE]
    extra = [one for one in differences if one.kind == "extra"]
    _say_what_is_left(differences, notes)
    if sides.cursor is None:
        if not again and not extra:
            return []
        return [Run(pipeline).run(None, None, full_refresh=isinstance(pipeline.extract, Feed))]
    runs = [Run(pipeline).run(window.start, window.end) for window in _windows(again)]
    if not extra:
        return runs
    takes_deletes = parts.tells_deletes and pipeline.load.deletes and not pipeline.load.deletes_absent
    # Only what the source was asked for by its key, and does not have, is gone.
    if takes_deletes and sides.rows_of.rows_with([]) is not None:
        return [*runs, _delete(pipeline, sides, extra)]
    remedy = (
        f"`tidegate run {pipeline.name} --full-refresh` deletes what the source does not have"
        if rebuilds(pipeline)
        else "delete them by hand, or declare how the source marks what is deleted"
    )
    why = "the source cannot be asked for them by key" if takes_deletes else "the pipeline takes no deletes"
    notes.append(f"{len(extra):,} rows are not in the source, and {why}: {remedy}.")
    return runs


def _windows(rows: Sequence[Difference]) -> list[Window]:
    """The windows around the rows' cursors in the source."""
    starts = [value_of(one.source_cursor, Family.INSTANT) for one in rows if one.source_cursor is not None]
    near = joined_windows(Window(start, start + _NEAR) for start in starts)
    found = []
    for window in near:
        inside = [start for start in starts if window.start <= start < window.end]
        found.append(Window(min(inside), max(inside) + _INSTANT))
    return found


def _delete(pipeline: Pipeline, sides: Sides, extra: Sequence[Difference]) -> RunReport:
    families, cursor = sides.target.families, sides.cursor
    assert cursor is not None, "only a pipeline with a cursor takes deletes besides its feed's"
    columns = Assembly(pipeline).contract.columns
    told = {name: [value_of(one.key[name], families[name]) for one in extra] for name in pipeline.load.key}
    told[cursor] = [value_of(one.target_cursor, families[cursor]) for one in extra]
    rows = pa.table({name: pa.array(values, columns.field(name).type) for name, values in told.items()})
    gone = GoneExtract(rows, pipeline.extract.dataset, cursor, pipeline.extract.connection)
    return Run(replace(pipeline, extract=gone, bounds=(), depends_on=())).run(None, None)


def _say_what_is_left(differences: Sequence[Difference], notes: list[str]) -> None:
    remedies = {
        "ahead": "are newer in the target than in the source, and an older row never replaces a newer one: find out "
        "what wrote them, or what has set the source back",
        "duplicate": "are there more than once, which the load does not do: make their key unique in the target",
    }
    for kind, remedy in remedies.items():
        number = sum(one.kind == kind for one in differences)
        if number:
            notes.append(f"{number:,} rows {remedy}.")
