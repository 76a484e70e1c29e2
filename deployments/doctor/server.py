"""The Prefect server: blocks, work pool, workers, deployments and automations; one line where there is none."""

from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from deployments.alerts.names import EVERYTHING, PREFIX
from deployments.doctor.connections import connections_of
from deployments.doctor.databases import SKEW, utc_now
from deployments.doctor.finding import Finding
from deployments.doctor.named_things import examine_named
from deployments.prefect_server import POOL, PROJECT
from tasks import settings
from tasks.errors import redact
from tasks.pipeline import Pipeline
from tasks.window import to_utc

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


_DEPLOY = "Run `tidegate deploy`."
_PAGE = 200


def examine_server(pipelines: Sequence[Pipeline]) -> Iterator[Finding]:
    """What there is to say of the server that `PREFECT_API_URL` names."""
    if not settings.api_server_known():
        yield Finding(
            "warn", "server", "PREFECT_API_URL is not set: no block, worker, deployment or automation was looked at.",
            "Set it where a server schedules the pipelines; `tidegate run` needs none.",
        )  # fmt: skip
        return
    import httpx
    import prefect
    import yaml
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    try:
        with get_client(sync_client=True) as client:
            shown = redact(str(client.api_url))
            away = client.api_healthcheck()
            if away is not None:
                yield Finding(
                    "fail", "server", f"{shown} does not answer: {away or type(away).__name__}.",
                    "Check PREFECT_API_URL, and whether the server is up. No schedule starts, and no alert is sent.",
                )  # fmt: skip
                return
            version = client.api_version()
            if version.split(".")[:2] == prefect.__version__.split(".")[:2]:
                yield Finding("ok", "server", f"{shown}: Prefect {version}.")
            else:
                yield Finding(
                    "warn", "server", f"{shown}: Prefect {version}, and {prefect.__version__} here.",
                    "Have both run the same version.",
                )  # fmt: skip
            yield from _clock(client)
            blocks = _block_names(client)
            yield from _blocks(blocks, pipelines)
            yield from examine_named(client, pipelines, blocks)
            declared = yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]
            there = {_identity(deployment): deployment for deployment in _every_deployment(client)}
            # Which of the environments this server is, its deployments tell.
            found = [there[_identity(one)] for one in declared if _identity(one) in there]
            pools = {one.work_pool_name for one in found} - {None}
            for name in sorted(pools) or [POOL]:
                yield from _pool(client, name)
            yield from _deployments(declared, there)
            yield from _automations(client, pipelines, declared)
    except (httpx.HTTPError, PrefectHTTPStatusError, RuntimeError) as error:
        yield Finding(
            "fail", "server", f"it broke off: {error or type(error).__name__}.",
            "Look at its log, and at PREFECT_API_KEY or PREFECT_API_AUTH_STRING where it asks for one.",
        )  # fmt: skip


def _clock(client: "SyncPrefectClient") -> Iterator[Finding]:
    """By it schedules are due, and runs late."""
    before = utc_now()
    told = client.request("GET", "/health").headers.get("date")
    if told is None:
        return
    # Whole seconds, cut.
    skew = to_utc(parsedate_to_datetime(told)) + timedelta(seconds=0.5) - before
    if abs(skew) > SKEW + (utc_now() - before):
        yield Finding(
            "warn", "clock of the server", f"it differs from this machine's by {skew.total_seconds():+.0f} s.",
            "Have both keep time by NTP: schedules are due, and runs late, by the server's clock.",
        )  # fmt: skip
    else:
        yield Finding("ok", "clock of the server", "it is this machine's to the second, or nearly.")


def _block_names(client: "SyncPrefectClient") -> set[str]:
    names: set[str] = set()
    offset = 0
    while page := client.read_block_documents(limit=_PAGE, offset=offset, include_secrets=False):
        names |= {document.name or str(document.id) for document in page}
        offset += len(page)
        if len(page) < _PAGE:
            break
    return names


def _blocks(names: Set[str], pipelines: Sequence[Pipeline]) -> Iterator[Finding]:
    for one in connections_of(pipelines):
        if one.is_api:
            continue
        about = f"block {one.block}"
        if settings.connection_url(one.name) is not None:
            yield Finding(
                "ok", about, f"not needed here: {one.variable} is set. A worker needs one of the two as well."
            )
        elif one.block in names:
            yield Finding("ok", about, f"it says where {one.name} is.")
        else:
            yield Finding(
                "warn", about, f"there is none, and {one.variable} is not set, so the embedded PostgreSQL serves for "
                f"{one.name}.",
                f"Make a SqlAlchemyConnector block {one.block!r}, or set {one.variable} for the workers.",
            )  # fmt: skip
    if EVERYTHING in names:
        yield Finding("ok", f"block {EVERYTHING}", "alerts are sent to it.")
    else:
        yield Finding(
            "warn", f"block {EVERYTHING}", "there is none, so no alert can be sent.",
            f"Make a notification block of that name, or set TIDEGATE_ALERTS_URL. {_DEPLOY}",
        )  # fmt: skip


