"""`Body`: what an answer carries, whole on this side before anything is read from it, in a bounded amount of memory."""

import os
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import IO, Protocol

import httpx

from tasks.errors import SourceError
from tasks.extract.http.answers import Answer, masked, shown
from tasks.extract.http.pace.retry import Broken
from tasks.extract.http.parallel import abandoned
from tasks.masking import said

MEBIBYTE = 1 << 20

IN_MEMORY = 8 * MEBIBYTE
"""Bytes up to which a body stays in memory; a longer one is kept in a temporary file."""

MOST_AT_ONCE = 32 * MEBIBYTE
"""How much text may be parsed at once, a document or one value in a stream, in bytes; objects take ten times that."""

_PIECE = 256 << 10
_EXCERPT = 20_000
_CODINGS = frozenset({"gzip", "x-gzip", "deflate", "identity", ""})
_GZIP = b"\x1f\x8b"
# What zlib calls "gzip or zlib, as the header says", and deflate without a header.
_BY_HEADER, _HEADLESS = 32 + zlib.MAX_WBITS, -zlib.MAX_WBITS


@dataclass(frozen=True, eq=False)
class Body:
    """A body that has arrived whole, decompressed.

    Attributes:
        url: where it came from, after redirects.
        headers: of the response.
        encoding: of its characters, unless it begins with a byte order mark.
        size: bytes.
        proven: whether the transfer or the compression told its end; otherwise the connection was just closed.
        start: its first bytes, or all of them where they are held in memory.
        method: of the request.
    """

    url: httpx.URL
    headers: httpx.Headers
    encoding: str
    size: int
    proven: bool
    start: bytes = field(repr=False)
    method: str = "GET"
    _file: IO[bytes] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self._file is not None:
            # Whoever holds a page holds its body, and nobody closes a page.
            weakref.finalize(self, self._file.close)

    @classmethod
    def of(cls, data: bytes, *, encoding: str = "utf-8", proven: bool = True) -> "Body":
        """`data` as a body from nowhere."""
        return cls(httpx.URL("http://source.test"), httpx.Headers(), encoding, len(data), proven, data)

    def read(self, at: int, size: int) -> bytes:
        """So many bytes from a place on, fewer at the end. Several readers do not disturb each other."""
        if self._file is None:
            return self.start[at : at + size]
        return os.pread(self._file.fileno(), size, at)

    def malformed(self, what: str, reason: str) -> SourceError:
        """That it is not `what` it should be."""
        kind = self.headers.get("content-type", "no content type")
        excerpt = said(masked(self.start[:_EXCERPT].decode(self.encoding, "replace"), self.url))
        return SourceError(
            f"{self.method} {shown(self.url)} answered 200, but its body ({kind}) is not {what} ({reason}): "
            f"{excerpt!r}. Check that the path is that of the API, and not of a page or a login."
        )

    def cut_off(self, what: str) -> Broken:
        """That it ends before `what` is in it does."""
        return Broken(f"200 with {what} that breaks off after {self.size} bytes")

    def too_long(self, what: str, remedy: str) -> SourceError:
        """That `what` in it cannot be held in memory."""
        return SourceError(
            f"The answer of {shown(self.url)} ({self.size:,} bytes) {what}, and no more than "
            f"{MOST_AT_ONCE // MEBIBYTE} MiB are parsed at once. {remedy}"
        )


class Reader(Protocol):
    """Makes an answer of a body."""

    @property
    def max_body(self) -> int:
        """How many bytes a body may have, decompressed."""

    def read(self, body: Body) -> Answer:
        """What `body` says, seen to be whole.

        Raises:
            Broken: it ends too early.
            SourceError: it is not what it should be.
        """


