"""`DebeziumEvents`: files and iterables of change events, loaded once each."""

import gzip
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from tasks.counts import Counts
from tasks.errors import ConfigError, SourceError
from tasks.extract.debezium_events import DebeziumEvents
from tasks.extract.debezium_log.envelope import UNAVAILABLE
from tasks.pipeline import Pipeline, remove_feed, run_pipeline
from tests.conftest import Databases
from tests.extract.envelopes import COLUMNS, event, row
from tests.extract.test_log import BOOKINGS, rows, terms

SNAPSHOT = [event("r", row(1), lsn=10), event("r", row(2), lsn=10)]
CHANGES = [
    event("c", row(3, "C"), lsn=20),
    event("u", row(1, "Z"), lsn=30),
    None,
    event("d", None, row(2, None, None), lsn=40),
    {"ts_ms": 1},
]
LOADED = [(1, "Z", 1.0), (3, "C", 1.0)]


@pytest.fixture
def target(sqlite: Databases) -> Engine:
    return sqlite.target


def write(file: Path, events: Iterable[Any], *, append: bool = False) -> Path:
    text = "".join(json.dumps(item) + "\n" for item in events)
    if file.suffix == ".gz":
        file.write_bytes((file.read_bytes() if append else b"") + gzip.compress(text.encode()))
    else:
        file.write_text((file.read_text() if append else "") + text)
    return file


def reading(**how: Any) -> Pipeline:
    return replace(BOOKINGS, extract=DebeziumEvents(**{"key": ["id"], **how}))


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
def test_a_file_is_loaded_once_and_goes_on_where_it_ended(target: Engine, tmp_path: Path, suffix: str) -> None:
    file = write(tmp_path / f"events.{suffix}", SNAPSHOT)
    pipeline = reading(files=str(file))
    assert terms(run_pipeline(pipeline)) == {"extracted": 2, "inserted": 2}
    assert run_pipeline(pipeline).counts == Counts()
    write(file, CHANGES, append=True)
    assert terms(run_pipeline(pipeline)) == {"extracted": 3, "inserted": 1, "updated": 1, "deleted": 1}
    assert rows(target) == LOADED
    assert run_pipeline(pipeline).counts == Counts()


def test_files_are_read_in_the_order_of_their_names_and_new_ones_follow(target: Engine, tmp_path: Path) -> None:
    pipeline = reading(files=str(tmp_path / "*.jsonl*"))
    write(tmp_path / "2026-02.jsonl.gz", CHANGES[:2])
    write(tmp_path / "2026-01.jsonl", SNAPSHOT)
    assert terms(run_pipeline(pipeline)) == {"extracted": 4, "inserted": 3, "deduplicated": 1}
    write(tmp_path / "2026-03.jsonl", CHANGES[2:])
    (tmp_path / "2026-01.jsonl").unlink()
    assert terms(run_pipeline(pipeline)) == {"extracted": 1, "deleted": 1}
    assert rows(target) == LOADED


def test_a_file_that_appears_before_one_that_was_read_is_a_clear_error(target: Engine, tmp_path: Path) -> None:
    pipeline = reading(files=str(tmp_path / "*.jsonl"))
    write(tmp_path / "b.jsonl", SNAPSHOT)
    run_pipeline(pipeline)
    write(tmp_path / "a.jsonl", CHANGES)
    with pytest.raises(SourceError, match=r"sorts before '.*b\.jsonl'.*full_refresh"):
        run_pipeline(pipeline)


def test_a_line_that_is_still_being_written_waits_for_the_next_run(target: Engine, tmp_path: Path) -> None:
    file = write(tmp_path / "events.jsonl", SNAPSHOT)
    rest = json.dumps(CHANGES[0])
    file.write_text(file.read_text() + rest[:50])
    assert terms(run_pipeline(reading(files=str(file)))) == {"extracted": 2, "inserted": 2}
    file.write_text(file.read_text() + rest[50:] + "\n")
    assert terms(run_pipeline(reading(files=str(file)))) == {"extracted": 1, "inserted": 1}


def test_an_iterable_is_loaded_once_however_often_it_begins_anew(target: Engine) -> None:
    known: list[Any] = list(SNAPSHOT)
    pipeline = reading(events=lambda: iter(known))
    assert terms(run_pipeline(pipeline)) == {"extracted": 2, "inserted": 2}
    known += CHANGES
    assert terms(run_pipeline(pipeline)) == {"extracted": 3, "inserted": 1, "updated": 1, "deleted": 1}
    known[:3] = []
    assert run_pipeline(pipeline).counts == Counts()
    assert rows(target) == LOADED


