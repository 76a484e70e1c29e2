"""Planes: the register compared with its last snapshot; `dim_planes` keeps every version of a plane."""

from datetime import timedelta

import pandera.pandas as pa
from prefect import flow

from tasks.extract.snapshot import SnapshotDiff
from tasks.load.scd2 import Scd2
from tasks.pipeline import Overrides, Pipeline, Sla, run_pipeline
from tasks.report import RunReport


class PlaneSchema(pa.DataFrameModel):
    """One plane."""

    tailnum: str = pa.Field(str_length={"min_value": 5, "max_value": 6})
    # No airliner built before 1960 still flies passengers: an earlier year is the register's mistake.
    year: int = pa.Field(nullable=True, ge=1960)
    type: str
    manufacturer: str
    model: str
    engines: int = pa.Field(ge=1, le=4)
    seats: int = pa.Field(gt=0)
    speed: int = pa.Field(nullable=True, gt=0)  # cruising, mph
    engine: str


PIPELINE = Pipeline(
    name="planes",
    extract=SnapshotDiff("operations", "planes", key=["tailnum"], clock="replay_now()"),
    schema=PlaneSchema,
    load=Scd2("warehouse", "dim_planes", key=["tailnum"]),
    sla=Sla(max_runtime=timedelta(minutes=10), max_freshness=timedelta(hours=26)),
)


@flow(name="planes")
def planes(full_refresh: bool = False, overrides: Overrides | None = None) -> RunReport:
    """Keep the versions that the register has had since the last run, or compare it with nothing, as at first."""
    return run_pipeline(PIPELINE, full_refresh=full_refresh, overrides=overrides)