def downloaded(response: httpx.Response, most: int) -> Body:
    """The body of an open `response`, its content coding and a gzip file both unpacked.

    Args:
        response: not read yet.
        most: how many bytes it may have, decompressed. Nothing beyond them is unpacked.

    Raises:
        Broken: it ends within its compression.
        SourceError: it is longer, or compressed in a way that was not asked for.
        httpx.TransportError: the connection failed, or ended too early.
    """
    head, pieces = _peeked(_decoded(response), len(_GZIP))
    compressed = head.startswith(_GZIP)
    if compressed:
        pieces = _inflated(pieces, lambda: zlib.decompressobj(_BY_HEADER))
    start, size, file = bytearray(), 0, None
    try:
        for piece in pieces:
            size += len(piece)
            if size > most:
                raise _too_big(response, most)
            if abandoned():
                raise Broken("nobody wants the rest of it")
            if file is None and size > IN_MEMORY:
                file = tempfile.TemporaryFile(prefix="tidegate-")  # noqa: SIM115 closed with the body
                file.write(start)
                del start[_EXCERPT:]
            if file is None:
                start += piece
            else:
                file.write(piece)
        if file is not None:
            file.flush()
    except BaseException:
        if file is not None:
            file.close()
        raise
    return Body(
        url=response.url,
        headers=response.headers,
        encoding=response.encoding or "utf-8",
        size=size,
        proven=compressed or bool(_coding(response)) or _framed(response),
        start=bytes(start),
        method=response.request.method,
        _file=file,
    )


def beginning(response: httpx.Response) -> str:
    """The start of an open `response`'s body, for a message; as much of it as can be had."""
    start = b""
    try:
        for piece in _decoded(response):
            start += piece
            if len(start) > _EXCERPT:
                break
    except (httpx.TransportError, SourceError, Broken):
        pass
    return said(masked(start[:_EXCERPT].decode(response.encoding or "utf-8", "replace"), response.url))


def _framed(response: httpx.Response) -> bool:
    """Whether the transfer tells where the body ends."""
    return "content-length" in response.headers or "transfer-encoding" in response.headers


def _coding(response: httpx.Response) -> str:
    coding = response.headers.get("content-encoding", "").strip().lower()
    return "" if coding == "identity" else coding


def _decoded(response: httpx.Response) -> Iterator[bytes]:
    """The bytes without their content coding.

    Not by httpx, which takes a gzip stream that ends early for whole, and unpacks what has come in one go: a few
    kilobytes can be gigabytes.
    """
    coding = _coding(response)
    if coding not in _CODINGS:
        raise SourceError(
            f"{shown(response.url)} answers in the coding {coding!r}, which was not asked for. Have it sent as gzip, "
            "or as it is."
        )
    if not coding:
        return response.iter_raw()
    head, pieces = _peeked(response.iter_raw(), 2)
    # Some send deflate as RFC 9110 says, with zlib's header, and some without.
    headless = coding == "deflate" and not (head[:1] and head[0] & 15 == 8 and int.from_bytes(head[:2]) % 31 == 0)
    return _inflated(pieces, lambda: zlib.decompressobj(_HEADLESS if headless else _BY_HEADER))


def _inflated(pieces: Iterator[bytes], inflater: "Callable[[], zlib._Decompress]") -> Iterator[bytes]:
    """Decompressed, in pieces of a bounded size. Several gzip files in a row count as one (RFC 1952)."""
    current = None
    try:
        for piece in pieces:
            while piece:
                current = current or inflater()
                yield current.decompress(piece, _PIECE)
                piece = current.unconsumed_tail
                if current.eof:
                    # Zeros may fill up the last block of a medium.
                    piece, current = current.unused_data.lstrip(b"\0"), None
        while current is not None and (rest := current.decompress(b"", _PIECE)):
            yield rest
    except zlib.error as error:
        raise Broken(f"compressed data that cannot be unpacked: {error}") from error
    if current is not None and not current.eof:
        raise Broken("compressed data that breaks off")


def _peeked(pieces: Iterator[bytes], size: int) -> tuple[bytes, Iterator[bytes]]:
    """At least so many bytes, if there are, and all of them."""
    head = b""
    while len(head) < size and (piece := next(pieces, b"")):
        head += piece
    return head, chain([head], pieces)


def _too_big(response: httpx.Response, most: int) -> SourceError:
    return SourceError(
        f"{response.request.method} {shown(response.url)} answers with more than {most:,} bytes, decompressed. Ask for "
        "smaller pages or a shorter window, or allow more with Shape(max_body=…)."
    )
