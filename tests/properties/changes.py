"""A source whose every change is known, a pipeline over it, and the thirty lines that say what has to come of it."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Integer,
    MetaData,
    Table,
    Text,
    delete,
    insert,
    inspect,
    select,
    text,
    update,
)

from tasks.column_types import EXACT_TEXT, UtcDateTime
from tasks.extract.table import TableExtract
from tasks.load.append import Append
from tasks.load.upsert import Upsert
from tasks.pipeline import Pipeline, References
from tasks.state.tables import dead_letters, runs
from tests.conftest import Databases
from tests.orders import ORDERS, START

HOUR = timedelta(hours=1)
LOOKBACK = 4
"""Hours."""

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Change:
    """A version of an order; `at` counts hours from `START`. A negative amount or the customer `ghost` is bad."""

    key: int | None
    at: int
    amount: int
    customer: str

    @property
    def row(self) -> dict[str, Any]:
        return {"id": self.key, "customer": self.customer, "amount": float(self.amount), "updated_at": hour(self.at)}


def hour(at: int) -> datetime:
    """The instant `at` hours after `START`."""
    return START + at * HOUR


class World:
    """A source with a clock of its own, and an empty target, in tables nobody else uses.

    Args:
        databases: where.
        log: the source keeps every version of a row, read by a query; else one row for each key, changed in place.
        updates: load with `Upsert`; else with `Append`.
    """

    def __init__(self, databases: Databases, *, log: bool = True, updates: bool = True) -> None:
        self.databases = databases
        self.log = log
        number = next(_numbers)
        self._suffix = f"_{number}"
        self.source: list[Change] = []
        tables = MetaData()
        self._rows = Table(
            f"changes_{number}",
            tables,
            Column("seq", Integer, primary_key=True, autoincrement=False),
            Column("id", BigInteger),
            Column("customer", Text),
            Column("amount", Double),
            Column("updated_at", UtcDateTime),
        )
        self._clock = Table(f"clock_{number}", tables, Column("now", UtcDateTime))
        self._customers = Table(f"dim_customers_{number}", MetaData(), Column("name", EXACT_TEXT, primary_key=True))
        tables.create_all(databases.source)
        self._customers.metadata.create_all(databases.target)
        self.land("ann")
        with databases.source.begin() as connection:
            connection.execute(insert(self._clock).values(now=START))
        self.target = f"fct_{number}"
        query = f"SELECT id, customer, amount, updated_at FROM {self._rows.name} ORDER BY seq"
        self.pipeline: Pipeline = replace(
            ORDERS,
            name=f"changes_{number}",
            extract=TableExtract(
                "source",
                table=None if log else self._rows.name,
                query=query if log else None,
                cursor="updated_at",
                lookback=LOOKBACK * HOUR,
                clock=f"(SELECT now FROM {self._clock.name})",
            ),
            references=[References("customer", f"{self._customers.name}.name")],
            load=(Upsert if updates else Append)("target", self.target, key=["id"]),
        )

    def change(self, changes: Iterable[Change]) -> None:
        """Write `changes` into the source."""
        with self.databases.source.begin() as connection:
            for change in changes:
                if not self.log:
                    self.source = [kept for kept in self.source if kept.key != change.key]
                    connection.execute(delete(self._rows).where(self._rows.c.id == change.key))
                self.source.append(change)
                connection.execute(insert(self._rows).values(seq=next(_numbers), **change.row))

    def clear(self) -> None:
        """Take every row out of the source."""
        self.source = []
        with self.databases.source.begin() as connection:
            connection.execute(delete(self._rows))

    def tick_to(self, at: int) -> None:
        """Set the source's clock."""
        with self.databases.source.begin() as connection:
            connection.execute(update(self._clock).values(now=hour(at)))

    def land(self, customer: str) -> None:
        """Let a row of the referenced table arrive."""
        with self.databases.target.begin() as connection:
            connection.execute(insert(self._customers).values(name=customer))

    def loaded(self) -> list[dict[str, Any]]:
        """The rows of the target, by id."""
        table = Table(
            self.target,
            MetaData(),
            Column("id", BigInteger),
            Column("customer", Text),
            Column("amount", Double),
            Column("updated_at", UtcDateTime),
        )
        with self.databases.target.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(select(table).order_by(table.c.id))]

    def versions(self) -> list[Any]:
        """Every row with what changes when it is written again, where the database can tell."""
        physical = {"postgresql": "ctid::text, xmin::text, *", "sqlite": "rowid, *"}.get(self.databases.kind, "*")
        with self.databases.target.connect() as connection:
            return list(connection.execute(text(f"SELECT {physical} FROM {self.target} ORDER BY id")).all())

    def open_letters(self) -> dict[str, tuple[str, datetime]]:
        """Reasons, as every world would put them, and cursor of every open dead letter, by row key."""
        columns = dead_letters.c
        with self.databases.target.connect() as connection:
            rows = connection.execute(
                select(columns.row_key, columns.reasons, columns.cursor_value).where(
                    columns.pipeline == self.pipeline.name, columns.status == "open"
                )
            ).all()
        return {row.row_key: (row.reasons.replace(self._suffix, ""), row.cursor_value) for row in rows}

    def ledger(self) -> list[dict[str, Any]]:
        """The ledger's rows of this pipeline."""
        with self.databases.target.connect() as connection:
            rows = connection.execute(select(runs).where(runs.c.pipeline == self.pipeline.name)).all()
        return [dict(row._mapping) for row in rows]

    def remove(self) -> None:
        """Drop every table of this world."""
        self._rows.metadata.drop_all(self.databases.source)
        self._customers.metadata.drop_all(self.databases.target)
        with self.databases.target.begin() as connection:
            connection.execute(text(f"DROP TABLE IF EXISTS {self.target}"))
        assert not [name for name in inspect(self.databases.target).get_table_names() if name.startswith("etl_staged")]


