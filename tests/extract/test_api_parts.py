"""An API's window in parts: what a run commits on the way, and where the next one goes on."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import Engine, text

from tasks.errors import ConfigError, SourceError, SourceUnavailable, TargetUnavailable
from tasks.extract.http.auth.credentials import Bearer
from tasks.extract.http.pages.numbered import Keyset, Offset, PageNumber
from tasks.extract.http.pages.paginators import Cursor, NextUrl, Paginator
from tasks.load.append import Append
from tasks.load.commit import Commit
from tasks.load.replace import Replace
from tasks.load.strategy import Load
from tasks.pipeline import run_pipeline
from tasks.secret import Secret
from tests.conftest import Databases
from tests.extract.shop import BY_TIME, DAY, HOUR, WHOLE, Serve, changed, ids, record
from tests.paged_api import PagedApi
from tests.scripted_server import Reply, Seen
from tests.variants import slow_but

PATHS: dict[str, Paginator] = {
    "number": PageNumber(),
    "offset": Offset(10),
    "cursor": Cursor("next", "cursor"),
    "keyset": Keyset("id", "after"),
}


def ledger(target: Engine) -> list[str]:
    with target.connect() as connection:
        return list(connection.execute(text("SELECT status FROM etl_runs ORDER BY started_at, finished_at")).scalars())


class Failing:
    """Answers one request, and those after it, with an error until it is mended."""

    def __init__(self, answers: int, status: int = 500) -> None:
        self.left = answers
        self.status = status

    def __call__(self, seen: Seen) -> Reply | None:
        if seen.target.startswith("/clock"):
            return Reply({"now": (DAY + 24 * HOUR).isoformat()})
        self.left -= 1
        return Reply(status=self.status) if self.left < 0 else None

    def mend(self, answers: int = 10**6) -> None:
        self.left = answers


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("at_once", slow_but([3], [1, 3]))
def test_a_run_goes_on_behind_the_last_committed_page(
    databases: Databases, serve: Serve, path: str, at_once: int
) -> None:
    failing = Failing(10)
    server = serve(PagedApi([record(number) for number in range(200)], before=failing))
    numbered = path in ("number", "offset")
    pipeline = changed(WHOLE, path=path, paginator=PATHS[path], concurrency=at_once if numbered else 1)
    with pytest.raises(SourceUnavailable):
        run_pipeline(pipeline)
    assert ids(databases.target) == list(range(80))
    asked = len(server.seen)
    failing.mend()
    report = run_pipeline(pipeline)
    assert ids(databases.target) == list(range(200))
    # 12 pages are left; one more shows that they begin where they did, and an empty one where they end.
    assert report.counts.extracted == 120
    assert len(server.seen) - asked <= 14 + at_once
    first, second = ["partial", "partial", "failed"], ["partial"] * (2 if path == "cursor" else 3) + ["committed"]
    assert ledger(databases.target) == first + second


def test_the_parts_of_one_run_ask_for_no_page_twice(databases: Databases, serve: Serve) -> None:
    server = serve(PagedApi([record(number) for number in range(200)]))
    report = run_pipeline(WHOLE)
    assert len(report.windows) == 6
    assert [seen.params["page"] for seen in server.seen] == [str(page) for page in range(1, 22)]
    assert report.counts.inserted == 200
    assert run_pipeline(WHOLE).counts.unchanged == 200


@pytest.mark.parametrize("at_once", [1, 3])
def test_the_ledger_tells_how_many_requests_each_part_took(sqlite: Databases, serve: Serve, at_once: int) -> None:
    tripped = iter([None] * 3 + [Reply(status=500)])
    server = serve(PagedApi([record(number) for number in range(95)], before=lambda seen: next(tripped, None)))
    report = run_pipeline(changed(WHOLE, concurrency=at_once))
    with sqlite.target.connect() as connection:
        kept = connection.execute(text("SELECT requests FROM etl_runs ORDER BY finished_at")).scalars().all()
    # 10 pages and one that was asked for twice; what is asked for ahead counts where it was sent.
    assert sum(kept) == len(server.seen) >= 11
    assert len(kept) == len(report.windows) == 3 and min(kept) > 0


def test_parts_leave_the_watermark_until_the_window_is_whole(databases: Databases, serve: Serve) -> None:
    failing = Failing(10)
    # The newest record is on the first page, and must count all the same.
    records = [record(number, 20 - number / 20) for number in range(200)]
    serve(PagedApi(records, before=failing))
    with pytest.raises(SourceUnavailable):
        run_pipeline(BY_TIME)
    with databases.target.connect() as connection:
        found = connection.execute(text("SELECT watermark, covered_until FROM etl_watermarks")).one()
    assert found == (None, None)
    failing.mend()
    report = run_pipeline(BY_TIME)
    assert report.watermark == DAY + 20 * HOUR
    assert report.covered_until == DAY + 24 * HOUR
    assert ids(databases.target) == list(range(200))


def test_a_window_that_was_left_is_finished_before_what_came_since(databases: Databases, serve: Serve) -> None:
    failing = Failing(10)
    api = PagedApi([record(number, 1) for number in range(100)], before=failing)
    server = serve(api)
    with pytest.raises(SourceUnavailable):
        run_pipeline(changed(BY_TIME, end_param="until"))
    api.records += [record(number, 30) for number in range(100, 120)]
    api.before = lambda seen: (
        Reply({"now": (DAY + 48 * HOUR).isoformat()}) if seen.target.startswith("/clock") else None
    )
    asked = len(server.seen)
    report = run_pipeline(changed(BY_TIME, end_param="until"))
    assert ids(databases.target) == list(range(120))
    until = [seen.params["until"] for seen in server.seen[asked:] if "until" in seen.params]
    assert sorted(until) == until and set(until) == {"2013-01-09T00:00:00Z", "2013-01-10T00:00:00Z"}
    assert report.covered_until == DAY + 48 * HOUR
    assert report.windows[0].attempt.window.end == DAY + 24 * HOUR


def test_an_explicit_window_is_gone_on_with_too_and_read_anew_when_it_is_done(
    databases: Databases, serve: Serve
) -> None:
    failing = Failing(10)
    server = serve(PagedApi([record(number, 1) for number in range(200)], before=failing))
    with pytest.raises(SourceUnavailable):
        run_pipeline(BY_TIME, DAY, DAY + 2 * HOUR)
    failing.mend()
    run_pipeline(BY_TIME, DAY, DAY + 3 * HOUR)
    pages = [seen.params["page"] for seen in server.seen if "page" in seen.params]
    assert pages.count("1") == 2, "another window is another walk"
    run_pipeline(BY_TIME, DAY, DAY + 2 * HOUR)
    pages = [seen.params["page"] for seen in server.seen if "page" in seen.params]
    assert pages.count("1") == 2
    run_pipeline(BY_TIME, DAY, DAY + 2 * HOUR)
    pages = [seen.params["page"] for seen in server.seen if "page" in seen.params]
    assert pages.count("1") == 3
    assert ids(databases.target) == list(range(200))


def test_where_the_last_page_is_not_what_it_was_the_window_is_begun_anew(
    databases: Databases, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    failing = Failing(10)
    api = PagedApi([record(number) for number in range(200)], before=failing)
    server = serve(api)
    with pytest.raises(SourceUnavailable):
        run_pipeline(WHOLE)
    # Everything moves: going on at page 9 would lose what was on page 9 and is on page 8 now.
    del api.records[3:8]
    failing.mend()
    asked = len(server.seen)
    with caplog.at_level("INFO", logger="tidegate"):
        run_pipeline(WHOLE)
    assert server.seen[asked].params["page"] == "8" and server.seen[asked + 1].params["page"] == "1"
    assert set(range(200)) - set(ids(databases.target)) == set()
    assert "begun anew" in caplog.text


@pytest.mark.parametrize("status", [400, 404, 410, 422])
def test_a_token_that_the_api_has_forgotten_begins_the_window_anew(
    databases: Databases, serve: Serve, status: int
) -> None:
    failing = Failing(10)
    api = PagedApi([record(number) for number in range(200)], before=failing)
    serve(api)
    pipeline = changed(WHOLE, path="cursor", paginator=PATHS["cursor"])
    with pytest.raises(SourceUnavailable):
        run_pipeline(pipeline)
    api.before = lambda seen: Reply(status=status) if seen.params.get("cursor") == "80" and first() else None
    refused = iter([True])

    def first() -> bool:
        return next(refused, False)

    run_pipeline(pipeline)
    assert ids(databases.target) == list(range(200))


def test_another_refusal_is_an_error_and_keeps_the_place(databases: Databases, serve: Serve) -> None:
    failing = Failing(10)
    api = PagedApi([record(number) for number in range(200)], before=failing)
    server = serve(api)
    pipeline = changed(WHOLE, path="cursor", paginator=PATHS["cursor"])
    with pytest.raises(SourceUnavailable):
        run_pipeline(pipeline)
    failing.mend(0)
    failing.status = 401
    with pytest.raises(SourceError, match="401"):
        run_pipeline(pipeline)
    failing.mend()
    asked = len(server.seen)
    run_pipeline(pipeline)
    assert server.seen[asked].params["cursor"] == "80"
    assert ids(databases.target) == list(range(200))


@pytest.mark.parametrize("how", [{"params": {"kind": "b"}}, {"path": "offset", "paginator": Offset(10)}])
def test_another_declaration_begins_anew(databases: Databases, serve: Serve, how: dict[str, Any]) -> None:
    failing = Failing(10)
    serve(PagedApi([record(number) for number in range(200)], before=failing))
    with pytest.raises(SourceUnavailable):
        run_pipeline(WHOLE)
    failing.mend()
    assert run_pipeline(changed(WHOLE, **how)).counts.extracted == 200


def test_a_full_refresh_begins_anew(databases: Databases, serve: Serve) -> None:
    failing = Failing(10)
    serve(PagedApi([record(number) for number in range(200)], before=failing))
    with pytest.raises(SourceUnavailable):
        run_pipeline(WHOLE)
    failing.mend()
    assert run_pipeline(WHOLE, full_refresh=True).counts.extracted == 200


def test_a_load_that_takes_everything_at_once_commits_once(databases: Databases, serve: Serve) -> None:
    failing = Failing(10)
    serve(PagedApi([record(number) for number in range(200)], before=failing))
    pipeline = replace(WHOLE, load=Replace("target", "fct_records", key=["id"]))
    with pytest.raises(SourceUnavailable):
        run_pipeline(pipeline)
    assert ids(databases.target) == []
    failing.mend()
    assert len(run_pipeline(pipeline).windows) == 1
    assert ids(databases.target) == list(range(200))


def test_a_part_that_breaks_off_is_tried_again_from_its_beginning(databases: Databases, serve: Serve) -> None:
    failing = Failing(10)
    api = PagedApi([record(number) for number in range(200)], before=failing)
    server = serve(api)

    def twice(seen: Seen) -> Reply | None:
        broken = server.seen.count(seen) <= 2 and seen.params["page"] == "11"
        return Reply(status=503) if broken else None

    api.before = twice
    report = run_pipeline(replace(WHOLE, max_attempts=2, load=Append("target", "fct_records", key=["id"])))
    assert ids(databases.target) == list(range(200))
    assert report.counts.inserted == 200
    # Page 8 shows that the place is right; 9 and 10 are read again with the part that broke off.
    pages = [int(seen.params["page"]) for seen in server.seen]
    assert pages == [*range(1, 12), 11, *range(8, 22)]


CHILD = """
from tests.extract.shop import WHOLE, changed
from tasks.pipeline import run_pipeline
run_pipeline(changed(WHOLE, checkpoint=40))
"""


@pytest.mark.slow
def test_a_walk_of_1000_pages_killed_at_page_600_asks_for_450_more_at_most(postgresql: Databases, serve: Serve) -> None:
    def kill(seen: Seen) -> Reply | None:
        if seen.params["page"] == "600" and child.returncode is None:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            return Reply(fault="reset")
        return None

    server = serve(PagedApi([record(number) for number in range(10_000)], before=kill))
    environment = {**postgresql.environment, "TIDEGATE_SHOP_URL": server.url}
    child = subprocess.Popen([sys.executable, "-c", CHILD], env=environment, cwd=Path(__file__).parents[2])
    child.wait()
    assert child.returncode == -signal.SIGKILL
    asked = len(server.seen)
    assert asked == 600
    run_pipeline(changed(WHOLE, checkpoint=40))
    assert ids(postgresql.target) == list(range(10_000))
    print(f"{len(server.seen) - asked} requests after the kill")
    assert len(server.seen) - asked <= 450


class FailingCommit:
    """The target breaks off at the commits of these numbers, once each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *numbers: int) -> None:
        self.numbers, self.count = set(numbers), 0
        commit = Commit._commit

        def broken(this: Commit, connection: Any) -> Any:
            self.count += 1
            if self.count in self.numbers:
                raise TargetUnavailable("the target broke off")
            return commit(this, connection)

        monkeypatch.setattr(Commit, "_commit", broken)


