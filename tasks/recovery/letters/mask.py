"""Dead letters and messages of the ledger from before a column was declared masked, rewritten."""

import json
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, select, update

from tasks.declaration import Pipeline
from tasks.masking import Masking
from tasks.recovery.letters.ledgered import Ledgered
from tasks.recovery.letters.messages import rewritten_messages
from tasks.recovery.letters.paged import every_letter
from tasks.state.dead_letters import NTH
from tasks.state.emptied import NOTHING, without_quotes
from tasks.state.history import opened_history
from tasks.state.letters import NAMELESS, is_nameless
from tasks.state.record import ALIKE, encode, record_hash
from tasks.state.tables import dead_letters, runs


@dataclass(frozen=True, slots=True)
class MaskedBefore:
    """What still held values of masked columns.

    Attributes:
        letters: dead letters, whatever their status.
        messages: of the ledger.
    """

    letters: int = 0
    messages: int = 0


def mask_letters(pipeline: Pipeline, *, messages_again: bool = True) -> MaskedBefore:
    """Put a mark for the values of masked columns in what was kept of the pipeline before they were declared so.

    In messages of the ledger all is masked that they quote of rows: nobody can tell which column it is of. So those of
    runs that mask by themselves lose what they might show.

    Args:
        pipeline: whose letters.
        messages_again: the messages too where that has been done for these columns; the ledger says so.

    Raises:
        TidegateError: see `tasks.errors`; what was done before is done.
    """
    if not pipeline.masked:
        return MaskedBefore()
    rewritten = Ledgered(pipeline, lambda n: f"{n:,} dead letters were masked, as the pipeline declares now.")
    letters = rewritten.carry_out(every_letter(pipeline.name, partial(_mask, pipeline.masking)))
    if not messages_again and _known(pipeline):
        return MaskedBefore(letters)
    quoting = Ledgered(pipeline, lambda n: f"{n:,} messages of the ledger lost the rows that they quoted.")
    messages = quoting.carry_out(rewritten_messages(pipeline.name, without_quotes))
    if not _known(pipeline):
        done = iter((1, None))
        Ledgered(pipeline, lambda _: _note(pipeline)).carry_out(lambda *_: next(done))
    return MaskedBefore(letters, messages)


def _note(pipeline: Pipeline) -> str:
    """How the ledger says that the messages before it are masked."""
    return f"Masked, what came before included: {', '.join(sorted(pipeline.masked))}."


def _known(pipeline: Pipeline) -> bool:
    with opened_history(pipeline.load.connection) as connection:
        if connection is None:
            return False
        noted = select(runs.c.attempt).where(runs.c.pipeline == pipeline.name, runs.c.message == _note(pipeline))
        return connection.execute(noted.limit(1)).first() is not None


def _mask(masking: Masking, connection: Connection, row: Row[Any], now: datetime) -> bool:
    """Rewrite a letter; whether there was anything to mask."""
    record = json.loads(row.record)
    masked = {
        "record": encode(masking.record(record)),
        "record_types": encode(masking.types(json.loads(row.record_types))),
        "reasons": encode(masking.reasons(json.loads(row.reasons), record)),
        "row_key": row.row_key,
    }
    if is_nameless(row):
        masked["row_key"] = _row_key(connection, row, masked["record"], masking)
    changed = {name: value for name, value in masked.items() if value != row._mapping[name]}
    if changed:
        connection.execute(update(dead_letters).where(dead_letters.c.letter == row.letter).values(**changed))
    return bool(changed)


def _row_key(connection: Connection, row: Row[Any], record: str, masking: Masking) -> str:
    """What a run would call the letter now: the hash it has was made of what is masked too."""
    if record == NOTHING:
        return row.row_key if row.row_key.startswith(NAMELESS + ALIKE) else f"{NAMELESS}{ALIKE}{row.letter}"
    base = NAMELESS + record_hash(record, masking)
    if row.row_key == base or row.row_key.startswith(base + NTH):
        return str(row.row_key)
    alike = select(dead_letters.c.row_key).where(
        dead_letters.c.pipeline == row.pipeline, dead_letters.c.row_key.startswith(base, autoescape=True)
    )
    taken, place, name = set(connection.execute(alike).scalars()), 1, base
    while name in taken:
        place += 1
        name = f"{base}{NTH}{place}"
    return name
