"""`Preview`: the first rows of a source, transformed and judged, and nothing written anywhere."""

import contextlib
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import pyarrow as pa

from tasks.declaration import Pipeline
from tasks.errors import ConfigError
from tasks.extract.changes import Extract
from tasks.extract.feed import Feed
from tasks.extract.log import LogExtract
from tasks.extract.sequence import SequenceExtract
from tasks.extract.snapshot import SnapshotDiff
from tasks.extract.table import TableExtract
from tasks.extract.triggers import TriggerExtract
from tasks.masking import MASK, hiding, speaking_plainly
from tasks.running.assembly import Assembly
from tasks.running.plan import plan
from tasks.state.staged import DELETED, ROW
from tasks.state.watermarks import Watermark
from tasks.transform.changes import judge_changes
from tasks.transform.whole_window import WholeWindow
from tasks.window import Window


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that would become a dead letter.

    Attributes:
        record: the raw record.
        reasons: every rule it broke: `rule`, `column`, `value`.
    """

    record: Mapping[str, Any]
    reasons: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Preview:
    """What became of the first rows.

    Attributes:
        pipeline: its name.
        read: raw rows that were looked at.
        valid: good rows in the contract's types, and `etl_deleted` where the source says which are gone; of a masked
            column its marks.
        rejected: the others.
        added: rows beyond the first that the transform made of a raw row.
        filtered: raw rows that it left out.
        notes: what a run does beyond this, a sentence each.
    """

    pipeline: str
    read: int
    valid: pa.Table
    rejected: tuple[RejectedRow, ...]
    added: int
    filtered: int
    notes: tuple[str, ...]


def preview(pipeline: Pipeline, rows: int = 20, start: datetime | None = None, end: datetime | None = None) -> Preview:
    """Read the first rows of the source, or of `[start, end)` of its cursor, and judge them.

    The source is read no further than it takes. Of a table that is followed, the rows are those it holds now; its
    slot, log or triggers are neither asked nor made. Window rules, references, bounds and audits belong to the commit,
    and are not judged.

    Args:
        pipeline: what to look at.
        rows: how many raw rows at most.
        start: first instant, UTC if naive; None is the beginning of the source, whatever the watermark says.
        end: first instant that is left out; None is as far as is proven.

    Raises:
        ConfigError: the source has no rows that could be looked at without moving on in it, or no past to read a range
            of.
        TidegateError: see `tasks.errors`.
    """
    with hiding(pipeline.masking):
        return speaking_plainly(partial(_preview, pipeline, rows, start, end))()


def _preview(pipeline: Pipeline, rows: int, start: datetime | None, end: datetime | None) -> Preview:
    extract, window = _read(pipeline, start, end)
    parts = Assembly(pipeline)
    first = list(_first(extract, window, rows))
    raw = pa.concat_tables(first, promote_options="permissive") if first else None
    if raw is None:
        return Preview(pipeline.name, 0, parts.contract.columns.empty_table(), (), 0, 0, _notes(pipeline))
    contract = parts.contract
    judged = judge_changes(contract, raw, 0) if parts.tells_deletes else contract.judge(raw, 0)
    ours = [ROW] if extract.tells_deletes else [ROW, DELETED]
    return Preview(
        pipeline=pipeline.name,
        read=raw.num_rows,
        valid=_visible(
            pipeline, judged.valid.drop_columns([name for name in ours if name in judged.valid.column_names])
        ),
        rejected=tuple(
            RejectedRow(json.loads(letter["record"]), json.loads(letter["reasons"]))
            for letter in judged.rejected.select(["record", "reasons"]).to_pylist()
        ),
        added=judged.added,
        filtered=judged.filtered,
        notes=_notes(pipeline),
    )


def _read(pipeline: Pipeline, start: datetime | None, end: datetime | None) -> tuple[Extract, Window]:
    """What is read instead of a feed, or the extract itself, and which window."""
    extract = pipeline.extract
    if not isinstance(extract, Feed):
        # A commit for each window is what splits them.
        windows = plan(pipeline, Watermark(), start, end).windows
        return extract, Window(windows[0].start, windows[-1].end)
    # It refuses a range, in its own words.
    plan(pipeline, Watermark(), start, end)
    if isinstance(extract, SnapshotDiff | SequenceExtract):
        return TableExtract(extract.connection, extract.table, query=extract.query), Window()
    if isinstance(extract, LogExtract | TriggerExtract):
        return TableExtract(extract.connection, extract.table), Window()
    raise ConfigError(
        f"{pipeline.name}: {extract.dataset!r} comes as {type(extract).__name__} hands it out, and that takes what it "
        "shows, or keeps a place in the source. There is nothing to preview. Run the pipeline into a target of its "
        "own: set the target's TIDEGATE_<NAME>_URL to an empty database."
    )


def _first(extract: Extract, window: Window, rows: int) -> Iterator[pa.Table]:
    """The first `rows` rows, and nothing after them."""
    if window.empty:
        return
    left, batches = rows, extract.batches(window)
    with contextlib.closing(batches) if isinstance(batches, Generator) else contextlib.nullcontext():
        for batch in batches:
            if batch.num_rows:
                yield batch.slice(0, left)
            left -= batch.num_rows
            if left <= 0:
                return


def _visible(pipeline: Pipeline, rows: pa.Table) -> pa.Table:
    """`rows` with a mark for each value of a masked column."""
    for place, name in enumerate(rows.column_names):
        if name in pipeline.masked:
            marks = pa.array([MASK if value.is_valid else None for value in rows.column(name)], pa.string())
            rows = rows.set_column(place, name, marks)
    return rows


def _notes(pipeline: Pipeline) -> tuple[str, ...]:
    notes = []
    if isinstance(pipeline.extract, Feed):
        notes.append("These are rows as they are now, as a new snapshot would bring them; a run brings what changed.")
    if isinstance(pipeline.transform, WholeWindow):
        notes.append("The transform sees all rows of a window in a run, and only these here.")
    judged_later = [one.rule for one in (*pipeline.references, *pipeline.rules)]
    if judged_later:
        notes.append(f"Judged at the commit, and not here: {', '.join(judged_later)}.")
    return tuple(notes)