@pytest.mark.parametrize("number", slow_but([1, 5], [1, 2, 5, 6]))
@pytest.mark.parametrize("load", [WHOLE.load, Replace("target", "fct_records", ["id"])])
def test_what_a_failed_commit_would_have_written_is_read_again_by_the_next_attempt(
    databases: Databases, serve: Serve, monkeypatch: pytest.MonkeyPatch, load: Load, number: int
) -> None:
    """Also at the end of a window, where nothing is left to go on with, and in a run that is not the first."""
    api = PagedApi([record(number) for number in range(100)])
    serve(api)
    pipeline = replace(WHOLE, load=load, max_attempts=2)
    run_pipeline(pipeline)
    api.records += [record(number) for number in range(100, 210)]
    FailingCommit(monkeypatch, number)
    report = run_pipeline(pipeline)
    assert report.counts.inserted == 110
    assert ids(databases.target) == list(range(210))


def test_a_load_that_takes_everything_begins_anew_where_another_broke_off(databases: Databases, serve: Serve) -> None:
    failing = Failing(10)
    serve(PagedApi([record(number) for number in range(200)], before=failing))
    with pytest.raises(SourceUnavailable):
        run_pipeline(WHOLE)
    failing.mend()
    counts = run_pipeline(replace(WHOLE, load=Replace("target", "fct_records", key=["id"]))).counts
    assert (counts.extracted, counts.deleted) == (200, 0)
    assert ids(databases.target) == list(range(200))


