"""`watch_pipelines`: how every pipeline is now, told whether or not any of them runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.connections import engine
from tasks.declaration import Pipeline
from tasks.dialects import dialect_of
from tasks.errors import SourceUnavailable, TargetError, TargetUnavailable, TidegateError, WatchFailed, redact
from tasks.extract.feed import Notice, Slotted
from tasks.health import Finding, Health, measure
from tasks.observe.artifacts import show_report
from tasks.observe.context import logger
from tasks.running.announce import announce_findings, announce_notices
from tasks.state.feeds import known_feed_name


@dataclass(frozen=True, slots=True)
class Watched:
    """How one pipeline was found.

    Attributes:
        pipeline: its name.
        health: what its target says; None where that could not be asked.
        notices: what its source says.
        problem: what could not be measured, and why; None where everything was.
    """

    pipeline: str
    health: Health | None
    notices: Sequence[Notice] = ()
    problem: str | None = None

    @property
    def breached(self) -> list[str]:
        """The causes of what is breached."""
        found = [one.measured.cause for one in self._findings if one.breached]
        return found + [notice.event for notice in self.notices if notice.alarming]

    @property
    def row(self) -> dict[str, Any]:
        """As a table shows it."""
        vitals = self.health and self.health.vitals
        last = vitals.last if vitals else None
        said = [one.text for one in self._findings if one.breached]
        said += [notice.text for notice in self.notices if notice.alarming]
        said += [text for text in (self.problem, self.health and self.health.note) if text]
        return {
            "pipeline": self.pipeline,
            "breached": ", ".join(self.breached) or None,
            "covered until": vitals.covered_until.isoformat() if vitals and vitals.covered_until else None,
            "recent error rate": round(vitals.recent.error_rate, 4) if vitals else None,
            "open letters": vitals.open_letters if vitals else None,
            "last run": last.status if last else None,
            "message": " ".join(said) or (last.message if last else None),
        }

    @property
    def _findings(self) -> Sequence[Finding]:
        return self.health.findings if self.health else ()


@dataclass(frozen=True, slots=True)
class WatchReport:
    """How every pipeline was found, in the order in which they were given."""

    watched: tuple[Watched, ...]

    def __getitem__(self, pipeline: str) -> Watched:
        return next(one for one in self.watched if one.pipeline == pipeline)

    def __str__(self) -> str:
        breached = [f"{one.pipeline} ({', '.join(one.breached)})" for one in self.watched if one.breached]
        unknown = [one.pipeline for one in self.watched if one.problem]
        parts = [f"{len(self.watched)} pipeline{'s' if len(self.watched) != 1 else ''}"]
        parts += [f"breached: {', '.join(breached)}"] if breached else ["none is in breach"]
        parts += [f"not measured: {', '.join(unknown)}"] if unknown else []
        return "; ".join(parts)


def watch_pipelines(name: str, pipelines: Sequence[Pipeline]) -> WatchReport:
    """Measure every pipeline, and tell what is kept and what is breached; nothing is run, locked or written.

    Inside a flow run, every finding is an event of its pipeline, and the table of all is an artifact `etl-<name>`.

    Args:
        name: of the whole.
        pipelines: whom to watch.

    Raises:
        WatchFailed: some could not be measured, after all others were.
    """
    silent: dict[str, str] = {}
    report = WatchReport(tuple(_watched(pipeline, silent) for pipeline in pipelines))
    show_report(name, [one.row for one in report.watched], str(report))
    problems = [one.problem for one in report.watched if one.problem is not None]
    if problems:
        raise WatchFailed(f"{name}: {report}. {' '.join(dict.fromkeys(problems))}")
    return report


def _watched(pipeline: Pipeline, silent: dict[str, str]) -> Watched:
    """One pipeline; what `silent` has of a database that did not answer is not asked again."""
    problems: list[str] = []
    health: Health | None = None
    notices: Sequence[Notice] = ()
    try:
        health = _measured(pipeline, silent)
        announce_findings(health, None)
    # Whatever it is, the other pipelines are to be watched.
    except Exception as error:
        problems.append(_told(pipeline, error))
    try:
        notices = _notices(pipeline, silent)
        announce_notices(pipeline, notices, None)
    except Exception as error:
        problems.append(_told(pipeline, error))
    return Watched(pipeline.name, health, notices, " ".join(dict.fromkeys(problems)) or None)


def _measured(pipeline: Pipeline, silent: dict[str, str]) -> Health:
    where = pipeline.load.connection
    if where in silent:
        raise TargetUnavailable(silent[where])
    try:
        return measure(pipeline, engine(where))
    except TargetUnavailable as error:
        silent[where] = str(error)
        raise


def _notices(pipeline: Pipeline, silent: dict[str, str]) -> Sequence[Notice]:
    """How much log the source keeps for the pipeline, where it keeps any."""
    extract = pipeline.extract
    if not isinstance(extract, Slotted) or pipeline.load.connection in silent:
        return ()
    if extract.connection in silent:
        raise SourceUnavailable(silent[extract.connection])
    target = engine(pipeline.load.connection)
    where = f"{pipeline.name}: the target {pipeline.load.connection!r}"
    with dialect_of(target).translated(where, TargetUnavailable, TargetError), target.connect() as connection:
        slot = known_feed_name(connection, pipeline.name)
    if slot is None:
        return ()
    try:
        return extract.slot_notices(slot)
    except SourceUnavailable as error:
        silent[extract.connection] = str(error)
        raise


def _told(pipeline: Pipeline, error: Exception) -> str:
    text = redact(str(error) if isinstance(error, TidegateError) else f"{type(error).__name__}: {error}")
    logger().error("%s could not be measured, and all others are. %s", pipeline.name, text)
    return text
