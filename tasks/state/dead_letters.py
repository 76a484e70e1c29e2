"""Dead letters: rows that broke the contract or a reference, kept until a good version arrives."""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from contextlib import nullcontext
from datetime import datetime
from itertools import islice
from typing import Any

import pyarrow as pa
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    MetaData,
    Subquery,
    Table,
    Text,
    and_,
    bindparam,
    case,
    cast,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)

from tasks.column_types import TABLE_OPTIONS, UTC_TIMESTAMP, UtcDateTime, key_type, sql_type
from tasks.dialects.dialect import Dialect
from tasks.state.attempts import Attempt
from tasks.state.letters import NAMELESS, Wanted, letter_pages
from tasks.state.record import ALIKE
from tasks.state.staged import ROW, join_index
from tasks.state.tables import dead_letters, runs
from tasks.window import Window

NTH = "#"
"""Behind it, and before a number: the second, third and so on of rows that are alike as far as may be seen."""
_MASKED = "masked"
_AT_ONCE = 1_000


def rejected_schema(key: pa.Schema) -> pa.Schema:
    """Columns of a batch of dead letters on their way in.

    Args:
        key: the key columns of the target with their types; they become `key_0`, `key_1`, …, NULL where unknown.
    """
    return pa.schema(
        [
            pa.field(ROW, pa.int64()),
            *(field.with_name(f"key_{position}").with_nullable(True) for position, field in enumerate(key)),
            pa.field("cursor_value", UTC_TIMESTAMP),
            pa.field("record", pa.string()),
            pa.field("record_types", pa.string()),
            pa.field("record_hash", pa.string()),
            pa.field("reasons", pa.string()),
        ]
    )


def rejected_table(name: str, key: pa.Schema, *, masked: bool = False) -> Table:
    """The staging table of an attempt's dead letters, with the columns of `rejected_schema`.

    Args:
        name: of the table.
        key: see `rejected_schema`.
        masked: records have masked fields, so that those of several rows may be alike.
    """
    keys = [f"key_{position}" for position, _ in enumerate(key)]
    columns = [
        Column(field.name, key_type(field) if field.name in keys else sql_type(field.type))
        for field in rejected_schema(key)
    ]
    return Table(name, MetaData(), *columns, *join_index(name, keys), info={_MASKED: masked}, **TABLE_OPTIONS)


def key_columns(rejected: Table) -> list[ColumnElement[Any]]:
    """The key columns of a rejected table, in order."""
    return [column for column in rejected.columns if column.name.startswith("key_")]


def file_letters(
    connection: Connection, dialect: Dialect, attempt: Attempt, rejected: Table, contract: str, now: datetime
) -> None:
    """Write an attempt's dead letters; a row seen before updates its letter, and opens it again.

    Two bad versions of one row in a window leave one letter, the newest.
    """
    ranked = _ranked(dialect, rejected)
    newest = select(ranked).where(ranked.c.rank == 1).subquery("newest")
    seen = {
        "run_id": literal(attempt.run_id),
        "window_start": literal(attempt.window.start, dead_letters.c.window_start.type),
        "window_end": literal(attempt.window.end, dead_letters.c.window_end.type),
        "cursor_value": newest.c.cursor_value,
        "record": newest.c.record,
        "record_types": newest.c.record_types,
        "reasons": newest.c.reasons,
        "contract": literal(contract),
        "last_seen": literal(now, dead_letters.c.last_seen.type),
        "status": literal("open"),
    }
    connection.execute(
        update(dead_letters)
        .where(dead_letters.c.pipeline == attempt.pipeline, dead_letters.c.row_key == newest.c.row_key)
        .values(**seen, times_seen=dead_letters.c.times_seen + 1, closed_run_id=None, closed_at=None)
    )
    first = {
        **seen,
        "pipeline": literal(attempt.pipeline),
        "row_key": newest.c.row_key,
        "first_seen": literal(now, dead_letters.c.first_seen.type),
        "times_seen": literal(1),
    }
    known = exists().where(dead_letters.c.pipeline == attempt.pipeline, dead_letters.c.row_key == newest.c.row_key)
    connection.execute(
        insert(dead_letters).from_select(list(first), select(*first.values()).select_from(newest).where(~known))
    )