class Model:
    """What a right loader does, one row after another, in memory.

    Attributes:
        target: the version of each key that is loaded.
        letters: by key, or by the whole row where it has none, the newest bad version that no good one has followed.
        watermark: highest `at` an incremental run has read.
    """

    def __init__(self, updates: bool) -> None:
        self.updates = updates
        self.customers = {"ann"}
        self.target: dict[int | None, Change] = {}
        self.letters: dict[object, Change] = {}
        self.watermark: int | None = None

    def incremental(self, source: list[Change], now: int) -> dict[str, int]:
        """A run at `now`; the terms of its sum."""
        start = None if self.watermark is None else min(self.watermark - LOOKBACK, now)
        read = [change for change in source if (start is None or change.at >= start) and change.at < now]
        self.watermark = max([change.at for change in read] + ([] if self.watermark is None else [self.watermark]),
                             default=None)  # fmt: skip
        return self.load(read)

    def load(self, read: list[Change]) -> dict[str, int]:
        """Load the rows of a window, given in the order they were written."""
        terms = dict.fromkeys(TERMS, 0) | {"extracted": len(read)}
        bad = [
            change
            for change in read
            if change.key is None or change.amount < 0 or change.customer not in self.customers
        ]
        terms["rejected"] = len(bad)
        for change in sorted(bad, key=lambda change: change.at):
            self.letters[change if change.key is None else change.key] = change
        # Of what has the same time the later is the newer.
        places = {id(change): (change.at, place) for place, change in enumerate(read)}
        come = {key: max(places[id(change)] for change in bad if change.key == key) for key in {one.key for one in bad}}
        good = [change for change in read if change not in bad]
        for key in {change.key for change in good}:
            versions = sorted((change for change in good if change.key == key), key=lambda change: change.at)
            chosen, known = versions[-1 if self.updates else 0], self.target.get(key)
            terms["deduplicated"] += len(versions) - 1
            after = places[id(chosen)] > come[key] if key in come else True
            if key in self.letters and chosen.at >= self.letters[key].at and after:
                del self.letters[key]
            if known == chosen:
                terms["unchanged"] += 1
            elif known is None:
                terms["inserted"] += 1
                self.target[key] = chosen
            elif not self.updates:
                terms["deduplicated"] += 1
            elif known.at > chosen.at:
                terms["stale"] += 1
            else:
                terms["updated"] += 1
                self.target[key] = chosen
        return terms

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The target, as `World.loaded` returns it."""
        return [self.target[key].row for key in sorted(key for key in self.target if key is not None)]


TERMS = ("extracted", "added", "inserted", "updated", "deleted", "unchanged", "deduplicated", "stale", "rejected",
         "filtered")  # fmt: skip
