"""Flights: rows changed in the operations database, upserted into `fct_flights`."""

from datetime import datetime, timedelta

import pandas as pd
import pandera.pandas as pa
from prefect import flow

from tasks.extract.table import TableExtract
from tasks.load.upsert import Upsert
from tasks.partitioned import Partitioned
from tasks.pipeline import DependsOn, Overrides, Pipeline, Sla, finished, run_pipeline
from tasks.report import RunReport
from tasks.transform.contract import UtcTimestamp
from tasks.transform.references import References


class FlightSchema(pa.DataFrameModel):
    """One flight, as it was last heard of."""

    flight_id: str
    carrier: str = pa.Field(str_length=2)
    flight: int = pa.Field(gt=0)
    tailnum: str = pa.Field(nullable=True)
    origin: str = pa.Field(str_length=3)
    dest: str = pa.Field(str_length=3)
    sched_dep_at: UtcTimestamp
    dep_at: UtcTimestamp = pa.Field(nullable=True)
    dep_local: str = pa.Field(nullable=True, str_matches=r"^([01]\d|2[0-3]):[0-5]\d$")
    arr_local: str = pa.Field(nullable=True, str_matches=r"^([01]\d|2[0-3]):[0-5]\d$")
    dep_delay: float = pa.Field(nullable=True, ge=-120, le=3_000)  # minutes
    arr_delay: float = pa.Field(nullable=True)  # minutes
    air_time: float = pa.Field(nullable=True, gt=0)  # minutes
    distance: int = pa.Field(gt=0)  # miles
    cancelled: bool
    updated_at: UtcTimestamp


def transform(raw: pd.DataFrame) -> pd.DataFrame:
    """Add the actual departure as an instant, and the local times as people read them."""
    return raw.assign(
        dep_at=raw["sched_dep_at"] + pd.to_timedelta(raw["dep_delay"], unit="m"),
        dep_local=clock_text(raw["dep_time"]),
        arr_local=clock_text(raw["arr_time"]),
        cancelled=raw["dep_time"].isna(),
    )


def clock_text(hhmm: pd.Series) -> pd.Series:
    """Numbers such as 517 and 2400 as `05:17` and `00:00`."""
    return hhmm.replace(2400, 0).astype("string[pyarrow]").str.zfill(4).str.slice_replace(2, 2, ":")


PIPELINE = Pipeline(
    name="flights",
    extract=TableExtract(
        "operations", "flights", cursor="updated_at", lookback=timedelta(hours=2), clock="replay_now()"
    ),
    transform=transform,
    schema=FlightSchema,
    references=[
        References("dest", "dim_airports.faa", current=True),
        References("tailnum", "dim_planes.tailnum", current=True, on_missing="warn"),
    ],
    load=Upsert(
        "warehouse",
        "fct_flights",
        key=["flight_id"],
        track=Partitioned("sched_dep_at", "day", "America/New_York"),
    ),
    sla=Sla(max_runtime=timedelta(hours=2), max_freshness=timedelta(hours=26), max_error_rate=0.05),
    # Both lists are loaded once a night, and flights every hour.
    depends_on=[DependsOn("airports", max_age=timedelta(hours=26)), DependsOn("planes", max_age=timedelta(hours=26))],
)


@flow(name="flights")
def flights(
    start: datetime | None = None,
    end: datetime | None = None,
    full_refresh: bool = False,
    overrides: Overrides | None = None,
) -> RunReport:
    """Sync what changed since the watermark, replay `[start, end)` of `updated_at`, or make all of it equal anew."""
    return finished(run_pipeline(PIPELINE, start, end, full_refresh=full_refresh, overrides=overrides))
