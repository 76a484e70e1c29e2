"""The automations that send alerts: made from what every pipeline promises, compared with what the server has."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, ChangeFlowRunState, DoNothing, SendNotification
from prefect.events.schemas.automations import (
    Automation,
    AutomationCore,
    EventTrigger,
    Posture,
    SequenceTrigger,
    TriggerTypes,
)

from deployments.alerts.causes import LOST, Cause, Missed, Signal, Watched, found_at
from deployments.alerts.message import Message, spoken
from deployments.alerts.names import PREFIX
from deployments.alerts.recipients import Recipients
from deployments.change import Change
from tasks.declaration import Pipeline, Sla
from tasks.errors import ConfigError

SHORTEST: Final = timedelta(seconds=10)
"""Prefect's server does not notice sooner that something is missing."""

_TRIGGERED: Final = "prefect.automation.triggered"
_PAGE: Final = 200
_COMPARED: Final = ("description", "enabled", "tags", "trigger", "actions")


def changes(
    client: SyncPrefectClient,
    pipelines: Sequence[Pipeline],
    operating: Sequence[str],
    pool: str,
    parts: Sequence[str] = (),
) -> list[Change]:
    """What makes the server's automations those that the pipelines promise.

    Without a notification block, now or to be made from TIDEGATE_ALERTS_URL, none is wanted: it could deliver nothing.

    Args:
        client: of the server.
        pipelines: whose flow bears their name.
        operating: names of flows without a pipeline, `nightly` for instance.
        pool: name of the work pool that all of them run in.
        parts: names of flows that another flow starts and sees to, `window` for instance.

    Raises:
        ConfigError: a promise is shorter than the server can notice, or two notification blocks have the same name.
    """
    recipients = Recipients(client)
    watched = [*map(Watched.pipeline, pipelines), *(Watched("flow", name, Sla()) for name in operating)]
    watched += [*(Watched("part", name, Sla()) for name in parts), Watched("work pool", pool, Sla())]
    wanted = [one for each in watched for one in _automations(each)] if recipients.expected else []
    return list(_differences(client, recipients, wanted))


@dataclass(frozen=True)
class _Wanted:
    """An automation as it should be, but for the block it sends to."""

    watched: Watched
    cause: Cause
    part: str
    trigger: TriggerTypes

    @property
    def name(self) -> str:
        return _name(self.watched, self.cause, self.part)

    def core(self, block: UUID) -> AutomationCore:
        """Every field is given, since an update leaves out those that are not."""
        return AutomationCore(
            name=self.name,
            description="Made by `tidegate deploy` of what is declared; a change here lasts until the next one.",
            enabled=True,
            tags=["tidegate"],
            trigger=self.trigger,
            actions=[self._action(block)],
        )

    def _action(self, block: UUID) -> ActionTypes:
        message = Message(self.watched, self.cause)
        if self.part == "":
            return _send(block, message.subject, message.body)
        if self.part == "resolved":
            return _send(block, message.subject_resolved, message.body_resolved)
        if not (isinstance(self.cause.raised, Missed) and self.cause.raised.crashes):
            return DoNothing(type="do-nothing")
        limit = self.cause.limit(self.watched)
        assert limit is not None
        return ChangeFlowRunState(
            type="change-flow-run-state",
            name="Crashed",
            state=StateType.CRASHED,
            force=False,
            message=f"{LOST} for {spoken(limit)}: its process or its machine is gone.",
        )


def _name(watched: Watched, cause: Cause, part: str = "") -> str:
    return f"{PREFIX}{watched.name}: {cause.name}" + (f": {part}" if part else "")


def _automations(watched: Watched) -> Iterator[_Wanted]:
    for cause in found_at(watched):
        raised = cause.raised
        if isinstance(raised, Missed):
            # A trigger of what is missing knows no interval: every run of a pipeline that is late would be told of.
            yield _Wanted(watched, cause, "watch", _missed(watched, cause, raised))
            noticed = _triggered(_name(watched, cause, "watch"), watched.sla.alert_interval)
            if raised.crashes is not None:
                noticed = _seen(watched, raised.crashes, watched.sla.alert_interval)
            yield _Wanted(watched, cause, "", noticed)
        else:
            yield _Wanted(watched, cause, "", _seen(watched, raised, watched.sla.alert_interval))
        over = SequenceTrigger(
            type="sequence", triggers=[_triggered(_name(watched, cause)), _seen(watched, cause.resolved)], within=None
        )
        yield _Wanted(watched, cause, "resolved", over)


