"""`Plan`: which windows a run reads."""

from dataclasses import dataclass
from datetime import datetime

from tasks.declaration import Pipeline
from tasks.errors import ConfigError
from tasks.extract.feed import Derived, Feed, Resumable
from tasks.extract.gone import GoneExtract
from tasks.extract.letters import LettersExtract
from tasks.load.partition import ReplacePartition
from tasks.partitioned import Partitioned
from tasks.running.announce import say_clipped, say_stalled
from tasks.state.attempts import Kind
from tasks.state.watermarks import Watermark
from tasks.window import Window, to_utc


@dataclass(frozen=True, slots=True)
class Plan:
    """The windows of a run, in the order they are committed.

    Attributes:
        kind: `full` (no cursor), `incremental` (moves the watermark), `explicit` (does not), `changes` (a feed goes on
            from its position, or a mart reads what changed upstream; its one window stands for as many chunks as there
            are) or `replay` (dead letters are judged anew, or rows deleted that were found to be gone).
        windows: half-open, UTC.
        rest: they are what an earlier run left of its window; what has come since is still to be planned.
        complete: what does not come in is gone from the source, and goes from the target.
        bound: source time (UTC) up to which such a run has read everything that ever comes, where there is a cursor. It
            reads what lies beyond it too, which is in the source as well; the watermark stays below.
    """

    kind: Kind
    windows: tuple[Window, ...]
    rest: bool = False
    complete: bool = False
    bound: datetime | None = None


def plan(
    pipeline: Pipeline,
    seen: Watermark,
    start: datetime | None,
    end: datetime | None,
    *,
    full_refresh: bool = False,
    shared: bool = False,
) -> Plan:
    """What to read. The source's bound is read here, so before the extract takes its snapshot.

    Args:
        pipeline: what to run.
        seen: its watermark.
        start: first instant of an explicit window, UTC if naive; with `end` None too, the run is incremental.
        end: first instant that is left out; clipped to the bound.
        full_refresh: read everything, whatever the watermark says.
        shared: other pipelines write to the same target, so that nobody can tell whose a row is that did not come in.

    Raises:
        ConfigError: an explicit window for a feed or an extract without a cursor, or one that ends before it starts.
        SourceUnavailable: the source did not tell its bound.
        SourceError: it refused to.
    """
    extract = pipeline.extract
    explicit = start is not None or end is not None
    if explicit and full_refresh:
        raise ConfigError(
            f"{pipeline.name}: a full refresh reads everything, and start and end a range: give one of the two."
        )
    if isinstance(extract, LettersExtract | GoneExtract):
        return Plan("replay", (Window(),))
    if explicit:
        expect_past(pipeline)
    if isinstance(extract, Feed) or (isinstance(extract, Derived) and not explicit):
        return Plan("changes", (Window(),))
    asked, partitions = Window.parse(start, end), whole_partitions(pipeline)
    if isinstance(extract, Derived):
        return Plan("explicit", _split(pipeline, _whole(asked, partitions), partitions))
    if extract.cursor is None:
        return Plan("full", (Window(),), complete=full_refresh and rebuilds(pipeline) and not shared)
    if isinstance(extract, Resumable) and not explicit and not full_refresh:
        left = extract.unfinished(seen.position)
        if left is not None:
            return Plan("incremental", (left,), rest=True)
    bound = extract.bound()
    assert bound is not None, "an extract with a cursor has a bound"
    if explicit:
        if asked.end is not None and asked.clip(bound) != asked:
            say_clipped(pipeline, asked, bound)
        return Plan("explicit", _split(pipeline, _whole(asked, partitions).clip(bound), partitions))
    if seen.covered_until is not None and bound <= seen.covered_until:
        say_stalled(pipeline, bound)
    if full_refresh and rebuilds(pipeline) and not shared:
        # In one commit, whatever `split` says: only of the whole it can be told what did not come in.
        return Plan("full", (Window(),), complete=True, bound=bound)
    known = None if full_refresh else seen.value
    begin = extract.initial if known is None else known - extract.lookback
    window = Window(None if begin is None else min(to_utc(begin), bound), bound)
    return Plan("incremental", _split(pipeline, _whole(window, partitions).clip(bound), partitions))


def expect_past(pipeline: Pipeline) -> None:
    """Make sure that ranges of the pipeline's source can be read.

    Raises:
        ConfigError: it is followed from a position, or read whole.
    """
    extract, name = pipeline.extract, pipeline.name
    snapshot = f"Run it without start and end; `tidegate run {name} --full-refresh` takes a new snapshot."
    if isinstance(extract, Feed):
        raise ConfigError(
            f"{name}: {extract.dataset!r} is followed from a position, and has no past to read a range of. {snapshot}"
        )
    if extract.cursor is None and not (isinstance(extract, Derived) and extract.by is not None):
        raise ConfigError(
            f"{name}: {extract.dataset!r} is read whole, without a cursor, so there is no past to read a range of. "
            f"{snapshot}"
        )


def whole_partitions(pipeline: Pipeline) -> Partitioned | None:
    """The partitions of which a range is read, and replaced, as a whole; None where any range is."""
    if isinstance(pipeline.extract, Derived):
        return pipeline.extract.by
    return pipeline.load.partitions if isinstance(pipeline.load, ReplacePartition) else None


def rebuilds(pipeline: Pipeline) -> bool:
    """Whether only a full refresh tells what is gone: one window holds all the source has, and the load deletes."""
    extract, load = pipeline.extract, pipeline.load
    whole = not isinstance(extract, Feed | Resumable | Derived) and extract.initial is None
    # When what is gone went nobody knows, so it ends no version of a history.
    return whole and load.deletes and not load.deletes_absent and not load.dated


def _whole(window: Window, partitions: Partitioned | None) -> Window:
    return window if partitions is None else partitions.aligned(window)


def _split(pipeline: Pipeline, window: Window, partitions: Partitioned | None) -> tuple[Window, ...]:
    if pipeline.split is None:
        return (window,)
    return tuple(window.split(pipeline.split) if partitions is None else partitions.split(window, pipeline.split))
