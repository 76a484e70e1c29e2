"""Flows with which goes wrong what their parameters say, for the tests of alerts, and their promises of seconds."""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Literal

from prefect import Flow, flow

from tasks.errors import SourceUnavailable
from tasks.extract.log import LogExtract
from tasks.load.upsert import Upsert
from tasks.observe.events import emit
from tasks.pipeline import Pipeline, Sla, finished, run_pipeline
from tasks.settings import home
from tests.orders import ORDERS

Behaviour = Literal["load", "fail", "die", "wait", "tell"]


def pipeline(name: str, sla: Sla) -> Pipeline:
    """Loads orders into a table of its own."""
    return replace(ORDERS, name=name, load=Upsert("target", f"fct_{name}", key=["id"]), sla=sla)


def alarming(pipeline: Pipeline) -> "Flow[..., None]":
    """The flow of a pipeline that loads, fails, is killed, waits until it is released, or just tells events."""

    @flow(name=pipeline.name)
    def run(behaviour: Behaviour = "load", events: Sequence[str] = ()) -> None:
        if behaviour == "load":
            finished(run_pipeline(pipeline))
        elif behaviour == "fail":
            raise SourceUnavailable(f"{pipeline.name}: the source is being repaired.")
        elif behaviour == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif behaviour == "wait":
            while not (home() / f"released-{pipeline.name}").exists():
                time.sleep(0.1)
        for event in events:
            words = f"{pipeline.name} has told {event}."
            emit(event, pipeline.name, {"run_id": None, "text": words, "look": f"tidegate status {pipeline.name}"})

    return run


_SOON = timedelta(seconds=10)
"""Nothing that is missing is noticed sooner."""

_DAY = timedelta(days=1)

PIPELINES = {
    each.name: each
    for each in (
        pipeline("rated", Sla(abort_error_rate=1.0)),
        pipeline("prompt", Sla(abort_error_rate=1.0)),
        # Its events are told by a run; its log is never followed.
        replace(
            pipeline("telling", Sla(max_freshness=_DAY, owner="the night shift")),
            extract=LogExtract("source", "orders"),
        ),
        pipeline("telling_often", Sla(alert_interval=_SOON, runbook="https://wiki.example/alerts")),
        pipeline("failing", Sla()),
        pipeline("dying", Sla()),
        pipeline("overrun", Sla(max_runtime=timedelta(minutes=1))),
        pipeline("tardy", Sla(max_start_delay=timedelta(seconds=20))),
        pipeline("patient", Sla(max_start_delay=timedelta(minutes=20))),
        pipeline("quiet", Sla(max_runtime=timedelta(minutes=5), max_freshness=timedelta(minutes=2))),
        pipeline("never", Sla(max_freshness=_SOON)),
        pipeline("lost", Sla()),
        pipeline("alive", Sla()),
    )
}

OPERATING = pipeline("keeper", Sla())
"""A flow that the automations know by its name alone."""

rated = alarming(PIPELINES["rated"])
prompt = alarming(PIPELINES["prompt"])
telling = alarming(PIPELINES["telling"])
telling_often = alarming(PIPELINES["telling_often"])
failing = alarming(PIPELINES["failing"])
dying = alarming(PIPELINES["dying"])
overrun = alarming(PIPELINES["overrun"])
tardy = alarming(PIPELINES["tardy"])
patient = alarming(PIPELINES["patient"])
quiet = alarming(PIPELINES["quiet"])
lost = alarming(PIPELINES["lost"])
alive = alarming(PIPELINES["alive"])
keeper = alarming(OPERATING)
