"""What `mart_daily_delays` has to hold, computed by pandas straight from the package's files; see `expected.py`."""

from datetime import date, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pandas as pd
import pyarrow as pa

from tests.demo import expected

NEW_YORK = "America/New_York"
KEY = ["day", "carrier", "origin"]
DELAYED = 15  # minutes

_COLUMNS = {
    "day": pa.date32(), "carrier": pa.string(), "origin": pa.string(), "origin_name": pa.string(),
    "flights": pa.int64(), "cancelled": pa.int64(), "destinations": pa.int64(), "to_other_zones": pa.int64(),
    "mean_dep_delay": pa.float64(), "max_dep_delay": pa.float64(), "mean_arr_delay": pa.float64(),
    "max_arr_delay": pa.float64(), "delayed_share": pa.float64(), "mean_wind_speed": pa.float64(),
    "mean_visib": pa.float64(),
}  # fmt: skip


def daily_delays_at(clock: datetime) -> pd.DataFrame:
    """`mart_daily_delays` once everything before `clock` is loaded: without what `flights` and `weather` rejected."""
    flights = expected.fct_flights_at(clock)
    weather = expected.fct_weather_at(clock)[["origin", "time_hour", "wind_speed", "visib"]]
    zones = expected.airports().set_index("faa")["tz"]
    names = expected.airports().set_index("faa")["name"]
    scheduled = pd.to_datetime(flights["sched_dep_at"], utc=True)
    observed = flights.assign(
        day=local_days(flights["sched_dep_at"]),
        time_hour=scheduled.dt.floor("h").astype(weather["time_hour"].dtype),
        away=flights["dest"].map(zones) != flights["origin"].map(zones),
        departed=flights["dep_delay"].notna(),
        delayed=(flights["dep_delay"] > DELAYED).fillna(False),
    ).merge(weather, on=["origin", "time_hour"], how="left")
    assert len(observed) == len(flights), "an hour has one observation"
    groups = observed.groupby(KEY)
    mart = pd.DataFrame(
        {
            "flights": groups.size(),
            "cancelled": groups["cancelled"].sum(),
            "destinations": groups["dest"].nunique(),
            "to_other_zones": groups["away"].sum(),
            "mean_dep_delay": groups["dep_delay"].mean(),
            "max_dep_delay": groups["dep_delay"].max(),
            "mean_arr_delay": groups["arr_delay"].mean(),
            "max_arr_delay": groups["arr_delay"].max(),
            "delayed_share": groups["delayed"].sum() / groups["departed"].sum().replace(0, pd.NA),
            "mean_wind_speed": groups["wind_speed"].apply(_rounded_mean),
            "mean_visib": groups["visib"].apply(_rounded_mean),
        }
    ).reset_index()
    mart["origin_name"] = mart["origin"].map(names)
    return mart[list(_COLUMNS)].astype({name: pd.ArrowDtype(kind) for name, kind in _COLUMNS.items()})


def daily_delays_run(previous_clock: datetime | None, clock: datetime) -> dict[str, int]:
    """Terms of a run of `daily_delays` at `clock`, after one at `previous_clock` or, with None, as the first."""
    mart, terms = daily_delays_at(clock), expected.airlines_run(loaded=False)
    if previous_clock is None:
        return dict.fromkeys(terms, 0) | {"extracted": len(mart), "inserted": len(mart)}
    read = mart[mart["day"].isin(days_changed_between(previous_clock, clock))]
    before = daily_delays_at(previous_clock)
    known = read.merge(before[KEY], on=KEY)
    unchanged = known.merge(before, on=list(_COLUMNS))
    return dict.fromkeys(terms, 0) | {
        "extracted": len(read),
        "inserted": len(read) - len(known),
        "updated": len(known) - len(unchanged),
        "unchanged": len(unchanged),
    }


def days_changed_between(before: datetime, after: datetime) -> set[date]:
    """The days of New York of which a flight, or an hour of weather, was loaded or changed between two clocks."""
    flights = expected.fct_flights_at(after).merge(
        expected.fct_flights_at(before)[["flight_id", "updated_at"]], on=["flight_id", "updated_at"], how="left",
        indicator="known",
    )  # fmt: skip
    # An observation never changes: what is new lies behind the earlier clock.
    weather = expected.fct_weather_at(after).loc[lambda hours: hours["time_hour"] >= before]
    fresh = flights.loc[flights["known"] == "left_only", "sched_dep_at"]
    return {*local_days(fresh), *local_days(weather["time_hour"])}


def local_days(instants: pd.Series) -> pd.Series:
    """The dates that New York's calendars show at instants in UTC."""
    return pd.to_datetime(instants, utc=True).dt.tz_convert(NEW_YORK).dt.date


def _rounded_mean(values: pd.Series) -> Any:
    """To three digits, exactly: what a database computes of decimals."""
    # Of a double, the fifteen digits that are certain.
    exact = [Decimal(f"{value:.15g}") for value in values.dropna()]
    if not exact:
        return None
    return float((sum(exact, Decimal()) / len(exact)).quantize(Decimal("0.001"), ROUND_HALF_UP))
