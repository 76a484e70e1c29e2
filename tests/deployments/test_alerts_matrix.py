"""Each cause of an alert: raised in time, not raised just below, resolved, no storm, and all of it over a restart.

What goes wrong is in `tests.deployments.story`; each test here reads one of its chapters. What runs and `watch` measure
is told by a run that emits nothing but that; from rows, clocks and logs it comes in `test_alerts_measured`.
"""

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from deployments.alerts.causes import CAUSES
from deployments.alerts.heartbeat import LOST_AFTER
from deployments.prefect_server import PrefectServer
from deployments.processes import leftovers
from tasks.observe import causes
from tests.deployments import alerts, test_alerts_measured
from tests.deployments.alarming import PIPELINES
from tests.deployments.alerts import Sink
from tests.deployments.looking import Keyboard
from tests.deployments.story import MEASURED, Story, entered

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(900)]

AT_ONCE = 20
"""Seconds in which is told what is told at once; one run alone is in 5 (`test_alerts`), and here seven end together."""

SHOWN = {
    "[critical] tidegate: workers": (1, r"fail  workers of tidegate: none is alive"),
    "[warning] tardy: late-start": (1, r"warn  work queue closed of tidegate: it is paused"),
    "[warning] overrun: runtime": (0, r" running "),
    "[critical] quiet: silence": (0, r"quiet .* breached \d+[sm] of 2m"),
    "[critical] never: silence": (0, r"never .* unknown of 10s"),
    "[critical] failing: failed": (0, r"failed(.|\n)*'moved_away'"),
    "[critical] dying: failed": (0, r" running "),
    "[critical] keeper: failed": (0, r"failing .* failed \d+s ago"),
    "[critical] lost: zombie": (0, r" running "),
}
"""How the command in each alert ends, and what it shows; `doctor` says 1 where something fails."""

_SETTINGS = {
    "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_FOREMAN_LOOP_SECONDS": "2",
}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    home = Path(tempfile.mkdtemp(prefix="tidegate-alerts-"))
    with Sink() as sink, PrefectServer(home, _SETTINGS) as server:
        keyboard = Keyboard(server, tmp_path_factory.mktemp("flows"))
        keyboard.declare("PIPELINES", PIPELINES)
        story = Story(server, sink, keyboard, tmp_path_factory.mktemp("deployed"))
        story.tell()
        yield story
    assert leftovers(home) == []
    shutil.rmtree(home)


def test_what_a_run_measures_is_told_at_once_and_once(story: Story) -> None:
    for one in MEASURED:
        severity = "critical" if one is causes.SLOT_LAG else "warning"
        alert = story.sink.wait(f"[{severity}] telling: {one.cause}", 5)
        story.delay(alert, "the end of telling", AT_ONCE, least=-5)
        assert alert.body.startswith(f"telling has told {one.breached}.\n\nLook with: tidegate status telling\n")
        assert story.sink.subjects.count(alert.subject) == 1


def test_it_is_resolved_over_a_restart_of_the_server(story: Story) -> None:
    for one in MEASURED:
        resolved = story.sink.wait(f"[resolved] telling: {one.cause}", AT_ONCE)
        assert resolved.body.startswith(f"telling has told {one.kept}.\n")
        assert f"Dedup key: tidegate/telling/{one.cause}" in resolved.body
        assert story.sink.subjects.count(resolved.subject) == 1


def test_a_breach_that_comes_again_within_the_interval_is_not_told_again(story: Story) -> None:
    """Not even where it was resolved between."""
    for one in MEASURED:
        assert len(alerts.told(story.server, "telling", one.breached)) == 3
        told = [
            alert.subject.split("] ")[0]
            for alert in story.sink.of("telling")
            if alert.subject.endswith(f": {one.cause}")
        ]
        assert told == ["[critical" if one is causes.SLOT_LAG else "[warning", "[resolved"]


def test_the_same_is_told_again_once_the_interval_has_passed(story: Story) -> None:
    subject = "[warning] telling_often: error-rate"
    first, second = story.sink.wait(subject, AT_ONCE), story.sink.wait(subject, AT_ONCE, number=2)
    assert story.sink.subjects.count(subject) == 2
    assert second.after(first.at) >= 10
    assert "What to do: https://wiki.example/alerts#error-rate" in first.body


def test_a_failed_run_is_told_with_its_reason_and_resolved_by_one_that_completes(story: Story) -> None:
    alert = story.sink.wait("[critical] failing: failed", 5)
    story.delay(alert, "the end of failing", AT_ONCE)
    assert "failed: " in alert.body and "moved_away" in alert.body
    assert "Look with: tidegate runs failing --failed\n" in alert.body
    assert f"Flow run: {story.server.ui_url}/runs/flow-run/" in alert.body
    resolved = story.sink.wait("[resolved] failing: failed", AT_ONCE)
    assert story.sink.of("failing") == [alert, resolved]


def test_a_killed_run_is_told_and_resolved_by_one_that_completes(story: Story) -> None:
    alert = story.sink.wait("[critical] dying: failed", 5)
    story.delay(alert, "the end of dying", AT_ONCE)
    assert " crashed: " in alert.body
    assert "Look with: tidegate runs dying\n" in alert.body
    resolved = story.sink.wait("[resolved] dying: failed", AT_ONCE)
    assert story.sink.of("dying") == [alert, resolved]


def test_a_flow_without_a_pipeline_is_told_of_and_resolved_too(story: Story) -> None:
    alert = story.sink.wait("[critical] keeper: failed", 5)
    story.delay(alert, "the end of keeper", AT_ONCE)
    assert "\nFlow: keeper\n" in alert.body
    resolved = story.sink.wait("[resolved] keeper: failed", AT_ONCE)
    assert story.sink.of("keeper") == [alert, resolved]


