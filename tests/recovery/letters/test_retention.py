"""Retention: closed letters go, open ones lose their records, as each pipeline declares; the ledger has how many."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, text, update

from tasks.errors import ConfigError, RetentionFailed
from tasks.load.upsert import Upsert
from tasks.pipeline import Letters, run_pipeline
from tasks.recovery.letters import expire
from tasks.recovery.letters.expire import Expired, count_expired, expire_letters
from tasks.recovery.letters.mask import MaskedBefore
from tasks.recovery.letters.retention_run import retain_pipelines
from tasks.recovery.replay import replay_letters
from tasks.state.tables import dead_letters, runs
from tasks.state.vitals import read_vitals
from tasks.state.watermarks import read_watermark
from tests.conftest import Databases, on_every_target
from tests.orders import DAY, START
from tests.recovery.letters.persons import CANARY, MASKED, PEOPLE, everything, kept, messages, person, put
from tests.recovery.letters.test_masking import good


def age(databases: Databases, number: int, days: float, **changed: Any) -> None:
    """Have a letter be as old as that: last seen, and closed unless it is open."""
    with databases.target.begin() as connection:
        now = connection.execute(select(func.max(runs.c.started_at))).scalar_one()
        then = now - days * DAY
        old = {"last_seen": then, **({"closed_at": then} if changed.get("status", "open") != "open" else {})}
        connection.execute(update(dead_letters).where(dead_letters.c.row_key == str(number)).values(**old, **changed))


@on_every_target
def test_letters_that_were_closed_long_ago_are_deleted_and_counted(databases: Databases) -> None:
    put(databases.source, [person(number) for number in range(1, 6)])
    run_pipeline(PEOPLE)
    age(databases, 1, 91, status="closed")
    age(databases, 2, 91, status="discarded")
    age(databases, 3, 89, status="closed")
    age(databases, 4, 9_000)
    assert count_expired(PEOPLE) == Expired(deleted=2)
    assert expire_letters(PEOPLE) == Expired(deleted=2)
    assert [letter["record"]["id"] for letter in kept(databases.target)] == [3, 4, 5]
    assert messages(databases.target) == ["2 dead letters were deleted, having been closed for 90 days."]
    assert expire_letters(PEOPLE) == count_expired(PEOPLE) == Expired()
    assert len(messages(databases.target)) == 1, "nothing was done, and nothing is said"


@on_every_target
def test_old_open_letters_lose_record_and_values_and_stay_open(databases: Databases) -> None:
    pipeline = replace(PEOPLE, letters=Letters(keep_closed=None, keep_open=30 * DAY))
    put(databases.source, [person(1, email="nobody"), person(2, age=-7)])
    run_pipeline(pipeline)
    age(databases, 1, 31)
    assert count_expired(pipeline) == expire_letters(pipeline) == Expired(emptied=1)
    old, young = sorted(kept(databases.target), key=lambda letter: str(letter["row_key"]))
    assert (old["status"], old["record"], old["record_types"]) == ("open", {}, {})
    assert {(one["column"], one["value"]) for one in old["reasons"]} == {("age", "***"), ("email", "***")}
    assert (young["record"]["email"], young["reasons"][0]["value"]) == (CANARY, -7)
    assert messages(databases.target) == ["1 open dead letters lost their records, last seen 30 days ago."]


def test_what_has_lost_its_record_is_replayed_by_its_window_and_the_rest_by_records(sqlite: Databases) -> None:
    pipeline = replace(PEOPLE, letters=Letters(keep_open=30 * DAY))
    put(sqlite.source, [person(1), person(0, age=0, day=0.5)])
    run_pipeline(pipeline)
    put(sqlite.source, [person(2, day=1)])
    run_pipeline(pipeline)
    age(sqlite, 1, 31)
    expire_letters(pipeline)
    by_record, by_window = replay_letters(replace(pipeline, transform=good))
    assert (by_record.counts.inserted, by_window.counts.inserted) == (1, 1)
    assert {letter["status"] for letter in kept(sqlite.target)} == {"closed"}


def test_a_good_version_still_closes_a_letter_without_a_record(sqlite: Databases) -> None:
    pipeline = replace(PEOPLE, letters=Letters(keep_open=30 * DAY))
    put(sqlite.source, [person(1)])
    run_pipeline(pipeline)
    age(sqlite, 1, 31)
    expire_letters(pipeline)
    put(sqlite.source, [person(1, age=5, day=1)])
    run_pipeline(pipeline)
    [letter] = kept(sqlite.target)
    assert letter["status"] == "closed"


def test_what_is_kept_is_taken_away_a_page_at_a_time_and_the_ledger_has_one_row(
    sqlite: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expire, "_AT_ONCE", 2)
    put(sqlite.source, [person(number) for number in range(5)])
    run_pipeline(PEOPLE)
    for number in range(5):
        age(sqlite, number, 91, status="closed")
    assert expire_letters(PEOPLE) == Expired(deleted=5)
    assert messages(sqlite.target) == ["5 dead letters were deleted, having been closed for 90 days."]


def test_without_limits_everything_is_kept(sqlite: Databases) -> None:
    pipeline = replace(PEOPLE, letters=Letters(keep_closed=None))
    put(sqlite.source, [person(1), person(2)])
    run_pipeline(pipeline)
    age(sqlite, 1, 9_000, status="closed")
    age(sqlite, 2, 9_000)
    assert count_expired(pipeline) == expire_letters(pipeline) == Expired()


@pytest.mark.parametrize("wrong", [{"keep_closed": timedelta(0)}, {"keep_open": timedelta(days=-1)}])
def test_letters_are_kept_for_a_time_that_is_one(wrong: dict[str, timedelta]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} is longer than zero"):
        Letters(**wrong)


def test_the_retention_of_all_masks_and_expires_and_one_that_fails_keeps_none_of_the_others(
    sqlite: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(sqlite.source, [person(1), person(2)])
    run_pipeline(PEOPLE)
    age(sqlite, 1, 91, status="closed")
    away = replace(PEOPLE, name="away", load=Upsert("away", "dim_people", key=["id"]))
    monkeypatch.setenv("TIDEGATE_AWAY_URL", "postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    with pytest.raises(RetentionFailed, match=r"1 of 2 pipelines failed. away: .*'away'"):
        retain_pipelines("retention", [away, MASKED])
    assert CANARY not in everything(sqlite.target)
    [letter] = kept(sqlite.target)
    assert letter["record"]["id"] == 2
    report = retain_pipelines("retention", [MASKED])
    assert (report.retained[0].expired, report.retained[0].masked) == (Expired(), MaskedBefore())
    assert str(report) == "0 dead letters deleted, 0 without their record from now on, 0 masked"


def test_retention_moves_no_watermark_and_leaves_the_error_rate(sqlite: Databases) -> None:
    put(sqlite.source, [person(1), person(2, age=1, day=1)])
    run_pipeline(PEOPLE)
    with sqlite.target.connect() as connection:
        before = read_watermark(connection, "people")
        rated = read_vitals(connection, "people", START, recent_runs=5, growing_runs=3).recent
    age(sqlite, 1, 91, status="closed")
    expire_letters(PEOPLE)
    with sqlite.target.connect() as connection:
        assert read_watermark(connection, "people") == before
        assert read_vitals(connection, "people", START, recent_runs=5, growing_runs=3).recent == rated
        assert connection.execute(text("SELECT count(*) FROM dim_people")).scalar_one() == 1
