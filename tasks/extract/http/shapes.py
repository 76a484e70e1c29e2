"""`Shape`: what form an API's answers have, and what rows become of them."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from tasks.errors import SourceError
from tasks.extract.http.answers import Answer, described, shown
from tasks.extract.http.arrow import Record, arrow_table
from tasks.extract.http.page import Page


@dataclass(frozen=True, slots=True)
class Shape:
    """The form of an answer.

    Attributes:
        records: dotted path of the list of records in a body; "" is the body itself.
    """

    records: str = ""

    def page(self, answer: Answer) -> Page:
        """The page that `answer` is.

        Raises:
            SourceError: there is no list where records are expected, or something in it is no object.
        """
        records = answer.at(self.records)
        place = repr(self.records) if self.records else "the body itself"
        if not isinstance(records, list):
            raise SourceError(
                f"The records of {shown(answer.url)} are expected in {place}, but that is {described(records)}. "
                "Name the dotted path of the list in records=…."
            )
        for number, record in enumerate(records):
            if not isinstance(record, dict):
                raise SourceError(
                    f"Record {number} in {place} of {shown(answer.url)} is {described(record)}, not an object. Ask the "
                    "API for objects, or name another list in records=…."
                )
        return _ListPage(answer, records)


@dataclass(frozen=True)
class _ListPage:
    """A page whose records are in memory."""

    answer: Answer
    records: list[Record]

    @property
    def count(self) -> int:
        return len(self.records)

    @property
    def last(self) -> Record | None:
        return self.records[-1] if self.records else None

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.records, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()

    def tables(self) -> Iterator[pa.Table]:
        if self.records:
            yield arrow_table(self.records)
