"""The sources of the demo against `expected`, which reads the same package with other code."""

import contextlib
import itertools
import json
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import httpx
import pandas as pd
import pytest
from adbc_driver_postgresql import dbapi
from sqlalchemy import Engine, text

from deployments.demo import missing_airports, operations, replay, weather
from tasks import connections
from tasks.errors import ConfigError
from tests.demo import expected
from tests.variants import slow_but

WEEK = datetime(2013, 1, 8, tzinfo=UTC)
INSTANTS = [
    replay.START,
    datetime(2013, 1, 1, 10, 17, tzinfo=UTC),  # the first departure, which has not happened yet
    datetime(2013, 1, 1, 10, 17, 1, tzinfo=UTC),
    datetime(2013, 1, 1, 14, 24, tzinfo=UTC),  # that flight becomes final
    WEEK,
    WEEK + timedelta(days=1),
    datetime(2013, 11, 3, 6, 30, tzinfo=UTC),  # inside the hour that New York has twice
    replay.END,
]


class Sources(NamedTuple):
    """Both sources, in a database and a folder of these tests' own."""

    engine: Engine
    weather_file: Path

    def replay_to(self, when: datetime) -> None:
        replay.replay_to(self.engine, self.weather_file, when)

    def table(self, name: str) -> pd.DataFrame:
        """A table of schema `public`, in Arrow types."""
        url = self.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        with dbapi.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute(f'SELECT * FROM public."{name}"')
            frame: pd.DataFrame = cursor.fetch_arrow_table().to_pandas(types_mapper=pd.ArrowDtype)
        return frame

    def observations(self) -> pd.DataFrame:
        """Table `weather`; `time_hour` is an instant."""
        with closing(sqlite3.connect(self.weather_file)) as connection:
            rows = pd.read_sql_query("SELECT * FROM weather", connection)
        return rows.assign(time_hour=pd.to_datetime(rows["time_hour"], utc=True))

    def everything(self) -> tuple[pd.DataFrame, ...]:
        """All that replaying changes, in the order of the keys."""
        return (
            self.table("flights").sort_values("flight_id", ignore_index=True),
            self.table("planes").sort_values("tailnum", ignore_index=True),
            self.table("bookings").sort_values("booking_id", ignore_index=True),
            self.observations().sort_values(["origin", "time_hour"], ignore_index=True),
        )


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sources]:
    """Built once; every test moves the clock to where it wants it."""
    engine = connections.engine("demo_sources_test")
    built = Sources(engine, tmp_path_factory.mktemp("weather") / "weather.db")
    replay.build(*built)
    yield built
    engine.dispose()


def test_the_airports_that_may_be_added_are_those_that_flights_go_to_and_the_directory_lacks(sources: Sources) -> None:
    before = sources.table("airports")
    with sources.engine.connect() as connection:
        for _ in range(2):
            missing_airports.add(connection)
        added = {row.faa: row for row in connection.execute(text("SELECT * FROM airports"))}.keys() - set(before["faa"])
        connection.rollback()
    flights = expected.flights_at(replay.END)
    assert added == set(flights["dest"]) - set(expected.airports()["faa"])


def test_the_numbers_to_measure_by_show_the_dirt_the_package_is_known_for() -> None:
    flights = expected.flights_at(replay.END)
    unknown = ~flights["dest"].isin(expected.airports()["faa"])
    tailless = flights["tailnum"].isna()
    assert len(flights) == 336_776 and flights["flight_id"].is_unique
    assert unknown.sum() == 7_602 and flights.loc[unknown, "dest"].nunique() == 4
    assert tailless.sum() == 2_512
    assert (~tailless & ~flights["tailnum"].isin(expected.planes_at(replay.END)["tailnum"])).sum() == 50_094
    assert flights["dep_time"].isna().sum() == 8_255
    assert (flights["dep_time"] == 2400).sum() == 29 and (flights["arr_time"] == 2400).sum() == 150
    assert expected.airports()["tzone"].isna().sum() == 3
    assert len(expected.weather_at(replay.END)) - len(expected.fct_weather_at(replay.END)) == 1


