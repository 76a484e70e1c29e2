"""Flights that wait for an airport, in the demo: how many, and the replay that lets them in, asked for by nobody."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import FlowRun
from sqlalchemy import Engine

from deployments.demo.figures import RunFigures
from deployments.deployed_run import DeployedRun, runs_of
from deployments.prefect_server import PrefectServer
from flows.flights import PIPELINE
from tasks.state.letters import Wanted, find_faults

REPLAY = "replay/replay"

_SECONDS = 60.0
DESTINATION_IS_KNOWN = next(one.rule for one in PIPELINE.references if one.column == "dest")
"""The rule that 7,602 flights of the year break."""


@dataclass(frozen=True)
class Recovery:
    """What became of the letters that waited.

    Attributes:
        title: of what was done.
        runs: of the pipeline that landed, and then of the replay.
        before: open letters that broke the rule, before.
        after: those that are left.
        rule: its name.
        flow_run_id: Prefect's, of the replay.
        started_by: what started it, by its name: an automation.
        reconciled: what comparing source and target says in the end.
    """

    title: str
    runs: Sequence[RunFigures]
    before: int
    after: int
    rule: str
    flow_run_id: UUID
    started_by: str
    reconciled: str

    def as_dict(self) -> dict[str, Any]:
        """As the JSON report has it."""
        return {
            "flow_run_id": str(self.flow_run_id),
            "started_by": self.started_by,
            "rule": self.rule,
            "letters_before": self.before,
            "letters_after": self.after,
            "rows": self.runs[-1].counts.inserted,
            "reconciled": self.reconciled,
        }

    def lines(self) -> list[str]:
        """For people."""
        flights = self.runs[-1].counts.inserted
        return [
            f"Dead letters that broke {self.rule!r}: {self.before:,} before, {self.after:,} after. {flights:,} flights "
            "came in.",
            f"Nobody asked for the replay: the automation {self.started_by!r} started it, since airports had landed.",
            self.reconciled,
        ]


def count_waiting(warehouse: Engine) -> int:
    """How many open letters of flights broke the rule that their destination is known."""
    with warehouse.connect() as connection:
        return sum(
            fault.letters
            for fault in find_faults(connection, Wanted("flights", rule=DESTINATION_IS_KNOWN))
            if fault.rule == DESTINATION_IS_KNOWN
        )


class Replays:
    """The replays of a server, from the moment on that this is made."""

    def __init__(self, server: PrefectServer) -> None:
        self._server = server
        self._known: Mapping[UUID, FlowRun] = runs_of(server, REPLAY)

    def started(self) -> tuple[DeployedRun, str]:
        """The first that an automation has started since, completed, and the name of that automation.

        Raises:
            RunFailed: none was started within a minute, or it did not end well.
        """
        run = DeployedRun.another(self._server, REPLAY, self._known.keys(), _SECONDS).completed()
        begun = runs_of(self._server, REPLAY)[run.id].created_by
        return run, (begun and begun.display_value) or "unknown"
