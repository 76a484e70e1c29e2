"""What the tests of alerts share: a sink that receives them, and flows deployed with the automations they promise."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments.alerts.automations import changes
from deployments.alerts.names import EVERYTHING, PREFIX
from deployments.deployed_run import DeployedRun
from deployments.prefect_server import POOL, PROJECT, PrefectServer
from tasks.observe import causes
from tasks.pipeline import Pipeline
from tasks.settings import url_variable
from tests.deployments import alarming
from tests.scripted_server import Reply, ScriptedServer, Seen

_POLL_SECONDS = 0.1
_MARK_SECONDS = 60.0


@dataclass(frozen=True)
class Alert:
    """What the sink received, and when."""

    subject: str
    body: str
    at: datetime

    def after(self, moment: datetime | None) -> float:
        """Seconds since `moment`."""
        assert moment is not None
        return (self.at - moment).total_seconds()


class Sink:
    """An HTTP server that a notification block posts to.

    Attributes:
        alerts: what it received.
        refusals: how many requests it refuses, the first ones.
        refused: what it has refused.
    """

    def __init__(self) -> None:
        self.alerts: list[Alert] = []
        self.refusals = 0
        self.refused: list[Alert] = []
        self._server = ScriptedServer(self._receive)

    @property
    def url(self) -> str:
        return f"{self._server.url}/alerts"

    @property
    def subjects(self) -> list[str]:
        return [alert.subject for alert in self.alerts]

    def of(self, name: str) -> list[Alert]:
        """What it was told of a pipeline, flow or pool."""
        return [alert for alert in self.alerts if f"] {name}: " in alert.subject]

    def wait(self, subject: str, seconds: float, number: int = 1) -> Alert:
        """The alert of that subject, the second or third if `number` says so."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = [alert for alert in self.alerts if alert.subject == subject]
            if len(found) >= number:
                return found[number - 1]
            time.sleep(_POLL_SECONDS)
        raise AssertionError(f"{subject!r} was not received within {seconds:g} s, but {self.subjects}")

    def _receive(self, seen: Seen) -> Reply:
        received = json.loads(seen.body)
        alert = Alert(received["subject"], received["body"], datetime.now(UTC))
        if len(self.refused) < self.refusals:
            self.refused.append(alert)
            return Reply(status=503)
        self.alerts.append(alert)
        return Reply({})

    def __enter__(self) -> "Sink":
        self._server.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._server.__exit__(*raised)


def send_to(server: PrefectServer, sink: Sink, name: str = EVERYTHING) -> None:
    """Make the notification block, as `tidegate deploy` does from TIDEGATE_ALERTS_URL."""
    with temporary_settings({PREFECT_API_URL: server.api_url}):
        CustomWebhookNotificationBlock(
            name=name,
            url=sink.url,
            json_data={"subject": "{{subject}}", "body": "{{body}}"},
            headers=None,
            cookies=None,
        ).save(name, overwrite=True)


def apply(server: PrefectServer, pipelines: Sequence[Pipeline], operating: Sequence[str] = ()) -> list[str]:
    """Bring the automations up to date, and say what that took."""
    needed = changes(server.client, pipelines, operating, POOL)
    for change in needed:
        change.apply()
    return [f"{change.action} {change.name}" for change in needed]


def told(server: PrefectServer, pipeline: str, event: str) -> list[str]:
    """What the events of that name say that a pipeline has told the server, the oldest first."""
    wanted = {
        "event": {"name": [event]},
        "resource": {"id": [f"etl.pipeline.{pipeline}"]},
        "occurred": {"since": "2000-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z"},
        "order": "ASC",
    }
    found = server.client.request("POST", "/events/filter", json={"filter": wanted, "limit": 50}).json()["events"]
    return [one["payload"]["text"] for one in found]


def mark(server: PrefectServer, sink: Sink, words: str) -> Alert:
    """Raise an alert of the pipeline `alarming.MARKER`, and return it once it is there.

    The server deals with events in the order in which it gets them: an alert of anything before has come by then.
    """
    name = alarming.MARKER.name
    event = {
        "event": causes.ERROR_RATE.breached,
        "occurred": datetime.now(UTC).isoformat(),
        "resource": {"prefect.resource.id": f"etl.pipeline.{name}"},
        "related": [],
        "payload": {"text": words, "look": f"tidegate status {name}"},
        "id": str(uuid4()),
    }
    server.client.request("POST", "/events", json=[event])
    deadline = time.monotonic() + _MARK_SECONDS
    while time.monotonic() < deadline:
        found = [alert for alert in sink.of(name) if alert.body.startswith(words)]
        if found:
            return found[0]
        time.sleep(_POLL_SECONDS)
    raise AssertionError(f"the marker {words!r} was not received within {_MARK_SECONDS:g} s")


def clear(server: PrefectServer, name: str = EVERYTHING) -> None:
    """Leave no automation of ours, and not that block."""
    for automation in server.client.read_automations():
        if automation.name.startswith(PREFIX):
            server.client.delete_automation(automation.id)
    block = server.client.read_block_document_by_name(name, "custom-webhook")
    server.client.delete_block_document(block.id)


def databases(server: PrefectServer) -> dict[str, str]:
    """Where the flows of `alarming` find their source and their target."""
    names = {"source": "alerts_source", "target": "alerts_target"}
    for database in names.values():
        server.cluster.ensure_database(database)
    return {url_variable(name): server.cluster.url(database) for name, database in names.items()}


def deploy(server: PrefectServer, folder: Path, names: Sequence[str], queue: str = "default") -> None:
    """Deploy flows of `alarming`, each under its own name, one run of each at a time, on databases of their own."""
    file = folder / "prefect.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "pull": [{"prefect.deployments.steps.set_working_directory": {"directory": str(PROJECT)}}],
                "deployments": [
                    {
                        "name": name,
                        "entrypoint": f"tests/deployments/{Path(alarming.__file__).name}:{name}",
                        "work_pool": {
                            "name": POOL,
                            "work_queue_name": queue,
                            "job_variables": {"env": databases(server)},
                        },
                        "concurrency_limit": {"limit": 1, "collision_strategy": "ENQUEUE"},
                    }
                    for name in names
                ],
            }
        )
    )
    server.prefect("deploy", "--all", "--prefect-file", str(file))


def start(server: PrefectServer, name: str, **parameters: Any) -> DeployedRun:
    """Start a run, of one of the flows of `alarming`."""
    deployment = server.client.read_deployment_by_name(f"{name}/{name}")
    run = server.client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
    return DeployedRun(server, f"{name}/{name}", run.id)


def ended(run: DeployedRun) -> datetime:
    """When a run ended, as the server has it."""
    at = run.server.client.read_flow_run(run.id).end_time
    assert at is not None
    return at


def release(server: PrefectServer, name: str) -> None:
    """Let the run of a flow that waits go on."""
    (server.home / f"released-{name}").touch()
