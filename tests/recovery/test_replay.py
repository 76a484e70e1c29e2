"""Replay: dead letters that pass today are loaded by the pipeline's own strategy, and closed; the others stay."""

import json
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from sqlalchemy import select, text

from tasks.errors import ConfigError
from tasks.extract.snapshot import SnapshotDiff
from tasks.extract.triggers import TriggerExtract
from tasks.load.append import Append
from tasks.load.replace import Replace
from tasks.load.scd2 import Scd2
from tasks.pipeline import Pipeline, References, Sla, WholeWindow, run_pipeline
from tasks.recovery.replay import Rehearsal, discard_letters, needs_source, rehearse_replay, replay_letters
from tasks.state.letters import Wanted
from tasks.state.tables import dead_letters, runs
from tasks.window import Window
from tests.conftest import Databases, on_every_target
from tests.orders import DAY, ORDERS, SNAPSHOT, START, loaded, order, put


def lenient(pipeline: Pipeline = ORDERS) -> Pipeline:
    """The same, with a transform that makes bad amounts good."""
    return replace(pipeline, transform=positive)


def positive(raw: pd.DataFrame) -> pd.DataFrame:
    return raw.assign(amount=raw["amount"].abs())


def letters(databases: Databases) -> list[tuple[str, str]]:
    """Key and status of every letter, by key."""
    with databases.target.connect() as connection:
        rows = connection.execute(select(dead_letters.c.row_key, dead_letters.c.status)).all()
    return sorted((row.row_key, row.status) for row in rows)


def amounts(databases: Databases) -> dict[int, float]:
    return {row["id"]: row["amount"] for row in loaded(databases.target)}


@on_every_target
def test_what_passes_today_is_loaded_and_its_letter_closed_by_the_run(databases: Databases) -> None:
    put(databases.source, [order(1), order(2, amount=-2), order(3, amount=-3)])
    run_pipeline(ORDERS)
    [report] = replay_letters(lenient())
    assert (report.counts.extracted, report.counts.inserted, report.counts.rejected) == (2, 2, 0)
    assert amounts(databases) == {1: 1.0, 2: 2.0, 3: 3.0}
    assert letters(databases) == [("2", "closed"), ("3", "closed")]
    with databases.target.connect() as connection:
        closed_by = set(connection.execute(select(dead_letters.c.closed_run_id)).scalars())
        kinds = connection.execute(select(runs.c.kind).where(runs.c.run_id == report.run_id)).scalars().all()
    assert (closed_by, kinds) == ({report.run_id}, ["replay"])


def test_what_is_bad_still_stays_open_and_keeps_nothing_else_from_being_loaded(sqlite: Databases) -> None:
    put(sqlite.source, [order(number, amount=-1, customer=None if number else "ann") for number in range(10)])
    run_pipeline(ORDERS)

    def mended(raw: pd.DataFrame) -> pd.DataFrame:
        return raw.assign(amount=raw["amount"].where(raw["customer"].isna(), 5.0))

    [report] = replay_letters(replace(ORDERS, transform=mended, sla=Sla(abort_error_rate=0.1)))
    assert (report.counts.inserted, report.counts.rejected) == (1, 9)
    assert amounts(sqlite) == {0: 5.0}
    assert [status for _, status in letters(sqlite)] == ["closed"] + ["open"] * 9


def test_the_watermark_stays_where_it_is_and_the_next_run_reads_nothing_twice(sqlite: Databases) -> None:
    put(sqlite.source, [order(1, amount=-1, day=1), order(2, day=2)])
    before = run_pipeline(ORDERS)
    [report] = replay_letters(lenient())
    assert (report.watermark, report.covered_until) == (before.watermark, before.covered_until)


@on_every_target
def test_an_older_record_never_replaces_a_newer_row(databases: Databases) -> None:
    put(databases.source, [order(1, amount=-1, day=1)])
    run_pipeline(ORDERS)
    put(databases.source, [order(1, amount=7, day=3)])
    # Its letter is closed by the good version, so it is opened again by hand: as if both had been under way at once.
    run_pipeline(ORDERS)
    with databases.target.begin() as connection:
        connection.execute(dead_letters.update().values(status="open", closed_at=None, closed_run_id=None))
    [report] = replay_letters(lenient())
    assert (report.counts.stale, amounts(databases)) == (1, {1: 7.0})
    assert letters(databases) == [("1", "closed")]


