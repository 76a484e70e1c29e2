"""Weather: hourly observations from the weather API, appended to `fct_weather`."""

from datetime import datetime, timedelta

import pandas as pd
import pandera.pandas as pa
from prefect import flow

from tasks.extract.api import ApiClock, ApiExtract
from tasks.extract.http.pages.paginators import NextUrl
from tasks.load.append import Append
from tasks.partitioned import Partitioned
from tasks.pipeline import Overrides, Pipeline, Sla, run_pipeline
from tasks.report import RunReport
from tasks.transform.contract import UtcTimestamp


class WeatherSchema(pa.DataFrameModel):
    """One hour at one airport. The local year to hour are left out: on 2013-11-03 they repeat, `time_hour` does not."""

    origin: str = pa.Field(str_length=3)
    time_hour: UtcTimestamp
    temp: float = pa.Field(nullable=True, ge=-80, le=140)  # °F
    dewp: float = pa.Field(nullable=True, ge=-80, le=140)  # °F
    humid: float = pa.Field(nullable=True, ge=0, le=100)  # %
    wind_dir: int = pa.Field(nullable=True, ge=0, le=360)  # degrees
    wind_speed: float = pa.Field(nullable=True, ge=0, le=250)  # mph; the record on Earth is 253
    wind_gust: float = pa.Field(nullable=True, ge=0, le=250)  # mph
    precip: float = pa.Field(ge=0)  # inches
    pressure: float = pa.Field(nullable=True, ge=850, le=1_100)  # millibars
    visib: float = pa.Field(ge=0)  # miles


def transform(raw: pd.DataFrame) -> pd.DataFrame:
    """Read the hour, which JSON carries as text, as an instant in UTC."""
    return raw.assign(time_hour=pd.to_datetime(raw["time_hour"], utc=True))


PIPELINE = Pipeline(
    name="weather",
    extract=ApiExtract(
        "weather_api",
        "/weather/weather.json",
        records="rows",
        paginator=NextUrl("next_url"),
        params={"_shape": "objects", "_size": "max", "_nocount": "1"},
        cursor="time_hour",
        start_param="time_hour__gte",
        end_param="time_hour__lt",
        lookback=timedelta(hours=3),
        clock=ApiClock(path="/weather/clock.json?_shape=objects", field="rows.0.now"),
    ),
    transform=transform,
    schema=WeatherSchema,
    load=Append(
        "warehouse",
        "fct_weather",
        key=["origin", "time_hour"],
        track=Partitioned("time_hour", "day", "America/New_York"),
    ),
    sla=Sla(max_runtime=timedelta(hours=1), max_freshness=timedelta(hours=26)),
)


@flow(name="weather")
def weather(
    start: datetime | None = None,
    end: datetime | None = None,
    full_refresh: bool = False,
    overrides: Overrides | None = None,
) -> RunReport:
    """Append the hours since the watermark, those in `[start, end)`, or all there are; no hour is ever deleted."""
    return run_pipeline(PIPELINE, start, end, full_refresh=full_refresh, overrides=overrides)
