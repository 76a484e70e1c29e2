"""An alert end to end: a real run by a real worker, a real server that notices, and what arrives over HTTP."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine

from deployments.prefect_server import PrefectServer, Worker
from tasks.settings import url_variable
from tests.deployments import alerts
from tests.deployments.alarming import PIPELINES
from tests.deployments.alerts import Sink
from tests.orders import order, put

pytestmark = pytest.mark.prefect

STATED = 5.0
"""Seconds after the end of a run in which its error rate is told."""

PATIENCE = 60.0
"""Seconds in which it is on a machine that does much else."""


@pytest.fixture
def source(prefect_server: PrefectServer) -> Iterator[Engine]:
    engine = create_engine(alerts.databases(prefect_server)[url_variable("source")])
    yield engine
    engine.dispose()


@pytest.fixture
def sink(prefect_server: PrefectServer) -> Iterator[Sink]:
    """Where the alerts of the server go to, while a test lasts."""
    with Sink() as receiving:
        alerts.send_to(prefect_server, receiving)
        yield receiving
        alerts.clear(prefect_server)


def test_an_error_rate_above_the_limit_is_told_and_resolved_and_one_just_below_is_not(
    prefect_server: PrefectServer, worker: Worker, source: Engine, sink: Sink, tmp_path: Path
) -> None:
    alerts.deploy(prefect_server, tmp_path, ["rated"])
    assert "create tidegate: rated: error-rate" in alerts.apply(prefect_server, [PIPELINES["rated"]])
    # 4.9 % of a thousand, and then one of ten.
    put(source, [order(number, -1.0 if number < 49 else 1.0, day=number / 1000) for number in range(1000)])
    alerts.start(prefect_server, "rated").completed(60)
    put(source, [order(number, -1.0 if number == 1000 else 1.0, day=2) for number in range(1000, 1010)])
    run = alerts.start(prefect_server, "rated").completed(60)
    alert = sink.wait("[warning] rated: error-rate", PATIENCE)
    print(f"{alert.after(alerts.ended(run)):.1f} s after the end of the run:\n{alert.subject}\n{alert.body}")
    assert "1 of 10 rows were rejected, 10 %, more than the 5 % promised." in alert.body
    assert "Look with: tidegate dead-letters list rated --run " in alert.body
    put(source, [order(number, day=3) for number in range(1010, 1020)])
    alerts.start(prefect_server, "rated").completed(60)
    resolved = sink.wait("[resolved] rated: error-rate", PATIENCE)
    # Nothing else, and nothing of the first.
    assert sink.alerts == [alert, resolved]


@pytest.mark.slow
def test_an_error_rate_is_told_within_the_stated_time(
    prefect_server: PrefectServer, worker: Worker, source: Engine, sink: Sink, tmp_path: Path
) -> None:
    alerts.deploy(prefect_server, tmp_path, ["prompt"])
    alerts.apply(prefect_server, [PIPELINES["prompt"]])
    # Whatever else the source holds.
    put(source, [order(number, -1.0, day=9) for number in range(2_000, 2_200)])
    run = alerts.start(prefect_server, "prompt").completed(60)
    alert = sink.wait("[warning] prompt: error-rate", PATIENCE)
    print(f"{alert.after(alerts.ended(run)):.1f} s after the end of the run")
    assert alert.after(alerts.ended(run)) <= STATED


@pytest.mark.slow
def test_a_sink_that_is_away_for_a_moment_is_tried_again_and_one_that_stays_away_misses_the_alert(
    prefect_server: PrefectServer, worker: Worker, source: Engine, sink: Sink, tmp_path: Path
) -> None:
    put(source, [order(1)])
    alerts.deploy(prefect_server, tmp_path, ["failing", "dying"])
    alerts.apply(prefect_server, [PIPELINES["failing"], PIPELINES["dying"]])
    sink.refusals = 1
    alerts.start(prefect_server, "failing", behaviour="fail").wait(60)
    told = sink.wait("[critical] failing: failed", STATED)
    assert [alert.body for alert in sink.refused] == [told.body]
    # It is tried four times in all, and then no more.
    sink.refusals = 1 + 4
    alerts.start(prefect_server, "dying", behaviour="die").wait(60)
    alerts.start(prefect_server, "failing").completed(60)
    sink.wait("[resolved] failing: failed", STATED)
    print(f"{len(sink.refused) - 1} attempts at a sink that stays away")
    assert len(sink.refused) == 1 + 4
    assert sink.of("dying") == []
