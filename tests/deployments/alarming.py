"""Flows with which goes wrong what their parameters say, for the tests of alerts, and their promises of seconds."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Literal

import pandas as pd
from prefect import Flow, flow

from tasks.extract.log import LogExtract
from tasks.extract.table import TableExtract
from tasks.load.upsert import Upsert
from tasks.observe.events import emit
from tasks.pipeline import Pipeline, Sla, finished, run_pipeline
from tasks.settings import home
from tasks.watch import watch_pipelines
from tests.orders import ORDERS

Behaviour = Literal["load", "fail", "die", "wait", "tell"]


def pipeline(name: str, sla: Sla) -> Pipeline:
    """Loads orders into a table of its own."""
    return replace(ORDERS, name=name, load=Upsert("target", f"fct_{name}", key=["id"]), sla=sla)


def alarming(pipeline: Pipeline, failing: Pipeline | None = None) -> "Flow[..., None]":
    """The flow of a pipeline that loads, fails, is killed or waits until it is released, or just tells events.

    Args:
        pipeline: whose; a run that waits or is killed does so amid its rows.
        failing: what fails in it, where that is not the pipeline itself.
    """
    moved = replace(failing or pipeline, extract=TableExtract("source", "moved_away", cursor="updated_at"))

    @flow(name=pipeline.name)
    def run(behaviour: Behaviour = "load", events: Sequence[str] = ()) -> None:
        if behaviour == "load":
            finished(run_pipeline(pipeline))
        elif behaviour == "fail":
            run_pipeline(moved)
        elif behaviour == "die":
            run_pipeline(replace(pipeline, transform=_die))
        elif behaviour == "wait":
            finished(run_pipeline(replace(pipeline, transform=_waiting(pipeline.name))))
        for event in events:
            words = f"{pipeline.name} has told {event}."
            emit(event, pipeline.name, {"run_id": None, "text": words, "look": f"tidegate status {pipeline.name}"})

    return run


def _die(raw: pd.DataFrame) -> pd.DataFrame:
    os.kill(os.getpid(), signal.SIGKILL)
    return raw


def _waiting(name: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def wait(raw: pd.DataFrame) -> pd.DataFrame:
        while not (home() / f"released-{name}").exists():
            time.sleep(0.1)
        return raw

    return wait


def own(name: str, sla: Sla) -> Pipeline:
    """Loads a table of its own from one of its own, by the clock that the source shows."""
    extract = TableExtract("source", f"orders_{name}", cursor="updated_at", clock="(SELECT shown FROM source_clock)")
    return replace(pipeline(name, sla), extract=extract)


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
        pipeline("overrun", Sla(max_runtime=timedelta(seconds=90))),
        pipeline("brisk", Sla(max_runtime=timedelta(seconds=40))),
        pipeline("tired", Sla()),
        pipeline("tardy", Sla(max_start_delay=timedelta(seconds=20))),
        pipeline("punctual", Sla(max_start_delay=timedelta(seconds=20))),
        pipeline("patient", Sla(max_start_delay=timedelta(minutes=20))),
        pipeline("quiet", Sla(max_runtime=timedelta(minutes=5), max_freshness=timedelta(minutes=2))),
        pipeline("never", Sla(max_freshness=_SOON)),
        pipeline("lost", Sla()),
        pipeline("alive", Sla()),
    )
}

OPERATING = pipeline("keeper", Sla())
"""A flow that the automations know by its name alone."""

MARKER = pipeline("marker", Sla(alert_interval=timedelta(milliseconds=1)))
"""Told of whenever a test wants to know that the server has dealt with everything before."""

_ALL_BAD = 1.0

MEASURED = {
    each.name: each
    for each in (
        own("stale", Sla(max_freshness=_DAY)),
        own("sprinkled", Sla(abort_error_rate=_ALL_BAD)),
        own("growing", Sla()),
        own("crowded", Sla(max_open_letters=3)),
        replace(pipeline("followed", Sla()), extract=LogExtract("source", "orders_followed", max_lag=128 << 20)),
    )
}
"""What goes wrong with them is in their rows, in their source's time and in its log."""

rated = alarming(PIPELINES["rated"])
prompt = alarming(PIPELINES["prompt"])
telling = alarming(PIPELINES["telling"])
telling_often = alarming(PIPELINES["telling_often"])
failing = alarming(PIPELINES["failing"])
dying = alarming(PIPELINES["dying"])
overrun = alarming(PIPELINES["overrun"])
brisk = alarming(PIPELINES["brisk"])
tired = alarming(PIPELINES["tired"])
tardy = alarming(PIPELINES["tardy"])
punctual = alarming(PIPELINES["punctual"])
patient = alarming(PIPELINES["patient"])
quiet = alarming(PIPELINES["quiet"])
never = alarming(PIPELINES["never"])
lost = alarming(PIPELINES["lost"])
alive = alarming(PIPELINES["alive"])
keeper = alarming(OPERATING, failing=PIPELINES["failing"])
stale = alarming(MEASURED["stale"])
sprinkled = alarming(MEASURED["sprinkled"])
growing = alarming(MEASURED["growing"])
crowded = alarming(MEASURED["crowded"])
followed = alarming(MEASURED["followed"])


@flow(name="watching")
def watching() -> None:
    """The flow `watch`, of the pipelines above."""
    watch_pipelines("watching", list(MEASURED.values()))
