"""`ApiExtract` against a scripted server, and against datasette."""

import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from tasks.errors import ConfigError, ContractError, SourceError, SourceUnavailable
from tasks.extract.api import ApiClock, ApiExtract
from tasks.extract.changes import Extract
from tasks.extract.http.client import HttpClient
from tasks.extract.http.pace.retry import Retry
from tasks.extract.http.pages.numbered import Keyset
from tasks.extract.http.pages.paginators import LinkHeader, NextUrl
from tasks.extract.http.pages.walk import Walk
from tasks.extract.http.request import Params, Request
from tasks.extract.http.shapes.arrow import Record
from tasks.extract.http.shapes.shape import Shape
from tasks.window import Window
from tests.scripted_server import Reply, Script, ScriptedServer

HOUR = timedelta(hours=1)
NO_WAITING = Retry(first=timedelta(0))


Serve = Callable[[Script], ScriptedServer]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start a server as the connection `weather`."""
    servers: list[ScriptedServer] = []

    def start(script: Script) -> ScriptedServer:
        server = ScriptedServer(script)
        servers.append(server)
        monkeypatch.setenv("TIDEGATE_WEATHER_URL", server.url)
        return server.__enter__()

    yield start
    for server in servers:
        server.__exit__(None, None, None)


def read(extract: ApiExtract, window: Window = Window()) -> list[Record]:  # noqa: B008
    return [row for batch in extract.batches(window) for row in batch.to_pylist()]


def at(*times: str) -> Reply:
    return Reply([{"id": number, "at": time} for number, time in enumerate(times)])


def test_a_whole_list_is_read_as_one_batch_per_page(serve: Serve) -> None:
    serve(
        {
            "/readings": [Reply({"rows": [{"id": 1}, {"id": 2}], "next_url": "/two"})],
            "/two": [Reply({"rows": [], "next_url": "/three"})],
            "/three": [Reply({"rows": [{"id": 3}], "next_url": None})],
        }
    )
    extract: Extract = ApiExtract("weather", "readings", "rows", NextUrl())
    assert extract.bound() is None
    assert [batch.to_pydict() for batch in extract.batches(Window())] == [{"id": [1, 2]}, {"id": [3]}]


@pytest.mark.parametrize("stamp", ["{}Z", "{}+00:00", "{}"], ids=["Z", "offset", "naive"])
def test_the_window_is_half_open_whatever_the_api_returns(serve: Serve, stamp: str) -> None:
    serve(
        {
            "/readings": [
                at(
                    *(
                        stamp.format(text)
                        for text in (
                            "2013-01-08T05:59:59.999999",
                            "2013-01-08T06:00:00",
                            "2013-01-08T06:59:59.999999",
                            "2013-01-08T07:00:00",
                        )
                    )
                )
            ]
        }
    )
    extract = ApiExtract("weather", "readings", cursor="at")
    assert [row["id"] for row in read(extract, Window.parse("2013-01-08T06:00", "2013-01-08T07:00"))] == [1, 2]
    assert [row["id"] for row in read(extract, Window.parse("2013-01-08T06:00", None))] == [1, 2, 3]
    assert [row["id"] for row in read(extract, Window.parse(None, "2013-01-08T07:00"))] == [0, 1, 2]
    assert [row["id"] for row in read(extract)] == [0, 1, 2, 3]


def test_bounds_are_sent_in_whole_seconds_that_hold_the_window(serve: Serve) -> None:
    server = serve({"/readings": [at()]})
    extract = ApiExtract("weather", "readings", params={"size": 7}, cursor="at", start_param="from", end_param="until")
    for start, end in (
        ("2013-01-08T06:00:00", "2013-01-08T07:00:00"),
        ("2013-01-08T06:00:00.25", "2013-01-08T07:00:00.000001"),
        (None, "2013-01-08T09:00+02:00"),
        ("2013-01-08T06:00:00", None),
    ):
        assert read(extract, Window.parse(start, end)) == []
    assert [dict(httpx.URL(target).params) for target in server.targets] == [
        {"size": "7", "from": "2013-01-08T06:00:00Z", "until": "2013-01-08T07:00:00Z"},
        {"size": "7", "from": "2013-01-08T06:00:00Z", "until": "2013-01-08T07:00:01Z"},
        {"size": "7", "until": "2013-01-08T07:00:00Z"},
        {"size": "7", "from": "2013-01-08T06:00:00Z"},
    ]


def test_an_empty_window_asks_for_nothing(serve: Serve) -> None:
    server = serve({"/readings": [at("2013-01-08T06:00:00Z")]})
    assert read(ApiExtract("weather", "readings", cursor="at"), Window.parse("2013-01-08", "2013-01-08")) == []
    assert server.seen == []


def test_faults_on_the_way_lose_and_double_nothing(serve: Serve) -> None:
    def page(row: int, following: str | None) -> Reply:
        return Reply({"rows": [{"id": row}], "next_url": following})

    server = serve(
        {
            "/readings": [Reply(status=503), Reply({"rows": [{"id": 1}]}, fault="short body"), page(1, "/two")],
            "/two": [Reply(fault="reset"), Reply(b'{"rows": [{"id"'), page(2, "/three")],
            "/three": [Reply(status=429, headers={"Retry-After": "0"}), page(3, None)],
        }
    )
    extract = ApiExtract("weather", "readings", "rows", NextUrl(), retry=NO_WAITING)
    assert [row["id"] for row in read(extract)] == [1, 2, 3]
    assert len(server.seen) == 8


@pytest.mark.parametrize(
    ("reply", "error"), [(Reply(b"gone", 404), SourceError), (Reply(b"down", 503), SourceUnavailable)]
)
def test_an_error_names_the_extract_the_window_and_the_answer(
    serve: Serve, reply: Reply, error: type[Exception]
) -> None:
    server = serve({"/readings": [reply]})
    extract = ApiExtract("weather", "readings", cursor="at", retry=NO_WAITING)
    with pytest.raises(error) as caught:
        read(extract, Window.parse("2013-01-08", "2013-01-09"))
    for part in ("'weather'", "'readings'", "2013-01-08T00:00:00+00:00", server.url, str(reply.status)):
        assert part in str(caught.value)


def test_a_connection_without_a_url_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIDEGATE_NO_SUCH_API_URL", raising=False)
    with pytest.raises(ConfigError, match="TIDEGATE_NO_SUCH_API_URL"):
        read(ApiExtract("no-such-api", "readings"))


def test_window_parameters_without_a_cursor_are_a_config_error() -> None:
    with pytest.raises(ConfigError, match="Name the cursor"):
        ApiExtract("weather", "readings", start_param="from")


@pytest.mark.parametrize(
    "odd",
    [{"id": 2, "at": None}, {"id": 2}, {"id": 2, "at": 5}, {"id": 2, "at": "soon"}],
    ids=["null", "absent", "number", "no time"],
)
def test_a_record_whose_cursor_cannot_be_read_goes_on_to_be_judged(serve: Serve, odd: Record) -> None:
    serve(
        {"/readings": [Reply([{"id": 1, "at": "2013-01-08T06:00:00Z"}, odd, {"id": 3, "at": "2013-01-09T00:00:00Z"}])]}
    )
    rows = read(ApiExtract("weather", "readings", cursor="at"), Window.parse("2013-01-08", "2013-01-09"))
    assert [row["id"] for row in rows] == [1, 2]


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([{"id": 1}], "not among the columns"),
        ([{"id": 1, "at": "yesterday"}], "no time"),
        ([{"id": 1, "at": 1357624800}], "1357624800, which is no time"),
    ],
    ids=["absent in all", "no time", "epoch"],
)
def test_a_cursor_that_is_never_a_time_is_an_error(serve: Serve, rows: list[Record], what: str) -> None:
    serve({"/readings": [Reply(rows)]})
    with pytest.raises(ContractError, match=what) as caught:
        read(ApiExtract("weather", "readings", cursor="at"), Window.parse("2013-01-08", "2013-01-09"))
    assert "'weather'" in str(caught.value) and "'at'" in str(caught.value)


def test_connections_are_closed_when_the_reader_stops_early(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[HttpClient] = []
    close = HttpClient.close

    def noted(client: HttpClient) -> None:
        closed.append(client)
        close(client)

    monkeypatch.setattr(HttpClient, "close", noted)
    serve({"/readings": [Reply({"rows": [{"id": 1}], "next_url": "/two"})]})
    batches = ApiExtract("weather", "readings", "rows", NextUrl()).batches(Window())
    assert isinstance(batches, Generator)
    next(batches)
    assert closed == []
    batches.close()
    assert len(closed) == 1 and closed[0]._client.is_closed


def test_the_declaration_is_comparable_and_shows_no_secret() -> None:
    auth = httpx.BasicAuth("ann", "quite-secret")
    extract = ApiExtract("weather", "readings", params={"api_key": "hidden-4711"}, auth=auth)
    assert extract == ApiExtract("weather", "readings", params={"api_key": "hidden-4711"}, auth=auth)
    assert "hidden" not in repr(extract) and "BasicAuth" not in repr(extract)


# The bound.


def test_the_bound_is_the_sources_clock_minus_the_lag(serve: Serve) -> None:
    serve({"/v1/clock": [Reply(status=503), Reply({"server": [{"now": "2013-01-08T08:00:00+02:00"}]})]})
    extract = ApiExtract(
        "weather", "readings", cursor="at", lag=HOUR, clock=ApiClock("v1/clock", "server.0.now"), retry=NO_WAITING
    )
    assert extract.bound() == datetime(2013, 1, 8, 5, tzinfo=UTC)


def test_without_a_clock_the_bound_is_this_machines_time_minus_the_lag() -> None:
    before = datetime.now(UTC)
    bound = ApiExtract("weather", "readings", cursor="at", lag=HOUR).bound()
    assert bound is not None and bound.utcoffset() == timedelta(0)
    assert before - HOUR <= bound <= datetime.now(UTC) - HOUR


@pytest.mark.parametrize("value", ["noon", 1357624800, None])
def test_a_clock_that_tells_no_time_is_refused(serve: Serve, value: object) -> None:
    serve({"/clock": [Reply({"now": value})]})
    with pytest.raises(SourceError, match=r"'weather', 'readings': The clock 'clock' says .* ISO 8601"):
        ApiExtract("weather", "readings", cursor="at", clock=ApiClock("clock", "now")).bound()


# Datasette.

ORIGINS = ("EWR", "JFK", "LGA")
FIRST_HOUR = datetime(2013, 1, 8, tzinfo=UTC)
ROWS = [
    {
        "origin": origin,
        "time_hour": (FIRST_HOUR + hour * HOUR).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "temp": None if hour == 5 else 30 + hour / 4,
        "visib": hour % 10,
    }
    for hour in range(24)
    for origin in ORIGINS
]
START_DEADLINE = 30.0


@dataclass(frozen=True)
class Datasette:
    url: str
    file: Path

    def insert(self, origin: str, time_hour: str) -> None:
        with closing(sqlite3.connect(self.file)) as connection, connection:
            connection.execute("INSERT INTO readings VALUES (?, ?, 0, 0)", (origin, time_hour))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Datasette]:
    """A real datasette, which takes longer to start than all that asks it, over an empty table."""
    folder = tmp_path_factory.mktemp("datasette")
    file, log = folder / "weather.db", folder / "datasette.log"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(
            "CREATE TABLE readings (origin TEXT, time_hour TEXT, temp REAL, visib INTEGER, "
            "PRIMARY KEY (origin, time_hour))"
        )
    with log.open("wb") as output:
        # Port 0: it takes a free one itself, and says in its log which.
        process = subprocess.Popen(
            [sys.executable, "-m", "datasette", "serve", str(file), "-h", "127.0.0.1", "-p", "0"],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Datasette(_when_up(process, log), file)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def datasette(served: Datasette, monkeypatch: pytest.MonkeyPatch) -> Datasette:
    """It serves `ROWS`, and nothing else, as the connection `weather`."""
    with closing(sqlite3.connect(served.file)) as connection, connection:
        connection.execute("DELETE FROM readings")
        connection.executemany("INSERT INTO readings VALUES (:origin, :time_hour, :temp, :visib)", ROWS)
    monkeypatch.setenv("TIDEGATE_WEATHER_URL", served.url)
    return served


def _when_up(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_DEADLINE
    while time.monotonic() < deadline and process.poll() is None:
        running = re.search(r"running on (http://127\.0\.0\.1:\d+)", log.read_text())
        if running:
            try:
                if httpx.get(f"{running[1]}/-/versions.json").status_code == 200:
                    return running[1]
            except httpx.TransportError:
                pass
        time.sleep(0.05)
    raise AssertionError(f"datasette did not come up:\n{log.read_text()}")


PAGED: Params = {"_shape": "objects", "_size": 7, "_sort": "time_hour"}
READINGS = ApiExtract(
    "weather",
    "weather/readings.json",
    "rows",
    NextUrl(),
    PAGED,
    cursor="time_hour",
    start_param="time_hour__gte",
    end_param="time_hour__lte",
    clock=ApiClock("weather.json?sql=select+max(time_hour)+as+now+from+readings&_shape=array", "0.now"),
)


def test_datasette_is_walked_whole(datasette: Datasette) -> None:
    batches = list(READINGS.batches(Window()))
    assert [batch.num_rows for batch in batches] == [7] * 10 + [2]
    assert [row for batch in batches for row in batch.to_pylist()] == ROWS


def test_datasettes_link_headers_and_keys_lead_through_the_same_rows(datasette: Datasette) -> None:
    with_links = replace(READINGS, paginator=LinkHeader())
    assert read(with_links) == ROWS
    sql = "select rowid as id, * from readings where rowid > :after order by rowid limit 7"
    by_key = ApiExtract(
        "weather", "weather.json", "", Keyset("id", "after"), {"sql": sql, "after": 0, "_shape": "array"}
    )
    assert [row["id"] for row in read(by_key)] == list(range(1, len(ROWS) + 1))


def test_datasette_windows_of_any_partition_make_the_whole(datasette: Datasette) -> None:
    """Its upper bound is asked for inclusively, so that only the filter keeps a boundary hour from coming twice."""
    day = Window(FIRST_HOUR, FIRST_HOUR + 24 * HOUR)
    for step in (1 * HOUR, 5 * HOUR, 24 * HOUR):
        assert [row for part in day.split(step) for row in read(READINGS, part)] == ROWS


def test_datasette_pages_by_the_key_of_the_last_row_over_ties(datasette: Datasette) -> None:
    """Seven rows a page over three rows an hour: most pages end between rows of the same hour."""
    with HttpClient(datasette.url) as client:
        first = Request(client.url(READINGS.path, PAGED))
        pages = [visit.page for visit in Walk(client, Shape("rows"), NextUrl()).visits(first)]
    ended_in_a_tie = 0
    for page, following in pairwise(pages):
        last, token = page.last, following.answer.url.params["_next"]
        assert last is not None
        assert str(last["origin"]) in token and str(last["time_hour"])[:10] in token
        ended_in_a_tie += last["time_hour"] == next(following.tables())["time_hour"][0].as_py()
    assert ended_in_a_tie >= 5


def test_a_row_that_appears_behind_the_walk_shifts_no_page(datasette: Datasette) -> None:
    batches = READINGS.batches(Window())
    rows = next(batches).to_pylist()
    datasette.insert("AAA", "2013-01-08T00:00:00Z")
    rows += [row for batch in batches for row in batch.to_pylist()]
    assert rows == ROWS


def test_datasettes_data_tell_the_time(datasette: Datasette) -> None:
    assert READINGS.bound() == FIRST_HOUR + 23 * HOUR