def test_a_run_that_takes_too_long_is_told_while_it_runs(story: Story) -> None:
    alert = story.sink.wait("[warning] overrun: runtime", 5)
    # Nothing is told while the server is away.
    assert alert.after(story.moments["the limit of the runtime"]) > 0
    late = max(("the limit of the runtime", "the server's return"), key=story.moments.__getitem__)
    story.delay(alert, late, 20, least=-60)
    assert "has been running for more than the 1 minute 30 seconds promised, and still is." in alert.body
    assert alert.at < alerts.ended(story.runs["overrun"])
    resolved = story.sink.wait("[resolved] overrun: runtime", AT_ONCE)
    assert story.sink.of("overrun") == [alert, resolved]


def test_a_run_that_is_not_taken_up_is_told(story: Story) -> None:
    alert = story.sink.wait("[warning] tardy: late-start", 5)
    story.delay(alert, "the limit of the start", 20)
    assert "is late: 20 seconds after its time no worker has taken it up." in alert.body
    resolved = story.sink.wait("[resolved] tardy: late-start", AT_ONCE)
    assert story.sink.of("tardy") == [alert, resolved]


def test_a_pipeline_that_covers_nothing_is_told(story: Story) -> None:
    """From its second run on, which covered something while there was still time after the first."""
    alert = story.sink.wait("[critical] quiet: silence", 5)
    story.delay(alert, "the end of quiet", 120 + 20, least=110)
    assert "No run of quiet has covered anything for 2 minutes, not since 20" in alert.body
    # Its runs take less than is promised, and have nothing else to tell.
    resolved = story.sink.wait("[resolved] quiet: silence", AT_ONCE)
    assert story.sink.of("quiet") == [alert, resolved]


def test_so_is_one_that_has_never_run_until_it_does(story: Story) -> None:
    alert = story.sink.wait("[critical] never: silence", 5)
    story.delay(alert, "the deploy", 10 + 20)
    assert "for 10 seconds, and none before as far as the server knows." in alert.body
    resolved = story.sink.wait("[resolved] never: silence", AT_ONCE)
    assert resolved.body.startswith("A run has covered never until ")
    assert story.sink.of("never") == [alert, resolved]


def test_a_run_whose_machine_is_gone_is_told_and_marked_crashed_and_makes_room_for_the_next(story: Story) -> None:
    alert = story.sink.wait("[critical] lost: zombie", 5)
    story.delay(alert, "the last heartbeat", LOST_AFTER.total_seconds() + 20, least=LOST_AFTER.total_seconds())
    gone = alert.body.split("/runs/flow-run/")[1][:36]
    assert "Look with: tidegate runs lost\n" in alert.body
    state = story.server.client.read_flow_run(UUID(gone)).state
    assert state is not None and state.name == "Crashed"
    # Its state is no failure of its own, and there is one run at a time: the next has completed.
    resolved = story.sink.wait("[resolved] lost: zombie", AT_ONCE)
    assert story.sink.of("lost") == [alert, resolved]


@pytest.mark.parametrize("name", ["patient", "punctual", "alive", "brisk", "tired"])
def test_what_keeps_its_promise_is_not_told_of(story: Story, name: str) -> None:
    """What had broken the same promise a little later was told; so was all that came before the marker."""
    assert story.sink.of(name) == []
    assert story.sink.subjects[-1] == "[warning] marker: error-rate"


def test_one_took_most_of_the_time_that_it_had(story: Story) -> None:
    run = story.runs["brisk"]
    assert 30 <= (alerts.ended(run) - entered(run, "Running")).total_seconds() < 40


def test_one_was_taken_up_when_most_of_the_time_for_that_had_passed(story: Story) -> None:
    run = story.runs["punctual"]
    assert 12 <= (entered(run, "Pending") - entered(run, "Late")).total_seconds() < 20


def test_one_was_cancelled_by_a_person(story: Story) -> None:
    assert story.runs["tired"].state == "Cancelled"


def test_a_run_that_lives_longer_than_a_lost_one_is_believed_to_live_is_none(story: Story) -> None:
    began = entered(story.runs["alive"], "Running")
    assert story.moments["the last heartbeat of what is alive"] - began > 2 / 3 * LOST_AFTER
    assert alerts.ended(story.runs["alive"]) - began > LOST_AFTER


def test_no_worker_is_told_over_a_restart_of_the_server_and_resolved_over_another(story: Story) -> None:
    """Neither a worker that another one follows is missed, nor one of two."""
    alert = story.sink.wait("[critical] tidegate: workers", 5)
    story.delay(alert, "the worker's end", 60)
    assert "No worker of the work pool tidegate is alive, so nothing runs." in alert.body
    resolved = story.sink.wait("[resolved] tidegate: workers", AT_ONCE)
    assert story.sink.of("tidegate") == [alert, resolved]


@pytest.mark.parametrize("subject", SHOWN)
def test_the_command_in_an_alert_shows_the_cause(story: Story, subject: str) -> None:
    status, shown = SHOWN[subject]
    seen = story.seen[subject]
    assert seen.status == status, seen.output
    assert re.search(shown, seen.output), seen.output


def test_the_command_of_every_cause_is_tried() -> None:
    measured = [test_alerts_measured.A_BAD_ROW, *(case.alert for case in test_alerts_measured.CASES)]
    assert {subject.split(": ")[1] for subject in [*SHOWN, *measured]} == {cause.name for cause in CAUSES}
