"""Airports: the whole list, made equal in `dim_airports` on every run."""

from datetime import datetime, timedelta

import pandera.pandas as pa
from prefect import flow

from tasks.extract.table import TableExtract
from tasks.load.replace import Replace
from tasks.pipeline import Overrides, Pipeline, Sla, run_pipeline
from tasks.report import RunReport


class AirportSchema(pa.DataFrameModel):
    """One airport."""

    faa: str = pa.Field(str_length=3)
    name: str
    lat: float = pa.Field(ge=-90, le=90)  # degrees
    lon: float = pa.Field(ge=-180, le=180)  # degrees
    alt: int = pa.Field(ge=-1_500, le=15_000)  # feet
    tz: int = pa.Field(ge=-12, le=14)  # hours from UTC in winter
    dst: str
    tzone: str = pa.Field(nullable=True)  # IANA name; the source lacks three


PIPELINE = Pipeline(
    name="airports",
    extract=TableExtract("operations", "airports"),
    schema=AirportSchema,
    load=Replace("warehouse", "dim_airports", key=["faa"]),
    sla=Sla(max_runtime=timedelta(minutes=10), max_freshness=timedelta(hours=26)),
)


@flow(name="airports")
def airports(
    start: datetime | None = None,
    end: datetime | None = None,
    full_refresh: bool = False,
    overrides: Overrides | None = None,
) -> RunReport:
    """Make `dim_airports` what the source is now; a source without a cursor refuses `start` and `end`."""
    return run_pipeline(PIPELINE, start, end, full_refresh=full_refresh, overrides=overrides)
