"""`Submission`: the flow runs of a backfill's windows on the Prefect server; all that a fan-out asks of Prefect."""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final, Self, TypeVar
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Cancelled, Cancelling, Crashed

from tasks.errors import ConfigError, SourceUnavailable, redact
from tasks.observe.context import logger
from tasks.recovery.backfill.dispatch import Child, Phase
from tasks.recovery.backfill.ledger import Backfill
from tasks.window import Window

DEPLOYMENT: Final = "window/backfill"

_PHASES: Final[dict[StateType, Phase]] = {
    StateType.SCHEDULED: "scheduled",
    StateType.PENDING: "pending",
    StateType.RUNNING: "running",
    StateType.PAUSED: "running",
    StateType.COMPLETED: "completed",
    StateType.FAILED: "failed",
    StateType.CRASHED: "crashed",
    StateType.CANCELLED: "cancelled",
    StateType.CANCELLING: "running",
}
_UNDER_WAY: Final = [kind for kind, phase in _PHASES.items() if phase in ("scheduled", "pending", "running")]
_PAGE: Final = 100
_AWAY_SECONDS: Final = 900.0
_PAUSE_SECONDS: Final = 2.0

Answer = TypeVar("Answer")


class Submission:
    """The flow runs of one backfill, known by its tag: whoever goes on with it finds what is under way.

    A server that does not answer is asked again for a quarter of an hour.

    Args:
        client: of the server.
        backfill: whose windows.
        jobs: how many are under way at once.
        deployment: `flow/deployment` that carries out one window.
    """

    def __init__(self, client: SyncPrefectClient, backfill: Backfill, jobs: int, deployment: str = DEPLOYMENT) -> None:
        self._client, self._backfill, self._jobs = client, backfill, jobs
        self._tries: Counter[Window] = Counter()
        try:
            self._deployment = self._asked(partial(client.read_deployment_by_name, deployment)).id
        except ObjectNotFound as error:
            raise ConfigError(
                f"{backfill.pipeline}: the server has no deployment {deployment!r}, which loads one window. Run "
                "`tidegate deploy`, or the backfill with `--here`, which needs no server."
            ) from error

    @classmethod
    @contextmanager
    def connected(cls, backfill: Backfill, jobs: int, deployment: str = DEPLOYMENT) -> Iterator[Self]:
        """To the server that Prefect's settings name."""
        with get_client(sync_client=True) as client:
            yield cls(client, backfill, jobs, deployment)

    @property
    def tag(self) -> str:
        """What every flow run of the backfill bears."""
        return f"backfill:{self._backfill.backfill_id}"

    def submit(self, window: Window) -> Child:
        """Have a flow run for `window`: a new one, or one that has not ended and was submitted before."""
        assert window.start is not None and window.end is not None
        start, end = window.start.isoformat(), window.end.isoformat()
        for number in itertools.count(self._tries[window] + 1):
            self._tries[window] = number
            key = f"{self.tag}/{start}/{end}/{number}"
            made = self._asked(
                partial(
                    self._client.create_flow_run_from_deployment,
                    self._deployment,
                    parameters={
                        "pipeline": self._backfill.pipeline,
                        "start": start,
                        "end": end,
                        "backfill": self._backfill.backfill_id,
                        "jobs": self._jobs,
                    },
                    name=f"{self._backfill.pipeline} {window}" + (f", try {number}" if number > 1 else ""),
                    tags=[self.tag],
                    idempotency_key=key,
                )
            )
            # The same key names the same run, also one that has ended: that try is used up.
            if made.state is None or not made.state.is_final():
                return _child(made, window)
        raise AssertionError("there is always a next number")

    def under_way(self) -> list[Child]:
        """Every flow run of the backfill that has not ended, whoever submitted it."""
        return self._read(
            FlowRunFilter(
                tags=FlowRunFilterTags(all_=[self.tag]),
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_UNDER_WAY)),
            )
        )

    def of_ids(self, ids: Iterable[UUID]) -> list[Child]:
        """These flow runs, whether they have ended or not."""
        wanted = list(ids)
        pages = [wanted[first : first + _PAGE] for first in range(0, len(wanted), _PAGE)]
        return [one for page in pages for one in self._read(FlowRunFilter(id=FlowRunFilterId(any_=page)))]

    def crash(self, child: Child, why: str) -> None:
        """Give a lost one the state Crashed; one that has ended meanwhile keeps its own."""
        self._set(child, Crashed(message=why))

    def cancel(self, child: Child, why: str) -> None:
        """Have one not begin that has not begun; one that has is ended by its worker, and its window rolled back."""
        scheduled = child.phase == "scheduled"
        self._set(child, Cancelled(message=why) if scheduled else Cancelling(message=why))

    def is_cancelling(self, flow_run_id: str) -> bool:
        """Whether somebody has cancelled that flow run."""
        state = self._asked(partial(self._client.read_flow_run, UUID(flow_run_id))).state
        return state is not None and (state.is_cancelling() or state.is_cancelled())

    def _set(self, child: Child, state: State[None]) -> None:
        try:
            self._asked(partial(self._client.set_flow_run_state, child.id, state))
        except ObjectNotFound:
            logger().warning("%s: its flow run %s was deleted.", child.window, child.id)

    def _read(self, wanted: FlowRunFilter) -> list[Child]:
        found: list[FlowRun] = []
        while True:
            ask = partial(self._client.read_flow_runs, flow_run_filter=wanted, limit=_PAGE, offset=len(found))
            page = self._asked(ask)
            found += page
            if len(page) < _PAGE:
                return [_child(one, Window.parse(one.parameters["start"], one.parameters["end"])) for one in found]

    def _asked(self, ask: Callable[[], Answer]) -> Answer:
        """What the server answers, once it does."""
        began, told = time.monotonic(), False
        while True:
            try:
                return ask()
            except (httpx.TransportError, PrefectHTTPStatusError) as error:
                if isinstance(error, PrefectHTTPStatusError) and error.response.status_code < 500:
                    raise
                if time.monotonic() - began > _AWAY_SECONDS:
                    raise SourceUnavailable(
                        f"{self._backfill.pipeline}: the Prefect server has not answered for "
                        f"{_AWAY_SECONDS / 60:.0f} minutes. What is under way goes on; start the backfill again."
                    ) from error
                if not told:
                    logger().warning("The Prefect server does not answer, and is asked again: %s", redact(repr(error)))
                told = True
            time.sleep(_PAUSE_SECONDS)


def _child(run: FlowRun, window: Window) -> Child:
    state = run.state
    if state is None:
        return Child(run.id, window, "scheduled")
    return Child(run.id, window, _PHASES[state.type], state.message)
