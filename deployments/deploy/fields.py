"""What a deployment is, field by field: as prefect.yaml wants it, and as the server has it."""

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from prefect.events import DeploymentTriggerTypes
from prefect.utilities.callables import parameter_schema
from prefect.utilities.templating import apply_values
from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from deployments.deploy.flows import DeployedFlow
from deployments.deploy.project import FROM_THE_FILE, Project

if TYPE_CHECKING:
    from prefect.client.schemas.responses import DeploymentResponse
    from prefect.events.schemas.automations import Automation

_PLACEHOLDER = re.compile(r"{{[^{}]*}}")

TRIGGERS: TypeAdapter[DeploymentTriggerTypes] = TypeAdapter(DeploymentTriggerTypes)


def wanted(project: Project, deployed: DeployedFlow) -> dict[str, Any]:
    """The fields that `prefect deploy` will give a deployment; those that the file leaves to Prefect are left out."""
    deployment, flow = deployed.deployment, deployed.flow
    written = cast("dict[str, Any]", apply_values(dict(deployment.written), dict(os.environ), remove_notset=False))
    written = cast("dict[str, Any]", apply_values(written, project.step_outputs, remove_notset=False))
    limit = written.get("concurrency_limit")
    limit = limit if isinstance(limit, Mapping) else {"limit": limit}
    fields = {
        "description": written.get("description") or flow.description,
        "tags": sorted(written.get("tags") or []),
        "entrypoint": written.get("entrypoint"),
        "path": None,
        "pull steps": apply_values(project.pull(deployment), project.step_outputs, remove_notset=False),
        "parameters": written.get("parameters") or {},
        "parameter schema": parameter_schema(flow).model_dump(mode="json", exclude_unset=True),
        "parameter schema is enforced": written.get("enforce_parameter_schema", True),
        "work pool": deployment.environment.pool,
        "work queue": deployment.queue,
        "job variables": deployment.job_variables,
        "concurrency limit": limit.get("limit"),
        "collision strategy": limit.get("collision_strategy"),
    }
    fields |= {name: written[name] for name in ("version", "paused") if written.get(name) is not None}
    if limit.get("grace_period_seconds") is not None:
        fields["grace period"] = limit["grace_period_seconds"]
    jsonable: dict[str, Any] = to_jsonable_python(fields)
    return jsonable


def held(there: "DeploymentResponse") -> dict[str, Any]:
    """The same fields as the server has them."""
    limit, options = there.global_concurrency_limit, there.concurrency_options
    return {
        "description": there.description,
        "version": there.version,
        "tags": sorted(there.tags),
        "entrypoint": there.entrypoint,
        "path": there.path,
        "pull steps": there.pull_steps,
        "parameters": there.parameters,
        "parameter schema": there.parameter_openapi_schema,
        "parameter schema is enforced": there.enforce_parameter_schema,
        "paused": there.paused,
        "work pool": there.work_pool_name,
        "work queue": there.work_queue_name,
        "job variables": there.job_variables,
        "concurrency limit": limit.limit if limit is not None else None,
        "collision strategy": options.collision_strategy.value if options is not None else None,
        "grace period": options.grace_period_seconds if options is not None else None,
    }


def differing(want: Mapping[str, Any], have: Mapping[str, Any]) -> list[str]:
    """Names of the fields in which they differ."""
    return [name for name, value in want.items() if not matches(value, have.get(name))]


def matches(template: Any, value: Any) -> bool:
    """Whether `value` may have come of `template`; a placeholder that is known only at deploy time fits anything.

    A reference to a block or a variable stands for itself: it is looked up by the worker.
    """
    if isinstance(template, Mapping):
        return (
            isinstance(value, Mapping)
            and set(template) == set(value)
            and all(matches(one, value[key]) for key, one in template.items())
        )
    if isinstance(template, list):
        return isinstance(value, list) and len(template) == len(value) and all(map(matches, template, value))
    if isinstance(template, str) and template != value and _PLACEHOLDER.search(template):
        if _PLACEHOLDER.fullmatch(template):
            return True
        pattern = ".*".join(map(re.escape, _PLACEHOLDER.split(template)))
        return isinstance(value, str) and re.fullmatch(pattern, value, re.DOTALL) is not None
    return bool(template == value)


def triggers_differ(deployed: DeployedFlow, there: "DeploymentResponse", automations: list["Automation"]) -> bool:
    """Whether the automations that the deployment's triggers make are others than the server has.

    Args:
        deployed: the deployment, with its triggers.
        there: as the server has it.
        automations: those of the server that run the deployment, a person's too.
    """
    known = [_of_automation(one) for one in automations]
    for spec in deployed.deployment.triggers:
        trigger = TRIGGERS.validate_python(spec)
        trigger.set_deployment_id(there.id)
        want = _of_automation(trigger.as_automation())
        if known.count(want) != 1:
            return True
    names = {spec["name"] for spec in deployed.deployment.triggers}
    return any(one.name not in names for one in automations if one.description == FROM_THE_FILE)


def _of_automation(automation: Any) -> dict[str, Any]:
    """What a trigger decides of its automation."""
    fields: dict[str, Any] = automation.model_dump(mode="json", include={"name", "enabled", "trigger", "actions"})
    _without_ids(fields["trigger"])
    return fields


def _without_ids(trigger: dict[str, Any]) -> None:
    trigger.pop("id", None)
    for one in trigger.get("triggers") or []:
        _without_ids(one)
