"""Planes: the whole register, upserted into `dim_planes`; a plane that leaves the source stays until a full refresh."""

from datetime import datetime, timedelta

import pandera.pandas as pa
from prefect import flow

from tasks.extract.table import TableExtract
from tasks.load.upsert import Upsert
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
    extract=TableExtract("operations", "planes"),
    schema=PlaneSchema,
    load=Upsert("warehouse", "dim_planes", key=["tailnum"]),
    sla=Sla(max_runtime=timedelta(minutes=10), max_freshness=timedelta(hours=26)),
)


@flow(name="planes")
def planes(
    start: datetime | None = None,
    end: datetime | None = None,
    full_refresh: bool = False,
    overrides: Overrides | None = None,
) -> RunReport:
    """Upsert every plane in the register, and in a full refresh delete the others; `start` and `end` are refused."""
    return run_pipeline(PIPELINE, start, end, full_refresh=full_refresh, overrides=overrides)
