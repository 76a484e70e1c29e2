"""The data of one row, or of one person, taken out of all dead letters of a pipeline, and out of messages about it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, select, update

from tasks.declaration import Pipeline
from tasks.errors import ConfigError
from tasks.masking import MASK
from tasks.recovery.letters.ledgered import Ledgered, Page
from tasks.recovery.letters.messages import rewritten_messages
from tasks.recovery.letters.paged import every_letter
from tasks.running.assembly import Assembly
from tasks.state.emptied import NOTHING, leaves, without_quotes, without_values
from tasks.state.history import opened_history
from tasks.state.record import encode
from tasks.state.row_key import row_key_of, same
from tasks.state.tables import dead_letters, runs

_AT_ONCE = 1_000
_MOST_TEXTS = 10_000
"""Of the values of what is erased so many at most are looked for in messages."""

_LEAST = 4
"""A shorter text stands in too many messages by chance."""

ERASED = "erased:"
"""Before the number of an erased letter, where its key was."""


@dataclass(frozen=True)
class Person:
    """Whose data is meant, as people type it.

    Attributes:
        key: every column of the load's key; or none.
        fields: fields of the raw record, all of which have these values, at any depth; or none.

    Raises:
        ConfigError: both, or neither.
    """

    key: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if bool(self.key) == bool(self.fields):
            raise ConfigError(
                "Whose data is erased is told by the key of its row or by fields of its record: give one."
            )

    @property
    def values(self) -> tuple[str, ...]:
        """What was typed."""
        return (*self.key.values(), *self.fields.values())


@dataclass(frozen=True, slots=True)
class Erased:
    """What held the data.

    Attributes:
        letters: dead letters, whatever their status.
        messages: of the ledger.
    """

    letters: int = 0
    messages: int = 0


@dataclass
class _Erasure:
    """What is looked for.

    Attributes:
        person: whose data.
        row_key: the key as letters have it; None where the data is told by fields.
        texts: what has been found of it, for the messages.
    """

    person: Person
    row_key: str | None
    texts: set[str] = field(default_factory=set)

    def concerns(self, row: Row[Any]) -> bool:
        """Whether a letter holds the data; if so its values are remembered for the messages."""
        record, reasons = json.loads(row.record), json.loads(row.reasons)
        held = leaves(record) + [found for reason in reasons for found in leaves(reason["value"], reason["column"])]
        wanted = self.person.key or self.person.fields
        found = row.row_key == self.row_key or all(
            any(name == field and same(value, text) for name, value in held) for field, text in wanted.items()
        )
        if found:
            texts = (str(value) for _, value in held if value is not None)
            self.texts.update(text for text in texts if len(text) >= _LEAST and len(self.texts) < _MOST_TEXTS)
        return found

    def rewritten(self, message: str) -> str:
        """A message of the ledger without the rows it quotes, where one of them is meant, and without the values."""
        message = without_quotes(message, self._quotes)
        for value in self.person.values:
            if len(value) >= _LEAST:
                message = re.sub(_whole(value), MASK, message)
        return message

    def _quotes(self, quoted: str) -> bool:
        return any(re.search(_whole(text), quoted) for text in (*self.person.values, *self.texts))


def erase_letters(pipeline: Pipeline, person: Person, reason: str) -> Erased:
    """Take a person's data out of what tidegate keeps beside the target; the ledger keeps how much, and why.

    Of a letter remain the rules that its row broke and when; an open one is discarded, since nothing of it could be
    judged or closed any more. What a later run brings from the source again is a new letter.

    Raises:
        ConfigError: no reason, or one that holds a value that is to be erased; a key that is not the load's.
        TidegateError: see `tasks.errors`; what was done before is done.
    """
    if not reason.strip():
        raise ConfigError(f"{pipeline.name}: data is erased for a reason; write it down.")
    if any(len(value) >= _LEAST and value in reason for value in person.values):
        raise ConfigError(f"{pipeline.name}: the ledger would keep a value of the data in the reason. Write another.")
    erasure = _erasure(pipeline, person)
    emptied = Ledgered(pipeline, lambda n: f"{n:,} dead letters were erased: {reason}")
    letters = emptied.carry_out(_letters(pipeline, erasure, emptied.attempt.run_id))
    rewritten = Ledgered(pipeline, lambda n: f"{n:,} messages of the ledger were erased: {reason}")
    return Erased(letters, rewritten.carry_out(rewritten_messages(pipeline.name, erasure.rewritten)))


def count_erasable(pipeline: Pipeline, person: Person) -> Erased:
    """What `erase_letters` would find; nothing is written.

    Raises:
        TidegateError: see `erase_letters`.
    """
    erasure = _erasure(pipeline, person)
    with opened_history(pipeline.load.connection) as connection:
        if connection is None:
            return Erased()
        left = ~dead_letters.c.row_key.startswith(ERASED)
        mine = select(dead_letters).where(dead_letters.c.pipeline == pipeline.name, left)
        streamed = {"stream_results": True, "yield_per": _AT_ONCE}
        letters = sum(erasure.concerns(row) for row in connection.execute(mine, execution_options=streamed))
        said = select(runs.c.message).where(runs.c.pipeline == pipeline.name, runs.c.message.is_not(None))
        told = connection.execute(said, execution_options=streamed).scalars()
        return Erased(letters, sum(erasure.rewritten(message) != message for message in told))


def _erasure(pipeline: Pipeline, person: Person) -> _Erasure:
    parts = Assembly(pipeline)
    if not person.key:
        return _Erasure(person, None)
    names = parts.contract.key_schema.names
    if set(person.key) != set(names):
        raise ConfigError(
            f"{pipeline.name}: the key of its load is {', '.join(names)}, and what is given is "
            f"{', '.join(person.key)}. Give each of its columns; or fields of the raw record, whatever they are."
        )
    with parts.target_errors(pipeline.name):
        find = partial(row_key_of, parts.engine, parts.dialect, parts.contract.key_schema)
        return _Erasure(person, find(pipeline.name, person.key))


def _letters(pipeline: Pipeline, erasure: _Erasure, run_id: str) -> Page:
    def erase(connection: Connection, row: Row[Any], now: datetime) -> bool:
        if row.row_key.startswith(ERASED) or not erasure.concerns(row):
            return False
        bare: dict[str, Any] = {
            "row_key": f"{ERASED}{row.letter}",
            "record": NOTHING,
            "record_types": NOTHING,
            "reasons": encode(without_values(json.loads(row.reasons))),
            "cursor_value": None,
        }
        if row.status == "open":
            bare |= {"status": "discarded", "closed_run_id": run_id, "closed_at": now}
        connection.execute(update(dead_letters).where(dead_letters.c.letter == row.letter).values(**bare))
        return True

    return every_letter(pipeline.name, erase)


def _whole(text: str) -> str:
    """A pattern of `text` where it is no part of a longer word."""
    return rf"(?<!\w){re.escape(text)}(?!\w)"
