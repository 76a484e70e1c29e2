"""What a deploy stands on, and has to be there: the pool's type, what its job variables are, connections, secrets."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prefect.exceptions import ObjectNotFound
from prefect.utilities.schema_tools import validate as schema_errors

from deployments.deploy import blocks, late, pool
from deployments.deploy.needs import Needs
from deployments.deploy.project import Deployment, Project
from tasks import settings
from tasks.connections import block_name
from tasks.errors import ConfigError, one_of

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

_CREDENTIALS = re.compile(r"[a-zA-Z][\w+.-]*://[^:/@\s]*:[^@\s]+@")
_SECRET_NAME = re.compile(r"(?i)(^|_)(secret|password|passwd|token|api_?key)(_|$)")


@dataclass
class Ground:
    """What was found.

    Attributes:
        problems: what has to be mended first, a sentence each.
        notes: what a person should know.
    """

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def inspect(client: "SyncPrefectClient", project: Project, needs: Needs) -> Ground:
    """What a deploy of `project` to the server would find missing. Nothing is touched."""
    found = Ground()
    found.problems += _of_the_pool(client, project)
    references = set()
    for deployment in project.deployments:
        where = f"{project.file.name}: environment {project.environment.name!r}"
        found.problems += [f"{where}: {one}" for one in _readable_secrets(deployment) if one not in found.problems]
        references |= late.referred(deployment.job_variables)
    made = {f"prefect.blocks.{one.type}.{one.name}" for one in blocks.wanted(needs)}
    found.problems += [one for name in sorted(references) for one in _of_reference(client, project, name, made)]
    given = _given(project.deployments)
    _connections(client, project, needs, given, found)
    for name, secret in sorted(needs.secrets.items()):
        variable = settings.secret_variable(secret.name)
        elsewhere = variable in given or settings.secret(secret.name) is not None
        if not elsewhere and blocks.read(client, blocks.SECRET, name) is None:
            found.problems.append(
                f"{_users(needs.secret_users[name])}: the secret {secret.name!r} is nowhere. Set {variable} here, and "
                f"its block is made; or save the Secret block {name!r}; or give {variable} to the runs, as a reference "
                f"among the job variables of the environment {project.environment.name!r}."
            )
    found.problems = list(dict.fromkeys(found.problems))
    return found


def _of_the_pool(client: "SyncPrefectClient", project: Project) -> Iterator[str]:
    environment = project.environment
    where = f"{project.file.name}: environment {environment.name!r}"
    there = pool.read(client, environment)
    if there is not None and there.type != environment.type:
        yield (
            f"{where}: the work pool {environment.pool!r} is of type {there.type!r} on the server, not "
            f"{environment.type!r}. Name another pool, or delete that one."
        )
        return
    try:
        schema = pool.variables(client, environment)
    except ConfigError as error:
        yield f"{where}: {error}"
        return
    known = schema.get("properties") or {}
    for deployment in project.deployments:
        for name, value in deployment.job_variables.items():
            if known and name not in known:
                yield (
                    f"{where}: {name!r} is no job variable of the work pool {environment.pool!r} "
                    f"({environment.type}). Known are {one_of(sorted(known))}."
                )
            elif late.referred(value) or value is None:
                continue
            else:
                for wrong in schema_errors({name: value}, {**schema, "required": []}, preprocess=False):
                    yield f"{where}: job variable {name}: {wrong.message}."


def _readable_secrets(deployment: Deployment) -> Iterator[str]:
    """Job variables are read by everybody who may look at a deployment."""
    for path, text in _texts("", deployment.job_variables):
        name = path.rpartition(".")[2]
        if not late.referred(text) and (_SECRET_NAME.search(name) or _CREDENTIALS.search(text)):
            yield (
                f"job variable {path} holds a secret for everybody to read who may look at a deployment. Save it as a "
                "Secret block, and write {{ prefect.blocks.secret.its-name }}."
            )


def _texts(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, one in value.items():
            yield from _texts(f"{path}.{name}".lstrip("."), one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(path, one)
    elif isinstance(value, str):
        yield path, value


def _of_reference(client: "SyncPrefectClient", project: Project, name: str, made: set[str]) -> Iterator[str]:
    where = f"{project.file.name}: environment {project.environment.name!r}: {{{{ {name} }}}}"
    kind, _, rest = name.removeprefix("prefect.").partition(".")
    if kind == "variables":
        if client.read_variable_by_name(rest) is None:
            yield f"{where} names no variable of the server. Set it: prefect variable set {rest} …"
        return
    block_type, _, rest = rest.partition(".")
    block = rest.partition(".")[0]
    try:
        there = blocks.read(client, block_type, block) is not None
    except ObjectNotFound:
        there = False
    if not there and f"prefect.blocks.{block_type}.{block}" not in made:
        yield f"{where} names no block of the server. Save it first, in the UI for instance."


def _given(deployments: Iterable[Deployment]) -> set[str]:
    """Environment variables that every run is given by job variables."""
    each = [set(one.job_variables.get("env") or {}) for one in deployments]
    return set.intersection(*each) if each else set()


def _connections(client: "SyncPrefectClient", project: Project, needs: Needs, given: set[str], found: Ground) -> None:
    embedded = []
    for connection, users in sorted(needs.databases.items()):
        variable, block = settings.url_variable(connection), block_name(connection)
        if variable in os.environ or variable in given or blocks.read(client, blocks.CONNECTOR, block) is not None:
            continue
        if project.environment.in_containers:
            found.problems.append(
                f"{_users(users)}: the connection {connection!r} is nowhere, and would be a PostgreSQL inside of the "
                f"container, gone with it. Set {variable} here, and its block is made; or save the "
                f"SqlAlchemyConnector block {block!r}."
            )
        else:
            embedded.append(connection)
    if embedded:
        found.notes.append(
            f"{', '.join(embedded)}: here is neither a URL nor a block, so runs use the embedded PostgreSQL of the "
            f"worker's machine. For a block, set {' and '.join(settings.url_variable(one) for one in embedded)}."
        )
    for connection in sorted(needs.apis):
        variable = settings.url_variable(connection)
        if variable not in given:
            found.notes.append(
                f"{connection}: the job variables do not give {variable}, so the runs' own environment has to have it."
            )


def _users(names: list[str]) -> str:
    return ", ".join(names)
