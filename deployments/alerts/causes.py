"""`CAUSES`: everything that raises an alert: how grave it is, what it is noticed and resolved by, and what it says."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal, Self

from deployments.alerts.heartbeat import LOST_AFTER
from tasks.declaration import Pipeline, Sla
from tasks.extract.debezium import DebeziumExtract
from tasks.extract.log import LogExtract
from tasks.observe import causes as told
from tasks.observe.causes import Measured

Severity = Literal["critical", "warning"]
Kind = Literal["pipeline", "flow", "part", "work pool"]

LOST: Final = "No heartbeat"
"""How the message of the state begins that a zombie is given."""


@dataclass(frozen=True)
class Watched:
    """What an alert is about.

    Attributes:
        kind: `flow` is an operating flow, which has no pipeline; `part` one that another flow starts, which tries again
            and tells what failed, so that only those are looked for that nobody ends.
        name: of the pipeline and its flow, or of the flow, or of the work pool.
        sla: what it promises.
        keeps_log: its source keeps log for it until it has been read.
    """

    kind: Kind
    name: str
    sla: Sla
    keeps_log: bool = False

    @classmethod
    def pipeline(cls, pipeline: Pipeline) -> Self:
        """A pipeline, and the flow of the same name."""
        follows = isinstance(pipeline.extract, LogExtract | DebeziumExtract)
        return cls("pipeline", pipeline.name, pipeline.sla, follows)


@dataclass(frozen=True)
class Signal:
    """Events that tell the same of one kind of thing.

    Attributes:
        of: whose events they are.
        events: their names.
        message: what the message of a flow run's state has to be like, or with a `!` before it, must not.
    """

    of: Literal["pipeline", "flow run", "work pool"]
    events: frozenset[str]
    message: str | None = None


@dataclass(frozen=True)
class Missed:
    """Something that should follow does not follow in time; the server alone notices it, whoever else is alive.

    Attributes:
        after: what begins it.
        expect: what should follow.
        limit: in what time; None where nothing is promised.
        crashes: what tells that the run was given the state Crashed, where it is. The server refuses that to one that
            has ended: its last heartbeat may arrive after its end, and would be missed for ever.
    """

    after: Signal
    expect: Signal
    limit: Callable[[Sla], timedelta | None]
    crashes: Signal | None = None


@dataclass(frozen=True)
class Cause:
    """One way in which something is wrong.

    Texts are Jinja templates that the server renders, in which `$name` and `$limit` stand for what the deploy knows.
    They may use `seen`, the event that it was noticed by, and `run` and `run_name`, of the flow run it is about.

    Attributes:
        name: part of the automation's name, of the dedup key and of the runbook's link.
        severity: `critical` where data is lost or comes to a stand, if nobody acts.
        kinds: what it happens to.
        raised: what it is noticed by.
        resolved: what it is over with.
        text: what happened.
        look: the command that shows the cause.
        recovered: what it is over with, in words.
        applies: whether it is looked for.
    """

    name: str
    severity: Severity
    kinds: frozenset[Kind]
    raised: Signal | Missed
    resolved: Signal
    text: str
    look: str
    recovered: str
    applies: Callable[[Watched], bool] = lambda _: True

    def limit(self, watched: Watched) -> timedelta | None:
        """In what time something is expected; None where nothing is."""
        return self.raised.limit(watched.sla) if isinstance(self.raised, Missed) else None

    def concerns(self, watched: Watched) -> bool:
        """Whether it is looked for with `watched`."""
        if watched.kind not in self.kinds or not self.applies(watched):
            return False
        return not isinstance(self.raised, Missed) or self.limit(watched) is not None


def _flow_run(*states: str, message: str | None = None) -> Signal:
    return Signal("flow run", frozenset(f"prefect.flow-run.{state}" for state in states), message)


def _pipeline(*events: str) -> Signal:
    return Signal("pipeline", frozenset(events))


def _measured(
    measured: Measured, severity: Severity = "warning", applies: Callable[[Watched], bool] = lambda _: True
) -> Cause:
    """A promise that runs and the flow `watch` measure; their events say the rest."""
    return Cause(
        measured.cause,
        severity,
        _PIPELINE,
        _pipeline(measured.breached),
        _pipeline(measured.kept),
        text="{{ event.payload.text or event.event }}",
        look="{{ event.payload.look or 'tidegate status $name' }}",
        recovered="{{ event.payload.text or event.event }}",
        applies=applies,
    )


_PIPELINE: Final[frozenset[Kind]] = frozenset({"pipeline"})
_WHATEVER_RUNS: Final[frozenset[Kind]] = frozenset({"pipeline", "flow"})

# The events go by the states' names, not by their types: `Skipped` is a Completed of ours, `TimedOut` a Failed.
_ENDED = ("Completed", "Skipped", "Failed", "TimedOut", "Crashed", "Cancelled")
_LEFT_ALONE = ("Cancelling", "Paused", "Suspended")
_STARTED = ("Running", "Pending", "Submitting", "InfrastructurePending", "AwaitingConcurrencySlot")
_COMPLETED: Final = _flow_run("Completed")
_HAS_COMPLETED: Final = "Flow run {{ run_name }} has completed."

CAUSES: Final = (
    Cause(
        "late-start",
        "warning",
        _WHATEVER_RUNS,
        Missed(_flow_run("Late"), _flow_run(*_STARTED, *_ENDED, *_LEFT_ALONE), lambda sla: sla.max_start_delay),
        _flow_run("Running"),
        text="Flow run {{ run_name }} is late: $limit after its time no worker has taken it up.",
        look="tidegate doctor",
        recovered="Flow run {{ run_name }} has started.",
    ),
    Cause(
        "runtime",
        "warning",
        _WHATEVER_RUNS,
        Missed(_flow_run("Running"), _flow_run(*_ENDED, *_LEFT_ALONE), lambda sla: sla.max_runtime),
        _COMPLETED,
        text="Flow run {{ run_name }} has been running for more than the $limit promised, and still is.",
        look="tidegate runs $name",
        recovered=_HAS_COMPLETED,
    ),
    _measured(told.FRESHNESS, applies=lambda watched: watched.sla.max_freshness is not None),
    Cause(
        "silence",
        "critical",
        _PIPELINE,
        Missed(_pipeline(told.WINDOW_COVERED), _pipeline(told.WINDOW_COVERED), lambda sla: sla.max_freshness),
        _pipeline(told.WINDOW_COVERED),
        text="No run of $name has covered anything for $limit, "
        "{% if seen %}not since {{ seen.occurred[:16] | replace('T', ' ') }} UTC"
        "{% else %}and none before as far as the server knows{% endif %}.",
        look="tidegate status $name",
        recovered="A run has covered $name{% if event.payload.covered_until %} "
        "until {{ event.payload.covered_until }}{% endif %}.",
    ),
    _measured(told.ERROR_RATE),
    _measured(told.RECENT_ERROR_RATE),
    Cause(
        "failed",
        "critical",
        _WHATEVER_RUNS,
        _flow_run("Failed", "TimedOut", "Crashed", message=f"!{LOST}*"),
        _COMPLETED,
        text="Flow run {{ run_name }} {{ seen.resource['prefect.state-name'] | lower }}: "
        "{{ seen.resource['prefect.state-message'] | truncate(500) }}",
        # A run that is killed cannot say so in the ledger: until the next one it is there as one that runs.
        look="tidegate runs $name{% if seen.resource['prefect.state-name'] != 'Crashed' %} --failed{% endif %}",
        recovered=_HAS_COMPLETED,
    ),
    Cause(
        "zombie",
        "critical",
        _WHATEVER_RUNS | {"part"},
        Missed(
            _flow_run("heartbeat"),
            _flow_run("heartbeat", *_ENDED, *_LEFT_ALONE),
            lambda _: LOST_AFTER,
            _flow_run("Crashed", message=f"{LOST}*"),
        ),
        _COMPLETED,
        text="Flow run {{ run_name }} has not ended, and has sent no heartbeat for $limit: its process or its machine "
        "is gone. It was marked Crashed, so that the next run can start.",
        look="tidegate runs $name",
        recovered=_HAS_COMPLETED,
    ),
    _measured(told.SLOT_LAG, "critical", applies=lambda watched: watched.keeps_log),
    _measured(told.DEAD_LETTERS),
    Cause(
        "workers",
        "critical",
        frozenset({"work pool"}),
        Signal("work pool", frozenset({"prefect.work-pool.not-ready"})),
        Signal("work pool", frozenset({"prefect.work-pool.ready"})),
        text="No worker of the work pool $name is alive, so nothing runs.",
        look="tidegate doctor",
        recovered="A worker of the work pool $name is alive.",
    ),
)


def found_at(watched: Watched) -> list[Cause]:
    """What is looked for with `watched`."""
    return [cause for cause in CAUSES if cause.concerns(watched)]