def count_reread(
    connection: Connection, dialect: Dialect, pipeline: str, rejected: Table, passed: datetime | None
) -> int:
    """How many of an attempt's dead letters an earlier run has filed already. Ask before they are filed.

    These are the records that a letter has, and the older versions of a row that came with a newer bad one.

    Args:
        connection: in the commit's transaction.
        dialect: its dialect.
        pipeline: whose letters.
        rejected: the attempt's.
        passed: no run has read what lies at or after it (UTC), though a refused one may have filed it; None: nobody
            can tell.
    """
    ranked = _ranked(dialect, rejected)
    filed = and_(dead_letters.c.pipeline == pipeline, dead_letters.c.row_key == ranked.c.row_key)
    again = or_(dead_letters.c.record == ranked.c.record, ranked.c.rank > 1)
    at = ranked.c.cursor_value
    early = [] if passed is None else [or_(at.is_(None), at < literal(passed, UtcDateTime()))]
    found = select(func.count()).select_from(ranked.join(dead_letters, filed)).where(again, *early)
    return int(connection.execute(found).scalar_one())


def _ranked(dialect: Dialect, rejected: Table) -> Subquery:
    """An attempt's dead letters with their `row_key`, and their `rank` among those of their row: 1 is the newest."""
    keys = key_columns(rejected)
    row_key = case(
        (and_(*(column.is_not(None) for column in keys)), dialect.key_text(keys)),
        else_=literal(NAMELESS, Text) + rejected.c.record_hash,
    )
    keyed = select(rejected, row_key.label("row_key")).subquery("keyed")
    rank = func.row_number().over(
        partition_by=keyed.c.row_key,
        order_by=[keyed.c.cursor_value.is_(None), keyed.c.cursor_value.desc(), keyed.c[ROW].desc()],
    )
    if not rejected.info[_MASKED]:
        return select(keyed, rank.label("rank")).subquery("ranked")
    placed = select(keyed, rank.label("place")).subquery("placed")
    # Rows that differ only in what is masked are rows all the same, and have a letter each.
    alike = and_(
        placed.c.row_key == literal(NAMELESS, Text) + placed.c.record_hash, placed.c.record_hash.startswith(ALIKE)
    )
    row_key = case(
        (and_(alike, placed.c.place > 1), placed.c.row_key + literal(NTH, Text) + cast(placed.c.place, Text)),
        else_=placed.c.row_key,
    )
    others = [column for column in placed.c if column.name not in ("row_key", "place")]
    told = case((alike, 1), else_=placed.c.place)
    return select(*others, row_key.label("row_key"), told.label("rank")).subquery("ranked")


def close_letters(
    connection: Connection,
    dialect: Dialect,
    attempt: Attempt,
    staged: Table,
    rejected: Table,
    key: Sequence[str],
    cursor: str | None,
    now: datetime,
) -> None:
    """Close the open letters of rows that arrived good, at least as new as the bad version.

    Of what came in one window the later is the newer, where no cursor tells: a row that is good, then bad, is bad.
    """
    mine = [dead_letters.c.pipeline == attempt.pipeline, dead_letters.c.status == "open"]
    if connection.execute(select(dead_letters.c.letter).where(*mine).limit(1)).first() is None:
        return
    timed = cursor if cursor is not None and isinstance(staged.c[cursor].type, UtcDateTime) else None
    columns = [dialect.key_text([staged.c[column] for column in key]).label("row_key"), staged.c[ROW]]
    good = select(*columns, *([] if timed is None else [staged.c[timed].label("cursor_value")])).subquery("good")
    ranked = _ranked(dialect, rejected)
    bad = select(ranked).where(ranked.c.rank == 1).subquery("bad")
    after = good.c[ROW] > bad.c[ROW]
    if timed is not None:
        same = or_(bad.c.cursor_value.is_(None), good.c.cursor_value == bad.c.cursor_value)
        after = or_(good.c.cursor_value > bad.c.cursor_value, and_(same, after))
    # Joined, not EXISTS: MariaDB would look through all of staging for every letter.
    both = good.outerjoin(bad, good.c.row_key == bad.c.row_key)
    arrived = select(good).select_from(both).where(or_(bad.c.row_key.is_(None), after)).subquery("arrived")
    if timed is not None:
        unknown = dead_letters.c.cursor_value.is_(None)
        mine.append(or_(unknown, arrived.c.cursor_value >= dead_letters.c.cursor_value))
    connection.execute(
        update(dead_letters)
        .where(*mine, dead_letters.c.row_key == arrived.c.row_key)
        .values(status="closed", closed_run_id=attempt.run_id, closed_at=now)
    )


