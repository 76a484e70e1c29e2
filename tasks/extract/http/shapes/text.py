"""`Text`: a body's characters, a part at a time."""

import codecs
from collections.abc import Iterator

from tasks.extract.http.shapes.bodies import MOST_AT_ONCE, Body

PIECE = 256 << 10
"""Bytes that are decoded at once."""


class Text:
    """One reading of a body.

    Args:
        body: to be read from its beginning.
        what: the form that its text has, for messages.
        piece: bytes to take at once.
    """

    def __init__(self, body: Body, what: str, piece: int = PIECE) -> None:
        self.unfinished = False
        """Whether the line that was handed on last has no end."""
        self._body = body
        self._what = what
        self._piece = piece
        self._decoder = codecs.getincrementaldecoder(body.encoding)()
        self._at = 0
        self._begun = False

    def more(self, size: int = 0) -> str:
        """The next characters, of so many bytes or a few more; "" at the end.

        Raises:
            Broken: the body ends within a character.
            SourceError: it is of another encoding.
        """
        while self._at < self._body.size:
            piece = self._body.read(self._at, max(size, self._piece))
            self._at += len(piece)
            try:
                text = self._decoder.decode(piece)
            except UnicodeDecodeError as error:
                place = self._at - len(error.object) + error.start
                raise self._body.malformed(self._what, f"no {error.encoding} at byte {place}") from error
            if text and not self._begun:
                self._begun = True
                text = text.removeprefix("\ufeff")
            if text:
                return text
        if self._decoder.getstate()[0]:
            raise self._body.cut_off(self._what)
        return ""

    def lines(self) -> Iterator[str]:
        r"""The lines, each with the "\n" at its end; the last one as it is.

        Raises:
            Broken: the last line has no end, and nothing else says that the body does.
            SourceError: a line is too long, or of another encoding.
        """
        line = ""
        while text := self.more():
            first, *rest = text.split("\n")
            line += first
            for following in rest:
                yield line + "\n"
                line = following
            if len(line) > MOST_AT_ONCE:
                raise self._body.too_long("has a longer line", f"Check that it is {self._what}.")
        if line or not self._at:
            if not self._body.proven:
                raise self._body.cut_off(f"{self._what}, neither a length nor a line's end,")
            self.unfinished = bool(line)
            if line:
                yield line
