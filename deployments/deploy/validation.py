"""What is wrong with a prefect.yaml, found before anything is touched; every problem at once."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, get_type_hints
from zoneinfo import ZoneInfo

import prefect
from prefect import Flow
from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from deployments.deploy import fields, late, schedules
from deployments.deploy.flows import DeployedFlow, load
from deployments.deploy.project import Deployment, Project
from tasks.errors import ConfigError, one_of

_KEYS = (
    "name",
    "entrypoint",
    "description",
    "version",
    "version_type",
    "tags",
    "work_pool",
    "concurrency_limit",
    "parameters",
    "enforce_parameter_schema",
    "paused",
    "schedules",
    "triggers",
    "build",
    "push",
    "pull",
)

_VARIABLE = re.compile(r"{{\s*\$(\w+)\s*}}")


def validate(project: Project) -> tuple[list[DeployedFlow], list[str]]:
    """The flows of every deployment that loads, and what is wrong with the file, a sentence each."""
    problems = list(_of_the_file(project))
    loaded = []
    for deployment in project.deployments:
        where = f"{project.file.name}: {deployment.name}"
        try:
            deployed = load(project, deployment)
        except ConfigError as error:
            problems.append(f"{where}: {error}")
        else:
            loaded.append(deployed)
            problems += [f"{where}: {problem}" for problem in _of_parameters(deployed)]
        problems += [f"{where}: {problem}" for problem in _of_the_entry(project, deployment)]
        problems += [f"{where}: {problem}" for problem in _of_schedules(deployment)]
        problems += [f"{where}: {problem}" for problem in _of_triggers(deployment)]
    # Two flows may each have a deployment of the same name.
    for name, count in Counter(one.name for one in loaded).items():
        if count > 1:
            problems.append(f"{project.file.name}: {count} deployments are {name}. Give each its own name.")
    return loaded, problems


def _of_the_file(project: Project) -> Iterator[str]:
    file = project.file.name
    version = project.written.get("prefect-version")
    if version != prefect.__version__:
        yield (
            f"{file}: prefect-version is {version!r}, and {prefect.__version__} is installed. Write that, or install "
            "the other."
        )
    for one in project.written["deployments"]:
        if not isinstance(one, dict) or not one.get("name"):
            yield f"{file}: the deployment {one!r} has no name. Give it one; Prefect skips it silently."
    for name in sorted(set(project.environment.deployments) - {one.name for one in project.deployments}):
        yield (
            f"{file}: environment {project.environment.name!r} has job variables for {name!r}, which is no deployment. "
            f"There are {one_of(one.name for one in project.deployments)}."
        )


def _of_the_entry(project: Project, deployment: Deployment) -> Iterator[str]:
    written = deployment.written
    if "sla" in written:
        yield (
            "sla is known to Prefect Cloud alone; a server of one's own refuses the deployment. Take it out: what the "
            "pipeline promises is in its Sla, and the alerts are made from that."
        )
    for key in sorted(set(written) - {*_KEYS, "sla"}):
        yield f"the key {key!r} is not known, and Prefect would leave it out silently. Known are {one_of(_KEYS)}."
    if project.tag not in (written.get("tags") or []):
        yield (
            f"tags are {written.get('tags')!r}, without {project.tag!r}, which marks it as this project's own. Add it, "
            "so that it is deleted once it leaves the file."
        )
    if written.get("version") is not None and not isinstance(written["version"], str):
        yield f"version is {written['version']!r}, which is no text. Quote it."
    if not project.pull(deployment):
        yield "there is no pull step, so a worker would not find the code. Add one under `pull:`."
    pool, default = written.get("work_pool") or {}, project.default
    if pool.get("name") != default.pool or pool.get("work_queue_name") not in (default.queue, *project.queues):
        own = f" Queues of its own are {one_of(project.queues)}." if project.queues else ""
        yield (
            f"work_pool is {pool!r}, not that of the environment {default.name!r}. Refer to it by its anchor, so that "
            f"every environment can put its own there.{own}"
        )
    elsewhere = {key: value for key, value in written.items() if key not in ("pull", "work_pool")}
    for reference in sorted(one for one in late.referred(elsewhere) if one.startswith("prefect.blocks.")):
        yield (
            f"{{{{ {reference} }}}} would put what the block holds into the deployment, for everybody to read. Only "
            "job variables and pull steps refer to blocks."
        )
    texts = {"entry": elsewhere, "job variables": deployment.environment.job_variables_of(deployment.name)}
    for name in sorted({name for name in _VARIABLE.findall(repr(texts)) if name not in os.environ}):
        yield f"{{{{ ${name} }}}} is not set. Set the environment variable {name}."


def _of_parameters(deployed: DeployedFlow) -> Iterator[str]:
    written = deployed.deployment.written.get("parameters") or {}
    yield from _invalid(deployed.flow, "parameter", written)
    # Where nothing starts it by itself, whoever does gives the rest.
    if deployed.deployment.schedules or deployed.deployment.triggers:
        for name in sorted(set(deployed.flow.parameters.required or []) - set(written)):
            yield f"parameter {name!r} has no value, and its flow no default for it. Give it one."
    for schedule in deployed.deployment.schedules:
        own = schedule.get("parameters") if isinstance(schedule, dict) else None
        if own:
            yield from _invalid(deployed.flow, f"schedule {schedule.get('slug')!r}: parameter", {**written, **own})


def _invalid(flow: Flow[..., Any], what: str, values: dict[str, Any]) -> Iterator[str]:
    known = flow.parameters.properties
    for name in sorted(set(values) - set(known)):
        yield f"{what} {name!r} is not one of its flow's. Known are {one_of(known)}."
    types = get_type_hints(flow.fn, include_extras=True)
    for name, value in values.items():
        problem = _refused(types[name], value) if name in known and name in types else ""
        if problem:
            yield f"{what} {name} is {value!r}: {problem}. Write a value that the flow takes."


def _refused(annotation: Any, value: Any) -> str:
    """What the type says of a value; the schema alone would let 2024-13-01 pass for a date."""
    try:
        # Not `flow.validate_parameters`, which logs every failure, with all values.
        TypeAdapter(annotation).validate_python(value)
    except ValidationError as error:
        return _told(error)
    except PydanticSchemaGenerationError:
        return ""
    return ""


def _of_schedules(deployment: Deployment) -> Iterator[str]:
    if "schedule" in deployment.written:
        yield "write `schedules:`, a list in which each has a slug, instead of `schedule:`."
    slugs = []
    for one in deployment.schedules:
        if not isinstance(one, dict) or not one.get("slug"):
            yield f"the schedule {one!r} has no slug, so that it could not be found again. Give it one."
            continue
        where = f"schedule {one['slug']!r}"
        slugs.append(one["slug"])
        for key in sorted(set(one) - set(schedules.KEYS)):
            yield f"{where}: the key {key!r} is not known. Known are {one_of(schedules.KEYS)}."
        if not isinstance(one.get("active", True), bool):
            yield f"{where}: active is {one['active']!r}. Write true or false."
        try:
            ZoneInfo(one.get("timezone") or "UTC")
        except (KeyError, ValueError, OSError):
            yield f"{where}: there is no time zone {one['timezone']!r}. Write an IANA name, such as America/New_York."
            continue
        try:
            schedules.timing(one)
        except ValueError as error:
            when = {key: value for key, value in one.items() if key in ("cron", "interval", "rrule")}
            yield f'{where}: {when} is not understood ({_told(error)}). Write a cron such as "20 * * * *".'
    for slug, count in Counter(slugs).items():
        if count > 1:
            yield f"{count} schedules have the slug {slug!r}. Give each its own."


def _of_triggers(deployment: Deployment) -> Iterator[str]:
    for spec in deployment.triggers:
        try:
            fields.TRIGGERS.validate_python(spec)
        except ValidationError as error:
            yield f"trigger {spec['name']!r} is no automation ({_told(error)}). See Prefect's manual on triggers."


def _told(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error).splitlines()[0]
    return "; ".join(": ".join([*map(str, one["loc"][-1:]), one["msg"]]) for one in error.errors()[:2])