def test_every_expected_run_conserves_what_it_extracts() -> None:
    week, day = WEEK, WEEK + timedelta(days=1)
    runs = [
        expected.airlines_run(loaded=False),
        expected.airports_run(loaded=False),
        expected.planes_run(None, week),
        expected.planes_run(week, day),
        expected.flights_run(None, None, week),
        expected.flights_run(week, expected.flights_watermark(week), week),
        expected.flights_run(week, expected.flights_watermark(week), day),
        expected.bookings_run(None, week),
        expected.bookings_run(week, day),
        expected.weather_run(None, None, week),
        expected.weather_run(week, expected.weather_watermark(week), day),
    ]
    for terms in runs:
        outcomes = sum(terms.values()) - terms["extracted"] - terms["added"]
        assert terms["extracted"] + terms["added"] == outcomes > 0
        assert min(terms.values()) >= 0


def test_runs_day_by_day_add_up_to_the_target() -> None:
    """What consecutive expected runs insert is as many rows as the expected target has."""
    inserted, clock = 0, replay.START
    for day in range(1, 8):
        previous, clock = clock, replay.START + timedelta(days=day)
        watermark = expected.flights_watermark(previous) if day > 1 else None
        inserted += expected.flights_run(previous if day > 1 else None, watermark, clock)["inserted"]
    assert inserted == len(expected.fct_flights_at(clock))


@pytest.mark.parametrize("when", slow_but(INSTANTS[3:8:3], INSTANTS), ids=str)
def test_the_sources_hold_what_had_happened(sources: Sources, when: datetime) -> None:
    sources.replay_to(when)
    expected.assert_same_rows(sources.table("flights"), expected.flights_at(when), ["flight_id"])
    expected.assert_same_rows(sources.table("planes"), expected.planes_at(when), ["tailnum"])
    expected.assert_same_rows(sources.table("bookings"), expected.bookings_at(when), ["booking_id"])
    expected.assert_same_rows(sources.observations(), expected.weather_at(when), ["origin", "time_hour"])


def test_airlines_and_airports_are_there_from_the_start(sources: Sources) -> None:
    sources.replay_to(replay.START)
    expected.assert_same_rows(sources.table("airlines"), expected.airlines(), ["carrier"])
    expected.assert_same_rows(sources.table("airports"), expected.airports(), ["faa"])


@pytest.mark.slow
def test_small_steps_end_where_one_jump_ends(sources: Sources) -> None:
    sources.replay_to(replay.START)
    for hours in range(5, 24 * 7, 7):
        sources.replay_to(replay.START + timedelta(hours=hours))
    sources.replay_to(WEEK)
    in_steps = sources.everything()
    sources.replay_to(replay.START)
    sources.replay_to(WEEK)
    for stepped, jumped in zip(in_steps, sources.everything(), strict=True):
        pd.testing.assert_frame_equal(stepped, jumped)


def test_the_clock_moved_back_restores_what_was(sources: Sources) -> None:
    sources.replay_to(WEEK)
    before = sources.everything()
    sources.replay_to(datetime(2013, 3, 1, tzinfo=UTC))
    sources.replay_to(WEEK)
    for was, restored in zip(before, sources.everything(), strict=True):
        pd.testing.assert_frame_equal(was, restored)


def test_a_step_forward_writes_only_what_happens_in_it(sources: Sources) -> None:
    """Rows without an event in between keep their physical version, which `xmin` names."""
    sources.replay_to(WEEK)
    versions = "SELECT flight_id, xmin::text, updated_at FROM public.flights"
    with sources.engine.connect() as connection:
        before = {row.flight_id: row for row in connection.execute(text(versions))}
    sources.replay_to(WEEK + timedelta(hours=6))
    with sources.engine.connect() as connection:
        after = {row.flight_id: row for row in connection.execute(text(versions))}
    assert before.keys() < after.keys()
    rewritten = {key for key in before if before[key].xmin != after[key].xmin}
    assert rewritten == {key for key in before if before[key].updated_at != after[key].updated_at} != set()


