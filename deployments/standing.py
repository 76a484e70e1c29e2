"""`Standing`: where a pipeline stands: how far it has come, how fresh that is, and how its last run ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from tasks import settings
from tasks.connections import engine
from tasks.dialects import dialect_of
from tasks.errors import TidegateError, redact
from tasks.health import measure
from tasks.observe.causes import FRESHNESS
from tasks.pipeline import Pipeline
from tasks.state.history import PastRun, last_run, opened_history
from tasks.state.letters import Wanted, count_letters
from tasks.state.watermarks import read_watermark

Freshness = Literal["ok", "breached", "unknown", "not promised"]


@dataclass(frozen=True, slots=True)
class Standing:
    """What the target says of a pipeline now; times in UTC.

    Attributes:
        pipeline: its name.
        now: the target's clock, or this machine's where the target did not answer.
        watermark: highest cursor extracted.
        covered_until: source time below which everything is in the target.
        version: of the watermark; grows with every commit, 0 before the first.
        age: how long ago `covered_until` was.
        limit: how long ago it may be.
        freshness: what that comes to; `unknown` where something is promised and nothing tells.
        last_run: the run that was begun last.
        open_letters: dead letters that wait for a good version; None where nothing has been loaded yet.
        problem: why the target could not be asked, or nobody can tell how fresh it is; else None.
    """

    pipeline: str
    now: datetime
    watermark: datetime | None = None
    covered_until: datetime | None = None
    version: int = 0
    age: timedelta | None = None
    limit: timedelta | None = None
    freshness: Freshness = "not promised"
    last_run: PastRun | None = None
    open_letters: int | None = None
    problem: str | None = None

    @property
    def error_rate(self) -> float | None:
        """Of the last run."""
        return None if self.last_run is None else self.last_run.error_rate

    def as_dict(self) -> dict[str, Any]:
        """For programs; ages in seconds."""
        run = self.last_run
        return {
            "pipeline": self.pipeline,
            "watermark": self.watermark,
            "covered_until": self.covered_until,
            "watermark_version": self.version,
            "freshness": {
                "status": self.freshness,
                "age_seconds": None if self.age is None else self.age.total_seconds(),
                "limit_seconds": None if self.limit is None else self.limit.total_seconds(),
            },
            "last_run": None
            if run is None
            else {
                "run_id": run.attempts[0].run_id,
                "status": run.status,
                "started_at": run.started_at,
                "finished_at": run.finished_at,
                "seconds": run.seconds,
                "error_rate": run.error_rate,
            },
            "open_letters": self.open_letters,
            "problem": self.problem,
        }


def standings(pipelines: Sequence[Pipeline]) -> list[Standing]:
    """Where each of `pipelines` stands; one whose target does not answer has a `problem`, and the others go on."""
    return [_standing(pipeline) for pipeline in pipelines]


def next_runs(pipelines: Sequence[str]) -> tuple[dict[str, datetime], str | None]:
    """When the server has scheduled each pipeline's flow for the next time (UTC), and why it could not be asked.

    Without `PREFECT_API_URL` there is no server, and nothing to say.
    """
    if not settings.api_server_known():
        return {}, None
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter, FlowRunFilterState
    from prefect.client.schemas.filters import FlowRunFilterStateType as StateType
    from prefect.client.schemas.objects import StateType as States
    from prefect.client.schemas.sorting import FlowRunSort
    from prefect.exceptions import PrefectHTTPStatusError

    scheduled = FlowRunFilter(state=FlowRunFilterState(type=StateType(any_=[States.SCHEDULED])))
    found: dict[str, datetime] = {}
    try:
        with get_client(sync_client=True) as client:
            for name in pipelines:
                runs = client.read_flow_runs(
                    flow_filter=FlowFilter(name=FlowFilterName(any_=[name])),
                    flow_run_filter=scheduled,
                    sort=FlowRunSort.EXPECTED_START_TIME_ASC,
                    limit=1,
                )
                if runs and runs[0].expected_start_time is not None:
                    found[name] = runs[0].expected_start_time.astimezone(UTC)
    except (httpx.HTTPError, PrefectHTTPStatusError, RuntimeError) as error:
        return found, redact(f"The Prefect server did not tell the next runs: {error or type(error).__name__}")
    return found, None


def _standing(pipeline: Pipeline) -> Standing:
    promised = {"limit": pipeline.sla.max_freshness} if pipeline.sla.max_freshness is not None else {}
    unknown: dict[str, Any] = {**promised, "freshness": "unknown" if promised else "not promised"}
    try:
        target = engine(pipeline.load.connection)
        with opened_history(pipeline.load.connection) as connection:
            if connection is None:
                return Standing(pipeline.name, datetime.now(UTC), **unknown)
            now, seen = dialect_of(target).clock(connection), read_watermark(connection, pipeline.name)
            freshness, age, problem = _freshness(pipeline, seen.covered_until, now)
            return Standing(
                pipeline=pipeline.name,
                now=now,
                watermark=seen.value,
                covered_until=seen.covered_until,
                version=seen.version,
                age=age,
                limit=pipeline.sla.max_freshness,
                freshness=freshness,
                problem=problem,
                last_run=last_run(connection, pipeline.name),
                open_letters=count_letters(connection, Wanted(pipeline.name)),
            )
    except TidegateError as error:
        return Standing(pipeline.name, datetime.now(UTC), problem=f"{type(error).__name__}: {error}", **unknown)


def _freshness(
    pipeline: Pipeline, covered_until: datetime | None, now: datetime
) -> tuple[Freshness, timedelta | None, str | None]:
    """Whether what is covered is as fresh as promised, and how long ago that was, as alerts measure it.

    Of a pipeline that promises nothing, how long ago it was by the target's clock. Last, why nobody can tell: the
    source whose time it goes by does not answer, or is not known here.
    """
    if pipeline.sla.max_freshness is None:
        return "not promised", None if covered_until is None else max(now - covered_until, timedelta(0)), None
    try:
        findings = measure(pipeline, engine(pipeline.load.connection)).findings
    except TidegateError as error:
        return "unknown", None, f"{type(error).__name__}: {error}"
    for finding in findings:
        if finding.measured == FRESHNESS:
            age = finding.figures["age"]
            verdict: Freshness = "breached" if finding.breached else "ok" if age is not None else "unknown"
            return verdict, None if age is None else timedelta(seconds=max(float(age), 0.0)), None
    return "unknown", None, None
