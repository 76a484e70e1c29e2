"""`Project`: prefect.yaml, read, and written again for one environment."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import yaml
from prefect.utilities.templating import apply_values

from deployments.deploy import late
from deployments.deploy.environment import DEFAULT, Environment, environments
from deployments.deploy.queues import Queue, described_queues
from tasks.errors import ConfigError, one_of

Identity = tuple[str, str]
"""Entrypoint and name of a deployment."""

FROM_THE_FILE = "A trigger in prefect.yaml."
"""The description of an automation that a trigger makes; the server does not tell which automations it owns."""


@dataclass(frozen=True)
class Deployment:
    """One entry of `deployments:`.

    Attributes:
        written: as it stands in the file.
        environment: what it is rendered for.
        own_queue: a queue of the pool for it alone; None is that of the environment.
    """

    written: Mapping[str, Any]
    environment: Environment
    own_queue: str | None = None

    @property
    def name(self) -> str:
        """Its own name, without the flow's."""
        return str(self.written.get("name") or "?")

    @property
    def entrypoint(self) -> str:
        """`path/to/file.py:function`."""
        return str(self.written.get("entrypoint") or "")

    @property
    def identity(self) -> Identity:
        """What no other entry of the file has: two flows may have deployments of the same name."""
        return self.entrypoint, self.name

    @property
    def queue(self) -> str:
        """Name of the work queue that its runs go to."""
        return self.own_queue or self.environment.queue

    @property
    def schedules(self) -> Sequence[Mapping[str, Any]]:
        """As they stand in the file."""
        return cast("Sequence[Mapping[str, Any]]", self.written.get("schedules") or [])

    @property
    def triggers(self) -> list[dict[str, Any]]:
        """Those of the file, each with a name and with what tells later that it came from there."""
        return [
            {"name": f"{self.name}__automation_{number}", "description": FROM_THE_FILE, **one}
            for number, one in enumerate(self.written.get("triggers") or [], 1)
        ]

    @cached_property
    def job_variables(self) -> dict[str, Any]:
        """With what the environment of this process gives; references to blocks stay references."""
        resolved = apply_values(self.environment.job_variables_of(self.name), dict(os.environ), remove_notset=False)
        return cast("dict[str, Any]", resolved)


@dataclass(frozen=True)
class Project:
    """A prefect.yaml for one environment.

    Attributes:
        file: where it was read.
        folder: what entrypoints are relative to.
        written: what it holds.
        environment: what it is rendered for.
        default: what its deployments say as they are written.
        queues: those of the pool that have a limit and a priority, by name.
    """

    file: Path
    folder: Path
    written: Mapping[str, Any]
    environment: Environment
    default: Environment
    queues: Mapping[str, Queue] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path, folder: Path, environment: str | None = None) -> "Project":
        """Read `file` for an environment of its; None is `dev`.

        Raises:
            ConfigError: it cannot be read, or describes no such environment.
        """
        try:
            written = yaml.safe_load(file.read_text())
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"{file} cannot be read as YAML: {error}") from error
        if not isinstance(written, dict) or not isinstance(written.get("deployments"), list):
            raise ConfigError(f"{file} has no list `deployments`. Write one entry for each flow that is to run.")
        described = environments(file.name, written.get("definitions"))
        chosen = environment or DEFAULT
        if chosen not in described:
            raise ConfigError(f"{file.name} describes no environment {chosen!r}. Choose {one_of(described)}.")
        own = described_queues(file.name, written.get("definitions"))
        return cls(file, folder, written, described[chosen], described[DEFAULT], own)

    @property
    def tag(self) -> str:
        """What marks a deployment as this project's own: only those are ever deleted."""
        return str(self.written.get("name") or "tidegate")

    @cached_property
    def deployments(self) -> tuple[Deployment, ...]:
        """Every deployment of the file."""
        return tuple(
            Deployment(one, self.environment, self._own_queue(one))
            for one in self.written["deployments"]
            if isinstance(one, dict)
        )

    def _own_queue(self, written: Mapping[str, Any]) -> str | None:
        queue = (written.get("work_pool") or {}).get("work_queue_name")
        return queue if queue in self.queues and queue != self.default.queue else None

    def pull(self, deployment: Deployment) -> Any:
        """The pull steps of `deployment`, placeholders included."""
        if self.environment.pull is not None:
            return self.environment.pull
        return deployment.written.get("pull", self.written.get("pull"))

    @property
    def step_outputs(self) -> dict[str, Any]:
        """What the build steps of the file will say, as far as that is known without running them."""
        outputs: dict[str, Any] = {}
        for step in self.written.get("build") or []:
            for how in step.values() if isinstance(step, dict) else ():
                if isinstance(how, dict) and "id" in how and how.get("script") == "pwd":
                    outputs[how["id"]] = {"stdout": str(self.folder)}
        return outputs

    def render(
        self, chosen: Collection[Identity], *, new: Collection[Identity], paused: Collection[Identity] = ()
    ) -> str:
        """A prefect.yaml of the deployments in `chosen`, for this environment.

        Prefect writes the value of a block into the deployment where it finds a reference to it; in here references
        stand behind a build step that gives them back as they are, for the worker to look up.

        Args:
            chosen: which deployments it holds, each by its `identity`.
            new: those of them that the server does not have. Prefect replaces all schedules of an existing deployment
                when one of them has no slug, a person's too; so only a new one gets its schedules by this file.
            paused: those that a person has paused. Prefect sets them going again, unless it is told.
        """
        references: list[str] = []
        entries = []
        for one in self.deployments:
            if one.identity in chosen:
                pool = late.held_back(self.environment.work_pool(one.name, one.queue), references)
                entry = {**one.written, "work_pool": pool}
                if one.identity not in new:
                    entry.pop("schedules", None)
                if one.identity in paused:
                    entry.setdefault("paused", True)
                if one.triggers:
                    entry["triggers"] = one.triggers
                if self.environment.pull is not None:
                    entry.pop("pull", None)
                entries.append(entry)
        build = [*(self.written.get("build") or []), *late.step(references)]
        rendered = {key: value for key, value in self.written.items() if key != "definitions"}
        rendered |= {"build": build, "deployments": entries}
        if self.environment.pull is not None:
            rendered["pull"] = self.environment.pull
        return yaml.dump(rendered, Dumper=_WithoutAliases, sort_keys=False, allow_unicode=True)


class _WithoutAliases(yaml.SafeDumper):
    """Writes everything out: what the file shares by anchors is read better where it applies."""

    def ignore_aliases(self, data: object) -> bool:
        """Everything is written out."""
        return True
