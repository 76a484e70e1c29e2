"""Nightly: every pipeline of this folder once, each after those that it depends on, several at once."""

from typing import Annotated

from prefect import Flow, flow
from pydantic import Field

from flows import airlines, airports, bookings, daily_delays, flights, planes, weather
from tasks.graph import Graph
from tasks.graph_run import GraphReport, run_graph
from tasks.pipeline import Pipeline
from tasks.report import RunReport

MEMBERS: tuple[tuple[Pipeline, Flow[..., RunReport]], ...] = (
    (airlines.PIPELINE, airlines.airlines),
    (airports.PIPELINE, airports.airports),
    (bookings.PIPELINE, bookings.bookings),
    (daily_delays.PIPELINE, daily_delays.daily_delays),
    (flights.PIPELINE, flights.flights),
    (planes.PIPELINE, planes.planes),
    (weather.PIPELINE, weather.weather),
)

GRAPH = Graph([pipeline for pipeline, _ in MEMBERS])
FLOWS = {pipeline.name: its_flow for pipeline, its_flow in MEMBERS}


# A database has 15 connections for this process, and a pipeline takes up to three of them.
AtOnce = Annotated[int, Field(ge=1, le=5)]


@flow(name="nightly")
def nightly(at_once: AtOnce = 4) -> GraphReport:
    """Run every pipeline as a subflow, at most `at_once` at a time, and fail in the end if one of them has."""
    return run_graph("nightly", GRAPH, lambda pipeline: FLOWS[pipeline.name](), at_once=at_once)