def identity_hash(identity: str) -> str:
    """What stands for the record's hash in the letter of something that has an identity, but no key of the target."""
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def open_by_identity(connection: Connection, pipeline: str, identities: Collection[str]) -> dict[str, Window]:
    """Those of `identities` that have an open letter, and the window they were last seen in."""
    rows = {NAMELESS + identity_hash(identity): identity for identity in identities}
    found = select(dead_letters.c.row_key, dead_letters.c.window_start, dead_letters.c.window_end).where(
        dead_letters.c.pipeline == pipeline, dead_letters.c.status == "open", dead_letters.c.row_key.in_(rows)
    )
    return {rows[row.row_key]: Window(row.window_start, row.window_end) for row in connection.execute(found)}


def close_by_identity(
    connection: Connection, pipeline: str, identities: Collection[str], attempt: str, now: datetime
) -> None:
    """Close the letters of `identities` as far as they are open; `attempt` is the token of one in the ledger."""
    run_id = select(runs.c.run_id).where(runs.c.attempt == attempt).scalar_subquery()
    for identity in identities:
        connection.execute(
            update(dead_letters)
            .where(dead_letters.c.pipeline == pipeline, dead_letters.c.status == "open")
            .where(dead_letters.c.row_key == NAMELESS + identity_hash(identity))
            .values(status="closed", closed_run_id=run_id, closed_at=now)
        )


def close_as_seen(connection: Connection, letters: Iterable[tuple[int, int]], attempt: str, now: datetime) -> None:
    """Close open letters, each as long as it has been seen as often as whoever read it was told.

    Args:
        connection: inside a commit.
        letters: their numbers, and how often each had been seen.
        attempt: the token of one in the ledger.
        now: target clock.
    """
    run_id = connection.execute(select(runs.c.run_id).where(runs.c.attempt == attempt)).scalar_one()
    closed = (
        update(dead_letters)
        .where(dead_letters.c.letter == bindparam("number"), dead_letters.c.times_seen == bindparam("times"))
        .where(dead_letters.c.status == "open")
        .values(status="closed", closed_run_id=run_id, closed_at=now)
    )
    rows = ({"number": number, "times": times} for number, times in letters)
    while page := list(islice(rows, _AT_ONCE)):
        connection.execute(closed, page)


def discard(connection: Connection, wanted: Wanted, run_id: str, now: datetime) -> int:
    """Close the open letters that are wanted, as `discarded`; how many.

    Args:
        connection: in a transaction.
        wanted: which.
        run_id: what the ledger knows it by.
        now: target clock.
    """
    closed = (
        update(dead_letters)
        .where(dead_letters.c.letter == bindparam("number"), dead_letters.c.status == "open")
        .values(status="discarded", closed_run_id=run_id, closed_at=now)
    )
    discarded = 0
    for page in letter_pages(lambda: nullcontext(connection), wanted):
        discarded += len(page)
        if page:
            connection.execute(closed, [{"number": row.letter} for row in page])
    return discarded
