"""JSON as text: parsed at once, or value by value where it is too long for that.

By the standard library alone. Of ijson 3.6, the stream parser at hand, the fast backend makes a question mark of half a
surrogate pair, takes control characters for blanks, and has one error for what is cut off and what is wrong; it is no
faster either.
"""

import json
import re
from collections.abc import Generator, Iterator
from decimal import Decimal, InvalidOperation
from itertools import count
from typing import Literal, NoReturn

import httpx

from tasks.errors import SourceError
from tasks.extract.http.answers import described, shown
from tasks.extract.http.shapes.arrow import Record
from tasks.extract.http.shapes.bodies import MOST_AT_ONCE, Body
from tasks.extract.http.shapes.text import PIECE, Text

Numbers = Literal["exact", "float"]
"""What becomes of a number with a fraction or an exponent: a `Decimal` of the same digits, or the nearest float.

`NaN`, `Infinity` and `-Infinity`, which are not JSON but are written by some, are texts in the first case."""

DECODERS: dict[Numbers, json.JSONDecoder] = {
    "exact": json.JSONDecoder(parse_float=Decimal, parse_constant=str),
    "float": json.JSONDecoder(),
}

JSON = "JSON"
"""What a body is called that is some."""

UNREADABLE = (ValueError, RecursionError, InvalidOperation)
"""What parsing raises: of a text that is none, too many digits, too deep a nesting, an exponent beyond everything."""

_BLANK = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"[-+.0-9eE]*")
# What is left of a JSON text at the place where the parser stopped, if the text was cut there: nothing, an open
# string or escape, a part of a literal, or of a number.
_CUT_OFF = re.compile(
    r'"[^"\\]*(?:\\.[^"\\]*)*\\?|\\?(?:u[0-9a-fA-F]{0,4})?|tr?u?|fa?l?s?|nu?l?|Na?|\.|[eE][-+]?|'
    r"-?(?:I(?:n(?:f(?:i(?:n(?:it?)?)?)?)?)?)?",
    re.DOTALL,
)


def breaks_off(error: json.JSONDecodeError) -> bool:
    """Whether the text may be right, but is not all there."""
    return _CUT_OFF.fullmatch(error.doc[error.pos :].strip()) is not None


def not_an_object(url: httpx.URL, number: int, place: str, value: object) -> SourceError:
    """That a record is none."""
    return SourceError(
        f"Record {number} in {place} of {shown(url)} is {described(value)}, not an object. Ask the API for objects, "
        "or name another list in records=…."
    )


def whole(body: Body, numbers: Numbers) -> object:
    """The document that `body` is.

    Raises:
        Broken: the text ends before its JSON does.
        SourceError: it is something else than JSON.
    """
    text = Text(body, JSON)
    document = ""
    while piece := text.more(body.size):
        document += piece
    try:
        return DECODERS[numbers].decode(document)
    except UNREADABLE as error:
        raise unreadable(body, error) from error


def unreadable(body: Body, error: Exception, before: int = 0) -> Exception:
    """What to raise of one of `UNREADABLE`, met after so many characters."""
    if not isinstance(error, json.JSONDecodeError):
        return body.malformed(JSON, f"{type(error).__name__}: {error}")
    if breaks_off(error):
        return body.cut_off(JSON)
    return body.malformed(JSON, f"{error.msg} at character {before + error.pos}")