def test_the_schema_part_and_none_give_the_same_rows(target: Engine) -> None:
    run_pipeline(reading(events=[event("c", row(1), columns=COLUMNS), event("c", row(2), lsn=200)]))
    assert rows(target) == [(1, "A", 1.0), (2, "A", 1.0)]


def test_a_snapshot_clears_away_what_it_does_not_hold(target: Engine) -> None:
    events = [*SNAPSHOT, *CHANGES]
    pipeline = reading(events=events, max_shrink=1.0)
    run_pipeline(pipeline)
    events += [event("r", row(3, "C"), lsn=90), event("r", row(9), lsn=90), event("c", row(10), lsn=99)]
    run_pipeline(pipeline)
    assert [found[0] for found in rows(target)] == [3, 9, 10]


def test_a_snapshot_that_runs_beside_the_changes_clears_nothing_away(target: Engine) -> None:
    events = [*SNAPSHOT, *CHANGES]
    pipeline = reading(events=events)
    run_pipeline(pipeline)
    events.append(event("r", row(3, "D"), lsn=90, snapshot="incremental"))
    run_pipeline(pipeline)
    assert rows(target) == [(1, "Z", 1.0), (3, "D", 1.0)]


def test_a_chunk_ends_with_a_transaction(target: Engine, tmp_path: Path) -> None:
    events = [event("c", row(number), lsn=100 + number, commit=100 + 3 * (number // 3)) for number in range(9)]
    report = run_pipeline(reading(files=str(write(tmp_path / "events.jsonl", events)), chunk=2))
    assert [window.entry.counts.inserted for window in report.windows] == [3, 3, 3]


def test_events_of_another_table_are_passed_over_where_one_is_named(target: Engine) -> None:
    events = [*SNAPSHOT, event("c", {"x": 1}, table="others", lsn=50)]
    assert run_pipeline(reading(events=events, table="public.bookings")).counts.inserted == 2
    with pytest.raises(SourceError, match=r"of public.bookings and of public.others. Name the one"):
        run_pipeline(replace(reading(events=events), name="all"))


@pytest.mark.parametrize("connector", ["postgresql", "mysql"])
def test_a_delete_of_which_only_the_key_is_told_deletes(target: Engine, connector: str) -> None:
    run_pipeline(reading(events=[*SNAPSHOT, event("d", None, {"id": 1}, lsn=50, connector=connector)]))
    assert [found[0] for found in rows(target)] == [2]


def test_a_value_left_out_stops_the_run_with_the_way_to_mend_it(target: Engine) -> None:
    events = [*SNAPSHOT, event("u", row(1, UNAVAILABLE), row(1, None), lsn=50)]
    with pytest.raises(SourceError, match=r"leaves out seat.*full_before"):
        run_pipeline(reading(events=events))
    events[-1]["before"] = row(1, "long")
    run_pipeline(reading(events=events, full_before=True))
    assert rows(target)[0] == (1, "long", 1.0)


def test_a_broken_line_is_named_and_what_came_before_is_not_loaded(target: Engine, tmp_path: Path) -> None:
    file = write(tmp_path / "events.jsonl", SNAPSHOT)
    file.write_text(file.read_text() + "{oops\n")
    with pytest.raises(SourceError, match=r"events\.jsonl:3: no JSON"):
        run_pipeline(reading(files=str(file)))
    assert rows(target) == []


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b'{"a": 1}\n' * 100)[:20]], ids=["no gzip", "cut off"])
def test_a_file_that_cannot_be_unpacked_is_a_clear_error(target: Engine, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "events.jsonl.gz").write_bytes(content)
    with pytest.raises(SourceError, match=r"cannot be read|no JSON|no envelope"):
        run_pipeline(reading(files=str(tmp_path / "*.gz")))


def test_files_that_are_not_there_are_a_clear_error(target: Engine, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no file of that name"):
        run_pipeline(reading(files=str(tmp_path / "*.jsonl")))


def test_there_is_nothing_to_take_away(target: Engine) -> None:
    pipeline = reading(events=SNAPSHOT)
    run_pipeline(pipeline)
    remove_feed(pipeline)


@pytest.mark.parametrize(
    "wrong",
    [{}, {"files": "x", "events": []}, {"files": "x", "chunk": 0}, {"files": "x", "max_shrink": 2}],
)
def test_a_declaration_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"DebeziumEvents"):
        DebeziumEvents(**wrong)
