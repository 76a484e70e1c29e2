"""`ApiChildren`: the items of every order, against a scripted server."""

import json
import threading
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tasks.errors import ConfigError
from tasks.extract.api import ApiExtract
from tasks.extract.api_children import ApiChildren
from tasks.extract.http.pace.rate import RateLimit
from tasks.extract.http.pace.retry import Retry
from tasks.pipeline import run_pipeline
from tasks.window import Window
from tests.conftest import Databases
from tests.extract.family import (
    CHILDREN,
    ITEMS,
    WHOLE,
    Orders,
    at,
    changed,
    children,
    family,
    letters,
    loaded,
    moment,
    parents,
    places,
    rows,
    since,
)
from tests.extract.shop import Serve
from tests.scripted_server import Reply, Seen

# What is read.


@pytest.mark.parametrize("pipeline", [WHOLE, ITEMS], ids=["whole", "by time"])
def test_every_page_of_every_parents_children_is_loaded_with_the_parents_column(
    databases: Databases, serve: Serve, pipeline: Any
) -> None:
    api = family(25, 21)
    serve(api)
    report = run_pipeline(pipeline)
    assert report.counts.inserted == 25 * 21
    assert loaded(databases.target) == [(number, str(number // 21)) for number in range(25 * 21)]
    assert sorted(api.asked) == sorted(str(order) for order in range(25) for _ in range(3))
    assert report.watermark == (at(1) if pipeline is ITEMS else None)


@pytest.mark.parametrize("at_once", [1, 5])
def test_children_come_in_the_order_of_their_parents(serve: Serve, at_once: int) -> None:
    serve(family(30, 12))
    extract = changed(WHOLE, concurrency=at_once).extract
    assert isinstance(extract, ApiChildren)
    found = [row["id"] for batch in extract.batches(Window()) for row in batch.to_pylist()]
    assert found == list(range(360))


@pytest.mark.parametrize(("together", "meet"), [(4, True), (5, False)])
def test_so_many_parents_are_asked_at_once_and_never_more(
    sqlite: Databases, serve: Serve, together: int, meet: bool
) -> None:
    """Four requests are at the server at the same time; a fifth does not come while they are there."""
    api = family(16)
    barrier, met = threading.Barrier(together), threading.Event()

    def wait() -> None:
        with suppress(threading.BrokenBarrierError):
            barrier.wait(timeout=20 if meet else 1)
            met.set()

    api.before = lambda seen, order: Reply({"items": api.items[order], "next": None}, first=wait) if order else None
    serve(api)
    run_pipeline(WHOLE)
    assert len(loaded(sqlite.target)) == 16
    assert met.is_set() is meet


@pytest.mark.parametrize("name", ["a/b", "a?b=c#d", "a b", "50%", "%2e%2e", "a%2Fb", "ä", "a;b", "..a", "a&b=c", "+"])
def test_whatever_is_in_a_parents_column_stays_in_its_segment(databases: Databases, serve: Serve, name: str) -> None:
    api = Orders(items={name: [], "plain": []})
    api.add(name, 1, 1)
    api.add("plain", 2, 1)
    server = serve(api)
    run_pipeline(ITEMS)
    assert loaded(databases.target) == [(1, name), (2, "plain")]
    asked = [seen.target.partition("?")[0] for seen in server.seen if "items" in seen.target]
    assert all(path.count("/") == 3 and path.endswith("/items") for path in asked)


@pytest.mark.parametrize("name", ["..", ".", "../..", "a/../b", "..\\x", "", None, {"a": 1}, "a\0b"])
def test_a_parent_that_would_lead_elsewhere_is_not_asked_and_is_a_dead_letter(
    databases: Databases, serve: Serve, name: object
) -> None:
    api = family(3)
    api.before = lambda seen, order: (
        Reply({"data": [{"id": "0"}, {"id": name}, {"id": "2"}] if seen.params["page"] == "1" else []})
        if seen.target.startswith("/orders?")
        else None
    )
    # Beside an object, texts would come as JSON.
    if isinstance(name, dict):
        api.before = lambda seen, order: (
            Reply({"data": [{"id": name}] if seen.params["page"] == "1" else [{"id": "0"}, {"id": "2"}]})
            if seen.target.startswith("/orders?") and int(seen.params["page"]) < 3
            else None
        )
    server = serve(api)
    run_pipeline(ITEMS)
    assert loaded(databases.target) == [(0, "0"), (2, "2")]
    assert {seen.target.partition("?")[0] for seen in server.seen} == {
        "/clock",
        "/orders",
        "/orders/0/items",
        "/orders/2/items",
    }
    [(status, _, _, reasons)] = letters(databases.target)
    assert status == "open" and "nothing was asked" in reasons


def test_a_whole_number_among_decimals_is_asked_for_as_a_whole_number(databases: Databases, serve: Serve) -> None:
    """A page of which one identity has a fraction comes as decimals, 7.0 among them."""
    asked: list[Any] = []

    def api(seen: Seen) -> Reply:
        if seen.target == "/orders":
            return Reply({"data": [{"id": 7}, {"id": 7.5}]})
        asked.append((seen.target, json.loads(seen.body)))
        return Reply({"items": []})

    serve(api)
    children = ApiExtract("shop", "/orders/{id}/items", "items", body={"of": "{id}"})
    extract = ApiChildren(ApiExtract("shop", "/orders", "data"), children)
    run_pipeline(replace(WHOLE, extract=extract))
    assert asked == [("/orders/7/items", {"of": 7}), ("/orders/7.5/items", {"of": "7.5"})]


def test_parameters_and_body_are_filled_too_with_the_values_as_they_are(databases: Databases, serve: Serve) -> None:
    def api(seen: Seen) -> Reply:
        if seen.target == "/orders":
            return Reply({"data": [{"id": 7, "shop": "a&b"}]})
        asked.append((seen.params, json.loads(seen.body)))
        return Reply({"items": [{"id": 1, "at": moment(1)}]})

    asked: list[Any] = []
    body = ["{id}", "no {id}", "{{id}}"]
    serve(api)
    extract = ApiChildren(
        ApiExtract("shop", "/orders", "data"),
        ApiExtract("shop", "search", "items", params={"shop": "{shop}", "n": 3}, body={"of": body}),
        include={"order_id": "shop"},
    )
    run_pipeline(replace(WHOLE, extract=extract))
    assert asked == [({"shop": "a&b", "n": "3"}, {"of": [7, "no 7", "{id}"]})]


@pytest.mark.parametrize(
    ("include", "why"),
    [({"at": "id"}, "the children have themselves"), ({"order_id": "nr"}, "theirs are id, customer")],
)
def test_an_included_column_that_is_there_already_or_nowhere_is_an_error(
    databases: Databases, serve: Serve, include: dict[str, str], why: str
) -> None:
    serve(family(2))
    with pytest.raises(ConfigError, match=why):
        run_pipeline(changed(include=include))
    assert loaded(databases.target) == []


def test_tombstones_among_the_children_delete(databases: Databases, serve: Serve) -> None:
    api = family(3, 2)
    serve(api)
    pipeline = children(deleted="gone")
    run_pipeline(pipeline)
    api.add("1", 2, 30)
    api.items["1"][-1]["gone"] = True
    api.hour = 48
    assert run_pipeline(pipeline).counts.deleted == 1
    assert loaded(databases.target) == [(0, "0"), (1, "0"), (3, "1"), (4, "2"), (5, "2")]


# From where on each parent is asked.


def test_each_parent_goes_on_at_its_own_watermark(databases: Databases, serve: Serve) -> None:
    api = Orders()
    api.add("a", 1, 3)
    api.add("b", 2, 20)
    server = serve(api)
    run_pipeline(ITEMS)
    api.hour = 48
    api.add("a", 3, 30)
    report = run_pipeline(ITEMS)
    assert since(server, "a") == [None, moment(3)] and since(server, "b") == [None, moment(20)]
    assert report.counts.inserted == 1 and len(loaded(databases.target)) == 3
    assert report.watermark == at(30) and report.covered_until == at(48)


def test_a_record_that_comes_late_but_is_above_its_parents_watermark_is_loaded(
    databases: Databases, serve: Serve
) -> None:
    api = Orders()
    api.add("a", 1, 3)
    api.add("b", 2, 20)
    serve(api)
    run_pipeline(ITEMS)
    api.add("a", 3, 10)
    api.hour = 48
    run_pipeline(ITEMS)
    assert loaded(databases.target) == [(1, "a"), (2, "b"), (3, "a")]


def test_a_new_parent_begins_at_the_beginning_although_the_pipeline_is_far_on(
    databases: Databases, serve: Serve
) -> None:
    api = family(2, hour=20)
    server = serve(api)
    run_pipeline(ITEMS)
    api.hour = 48
    api.add("new", 10, 2)
    run_pipeline(ITEMS)
    assert since(server, "new") == [None]
    assert (10, "new") in loaded(databases.target)


def test_a_new_parent_begins_at_initial_where_that_is_declared(databases: Databases, serve: Serve) -> None:
    api = family(1, hour=20)
    server = serve(api)
    pipeline = children(initial=at(5))
    run_pipeline(pipeline)
    api.hour = 48
    api.add("new", 10, 4)
    api.add("new", 11, 6)
    run_pipeline(pipeline)
    assert since(server, "0") == [moment(5), moment(20)] and since(server, "new") == [moment(5)]
    assert [number for number, order in loaded(databases.target) if order == "new"] == [11]


def test_lookback_counts_from_each_parents_watermark(databases: Databases, serve: Serve) -> None:
    api = Orders()
    api.add("a", 1, 8)
    api.add("b", 2, 20)
    server = serve(api)
    pipeline = children(lookback=timedelta(hours=2))
    run_pipeline(pipeline)
    api.hour = 48
    run_pipeline(pipeline)
    assert since(server, "a")[1:] == [moment(6)] and since(server, "b")[1:] == [moment(18)]


def test_what_a_parents_api_returns_outside_its_window_is_dropped(databases: Databases, serve: Serve) -> None:
    api = Orders()
    api.add("a", 1, 3)
    api.add("a", 2, 30)
    serve(api)
    pipeline = children(start_param=None)
    assert run_pipeline(pipeline).counts.extracted == 1
    api.hour = 48
    api.add("a", 3, 2)
    assert run_pipeline(pipeline).counts.extracted == 2
    assert loaded(databases.target) == [(1, "a"), (2, "a")]


def test_a_quiet_run_writes_nothing_and_asks_each_parent_once(databases: Databases, serve: Serve) -> None:
    api = family(12)
    serve(api)
    run_pipeline(ITEMS)
    api.asked.clear()
    api.hour = 48
    counts = run_pipeline(ITEMS).counts
    assert counts.unchanged == counts.extracted and len(api.asked) == 12


def test_an_explicit_window_asks_every_parent_for_exactly_that_and_touches_no_place(
    databases: Databases, serve: Serve
) -> None:
    api = family(2, hour=20)
    server = serve(api)
    run_pipeline(ITEMS)
    before = rows(databases.target, "SELECT * FROM etl_parents ORDER BY parent")
    api.hour = 48
    api.add("0", 10, 21)
    api.add("new", 11, 21)
    pipeline = children(end_param="until")
    run_pipeline(pipeline, at(21), at(22))
    asked = [seen.params for seen in server.seen if "until" in seen.params]
    assert asked == [{"since": moment(21), "until": moment(22)}] * 3
    assert rows(databases.target, "SELECT * FROM etl_parents ORDER BY parent") == before
    assert {10, 11} <= {number for number, _ in loaded(databases.target)}


def test_a_run_without_cursor_keeps_no_places(databases: Databases, serve: Serve) -> None:
    serve(family(3))
    run_pipeline(WHOLE)
    run_pipeline(WHOLE)
    assert places(databases.target) == []


def test_a_full_refresh_forgets_the_places_of_all_parents(databases: Databases, serve: Serve) -> None:
    api = family(8)
    server = serve(api)
    pipeline = children(checkpoint=2)
    run_pipeline(pipeline)
    del api.items["3"]
    report = run_pipeline(pipeline, full_refresh=True)
    assert report.counts.extracted == 7
    assert since(server, "5") == [None, None]
    assert places(databases.target) == ["0", "1", "2", "4", "5", "6", "7"]


def test_a_refresh_in_several_windows_forgets_them_once(databases: Databases, serve: Serve) -> None:
    api = Orders()
    api.add("a", 1, 3)
    api.add("a", 2, 9)
    server = serve(api)
    pipeline = replace(children(initial=at(0)), split=timedelta(hours=8))
    run_pipeline(pipeline)
    run_pipeline(pipeline, full_refresh=True)
    assert since(server, "a")[3:] == [moment(0), moment(3), moment(9)]


# Memory.


def test_neither_many_parents_nor_many_pages_of_one_are_held_at_once(serve: Serve) -> None:
    """What is asked for runs only so far ahead of what has been taken."""
    api = family(400, 1)
    api.items["0"] = [{"id": number, "at": moment(1)} for number in range(2_000)]
    server = serve(api)
    assert isinstance(WHOLE.extract, ApiChildren)
    batches = WHOLE.extract.batches(Window())
    for _ in range(5):
        next(batches)
    # Four parents at most, of each two pages that wait and one in hand; one page of parents.
    assert len(server.seen) <= 5 + 4 * 3 + 1
    batches.close()  # type: ignore[attr-defined]


# Declarations.


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"children": replace(CHILDREN, path="/items")}, "names a column of the parent"),
        ({"parents": ApiExtract("shop", "/orders", cursor="at")}, "children change without their parent"),
        ({"parents": ApiExtract("shop", "/orders", deleted="gone")}, "the parents are not loaded"),
        ({"parents": ApiExtract("shop", "/orders", conditional=True)}, "of many parents"),
        (
            {"children": replace(CHILDREN, end_param="until", split=timedelta(hours=1), concurrency=2)},
            "Leave that of the children at 1",
        ),
        ({"concurrency": 0}, "concurrency is positive"),
        ({"max_failed": 1.5}, "a share from 0 to 1, got 1.5"),
    ],
)
def test_settings_that_contradict_each_other_are_a_config_error(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=rf"API 'shop', '.*items': .*{why}"):
        changed(**settings)


def test_parents_and_children_share_a_client_unless_something_tells_them_apart(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(family(1))
    slower = (parents(retry=Retry(attempts=2)), False), (parents(rate=RateLimit(2)), False)
    for pipeline, shared in ((ITEMS, True), *slower):
        assert isinstance(pipeline.extract, ApiChildren)
        one, other = pipeline.extract.clients()
        assert (one is other) is shared
        one.close()
        other.close()
