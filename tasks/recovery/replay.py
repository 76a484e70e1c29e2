"""Replay: the open dead letters of a pipeline, judged by what transform, schema and references say today."""

from array import array
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial

from tasks.declaration import Pipeline
from tasks.errors import ConfigError
from tasks.extract.feed import Derived, Feed
from tasks.extract.letters import LettersExtract
from tasks.observe.context import logger
from tasks.overrides import Overrides
from tasks.report import RunReport
from tasks.running.announce import announce_health
from tasks.running.assembly import Assembly
from tasks.running.run import Run
from tasks.state.attempts import Attempt, new_token, record_unplanned
from tasks.state.dead_letters import close_as_seen, discard
from tasks.state.letters import Wanted, has_record, is_nameless, letter_pages
from tasks.state.schema import ensure_schema
from tasks.transform.changes import judge_changes
from tasks.transform.whole_window import WholeWindow
from tasks.window import Window, joined_windows

# What is bad still does not keep the rest from being loaded: nothing comes in that is not bad already.
_NO_LIMIT = Overrides("dead letters are replayed", abort_error_rate=1, ignore_bounds=True)

RECORDLESS = "their records are masked, or not kept any more"
"""Why letters of a pipeline that is replayed by records have to be read again."""


@dataclass(frozen=True)
class Rehearsal:
    """What a replay would do, as far as it can be told without doing it.

    Attributes:
        pipeline: whose letters.
        passing: rows that the contract would let through; references and rules over the window are not asked.
        failing: rows that it would reject.
        windows: what would be read again, for letters whose records are not enough.
        reason: why they are not; None where each of them is.
        snapshot: they are of a feed, which is read anew, whole.
    """

    pipeline: str
    passing: int = 0
    failing: int = 0
    windows: tuple[Window, ...] = field(default=())
    reason: str | None = None
    snapshot: bool = False


@dataclass
class _Found:
    """What letters a replay is about; 16 bytes of memory for each that has no key.

    Attributes:
        whole: whether any of them is judged by its record.
        windows: those that the others were seen in last.
        nameless: numbers of these others, as far as their rows have no key, so that no good version closes them.
        times: how often each of those had been seen.
    """

    whole: bool = False
    windows: set[Window] = field(default_factory=set)
    nameless: "array[int]" = field(default_factory=lambda: array("q"))
    times: "array[int]" = field(default_factory=lambda: array("q"))


def replay_letters(pipeline: Pipeline, wanted: Wanted | None = None, *, snapshots: bool = True) -> list[RunReport]:
    """Load what passes today; its letters are closed by the run, and what is bad still stays open.

    The records are judged and loaded by the pipeline's own strategy, in one commit, so that an older version never
    replaces a newer one. Where a record is not enough (see `needs_source`), or is masked or gone, the windows that the
    letters came in are run again; of what is followed there are none, and a new snapshot is taken. Such a letter of a
    row without a key is closed if it does not come again.

    Args:
        pipeline: whose letters.
        wanted: which of them; None is all that are open.
        snapshots: a feed may be read anew for it, whole; else such letters are left, and that is logged.

    Returns:
        The report of each run: one, or one for each window; none where no letter is open.

    Raises:
        ConfigError: letters of another pipeline, or closed ones.
        TidegateError: see `tasks.errors`; the letters are what they were.
    """
    asked = _asked(pipeline, wanted)
    found = _found(pipeline, asked)
    reports = []
    if found.whole:
        letters = replace(pipeline, extract=_letters(pipeline, asked), bounds=(), depends_on=())
        report = Run(letters, _NO_LIMIT).run(None, None)
        announce_health(pipeline, Assembly(pipeline).engine, report.run_id)
        reports.append(report)
    if found.windows and isinstance(pipeline.extract, Feed) and not snapshots:
        logger().warning(
            "%s: some open dead letters can only be judged by a new snapshot, because %s. Take it with `tidegate "
            "dead-letters replay %s`.",
            pipeline.name,
            needs_source(pipeline) or RECORDLESS,
            pipeline.name,
        )
        return reports
    again = [
        Run(pipeline).run(window.start, window.end, full_refresh=window == Window())
        for window in joined_windows(found.windows)
    ]
    if again and all(report.windows and report.skipped is None for report in again):
        _close_unseen(pipeline, found, again[-1])
    return reports + again


def rehearse_replay(pipeline: Pipeline, wanted: Wanted | None = None) -> Rehearsal:
    """What `replay_letters` would do; nothing is written.

    Raises:
        TidegateError: see `replay_letters`.
    """
    asked = _asked(pipeline, wanted)
    found = _found(pipeline, asked)
    reason = (needs_source(pipeline) or RECORDLESS) if found.windows else None
    windows = tuple(joined_windows(found.windows))
    passing, failing = _judged(pipeline, asked) if found.whole else (0, 0)
    snapshot = isinstance(pipeline.extract, Feed) and bool(windows)
    return Rehearsal(pipeline.name, passing, failing, windows, reason, snapshot)


