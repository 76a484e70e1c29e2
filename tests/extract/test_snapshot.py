"""`SnapshotDiff`: what differs from the last snapshot of the source arrives, and nothing else is read or written."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pandera.pandas as pa
import pytest
from sqlalchemy import inspect, select, text

from tasks.errors import ConfigError, GuardRefused, SourceError
from tasks.extract.feed import Feed
from tasks.extract.snapshot import SnapshotDiff
from tasks.load.upsert import Upsert
from tasks.pipeline import Pipeline, remove_feed, run_pipeline
from tasks.state.tables import dead_letters, runs
from tasks.state.watermarks import Watermark, read_watermark
from tests.conftest import Databases, not_about_postgresql
from tests.extract.parts import PARTS, execute, hash_table, hashes, part, put, remove, rows, source_rows
from tests.variants import slow_but


def _counts(pipeline: Pipeline = PARTS) -> dict[str, int]:
    """What a run counted, without the zeros."""
    return {name: number for name, number in run_pipeline(pipeline).counts.as_dict().items() if number}


def _watermark(databases: Databases, pipeline: Pipeline = PARTS) -> Watermark:
    with databases.target.connect() as connection:
        return read_watermark(connection, pipeline.name)


def _letters(databases: Databases) -> list[tuple[str, str, int]]:
    columns = dead_letters.c.row_key, dead_letters.c.status, dead_letters.c.times_seen
    with databases.target.connect() as connection:
        return [tuple(row) for row in connection.execute(select(*columns).order_by("row_key"))]


# -- what arrives ---------------------------------------------------------------------------------------------------


def test_the_first_run_loads_everything(sources: Databases) -> None:
    put(sources.source, [part(number) for number in range(5)])
    assert _counts() == {"extracted": 5, "inserted": 5}
    assert rows(sources.target) == source_rows(sources.source)


def test_a_rerun_over_an_unchanged_source_reads_no_row(sources: Databases) -> None:
    put(sources.source, [part(1), part(2, weight=None, name=None), part(3, name="")])
    _counts()
    before = hashes(sources.target)
    assert _counts() == {}
    assert hashes(sources.target) == before


def test_only_what_is_new_different_or_gone_is_read(sources: Databases) -> None:
    put(sources.source, [part(number) for number in range(20)])
    _counts()
    put(sources.source, [part(3, weight=9), part(20)])
    remove(sources.source, [7])
    assert _counts() == {"extracted": 3, "inserted": 1, "updated": 1, "deleted": 1}
    assert rows(sources.target) == source_rows(sources.source)


@not_about_postgresql
def test_a_changed_key_is_a_delete_and_an_insert(sources: Databases) -> None:
    put(sources.source, [part(number) for number in range(20)])
    _counts()
    execute(sources.source, "UPDATE parts SET number = 77 WHERE number = 7")
    assert _counts() == {"extracted": 2, "inserted": 1, "deleted": 1}
    assert rows(sources.target) == source_rows(sources.source)


def test_null_becomes_a_value_and_a_value_null(sources: Databases) -> None:
    put(sources.source, [part(number) for number in range(12)])
    outcomes = []
    for name in ("bolt", None, "", None, "nut"):
        put(sources.source, [part(1, name=name)])
        outcomes.append(_counts().get("updated", 0))
        assert rows(sources.target) == source_rows(sources.source)
    assert outcomes == [0, 1, 1, 1, 1]


@not_about_postgresql
def test_when_most_rows_have_changed_everything_is_read_once_more_and_written_where_it_differs(
    sources: Databases,
) -> None:
    put(sources.source, [part(number) for number in range(10)])
    _counts()
    put(sources.source, [part(number, weight=5) for number in range(7)])
    remove(sources.source, [9])
    assert _counts() == {"extracted": 10, "updated": 7, "unchanged": 2, "deleted": 1}
    assert rows(sources.target) == source_rows(sources.source)


@pytest.mark.slow
def test_more_changes_than_fit_a_page_arrive(databases: Databases) -> None:
    with databases.source.begin() as connection:
        connection.execute(text("CREATE TABLE parts (number bigint PRIMARY KEY, name text, weight float)"))
        connection.execute(
            text(
                "WITH RECURSIVE counted(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM counted"
                " WHERE number < 60000) INSERT INTO parts SELECT number, 'bolt', 1 FROM counted"
            )
        )
    _counts()
    execute(
        databases.source,
        "UPDATE parts SET weight = 2 WHERE number % 6 = 0",
        "DELETE FROM parts WHERE number % 6 = 1",
    )
    assert _counts() == {"extracted": 20_000, "updated": 10_000, "deleted": 10_000}
    assert rows(databases.target) == source_rows(databases.source)


def test_a_query_is_followed_like_a_table(sources: Databases) -> None:
    extract = SnapshotDiff("source", query="SELECT * FROM parts WHERE weight < 5;", key=["number"])
    pipeline = replace(PARTS, extract=extract)
    put(sources.source, [part(number) for number in range(12)])
    assert _counts(pipeline) == {"extracted": 12, "inserted": 12}
    put(sources.source, [part(1, weight=6), part(2, weight=3)])
    assert _counts(pipeline) == {"extracted": 2, "updated": 1, "deleted": 1}
    assert _counts(pipeline) == {}


def test_a_key_may_have_several_columns(sources: Databases) -> None:
    class StockSchema(pa.DataFrameModel):
        shelf: str
        place: int
        amount: int

    execute(
        sources.source,
        "CREATE TABLE stock (shelf varchar(20) NOT NULL, place int NOT NULL, amount int, PRIMARY KEY (shelf, place))",
        *(f"INSERT INTO stock VALUES ('{shelf}', {place}, 1)" for shelf in ("a", "b", "?''") for place in range(6)),
    )
    pipeline = Pipeline(
        name="stock",
        extract=SnapshotDiff("source", "stock", key=["shelf", "place"]),
        schema=StockSchema,
        load=Upsert("target", "fct_stock", key=["place", "shelf"]),
    )
    assert _counts(pipeline) == {"extracted": 18, "inserted": 18}
    execute(
        sources.source,
        "UPDATE stock SET amount = 2 WHERE shelf LIKE '?%' AND place = 3",
        "UPDATE stock SET place = 9 WHERE shelf = 'a' AND place = 1",
    )
    assert _counts(pipeline) == {"extracted": 3, "updated": 1, "inserted": 1, "deleted": 1}
    columns = "shelf, place, amount"
    assert set(rows(sources.target, "fct_stock", columns)) == set(rows(sources.source, "stock", columns))


def test_names_are_quoted(databases: Databases) -> None:
    class OddSchema(pa.DataFrameModel):
        number: int
        etl_source: str

    def transform(raw: pd.DataFrame) -> pd.DataFrame:
        return raw.rename(columns={'Sel"ect % :x': "number"})

    execute(
        databases.source,
        'CREATE TABLE "Or""der" ("Sel""ect % \\:x" integer PRIMARY KEY, etl_source text, "a b" text)',
        *(f"""INSERT INTO "Or""der" VALUES ({number}, 'row', 'x')""" for number in range(12)),
    )
    pipeline = Pipeline(
        name='Or"der; DROP',
        extract=SnapshotDiff("source", 'Or"der', key=['Sel"ect % :x']),
        schema=OddSchema,
        load=Upsert("target", 'dim_"odd"', key=["number"]),
        transform=transform,
    )
    assert _counts(pipeline) == {"extracted": 12, "inserted": 12}
    execute(databases.source, """UPDATE "Or""der" SET etl_source = 'it''s' WHERE "Sel""ect % \\:x" = 3""")
    execute(databases.source, """DELETE FROM "Or""der" WHERE "Sel""ect % \\:x" = 4""")
    assert _counts(pipeline) == {"extracted": 2, "updated": 1, "deleted": 1}
    remove_feed(pipeline)


def test_a_table_may_bear_a_schema(postgresql: Databases) -> None:
    put(postgresql.source, [part(1)])
    execute(postgresql.source, 'CREATE SCHEMA "Mart"', 'ALTER TABLE parts SET SCHEMA "Mart"')
    pipeline = replace(PARTS, extract=SnapshotDiff("source", "Mart.parts", key=["number"]))
    assert [_counts(pipeline), _counts(pipeline)] == [{"extracted": 1, "inserted": 1}, {}]


@not_about_postgresql
def test_deletes_come_before_the_rows_that_take_their_place(sources: Databases) -> None:
    """The transform maps two keys of the source to one of the target."""

    class NameSchema(pa.DataFrameModel):
        name: str
        weight: float

    pipeline = Pipeline(
        name="names",
        extract=SnapshotDiff("source", "parts", key=["number"]),
        schema=NameSchema,
        load=Upsert("target", "dim_names", key=["name"]),
    )
    put(sources.source, [part(number, name=f"part {number}") for number in range(20)])
    _counts(pipeline)
    execute(sources.source, "UPDATE parts SET number = 99, weight = 7 WHERE number = 5")
    run_pipeline(pipeline)
    assert ("part 5", 7.0) in rows(sources.target, "dim_names", "name, weight")


# -- what is kept ----------------------------------------------------------------------------------------------------


def test_one_changed_row_rewrites_one_hash(postgresql: Databases) -> None:
    put(postgresql.source, [part(number) for number in range(100)])
    _counts()
    table = hash_table(postgresql.target)
    assert table is not None
    before = dict(rows(postgresql.target, table, "number, xmin::text"))
    put(postgresql.source, [part(3, weight=9)])
    _counts()
    after = dict(rows(postgresql.target, table, "number, xmin::text"))
    assert [number for number in before if before[number] != after[number]] == [3]


@not_about_postgresql
def test_a_rejected_row_is_a_dead_letter_and_is_read_again_only_when_it_changes(sources: Databases) -> None:
    put(sources.source, [*(part(number) for number in range(12)), part(12, weight=-5)])
    assert _counts() == {"extracted": 13, "inserted": 12, "rejected": 1}
    assert _counts() == {}
    assert _letters(sources) == [("12", "open", 1)]
    put(sources.source, [part(12, weight=-6)])
    assert _counts() == {"extracted": 1, "rejected": 1}
    put(sources.source, [part(12, weight=6)])
    assert _counts() == {"extracted": 1, "inserted": 1}
    assert _letters(sources) == [("12", "closed", 2)]


@not_about_postgresql
def test_a_window_refused_for_its_errors_remembers_nothing(sources: Databases) -> None:
    strict = replace(PARTS, sla=replace(PARTS.sla, abort_error_rate=0.5))
    put(sources.source, [part(number) for number in range(12)])
    _counts(strict)
    before, seen = hashes(sources.target), _watermark(sources)
    put(sources.source, [part(1, weight=-5), part(2, weight=-5)])
    with pytest.raises(GuardRefused):
        run_pipeline(strict)
    assert (hashes(sources.target), _watermark(sources)) == (before, seen)
    assert _letters(sources) == [("1", "open", 1), ("2", "open", 1)]
    put(sources.source, [part(1, weight=5), part(2, weight=5)])
    assert _counts(strict) == {"extracted": 2, "updated": 2}


def test_nothing_but_the_hashes_stays_in_the_target(databases: Databases) -> None:
    put(databases.source, [part(1)])
    _counts()
    left = [name for name in inspect(databases.target).get_table_names() if name.startswith(("etl_hashed", "etl_ch"))]
    assert left == []


def test_remove_feed_takes_the_hashes_away_and_the_next_run_begins_anew(databases: Databases) -> None:
    put(databases.source, [part(1), part(2)])
    _counts()
    remove_feed(PARTS)
    assert hash_table(databases.target) is None
    remove(databases.source, [2])
    assert _counts() == {"extracted": 1, "added": 1, "unchanged": 1, "deleted": 1}
    remove_feed(PARTS)
    remove_feed(PARTS)


@pytest.mark.parametrize("loss", ["DROP TABLE {table}", "DELETE FROM {table}"])
def test_lost_hashes_cost_a_new_snapshot_and_no_row(databases: Databases, loss: str) -> None:
    put(databases.source, [part(1), part(2), part(3)])
    _counts()
    execute(databases.target, loss.format(table=hash_table(databases.target)))
    remove(databases.source, [2])
    assert _counts() == {"extracted": 2, "added": 1, "unchanged": 2, "deleted": 1}
    assert _counts() == {}


def test_a_full_refresh_mends_a_target_that_somebody_has_changed(databases: Databases) -> None:
    put(databases.source, [part(1), part(2)])
    _counts()
    execute(
        databases.target, "UPDATE dim_parts SET weight = 3 WHERE number = 1", "DELETE FROM dim_parts WHERE number = 2"
    )
    assert _counts() == {}
    report = run_pipeline(PARTS, full_refresh=True)
    assert (report.counts.updated, report.counts.inserted) == (1, 1)
    assert rows(databases.target) == source_rows(databases.source)


# -- when the source changes its shape -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    slow_but(
        ["ALTER TABLE parts RENAME COLUMN spare TO other"],
        [
            "ALTER TABLE parts ADD COLUMN colour varchar(9)",
            "ALTER TABLE parts DROP COLUMN spare",
            "ALTER TABLE parts RENAME COLUMN spare TO other",
        ],
    ),
)
def test_after_a_column_was_added_dropped_or_renamed_every_row_counts_as_changed_once(
    sources: Databases, change: str
) -> None:
    put(sources.source, [part(number) for number in range(6)])
    execute(sources.source, "ALTER TABLE parts ADD COLUMN spare varchar(9)")
    _counts()
    execute(sources.source, change)
    remove(sources.source, [0])
    assert _counts() == {"extracted": 6, "unchanged": 5, "deleted": 1}
    assert _counts() == {}


def test_a_wider_key_column_keeps_its_hashes(postgresql: Databases) -> None:
    execute(
        postgresql.source,
        "CREATE TABLE parts (number smallint PRIMARY KEY, name text, weight float)",
        "INSERT INTO parts SELECT n, 'bolt', 1 FROM generate_series(1, 9) n",
    )
    _counts()
    execute(postgresql.source, "ALTER TABLE parts ALTER number TYPE bigint")
    put(postgresql.source, [part(1 << 40)])
    assert _counts() == {"extracted": 1, "inserted": 1}


@pytest.mark.parametrize("key", [["number"], ["name", "number"], ["name"]])
def test_another_key_begins_anew(databases: Databases, key: list[str]) -> None:
    """Also one of another type: the hashes are of no use any more."""
    put(databases.source, [part(number, name=f"part {number}") for number in range(3)])
    _counts(replace(PARTS, extract=SnapshotDiff("source", "parts", key=["weight", "number"])))
    remove(databases.source, [1])
    assert _counts(replace(PARTS, extract=SnapshotDiff("source", "parts", key=key))) == {
        "extracted": 2,
        "added": 1,
        "unchanged": 2,
        "deleted": 1,
    }


# -- guards -----------------------------------------------------------------------------------------------------------


@not_about_postgresql
def test_a_source_that_shrank_too_much_is_refused_before_anything_is_written(sources: Databases) -> None:
    put(sources.source, [part(number) for number in range(10)])
    _counts()
    before, seen = hashes(sources.target), _watermark(sources)
    remove(sources.source, range(6))
    put(sources.source, [part(8, weight=8), part(20)])
    with pytest.raises(GuardRefused, match=r"6 of the 10 rows .* which holds 5; max_shrink=50%"):
        run_pipeline(PARTS)
    assert len(rows(sources.target)) == 10
    assert (hashes(sources.target), _watermark(sources)) == (before, seen)
    with sources.target.connect() as connection:
        assert connection.execute(select(runs.c.status).order_by(runs.c.started_at)).scalars().all()[-1] == "refused"
    allowed = replace(PARTS, extract=SnapshotDiff("source", "parts", key=["number"], max_shrink=0.6))
    assert _counts(allowed) == {"extracted": 11, "unchanged": 3, "updated": 1, "inserted": 1, "deleted": 6}


def test_an_empty_source_is_refused_whatever_max_shrink_says(sources: Databases) -> None:
    put(sources.source, [part(1), part(2)])
    careless = replace(PARTS, extract=SnapshotDiff("source", "parts", key=["number"], max_shrink=1.0))
    _counts(careless)
    remove(sources.source, [1, 2])
    for afresh in (False, True):
        with pytest.raises(GuardRefused):
            run_pipeline(careless, full_refresh=afresh)
    assert len(rows(sources.target)) == 2
    put(sources.source, [part(1)])
    assert _counts(careless) == {"extracted": 1, "deleted": 1}


@not_about_postgresql
def test_a_source_that_really_is_empty_goes_on_after_its_rows_and_its_feed_are_removed(sources: Databases) -> None:
    put(sources.source, [part(1), part(2)])
    _counts()
    remove(sources.source, [1, 2])
    execute(sources.target, "DELETE FROM dim_parts")
    remove_feed(PARTS)
    assert [_counts(), _counts()] == [{}, {}]
    put(sources.source, [part(3)])
    assert _counts() == {"extracted": 1, "inserted": 1}


def test_a_first_snapshot_obeys_max_shrink_too(databases: Databases) -> None:
    put(databases.source, [part(number) for number in range(10)])
    _counts()
    remove(databases.source, range(6))
    with pytest.raises(GuardRefused, match="6 of the 10 rows"):
        run_pipeline(PARTS, full_refresh=True)
    assert len(hashes(databases.target)) == 10


# -- keys that are none -----------------------------------------------------------------------------------------------


def test_a_row_without_a_key_is_an_error_that_says_how_many_there_are(sources: Databases) -> None:
    put(sources.source, [part(number, name=None if number < 2 else str(number)) for number in range(5)])
    pipeline = replace(PARTS, extract=SnapshotDiff("source", "parts", key=["name"]))
    with pytest.raises(SourceError, match=r"2 rows have no 'name'.*leave them out with a query"):
        run_pipeline(pipeline)


def test_two_rows_with_one_key_are_an_error_that_shows_it(sources: Databases) -> None:
    put(sources.source, [part(1, name="bolt"), part(2, name="bolt"), part(3, name="nut")])
    pipeline = replace(PARTS, extract=SnapshotDiff("source", "parts", key=["name"]))
    with pytest.raises(SourceError, match=r"2 rows have the key \(name\) = \('bolt'\)"):
        run_pipeline(pipeline)


def test_a_key_whose_values_are_of_several_types_is_an_error(sqlite: Databases) -> None:
    execute(
        sqlite.source,
        "CREATE TABLE parts (number, name, weight)",
        "INSERT INTO parts VALUES (1, 'a', 1), ('1', 'b', 2)",
    )
    with pytest.raises(SourceError, match="'number' holds values of several types"):
        run_pipeline(PARTS)


def test_a_key_that_is_not_there_is_an_error_that_names_the_columns(sources: Databases) -> None:
    put(sources.source, [part(1)])
    with pytest.raises(SourceError, match="no column 'id' to be in the key; the columns are number, name, weight"):
        run_pipeline(replace(PARTS, extract=SnapshotDiff("source", "parts", key=["id"])))


# -- times ------------------------------------------------------------------------------------------------------------


def test_the_position_is_the_source_clock_of_the_snapshot_and_covered_until_the_one_before(sources: Databases) -> None:
    put(sources.source, [part(1)])
    before = datetime.now(UTC)
    report = run_pipeline(PARTS)
    after = datetime.now(UTC)
    assert report.covered_until is not None and report.position is not None
    # MariaDB's and PostgreSQL's clocks are this machine's.
    assert before <= report.covered_until <= datetime.fromisoformat(report.position) <= after
    again = run_pipeline(PARTS)
    assert again.position is not None and again.position > report.position


def test_a_declared_clock_is_the_source_time_and_the_position_never_goes_back(sources: Databases) -> None:
    for clock, position in (("2020-02-02", "2020-02-02"), ("2020-01-01", "2020-02-02"), ("2020-03-03", "2020-03-03")):
        extract = SnapshotDiff("source", "parts", key=["number"], clock=f"'{clock} 00:00:00'")
        put(sources.source, [part(1)])
        report = run_pipeline(replace(PARTS, extract=extract))
        assert report.position == f"{position}T00:00:00+00:00"


def test_every_change_bears_the_snapshot_as_its_time(databases: Databases) -> None:
    stamps: list[tuple[Any, ...]] = []

    def transform(raw: pd.DataFrame) -> pd.DataFrame:
        stamps.extend(raw[["etl_operation", "etl_committed_at", "etl_position"]].itertuples(index=False, name=None))
        return raw

    pipeline = replace(PARTS, transform=transform)
    put(databases.source, [part(number) for number in range(12)])
    run_pipeline(pipeline)
    stamps.clear()
    put(databases.source, [part(1, weight=2), part(12)])
    remove(databases.source, [2])
    position = run_pipeline(pipeline).position
    assert position is not None
    instant = datetime.fromisoformat(position)
    assert {operation for operation, _, _ in stamps} == {"insert", "update", "delete"}
    assert {(at, where) for _, at, where in stamps} == {(pd.Timestamp(instant), position)}


# -- the declaration --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"table": "parts", "query": "SELECT 1", "key": ["number"]},
        {"key": ["number"]},
        {"table": "parts"},
        {"table": "parts", "key": "number"},
        {"table": "parts", "key": ["number", "number"]},
        {"table": "parts", "key": ["number"], "max_shrink": 1.5},
    ],
)
def test_a_declaration_that_cannot_be_right_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="SnapshotDiff"):
        SnapshotDiff("source", **wrong)  # type: ignore[arg-type]


def test_it_is_a_feed_that_can_be_compared() -> None:
    declared = SnapshotDiff("source", "parts", key=["number"])
    assert isinstance(declared, Feed)
    assert declared == SnapshotDiff("source", "parts", key=("number",))
    assert hash(declared) == hash(SnapshotDiff("source", "parts", key=["number"]))


def test_a_range_of_the_past_is_refused(databases: Databases) -> None:
    put(databases.source, [part(1)])
    with pytest.raises(ConfigError, match="no past"):
        run_pipeline(PARTS, datetime.now(UTC) - timedelta(days=1))
