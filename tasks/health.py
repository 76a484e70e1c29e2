"""`Health`: which promises of a pipeline are kept, and which are breached, as the target's ledger has it."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine

from tasks.counts import Counted
from tasks.declaration import Pipeline
from tasks.dialects import dialect_of
from tasks.errors import TargetError, TargetUnavailable
from tasks.extract.feed import Clocked, Derived
from tasks.observe.causes import DEAD_LETTERS, ERROR_RATE, FRESHNESS, RECENT_ERROR_RATE, Measured
from tasks.state.schema import HEAD, schema_version
from tasks.state.upstream_tables import time_upstream
from tasks.state.vitals import Vitals, read_vitals

_GROWING_RUNS = 3
"""Dead letters grow where so many runs one after another left more open than there were before."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether one promise is kept.

    Attributes:
        measured: which.
        breached: it is not.
        text: a sentence with the figures and the limit.
        look: the command that shows the cause.
        figures: what the sentence is made of, plain JSON.
    """

    measured: Measured
    breached: bool
    text: str
    look: str
    figures: Mapping[str, str | int | float | None]

    @property
    def event(self) -> str:
        """The name of the event that tells it."""
        return self.measured.breached if self.breached else self.measured.kept

    def payload(self, run_id: str | None) -> dict[str, Any]:
        """The body of that event; `run_id` is the ledger's, of the run at whose end it was measured."""
        return {**self.figures, "run_id": run_id, "text": self.text, "look": self.look}


@dataclass(frozen=True, slots=True)
class Health:
    """How a pipeline is.

    Attributes:
        pipeline: its name.
        vitals: what the target says; None where it has no ledger that can be read.
        findings: what of that is promised.
        note: what is to be known besides: there is no ledger, or the pipeline has never run. Else None.
    """

    pipeline: str
    vitals: Vitals | None
    findings: tuple[Finding, ...]
    note: str | None = None


def measure(pipeline: Pipeline, engine: Engine, *, recorded: bool = False) -> Health:
    """Ask the target, and the source where its time is not the time of day; nothing is written.

    Args:
        pipeline: whose health.
        engine: its target.
        recorded: the target is known to have a ledger: a run has just written to it.

    Raises:
        TargetUnavailable: the target did not answer.
        TargetError: it refused.
        SourceUnavailable: the source did not tell its time.
        SourceError: it refused to.
    """
    dialect = dialect_of(engine)
    name, sla = pipeline.name, pipeline.sla
    where = f"{name}: the target {pipeline.load.connection!r}"
    with dialect.translated(where, TargetUnavailable, TargetError):
        if not recorded and (note := _unreadable(pipeline, engine)) is not None:
            return Health(name, None, (), note)
        with engine.connect() as connection:
            vitals = read_vitals(
                connection,
                name,
                dialect.clock(connection),
                recent_runs=sla.recent_runs,
                growing_runs=_GROWING_RUNS,
            )
            upstream = pipeline.extract.reads if isinstance(pipeline.extract, Derived) else None
            now = vitals.at if upstream is None else time_upstream(connection, upstream, vitals.at) or vitals.at
    if vitals.last is None:
        return Health(name, vitals, (), f"{name} has never run.")
    findings = [_recent_error_rate(pipeline, vitals), _dead_letters(pipeline, vitals)]
    if sla.max_freshness is not None:
        if vitals.covered_until is not None and isinstance(pipeline.extract, Clocked):
            now = pipeline.extract.own_time() or now
        findings.insert(0, _freshness(pipeline, vitals, sla.max_freshness, now))
    return Health(name, vitals, tuple(findings))


def error_rate(pipeline: Pipeline, run_id: str, counted: Counted) -> Finding:
    """Whether the error rate of a run is within what is promised; breached where it is strictly above."""
    limit = pipeline.sla.max_error_rate
    breached, text = _rated(counted, limit)
    figures = {
        "counted": counted.incoming,
        "counted_rejected": counted.rejected,
        "error_rate": counted.error_rate,
        "max_error_rate": limit,
    }
    look = f"tidegate dead-letters list {shlex.quote(pipeline.name)} --run {run_id}"
    return Finding(ERROR_RATE, breached, text, look, figures)


