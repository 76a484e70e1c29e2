"""The pipelines of `flows/` on a real year, against what pandas computes straight from the package's files."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from adbc_driver_postgresql import dbapi
from sqlalchemy import text

from deployments.demo import replay
from deployments.demo.weather_api import WeatherApi
from flows import airlines, airports, bookings, daily_delays, flights, planes, weather
from tasks import connections
from tasks.embedded import EmbeddedPostgres
from tasks.extract.feed import Feed
from tasks.pipeline import Pipeline, run_pipeline
from tasks.report import RunReport
from tasks.settings import url_variable
from tests.crash.child import Child, Job, Paused
from tests.demo import expected, expected_mart
from tests.servers.cluster import create_database, drop_database

WEEK = datetime(2013, 1, 8, tzinfo=UTC)
DAY = timedelta(days=1)
CLOCKS_BACK = datetime(2013, 11, 3, tzinfo=UTC)
"""Three local hours of this day come twice, and differ in UTC."""

WIND = datetime(2013, 2, 12, 6, 30, tzinfo=UTC)
"""Around here the weather station at Newark reports 1,048 mph."""

DIMENSIONS: list[Pipeline] = [airlines.PIPELINE, airports.PIPELINE, planes.PIPELINE]
EVERY: list[Pipeline] = [
    *DIMENSIONS,
    bookings.PIPELINE,
    weather.PIPELINE,
    flights.PIPELINE,
    daily_delays.PIPELINE,
]


class Demo:
    """Both sources, whose clock can be moved, and an empty warehouse."""

    def __init__(self, weather_file: Path, warehouse_url: str) -> None:
        self._weather_file = weather_file
        self._warehouse_url = warehouse_url

    def replay_to(self, clock: datetime) -> None:
        replay.replay_to(connections.engine("operations"), self._weather_file, clock)

    def table(self, name: str) -> pd.DataFrame:
        """A table of the warehouse, in Arrow types."""
        with dbapi.connect(self._warehouse_url) as connection, connection.cursor() as cursor:
            cursor.execute(f'SELECT * FROM "{name}"')
            frame: pd.DataFrame = cursor.fetch_arrow_table().to_pandas(types_mapper=pd.ArrowDtype)
        return frame

    def assert_everything_loaded(self, clock: datetime) -> None:
        """Every target holds what it has to once all changes before `clock` are loaded."""
        for name, rows, key in (
            ("dim_airlines", expected.airlines(), ["carrier"]),
            ("dim_airports", expected.airports(), ["faa"]),
            ("dim_planes", expected.dim_planes_at(clock), ["tailnum"]),
            ("fct_weather", expected.fct_weather_at(clock), ["origin", "time_hour"]),
            ("fct_bookings", expected.bookings_at(clock), ["booking_id"]),
            ("fct_flights", expected.fct_flights_at(clock), ["flight_id"]),
            ("mart_daily_delays", expected_mart.daily_delays_at(clock), expected_mart.KEY),
        ):
            expected.assert_same_rows(self.table(name), rows, key)
        for name in ("dim_airports", "dim_planes"):
            # Nothing of these ever changes but that it appears, and then at an instant of the replay's clock.
            versions = self.table(name)
            assert versions["is_current"].all() and (versions["valid_from"] <= clock).all()

    @contextlib.contextmanager
    def paused(self, pipeline: Pipeline, start: datetime | None = None, end: datetime | None = None) -> Iterator[Child]:
        """A process that has read everything, and waits before its commit."""
        urls = {name: os.environ[url_variable(name)] for name in ("operations", "warehouse")}
        assert not isinstance(pipeline.extract, Feed)
        job = Job(replace(pipeline, extract=Paused(pipeline.extract)), urls, start=start, end=end)
        with Child(job) as child:
            child.wait_at_point()
            yield child

    def versions(self, table: str) -> set[tuple[str, str]]:
        """Where every row of a target lies, and which transaction wrote it: new whenever a row is written."""
        with connections.engine("warehouse").connect() as connection:
            return {(row[0], row[1]) for row in connection.execute(text(f"SELECT ctid::text, xmin::text FROM {table}"))}

    def changed_days(self, before: set[tuple[str, str]]) -> set[date]:
        """The days of the mart of which a row was written since `versions` was `before`."""
        rows = text("SELECT ctid::text, xmin::text, day FROM mart_daily_delays")
        with connections.engine("warehouse").connect() as connection:
            return {row.day for row in connection.execute(rows) if (row[0], row[1]) not in before}


@pytest.fixture(scope="module")
def sources(cluster: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Path]]:
    """URLs of the operations database and the weather API, and the weather's file."""
    name = "operations_of_demo_runs"
    create_database(cluster, name)
    home = tmp_path_factory.mktemp("demo")
    file = home / "weather.db"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TIDEGATE_OPERATIONS_URL", cluster.url(name))
        replay.build(connections.engine("operations"), file)
        connections.dispose()
    api = WeatherApi(home, file).start()
    yield cluster.url(name), api.url, file
    api.stop()
    drop_database(cluster, name)