class JsonStream:
    """One reading of a document: the records of a list in it, one after the other, and then what is around them.

    Args:
        body: holds it.
        path: dotted path of the list, as `Answer.at` takes it.
        numbers: what becomes of fractions.
        piece: bytes to take at once.
    """

    def __init__(self, body: Body, path: str, numbers: Numbers = "exact", piece: int = PIECE) -> None:
        self.found = False
        """Whether there is a list at the path; otherwise `around` is all there is."""
        self.around: object = None
        self._body = body
        self._path = path
        self._place = repr(path) if path else "the body itself"
        self._decode = DECODERS[numbers].raw_decode
        self._text = Text(body, JSON, piece)
        self._buffer = ""
        self._at = 0
        self._before = 0
        self._beside = 0
        self._arrivals = 0

    @property
    def position(self) -> int:
        """See `RecordStream.position`."""
        return self._before + self._at

    def records(self) -> Iterator[Record]:
        """See `RecordStream.records`.

        Raises:
            Broken: the text ends before its JSON does.
            SourceError: it is no JSON, a record is no object, the path leads to two places, or there is too much
                besides the records.
        """
        self.around = yield from self._node(self._path)
        if self._next():
            self._fail("Extra data")

    def _node(self, path: str) -> Generator[Record, None, object]:
        """The value that begins here, from which `path` leads to the records; without them."""
        first = self._next()
        if not path:
            self._arrivals += 1
            if self._arrivals > 1:
                raise SourceError(
                    f"In the answer of {shown(self._body.url)}, {self._path!r} can be read in two ways. It is too long "
                    "to be compared: ask for smaller pages."
                )
            if first == "[":
                self.found = True
                yield from self._records()
                return []
        step, _, rest = path.partition(".")
        if path and first == "{":
            node: dict[str, object] = {}
            for key in self._keys():
                if key == path or (key == step and rest):
                    node[key] = yield from self._node("" if key == path else rest)
                else:
                    node[key] = self._besides()
            return node
        if path and first == "[" and step.isdecimal():
            items: list[object] = []
            for number in self._items():
                items.append((yield from self._node(rest)) if number == int(step) else self._besides())
            return items
        return self._besides()

    def _records(self) -> Iterator[Record]:
        for number in self._items():
            value = self._value()
            if not isinstance(value, dict):
                raise not_an_object(self._body.url, number, self._place, value)
            yield value

    def _keys(self) -> Iterator[str]:
        """The keys of an object, each with the place before its value."""
        self._at += 1
        if self._next() == "}":
            self._at += 1
            return
        while True:
            if self._next() != '"':
                self._fail("Expecting property name enclosed in double quotes")
            key = self._besides()
            assert isinstance(key, str), "it begins like one"
            if self._next() != ":":
                self._fail("Expecting ':' delimiter")
            self._at += 1
            yield key
            if self._ends("}"):
                return

    def _items(self) -> Iterator[int]:
        """The numbers of a list's items, each with the place before it."""
        self._at += 1
        if self._next() == "]":
            self._at += 1
            return
        for number in count():
            yield number
            if self._ends("]"):
                return

    def _ends(self, bracket: str) -> bool:
        """Whether the object or list ends here; otherwise it goes on behind a comma."""
        mark = self._next()
        if mark not in (",", bracket):
            self._fail("Expecting ',' delimiter")
        self._at += 1
        return mark == bracket

    def _besides(self) -> object:
        """A value that is no record, and is kept."""
        before = self.position
        value = self._value()
        self._beside += self.position - before
        if self._beside > MOST_AT_ONCE:
            raise self._too_long()
        return value

    def _value(self) -> object:
        self._next()
        while True:
            try:
                value, end = self._decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                if breaks_off(error) and self._more():
                    continue
                raise unreadable(self._body, error, self._before) from error
            except UNREADABLE as error:
                raise unreadable(self._body, error) from error
            # More of a number may be to come.
            if _NUMBER.match(self._buffer, self._at).end() < len(self._buffer) or not self._more():  # type: ignore[union-attr]
                self._at = end
                return value

    def _next(self) -> str:
        """The character to read next, behind blanks; "" at the end."""
        while True:
            self._at = _BLANK.match(self._buffer, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._more():
                return ""

    def _more(self) -> bool:
        """Read on, and forget what has been passed."""
        waiting = self._buffer[self._at :]
        if len(waiting) > MOST_AT_ONCE:
            raise self._too_long()
        # As much again as waits: what begins in it is parsed anew each time.
        text = self._text.more(min(len(waiting), MOST_AT_ONCE - len(waiting)))
        if text:
            self._before += self._at
            self._buffer, self._at = waiting + text, 0
        return bool(text)

    def _fail(self, message: str) -> NoReturn:
        while breaks_off(error := json.JSONDecodeError(message, self._buffer, self._at)) and self._more():
            pass
        raise unreadable(self._body, error, self._before)

    def _too_long(self) -> SourceError:
        return self._body.too_long(
            f"holds more than that in one record or beside the records, or has no list in {self._place}",
            "Name the dotted path of the list in records=…, or ask for smaller pages.",
        )
