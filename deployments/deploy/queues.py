"""Work queues of an environment's pool: made, and kept at the limit and the priority that prefect.yaml gives them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect.exceptions import ObjectNotFound

from deployments.change import Change
from deployments.deploy.environment import Environment
from tasks.errors import ConfigError, one_of

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import WorkQueue

KIND = "work queue"

_KEYS = ("concurrency_limit", "priority", "description")


@dataclass(frozen=True)
class Queue:
    """One of `definitions: queues:` in prefect.yaml; every environment's pool has it.

    Attributes:
        name: how deployments call it, as their `work_queue_name`.
        concurrency_limit: how many of its runs are under way at once, whatever the workers could take.
        priority: the lower, the sooner its runs are taken up; 1 is that of the queue `default`.
        description: what it is for.
    """

    name: str
    concurrency_limit: int
    priority: int
    description: str = ""


def described_queues(where: str, definitions: object) -> dict[str, Queue]:
    """The queues that `definitions` of a prefect.yaml describes, by name.

    Args:
        where: the file, for messages.
        definitions: what stands under that key.

    Raises:
        ConfigError: one of them cannot be used.
    """
    found = definitions.get("queues") if isinstance(definitions, Mapping) else None
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise ConfigError(f"{where}: definitions.queues is a mapping of names, got {found!r}.")
    return {str(name): _queue(f"{where}: queue {name!r}", str(name), one) for name, one in found.items()}


def _queue(where: str, name: str, written: object) -> Queue:
    if not isinstance(written, Mapping):
        raise ConfigError(f"{where} is not a mapping. Give it {one_of(_KEYS)}.")
    for unknown in sorted(set(written) - set(_KEYS)):
        raise ConfigError(f"{where}: {unknown} is not known. Known are {one_of(_KEYS)}.")
    for key in ("concurrency_limit", "priority"):
        value = written.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{where}: {key} is a whole number of 1 or more, got {value!r}.")
    return Queue(name, written["concurrency_limit"], written["priority"], str(written.get("description") or ""))


def changes(client: "SyncPrefectClient", environment: Environment, queues: Mapping[str, Queue]) -> list[Change]:
    """What makes the environment's pool have `queues`. Whether one is paused is left to whoever paused it."""
    return [change for queue in queues.values() for change in _changes(client, environment.pool, queue)]


def _changes(client: "SyncPrefectClient", pool: str, queue: Queue) -> list[Change]:
    wanted: dict[str, Any] = {
        "concurrency_limit": queue.concurrency_limit,
        "priority": queue.priority,
        "description": queue.description,
    }

    def put() -> None:
        there = _read(client, pool, queue.name)
        if there is None:
            client.create_work_queue(name=queue.name, work_pool_name=pool, **wanted)
        else:
            client.update_work_queue(there.id, **wanted)

    there = _read(client, pool, queue.name)
    if there is None:
        why = f"in {pool}, {queue.concurrency_limit} at once, priority {queue.priority}"
        return [Change("create", KIND, queue.name, put, why)]
    held = {"concurrency_limit": there.concurrency_limit, "priority": there.priority, "description": there.description}
    differs = [
        name.replace("_", " ") if name == "description" else f"{name.replace('_', ' ')} {held[name]} → {value}"
        for name, value in wanted.items()
        if (held[name] or None) != (value or None)
    ]
    return [Change("update", KIND, queue.name, put, ", ".join(differs))] if differs else []


def _read(client: "SyncPrefectClient", pool: str, name: str) -> "WorkQueue | None":
    """The queue as the server has it, or None; also where there is no such pool yet."""
    try:
        return client.read_work_queue_by_name(name, work_pool_name=pool)
    except ObjectNotFound:
        return None