def _pool(client: "SyncPrefectClient", name: str) -> Iterator[Finding]:
    from prefect.exceptions import ObjectNotFound

    about = f"work pool {name}"
    try:
        pool = client.read_work_pool(name)
    except ObjectNotFound:
        yield Finding("fail", about, "there is none, so no run starts.", _DEPLOY)
        return
    if pool.is_paused:
        yield Finding("fail", about, "it is paused, so no run starts.", f"prefect work-pool resume {name}")
    else:
        yield Finding("ok", about, f"of the type {pool.type}.")
    for queue in client.read_work_queues(work_pool_name=name):
        if queue.is_paused:
            yield Finding(
                "warn", f"work queue {queue.name} of {name}", "it is paused, so no run in it starts.",
                f"prefect work-queue resume {queue.name} --pool {name}",
            )  # fmt: skip
    online = [worker for worker in client.read_workers_for_work_pool(name) if _status(worker) == "ONLINE"]
    if online:
        beats = [worker.last_heartbeat_time for worker in online if worker.last_heartbeat_time is not None]
        last = f", last heard of at {max(beats):%Y-%m-%d %H:%M:%S} UTC" if beats else ""
        yield Finding("ok", f"workers of {name}", f"{len(online)} alive{last}.")
    else:
        yield Finding(
            "fail", f"workers of {name}", "none is alive, so no run starts.",
            f"prefect worker start --pool {name}, and look why the last one ended.",
        )  # fmt: skip


def _status(worker: Any) -> str:
    return str(getattr(worker.status, "value", worker.status) or "").upper()


def _identity(deployment: Any) -> tuple[str, str]:
    """Name and entrypoint, of an entry of prefect.yaml or of what the server has: two flows may share a name."""
    if isinstance(deployment, Mapping):
        return deployment["name"], deployment["entrypoint"]
    return deployment.name, deployment.entrypoint


def _deployments(declared: Sequence[Mapping[str, Any]], there: Mapping[tuple[str, str], Any]) -> Iterator[Finding]:
    """Those of prefect.yaml, beside what the server has by their names."""
    for one in declared:
        flow = one["entrypoint"].rpartition(":")[2]
        shared = sum(each["name"] == one["name"] for each in declared) > 1
        about = f"deployment {flow}/{one['name']}" if shared else f"deployment {one['name']}"
        found = there.get(_identity(one))
        if found is None:
            yield Finding("fail", about, "it is not on the server.", _DEPLOY)
            continue
        wanted = {each["slug"] for each in one.get("schedules") or () if each.get("active", True)}
        active = {schedule.slug for schedule in found.schedules if schedule.active}
        if found.paused:
            yield Finding(
                "warn",
                about,
                "it is paused, so nothing schedules it.",
                "Resume it in the UI, if nobody paused it on purpose.",
            )
        elif missing := wanted - active:
            yield Finding(
                "warn", about, f"its schedule {', '.join(sorted(missing))} is not active.",
                f"Switch it on in the UI, if nobody switched it off on purpose. {_DEPLOY}",
            )  # fmt: skip
        else:
            told = f"scheduled {', '.join(sorted(active))}" if active else "started by hand or by events only"
            yield Finding("ok", about, f"{told}.")


def _every_deployment(client: "SyncPrefectClient") -> list[Any]:
    found: list[Any] = []
    while page := client.read_deployments(limit=_PAGE, offset=len(found)):
        found += page
        if len(page) < _PAGE:
            break
    return found


def _automations(
    client: "SyncPrefectClient", pipelines: Sequence[Pipeline], declared: Sequence[Mapping[str, Any]]
) -> Iterator[Finding]:
    """What alerts, and what starts runs: those automations that tidegate makes, by their names."""
    found: list[Any] = []
    while page := client.read_automations(limit=_PAGE, offset=len(found)):
        found += page
        if len(page) < _PAGE:
            break
    ours = [automation for automation in found if automation.name.startswith(PREFIX)]
    names = dict.fromkeys((*(one.name for one in pipelines), *(str(one["name"]) for one in declared)))
    without = [name for name in names if not any(a.name.startswith(f"{PREFIX}{name}: ") for a in ours)]
    if without:
        yield Finding(
            "warn", "automations", f"nothing alerts of {', '.join(without)}.",
            f"Make a notification block {EVERYTHING}, or set TIDEGATE_ALERTS_URL. {_DEPLOY}",
        )  # fmt: skip
    off = sorted(automation.name for automation in ours if not automation.enabled)
    for name in off:
        yield Finding("warn", f"automation {name}", "it is switched off.", "Switch it on in the UI.")
    if ours and not off:
        yield Finding("ok", "automations", f"{len(ours)} are there and enabled.")
    enabled = {automation.name: automation.enabled for automation in found}
    for trigger in (trigger for one in declared for trigger in one.get("triggers") or ()):
        if trigger.get("name") is not None and trigger.get("enabled", True):
            yield _trigger(trigger["name"], enabled.get(trigger["name"]))


def _trigger(name: str, enabled: bool | None) -> Finding:
    """What an automation of prefect.yaml that starts runs is like; `enabled` is None where there is none."""
    about = f"trigger {name}"
    if enabled is None:
        return Finding("fail", about, "there is none, so what it starts has to be started by hand.", _DEPLOY)
    if not enabled:
        return Finding(
            "warn", about, "it is switched off, so what it starts has to be started by hand.",
            "Switch it on in the UI, if nobody switched it off on purpose.",
        )  # fmt: skip
    return Finding("ok", about, "it is there and enabled.")
