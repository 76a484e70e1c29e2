"""The exact statements each strategy runs on each database, as `docs/load-sql.md` shows them.

`python -m tests.load.statements` writes that file anew.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from sqlalchemy import ClauseElement, Dialect, create_engine

from tasks.column_types import UTC_TIMESTAMP
from tasks.load.append import Append
from tasks.load.partition import ReplacePartition
from tasks.load.replace import Replace
from tasks.load.scd2 import Scd2
from tasks.load.strategy import Load
from tasks.load.target import staged_table
from tasks.load.upsert import Upsert
from tasks.load.writer import Classes, Incoming
from tasks.state.dead_letters import rejected_table
from tasks.window import Window

PAGE = Path(__file__).parent.parent.parent / "docs" / "load-sql.md"

COLUMNS = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("customer", pa.string(), nullable=False),
        pa.field("updated_at", UTC_TIMESTAMP, nullable=False),
    ]
)


@dataclass(frozen=True)
class Case:
    """A strategy in a certain situation.

    Attributes:
        title: what the page calls it.
        load: the strategy.
        cursor: column that orders versions, or None.
        changes: staged rows may be deletes.
        scope: ranges of the partition column of which everything came in, or None.
    """

    title: str
    load: Load
    cursor: str | None = None
    changes: bool = False
    scope: tuple[Window, ...] | None = None


CASES = [
    Case("Replace", Replace("warehouse", "fct_orders", key=["id"])),
    Case("Upsert, by a cursor", Upsert("warehouse", "fct_orders", key=["id"]), "updated_at"),
    Case("Upsert, by a cursor, of a source that tells deletes", Upsert("warehouse", "fct_orders", key=["id"]),
         "updated_at", changes=True),
    Case("Upsert of a feed, with soft deletes",
         Upsert("warehouse", "fct_orders", key=["id"], soft_delete="deleted_at"), changes=True),
    Case("Append", Append("warehouse", "fct_orders", key=["id"]), "updated_at"),
    Case("ReplacePartition, by a cursor",
         ReplacePartition("warehouse", "fct_orders", key=["id"], partition="updated_at", grain="day"), "updated_at",
         scope=(Window(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)),)),
    Case("ReplacePartition, of the values that came in",
         ReplacePartition("warehouse", "fct_orders", key=["id"], partition="customer")),
    Case("Scd2, by a cursor", Scd2("warehouse", "fct_orders", key=["id"], untracked=["updated_at"]), "updated_at"),
    Case("Scd2 of a feed", Scd2("warehouse", "fct_orders", key=["id"], untracked=["updated_at"]), changes=True),
]  # fmt: skip

DIALECTS: dict[str, Dialect] = {
    name: create_engine(url).dialect
    for name, url in {
        "PostgreSQL": "postgresql+psycopg://",
        "MariaDB": "mariadb+pymysql://",
        "SQLite": "sqlite://",
    }.items()
}


@dataclass
class Recorder:
    """Stands where a connection does, and writes down what it is asked; every answer is that there is one row."""

    dialect: Dialect
    said: list[str] = field(default_factory=list)

    rowcount = 1

    @property
    def engine(self) -> "Recorder":
        return self

    def execute(self, statement: ClauseElement, *_: Any, **__: Any) -> "Recorder":
        text = str(statement.compile(dialect=self.dialect, compile_kwargs={"literal_binds": True}))
        # Whether a key came twice is answered by yes, and all that would keep the rows from being written by no.
        self._found = "HAVING count(*)" in text
        self.said.append(text)
        return self

    def first(self) -> tuple[int] | None:
        return (1,) if self._found else None

    def scalar_one(self) -> int:
        return 1

    def one(self) -> tuple[int, int]:
        return 1, 1

    def all(self) -> list[Any]:
        return []


def statements(case: Case, dialect: Dialect) -> list[str]:
    """What a commit runs between its checks and its ledger row, in order."""
    load = case.load
    target = load.target(COLUMNS)
    incoming = Incoming(
        target=target,
        staged=staged_table("etl_staged_1", COLUMNS, key=load.key, changes=case.changes, dated=load.dated),
        rejected=rejected_table("etl_rejected_1", pa.schema([COLUMNS.field(name) for name in load.key])),
        cursor=case.cursor,
        now=datetime(2026, 1, 1, tzinfo=UTC),
        companions=load.companions(COLUMNS, case.cursor, tells_deletes=case.changes),
        scope=case.scope,
    )
    connection: Any = Recorder(dialect)
    writer = load.writer(incoming)
    writer.deduplicate(connection)
    gone, _ = writer.absent(connection)
    writer.classify(connection)
    updates = int(load.updates)
    deletes = int(load.deletes and case.changes)
    everything = {each.name: 0 for each in fields(Classes)} | {"new": 1, "changed": updates, "deleted": deletes}
    writer.write(connection, Classes(**everything), gone)
    said: list[str] = connection.said
    return said


_INTRODUCTION = """
Generated from the code by `python -m tests.load.statements`; a test holds the two together. The target is `fct_orders`
with the key `id`, the attempt's staging `etl_staged_1`, its dead letters `etl_rejected_1`. What is shown runs inside
the commit's transaction, after the window's row was completed and before the ledger's is; what a window has no rows for
is left out. Values are shown as they are, and are bound when it runs.
"""


def page() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# The SQL of every strategy"
    yield ""
    yield from _INTRODUCTION.strip().splitlines()
    for case in CASES:
        for name, dialect in DIALECTS.items():
            yield ""
            yield f"## {case.title}: {name}"
            yield ""
            yield "```sql"
            yield (
                ";\n\n".join("\n".join(map(str.rstrip, text.splitlines())) for text in statements(case, dialect)) + ";"
            )
            yield "```"


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines())


if __name__ == "__main__":
    PAGE.write_text(page())
