"""`Records`: the objects that an answer lists, in memory or read from its body anew each time."""

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Protocol

from tasks.extract.http.shapes.arrow import Record

MOST_RECORDS = 10_000
MOST_CHARACTERS = 4 << 20
"""Where a chunk ends: so many records, or so much text that was parsed for them."""


class Records(Protocol):
    """What an answer lists."""

    @property
    def count(self) -> int:
        """How many."""

    @property
    def last(self) -> Record | None:
        """The last one; None if there is none."""

    @property
    def fingerprint(self) -> str:
        """Tells whether two answers list the same records in the same order, whatever the order of their fields."""

    def chunks(self) -> Iterator[list[Record]]:
        """All of them, in order, in bounded pieces; callable more than once."""


class RecordStream(Protocol):
    """One reading of a body."""

    @property
    def position(self) -> int:
        """How many characters have been read."""

    def records(self) -> Iterator[Record]:
        """What it lists, one after the other."""


class Listed:
    """Records in memory."""

    def __init__(self, records: list[Record]) -> None:
        self._records = records

    @property
    def count(self) -> int:
        """See `Records.count`."""
        return len(self._records)

    @property
    def last(self) -> Record | None:
        """See `Records.last`."""
        return self._records[-1] if self._records else None

    @cached_property
    def fingerprint(self) -> str:
        """See `Records.fingerprint`."""
        return _fingerprint(iter(self._records))

    def chunks(self) -> Iterator[list[Record]]:
        """See `Records.chunks`."""
        for start in range(0, len(self._records), MOST_RECORDS):
            yield self._records[start : start + MOST_RECORDS]


class Streamed:
    """Records that are read from a body when they are asked for.

    They have been read once before this is made, so that what is wrong with a body shows before its first row is
    handed on.

    Args:
        stream: begins another reading.
        count: how many there are.
        last: of them.
    """

    def __init__(self, stream: Callable[[], RecordStream], count: int, last: Record | None) -> None:
        self.count = count
        self.last = last
        self._stream = stream

    @cached_property
    def fingerprint(self) -> str:
        """See `Records.fingerprint`."""
        return _fingerprint(self._stream().records())

    def chunks(self) -> Iterator[list[Record]]:
        """See `Records.chunks`."""
        stream = self._stream()
        chunk: list[Record] = []
        began = 0
        for record in stream.records():
            chunk.append(record)
            if len(chunk) == MOST_RECORDS or stream.position - began > MOST_CHARACTERS:
                yield chunk
                chunk, began = [], stream.position
        if chunk:
            yield chunk


def _fingerprint(records: Iterator[Record]) -> str:
    digest = hashlib.sha256()
    for record in records:
        # `repr`: a decimal is not the text of the same digits.
        digest.update(json.dumps(record, sort_keys=True, default=repr).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()
