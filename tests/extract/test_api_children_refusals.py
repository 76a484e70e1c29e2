"""Parents whose children an API refuses: dead letters, and when they are an error of the run instead."""

import json
from dataclasses import replace

import pytest

from tasks.errors import SourceError, SourceUnavailable
from tasks.extract.api_children import ApiChildren
from tasks.load.replace import Replace
from tasks.pipeline import Sla, run_pipeline
from tasks.window import Window
from tests.conftest import Databases
from tests.extract.family import (
    ITEMS,
    WHOLE,
    at,
    changed,
    children,
    family,
    letters,
    loaded,
    moment,
    places,
    rows,
    since,
)
from tests.extract.shop import Serve
from tests.scripted_server import Reply


@pytest.mark.parametrize("status", [403, 404, 410, 451])
def test_a_parent_that_is_refused_is_a_dead_letter_and_the_others_are_loaded(
    databases: Databases, serve: Serve, status: int
) -> None:
    api = family(12)
    api.refused["5"] = status
    server = serve(api)
    report = run_pipeline(children(params={"api_key": "s3cret-k3y"}))
    assert [int(order) for _, order in loaded(databases.target)] == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert (report.counts.extracted, report.counts.inserted, report.counts.rejected) == (12, 11, 1)
    [(state, seen, record, reasons)] = letters(databases.target)
    assert (state, seen) == ("open", 1)
    assert json.loads(record) == {"id": "5", "customer": "of 5"}
    [reason] = json.loads(reasons)
    assert reason["rule"] == "source answers"
    assert reason["value"] == f"{status} to GET {server.url}/orders/5/items?api_key=***"
    assert "5" not in places(databases.target)


