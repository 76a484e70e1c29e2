"""What an alert says, whatever it is about: on paper."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest
import typer.main
from prefect.server.utilities.user_templates import validate_user_template

from deployments.alerts.causes import CAUSES, Cause, Watched, found_at
from deployments.alerts.message import Message, spoken
from deployments.cli import app
from deployments.prefect_server import PROJECT
from tasks.errors import remember_secret
from tasks.pipeline import Sla
from tests.orders import ORDERS

COMMANDS = set(cast("Any", typer.main.get_command(app)).commands)
"""What the texts may name."""

PROMISING = replace(
    Watched.pipeline(ORDERS),
    sla=Sla(max_runtime=timedelta(hours=2), max_freshness=timedelta(hours=26), owner="ann {at night}"),
    keeps_log=True,
)
EVERYTHING = [
    PROMISING,
    Watched("flow", "nightly", Sla()),
    Watched("part", "window", Sla()),
    Watched("work pool", "tidegate", Sla()),
]


def messages() -> Iterator[Message]:
    for watched in EVERYTHING:
        for cause in found_at(watched):
            yield Message(watched, cause)


each_cause = pytest.mark.parametrize("cause", CAUSES, ids=[cause.name for cause in CAUSES])
each_message = pytest.mark.parametrize("message", list(messages()), ids=[message.dedup_key for message in messages()])


@each_cause
def test_every_cause_is_looked_for_somewhere(cause: Cause) -> None:
    assert any(cause in found_at(watched) for watched in EVERYTHING)


@each_cause
def test_every_cause_has_a_section_in_the_runbook(cause: Cause) -> None:
    runbook = (PROJECT / "docs" / "runbook.md").read_text()
    assert re.findall(r"^## (\S+)$", runbook, re.MULTILINE).count(cause.name) == 1


def test_the_runbook_has_no_other_sections() -> None:
    runbook = (PROJECT / "docs" / "runbook.md").read_text()
    assert re.findall(r"^## (.+)$", runbook, re.MULTILINE) == [cause.name for cause in CAUSES]


def test_nothing_is_looked_for_that_is_not_promised() -> None:
    promises_nothing = replace(PROMISING, sla=Sla(), keeps_log=False)
    without = {cause.name for cause in found_at(PROMISING)} - {cause.name for cause in found_at(promises_nothing)}
    assert without == {"runtime", "freshness", "silence", "slot-lag"}


def test_of_a_flow_that_another_sees_to_only_zombies_are_told() -> None:
    assert [cause.name for cause in found_at(Watched("part", "window", Sla()))] == ["zombie"]


@each_message
def test_every_message_names_who_what_and_where_to_look(message: Message) -> None:
    validate_user_template(message.subject)
    for body in (message.body, message.body_resolved):
        validate_user_template(body)
        for line in (
            f"{message.watched.kind.capitalize()}: {message.watched.name}",
            f"Cause: {message.cause.name}",
            f"Severity: {message.cause.severity}",
            f"Owner: {message.watched.sla.owner}",
            f"Dedup key: {message.dedup_key}",
        ):
            assert line in body
    assert f"What to do: docs/runbook.md#{message.cause.name}\n" in message.body
    looks = re.search(r"^Look with: (.*)$", message.body, re.MULTILINE)
    assert looks is not None
    named = re.findall(r"tidegate ([a-z-]+)", looks[1])
    assert named and set(named) <= COMMANDS


def test_no_two_messages_have_the_same_dedup_key() -> None:
    keys = [message.dedup_key for message in messages()]
    assert len(set(keys)) == len(keys)


def test_no_message_holds_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    remember_secret("open-sesame")
    monkeypatch.setenv("TIDEGATE_SOURCE_URL", "postgresql://reader:open-sesame@source/orders")
    monkeypatch.setenv("TIDEGATE_ALERTS_URL", "https://hooks.example/open-sesame")
    assert "open-sesame" not in json.dumps([(each.subject, each.body, each.body_resolved) for each in messages()])


@pytest.mark.parametrize(
    ("duration", "words"),
    [
        (timedelta(hours=26), "1 day 2 hours"),
        (timedelta(seconds=90), "1 minute 30 seconds"),
        (timedelta(minutes=1), "1 minute"),
        (timedelta(milliseconds=500), "0.5 seconds"),
    ],
)
def test_a_duration_is_spoken(duration: timedelta, words: str) -> None:
    assert spoken(duration) == words
