"""`Dispatch`: which windows of a backfill to submit next, and which of its flow runs are lost; it asks nobody."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal
from uuid import UUID

from tasks.window import Window

Phase = Literal["scheduled", "pending", "running", "completed", "failed", "crashed", "cancelled"]
Trace = Literal["open", "dead", "none"]
"""What the ledger has of a flow run's last attempt: a live process holds it, its process is gone, or none is open."""

TRIES: Final = 3
"""How often a window is submitted whose flow runs crash."""

UNDER_WAY: Final[frozenset[Phase]] = frozenset({"scheduled", "pending", "running"})

_PENDING_SECONDS: Final = 180.0
"""A worker has taken it; a container may take as long to begin."""
_DEAD_SECONDS: Final = 20.0
"""A run that has lost its connection opens another attempt before that."""
_IDLE_SECONDS: Final = 180.0
"""It may wait a minute between two attempts, and needs a while to begin; else it ends, or has one open."""
_ENDING_SECONDS: Final = 60.0
"""Of a flow run whose window is loaded: there is only its end to tell."""


@dataclass(frozen=True, slots=True)
class Child:
    """A flow run of one window, as the server has it.

    Attributes:
        id: of the flow run.
        window: its window.
        phase: where it is; `cancelled` also while it is being ended.
        message: what its state says, or None.
    """

    id: UUID
    window: Window
    phase: Phase
    message: str | None = None


@dataclass(slots=True)
class Dispatch:
    """What this process knows of a fan-out.

    What is done only the ledger tells: a window that is left although its run has completed is not done.

    Attributes:
        jobs: how many flow runs there are at once, at most.
        waits: how many seconds one may wait for the upstreams of its pipeline.
        under_way: those that have not ended, by id.
        given_up: windows that are not tried again, and why.
        crashes: how often a window's runs have crashed since this process began.
        submitted: how many flow runs this process has submitted.
    """

    jobs: int
    waits: float = 0.0
    under_way: dict[UUID, Child] = field(default_factory=dict)
    given_up: dict[Window, str] = field(default_factory=dict)
    crashes: Counter[Window] = field(default_factory=Counter)
    submitted: int = 0
    _since: dict[UUID, tuple[tuple[Phase, Trace, bool], float]] = field(default_factory=dict)

    def seen(self, children: Iterable[Child], to_do: Collection[Window]) -> None:
        """Take in what the server said of flow runs, and what the ledger said after that.

        Args:
            children: those that have not ended, and those that had not when they were last seen.
            to_do: the windows that are left, read later than `children`.
        """
        for child in children:
            if child.phase in UNDER_WAY:
                self.under_way[child.id] = child
                continue
            self._since.pop(child.id, None)
            if self.under_way.pop(child.id, None) is not None and child.window in to_do:
                self._failed(child)

    def _failed(self, child: Child) -> None:
        message = child.message or f"its flow run ended {child.phase}"
        if child.phase == "crashed":
            self.crashes[child.window] += 1
            if self.crashes[child.window] < TRIES:
                return
            message = f"{TRIES} of its flow runs crashed, the last one: {message}"
        elif child.phase == "cancelled":
            message = "its flow run was cancelled by hand"
        self.given_up[child.window] = message

    def open(self, to_do: Iterable[Window]) -> Iterator[Window]:
        """The windows of `to_do` that nobody carries out or has given up, in order."""
        carried_out = {child.window for child in self.under_way.values()}
        return (one for one in to_do if one not in carried_out and one not in self.given_up)

    def next(self, to_do: Iterable[Window]) -> list[Window]:
        """What to submit now."""
        free = self.jobs - len(self.under_way)
        return [window for _, window in zip(range(free), self.open(to_do), strict=False)]

    def sent(self, child: Child) -> None:
        """A window was submitted, or had been before; the server names its flow run."""
        self.submitted += 1
        self.under_way[child.id] = child

    def over(self, to_do: Iterable[Window]) -> bool:
        """Whether nothing is under way, and nothing to submit."""
        return not self.under_way and next(self.open(to_do), None) is None

    def needless(self, to_do: Collection[Window]) -> list[Child]:
        """Flow runs that have not begun, and whose windows a run beside them has loaded."""
        return [one for one in self.under_way.values() if one.phase == "scheduled" and one.window not in to_do]

    def lost(self, traces: Mapping[UUID, Trace], to_do: Collection[Window], now: float) -> list[tuple[Child, str]]:
        """Flow runs that nobody will end any more, and why that is thought.

        Should one of them live after all, it can commit its window once more, which changes nothing.

        Args:
            traces: what the ledger has of those that are running; of one that is absent there is no open attempt.
            to_do: the windows that are left.
            now: seconds on a clock that only goes forward.
        """
        found = []
        for child in self.under_way.values():
            held = child.phase, traces.get(child.id, "none"), child.window in to_do
            known = self._since.get(child.id)
            if known is None or known[0] != held:
                self._since[child.id] = known = held, now
            limit, why = self._patience(*held)
            if limit is not None and now - known[1] >= limit:
                found.append((child, why))
        return found

    def _patience(self, phase: Phase, trace: Trace, left: bool) -> tuple[float | None, str]:
        """How long, in seconds, a flow run may stay as it is, and what is to be said of one that stays longer."""
        if phase == "pending":
            return _PENDING_SECONDS, f"No process has begun it {_PENDING_SECONDS:.0f} s after a worker took it."
        if phase == "running" and trace == "dead":
            return _DEAD_SECONDS, "Its process, or its connection to the target, died before it could commit."
        if phase == "running" and trace == "none":
            if not left:
                return _ENDING_SECONDS, "Its window is loaded, and it does not end."
            idle = _IDLE_SECONDS + self.waits
            return idle, f"It has had no attempt open for {idle / 60:.0f} minutes."
        return None, ""
