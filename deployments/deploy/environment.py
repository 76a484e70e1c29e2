"""`Environment`: where everything in prefect.yaml runs, `dev` or `prod`: a work pool, its type, its job variables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.errors import ConfigError, one_of

DEFAULT = "dev"
"""What the file means as it is written, so that a plain `prefect deploy --all` deploys it."""

TYPES = ("process", "docker", "kubernetes")

_KEYS = ("type", "work_pool", "deployments", "pull")
_POOL_KEYS = ("name", "work_queue_name", "job_variables")


@dataclass(frozen=True)
class Environment:
    """One of `definitions: environments:` in prefect.yaml.

    Attributes:
        name: how the file and `--environment` call it.
        type: of its work pool: `process`, `docker` or `kubernetes`.
        pool: name of the work pool.
        queue: name of the queue in it.
        job_variables: of every deployment; secrets only as references to blocks or variables.
        deployments: further job variables of single deployments, by name.
        pull: steps that fetch the code before a run; None takes those of the file.
    """

    name: str
    type: str
    pool: str
    queue: str = "default"
    job_variables: Mapping[str, Any] = field(default_factory=dict)
    deployments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pull: Sequence[Mapping[str, Any]] | None = None

    @property
    def in_containers(self) -> bool:
        """Whether what a run writes to its own disk is gone with it."""
        return self.type != "process"

    def job_variables_of(self, deployment: str) -> dict[str, Any]:
        """What a run of `deployment` is given; `env` is joined, everything else replaced by the deployment's own."""
        own = self.deployments.get(deployment, {})
        joined = {**self.job_variables, **own}
        if isinstance(self.job_variables.get("env"), Mapping) and isinstance(own.get("env"), Mapping):
            joined["env"] = {**self.job_variables["env"], **own["env"]}
        return joined

    def work_pool(self, deployment: str, queue: str) -> dict[str, Any]:
        """The `work_pool` of `deployment`, which goes to `queue`, as prefect.yaml writes it."""
        return {
            "name": self.pool,
            "work_queue_name": queue,
            "job_variables": self.job_variables_of(deployment),
        }


def environments(where: str, definitions: object) -> dict[str, Environment]:
    """The environments that `definitions` of a prefect.yaml describes, by name.

    Args:
        where: the file, for messages.
        definitions: what stands under that key.

    Raises:
        ConfigError: there is none called `dev`, or one that cannot be used.
    """
    described = definitions.get("environments") if isinstance(definitions, Mapping) else None
    if not isinstance(described, Mapping) or DEFAULT not in described:
        raise ConfigError(
            f"{where}: definitions.environments has no {DEFAULT!r}, which is what the deployments of the file mean as "
            "they are written. Add it, with a type and a work_pool; docs/deploy.md shows one of each type."
        )
    return {name: _environment(f"{where}: environment {name!r}", name, one) for name, one in described.items()}


def _environment(where: str, name: str, described: object) -> Environment:
    if not isinstance(described, Mapping):
        raise ConfigError(f"{where} is not a mapping. Give it {one_of(_KEYS)}.")
    pool = described.get("work_pool")
    if not isinstance(pool, Mapping) or not pool.get("name"):
        raise ConfigError(f"{where} has no work_pool.name. Name the pool that its runs go to.")
    for mapping, keys, place in ((described, _KEYS, ""), (pool, _POOL_KEYS, "work_pool.")):
        for unknown in sorted(set(mapping) - set(keys)):
            raise ConfigError(f"{where}: {place}{unknown} is not known. Known are {one_of(keys)}.")
    if described.get("type") not in TYPES:
        raise ConfigError(f"{where}: type is {one_of(TYPES)}, got {described.get('type')!r}.")
    return Environment(
        name,
        str(described["type"]),
        str(pool["name"]),
        str(pool.get("work_queue_name") or "default"),
        _mapping(where, "work_pool.job_variables", pool.get("job_variables")),
        {
            str(one): _mapping(where, f"deployments.{one}", own)
            for one, own in _mapping(where, "deployments", described.get("deployments")).items()
        },
        described.get("pull"),
    )


def _mapping(where: str, place: str, value: object) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: {place} is a mapping, got {value!r}.")
    return value