@pytest.mark.parametrize(
    ("hidden", "parts"), [("/%s/number?page={}", 1), ("/number?page={}&auth=Bearer%%20%s", 5)], ids=["path", "query"]
)
def test_a_place_that_would_hold_a_secret_is_not_kept(
    databases: Databases, serve: Serve, monkeypatch: pytest.MonkeyPatch, hidden: str, parts: int
) -> None:
    """The source's own links repeat the key, in the path, or where it can be left out."""
    secret = "sup3r/s3cret+pw"
    monkeypatch.setenv("TIDEGATE_SECRET_SHOP", secret)
    link = hidden % quote(secret, safe="")

    def page(seen: Seen) -> Reply:
        number = int(seen.params.get("page", 1))
        return Reply({"rows": [record(number)], "next": link.format(number + 1) if number < 20 else None})

    serve(page)
    report = run_pipeline(changed(WHOLE, paginator=NextUrl("next"), auth=Bearer(Secret("shop"))))
    assert len(report.windows) == parts and report.counts.inserted == 20
    with databases.target.connect() as connection:
        kept = connection.execute(text("SELECT position FROM etl_runs")).scalars().all()
    assert "s3cret" not in str(kept)


def test_the_error_rate_is_that_of_the_window_and_not_of_its_last_part(databases: Databases, serve: Serve) -> None:
    serve(PagedApi([*(record(number) for number in range(40)), {"id": 40, "at": "never"}]))
    counts = run_pipeline(WHOLE).counts
    assert (counts.inserted, counts.rejected) == (40, 1)