@pytest.fixture
def demo(cluster: EmbeddedPostgres, sources: tuple[str, str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Demo]:
    """The sources, with a warehouse that nothing has been loaded into."""
    operations, weather_api, file = sources
    name = "warehouse_of_demo_runs"
    create_database(cluster, name)
    monkeypatch.setenv("TIDEGATE_OPERATIONS_URL", operations)
    monkeypatch.setenv("TIDEGATE_WAREHOUSE_URL", cluster.url(name))
    monkeypatch.setenv("TIDEGATE_WEATHER_API_URL", weather_api)
    yield Demo(file, cluster.url(name, "postgresql"))
    connections.dispose()
    drop_database(cluster, name)


@pytest.mark.slow
def test_the_first_week_and_the_days_after_it(demo: Demo) -> None:
    """First run, again, the next day with its late corrections, and a range that changes nothing."""
    demo.replay_to(WEEK)
    first = {pipeline.name: run_pipeline(pipeline) for pipeline in EVERY}
    assert terms(first["airlines"]) == expected.airlines_run(loaded=False)
    assert terms(first["airports"]) == expected.airports_run(loaded=False)
    assert terms(first["planes"]) == expected.planes_run(None, WEEK)
    assert terms(first["bookings"]) == expected.bookings_run(None, WEEK)
    assert terms(first["weather"]) == expected.weather_run(None, None, WEEK)
    assert terms(first["flights"]) == expected.flights_run(None, None, WEEK)
    assert terms(first["daily_delays"]) == expected_mart.daily_delays_run(None, WEEK)
    assert first["flights"].warned == expected.tailnum_missing(None, WEEK, WEEK, WEEK) > 0
    assert first["flights"].counts.rejected > 0
    assert first["flights"].watermark == expected.flights_watermark(WEEK)
    assert first["weather"].watermark == expected.weather_watermark(WEEK)
    assert first["flights"].covered_until == first["weather"].covered_until == WEEK
    demo.assert_everything_loaded(WEEK)

    before, mart = demo.versions("fct_flights"), demo.versions("mart_daily_delays")
    again = {pipeline.name: run_pipeline(pipeline) for pipeline in EVERY}
    assert terms(again["airlines"]) == expected.airlines_run(loaded=True)
    assert terms(again["airports"]) == expected.airports_run(loaded=True)
    assert terms(again["planes"]) == expected.planes_run(WEEK, WEEK)
    assert terms(again["bookings"]) == expected.bookings_run(WEEK, WEEK)
    assert terms(again["weather"]) == expected.weather_run(WEEK, expected.weather_watermark(WEEK), WEEK)
    assert terms(again["flights"]) == expected.flights_run(WEEK, expected.flights_watermark(WEEK), WEEK)
    assert again["flights"].counts.unchanged > 0
    assert demo.versions("fct_flights") == before
    assert (again["daily_delays"].counts.incoming, again["daily_delays"].windows[0].entry.status) == (0, "committed")

    day = WEEK + DAY
    demo.replay_to(day)
    later = {pipeline.name: run_pipeline(pipeline) for pipeline in EVERY}
    assert terms(later["planes"]) == expected.planes_run(WEEK, day)
    assert terms(later["bookings"]) == expected.bookings_run(WEEK, day)
    assert later["bookings"].counts.deleted > 0, "bookings have been cancelled"
    assert terms(later["weather"]) == expected.weather_run(WEEK, expected.weather_watermark(WEEK), day)
    assert terms(later["flights"]) == expected.flights_run(WEEK, expected.flights_watermark(WEEK), day)
    assert later["flights"].counts.updated > 0, "flights that were in the air have landed"
    demo.assert_everything_loaded(day)
    assert terms(later["daily_delays"]) == expected_mart.daily_delays_run(WEEK, day)
    assert demo.changed_days(mart) == expected_mart.days_changed_between(WEEK, day)
    seen = demo.table("dim_planes")["valid_from"].value_counts().to_dict()
    assert seen == {WEEK: first["planes"].counts.inserted, day: later["planes"].counts.inserted}

    before = demo.versions("fct_flights")
    start, end = WEEK - 3 * DAY, WEEK - DAY
    ranged = run_pipeline(flights.PIPELINE, start, end)
    assert terms(ranged) == expected.flights_window(start, end, day, day)
    assert ranged.counts.extracted == ranged.counts.unchanged + ranged.counts.rejected > 0
    assert ranged.watermark == later["flights"].watermark
    assert demo.versions("fct_flights") == before


@pytest.mark.parametrize(
    ("start", "end"),
    [
        pytest.param(CLOCKS_BACK - 3 * DAY, CLOCKS_BACK + 4 * DAY, id="the hours New York has twice"),
        pytest.param(WIND - 2 * DAY, WIND + 5 * DAY, id="a wind of 1,048 mph", marks=pytest.mark.slow),
    ],
)
def test_a_week_out_of_the_year(demo: Demo, start: datetime, end: datetime) -> None:
    """A range of each cursor, with the clock two days on; then the same again."""
    clock = end + 2 * DAY
    demo.replay_to(clock)
    for pipeline in DIMENSIONS:
        run_pipeline(pipeline)
    for loaded_at in (None, clock):
        report = run_pipeline(weather.PIPELINE, start, end)
        assert terms(report) == expected.weather_window(start, end, clock, loaded_at)
        report = run_pipeline(flights.PIPELINE, start, end)
        assert terms(report) == expected.flights_window(start, end, clock, loaded_at)
        assert report.warned == expected.tailnum_missing(start, end, clock, clock)
    for table, cursor, loaded, key in (
        ("fct_flights", "updated_at", expected.fct_flights_at(clock), ["flight_id"]),
        ("fct_weather", "time_hour", expected.fct_weather_at(clock), ["origin", "time_hour"]),
    ):
        inside = loaded[(loaded[cursor] >= start) & (loaded[cursor] < end)]
        expected.assert_same_rows(demo.table(table), inside, key)


@pytest.mark.slow
def test_the_whole_year_in_one_run(demo: Demo) -> None:
    """336,776 flights, 26,115 hours of weather, and every plane."""
    demo.replay_to(replay.END)
    reports = {pipeline.name: run_pipeline(pipeline) for pipeline in EVERY}
    assert terms(reports["planes"]) == expected.planes_run(None, replay.END)
    assert terms(reports["weather"]) == expected.weather_run(None, None, replay.END)
    assert terms(reports["flights"]) == expected.flights_run(None, None, replay.END)
    assert reports["flights"].warned == expected.tailnum_missing(None, replay.END, replay.END, replay.END)
    counts = reports["flights"].counts
    assert (counts.extracted, counts.rejected) == (336_776, 7_602)
    demo.assert_everything_loaded(replay.END)
    backfilled = run_pipeline(daily_delays.PIPELINE, replay.START, replay.END - DAY)
    assert backfilled.counts.unchanged == backfilled.counts.extracted == reports["daily_delays"].counts.inserted
    print({name: f"{report.counts.extracted:,} in {report.seconds:.2f} s" for name, report in reports.items()})


@pytest.mark.slow
def test_of_two_processes_that_run_flights_at_once_one_loads_the_week_and_the_other_says_why_it_did_not(
    demo: Demo,
) -> None:
    demo.replay_to(WEEK)
    for pipeline in DIMENSIONS:
        run_pipeline(pipeline)
    with demo.paused(flights.PIPELINE) as one, demo.paused(flights.PIPELINE) as other:
        for child in (one, other):
            child.go_on()
        winner, loser = sorted((one.outcome(), other.outcome()), key=lambda outcome: outcome.exit_code)
    assert winner.counts is not None and winner.counts.as_dict() == expected.flights_run(None, None, WEEK)
    assert (winner.exit_code, loser.exit_code, loser.error) == (0, 1, "Fenced")
    assert "another run moved the watermark" in loser.message and "Run it again" in loser.message
    expected.assert_same_rows(demo.table("fct_flights"), expected.fct_flights_at(WEEK), ["flight_id"])


@pytest.mark.slow
def test_two_overlapping_ranges_of_flights_at_once_load_what_lies_in_both_once(demo: Demo) -> None:
    demo.replay_to(WEEK)
    for pipeline in DIMENSIONS:
        run_pipeline(pipeline)
    start, end = WEEK - 7 * DAY, WEEK
    with (
        demo.paused(flights.PIPELINE, start, end - 2 * DAY) as one,
        demo.paused(flights.PIPELINE, start + 2 * DAY, end) as other,
    ):
        for child in (one, other):
            child.go_on()
        assert [one.outcome().exit_code, other.outcome().exit_code] == [0, 0]
    loaded = expected.fct_flights_at(WEEK)
    inside = loaded[(loaded["updated_at"] >= start) & (loaded["updated_at"] < end)]
    expected.assert_same_rows(demo.table("fct_flights"), inside, ["flight_id"])


def terms(report: RunReport) -> dict[str, int]:
    """Every term of the conservation sum."""
    return report.counts.as_dict()
