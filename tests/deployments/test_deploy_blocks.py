"""The blocks that a deploy makes: what for, when they are left alone, and that no value of theirs is ever told."""

import io
import traceback
from dataclasses import replace

import pytest
from prefect.client.schemas.actions import BlockDocumentCreate
from prefect.settings import PREFECT_API_URL, temporary_settings
from rich.console import Console

from deployments.deploy import blocks
from deployments.deploy.failure import DeployFailed
from deployments.deploy.needs import Needs
from deployments.deploy.plan import Plan
from deployments.prefect_server import PrefectServer
from tasks.connections import database_url
from tasks.errors import ConfigError
from tasks.secret import Secret
from tests.deployments.conftest import CANARY
from tests.deployments.trial.orders import PIPELINE
from tests.deployments.trial.project import Trial
from tests.servers.api_proxy import ApiProxy

pytestmark = pytest.mark.prefect

NEEDS = Needs.of([PIPELINE])
NEW = "canary-0816-of-another"
ALERTS = f"http://127.0.0.1:9/hooks/{CANARY}"


def block_changes(trial: Trial) -> list[tuple[str, str, str]]:
    found = [one for one in trial.plan().changes if one.kind == "block"]
    told: list[tuple[str, str, str]] = [(one.action, one.name, one.why) for one in found]
    Plan(found).apply(Console(file=io.StringIO()))
    assert [one for one in trial.plan().changes if one.kind == "block"] == []
    return told


def test_pipelines_find_what_they_name_in_the_blocks(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_ALERTS_URL", ALERTS)
    assert block_changes(trial) == [
        ("create", "sqlalchemy-connector/trial-warehouse", ""),
        ("create", "secret/trial-key", ""),
        ("create", "custom-webhook/tidegate-alerts", ""),
    ]
    for variable in ("TIDEGATE_TRIAL_WAREHOUSE_URL", "TIDEGATE_SECRET_TRIAL_KEY", "TIDEGATE_ALERTS_URL"):
        monkeypatch.delenv(variable)
    url = f"postgresql+psycopg://loader:{CANARY}@db.example/warehouse"
    assert database_url("trial_warehouse").render_as_string(hide_password=False) == url
    assert Secret("trial_key").value(fresh=True) == CANARY
    assert block_changes(trial) == []


def test_an_update_says_which_field_differs_and_no_value_is_told(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TIDEGATE_ALERTS_URL", ALERTS)
    block_changes(trial)
    monkeypatch.setenv("TIDEGATE_ALERTS_URL", f"http://127.0.0.1:9/hooks/{NEW}")
    monkeypatch.setenv("TIDEGATE_SECRET_TRIAL_KEY", NEW)
    monkeypatch.setenv("TIDEGATE_TRIAL_WAREHOUSE_URL", f"postgresql+psycopg://loader:{NEW}@db.example/warehouse")
    printed = trial.deploy(dry_run=True)
    assert block_changes(trial) == [
        ("update", "sqlalchemy-connector/trial-warehouse", "connection_info"),
        ("update", "secret/trial-key", "value"),
        ("update", "custom-webhook/tidegate-alerts", "secrets"),
    ]
    told = [printed, str(trial.plan()), repr(blocks.wanted(NEEDS)), *capfd.readouterr(), caplog.text]
    hidden = [one.data for one in trial.client.read_block_documents(include_secrets=False)]
    for secret in (CANARY, NEW):
        assert secret not in "".join(told)
        assert secret not in str(hidden)


def test_a_block_that_the_server_refuses_is_named_and_not_its_value(
    trial: Trial, prefect_server: PrefectServer
) -> None:
    """The server quotes what it was sent."""
    [_, create] = blocks.changes(trial.client, blocks.wanted(NEEDS))
    refuses = ApiProxy(
        prefect_server.ui_url, lambda asked: "refused" if asked.path == "/api/block_documents/" else None
    )
    with (
        refuses,
        temporary_settings({PREFECT_API_URL: f"{refuses.url}/api"}),
        pytest.raises(DeployFailed, match="block 'secret/trial-key' failed") as caught,
    ):
        Plan([create]).apply(Console(file=io.StringIO()))
    assert refuses.asked[-1].method == "POST"
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_a_secret_that_its_source_replaces_is_not_set_back(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = replace(NEEDS, databases={}, rotated={"trial-key"})
    [create] = blocks.changes(trial.client, blocks.wanted(needs))
    create.apply()
    monkeypatch.setenv("TIDEGATE_SECRET_TRIAL_KEY", NEW)
    assert blocks.changes(trial.client, blocks.wanted(needs)) == []
    [update] = blocks.changes(trial.client, blocks.wanted(replace(needs, rotated=set())))
    assert (update.action, update.why) == ("update", "value")


def test_a_notification_block_that_a_person_made_is_used_as_it_is(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = trial.client
    kind = client.read_block_type_by_slug("slack-webhook")
    schema = client.get_most_recent_block_schema_for_block_type(kind.id)
    assert schema is not None
    made = client.create_block_document(
        BlockDocumentCreate(
            name="tidegate-alerts",
            data={"url": "https://hooks.slack.example/T0"},
            block_type_id=kind.id,
            block_schema_id=schema.id,
        )
    )
    try:
        monkeypatch.setenv("TIDEGATE_ALERTS_URL", ALERTS)
        assert [one.name for one in trial.plan().changes if one.kind == "block"] == [
            "sqlalchemy-connector/trial-warehouse",
            "secret/trial-key",
        ]
        monkeypatch.delenv("TIDEGATE_ALERTS_URL")
        assert not any("No alert can be delivered" in note for note in trial.plan().notes)
    finally:
        client.delete_block_document(made.id)
    assert any("No alert can be delivered" in note for note in trial.plan().notes)


def test_a_secret_that_is_nowhere_is_refused_with_every_place_it_could_be(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TIDEGATE_SECRET_TRIAL_KEY")
    with pytest.raises(ConfigError, match="trial_orders: the secret 'trial_key' is nowhere") as caught:
        trial.plan()
    assert "TIDEGATE_SECRET_TRIAL_KEY" in str(caught.value) and "Secret block 'trial-key'" in str(caught.value)
    block = {"TIDEGATE_SECRET_TRIAL_KEY": "{{ prefect.blocks.secret.of-another-name }}"}
    trial.written["definitions"]["environments"]["dev"]["work_pool"]["job_variables"]["env"] = block
    with pytest.raises(ConfigError, match="names no block of the server"):
        trial.plan()


def test_a_database_without_a_url_is_said_to_be_the_embedded_one(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIDEGATE_TRIAL_WAREHOUSE_URL")
    assert any("trial_warehouse: here is neither a URL nor a block" in note for note in trial.plan().notes)
    trial.written["definitions"]["environments"]["staging"] = {"type": "docker", "work_pool": {"name": "trial-staging"}}
    with pytest.raises(ConfigError, match="'trial_warehouse' is nowhere, and would be a PostgreSQL inside"):
        trial.plan("staging")
