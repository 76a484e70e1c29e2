"""Windows of an API: how times are written, which windows are asked for, what has not changed, and what is gone."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pandera.pandas as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from tasks.errors import ConfigError, SourceError, SourceUnavailable
from tasks.extract.api import ApiExtract
from tasks.extract.http.pace.retry import Retry
from tasks.extract.http.pages.numbered import Offset, PageNumber
from tasks.extract.http.pages.paginators import Cursor, NextUrl
from tasks.extract.http.times import TimeFormat, step, with_times, written
from tasks.load.replace import Replace
from tasks.pipeline import Pipeline, run_pipeline
from tasks.transform.contract import UtcTimestamp
from tasks.window import Window
from tests.conftest import Databases
from tests.extract.shop import BY_TIME, DAY, HOUR, WHOLE, RecordSchema, Serve, changed, ids, record
from tests.paged_api import PagedApi
from tests.scripted_server import Reply, ScriptedServer, Seen

NOW = {"now": (DAY + 24 * HOUR).isoformat()}
MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))


# How times are written.


@pytest.mark.parametrize(
    ("form", "down", "up"),
    [
        ("iso", "2013-01-08T06:00:00Z", "2013-01-08T06:00:01Z"),
        ("date", "2013-01-08", "2013-01-09"),
        ("epoch", 1357624800, 1357624801),
        ("epoch_ms", 1357624800250, 1357624800251),
    ],
)
def test_a_moment_is_rounded_to_what_its_form_can_say(form: TimeFormat, down: object, up: object) -> None:
    moment = datetime(2013, 1, 8, 6, 0, 0, 250_500, tzinfo=UTC)
    assert (written(moment, form), written(moment, form, up=True)) == (down, up)
    if form != "date":
        whole = moment.replace(microsecond=0)
        assert written(whole, form) == written(whole, form, up=True)


@given(MOMENTS, st.sampled_from(["iso", "date", "epoch", "epoch_ms"]))
def test_rounding_goes_less_than_a_step_and_never_past_the_moment(moment: datetime, form: TimeFormat) -> None:
    def read(value: str | float) -> datetime:
        if isinstance(value, str):
            return datetime.fromisoformat(value).replace(tzinfo=UTC)
        return datetime(1970, 1, 1, tzinfo=UTC) + value * step(form)

    assert timedelta(0) <= moment - read(written(moment, form)) < step(form)
    assert timedelta(0) <= read(written(moment, form, up=True)) - moment < step(form)


@pytest.mark.parametrize(("form", "per_second"), [("epoch", 1), ("epoch_ms", 1_000)])
def test_a_cursor_in_numbers_is_filtered_kept_exactly_and_asked_by(
    databases: Databases, serve: Serve, form: TimeFormat, per_second: int
) -> None:
    class MeasuredSchema(pa.DataFrameModel):
        id: int
        at: UtcTimestamp

    epoch = int(DAY.timestamp()) * per_second
    rows: list[dict[str, Any]] = [{"id": n, "at": epoch + n * 3_600 * per_second} for n in range(5)]
    rows += [{"id": 5, "at": str(epoch)}, {"id": 6, "at": epoch - 1}]
    server = serve(lambda seen: Reply({"rows": rows}))
    pipeline = changed(
        BY_TIME,
        path="x",
        clock=None,
        cursor_format=form,
        start_param="since",
        end_param="until",
        paginator=NextUrl("n", optional=True),
    )
    run_pipeline(replace(pipeline, schema=MeasuredSchema), DAY, DAY + 3 * HOUR)
    assert ids(databases.target) == [0, 1, 2, 5]
    assert server.seen[0].params == {"since": str(epoch), "until": str(epoch + 3 * 3_600 * per_second)}
    with databases.target.connect() as connection:
        found = connection.execute(text("SELECT at FROM fct_records WHERE id = 1")).scalar_one()
    assert str(found).startswith("2013-01-08 01:00:00")


@given(st.lists(st.integers(-(10**11), 10**11) | st.none(), min_size=1))
def test_milliseconds_become_the_very_moment(values: list[int | None]) -> None:
    import pyarrow as arrow

    times = with_times(arrow.table({"at": values}), "at", "epoch_ms").column("at").to_pylist()
    expected = [
        None if value is None else datetime(1970, 1, 1, tzinfo=UTC) + value * step("epoch_ms") for value in values
    ]
    assert times == expected


# Which windows are asked for.


class Capped:
    """An API that gives the first `most` records of a range, bounds included, and says nothing of the rest."""

    def __init__(self, records: list[dict[str, Any]], most: int) -> None:
        self.records, self.most = records, most

    def __call__(self, seen: Seen) -> Reply:
        if seen.target.startswith("/clock"):
            return Reply(NOW)
        since, until = (datetime.fromisoformat(seen.params[name]) for name in ("since", "until"))
        there = [one for one in self.records if since <= datetime.fromisoformat(one["at"]) <= until]
        return Reply({"rows": there[: self.most]})


CAPPED = changed(
    BY_TIME, path="x", paginator=NextUrl("next", optional=True), end_param="until", max_results=10, initial=DAY
)


def test_a_window_with_as_many_records_as_the_api_gives_is_asked_for_in_halves(
    databases: Databases, serve: Serve
) -> None:
    records = [record(number, number**2 / 500) for number in range(100)]
    server = serve(Capped(records, 10))
    assert run_pipeline(CAPPED).counts.inserted == 100
    assert ids(databases.target) == list(range(100))
    assert len(server.seen) < 60


def test_more_records_in_one_second_than_the_api_gives_are_an_error_and_not_a_loss(
    databases: Databases, serve: Serve
) -> None:
    serve(Capped([record(number, 3) for number in range(11)], 10))
    with pytest.raises(SourceError, match=r"as many as max_results says .* no shorter window"):
        run_pipeline(CAPPED)
    with databases.target.connect() as connection:
        found = connection.execute(text("SELECT watermark, covered_until FROM etl_watermarks")).one()
    assert found == (None, None)


def test_a_window_without_a_start_cannot_be_halved_and_says_so(databases: Databases, serve: Serve) -> None:
    serve(lambda seen: Reply(NOW if seen.target.startswith("/clock") else {"rows": [record(n) for n in range(10)]}))
    with pytest.raises(SourceError, match="Declare initial"):
        run_pipeline(changed(CAPPED, initial=None))


@pytest.mark.slow
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hours=st.lists(st.integers(0, 86_399), max_size=60), most=st.integers(2, 12), at_once=st.integers(1, 4))
def test_halves_bring_what_is_there_whatever_the_cap(
    hours: list[int], most: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [
        {"id": number, "at": (DAY + timedelta(seconds=second)).isoformat()} for number, second in enumerate(hours)
    ]
    with ScriptedServer(Capped(records, most)) as server:
        monkeypatch.setenv("TIDEGATE_SHOP_URL", server.url)
        extract = ApiExtract(
            "shop", "x", "rows", cursor="at", start_param="since", end_param="until", max_results=most,
            split=timedelta(hours=5), concurrency=at_once,
        )  # fmt: skip
        # Records of two neighbouring seconds come with either, since the bounds are included.
        crowded = any(sum(second in (other, other + 1) for other in hours) >= most for second in range(86_401))
        try:
            found = [row["id"] for rows in extract.batches(Window(DAY, DAY + 24 * HOUR)) for row in rows.to_pylist()]
        except SourceError as error:
            assert crowded and "max_results" in str(error)
        else:
            assert sorted(found) == list(range(len(hours)))


@pytest.mark.parametrize("at_once", [1, 4])
def test_split_windows_come_in_order_with_all_their_pages(databases: Databases, serve: Serve, at_once: int) -> None:
    def api(seen: Seen) -> Reply:
        if seen.target.startswith("/clock"):
            return Reply(NOW)
        return PagedApi([one for one in records if one["at"] < seen.params["until"]], size=2)(seen)

    records = [record(number, number / 4) for number in range(96)]
    server = serve(api)
    pipeline = changed(
        BY_TIME, path="offset", paginator=Offset(2), end_param="until", split=6 * HOUR, initial=DAY, concurrency=at_once
    )
    report = run_pipeline(pipeline)
    assert ids(databases.target) == list(range(96)) and report.counts.inserted == 96
    since = {seen.params["since"] for seen in server.seen if "since" in seen.params}
    assert since == {f"2013-01-08T{hour:02}:00:00Z" for hour in (0, 6, 12, 18)}


def test_a_record_on_the_border_of_two_split_windows_has_not_moved(databases: Databases, serve: Serve) -> None:
    """The API includes both bounds, so that it comes with either."""
    serve(Capped([record(number, number) for number in range(24)], 1_000))
    pipeline = changed(CAPPED, max_results=None, split=6 * HOUR, unique=["id"])
    assert run_pipeline(pipeline).counts.inserted == 24


def test_a_split_window_is_gone_on_with_in_its_leg(databases: Databases, serve: Serve) -> None:
    def api(seen: Seen) -> Reply:
        if seen.target.startswith("/clock"):
            return Reply(NOW)
        if broken and seen.params["since"] == "2013-01-08T12:00:00Z" and seen.params["page"] == "3":
            return Reply(status=500)
        return PagedApi([one for one in records if one["at"] < seen.params["until"].rstrip("Z")], size=10)(seen)

    broken = True
    records = [record(number, number / 10) for number in range(240)]
    server = serve(api)
    pipeline = changed(BY_TIME, end_param="until", split=6 * HOUR, initial=DAY)
    with pytest.raises(SourceUnavailable):
        run_pipeline(pipeline)
    done = len(ids(databases.target))
    assert 120 <= done < 180
    broken, asked = False, len(server.seen)
    run_pipeline(pipeline)
    assert ids(databases.target) == list(range(240))
    # The rest of the window, and then what may have come since its newest record.
    since = {seen.params["since"] for seen in server.seen[asked:] if "since" in seen.params}
    assert since == {"2013-01-08T12:00:00Z", "2013-01-08T18:00:00Z", "2013-01-08T23:54:00Z"}


# What has not changed.


class Tagged:
    """An answer that says what version it is, by a tag or by a time."""

    def __init__(self, by: str) -> None:
        self.by, self.version, self.rows = by, 1, [record(1), record(2)]

    def __call__(self, seen: Seen) -> Reply:
        if self.by == "tag":
            told, asked = {"ETag": f'"v{self.version}"'}, seen.headers.get("if-none-match")
        else:
            told, asked = {"Last-Modified": self._time(0)}, seen.headers.get("if-modified-since")
        if asked in told.values():
            return Reply(status=304, headers=told)
        return Reply({"rows": self.rows}, headers={**told, "Date": self._time(2 if self.by == "time" else 0)})

    def _time(self, minutes: int) -> str:
        return f"Tue, 08 Jan 2013 0{self.version}:0{minutes}:00 GMT"


CONDITIONAL = Pipeline(
    name="records",
    extract=ApiExtract("shop", "x", "rows", conditional=True, retry=Retry(attempts=1)),
    schema=RecordSchema,
    load=Replace("target", "fct_records", key=["id"], max_shrink=1.0),
)


@pytest.mark.parametrize("by", ["tag", "time"])
def test_an_answer_that_has_not_changed_is_not_sent_and_deletes_nothing(
    databases: Databases, serve: Serve, by: str
) -> None:
    api = Tagged(by)
    server = serve(api)
    assert run_pipeline(CONDITIONAL).counts.inserted == 2
    report = run_pipeline(CONDITIONAL)
    assert report.counts.extracted == 0 and report.counts.deleted == 0
    assert ids(databases.target) == [1, 2]
    first = report.covered_until
    assert len({"if-none-match", "if-modified-since"} & set(server.seen[1].headers)) == 1
    api.version, api.rows = 2, [record(2), record(3)]
    report = run_pipeline(CONDITIONAL)
    assert ids(databases.target) == [2, 3]
    assert report.covered_until is not None and first is not None and report.covered_until > first


def test_a_time_within_the_minute_of_the_answer_proves_nothing(databases: Databases, serve: Serve) -> None:
    told = {"Last-Modified": "Tue, 08 Jan 2013 01:00:00 GMT", "Date": "Tue, 08 Jan 2013 01:00:59 GMT"}
    server = serve(lambda seen: Reply({"rows": [record(1)]}, headers=told))
    run_pipeline(CONDITIONAL)
    run_pipeline(CONDITIONAL)
    assert "if-modified-since" not in server.seen[1].headers


@pytest.mark.parametrize(
    "other",
    [
        replace(CONDITIONAL, transform=lambda frame: frame.assign(id=frame["id"] + 1)),
        changed(CONDITIONAL, params={"kind": "b"}),
    ],
    ids=["transform", "request"],
)
def test_another_transform_or_request_asks_for_everything(databases: Databases, serve: Serve, other: Pipeline) -> None:
    server = serve(Tagged("tag"))
    run_pipeline(CONDITIONAL)
    assert run_pipeline(other).counts.extracted == 2
    assert "if-none-match" not in server.seen[1].headers


def test_a_full_refresh_asks_for_everything(databases: Databases, serve: Serve) -> None:
    serve(Tagged("tag"))
    run_pipeline(CONDITIONAL)
    assert run_pipeline(CONDITIONAL, full_refresh=True).counts.extracted == 2


def test_an_answer_that_was_refused_is_asked_for_again(databases: Databases, serve: Serve) -> None:
    api = Tagged("tag")
    server = serve(api)
    run_pipeline(CONDITIONAL)
    api.version, api.rows = 2, [{"id": "x", "at": "never"}, {"id": "y", "at": "never"}, record(1)]
    for _ in range(2):
        with pytest.raises(Exception, match="rows were rejected"):
            run_pipeline(CONDITIONAL)
    assert server.seen[2].headers["if-none-match"] == '"v1"'
    assert ids(databases.target) == [1, 2]


def test_a_304_that_nobody_asked_for_is_an_error(databases: Databases, serve: Serve) -> None:
    serve(lambda seen: Reply(status=304))
    with pytest.raises(SourceError, match="304"):
        run_pipeline(CONDITIONAL)


# What is gone.


@pytest.mark.parametrize("mark", [True, 1, "2013-01-08T05:00:00Z"])
def test_a_tombstone_deletes_its_row_and_counts_as_deleted(databases: Databases, serve: Serve, mark: object) -> None:
    pipeline = changed(BY_TIME, deleted="gone")
    api = PagedApi([record(1, 1), record(2, 1) | {"gone": None}, record(3, 1) | {"gone": False}])
    api.before = lambda seen: Reply(NOW) if seen.target.startswith("/clock") else None
    serve(api)
    assert run_pipeline(pipeline).counts.inserted == 3
    api.records[:] = [record(1, 2) | {"gone": mark}, record(2, 1), record(3, 1) | {"gone": "false"}]
    counts = run_pipeline(pipeline, full_refresh=True).counts
    assert (counts.deleted, counts.unchanged) == (1, 2)
    assert ids(databases.target) == [2, 3]
    assert run_pipeline(pipeline, full_refresh=True).counts.deleted == 0


def test_a_tombstone_older_than_the_row_deletes_nothing(databases: Databases, serve: Serve) -> None:
    pipeline = changed(BY_TIME, deleted="gone")
    api = PagedApi([record(1, 5), record(2, 5)])
    api.before = lambda seen: Reply(NOW) if seen.target.startswith("/clock") else None
    serve(api)
    run_pipeline(pipeline)
    api.records[:] = [record(1, 2) | {"gone": True}, record(2, 6) | {"gone": True}]
    counts = run_pipeline(pipeline, full_refresh=True).counts
    assert (counts.stale, counts.deleted) == (1, 1)
    assert ids(databases.target) == [1]


def test_a_tombstone_whose_time_cannot_be_read_is_a_dead_letter_and_deletes_nothing(
    databases: Databases, serve: Serve
) -> None:
    pipeline = changed(BY_TIME, deleted="gone")
    api = PagedApi([record(number, 5) for number in range(4)])
    api.before = lambda seen: Reply(NOW) if seen.target.startswith("/clock") else None
    serve(api)
    run_pipeline(pipeline)
    api.records[:2] = [{"id": 0, "at": None, "gone": True}, {"id": 1, "at": "nonsense", "gone": True}]
    counts = run_pipeline(pipeline, full_refresh=True).counts
    assert (counts.rejected, counts.deleted) == (2, 0)
    assert ids(databases.target) == [0, 1, 2, 3]


def test_of_a_row_and_its_tombstone_in_one_window_the_newer_counts(databases: Databases, serve: Serve) -> None:
    pipeline = changed(BY_TIME, deleted="gone")
    api = PagedApi([record(1, 5) | {"gone": True}, record(1, 3), record(2, 3) | {"gone": True}, record(2, 5)])
    api.before = lambda seen: Reply(NOW) if seen.target.startswith("/clock") else None
    serve(api)
    assert run_pipeline(pipeline).counts.deduplicated == 2
    assert ids(databases.target) == [2]


# Records that move.


def drifting(seen: Seen) -> Reply | None:
    """A record is put in front while the second page is asked for."""
    pages = {"1": [1, 2], "2": [2, 3], "3": [4]}
    number = seen.params.get("page", "")
    return Reply({"rows": [record(one) for one in pages.get(number, [])]})


DRIFTING = changed(WHOLE, unique=["id"])


def test_a_record_that_moves_to_another_page_is_noticed(databases: Databases, serve: Serve) -> None:
    serve(PagedApi([], before=drifting))
    with pytest.raises(SourceUnavailable, match="id=2 was on an earlier page already"):
        run_pipeline(DRIFTING)


def test_or_passed_over_where_that_is_declared_and_said(
    databases: Databases, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    serve(PagedApi([], before=drifting))
    with caplog.at_level("INFO", logger="tidegate"):
        counts = run_pipeline(changed(DRIFTING, on_drift="dedup")).counts
    assert (counts.extracted, counts.inserted) == (4, 4)
    assert "1 records came on two pages" in caplog.text


def test_a_record_that_moved_and_changed_is_handed_on_and_the_newer_one_counts(
    databases: Databases, serve: Serve
) -> None:
    pages = {"1": [record(1, 1), record(2, 2)], "2": [record(2, 3), record(3, 1)]}
    api = PagedApi([])
    api.before = lambda seen: Reply(
        NOW if seen.target.startswith("/clock") else {"rows": pages.get(seen.params["page"], [])}
    )
    serve(api)
    pipeline = changed(BY_TIME, unique=["id"], on_drift="dedup")
    counts = run_pipeline(pipeline).counts
    assert (counts.extracted, counts.deduplicated) == (4, 1)
    with databases.target.connect() as connection:
        assert "03:00" in str(connection.execute(text("SELECT at FROM fct_records WHERE id = 2")).scalar_one())


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"split": HOUR}, "without a start_param"),
        ({"max_results": 10}, "without a start_param"),
        ({"cursor": "at", "start_param": "since", "max_results": 10}, "and an end_param"),
        ({"concurrency": 2}, "nothing to ask for at once"),
        ({"conditional": True, "paginator": PageNumber()}, "there are many"),
        ({"conditional": True, "cursor": "at"}, "would be missed"),
        ({"concurrency": 0}, "are positive"),
        ({"checkpoint": 0}, "are positive"),
        ({"cursor": "at", "start_param": "since", "end_param": "until", "split": timedelta(0)}, "are positive"),
        ({"cursor": "at", "start_param": "since", "conditional": True}, "there are many"),
    ],
)
def test_settings_that_contradict_each_other_are_a_config_error(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=f"API 'shop', '/x': .*{why}"):
        ApiExtract("shop", "/x", **settings)


def test_a_post_carries_window_and_page_in_its_body(databases: Databases, serve: Serve) -> None:
    api = PagedApi([record(number, 1) for number in range(35)])
    api.before = lambda seen: Reply(NOW) if seen.target.startswith("/clock") else None
    server = serve(api)
    pipeline = changed(
        BY_TIME,
        path="search",
        body={"page": {"limit": 10}},
        paginator=Cursor("next", "$.page.cursor"),
        start_param="$.filter.since",
        initial=DAY,
    )
    run_pipeline(pipeline)
    assert ids(databases.target) == list(range(35))
    bodies = [json.loads(seen.body) for seen in server.seen if seen.body]
    assert [body["page"].get("cursor") for body in bodies] == [None, "10", "20", "30"]
    assert all(body["filter"] == {"since": "2013-01-08T00:00:00Z"} for body in bodies)
