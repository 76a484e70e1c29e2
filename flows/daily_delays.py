"""Daily delays: flights, weather and airports by day, carrier and origin, kept in `mart_daily_delays`."""

from datetime import date, datetime, timedelta

import pandera.pandas as pa
from prefect import flow

from flows import airports, flights, weather
from tasks.extract.sql import SqlTransform
from tasks.load.partition import ReplacePartition
from tasks.partitioned import Partitioned
from tasks.pipeline import Audit, Overrides, Pipeline, Sla, finished, run_pipeline
from tasks.report import RunReport

NEW_YORK = "America/New_York"


class DailyDelaySchema(pa.DataFrameModel):
    """What a carrier's flights from one airport were like on a day of New York's."""

    day: date
    carrier: str = pa.Field(str_length=2)
    origin: str = pa.Field(str_length=3)
    origin_name: str = pa.Field(nullable=True)
    flights: int = pa.Field(gt=0)
    cancelled: int = pa.Field(ge=0)
    destinations: int = pa.Field(gt=0)
    to_other_zones: int = pa.Field(ge=0)
    mean_dep_delay: float = pa.Field(nullable=True, ge=-120, le=3_000)  # minutes
    max_dep_delay: float = pa.Field(nullable=True, ge=-120, le=3_000)  # minutes
    mean_arr_delay: float = pa.Field(nullable=True)  # minutes
    max_arr_delay: float = pa.Field(nullable=True)  # minutes
    delayed_share: float = pa.Field(nullable=True, ge=0, le=1)  # of those that departed, more than 15 minutes late
    mean_wind_speed: float = pa.Field(nullable=True, ge=0, le=250)  # mph
    mean_visib: float = pa.Field(nullable=True, ge=0)  # miles


PIPELINE = Pipeline(
    name="daily_delays",
    extract=SqlTransform(
        "warehouse",
        "flows/sql/daily_delays.sql",
        upstreams=[flights.PIPELINE.load, weather.PIPELINE.load, airports.PIPELINE.load],
        by=Partitioned("day", "day", NEW_YORK),
    ),
    schema=DailyDelaySchema,
    load=ReplacePartition(
        "warehouse", "mart_daily_delays", ["day", "carrier", "origin"], partition="day", grain="day", zone=NEW_YORK
    ),
    audits=[Audit("no flight is counted twice", file="flows/sql/daily_delays_count.sql")],
    sla=Sla(max_runtime=timedelta(minutes=30), max_freshness=timedelta(hours=26)),
    # What comes later than this run reads, the next one reads.
    depends_on=["airports", "flights", "weather"],
)


@flow(name="daily_delays")
def daily_delays(
    start: datetime | None = None,
    end: datetime | None = None,
    full_refresh: bool = False,
    overrides: Overrides | None = None,
) -> RunReport:
    """Re-aggregate the days that changed upstream, every day that `[start, end)` touches, or all of them."""
    return finished(run_pipeline(PIPELINE, start, end, full_refresh=full_refresh, overrides=overrides))