def test_a_letter_that_another_run_has_seen_meanwhile_stays_open(sqlite: Databases) -> None:
    put(sqlite.source, [order(1, amount=-1), order(2, amount=-1)])
    run_pipeline(ORDERS)

    def meanwhile(raw: pd.DataFrame) -> pd.DataFrame:
        with sqlite.target.begin() as connection:
            seen = dead_letters.update().where(dead_letters.c.row_key == "2")
            connection.execute(seen.values(times_seen=dead_letters.c.times_seen + 1, row_key="newer"))
        return positive(raw)

    replay_letters(replace(ORDERS, transform=meanwhile))
    assert letters(sqlite) == [("1", "closed"), ("newer", "open")]


def test_a_letter_without_a_key_is_closed_once_its_row_has_one(sqlite: Databases) -> None:
    def broken(raw: pd.DataFrame) -> pd.DataFrame:
        return raw.assign(id=raw["id"].where(raw["id"] != 2))

    put(sqlite.source, [order(1), order(2)])
    run_pipeline(replace(ORDERS, transform=broken))
    [(nameless, _)] = letters(sqlite)
    assert nameless.startswith("record:")
    [report] = replay_letters(ORDERS)
    assert (report.counts.inserted, letters(sqlite)) == (1, [(nameless, "closed")])


def test_a_missing_reference_that_has_landed_lets_its_rows_in(sqlite: Databases) -> None:
    referring = replace(ORDERS, references=[References("customer", "dim_customers.name")])
    with sqlite.target.begin() as connection:
        connection.execute(text("CREATE TABLE dim_customers (name TEXT PRIMARY KEY)"))
    put(sqlite.source, [order(1, customer="bob")])
    run_pipeline(referring)
    [report] = replay_letters(referring)
    assert report.counts.rejected == 1
    with sqlite.target.begin() as connection:
        connection.execute(text("INSERT INTO dim_customers VALUES ('bob')"))
    [report] = replay_letters(referring)
    assert (report.counts.inserted, letters(sqlite)) == (1, [("1", "closed")])


@pytest.mark.parametrize("load", [Append("target", "fct_orders", key=["id"]), Scd2("target", "fct_orders", key=["id"])])
def test_the_pipelines_own_strategy_loads_them(sqlite: Databases, load: Any) -> None:
    pipeline = replace(ORDERS, load=load)
    put(sqlite.source, [order(1, amount=-4)])
    run_pipeline(pipeline)
    [report] = replay_letters(lenient(pipeline))
    assert report.counts.inserted == 1
    assert letters(sqlite) == [("1", "closed")]


@on_every_target
def test_letters_of_a_feed_are_replayed_as_the_changes_they_were(databases: Databases) -> None:
    feed = replace(ORDERS, extract=TriggerExtract("source", "orders", key=["id"]))
    put(databases.source, [order(1)])
    run_pipeline(feed)
    put(databases.source, [order(1, amount=-3, day=1), order(2, amount=-5)])
    run_pipeline(feed)
    replay_letters(lenient(feed))
    assert amounts(databases) == {1: 3.0, 2: 5.0}
    assert run_pipeline(feed).counts.extracted == 0, "the feed goes on where it was"


def test_a_run_that_goes_on_meanwhile_is_not_superseded(sqlite: Databases) -> None:
    """It has no cursor, so that what was read later than it would count: but a replay reads nothing new."""
    feed = replace(ORDERS, extract=TriggerExtract("source", "orders", key=["id"]))
    put(sqlite.source, [order(1, amount=-1)])
    run_pipeline(feed)
    put(sqlite.source, [order(2)])
    replayed = []

    def meanwhile(raw: pd.DataFrame) -> pd.DataFrame:
        replayed.extend(replay_letters(lenient(feed)))
        return raw

    assert run_pipeline(replace(feed, transform=meanwhile)).counts.inserted == 1
    assert (len(replayed), amounts(sqlite)) == (1, {1: 1.0, 2: 1.0})


def test_letters_of_a_snapshot_difference_are_replayed_though_their_rows_have_not_changed(sqlite: Databases) -> None:
    difference = replace(ORDERS, extract=SnapshotDiff("source", "orders", key=["id"]))
    put(sqlite.source, [order(1, amount=-1)])
    run_pipeline(difference)
    replay_letters(lenient(difference))
    assert amounts(sqlite) == {1: 1.0}