def _unreadable(pipeline: Pipeline, engine: Engine) -> str | None:
    version = schema_version(engine)
    if version is None:
        return (
            f"{pipeline.name}: the target {pipeline.load.connection!r} has no ledger: nothing has ever been loaded "
            "into it."
        )
    if version != HEAD:
        return (
            f"{pipeline.name}: the ledger of {pipeline.load.connection!r} is at version {version}, and this tidegate "
            f"reads {HEAD}: the next run brings it there, or another tidegate has."
        )
    return None


def _freshness(pipeline: Pipeline, vitals: Vitals, limit: timedelta, now: datetime) -> Finding:
    """How old what is covered is where it comes from, whose time is `now`."""
    covered, name = vitals.covered_until, pipeline.name
    look = f"tidegate status {shlex.quote(name)}"
    figures = {
        "covered_until": None if covered is None else covered.isoformat(),
        "max_freshness": limit.total_seconds(),
    }
    promised = f"than the {_duration(limit)} promised"
    if covered is not None:
        age = now - covered
        breached = age > limit
        text = (
            f"Everything up to {_instant(covered)} is loaded, {_duration(age)} ago, "
            f"{'more' if breached else 'no more'} {promised}."
        )
        return Finding(FRESHNESS, breached, text, look, {**figures, "age": age.total_seconds()})
    waited = vitals.at - (vitals.first_seen or vitals.at)
    breached = waited > limit
    text = (
        f"Nothing is known to be loaded whole, and the first run was {_duration(waited)} ago, "
        f"{'more' if breached else 'no more'} {promised}."
    )
    return Finding(FRESHNESS, breached, text, look, {**figures, "age": None, "waited": waited.total_seconds()})


def _recent_error_rate(pipeline: Pipeline, vitals: Vitals) -> Finding:
    counted, limit = vitals.recent, pipeline.sla.max_error_rate
    which = "run" if vitals.recent_runs == 1 else f"{vitals.recent_runs} runs"
    breached, text = _rated(counted, limit, f"In the last {which} ")
    figures = {
        "runs": vitals.recent_runs,
        "counted": counted.incoming,
        "counted_rejected": counted.rejected,
        "error_rate": counted.error_rate,
        "max_error_rate": limit,
    }
    look = f"tidegate dead-letters list {shlex.quote(pipeline.name)}"
    return Finding(RECENT_ERROR_RATE, breached, text, look, figures)


def _dead_letters(pipeline: Pipeline, vitals: Vitals) -> Finding:
    count, limit, growth = vitals.open_letters, pipeline.sla.max_open_letters, vitals.growth
    over = limit is not None and count > limit
    growing = len(growth) == _GROWING_RUNS and min(growth) > 0
    text = f"{count:,} dead letters are open"
    if limit is not None:
        text += f", {'more' if over else 'no more'} than the {limit:,} allowed"
    if growing:
        text += (
            f", and each of the last {_GROWING_RUNS} runs left more: {', '.join(f'{one:+,}' for one in growth[::-1])}"
        )
    figures = {"open": count, "max_open_letters": limit, "growth": sum(growth), "runs": len(growth)}
    look = f"tidegate dead-letters list {shlex.quote(pipeline.name)}"
    return Finding(DEAD_LETTERS, over or growing, f"{text}.", look, figures)


def _rated(counted: Counted, limit: float, when: str = "") -> tuple[bool, str]:
    """Whether `counted` is strictly above `limit`, and a sentence that says so."""
    breached = counted.error_rate > limit
    text = (
        f"{when}{counted.rejected:,} of {counted.incoming:,} rows were rejected, {_percent(counted.error_rate)}, "
        f"{'more' if breached else 'no more'} than the {_percent(limit)} promised."
    )
    return breached, text


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def _instant(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _duration(time: timedelta) -> str:
    """Its two largest units."""
    seconds = abs(time.total_seconds())
    sign = "-" if time < timedelta(0) else ""
    if seconds < 60:
        return f"{sign}{seconds:.3g} s"
    minutes = int(seconds // 60)
    days, hours = divmod(minutes // 60, 24)
    if days:
        return f"{sign}{days} d {hours} h" if hours else f"{sign}{days} d"
    if hours:
        return f"{sign}{hours} h {minutes % 60} min" if minutes % 60 else f"{sign}{hours} h"
    return f"{sign}{minutes} min"
