"""Pipelines that use everything a commit can do, and the history that leads up to it.

Each scenario is a list of states of the source. A run at each but the last leaves the target with rows and dead
letters; the run at the last state is the one that is disturbed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pandera.pandas as pa
from sqlalchemy import BigInteger, Column, Double, Engine, MetaData, Table, Text, delete, insert

from tasks.column_types import EXACT_TEXT, UtcDateTime
from tasks.extract.table import TableExtract
from tasks.load.append import Append
from tasks.load.partition import ReplacePartition
from tasks.load.replace import Replace
from tasks.load.scd2 import Scd2
from tasks.load.upsert import Upsert
from tasks.partitioned import Partitioned
from tasks.pipeline import Pipeline, References, Sla
from tasks.transform.contract import UtcTimestamp

START = datetime(2020, 1, 1, tzinfo=UTC)
_CLOCK = "'2020-03-01 00:00:00+00:00'"  # the source stands still, so that two runs of the same read the same
_COLUMNS = "id, customer, region, amount, updated_at"
_QUERY = f"SELECT {_COLUMNS} FROM changes"  # the table has no key, so a window may hold two versions of a row

Change = dict[str, Any]


class ChangeSchema(pa.DataFrameModel):
    """A change of an order; a negative amount is bad."""

    id: int
    customer: str = pa.Field(nullable=True)
    region: str = pa.Field(nullable=True)
    amount: float = pa.Field(nullable=True, ge=0)
    updated_at: UtcTimestamp


CHANGES = Table(
    "changes",
    MetaData(),
    Column("id", BigInteger),
    Column("customer", Text),
    Column("region", Text),
    Column("amount", Double),
    Column("updated_at", UtcDateTime),
)
_names = MetaData()
_REFERENCED = {
    Table("dim_customers", _names, Column("name", EXACT_TEXT, primary_key=True)): ["ann", "bob"],
    Table("dim_regions", _names, Column("name", EXACT_TEXT, primary_key=True)): ["north", "south"],
}


@dataclass(frozen=True)
class Scenario:
    """A pipeline, and the states of its source.

    Attributes:
        pipeline: what runs.
        states: everything the source holds, run after run.
        terms: terms of the conservation sum that the last run has to have, or it would not be worth disturbing.
    """

    pipeline: Pipeline
    states: Sequence[Sequence[Change]]
    terms: Sequence[str]


def change(number: int | None, day: float = 0, *, amount: float = 1.0, customer: str = "ann",
           region: str = "north") -> Change:  # fmt: skip
    """A version of order `number`, `day` days after `START`."""
    return {
        "id": number,
        "customer": customer,
        "region": region,
        "amount": amount,
        "updated_at": START + timedelta(days=day),
    }


def fill_source(source: Engine, state: Sequence[Change]) -> None:
    """Let the source hold `state` and nothing else."""
    CHANGES.metadata.create_all(source)
    with source.begin() as connection:
        connection.execute(delete(CHANGES))
        connection.execute(insert(CHANGES), list(state))


def fill_referenced(target: Engine) -> None:
    """Create the tables that the pipelines refer to."""
    _names.create_all(target)
    with target.begin() as connection:
        for table, names in _REFERENCED.items():
            connection.execute(insert(table), [{"name": name} for name in names])


_REFERENCES = [
    References("customer", "dim_customers.name"),
    References("region", "dim_regions.name", on_missing="warn"),
]
_EVERYTHING = Sla(abort_error_rate=1.0)
_BY_CURSOR = TableExtract("source", query=_QUERY, cursor="updated_at", lookback=timedelta(days=99), clock=_CLOCK)

# Dead letters of the history: 20 stays bad, 21 and 24 become good, 22 became good and turns bad again, 23 stays away.
_BAD = [
    change(20, amount=-1),
    change(21, customer="nobody"),
    change(22, amount=-1),
    change(23, customer="nobody"),
    change(24, amount=-2),
]
_FRESH_LETTERS = [change(30, 10, amount=-5), change(31, 10, customer="nobody")]

UPSERT = Scenario(
    Pipeline(
        name="upserted",
        extract=_BY_CURSOR,
        schema=ChangeSchema,
        load=Upsert("target", "fct_changes", key=["id"]),
        references=_REFERENCES,
        sla=_EVERYTHING,
    ),
    [
        [*(change(number) for number in range(1, 9)), change(5, 5, amount=50), *_BAD],
        [*(change(number) for number in range(1, 9)), change(5, 5, amount=50), *_BAD[:2], *_BAD[3:], change(22, 2)],
        [
            *(change(number) for number in range(1, 5)),
            change(2, 10, amount=2),
            change(2, 11, amount=3),
            change(3, 10, amount=3),
            change(5, 1),  # older than what was loaded
            *(change(number) for number in range(6, 9)),
            change(9, 10),
            change(10, 10, region="atlantis"),  # a reference that only warns
            change(12, 10),
            change(12, 11, amount=12),
            change(20, amount=-1),
            change(21, 10),
            change(22, 10, amount=-1),
            change(24, 10),
            *_FRESH_LETTERS,
            change(None, 10),  # a letter that no key identifies
        ],
    ],
    ["inserted", "updated", "unchanged", "stale", "deduplicated", "rejected"],
)

REPLACE = Scenario(
    Pipeline(
        name="replaced",
        extract=TableExtract("source", query=_QUERY),
        schema=ChangeSchema,
        load=Replace("target", "fct_changes", key=["id"], max_shrink=0.9),
        references=_REFERENCES,
        sla=_EVERYTHING,
    ),
    [
        [*(change(number) for number in range(1, 9)), *_BAD],
        [*(change(number) for number in range(1, 9)), *_BAD[:2], *_BAD[3:], change(22, 2)],
        [
            change(3, 10, amount=3),
            change(4, 10, amount=-4),  # rejected, and so not absent
            *(change(number) for number in range(5, 9)),
            change(9, 10),
            change(12, 10),
            change(12, 11, amount=12),
            change(20, amount=-1),
            change(21, 10),
            change(22, 10, amount=-1),
            change(24, 10),
            *_FRESH_LETTERS,
        ],
    ],
    ["added", "inserted", "updated", "deleted", "unchanged", "deduplicated", "rejected"],
)

APPEND = Scenario(
    Pipeline(
        name="appended",
        extract=_BY_CURSOR,
        schema=ChangeSchema,
        load=Append("target", "fct_changes", key=["id"]),
        references=_REFERENCES,
        sla=_EVERYTHING,
    ),
    [
        [*(change(number) for number in range(1, 5)), *_BAD],
        [*(change(number) for number in range(1, 5)), *_BAD[:2], *_BAD[3:], change(22, 2)],
        [
            *(change(number) for number in range(1, 4)),
            change(4, 10, amount=4),  # a second version of an event
            *(change(number, 10) for number in range(5, 8)),
            change(7, 11),
            change(20, amount=-1),
            change(21, 10),
            change(22, 10, amount=-1),
            change(24, 10),
            *_FRESH_LETTERS,
            change(None, 10),
        ],
    ],
    ["inserted", "unchanged", "deduplicated", "rejected"],
)

_GONE = 1_000.0
BURY = Scenario(
    Pipeline(
        name="buried",
        extract=TableExtract(
            "source",
            query=f"SELECT {_COLUMNS}, CASE WHEN amount = {_GONE} THEN 1 ELSE 0 END AS gone FROM changes",
            cursor="updated_at",
            lookback=timedelta(days=99),
            clock=_CLOCK,
            deleted="gone",
        ),
        schema=ChangeSchema,
        load=Upsert("target", "fct_changes", key=["id"]),
        references=_REFERENCES,
        sla=_EVERYTHING,
    ),
    [
        [*(change(number, 1) for number in range(1, 9)), *_BAD],
        [*(change(number, 1) for number in range(4, 9)), *(change(number, 5, amount=_GONE) for number in range(1, 4))],
        [
            change(1, 4, amount=4),  # older than its delete
            change(2, 6, amount=6),  # it returns
            change(3, 7, amount=_GONE),  # deleted again
            change(4, 6, amount=_GONE),
            change(5, 0.5, amount=_GONE),  # older than the row
            change(6, 6, amount=6),
            change(7, 1),
            change(9, 6, amount=_GONE),  # nobody has seen the row
            change(10, 6),
            change(21, 6),
            *_FRESH_LETTERS,
        ],
    ],
    ["inserted", "updated", "deleted", "unchanged", "stale", "rejected"],
)

PARTITION = Scenario(
    Pipeline(
        name="partitioned",
        extract=_BY_CURSOR,
        schema=ChangeSchema,
        load=ReplacePartition(
            "target",
            "fct_changes",
            key=["id"],
            partition="updated_at",
            grain="day",
            zone="America/New_York",
            max_shrink=0.9,
            track=Partitioned("updated_at", "day"),
        ),
        references=_REFERENCES,
        sla=_EVERYTHING,
    ),
    [
        [*(change(number) for number in range(1, 9)), *_BAD],
        [*(change(number) for number in range(1, 9)), *_BAD[:2], *_BAD[3:], change(22, 2)],
        [
            *(change(number) for number in range(1, 5)),
            change(5, amount=5),
            change(7, 10),  # moved to another day
            change(8, amount=-8),  # rejected, and so not absent
            change(9, 10),
            change(10, 10, region="atlantis"),  # a reference that only warns
            change(12, 10),
            change(12, 11, amount=12),
            change(20, amount=-1),
            change(21, 10),
            change(22, 10, amount=-1),
            change(24, 10),
            *_FRESH_LETTERS,
        ],
    ],
    ["added", "inserted", "updated", "deleted", "unchanged", "deduplicated", "rejected"],
)

HISTORY = Scenario(
    Pipeline(
        name="versioned",
        extract=_BY_CURSOR,
        schema=ChangeSchema,
        load=Scd2("target", "fct_changes", key=["id"], untracked=["region"]),
        references=_REFERENCES,
        sla=_EVERYTHING,
    ),
    [
        [*(change(number) for number in range(1, 9)), change(5, 5, amount=50), change(6, 5), *_BAD],
        [*(change(number) for number in range(1, 9)), change(5, 5, amount=50), *_BAD[:2], *_BAD[3:], change(22, 2)],
        [
            *(change(number) for number in range(1, 5)),
            change(2, 10, amount=2),
            change(2, 11, amount=3),
            change(3, 0, amount=3),  # takes the place of what is known of that instant
            change(4, 10, amount=4),
            change(4, 10, amount=5),  # and so does the later of two that come
            change(5, 1, amount=5),  # late, and splits a version
            change(5, 3, amount=50),  # late, and is merged with the version that follows
            change(6, 3, amount=6),  # late, between two that were equal
            change(7, 10, region="south"),  # opens no version
            change(9, 10),
            change(10, 10, region="atlantis"),
            change(12, 10),
            change(12, 11, amount=12),
            change(20, amount=-1),
            change(21, 10),
            change(22, 10, amount=-1),
            change(24, 10),
            *_FRESH_LETTERS,
            change(None, 10),
        ],
    ],
    ["inserted", "updated", "unchanged", "deduplicated", "rejected"],
)

SCENARIOS = {scenario.pipeline.name: scenario for scenario in (UPSERT, REPLACE, APPEND, BURY, PARTITION, HISTORY)}