@pytest.mark.parametrize(
    ("pipeline", "why"),
    [
        (replace(SNAPSHOT, load=Replace("target", "fct_orders", key=["id"])), "Replace takes what does not come in"),
        (SNAPSHOT, "'orders' is read whole, without a cursor"),
        (replace(ORDERS, transform=WholeWindow(positive, max_rows=100)), "its transform sees whole windows"),
    ],
    ids=["replace", "without a cursor", "whole window"],
)
def test_where_records_are_not_enough_the_windows_are_read_again(
    sqlite: Databases, pipeline: Pipeline, why: str
) -> None:
    put(sqlite.source, [order(1), order(2, amount=-2)])
    run_pipeline(replace(pipeline, transform=None))
    assert why in str(needs_source(pipeline))
    mended = pipeline if isinstance(pipeline.transform, WholeWindow) else lenient(pipeline)
    [report] = replay_letters(mended)
    assert report.counts.inserted == 1
    assert (amounts(sqlite), letters(sqlite)) == ({1: 1.0, 2: 2.0}, [("2", "closed")])


def test_only_the_letters_that_a_run_saw_last_are_replayed(sqlite: Databases) -> None:
    put(sqlite.source, [order(1, amount=-1), order(2, amount=-1, day=1)])
    first = run_pipeline(ORDERS)
    put(sqlite.source, [order(3, amount=-1, day=2)])
    run_pipeline(ORDERS)
    replay_letters(lenient(), Wanted("orders", run_id=first.run_id))
    assert letters(sqlite) == [("1", "closed"), ("2", "open"), ("3", "open")]


def test_only_the_letters_that_broke_a_rule_are_replayed(sqlite: Databases) -> None:
    with sqlite.target.begin() as connection:
        connection.execute(text("CREATE TABLE dim_customers (name TEXT PRIMARY KEY)"))
        connection.execute(text("INSERT INTO dim_customers VALUES ('ann')"))
    put(sqlite.source, [order(1, amount=-1), order(2, customer="bob")])
    run_pipeline(replace(ORDERS, references=[References("customer", "dim_customers.name")]))
    replay_letters(lenient(), Wanted("orders", rule="greater_than_or_equal_to(0)"))
    assert letters(sqlite) == [("1", "closed"), ("2", "open")]


def test_no_open_letter_is_no_run(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    run_pipeline(ORDERS)
    assert replay_letters(ORDERS) == []


def test_a_rehearsal_tells_what_would_pass_and_writes_nothing(sqlite: Databases) -> None:
    put(sqlite.source, [order(1, amount=-1), order(2, amount=-1)])
    run_pipeline(ORDERS)
    assert rehearse_replay(lenient()) == Rehearsal("orders", passing=2, failing=0)
    assert rehearse_replay(ORDERS) == Rehearsal("orders", passing=0, failing=2)
    whole = replace(ORDERS, transform=WholeWindow(positive, max_rows=100))
    [window] = rehearse_replay(whole).windows
    assert isinstance(window, Window)
    assert (loaded(sqlite.target), letters(sqlite)) == ([], [("1", "open"), ("2", "open")])


def test_discarded_letters_are_closed_for_a_reason_that_the_ledger_keeps(sqlite: Databases) -> None:
    put(sqlite.source, [order(1, amount=-1), order(2, amount=-1)])
    run_pipeline(ORDERS)
    assert discard_letters(ORDERS, "a rehearsal of the till") == 2
    assert letters(sqlite) == [("1", "discarded"), ("2", "discarded")]
    with sqlite.target.connect() as connection:
        [message] = connection.execute(select(runs.c.message).where(runs.c.kind == "replay")).scalars()
    assert message == "2 dead letters were discarded: a rehearsal of the till"
    run_pipeline(ORDERS, START, START + DAY)
    assert letters(sqlite) == [("1", "open"), ("2", "open")], "it came in bad again"


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: discard_letters(ORDERS, " "), "discarded for a reason"),
        (lambda: replay_letters(ORDERS, Wanted("others")), "orders: these are dead letters of 'others'"),
        (lambda: replay_letters(ORDERS, Wanted("orders", "closed")), "only open dead letters .* not 'closed'"),
    ],
)
def test_what_cannot_be_meant_is_refused(sqlite: Databases, act: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        act()


def test_the_ledger_says_which_guards_a_replay_sets_aside(sqlite: Databases) -> None:
    put(sqlite.source, [order(1, amount=-1)])
    run_pipeline(ORDERS)
    replay_letters(lenient())
    with sqlite.target.connect() as connection:
        [kept] = connection.execute(select(runs.c.overrides).where(runs.c.kind == "replay")).scalars()
    assert json.loads(str(kept))["reason"] == "dead letters are replayed"
