"""Airports: the directory compared with its last snapshot; `dim_airports` keeps every version of an airport."""

from datetime import timedelta

import pandera.pandas as pa
from prefect import flow

from tasks.extract.snapshot import SnapshotDiff
from tasks.load.scd2 import Scd2
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
    extract=SnapshotDiff("operations", "airports", key=["faa"], clock="replay_now()"),
    schema=AirportSchema,
    load=Scd2("warehouse", "dim_airports", key=["faa"]),
    sla=Sla(max_runtime=timedelta(minutes=10), max_freshness=timedelta(hours=26)),
)


@flow(name="airports")
def airports(full_refresh: bool = False, overrides: Overrides | None = None) -> RunReport:
    """Keep the versions that the directory has had since the last run, or compare it with nothing, as at first."""
    return run_pipeline(PIPELINE, full_refresh=full_refresh, overrides=overrides)