def test_both_clocks_say_the_instant_in_utc(sources: Sources) -> None:
    when = datetime(2013, 7, 4, 12, 30, 15, 250_000, tzinfo=UTC)
    sources.replay_to(when)
    assert replay.clock(sources.engine) == weather.clock(sources.weather_file) == when
    with sources.engine.connect() as connection:
        assert connection.execute(text("SELECT replay_now()")).scalar_one() == when
    with closing(sqlite3.connect(sources.weather_file)) as connection:
        assert connection.execute("SELECT now FROM clock").fetchall() == [("2013-07-04T12:30:15.250000Z",)]


def test_tables_and_clock_move_in_one_transaction(sources: Sources) -> None:
    """A reader sees the old state with the old clock until the commit, and a rollback leaves both."""
    sources.replay_to(WEEK)
    count = text("SELECT count(*), replay_now() FROM public.flights")
    with sources.engine.connect() as reader, sources.engine.connect() as writer:
        before = reader.execute(count).one()
        reader.rollback()
        operations.replay_to(writer, WEEK + timedelta(days=1))
        assert reader.execute(count).one() == before
        writer.rollback()
        reader.rollback()
        assert reader.execute(count).one() == before


@pytest.mark.slow
def test_building_again_starts_over(sources: Sources) -> None:
    sources.replay_to(WEEK)
    with sources.engine.begin() as connection:
        connection.execute(text("DELETE FROM public.airports"))
    replay.build(*sources)
    assert replay.clock(sources.engine) == weather.clock(sources.weather_file) == replay.START
    booked = len(expected.bookings_at(replay.START))
    assert [len(table) for table in sources.everything()] == [0, 0, booked, 0]
    assert len(sources.table("airports")) == len(expected.airports())


@pytest.mark.parametrize(
    "when",
    [datetime(2013, 1, 8), datetime(2012, 12, 31, tzinfo=UTC), datetime(2014, 1, 2, 1, tzinfo=UTC)],
    ids=["naive", "too early", "too late"],
)
def test_an_instant_outside_the_year_is_refused(sources: Sources, when: datetime) -> None:
    with pytest.raises(ConfigError, match="replays from 2013-01-01"):
        sources.replay_to(when)


def test_datasette_serves_the_file_while_it_changes(sources: Sources) -> None:
    """Every page of a keyset walk arrives, and a replay shows in the next answer of the same server."""
    sources.replay_to(WEEK)
    with serving(sources.weather_file) as address, httpx.Client(base_url=address) as client:
        clock = "/weather/clock.json?_shape=objects"
        assert client.get(clock).json()["rows"][0]["now"] == "2013-01-08T00:00:00Z"
        assert len(walk(client)) == len(expected.weather_at(WEEK))
        later = WEEK + timedelta(days=30)
        sources.replay_to(later)
        assert client.get(clock).json()["rows"][0]["now"] == "2013-02-07T00:00:00Z"
        assert len(walk(client)) == len(expected.weather_at(later))
        sources.replay_to(WEEK)
        assert len(walk(client)) == len(expected.weather_at(WEEK))


def walk(client: httpx.Client) -> list[dict[str, object]]:
    """Every row of the weather, page by page."""
    page: str | None = "/weather/weather.json?_shape=objects&_size=max&_nocount=1"
    rows: list[dict[str, object]] = []
    while page:
        answer = json.loads(client.get(page).raise_for_status().content)
        rows += answer["rows"]
        page = answer["next_url"]
    return rows


@contextlib.contextmanager
def serving(file: Path) -> Iterator[str]:
    """datasette on a port of the system's choice; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "datasette", "serve", str(file), "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in itertools.repeat(None, 200):
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"{address}/-/versions.json")
                break
            time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait(10)