def test_a_window_left_under_another_cursor_is_not_finished_but_planned_anew(
    databases: Databases, serve: Serve
) -> None:
    failing = Failing(10)
    serve(PagedApi([record(number, 1) | {"changed": record(number, 2)["at"]} for number in range(200)], before=failing))
    with pytest.raises(SourceUnavailable):
        run_pipeline(WHOLE)
    failing.mend()
    report = run_pipeline(BY_TIME)
    assert report.counts.extracted == 200
    assert report.covered_until == DAY + 24 * HOUR


def test_an_explicit_window_that_another_contract_began_is_read_anew(databases: Databases, serve: Serve) -> None:
    failing = Failing(10)
    serve(PagedApi([record(number, 1) for number in range(200)], before=failing))
    with pytest.raises(SourceUnavailable):
        run_pipeline(BY_TIME, DAY, DAY + 2 * HOUR)
    failing.mend()
    mended = replace(BY_TIME, transform=lambda frame: frame.assign(id=frame["id"] + 1_000))
    assert run_pipeline(mended, DAY, DAY + 2 * HOUR).counts.extracted == 200
    # And what it has since read whole is not gone on with by the first.
    assert run_pipeline(BY_TIME, DAY, DAY + 2 * HOUR).counts.extracted == 200


def test_what_another_kind_of_extract_left_is_passed_over(databases: Databases, serve: Serve) -> None:
    serve(PagedApi([record(number) for number in range(20)]))
    run_pipeline(WHOLE)
    for position in ("0/16B3748", "123", "[1]", '{"children": null}'):
        with databases.target.begin() as connection:
            connection.execute(text("UPDATE etl_watermarks SET position = :position"), {"position": position})
        assert run_pipeline(WHOLE).counts.unchanged == 20


def test_replace_with_a_cursor_is_refused_since_it_would_delete_what_lies_outside_the_window() -> None:
    with pytest.raises(ConfigError, match="only a window of 'number' comes in"):
        run_pipeline(replace(BY_TIME, load=Replace("target", "fct_records", key=["id"])))
