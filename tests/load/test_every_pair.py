"""What every strategy promises on every database: one list of strategies, and the claims that hold for all of them.

A strategy is one line more in `CASES`, and a database one more in the fixture `databases`.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pandas as pd
import pytest
from sqlalchemy import BigInteger, Column, Double, Engine, MetaData, Table, Text, insert, select, text

from tasks import connections
from tasks.column_types import UtcDateTime
from tasks.errors import ContractError, GuardRefused, Refusal
from tasks.extract.table import TableExtract
from tasks.load.append import Append
from tasks.load.partition import ReplacePartition
from tasks.load.replace import Replace
from tasks.load.scd2 import Scd2
from tasks.load.strategy import Load
from tasks.load.upsert import Upsert
from tasks.pipeline import Pipeline, Sla, run_pipeline
from tasks.state.tables import dead_letters, runs, watermarks
from tests.conftest import Databases, on_postgresql_too
from tests.orders import DAY, ORDERS, START, order

BY_CURSOR = TableExtract("source", "versions", cursor="updated_at")
WHOLE = TableExtract("source", "versions")


@dataclass(frozen=True)
class Case:
    """A strategy as it loads `fct_orders` by `id`, and what it promises otherwise than the others.

    Attributes:
        load: the strategy.
        extract: how it is fed.
        current: which rows of the target are those that are valid, as SQL.
        repeated: of four versions of a row that come at once, two of them the same, how many are not written.
        first: the oldest of them counts, and not the newest; a later one is never written over it.
    """

    load: Load
    extract: TableExtract = field(default=BY_CURSOR)
    current: str = "1 = 1"
    repeated: int = 3
    first: bool = False

    @property
    def pipeline(self) -> Pipeline:
        return replace(ORDERS, extract=self.extract, load=self.load)

    def __str__(self) -> str:
        return f"{type(self.load).__name__}-{'by cursor' if self.extract.cursor else 'whole'}"


INTO = ("target", "fct_orders", ["id"])

CASES = [
    Case(Upsert(*INTO)),
    Case(Upsert(*INTO), WHOLE),
    Case(Append(*INTO), first=True),
    Case(Replace(*INTO), WHOLE),
    Case(ReplacePartition(*INTO, partition="updated_at", grain="day")),
    Case(Scd2(*INTO), current="valid_to IS NULL", repeated=1),
]

every = pytest.mark.parametrize("case", CASES, ids=str)


# Without a key, so that a row may come in several versions, or have no key.
VERSIONS = Table(
    "versions",
    MetaData(),
    Column("id", BigInteger),
    Column("customer", Text),
    Column("amount", Double),
    Column("updated_at", UtcDateTime),
)


def show(source: Engine, versions: Sequence[dict[str, Any]]) -> None:
    """Make the source exactly `versions`, to be read in their order."""
    VERSIONS.drop(source, checkfirst=True)
    VERSIONS.create(source)
    with source.begin() as connection:
        for version in versions:
            connection.execute(insert(VERSIONS).values(**version))


def everything(databases: Databases) -> list[tuple[Any, ...]]:
    """Every row of the target, with every column."""
    with databases.target.connect() as connection:
        return sorted(tuple(row) for row in connection.execute(text("SELECT * FROM fct_orders")))


def current(databases: Databases, case: Case) -> dict[int, float]:
    """The amounts that are valid, by id."""
    with databases.target.connect() as connection:
        rows = connection.execute(text(f"SELECT id, amount FROM fct_orders WHERE {case.current}")).all()
    assert len({row.id for row in rows}) == len(rows)
    return {row.id: row.amount for row in rows}


@on_postgresql_too
@every
def test_the_same_source_again_changes_nothing(databases: Databases, case: Case) -> None:
    show(databases.source, [order(1), order(2, amount=None, day=1), order(3, amount=-1, day=2)])
    run_pipeline(case.pipeline)
    before = everything(databases)
    counts = run_pipeline(case.pipeline, full_refresh=True).counts
    assert everything(databases) == before
    assert (counts.unchanged, counts.rejected) == (2, 1)
    with databases.target.connect() as connection:
        assert connection.execute(select(runs.c.written).order_by(runs.c.started_at)).scalars().all() == [2, 0]


@every
def test_versions_that_come_at_once_are_one_row(databases: Databases, case: Case) -> None:
    """The newest by its cursor, wherever it stands; without a cursor the last that was read."""
    days = [2, 2, 0, 1] if case.extract.cursor else [1, 0, 2, 2]
    show(databases.source, [order(1, amount=day, day=day) for day in days] + [order(2, amount=7)])
    counts = run_pipeline(case.pipeline).counts
    assert counts.deduplicated == case.repeated
    assert current(databases, case) == {1: 0 if case.first else 2, 2: 7}


@every
def test_a_newer_version_in_a_later_run_is_written_or_counts_as_deduplicated(databases: Databases, case: Case) -> None:
    show(databases.source, [order(1, amount=1), order(2, amount=2)])
    run_pipeline(case.pipeline)
    show(databases.source, [order(1, amount=5, day=1), order(2, amount=2)])
    counts = run_pipeline(case.pipeline).counts
    assert current(databases, case) == {1: 1 if case.first else 5, 2: 2}
    assert (counts.updated, counts.deduplicated) == ((0, 1) if case.first else (1, 0))


@every
def test_a_row_without_its_key_is_a_dead_letter(databases: Databases, case: Case) -> None:
    show(databases.source, [order(1), {**order(2), "id": None}])
    counts = run_pipeline(case.pipeline).counts
    assert (counts.inserted, counts.rejected) == (1, 1)
    with databases.target.connect() as connection:
        [reasons] = connection.execute(select(dead_letters.c.reasons)).scalars().all()
    assert json.loads(str(reasons)) == [{"rule": "key is not null", "column": "id", "value": None}]
    assert current(databases, case) == {1: 1}


@every
def test_a_refused_window_writes_its_dead_letters_and_nothing_else(databases: Databases, case: Case) -> None:
    show(databases.source, [order(1)])
    run_pipeline(case.pipeline)
    before, moved = everything(databases), watermark(databases)
    show(databases.source, [order(1, amount=9, day=1), order(2, day=1), order(3, amount=-1, day=1)])
    with pytest.raises(GuardRefused, match="1 of 3 rows were rejected"):
        run_pipeline(replace(case.pipeline, sla=Sla(abort_error_rate=0.1)))
    assert (everything(databases), watermark(databases)) == (before, moved)
    with databases.target.connect() as connection:
        statuses = connection.execute(select(runs.c.status, runs.c.written).order_by(runs.c.started_at)).all()
        letters = connection.execute(select(dead_letters.c.reasons)).all()
    assert [tuple(status) for status in statuses] == [("committed", 1), ("refused", 0)]
    assert len(letters) == 1


@every
def test_a_run_that_breaks_leaves_nothing_and_the_next_one_is_right(databases: Databases, case: Case) -> None:
    show(databases.source, [order(1)])
    run_pipeline(case.pipeline)
    before = everything(databases)
    show(databases.source, [order(1), order(2, day=1)])
    with pytest.raises(ContractError):
        run_pipeline(replace(case.pipeline, transform=lambda raw: raw.drop(columns="amount")))
    assert everything(databases) == before
    run_pipeline(case.pipeline)
    assert current(databases, case) == {1: 1, 2: 1}


@on_postgresql_too
@every
def test_of_two_runs_at_once_only_one_commits_what_both_have_read(databases: Databases, case: Case) -> None:
    """The second run happens between the snapshot and the commit of the first."""
    show(databases.source, [order(1), order(2)])

    def second(left: list[Callable[[], object]], raw: pd.DataFrame) -> pd.DataFrame:
        if left:
            left.pop()()
        return raw

    meanwhile = partial(second, [lambda: run_pipeline(case.pipeline)])
    with pytest.raises(Refusal):
        run_pipeline(replace(case.pipeline, transform=meanwhile))
    assert current(databases, case) == {1: 1, 2: 1}


def watermark(databases: Databases) -> Any:
    with databases.target.connect() as connection:
        return connection.execute(select(watermarks.c.watermark, watermarks.c.version)).one()


# -- only where there is a cursor --------------------------------------------------------------------------------------


@on_postgresql_too
@pytest.mark.parametrize("case", [case for case in CASES if case.extract.cursor], ids=str)
def test_an_older_version_never_replaces_a_newer_one(databases: Databases, case: Case) -> None:
    show(databases.source, [order(1, amount=5, day=3)])
    run_pipeline(case.pipeline)
    show(databases.source, [order(1, amount=1, day=0)])
    run_pipeline(case.pipeline, START, START + DAY)
    assert current(databases, case) == {1: 5}


# -- what only one strategy promises -----------------------------------------------------------------------------------


def test_upsert_does_not_touch_a_row_that_is_equal(postgresql: Databases) -> None:
    """PostgreSQL tells: the row bears the number of the transaction that wrote it, and no dead one was left behind."""
    upsert = CASES[0].pipeline
    show(postgresql.source, [order(number) for number in range(200)])
    run_pipeline(upsert)
    before = written_by(postgresql)
    assert run_pipeline(upsert, full_refresh=True).counts.unchanged == 200
    assert written_by(postgresql) == before
    show(postgresql.source, [order(number, amount=9 if number < 5 else 1) for number in range(200)])
    assert run_pipeline(upsert, full_refresh=True).counts.updated == 5
    after = written_by(postgresql)
    assert {number for number in before if after[number] != before[number]} == {0, 1, 2, 3, 4}
    connections.dispose()  # a session tells what it has done when it ends
    with postgresql.target.connect() as connection:
        told = text(
            "SELECT n_tup_ins, n_tup_upd, n_tup_del, n_dead_tup FROM pg_stat_user_tables WHERE relname = 'fct_orders'"
        )
        assert tuple(connection.execute(told).one()) == (200, 5, 0, 5)


def written_by(databases: Databases) -> dict[int, tuple[str, str]]:
    """The transaction that wrote each row, and where it lies."""
    with databases.target.connect() as connection:
        rows = connection.execute(text("SELECT id, xmin::text, ctid::text FROM fct_orders"))
        return {row.id: (row.xmin, row.ctid) for row in rows}


@on_postgresql_too
def test_append_keeps_the_first_of_each_key_in_a_batch_across_runs_and_for_latecomers(databases: Databases) -> None:
    """In one batch, in the next run, and in a window before both that is read at last."""
    append = CASES[2].pipeline
    show(databases.source, [order(1, amount=1, day=5), order(1, amount=2, day=6), order(2, amount=1, day=5)])
    counts = [run_pipeline(append).counts]
    show(databases.source, [order(2, amount=3, day=7), order(3, amount=1, day=7), order(3, amount=1, day=7)])
    counts.append(run_pipeline(append).counts)
    show(databases.source, [order(1, amount=9, day=1), order(4, amount=1, day=1)])
    counts.append(run_pipeline(append, START, START + 2 * DAY).counts)
    counts.append(run_pipeline(append, START, START + 2 * DAY).counts)
    assert [(one.inserted, one.deduplicated, one.unchanged) for one in counts] == [
        (2, 1, 0),
        (1, 2, 0),
        (1, 1, 0),
        (0, 1, 1),
    ]
    assert current(databases, CASES[2]) == {1: 1, 2: 1, 3: 1, 4: 1}
