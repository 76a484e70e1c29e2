"""Automations are brought up to date, and nothing else is: what is declared is there, once, and what is not is not."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from prefect.events.actions import DoNothing
from prefect.events.schemas.automations import AutomationCore, EventTrigger

from deployments.alerts.automations import changes
from deployments.alerts.names import CRITICAL, EVERYTHING, PREFIX
from deployments.prefect_server import PrefectServer
from tasks.errors import ConfigError
from tasks.pipeline import Sla
from tests.deployments import alerts
from tests.deployments.alarming import PIPELINES
from tests.deployments.alerts import Sink

pytestmark = pytest.mark.prefect

DECLARED = [PIPELINES["rated"], PIPELINES["overrun"]]


@pytest.fixture
def sink(prefect_server: PrefectServer) -> Iterator[Sink]:
    with Sink() as receiving:
        alerts.send_to(prefect_server, receiving)
        yield receiving
        alerts.clear(prefect_server)


def names(server: PrefectServer) -> list[str]:
    return sorted(each.name for each in server.client.read_automations() if each.name.startswith(PREFIX))


def test_what_is_declared_is_made_and_unchanged_it_stays_untouched(prefect_server: PrefectServer, sink: Sink) -> None:
    made = alerts.apply(prefect_server, DECLARED, ["nightly"])
    assert "create tidegate: overrun: runtime: watch" in made
    assert "create tidegate: nightly: failed: resolved" in made
    assert "create tidegate: tidegate: workers" in made
    assert not any("rated: runtime" in each or "nightly: error-rate" in each for each in made)
    assert names(prefect_server) == sorted(each.removeprefix("create ") for each in made)
    assert alerts.apply(prefect_server, DECLARED, ["nightly"]) == []


def test_what_is_changed_is_updated_alone_and_keeps_its_id(prefect_server: PrefectServer, sink: Sink) -> None:
    alerts.apply(prefect_server, DECLARED)
    before = {each.name: each.id for each in prefect_server.client.read_automations()}
    longer = replace(DECLARED[1], sla=Sla(max_runtime=timedelta(hours=1)))
    needed = changes(prefect_server.client, [DECLARED[0], longer], [], "tidegate")
    assert [(each.action, each.name, each.why) for each in needed] == [
        ("update", "tidegate: overrun: runtime: watch", "trigger"),
        ("update", "tidegate: overrun: runtime", "actions"),
    ]
    for change in needed:
        change.apply()
        change.apply()
    assert changes(prefect_server.client, [DECLARED[0], longer], [], "tidegate") == []
    assert {each.name: each.id for each in prefect_server.client.read_automations()} == before


def test_what_a_person_changed_or_made_twice_is_mended(prefect_server: PrefectServer, sink: Sink) -> None:
    client = prefect_server.client
    alerts.apply(prefect_server, DECLARED)
    [failed] = client.read_automations_by_name("tidegate: rated: failed")
    client.pause_automation(failed.id)
    [workers] = client.read_automations_by_name("tidegate: tidegate: workers")
    client.create_automation(AutomationCore.model_validate(workers.model_dump(exclude={"id"})))
    assert alerts.apply(prefect_server, DECLARED) == [
        "update tidegate: rated: failed",
        "delete tidegate: tidegate: workers",
    ]
    assert alerts.apply(prefect_server, DECLARED) == []


def test_what_is_no_longer_declared_is_deleted_and_what_is_not_ours_stays(
    prefect_server: PrefectServer, sink: Sink
) -> None:
    client = prefect_server.client
    theirs = client.create_automation(
        AutomationCore(name="tidegate is fine", trigger=EventTrigger(expect={"never"}), actions=[DoNothing()])
    )
    alerts.apply(prefect_server, DECLARED)
    gone = alerts.apply(prefect_server, DECLARED[:1])
    assert gone and all(each.startswith("delete tidegate: overrun: ") for each in gone)
    assert not any("overrun" in name for name in names(prefect_server))
    assert client.read_automation(theirs) is not None
    client.delete_automation(theirs)


def test_critical_ones_go_to_a_block_of_their_own_where_there_is_one(prefect_server: PrefectServer, sink: Sink) -> None:
    alerts.apply(prefect_server, DECLARED[:1])
    alerts.send_to(prefect_server, sink, CRITICAL)
    try:
        needed = changes(prefect_server.client, DECLARED[:1], [], "tidegate")
        causes = {each.name.removeprefix("tidegate: ").split(": ")[1] for each in needed}
        assert causes == {"failed", "zombie", "workers"}
        assert {each.why for each in needed} == {"actions"}
    finally:
        alerts.clear(prefect_server, CRITICAL)


def test_without_a_block_there_is_nothing_to_make(
    prefect_server: PrefectServer, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    alerts.apply(prefect_server, DECLARED)
    alerts.clear(prefect_server)
    assert changes(prefect_server.client, DECLARED, [], "tidegate") == []
    # One is to be made of this; until it is, nothing can be.
    monkeypatch.setenv("TIDEGATE_ALERTS_URL", sink.url)
    first = changes(prefect_server.client, DECLARED, [], "tidegate")[0]
    with pytest.raises(ConfigError, match=EVERYTHING):
        first.apply()
    alerts.send_to(prefect_server, sink)
    first.apply()
    assert names(prefect_server) == [first.name]


def test_a_promise_that_is_shorter_than_the_server_looks_is_refused(prefect_server: PrefectServer, sink: Sink) -> None:
    hasty = replace(DECLARED[0], sla=Sla(max_runtime=timedelta(seconds=9)))
    with pytest.raises(ConfigError, match="rated: runtime would be noticed after 9 seconds"):
        changes(prefect_server.client, [hasty], [], "tidegate")
