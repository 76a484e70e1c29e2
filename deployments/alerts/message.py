"""`Message`: what is sent about a cause: plain text, made of templates that Prefect's server renders."""

from dataclasses import dataclass
from datetime import timedelta
from string import Template
from typing import Final

from deployments.alerts.causes import Cause, Missed, Watched

_RUNBOOK: Final = "docs/runbook.md"
_UNITS: Final = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))

# The UI's address is known to the server alone, if it is told (PREFECT_UI_URL); of a flow run in the payload of another
# event it makes no link by itself.
_LINK: Final = (
    "{% if run %}Log: prefect flow-run logs {{ run }}\n{% endif %}"
    "{% if run and automation | ui_url %}"
    "Flow run: {{ (automation | ui_url).split('automations/')[0] }}runs/flow-run/{{ run }}\n"
    "{% endif %}"
)
_OF_THE_EVENT: Final = "{% set seen = event %}{% set run = flow_run.id %}{% set run_name = flow_run.name %}"
# What is missed is noticed by one automation, and sent by another, which waits for the first: its event holds the
# last one that the first has seen, as plain JSON.
_OF_WHAT_WAS_SEEN: Final = "{% set seen = event.payload.triggering_event %}"
_OF_THE_RUN_SEEN: Final = (
    "{% set run = seen.resource['prefect.resource.id'].split('.')[-1] %}"
    "{% set run_name = seen.resource['prefect.resource.name'] %}"
)


@dataclass(frozen=True)
class Message:
    """What is sent about a cause, and once it is over.

    Attributes:
        watched: what it is about.
        cause: what is wrong.
    """

    watched: Watched
    cause: Cause

    @property
    def dedup_key(self) -> str:
        """The same for every alert of a cause, and when it is over; a delivery may come twice."""
        return f"tidegate/{self.watched.name}/{self.cause.name}"

    @property
    def runbook(self) -> str:
        """Address of what to do."""
        return f"{self.watched.sla.runbook or _RUNBOOK}#{self.cause.name}"

    @property
    def subject(self) -> str:
        """Of an alert."""
        return literal(f"[{self.cause.severity}] {self.watched.name}: {self.cause.name}")

    @property
    def subject_resolved(self) -> str:
        """Of the notice that it is over."""
        return literal(f"[resolved] {self.watched.name}: {self.cause.name}")

    @property
    def body(self) -> str:
        """Of an alert."""
        head = _OF_THE_EVENT
        if isinstance(self.cause.raised, Missed) and self.cause.raised.crashes is None:
            of_a_run = self.cause.raised.after.of == "flow run"
            head = _OF_WHAT_WAS_SEEN + (_OF_THE_RUN_SEEN if of_a_run else "")
        return (
            f"{head}{self._filled(self.cause.text)}\n\n"
            f"Look with: {self._filled(self._look)}\n"
            f"What to do: {literal(self.runbook)}\n"
            f"{_LINK}{self._facts}"
        )

    @property
    def body_resolved(self) -> str:
        """Of the notice that it is over."""
        return f"{_OF_THE_EVENT}{self._filled(self.cause.recovered)}\n\n{_LINK}{self._facts}"

    @property
    def _look(self) -> str:
        # The ledger knows pipelines; a flow without one is seen by what has become of them.
        without = self.watched.kind in ("flow", "part")
        return "tidegate status" if without and "$name" in self.cause.look else self.cause.look

    @property
    def _facts(self) -> str:
        watched = self.watched
        return literal(
            f"{watched.kind.capitalize()}: {watched.name}\n"
            f"Cause: {self.cause.name}\n"
            f"Severity: {self.cause.severity}\n"
            f"Owner: {watched.sla.owner}\n"
            f"Dedup key: {self.dedup_key}"
        )

    def _filled(self, text: str) -> str:
        limit = self.cause.limit(self.watched)
        return Template(text).substitute(name=literal(self.watched.name), limit=spoken(limit) if limit else "")


def literal(text: str) -> str:
    """`text` in a template, to be sent as it is."""
    return f"{{% raw %}}{text}{{% endraw %}}" if "{" in text else text


def spoken(duration: timedelta) -> str:
    """A duration in words, `1 hour 30 minutes` for instance."""
    rest = duration.total_seconds()
    parts = []
    for unit, seconds in _UNITS:
        number = int(rest // seconds)
        rest -= number * seconds
        if number:
            parts.append(f"{number} {unit}{'' if number == 1 else 's'}")
    return " ".join(parts) or f"{duration.total_seconds():g} seconds"
