"""`Drift`: notices records that moved from one page to another while the pages were read."""

from collections import OrderedDict
from collections.abc import Sequence
from decimal import Decimal
from typing import Literal

import pyarrow as pa

from tasks.column_types import decimal_text
from tasks.errors import SourceError, SourceUnavailable
from tasks.masking import shown

OnDrift = Literal["error", "dedup"]

_REMEMBERED = 1_000_000
"""Keys that are remembered, some 100 MB; records move between neighbouring pages, so older ones may go."""


class Drift:
    """The keys of the pages read so far.

    Args:
        key: columns that identify a row, or none: then nothing is noticed.
        on_drift: what to do with a key that was on an earlier page: `error`, or `dedup`, which passes over a row
            that is the same as before, and hands on one that differs: the load's own rule decides between the two.
    """

    def __init__(self, key: Sequence[str], on_drift: OnDrift) -> None:
        self.passed_over = 0
        self._key = tuple(key)
        self._on_drift = on_drift
        self._seen: OrderedDict[int, tuple[int, int]] = OrderedDict()

    def without_repeated(self, rows: pa.Table, page: int, where: str) -> pa.Table:
        """`rows` of the page of that number, without those that an earlier page brought.

        Raises:
            SourceUnavailable: a key was on an earlier page, and that is an error; another attempt may find it still.
            SourceError: the key is not among the columns.
        """
        if not self._key:
            return rows
        missing = [name for name in self._key if name not in rows.column_names]
        if missing:
            raise SourceError(
                f"{where}: unique names {missing[0]!r}, and the columns are {', '.join(rows.column_names)}."
            )
        wanted = []
        for record in rows.to_pylist():
            key = hash(repr([_plain(record[name]) for name in self._key]))
            known = self._seen.get(key)
            content = hash(repr(record)) if self._on_drift == "dedup" else 0
            if known is not None and known[0] != page:
                if self._on_drift == "error":
                    named = ", ".join(f"{name}={shown(record[name])}" for name in self._key)
                    raise SourceUnavailable(
                        f"{where}: {named} was on an earlier page already, so records moved while the pages were read, "
                        "and others may have been missed. Another attempt may find them still. If the API cannot keep "
                        'them so, sort by something that never changes, or say on_drift="dedup".'
                    )
                wanted.append(known[1] != content)
            else:
                wanted.append(True)
            self._seen[key] = (page, content)
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        self.passed_over += wanted.count(False)
        return rows if all(wanted) else rows.filter(pa.array(wanted))


def _plain(value: object) -> str:
    """A value as text, whatever type the rest of its page has made of it."""
    return decimal_text(value) if isinstance(value, Decimal) else str(value)
