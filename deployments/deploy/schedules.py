"""Schedules: compared by their slugs, and set right one by one.

A schedule without a slug is a person's, made in the UI: it is never touched. Neither is it lost, as it would be by
`prefect deploy`, which replaces all schedules of a deployment when one of them has no slug.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, NoSchedule, RRuleSchedule
from pydantic_core import to_jsonable_python

from deployments.change import Change

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import DeploymentSchedule
    from prefect.client.schemas.responses import DeploymentResponse

    Timing = CronSchedule | IntervalSchedule | RRuleSchedule | NoSchedule

KIND = "schedule"
KEYS = ("slug", "cron", "interval", "rrule", "timezone", "anchor_date", "day_or", "active", "parameters")

_TYPES: dict[str, Any] = {"cron": CronSchedule, "interval": IntervalSchedule, "rrule": RRuleSchedule}


def timing(written: Mapping[str, Any]) -> "Timing":
    """When a schedule of prefect.yaml is due.

    Raises:
        ValueError: it is none, or not exactly one of cron, interval and rrule.
    """
    how = [name for name in _TYPES if written.get(name) is not None]
    if len(how) != 1:
        raise ValueError("a schedule is exactly one of cron, interval and rrule")
    known = ("timezone", "anchor_date", "day_or")
    options = {name: written[name] for name in known if written.get(name) is not None}
    made: Timing = _TYPES[how[0]](**{how[0]: written[how[0]]}, **options)
    return made


def create_from(written: Mapping[str, Any]) -> DeploymentScheduleCreate:
    """A schedule of prefect.yaml as the server is told of it."""
    return DeploymentScheduleCreate(
        schedule=timing(written),
        active=written.get("active", True),
        parameters=written.get("parameters") or {},
        slug=written["slug"],
    )


def changes(
    client: "SyncPrefectClient", name: str, there: "DeploymentResponse", written: Sequence[Mapping[str, Any]]
) -> list[Change]:
    """What makes the schedules of a deployment those `written`; the others with a slug are deleted, last.

    Args:
        client: of the server.
        name: `flow/deployment`.
        there: the deployment as the server has it.
        written: its schedules in prefect.yaml.
    """
    known = {schedule.slug: schedule for schedule in there.schedules if schedule.slug is not None}
    found = []
    for one in written:
        slug = str(one["slug"])
        found += _changes(client, f"{name} {slug}", there, known.pop(slug, None), one)
    return [*found, *(_delete(client, f"{name} {slug}", there, old) for slug, old in sorted(known.items()))]


def _changes(
    client: "SyncPrefectClient",
    name: str,
    there: "DeploymentResponse",
    old: "DeploymentSchedule | None",
    written: Mapping[str, Any],
) -> list[Change]:
    wanted = create_from(written)

    def create() -> None:
        client.create_deployment_schedules(there.id, [wanted])

    if old is None:
        return [Change("create", KIND, name, create, _text(written))]
    differs = [
        field
        for field, is_now, should_be in (
            ("when", _canonical(old.schedule, written), _canonical(wanted.schedule, written)),
            ("active", old.active, wanted.active),
            ("parameters", old.parameters, to_jsonable_python(wanted.parameters)),
        )
        if is_now != should_be
    ]
    old_id = old.id

    def update() -> None:
        client.update_deployment_schedule(
            there.id, old_id, active=wanted.active, schedule=wanted.schedule, parameters=wanted.parameters
        )

    return [Change("update", KIND, name, update, ", ".join(differs))] if differs else []


def _delete(
    client: "SyncPrefectClient", name: str, there: "DeploymentResponse", schedule: "DeploymentSchedule"
) -> Change:
    def delete() -> None:
        client.delete_deployment_schedule(there.id, schedule.id)

    return Change("delete", KIND, name, delete, "its slug is not in the file")


def _canonical(schedule: "Timing", written: Mapping[str, Any]) -> dict[str, Any]:
    """What two schedules are compared by; an anchor that the file leaves open is the moment it was deployed."""
    fields: dict[str, Any] = schedule.model_dump(mode="json")
    fields["timezone"] = fields.get("timezone") or "UTC"
    if written.get("anchor_date") is None:
        fields.pop("anchor_date", None)
    return fields


def _text(written: Mapping[str, Any]) -> str:
    when = next(f"{name} {written[name]}" for name in _TYPES if written.get(name) is not None)
    return f"{when} {written.get('timezone') or 'UTC'}{'' if written.get('active', True) else ', not active'}"