def test_refused_parents_are_said(sqlite: Databases, serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    api = family(6)
    api.refused = {"2": 404, "3": 403}
    serve(api)
    with caplog.at_level("WARNING", logger="tidegate"):
        run_pipeline(ITEMS)
    assert "items: 2 parents were refused; they are in etl_dead_letters" in caplog.text


def test_a_later_success_closes_the_letter_and_loads_what_was_missed(databases: Databases, serve: Serve) -> None:
    api = family(6)
    server = serve(api)
    run_pipeline(ITEMS)
    api.add("2", 20, 30)
    api.refused["2"] = 404
    for hour in (48, 72):
        api.hour = hour
        run_pipeline(ITEMS)
    [(state, seen, *_)] = letters(databases.target)
    assert (state, seen) == ("open", 2)
    api.add("2", 21, 80)
    api.refused.clear()
    api.hour = 96
    run_pipeline(ITEMS)
    assert since(server, "2") == [None] + [moment(1)] * 3
    assert {(20, "2"), (21, "2")} <= set(loaded(databases.target))
    [(state, seen, *_)] = letters(databases.target)
    assert (state, seen) == ("closed", 2)
    [(closed, run)] = rows(
        databases.target,
        "SELECT closed_run_id, (SELECT run_id FROM etl_runs ORDER BY started_at DESC LIMIT 1) FROM etl_dead_letters",
    )
    assert closed == run


def test_the_letter_of_a_parent_without_children_is_closed_too(databases: Databases, serve: Serve) -> None:
    api = family(6)
    api.items["2"] = []
    api.refused["2"] = 404
    serve(api)
    run_pipeline(WHOLE)
    api.refused.clear()
    run_pipeline(WHOLE)
    assert [state for state, *_ in letters(databases.target)] == ["closed"]


def test_a_letter_of_a_backfill_stays_open_until_that_window_has_been_read(databases: Databases, serve: Serve) -> None:
    api = family(6, hour=5)
    serve(api)
    run_pipeline(ITEMS)
    api.refused["2"] = 404
    api.hour = 48
    run_pipeline(ITEMS, at(0), at(10))
    api.refused.clear()
    run_pipeline(ITEMS)
    run_pipeline(ITEMS, at(0), at(9))
    assert [state for state, *_ in letters(databases.target)] == ["open"]
    run_pipeline(ITEMS, at(0), at(10))
    assert [state for state, *_ in letters(databases.target)] == ["closed"]


def test_a_refusal_in_the_middle_of_the_pages_keeps_the_place_and_what_came(databases: Databases, serve: Serve) -> None:
    api = family(3, 25)
    api.before = lambda seen, order: Reply(status=410) if order == "1" and seen.params.get("cursor") == "20" else None
    server = serve(api)
    assert run_pipeline(ITEMS).counts.inserted == 70
    assert places(databases.target) == ["0", "2"]
    api.before = lambda seen, order: None
    api.hour = 48
    run_pipeline(ITEMS)
    assert since(server, "1")[3] is None
    assert len(loaded(databases.target)) == 75


def test_a_refused_parent_alone_refuses_no_window(databases: Databases, serve: Serve) -> None:
    api = family(3)
    serve(api)
    pipeline = replace(children(start_param=None), sla=Sla(max_error_rate=0.0, abort_error_rate=0.1))
    run_pipeline(pipeline)
    # Nothing is new but the refusal: every row that comes in is a bad one.
    for order in api.items:
        api.items[order] = []
    api.refused["1"] = 404
    api.hour = 48
    counts = run_pipeline(pipeline).counts
    assert (counts.extracted, counts.rejected, counts.error_rate) == (1, 1, 1.0)
    assert rows(databases.target, "SELECT status FROM etl_runs ORDER BY started_at") == [("committed",)] * 2


def test_bad_rows_still_refuse_the_window_whatever_is_refused_beside_them(databases: Databases, serve: Serve) -> None:
    api = family(20)
    api.refused["1"] = 404
    for order in list(api.items)[:12]:
        api.items[order][0]["id"] = "x"
    serve(api)
    with pytest.raises(Exception, match="11 of 19 rows were rejected"):
        run_pipeline(replace(WHOLE, sla=Sla(abort_error_rate=0.5)))
    assert loaded(databases.target) == []


@pytest.mark.parametrize(
    ("refused", "share", "fails"), [(10, 0.5, True), (6, 0.5, True), (5, 0.5, False), (9, 1.0, False), (10, 1.0, True)]
)
@pytest.mark.parametrize("checkpoint", [1, 40])
def test_too_many_refusals_or_nothing_else_are_an_error_of_the_run(
    sqlite: Databases, serve: Serve, refused: int, share: float, fails: bool, checkpoint: int
) -> None:
    api = family(10)
    api.refused = {str(order): 404 for order in range(refused)}
    serve(api)
    pipeline = changed(children(checkpoint=checkpoint), max_failed=share)
    if fails:
        with pytest.raises(SourceError, match=rf"{refused} of 10 parents were refused, the last with 404 to GET"):
            run_pipeline(pipeline)
        assert loaded(sqlite.target) == [] and letters(sqlite.target) == []
    else:
        run_pipeline(pipeline)
        assert len(loaded(sqlite.target)) == 10 - refused == 10 - len(letters(sqlite.target))


@pytest.mark.parametrize("status", [400, 401, 405, 422])
def test_what_is_no_parents_own_fault_is_an_error_of_the_run(sqlite: Databases, serve: Serve, status: int) -> None:
    api = family(12)
    api.refused["5"] = status
    serve(api)
    with pytest.raises(SourceError, match=str(status)):
        run_pipeline(ITEMS)
    assert loaded(sqlite.target) == [] and letters(sqlite.target) == []


def test_a_list_of_parents_that_is_refused_is_an_error_of_the_run(sqlite: Databases, serve: Serve) -> None:
    api = family(12)
    api.before = lambda seen, order: None if order else Reply(status=404)
    serve(api)
    with pytest.raises(SourceError, match="404"):
        run_pipeline(ITEMS)


def test_a_source_that_is_away_is_tried_again_and_makes_no_letter(sqlite: Databases, serve: Serve) -> None:
    api = family(6)
    broken = iter([True])
    api.before = lambda seen, order: Reply(status=503) if order == "4" and next(broken, False) else None
    serve(api)
    with pytest.raises(SourceUnavailable, match="/orders/4/items"):
        run_pipeline(ITEMS)
    run_pipeline(replace(ITEMS, max_attempts=2))
    assert len(loaded(sqlite.target)) == 6 and letters(sqlite.target) == []


def test_a_refusal_deletes_nothing_where_absence_does(databases: Databases, serve: Serve) -> None:
    api = family(6)
    serve(api)
    pipeline = replace(WHOLE, load=Replace("target", "fct_items", key=["id"]))
    run_pipeline(pipeline)
    api.refused["2"] = 404
    api.items["3"] = []
    assert run_pipeline(pipeline).counts.deleted == 0
    assert len(loaded(databases.target)) == 6
    api.refused.clear()
    assert run_pipeline(pipeline).counts.deleted == 1


def test_by_hand_a_refusal_is_an_error_since_there_are_no_letters(serve: Serve) -> None:
    api = family(6)
    api.refused["2"] = 404
    serve(api)
    assert isinstance(ITEMS.extract, ApiChildren)
    with pytest.raises(SourceError, match="404"):
        list(ITEMS.extract.batches(Window(at(0), at(2))))


@pytest.mark.parametrize("order", ["0", "2", "5"])
def test_the_only_parent_left_to_ask_may_be_refused(sqlite: Databases, serve: Serve, order: str) -> None:
    api = family(6)
    api.refused[order] = 404
    serve(api)
    run_pipeline(ITEMS)
    # The clock stands still, so that nothing can have come to the others.
    api.asked.clear()
    run_pipeline(ITEMS)
    assert api.asked == [order]
    assert [seen for _, seen, *_ in letters(sqlite.target)] == [2]
