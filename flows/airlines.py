"""Airlines: the whole list, small and without a cursor, made equal in `dim_airlines` on every run."""

from datetime import datetime, timedelta

import pandera.pandas as pa
from prefect import flow

from tasks.extract.table import TableExtract
from tasks.load.replace import Replace
from tasks.pipeline import Overrides, Pipeline, Sla, run_pipeline
from tasks.report import RunReport


class AirlineSchema(pa.DataFrameModel):
    """One airline."""

    carrier: str = pa.Field(str_length=2)
    name: str


PIPELINE = Pipeline(
    name="airlines",
    extract=TableExtract("operations", "airlines"),
    schema=AirlineSchema,
    load=Replace("warehouse", "dim_airlines", key=["carrier"]),
    sla=Sla(max_runtime=timedelta(minutes=10), max_freshness=timedelta(hours=26)),
)


@flow(name="airlines")
def airlines(
    start: datetime | None = None,
    end: datetime | None = None,
    full_refresh: bool = False,
    overrides: Overrides | None = None,
) -> RunReport:
    """Make `dim_airlines` what the source is now; a source without a cursor refuses `start` and `end`."""
    return run_pipeline(PIPELINE, start, end, full_refresh=full_refresh, overrides=overrides)
