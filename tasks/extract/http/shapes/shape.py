"""`Shape`: what form an API's answers have, and what rows become of them."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from tasks.errors import ConfigError, SourceError, one_of
from tasks.extract.http.answers import Answer, described, shown
from tasks.extract.http.pages.page import Page
from tasks.extract.http.shapes.arrow import Record, arrow_table
from tasks.extract.http.shapes.bodies import IN_MEMORY, MEBIBYTE, MOST_AT_ONCE, Body
from tasks.extract.http.shapes.csv_text import Csv, CsvStream
from tasks.extract.http.shapes.json_path import ROOT, JsonPath
from tasks.extract.http.shapes.json_text import JsonStream, Numbers, not_an_object, whole
from tasks.extract.http.shapes.ndjson import NdjsonStream
from tasks.extract.http.shapes.nesting import EVERYTHING, Nesting
from tasks.extract.http.shapes.records import MOST_RECORDS, Listed, Records, RecordStream, Streamed

Format = Literal["json", "ndjson", "csv"]
"""One JSON document, an object in each line, or comma-separated values with names in the first row."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The form of an answer, and of the rows that are made of it.

    A body may be a gzip file, too. It has arrived whole, and has been read once, before its first row is handed on, so
    that one that is cut off is asked for again. Above `in_memory` it is kept in a temporary file and read in a stream.

    `transform` sees pandas columns of Arrow types: whole numbers as int64, others as decimals of just the digits that
    a batch needs, so that types differ from batch to batch; times as the texts that came, with their zone; what is in a
    CSV body as texts. The contract makes of a decimal what the schema says. Before that, one compares with any number,
    adds, and becomes a float next to a float (`raw["temp"] * 1.8`). But products of several integers can need more
    digits than there are, and `fillna(0.0)`, `%`, `cumsum` and `pd.to_numeric` do not take decimals at all: begin with
    `raw["temp"].astype("float64[pyarrow]")`, or say `numbers="float"`.

    Attributes:
        records: where the list of records is in a JSON body: a dotted path, "" being the body itself, or a JSONPath
            (RFC 9535), which begins with `$` and takes the whole document at once, up to 32 MiB.
        format: of the body.
        csv: the dialect of a CSV body.
        flatten: dotted paths of objects in a record whose fields become columns: `address` makes `address_city`. Those
            on the way to one are flattened too; `*` stands for all. NULL, or no object, makes NULLs; anything but an
            object stays a column of its own. A column that a page may lack is declared `Optional[…]` in the schema.
        explode: dotted path of a list in a record whose items become rows, with the record's other fields repeated: of
            `lines`, an object's fields become `lines_sku`, anything else `lines`. An empty list, NULL or none makes one
            row with NULLs; what is no list counts as its only item. Rows are counted after that.
        numbers: what becomes of a number with a fraction or an exponent. `exact`: a decimal of the same digits; `NaN`
            and `Infinity`, which are not JSON, are texts. `float`: the nearest float.
        max_body: bytes that a body may have, decompressed.
        in_memory: bytes up to which a body is parsed at once, 32 MiB at most.

    Raises:
        ConfigError: settings that contradict each other, or a JSONPath that is none.
    """

    records: str = ""
    format: Format = "json"
    csv: Csv = field(default_factory=Csv)
    flatten: Sequence[str] = ()
    explode: str | None = None
    numbers: Numbers = "exact"
    max_body: int = 1024 * MEBIBYTE
    in_memory: int = IN_MEMORY

    def __post_init__(self) -> None:
        if self.records.startswith(ROOT):
            JsonPath(self.records)
        for given, known in ((self.format, ("json", "ndjson", "csv")), (self.numbers, ("exact", "float"))):
            if given not in known:
                raise ConfigError(f"{given!r} is not {one_of(known)}.")
        for wrong, why in (
            (self.records and self.format != "json", f"records={self.records!r} is a place in a JSON document"),
            (self.format == "csv" and (self.flatten or self.explode), "CSV has nothing to flatten or explode"),
            (self.format != "csv" and self.csv != Csv(), "csv=… is for format='csv'"),
            (isinstance(self.flatten, str) and self.flatten != EVERYTHING, f"flatten is a list: [{self.flatten!r}]"),
            (self.explode == "" or "" in tuple(self.flatten), "flatten and explode take paths within a record"),
            (self.max_body < 1 or self.in_memory < 0, "max_body and in_memory are numbers of bytes"),
            (self.in_memory > MOST_AT_ONCE, f"no more than {MOST_AT_ONCE:,} bytes are parsed at once"),
        ):
            if wrong:
                raise ConfigError(f"Shape, format={self.format!r}: {why}.")

    def read(self, body: Body) -> Answer:
        """What `body` says; see `Reader.read`.

        Raises:
            Broken: it ends too early.
            SourceError: it is not of this form, or what has to be parsed at once is too long.
        """
        in_memory, query = body.size <= self.in_memory, self.records.startswith(ROOT)
        if query and body.size > MOST_AT_ONCE:
            raise body.too_long(
                f"has to be parsed as one document, since records={self.records!r} is a JSONPath",
                "Name a dotted path, which is read in a stream, or ask for smaller pages.",
            )
        if self.format == "json" and (in_memory or query):
            return Answer(body.url, body.headers, whole(body, self.numbers))
        stream = self._stream(body)
        records: Records
        if in_memory:
            records = Listed(list(stream.records()))
        else:
            end = deque(enumerate(stream.records(), 1), maxlen=1)
            count, last = end[0] if end else (0, None)
            records = Streamed(lambda: self._stream(body), count, last)
        if isinstance(stream, JsonStream):
            return Answer(body.url, body.headers, stream.around, records=records if stream.found else None)
        return Answer(body.url, body.headers, None, records=records)

    def page(self, answer: Answer) -> Page:
        """The page that `answer` is.

        Raises:
            SourceError: there is no list where records are expected, or something in it is no object.
        """
        return _ShapedPage(answer, self._found(answer) if answer.records is None else answer.records, self)

    def rows(self, records: Records) -> Iterator[list[Record]]:
        """The rows that become of records, in bounded batches."""
        if not self.flatten and self.explode is None:
            yield from records.chunks()
            return
        nesting = Nesting(self.flatten, self.explode)
        for chunk in records.chunks():
            batch: list[Record] = []
            for record in chunk:
                for row in nesting.rows(record):
                    batch.append(row)
                    if len(batch) == MOST_RECORDS:
                        yield batch
                        batch = []
            if batch:
                yield batch

    def _stream(self, body: Body) -> RecordStream:
        if self.format == "csv":
            return CsvStream(body, self.csv)
        if self.format == "ndjson":
            return NdjsonStream(body, self.numbers)
        return JsonStream(body, self.records, self.numbers)

    def _found(self, answer: Answer) -> Records:
        """The records in a body that has been read whole."""
        query = self.records.startswith(ROOT)
        records = JsonPath(self.records).records(answer) if query else answer.at(self.records)
        place = repr(self.records) if self.records else "the body itself"
        if not isinstance(records, list):
            raise SourceError(
                f"The records of {shown(answer.url)} are expected in {place}, but that is {described(records)}. "
                "Name the path of the list in records=…."
            )
        for number, record in enumerate(records):
            if not isinstance(record, dict):
                raise not_an_object(answer.url, number, place, record)
        return Listed(records)


@dataclass(frozen=True, slots=True)
class _ShapedPage:
    """A page whose records are found."""

    answer: Answer
    records: Records
    shape: Shape

    @property
    def count(self) -> int:
        return self.records.count

    @property
    def last(self) -> Record | None:
        return self.records.last

    @property
    def fingerprint(self) -> str:
        return self.records.fingerprint

    def tables(self) -> Iterator[pa.Table]:
        for batch in self.shape.rows(self.records):
            yield arrow_table(batch)
