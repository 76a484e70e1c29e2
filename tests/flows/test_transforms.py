"""The transforms and contracts of `flows/`, on the dirt they were written for and on the whole year."""

import json
from types import ModuleType
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from deployments.demo.replay import END
from flows import airlines, airports, flights, planes, weather
from tasks.transform.contract import Contract, Judged
from tests.demo import expected


def flight(**values: object) -> dict[str, object]:
    """A raw flight that departed two minutes late and has landed, apart from `values`."""
    return {
        "flight_id": "2013-01-01-UA1545-EWR",
        "carrier": "UA",
        "flight": 1545,
        "tailnum": "N14228",
        "origin": "EWR",
        "dest": "IAH",
        "sched_dep_at": pd.Timestamp("2013-01-01T10:15Z"),
        "dep_time": 517,
        "arr_time": 830,
        "dep_delay": 2.0,
        "arr_delay": 11.0,
        "air_time": 227.0,
        "distance": 1400,
        "updated_at": pd.Timestamp("2013-01-01T14:24Z"),
    } | values


def flights_frame(*rows: dict[str, object]) -> pd.DataFrame:
    """Raw flights as a batch carries them; the passports are neither contiguous nor sorted."""
    types = expected.flights_at(END).dtypes.to_dict()
    return pd.DataFrame(list(rows), index=[7 * place % 5 + 100 for place in range(len(rows))]).astype(types)


def judged(module: ModuleType, raw: pd.DataFrame) -> Judged:
    """`raw` through the transform and contract of a flow's pipeline."""
    pipeline = module.PIPELINE
    contract = Contract(
        pipeline.name, pipeline.schema, pipeline.transform, key=pipeline.load.key, cursor=pipeline.extract.cursor
    )
    return contract.judge(pa.Table.from_pandas(raw, preserve_index=False), 0)


def as_frame(rows: pa.Table) -> pd.DataFrame:
    """Good rows in Arrow types."""
    frame: pd.DataFrame = rows.to_pandas(types_mapper=pd.ArrowDtype)
    return frame


def test_a_departure_is_its_schedule_plus_its_delay() -> None:
    early, late = flight(dep_delay=-15.0), flight(dep_delay=1301.0)
    departures = flights.transform(flights_frame(early, late))["dep_at"]
    assert departures.tolist() == [pd.Timestamp("2013-01-01T10:00Z"), pd.Timestamp("2013-01-02T07:56Z")]


@pytest.mark.parametrize(
    ("number", "people_read"), [(517, "05:17"), (2400, "00:00"), (5, "00:05"), (0, "00:00"), (2359, "23:59")]
)
def test_local_times_read_as_people_read_them(number: int, people_read: str) -> None:
    row = flights.transform(flights_frame(flight(dep_time=number, arr_time=number))).iloc[0]
    assert (row["dep_local"], row["arr_local"]) == (people_read, people_read)


def test_a_cancelled_flight_has_no_departure_and_a_departed_one_is_not_cancelled() -> None:
    nothing = dict.fromkeys(("dep_time", "arr_time", "dep_delay", "arr_delay", "air_time"))
    out = flights.transform(flights_frame(flight(**nothing), flight()))
    assert out["cancelled"].tolist() == [True, False]
    assert out[["dep_at", "dep_local", "arr_local"]].isna().all(axis=1).tolist() == [True, False]


def test_a_flight_in_the_air_has_no_arrival_yet() -> None:
    row = flights.transform(flights_frame(flight(arr_time=None, arr_delay=None, air_time=None))).iloc[0]
    assert row["dep_local"] == "05:17"
    assert pd.isna(row["arr_local"])
    assert not row["cancelled"]


@pytest.mark.parametrize(
    "batch",
    [[flight(), flight(), flight()], [flight(dep_time=None, dep_delay=None)], []],
    ids=["full", "null", "empty"],
)
def test_rows_keep_their_passports(batch: list[dict[str, object]]) -> None:
    raw = flights_frame(*batch) if batch else flights_frame(flight()).iloc[:0]
    assert flights.transform(raw).index.equals(raw.index)


def test_transforms_leave_the_raw_batch_alone() -> None:
    raw = flights_frame(flight(dep_time=2400))
    before = raw.copy(deep=True)
    flights.transform(raw)
    pd.testing.assert_frame_equal(raw, before)


def test_the_hours_that_new_york_has_twice_stay_apart() -> None:
    """01:00 on 2013-11-03 comes at 05:00 and at 06:00 UTC, at each of the three airports."""
    raw = raw_weather().loc[lambda hours: hours["time_hour"].isin(["2013-11-03T05:00:00Z", "2013-11-03T06:00:00Z"])]
    assert raw.duplicated(["origin", "year", "month", "day", "hour"]).sum() == 3
    out = weather.transform(raw)
    assert out.index.equals(raw.index)
    assert not out.duplicated(["origin", "time_hour"]).any()
    assert set(out["time_hour"]) == {pd.Timestamp("2013-11-03T05:00Z"), pd.Timestamp("2013-11-03T06:00Z")}


@pytest.mark.slow
def test_a_year_of_flights_becomes_the_expected_target() -> None:
    """Apart from references, which the commit checks, no flight of 2013 breaks the contract."""
    verdict = judged(flights, expected.flights_at(END))
    assert verdict.rejected.num_rows == 0
    known = as_frame(verdict.valid).loc[lambda good: good["dest"].isin(expected.airports()["faa"])]
    expected.assert_same_rows(known, expected.fct_flights_at(END), ["flight_id"])


def test_a_year_of_weather_loses_only_the_wind_no_one_survives() -> None:
    verdict = judged(weather, raw_weather())
    assert [reason["value"] for reason in reasons(verdict)] == [pytest.approx(1048.36058)]
    expected.assert_same_rows(as_frame(verdict.valid), expected.fct_weather_at(END), ["origin", "time_hour"])


def test_planes_of_an_implausible_year_are_rejected_and_those_of_none_are_not() -> None:
    verdict = judged(planes, expected.planes_at(END))
    assert sorted(reason["value"] for reason in reasons(verdict)) == [1956, 1959, 1959]
    good = as_frame(verdict.valid)
    assert good["year"].isna().sum() == 70
    expected.assert_same_rows(good, expected.dim_planes_at(END), ["tailnum"])


def test_every_airline_and_airport_is_good() -> None:
    """Three airports lack a time zone, and are loaded without."""
    expected.assert_same_rows(as_frame(judged(airlines, expected.airlines()).valid), expected.airlines(), ["carrier"])
    good = as_frame(judged(airports, expected.airports()).valid)
    assert good["tzone"].isna().sum() == 3
    expected.assert_same_rows(good, expected.airports(), ["faa"])


def raw_weather() -> pd.DataFrame:
    """The year's weather as the API hands it out, where an instant is text."""
    year = expected.weather_at(END)
    text = year["time_hour"].dt.strftime("%Y-%m-%dT%H:00:00Z")
    return year.assign(time_hour=text.astype(pd.ArrowDtype(pa.string())))


def reasons(verdict: Judged) -> list[dict[str, Any]]:
    """The rules that rejected rows broke."""
    return [reason for row in verdict.rejected["reasons"].to_pylist() for reason in json.loads(row)]
