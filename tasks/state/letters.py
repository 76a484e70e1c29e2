"""Dead letters as people look at them: one by one, and grouped by what is wrong."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, literal, or_, select

from tasks.column_types import UtcDateTime
from tasks.errors import ConfigError, one_of
from tasks.masking import MASKED_TYPE, NO_MASKING, Masking
from tasks.state.tables import dead_letters
from tasks.window import Window

LetterStatus = Literal["open", "closed", "discarded", "all"]

NAMELESS = "record:"
"""Before the hash of a letter's record, where the row has no key."""

_EXAMPLES = 2
_AT_ONCE = 1_000
_PAGE_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter; times in UTC.

    Attributes:
        number: its number in this target database.
        pipeline: whose row it is.
        row_key: the row's key as text, or `record:` and a hash where it has none.
        status: `open`, `closed` or `discarded`.
        run_id: the run that saw it last.
        window: which that read.
        cursor_value: the row's cursor.
        record: the raw record, as the source gave it.
        record_types: Arrow type of every field of the record.
        reasons: every rule it broke: `rule`, `column`, `value`.
        contract: fingerprint of the schema and transform that judged it.
        first_seen: target clock.
        last_seen: target clock.
        times_seen: by how many windows.
        closed_run_id: the run that brought a good version.
        closed_at: target clock.
    """

    number: int
    pipeline: str
    row_key: str
    status: str
    run_id: str
    window: Window
    cursor_value: datetime | None
    record: Mapping[str, Any]
    record_types: Mapping[str, str]
    reasons: Sequence[Mapping[str, Any]]
    contract: str
    first_seen: datetime
    last_seen: datetime
    times_seen: int
    closed_run_id: str | None
    closed_at: datetime | None

    def masked(self, masking: Masking) -> "Letter":
        """The same without what is masked, which it may still hold from before that was declared."""
        return replace(
            self,
            record=masking.record(self.record),
            record_types=masking.types(self.record_types),
            reasons=masking.reasons(self.reasons, self.record),
        )


@dataclass(frozen=True)
class Wanted:
    """Which letters of a pipeline.

    Attributes:
        pipeline: whose.
        status: `open`, `closed`, `discarded` or `all`.
        rule: only those that broke it, by its name as `reasons` has it; of several, one of them.
        run_id: only those that this run saw last.
        since: only those seen at or after this time, UTC.
        window: only those whose cursor lies in it; of those without one, those that a window brought that meets it.
        masking: what of them nobody may see.
        until: only those first seen at or before this time, UTC.

    Raises:
        ConfigError: another status.
    """

    pipeline: str
    status: LetterStatus = "open"
    rule: str | tuple[str, ...] | None = None
    run_id: str | None = None
    since: datetime | None = None
    window: Window | None = None
    masking: Masking = NO_MASKING
    until: datetime | None = None

    def __post_init__(self) -> None:
        if self.status not in get_args(LetterStatus):
            raise ConfigError(f"The status of dead letters is {one_of(get_args(LetterStatus))}, got {self.status!r}.")

    @property
    def conditions(self) -> list[ColumnElement[bool]]:
        """What the database tells of that; the rule is in a document, and `broke` tells."""
        asked = [dead_letters.c.pipeline == self.pipeline]
        if self.status != "all":
            asked.append(dead_letters.c.status == self.status)
        if self.run_id is not None:
            asked.append(dead_letters.c.run_id == self.run_id)
        if self.since is not None:
            asked.append(dead_letters.c.last_seen >= self.since)
        if self.window is not None and self.window != Window():
            asked.append(_in_window(self.window))
        if self.until is not None:
            asked.append(dead_letters.c.first_seen <= self.until)
        return asked

    def broke(self, reasons: Sequence[Mapping[str, Any]]) -> bool:
        """Whether a letter with these reasons broke the rule that is asked for."""
        if self.rule is None:
            return True
        asked = (self.rule,) if isinstance(self.rule, str) else self.rule
        return any(reason["rule"] in asked for reason in reasons)


@dataclass
class Fault:
    """A rule and a column, and the letters that broke it there.

    Attributes:
        rule: its name.
        column: of the contract; None where it is about the row, or several columns.
        letters: how many.
        examples: two different offending values at most.
    """

    rule: str
    column: str | None
    letters: int = 0
    examples: list[Any] = field(default_factory=list)


def _in_window(window: Window) -> ColumnElement[bool]:
    """Where a letter belongs to it. What came in no window, and has no cursor, belongs to none."""
    at, first, last = dead_letters.c.cursor_value, dead_letters.c.window_start, dead_letters.c.window_end
    inside: list[ColumnElement[bool]] = [at.is_not(None)]
    meeting: list[ColumnElement[bool]] = [at.is_(None), or_(first.is_not(None), last.is_not(None))]
    if window.start is not None:
        start = literal(window.start, UtcDateTime())
        inside.append(at >= start)
        meeting.append(or_(last.is_(None), last > start))
    if window.end is not None:
        end = literal(window.end, UtcDateTime())
        inside.append(at < end)
        meeting.append(or_(first.is_(None), first < end))
    return or_(and_(*inside), and_(*meeting))


def has_record(row: Row[Any]) -> bool:
    """Whether a letter holds its record whole, so that it can be judged anew; else it is masked, expired or erased."""
    types = json.loads(row.record_types)
    return bool(types) and MASKED_TYPE not in types.values()


def is_nameless(row: Row[Any]) -> bool:
    """Whether a letter is of a row without a key; what the source did not hand out has a name of its own."""
    unreadable = any(reason["rule"] == "source answers" for reason in json.loads(row.reasons))
    return str(row.row_key).startswith(NAMELESS) and not unreadable


def find_letters(connection: Connection, wanted: Wanted, limit: int) -> list[Letter]:
    """The letters seen last, the newest first, `limit` at most."""
    newest = (
        select(dead_letters)
        .where(*wanted.conditions)
        .order_by(dead_letters.c.last_seen.desc(), dead_letters.c.letter.desc())
    )
    found: list[Letter] = []
    with _streamed(connection, newest if wanted.rule is not None else newest.limit(limit)) as rows:
        for row in rows:
            if len(found) == limit:
                break
            if wanted.broke(json.loads(row["reasons"])):
                found.append(_letter(row).masked(wanted.masking))
    return found


def find_faults(connection: Connection, wanted: Wanted) -> list[Fault]:
    """What the letters broke, the most frequent first; a letter counts once for every rule and column.

    Every letter is looked through; what is kept is bounded by the number of rules.
    """
    found: dict[tuple[str, str | None], Fault] = {}
    asked = [dead_letters.c.reasons, *([dead_letters.c.record] if wanted.masking else [])]
    statement = select(*asked).where(*wanted.conditions).order_by(dead_letters.c.letter)
    with _streamed(connection, statement) as rows:
        for row in rows:
            reasons = json.loads(row["reasons"])
            if not wanted.broke(reasons):
                continue
            for rule, column in dict.fromkeys((reason["rule"], reason["column"]) for reason in reasons):
                found.setdefault((rule, column), Fault(rule, column)).letters += 1
            for reason in wanted.masking.reasons(reasons, json.loads(row["record"]) if wanted.masking else {}):
                examples = found[reason["rule"], reason["column"]].examples
                if len(examples) < _EXAMPLES and reason["value"] not in examples:
                    examples.append(reason["value"])
    return sorted(found.values(), key=lambda fault: (-fault.letters, fault.rule, fault.column or ""))


def count_letters(connection: Connection, wanted: Wanted) -> int:
    """How many there are, whatever rule is asked for."""
    statement = select(func.count()).select_from(dead_letters).where(*wanted.conditions)
    return int(connection.execute(statement).scalar_one())


def count_closed(connection: Connection, run_id: str) -> int:
    """How many letters the run closed, that are closed still."""
    statement = select(func.count()).select_from(dead_letters).where(dead_letters.c.closed_run_id == run_id)
    return int(connection.execute(statement).scalar_one())


def read_letter(connection: Connection, number: int) -> Letter | None:
    """The letter of this number, or None where there is none."""
    row = connection.execute(select(dead_letters).where(dead_letters.c.letter == number)).mappings().one_or_none()
    return None if row is None else _letter(row)


def letter_pages(
    connect: Callable[[], contextlib.AbstractContextManager[Connection]], wanted: Wanted
) -> Iterator[list[Row[Any]]]:
    """All of them in the order of their numbers, page by page.

    Args:
        connect: a connection for one page: SQLite lets nobody write while somebody reads.
        wanted: which.
    """
    last = -1
    while True:
        page = select(dead_letters).where(*wanted.conditions, dead_letters.c.letter > last)
        with connect() as connection:
            rows = connection.execute(page.order_by(dead_letters.c.letter).limit(_PAGE_ROWS)).all()
        if not rows:
            return
        last = rows[-1].letter
        yield [row for row in rows if wanted.broke(json.loads(row.reasons))]


@contextlib.contextmanager
def _streamed(connection: Connection, statement: Select[Any]) -> Iterator[Iterator[Mapping[Any, Any]]]:
    """The rows of `statement`, of which only a few are in memory, as long as the block lasts."""
    result = connection.execute(statement, execution_options={"stream_results": True, "yield_per": _AT_ONCE})
    with contextlib.closing(result):
        yield (row._mapping for row in result)


def _letter(row: Mapping[Any, Any]) -> Letter:
    return Letter(
        number=row["letter"],
        pipeline=row["pipeline"],
        row_key=row["row_key"],
        status=row["status"],
        run_id=row["run_id"],
        window=Window(row["window_start"], row["window_end"]),
        cursor_value=row["cursor_value"],
        record=json.loads(row["record"]),
        record_types=json.loads(row["record_types"]),
        reasons=json.loads(row["reasons"]),
        contract=row["contract"],
        first_seen=row["first_seen"],
        last_seen=row["last_seen"],
        times_seen=row["times_seen"],
        closed_run_id=row["closed_run_id"],
        closed_at=row["closed_at"],
    )
