"""The children of many parents in parts: what a run commits on the way, and where the next one goes on."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import SourceUnavailable
from tasks.pipeline import run_pipeline
from tests.conftest import Databases
from tests.extract.family import (
    ITEMS,
    WHOLE,
    at,
    changed,
    children,
    family,
    loaded,
    places,
    rows,
)
from tests.extract.shop import Serve
from tests.scripted_server import Reply, Seen


def ledger(databases: Databases) -> list[str]:
    return [status for (status,) in rows(databases.target, "SELECT status FROM etl_runs ORDER BY started_at")]


@pytest.mark.parametrize("pipeline", [WHOLE, ITEMS], ids=["whole", "by time"])
@pytest.mark.parametrize("at_once", [1, 3])
def test_a_run_goes_on_behind_the_last_committed_parent(
    databases: Databases, serve: Serve, pipeline: Any, at_once: int
) -> None:
    api = family(50)
    api.refused = {"7": 404}
    api.before = lambda seen, order: Reply(status=500) if order == "30" else None
    server = serve(api)
    pipeline = changed(children(pipeline, checkpoint=4), concurrency=at_once)
    with pytest.raises(SourceUnavailable):
        run_pipeline(pipeline)
    done = {int(order) for _, order in loaded(databases.target)}
    assert done == set(range(28)) - {7}
    api.asked.clear()
    asked = len(server.seen)
    api.before = lambda seen, order: None
    report = run_pipeline(pipeline)
    again = set(map(int, api.asked[: 50 - 28]))
    assert again == set(range(28, 50))
    # The page before, to see that it is what it was; the page in hand and those after it.
    pages = [seen.params["page"] for seen in server.seen[asked:] if seen.target.startswith("/orders?")]
    assert pages[:5] == ["2", "3", "4", "5", "6"]
    assert report.windows[0].entry.counts.extracted == 4
    assert {int(order) for _, order in loaded(databases.target)} == set(range(50)) - {7}
    assert ledger(databases)[:8] == ["partial"] * 7 + ["failed"]


def test_the_parts_of_one_run_ask_no_parent_twice(databases: Databases, serve: Serve) -> None:
    api = family(50)
    server = serve(api)
    report = run_pipeline(children(WHOLE, checkpoint=4))
    assert len(report.windows) == 13
    assert sorted(api.asked, key=int) == [str(order) for order in range(50)]
    pages = [seen.params["page"] for seen in server.seen if seen.target.startswith("/orders?")]
    assert pages == ["1", "2", "3", "4", "5", "6"]


def test_where_the_parents_moved_none_is_missed_and_none_that_is_done_is_asked_again(
    databases: Databases, serve: Serve
) -> None:
    api = family(50)
    api.before = lambda seen, order: Reply(status=500) if order == "30" else None
    serve(api)
    pipeline = children(checkpoint=4)
    with pytest.raises(SourceUnavailable):
        run_pipeline(pipeline)
    api.before = lambda seen, order: None
    api.asked.clear()
    del api.items["3"]
    run_pipeline(pipeline)
    rest = api.asked[: 50 - 28]
    assert sorted(rest, key=int) == [str(order) for order in range(28, 50)]
    assert len(loaded(databases.target)) == 50


def test_without_places_a_window_whose_parents_moved_is_read_anew(databases: Databases, serve: Serve) -> None:
    api = family(50)
    api.before = lambda seen, order: Reply(status=500) if order == "30" else None
    serve(api)
    pipeline = children(WHOLE, checkpoint=4)
    with pytest.raises(SourceUnavailable):
        run_pipeline(pipeline)
    # The parents of the page in hand come later, and another is in front: none may be taken for done.
    api.items = {"new": [], **api.items}
    api.add("new", 100, 1)
    api.before = lambda seen, order: Reply(status=500) if order == "9" else None
    with pytest.raises(SourceUnavailable):
        run_pipeline(pipeline)
    assert (100, "new") in loaded(databases.target)
    api.before = lambda seen, order: None
    run_pipeline(pipeline)
    assert len(loaded(databases.target)) == 51


def test_another_declaration_begins_anew(sqlite: Databases, serve: Serve) -> None:
    api = family(20)
    api.before = lambda seen, order: Reply(status=500) if order == "15" else None
    serve(api)
    pipeline = children(WHOLE, checkpoint=4)
    with pytest.raises(SourceUnavailable):
        run_pipeline(pipeline)
    api.before = lambda seen, order: None
    assert run_pipeline(children(pipeline, params={"kind": "b"})).counts.extracted == 20


def test_an_explicit_window_is_gone_on_with_too(sqlite: Databases, serve: Serve) -> None:
    api = family(20)
    api.before = lambda seen, order: Reply(status=500) if order == "15" else None
    serve(api)
    pipeline = children(checkpoint=4)
    with pytest.raises(SourceUnavailable):
        run_pipeline(pipeline, at(0), at(2))
    api.before = lambda seen, order: None
    api.asked.clear()
    assert run_pipeline(pipeline, at(0), at(2)).counts.extracted == 8
    assert sorted(api.asked, key=int) == [str(order) for order in range(12, 20)]
    assert places(sqlite.target) == []


CHILD = """
from tests.extract.family import children
from tasks.pipeline import run_pipeline
run_pipeline(children(checkpoint=10))
"""


@pytest.mark.slow
def test_a_run_that_is_killed_is_gone_on_with_behind_its_last_commit(postgresql: Databases, serve: Serve) -> None:
    killed: list[int] = []

    def kill(seen: Seen, order: str) -> Reply | None:
        if order == "60" and not killed:
            killed.append(child.pid)
            os.kill(child.pid, signal.SIGKILL)
            return Reply(fault="reset")
        return None

    api = family(100)
    api.before = kill
    server = serve(api)
    environment = {**postgresql.environment, "TIDEGATE_SHOP_URL": server.url}
    child = subprocess.Popen([sys.executable, "-c", CHILD], env=environment, cwd=Path(__file__).parents[2])
    assert child.wait(timeout=120) == -signal.SIGKILL
    done = len(loaded(postgresql.target))
    assert 40 <= done <= 60 and done % 10 == 0
    api.asked.clear()
    run_pipeline(children(checkpoint=10))
    assert loaded(postgresql.target) == [(number, str(number)) for number in range(100)]
    assert sorted(map(int, api.asked[: 100 - done])) == list(range(done, 100))


def test_a_page_of_parents_that_is_refused_on_going_on_begins_the_list_anew(databases: Databases, serve: Serve) -> None:
    api = family(50)
    api.before = lambda seen, order: Reply(status=500) if order == "30" else None
    serve(api)
    pipeline = children(WHOLE, checkpoint=4)
    with pytest.raises(SourceUnavailable):
        run_pipeline(pipeline)
    gone = iter([True])

    def refuses(seen: Seen, order: str) -> Reply | None:
        if seen.params.get("page") == "3" and next(gone, False):
            return Reply(status=404)
        return Reply(status=500) if order == "6" else None

    api.before = refuses
    api.add("3", 100, 2)
    with pytest.raises(SourceUnavailable):
        run_pipeline(pipeline)
    # The list is read from its first page on now, and that is where the next run goes on.
    api.add("5", 101, 2)
    api.before = lambda seen, order: None
    run_pipeline(pipeline)
    assert {(100, "3"), (101, "5")} <= set(loaded(databases.target))