def _judged(pipeline: Pipeline, wanted: Wanted) -> tuple[int, int]:
    """How many rows the contract lets through of those that have their records, and how many it does not."""
    letters = _letters(pipeline, wanted)
    contract = Assembly(replace(pipeline, extract=letters)).contract
    judge = partial(judge_changes, contract) if letters.tells_deletes else contract.judge
    passing = failing = 0
    for batch in letters.batches(Window()):
        judged = judge(batch, 0)
        passing += judged.valid.num_rows
        failing += judged.rejected.num_rows
    return passing, failing


def discard_letters(pipeline: Pipeline, reason: str, wanted: Wanted | None = None) -> int:
    """Close letters that nobody will mend; the ledger keeps how many, and why.

    A row that comes in bad again opens its letter again.

    Returns:
        How many there were.

    Raises:
        ConfigError: no reason, letters of another pipeline, or closed ones.
        TidegateError: see `tasks.errors`.
    """
    if not reason.strip():
        raise ConfigError(f"{pipeline.name}: dead letters are discarded for a reason; write it down.")
    asked, parts = _asked(pipeline, wanted), Assembly(pipeline)
    attempt = Attempt(pipeline.name, pipeline.load.table, new_token(), "replay", Window())
    with parts.target_errors(pipeline.name):
        ensure_schema(parts.engine, parts.dialect)
        with parts.dialect.transaction(parts.engine) as connection:
            now = parts.dialect.clock(connection)
            discarded = discard(connection, asked, attempt.run_id, now)
            if discarded:
                said = f"{discarded:,} dead letters were discarded: {reason}"
                record_unplanned(connection, attempt, said, now, parts.details(), "skipped")
    return discarded


def needs_source(pipeline: Pipeline) -> str | None:
    """Why the records of dead letters are not enough to replay them, so that windows are read again; else None."""
    load, extract = pipeline.load, pipeline.extract
    name = type(load).__name__
    if pipeline.masked:
        return "its records are masked"
    if isinstance(extract, Derived):
        return "it is made of other tables"
    if load.deletes_absent:
        return f"{name} takes what does not come in for deleted"
    if isinstance(pipeline.transform, WholeWindow):
        return "its transform sees whole windows"
    if isinstance(extract, Feed):
        # A row of a snapshot has the time of that, which no record keeps.
        undated = load.dated and Assembly(pipeline).contract.time_cursor is None
        return f"{name} keeps times, and its records need not have one" if undated else None
    return None if extract.cursor is not None else f"{extract.dataset!r} is read whole, without a cursor"


def _asked(pipeline: Pipeline, wanted: Wanted | None) -> Wanted:
    asked = wanted or Wanted(pipeline.name)
    if asked.pipeline != pipeline.name:
        raise ConfigError(f"{pipeline.name}: these are dead letters of {asked.pipeline!r}.")
    if asked.status != "open":
        raise ConfigError(
            f"{pipeline.name}: only open dead letters can be replayed or discarded, not {asked.status!r}."
        )
    return asked


def _letters(pipeline: Pipeline, wanted: Wanted) -> LettersExtract:
    extract = pipeline.extract
    tells_deletes = isinstance(extract, Feed) or extract.tells_deletes
    return LettersExtract(pipeline.load.connection, wanted, extract.cursor, tells_deletes)


def _found(pipeline: Pipeline, wanted: Wanted) -> _Found:
    """Which letters are judged by their records, and what has to be read for the others."""
    parts, found = Assembly(pipeline), _Found()
    by_record = needs_source(pipeline) is None
    with parts.target_errors(pipeline.name):
        ensure_schema(parts.engine, parts.dialect)
        with parts.engine.connect() as connection:
            for page in letter_pages(lambda: nullcontext(connection), wanted):
                for row in page:
                    if by_record and has_record(row):
                        found.whole = True
                        continue
                    found.windows.add(Window(row.window_start, row.window_end))
                    if is_nameless(row):
                        found.nameless.append(row.letter)
                        found.times.append(row.times_seen)
    return found


def _close_unseen(pipeline: Pipeline, found: _Found, report: RunReport) -> None:
    """Close the letters without a key that the windows they came in have not brought again, though read whole."""
    if not found.nameless:
        return
    parts = Assembly(pipeline)
    with parts.target_errors(pipeline.name), parts.dialect.transaction(parts.engine) as connection:
        now = parts.dialect.clock(connection)
        letters = zip(found.nameless, found.times, strict=True)
        close_as_seen(connection, letters, report.windows[-1].attempt.token, now)
