"""`Csv`: how a body of comma-separated values is written, and its rows."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass

from tasks.errors import ConfigError
from tasks.extract.http.shapes.arrow import Record
from tasks.extract.http.shapes.bodies import MOST_AT_ONCE, Body
from tasks.extract.http.shapes.text import PIECE, Text

CSV = "CSV"

# The parser's own limit for a field, 128 KiB, holds for the whole process; ours is that of a row.
csv.field_size_limit(max(csv.field_size_limit(), MOST_AT_ONCE))


@dataclass(frozen=True, slots=True)
class Csv:
    """The dialect of a CSV body (RFC 4180 unless told otherwise). Its first row names the columns.

    Attributes:
        delimiter: between two fields, one character.
        quote: around a field that holds delimiters, quotes (doubled) or line breaks.
        null: the text that stands for NULL, quoted or not; None: every text is itself.
    """

    delimiter: str = ","
    quote: str = '"'
    null: str | None = ""

    def __post_init__(self) -> None:
        marks = (self.delimiter, self.quote)
        if any(len(mark) != 1 or mark in "\r\n" for mark in marks) or self.delimiter == self.quote:
            raise ConfigError(f"{self}: delimiter and quote are two different characters.")


class CsvStream:
    """One reading of the rows: texts by the names in the first row.

    Args:
        body: holds them; blank lines are passed over.
        dialect: how they are written.
        piece: bytes to take at once.
    """

    def __init__(self, body: Body, dialect: Csv, piece: int = PIECE) -> None:
        self.position = 0
        self._body = body
        self._dialect = dialect
        self._text = Text(body, CSV, piece)
        self._ended = False
        self._row_began = 0

    def records(self) -> Iterator[Record]:
        """See `RecordStream.records`.

        Raises:
            Broken: the last row is cut off, or not even names have come.
            SourceError: a row has more or fewer fields than there are names, or a name comes twice.
        """
        null = self._dialect.null
        rows = self._rows()
        names = next(rows, None)
        if names is None:
            raise self._body.cut_off(f"{CSV}, before the names of its columns,")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise self._body.malformed(CSV, f"the column {twice!r} is there twice")
        for row in rows:
            if len(row) != len(names):
                if self._text.unfinished and len(row) < len(names):
                    raise self._body.cut_off(CSV)
                raise self._body.malformed(
                    CSV, f"{len(row)} fields where there are {len(names)} columns, after {self.position:,} characters"
                )
            yield dict(zip(names, row if null is None else [None if text == null else text for text in row]))  # noqa: B905 as many

    def _rows(self) -> Iterator[list[str]]:
        reader = csv.reader(
            self._lines(), delimiter=self._dialect.delimiter, quotechar=self._dialect.quote, strict=True
        )
        try:
            for row in reader:
                self._row_began = self.position
                if row:
                    yield row
        except csv.Error as error:
            # Whatever it finds wrong after the last line is that there is no more of it.
            if self._ended:
                raise self._body.cut_off(CSV) from error
            raise self._body.malformed(CSV, f"line {reader.line_num}: {error}") from error

    def _lines(self) -> Iterator[str]:
        for line in self._text.lines():
            self.position += len(line)
            if self.position - self._row_began > MOST_AT_ONCE:
                raise self._body.too_long("has a longer row", "Check the quotes and Shape(csv=…).")
            yield line
        self._ended = True
