"""Reads by a serial number or a text that sorts: nothing lost or doubled, whoever commits late."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pandera.pandas as pa
import pytest
from sqlalchemy import text

from tasks.errors import ConfigError, SourceError
from tasks.extract.sequence import SequenceExtract
from tasks.load.upsert import Upsert
from tasks.pipeline import Pipeline, run_pipeline
from tasks.report import RunReport
from tests.conftest import Databases, not_about_postgresql

TICK = timedelta(microseconds=1)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


class Numbered(pa.DataFrameModel):
    id: int
    number: int
    word: str = pa.Field(nullable=True)


class Lettered(pa.DataFrameModel):
    id: int
    number: str
    word: str = pa.Field(nullable=True)


class Paged(Numbered):
    page: int


class Shelf:
    """Rows with a number, or a text, that orders them."""

    def __init__(self, databases: Databases, kind: str = "bigint", **declared: Any) -> None:
        self.databases = databases
        self.lag = TICK if databases.kind == "mariadb" else timedelta(0)
        extract = SequenceExtract(
            "source", **{"table": "shelf", "cursor": "number", "lag": self.lag, **declared}
        )  # fmt: skip
        schema = {"number": Lettered if "char" in kind else Numbered, "page": Paged}[declared.get("cursor", "number")]
        self.pipeline = Pipeline("shelf", extract, schema, Upsert("target", "dim_shelf", key=["id"]))
        self.execute(f"CREATE TABLE shelf (id integer PRIMARY KEY, number {kind}, word varchar(20))")

    def execute(self, *statements: str) -> None:
        with self.databases.source.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))

    def put(self, *numbers: int | str | None, first: int = 1) -> None:
        """Rows with these numbers; their ids go up from `first`."""
        for place, number in enumerate(numbers):
            value = "NULL" if number is None else repr(number)
            self.execute(f"INSERT INTO shelf VALUES ({first + place}, {value}, 'word')")

    def run(self, **how: Any) -> RunReport:
        return run_pipeline(self.pipeline, **how)

    def terms(self, **how: Any) -> dict[str, int]:
        return {name: count for name, count in self.run(**how).counts.as_dict().items() if count}

    def loaded(self) -> list[Any]:
        with self.databases.target.connect() as connection:
            return list(connection.execute(text("SELECT id FROM dim_shelf ORDER BY id")).scalars())


def proven(report: RunReport) -> int | str | None:
    assert report.position is not None
    value: int | str | None = json.loads(report.position)["proven"]
    return value


def test_a_run_reads_what_is_above_the_last_one_and_the_highest_again(sources: Databases) -> None:
    shelf = Shelf(sources)
    shelf.put(1, 2, 3)
    assert shelf.terms() == {"extracted": 3, "inserted": 3}
    if sources.kind == "mariadb":
        shelf.terms()  # which proves the highest, now that the lag is over
    shelf.put(4, 5, first=4)
    assert shelf.terms() == {"extracted": 3, "inserted": 2, "unchanged": 1}
    assert shelf.loaded() == [1, 2, 3, 4, 5]


def test_a_row_with_the_highest_value_that_comes_after_the_run_is_not_lost(sources: Databases) -> None:
    shelf = Shelf(sources)
    shelf.put(7, 7)
    shelf.run()
    shelf.put(7, first=3)
    assert shelf.terms() == {"extracted": 3, "inserted": 1, "unchanged": 2}


@not_about_postgresql
def test_a_new_version_of_a_row_is_an_update_and_never_loses_to_an_older_one(sources: Databases) -> None:
    shelf = Shelf(sources)
    shelf.put(1, 2)
    shelf.run()
    shelf.execute("UPDATE shelf SET number = 3, word = 'new' WHERE id = 1")
    assert shelf.terms()["updated"] == 1
    shelf.execute("UPDATE shelf SET number = 2, word = 'old' WHERE id = 1")
    assert shelf.terms(full_refresh=True) == {"extracted": 2, "unchanged": 1, "stale": 1}


def test_a_lower_number_that_a_transaction_commits_after_a_run_is_loaded_by_a_later_one(
    postgresql: Databases,
) -> None:
    shelf = Shelf(postgresql)
    shelf.put(1)
    shelf.run()
    with postgresql.source.connect() as late:
        late.execute(text("INSERT INTO shelf VALUES (2, 2, 'late')"))
        shelf.put(3, first=3)
        assert proven(shelf.run()) == 1
        assert shelf.loaded() == [1, 3]
        late.commit()
    report = shelf.run()
    assert shelf.loaded() == [1, 2, 3]
    assert (proven(report), report.late) == (3, 1)


def test_a_number_that_is_drawn_before_the_row_is_written_is_waited_for(postgresql: Databases) -> None:
    shelf = Shelf(postgresql)
    shelf.execute("CREATE SEQUENCE numbers")
    with postgresql.source.connect() as late:
        drawn = late.execute(text("SELECT nextval('numbers')")).scalar_one()
        shelf.execute("INSERT INTO shelf VALUES (2, nextval('numbers'), 'early')")
        shelf.run()
        late.execute(text(f"INSERT INTO shelf VALUES (1, {drawn}, 'late')"))
        late.commit()
    shelf.run()
    assert shelf.loaded() == [1, 2]


def test_a_transaction_that_never_ends_lets_what_is_above_it_through_and_is_proven_in_the_end(
    postgresql: Databases,
) -> None:
    """An old value waits for its proof until it has it, however many newer ones are seen meanwhile."""
    shelf = Shelf(postgresql)
    with postgresql.source.connect() as late:
        late.execute(text("INSERT INTO shelf VALUES (1, 1, 'late')"))
        for number in range(2, 5):
            shelf.put(number, first=number)
            assert proven(shelf.run()) is None
        assert shelf.loaded() == [2, 3, 4]
        with postgresql.source.connect() as later:
            later.execute(text("INSERT INTO shelf VALUES (5, 5, 'later')"))
            late.commit()
            shelf.put(6, first=6)
            assert proven(shelf.run()) == 2
            later.commit()
    shelf.run()
    assert shelf.loaded() == [1, 2, 3, 4, 5, 6]


def test_a_lag_keeps_a_value_unproven_until_it_is_over(sources: Databases) -> None:
    shelf = Shelf(sources, lag=timedelta(hours=1))
    shelf.put(2)
    assert proven(shelf.run()) is None
    shelf.put(1, first=2)
    shelf.run()
    assert shelf.loaded() == [1, 2]


def test_a_proof_needs_a_look_at_the_rows_after_it(sources: Databases) -> None:
    """What was pending is proven when its time has passed, and the run that finds so still reads what lies below."""
    shelf = Shelf(sources, lag=timedelta(hours=1))
    shelf.put(2)
    shelf.run()
    shelf.put(1, first=2)
    with sources.target.begin() as connection:
        known = json.loads(connection.execute(text("SELECT position FROM etl_watermarks")).scalar_one())
        known["pending"]["at"] = LONG_AGO.isoformat()
        connection.execute(text("UPDATE etl_watermarks SET position = :p"), {"p": json.dumps(known)})
    assert proven(shelf.run()) == 2
    assert shelf.loaded() == [1, 2]


def test_a_lookback_finds_numbers_that_a_session_had_in_store(sources: Databases) -> None:
    shelf = Shelf(sources, lookback=20)
    shelf.put(100)
    shelf.run()
    shelf.put(81, 79, first=2)
    report = shelf.run()
    assert shelf.loaded() == [1, 2]
    assert report.late == 1


@pytest.mark.parametrize("made", [["01HZY", "01HZZ", "01J00"], ["a", "b", "c"]], ids=["ulids", "letters"])
def test_texts_are_read_in_the_order_of_the_source(sources: Databases, made: Sequence[str]) -> None:
    shelf = Shelf(sources, "varchar(26)", initial=made[1])
    shelf.put(*made)
    assert shelf.terms() == {"extracted": 2, "inserted": 2}
    shelf.put(made[2] + "1", first=4)
    assert shelf.terms()["inserted"] == 1
    assert shelf.loaded() == [2, 3, 4]


def test_a_quote_and_a_percent_sign_in_a_text_are_only_letters(sources: Databases) -> None:
    shelf = Shelf(sources, "varchar(26)")
    shelf.execute("INSERT INTO shelf VALUES (1, 'it''s 5%s \\:x', 'word')")
    shelf.run()
    shelf.execute("INSERT INTO shelf VALUES (2, 'it''s 6%%', 'word')")
    shelf.run()
    assert shelf.loaded() == [1, 2]


@not_about_postgresql
def test_rows_without_a_number_are_counted_and_not_read(sources: Databases) -> None:
    shelf = Shelf(sources)
    shelf.put(1, None, None)
    report = shelf.run()
    assert (report.counts.extracted, report.null_cursors) == (1, 2)


def test_a_chunk_ends_after_so_many_rows_with_those_of_the_same_value(sources: Databases) -> None:
    shelf = Shelf(sources, chunk=2)
    shelf.put(1, 2, 2, 2, 3, 4, 5)
    report = shelf.run()
    assert [window.entry.counts.extracted for window in report.windows] == [4, 2, 1]
    assert shelf.loaded() == [1, 2, 3, 4, 5, 6, 7]


@not_about_postgresql
def test_a_run_that_ends_between_two_chunks_is_gone_on_with(sources: Databases) -> None:
    """Also with what has come below the highest of that time since."""
    shelf = Shelf(sources, chunk=2)
    shelf.put(1, 2, 3, 4, 5)
    broken = replace(shelf.pipeline, transform=_fails_on_four)
    with pytest.raises(KeyboardFour):
        run_pipeline(broken)
    assert shelf.loaded() == [1, 2]
    assert shelf.terms() == {"extracted": 3, "inserted": 3}


def _fails_on_four(frame: Any) -> Any:
    if (frame["number"] == 4).any():
        raise KeyboardFour
    return frame


class KeyboardFour(BaseException):
    """Stops a run as a signal would."""


@not_about_postgresql
def test_an_empty_table_is_nothing_to_read_and_stays_at_its_place(sources: Databases) -> None:
    shelf = Shelf(sources)
    assert shelf.terms() == {}
    shelf.put(1)
    assert shelf.terms() == {"extracted": 1, "inserted": 1}


@not_about_postgresql
def test_numbers_that_begin_anew_are_read_from_there(sources: Databases) -> None:
    shelf = Shelf(sources)
    shelf.put(10, 11)
    shelf.run()
    shelf.execute("DELETE FROM shelf")
    shelf.put(1, first=3)
    shelf.run()
    shelf.put(2, first=4)
    shelf.run()
    assert shelf.loaded() == [1, 2, 3, 4]


def test_a_query_is_read_by_one_of_its_columns(sources: Databases) -> None:
    shelf = Shelf(sources, table=None, query="SELECT id, number + 0 AS number, word FROM shelf WHERE word LIKE 'w%'")
    shelf.put(1, 2)
    assert shelf.terms() == {"extracted": 2, "inserted": 2}


@not_about_postgresql
def test_a_full_refresh_reads_everything_again(sources: Databases) -> None:
    shelf = Shelf(sources)
    shelf.put(1, 2)
    shelf.run()
    assert shelf.terms(full_refresh=True) == {"extracted": 2, "unchanged": 2}


def test_a_range_of_time_is_refused(sqlite: Databases) -> None:
    with pytest.raises(ConfigError, match="has no past to read a range of"):
        Shelf(sqlite).run(start=LONG_AGO)


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"cursor": ""}, "needs a cursor"),
        ({"lookback": -1}, "not negative"),
        ({"chunk": 0}, "chunk of at least 1"),
        ({"query": "SELECT 1"}, "a table or a query"),
        ({"initial": "A", "lookback": 1}, "no text lies a number below another"),
    ],
)
def test_a_declaration_that_makes_no_sense_is_a_clear_error(declared: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SequenceExtract("source", **{"table": "shelf", "cursor": "number", **declared})


@pytest.mark.parametrize(
    ("kind", "declared", "error", "said"),
    [
        ("bigint", {"cursor": "page"}, SourceError, "there is no column 'page'"),
        ("double precision", {}, ConfigError, "an integer or a text"),
        ("varchar(9)", {"lookback": 1}, ConfigError, "no lookback can be subtracted"),
        ("varchar(9)", {"initial": 1}, ConfigError, "initial=1 is no str"),
    ],
)
def test_a_column_that_is_no_cursor_is_a_clear_error(
    postgresql: Databases, kind: str, declared: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        Shelf(postgresql, kind, **declared).run()
