"""Window: one explicit window of any pipeline; the flow `backfill` starts one for each that it is asked for."""

from datetime import datetime
from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.nightly import GRAPH
from tasks.pipeline import finished
from tasks.recovery.backfill.one_window import load_window
from tasks.report import RunReport
from tasks.window import Window


@flow(name="window")
def window(
    pipeline: str,
    start: datetime,
    end: datetime,
    backfill: str | None = None,
    jobs: Annotated[int, Field(ge=1)] = 1,
) -> RunReport:
    """Load `[start, end)`, UTC if naive, for the backfill of that id; one of `jobs` that share the rate of an API."""
    return finished(load_window(GRAPH.named(pipeline), Window.parse(start, end), jobs))
