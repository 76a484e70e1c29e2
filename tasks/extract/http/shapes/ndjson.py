"""NDJSON: a body that holds an object in each line."""

import json
from collections.abc import Iterator

from tasks.extract.http.shapes.arrow import Record
from tasks.extract.http.shapes.bodies import Body
from tasks.extract.http.shapes.json_text import DECODERS, UNREADABLE, Numbers, breaks_off, not_an_object
from tasks.extract.http.shapes.text import PIECE, Text

NDJSON = "NDJSON"


class NdjsonStream:
    """One reading of the lines.

    Args:
        body: holds them; blank ones are passed over.
        numbers: what becomes of fractions.
        piece: bytes to take at once.
    """

    def __init__(self, body: Body, numbers: Numbers = "exact", piece: int = PIECE) -> None:
        self.position = 0
        self._body = body
        self._decode = DECODERS[numbers].decode
        self._text = Text(body, NDJSON, piece)

    def records(self) -> Iterator[Record]:
        """See `RecordStream.records`.

        Raises:
            Broken: the last line is cut off.
            SourceError: a line is no JSON, or no object.
        """
        for number, line in enumerate(self._text.lines()):
            self.position += len(line)
            if not line.strip():
                continue
            try:
                record = self._decode(line)
            except UNREADABLE as error:
                # A line that has its end has not been cut off by the network.
                if self._text.unfinished and isinstance(error, json.JSONDecodeError) and breaks_off(error):
                    raise self._body.cut_off(NDJSON) from error
                raise self._body.malformed(NDJSON, f"line {number + 1}: {error}") from error
            if not isinstance(record, dict):
                raise not_an_object(self._body.url, number, "the lines", record)
            yield record
