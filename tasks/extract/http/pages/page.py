"""`Page`: what one request brought."""

from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa

from tasks.extract.http.answers import Answer
from tasks.extract.http.shapes.arrow import Record


class Page(Protocol):
    """An answer and the records in it."""

    @property
    def answer(self) -> Answer:
        """URL, headers and the body around the records."""

    @property
    def count(self) -> int:
        """How many records it lists."""

    @property
    def last(self) -> Record | None:
        """The last of them, as it came; None on an empty page."""

    @property
    def fingerprint(self) -> str:
        """Tells whether two pages hold the same records in the same order."""

    def tables(self) -> Iterator[pa.Table]:
        """The rows that become of the records, in order, in bounded batches; none for an empty page."""
