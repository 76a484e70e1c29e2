"""`DeployedFlow`: the flow that an entrypoint of prefect.yaml names, and the pipeline in its file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from prefect import Flow
from prefect.flows import load_flow_from_entrypoint

from deployments.deploy.project import Deployment, Project
from tasks.errors import ConfigError, redact
from tasks.pipeline import Pipeline


@dataclass(frozen=True)
class DeployedFlow:
    """A flow that a deployment runs.

    Attributes:
        deployment: of prefect.yaml.
        flow: what its entrypoint names.
        pipeline: `PIPELINE` of its file; None for an operating flow, `nightly` for instance.
    """

    deployment: Deployment
    flow: Flow[..., Any]
    pipeline: Pipeline | None

    @property
    def name(self) -> str:
        """`flow/deployment`, as the server calls it."""
        return f"{self.flow.name}/{self.deployment.name}"


def load(project: Project, deployment: Deployment) -> DeployedFlow:
    """Import what `deployment` runs.

    Raises:
        ConfigError: there is no such file or function, it cannot be imported, or it is no flow.
    """
    path, _, function = deployment.entrypoint.rpartition(":")
    remedy = "Write path/to/file.py:function, the path from the folder of prefect.yaml."
    if not path or not function:
        raise ConfigError(f"entrypoint {deployment.entrypoint!r} names no function. {remedy}")
    if not (Path(project.folder) / path).is_file():
        raise ConfigError(f"entrypoint {deployment.entrypoint!r}: there is no file {path}. {remedy}")
    try:
        flow = cast("Flow[..., Any]", load_flow_from_entrypoint(f"{project.folder / path}:{function}"))
    except Exception as error:
        cause = error.__cause__ or error
        raise ConfigError(
            f"entrypoint {deployment.entrypoint!r} does not load ({type(cause).__name__}: {redact(str(cause))}). "
            "The file has to import, and the function to bear @flow."
        ) from error
    held: Mapping[str, Any] = flow.fn.__globals__
    pipeline = held.get("PIPELINE")
    return DeployedFlow(deployment, flow, pipeline if isinstance(pipeline, Pipeline) else None)
