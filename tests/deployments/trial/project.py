"""`Trial`: a project of its own beside the one of the checkout, deployed in this process to a real server."""

import contextlib
import io
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from prefect import __version__
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound
from rich.console import Console

from deployments.deploy import command
from deployments.deploy.plan import Plan
from deployments.deploy.project import Project

NAME = "trial"
"""Of the project, and so the tag of what is its own."""

POOL = {"name": "trial", "work_queue_name": "default", "job_variables": {"stream_output": False}}

ORDERS: dict[str, Any] = {
    "name": "orders",
    "entrypoint": "tests/deployments/trial/orders.py:orders",
    "description": "Orders of a shop.",
    "version": "1",
    "tags": [NAME, "fact"],
    "work_pool": POOL,
    "concurrency_limit": {"limit": 1, "collision_strategy": "ENQUEUE"},
    "parameters": {"at_once": 2},
    "schedules": [
        {"slug": "daily", "cron": "0 5 * * *", "timezone": "Europe/Berlin"},
        {"slug": "often", "interval": 600, "active": False},
    ],
    "triggers": [
        {
            "name": "orders after shops",
            "enabled": False,
            "expect": ["etl.dataset.landed"],
            "match": {"prefect.resource.id": ["etl.pipeline.trial_shops"]},
        }
    ],
}

SWEEP: dict[str, Any] = {
    "name": "sweep",
    "entrypoint": "tests/deployments/trial/sweep.py:sweep",
    "description": "Sweeps.",
    "version": "1",
    "tags": [NAME],
    "work_pool": POOL,
    "concurrency_limit": 1,
    "parameters": {"days": 3},
    "schedules": [{"slug": "weekly", "cron": "0 6 * * 1", "timezone": "UTC"}],
}


class Trial:
    """A prefect.yaml in a folder, and what a deploy of it does.

    Args:
        folder: where the file is.
        client: of the server, for looking.
    """

    def __init__(self, folder: Path, client: SyncPrefectClient) -> None:
        self.file = folder / "prefect.yaml"
        self.client = client
        self.written: dict[str, Any] = {
            "name": NAME,
            "prefect-version": __version__,
            "pull": [{"prefect.deployments.steps.set_working_directory": {"directory": "/code"}}],
            "definitions": {"environments": {"dev": {"type": "process", "work_pool": deepcopy(POOL)}}},
            "deployments": [deepcopy(ORDERS), deepcopy(SWEEP)],
        }

    @property
    def orders(self) -> dict[str, Any]:
        """The entry of `orders`."""
        return next(one for one in self.written["deployments"] if one["name"] == "orders")

    def write(self) -> Path:
        """Write the file as it is now."""
        self.file.write_text(yaml.safe_dump(self.written, sort_keys=False))
        return self.file

    def deploy(self, *, environment: str | None = None, dry_run: bool = False) -> str:
        """Deploy it, and return what was printed."""
        printed = io.StringIO()
        command.run(Console(file=printed, width=160), environment=environment, dry_run=dry_run, file=self.write())
        return printed.getvalue()

    def plan(self, environment: str | None = None) -> Plan:
        """What a deploy would change."""
        return command.make_plan(self.client, Project.read(self.write(), command.PROJECT, environment))

    def planned(self) -> list[tuple[str, str, str, str]]:
        """What a deploy would change, as text."""
        return [(one.action, one.kind, one.name, one.why) for one in self.plan().changes]

    def remove(self) -> None:
        """Take everything of the project off the server."""
        self.written["deployments"] = []
        self.plan().apply(Console(file=io.StringIO()))
        for name in ("trial", "trial-staging", "trial-prod"):
            _absent(lambda name=name: self.client.delete_work_pool(name))
        for kind, name in BLOCKS:
            _absent(lambda kind=kind, name=name: self._delete_block(kind, name))
        _absent(lambda: self.client.delete_global_concurrency_limit_by_name("trial-rate"))

    def _delete_block(self, kind: str, name: str) -> None:
        self.client.delete_block_document(self.client.read_block_document_by_name(name, kind).id)


BLOCKS = (("secret", "trial-key"), ("sqlalchemy-connector", "trial-warehouse"), ("custom-webhook", "tidegate-alerts"))


def _absent(delete: Any) -> None:
    with contextlib.suppress(ObjectNotFound):
        delete()