def _seen(watched: Watched, signal: Signal, deaf: timedelta = timedelta(0)) -> EventTrigger:
    """Fires at one of the events, and then not again for the time `deaf`."""
    return EventTrigger(
        type="event", posture=Posture.Reactive, expect=set(signal.events), within=deaf, **_where(watched, signal)
    )


def _triggered(automation: str, deaf: timedelta = timedelta(0)) -> EventTrigger:
    """Fires when `automation` has, and then not again for the time `deaf`.

    It goes by the name, so that all that is wanted is known before anything is made.
    """
    return EventTrigger(
        type="event",
        posture=Posture.Reactive,
        expect={_TRIGGERED},
        match={"prefect.resource.id": "prefect.automation.*", "prefect.resource.name": automation},
        within=deaf,
    )


def _missed(watched: Watched, cause: Cause, missed: Missed) -> EventTrigger:
    limit = cause.limit(watched)
    assert limit is not None
    if limit < SHORTEST:
        raise ConfigError(
            f"{watched.name}: {cause.name} would be noticed after {limit.total_seconds():g} seconds, and Prefect's "
            f"server looks no sooner than after {SHORTEST.total_seconds():g}. Promise that, or more."
        )
    each_run = missed.after.of == "flow run"
    return EventTrigger(
        type="event",
        posture=Posture.Proactive,
        after=set(missed.after.events),
        expect=set(missed.expect.events),
        # Without it, the server begins to wait as soon as it knows the trigger, and anew whenever it has fired. So a
        # pipeline is missed that has never run, and again as long as it does not.
        for_each={"prefect.resource.id"} if each_run else set(),
        within=limit,
        **_where(watched, missed.after),
    )


def _where(watched: Watched, signal: Signal) -> dict[str, Any]:
    """Whose events count."""
    if signal.of == "pipeline":
        return {"match": {"prefect.resource.id": f"etl.pipeline.{watched.name}"}}
    if signal.of == "work pool":
        return {"match": {"prefect.resource.id": "prefect.work-pool.*", "prefect.resource.name": watched.name}}
    match = {"prefect.resource.id": "prefect.flow-run.*"}
    if signal.message is not None:
        match["prefect.state-message"] = signal.message
    # By the flow, so that runs by hand and subflows count, too.
    return {"match": match, "match_related": {"prefect.resource.role": "flow", "prefect.resource.name": watched.name}}


def _send(block: UUID, subject: str, body: str) -> SendNotification:
    return SendNotification(type="send-notification", block_document_id=block, subject=subject, body=body)


def _differences(client: SyncPrefectClient, recipients: Recipients, wanted: Iterable[_Wanted]) -> Iterator[Change]:
    ours: dict[str, list[Automation]] = defaultdict(list)
    for automation in _all(client):
        if automation.name.startswith(PREFIX):
            ours[automation.name].append(automation)
    for one in wanted:
        found = ours[one.name]
        differing = _differing(found[0], one.core(recipients.known(one.cause.severity))) if found else list(_COMPARED)
        if differing:
            yield Change(
                "update" if found else "create",
                "automation",
                one.name,
                _Put(client, recipients, one, found[:1]),
                ", ".join(differing) if found else "",
            )
        # What is left is nobody's: others of the same name, and names that are not wanted.
        del found[:1]
    for automation in (one for left in ours.values() for one in left):
        yield Change("delete", "automation", automation.name, partial(client.delete_automation, automation.id))


class _Put:
    """Make an automation what it should be.

    The first time it goes by what the plan has seen: to ask again for each would be half of all requests of a deploy.
    """

    def __init__(
        self, client: SyncPrefectClient, recipients: Recipients, wanted: _Wanted, seen: Sequence[Automation]
    ) -> None:
        self._client = client
        self._recipients = recipients
        self._wanted = wanted
        self._seen: Sequence[Automation] | None = seen

    def __call__(self) -> None:
        """Create it, or update what differs."""
        core = self._wanted.core(self._recipients.block(self._wanted.cause.severity))
        found, self._seen = self._seen, None
        if found is None:
            found = self._client.read_automations_by_name(self._wanted.name)
        if not found:
            self._client.create_automation(core)
        # The server forgets what it waits for with every update.
        elif _differing(found[0], core):
            self._client.update_automation(found[0].id, core)


def _differing(there: AutomationCore, wanted: AutomationCore) -> list[str]:
    """The fields that differ."""
    has, should = there.model_dump(), wanted.model_dump()
    return [field for field in _COMPARED if has[field] != should[field]]


def _all(client: SyncPrefectClient) -> Iterator[Automation]:
    offset = 0
    while page := client.read_automations(limit=_PAGE, offset=offset):
        yield from page
        offset += len(page)
