"""How a body is downloaded: whole or not at all, bounded, and unpacked; and read as JSON, NDJSON or CSV."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import ConfigError, SourceError, SourceUnavailable
from tasks.extract.http.answers import Answer
from tasks.extract.http.client import HttpClient
from tasks.extract.http.pace.retry import Broken, Retry
from tasks.extract.http.pages.page import Page
from tasks.extract.http.request import Request
from tasks.extract.http.shapes.arrow import Record
from tasks.extract.http.shapes.bodies import IN_MEMORY, MEBIBYTE, Body, _inflated
from tasks.extract.http.shapes.csv_text import Csv, CsvStream
from tasks.extract.http.shapes.json_text import JsonStream
from tasks.extract.http.shapes.ndjson import NdjsonStream
from tasks.extract.http.shapes.shape import Shape
from tests.extract.http.documents import SCALARS, dumped
from tests.scripted_server import Fault, Reply, ScriptedServer

PATH = "/export"
NO_WAITING = Retry(attempts=2, first=timedelta(0))
STREAMED = 0
"""`Shape.in_memory` that has every body read in a stream."""


def page(*replies: Reply, shape: Shape) -> tuple[Page, int]:
    """What the last reply says, and how often was asked."""
    with ScriptedServer({PATH: replies}) as server, HttpClient(server.url, retry=NO_WAITING) as client:
        return shape.page(client.fetch(Request(client.url(PATH)), shape)), len(server.seen)


def rows(found: Page) -> list[Record]:
    return [row for table in found.tables() for row in table.to_pylist()]


ROWS: list[Record] = [{"id": number, "name": f"no. {number}"} for number in range(5)]
TEXTS: list[Record] = [{name: str(value) for name, value in row.items()} for row in ROWS]
JSON = json.dumps({"rows": ROWS}).encode()
NDJSON = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)
CSV = b"id,name\r\n" + b"".join(f"{row['id']},{row['name']}\r\n".encode() for row in ROWS)
BODIES = {
    "json": (JSON, Shape("rows"), ROWS),
    "json, streamed": (JSON, Shape("rows", in_memory=STREAMED), ROWS),
    "ndjson": (NDJSON, Shape(format="ndjson"), ROWS),
    "ndjson, streamed": (NDJSON, Shape(format="ndjson", in_memory=STREAMED), ROWS),
    "csv": (CSV, Shape(format="csv"), TEXTS),
    "csv, streamed": (CSV, Shape(format="csv", in_memory=STREAMED), TEXTS),
}
LINES = [form for form in BODIES if not form.startswith("json")]
every_form = pytest.mark.parametrize("form", BODIES)


@every_form
def test_every_form_is_read_whole_and_as_often_as_one_likes(form: str) -> None:
    body, shape, expected = BODIES[form]
    found, _ = page(Reply(body), shape=shape)
    assert rows(found) == rows(found) == expected
    assert found.count == len(expected)
    assert found.last == expected[-1]


@every_form
@pytest.mark.parametrize(
    "packed",
    [
        pytest.param(lambda body: Reply(gzip.compress(body)), id="a gzip file"),
        pytest.param(
            lambda body: Reply(gzip.compress(body[:9]) + gzip.compress(body[9:]) + b"\0" * 9), id="two of them"
        ),
        pytest.param(lambda body: coded("gzip", gzip.compress(body)), id="coding gzip"),
        pytest.param(lambda body: coded("deflate", zlib.compress(body)), id="coding deflate"),
        pytest.param(lambda body: coded("deflate", zlib.compress(body, wbits=-15)), id="deflate without its header"),
        pytest.param(lambda body: coded("gzip", gzip.compress(gzip.compress(body))), id="a gzip file in coding gzip"),
    ],
)
def test_a_packed_body_is_unpacked(form: str, packed: Callable[[bytes], Reply]) -> None:
    body, shape, expected = BODIES[form]
    assert rows(page(packed(body), shape=shape)[0]) == expected


def coded(coding: str, body: bytes) -> Reply:
    return Reply(body, headers={"Content-Encoding": coding})


@every_form
@pytest.mark.parametrize("fault", ["short body", "cut chunk"])
def test_a_body_that_the_transfer_shows_to_be_cut_is_asked_for_again(form: str, fault: Fault) -> None:
    body, shape, expected = BODIES[form]
    for length in range(0, len(body), 7):
        found, asked = page(Reply(body[:length], fault=fault), Reply(body), shape=shape)
        assert rows(found) == expected
        assert asked == 2


@every_form
@pytest.mark.parametrize("coding", ["gzip", ""], ids=["coding", "file"])
def test_a_gzip_that_breaks_off_is_asked_for_again_wherever_it_does(form: str, coding: str) -> None:
    """Its transfer is whole, so that only gzip's own end tells, even if the cut is at a line's end."""
    body, shape, _ = BODIES[form]
    packed = gzip.compress(body)
    for length in range(2, len(packed), 5):
        with pytest.raises(SourceUnavailable, match="failed 2 times"):
            page(coded(coding, packed[:length]), shape=shape)


@pytest.mark.parametrize("form", ["json", "json, streamed"])
def test_json_that_breaks_off_is_asked_for_again_wherever_it_does(form: str) -> None:
    body, shape, _ = BODIES[form]
    for length in range(0, len(body), 3):
        with pytest.raises(SourceUnavailable, match="breaks off"):
            page(Reply(body[:length]), shape=shape)


@pytest.mark.parametrize("form", LINES)
def test_lines_without_a_length_end_with_a_line_or_are_asked_for_again(form: str) -> None:
    body, shape, expected = BODIES[form]
    assert rows(page(Reply(body, fault="no length"), shape=shape)[0]) == expected
    for length in range(0, len(body), 3):
        if not body[:length].endswith(b"\n"):
            with pytest.raises(SourceUnavailable, match="neither a length nor a line's end"):
                page(Reply(body[:length], fault="no length"), shape=shape)


@pytest.mark.parametrize("form", LINES)
def test_the_last_line_needs_no_end_where_the_transfer_has_one(form: str) -> None:
    body, shape, expected = BODIES[form]
    assert rows(page(Reply(body.rstrip()), shape=shape)[0]) == expected


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        (NDJSON[:-5], Shape(format="ndjson")),
        (CSV + b"7", Shape(format="csv")),
        (CSV + b'7,"nam', Shape(format="csv")),
        ("id,name\n1,é\n".encode()[:-2], Shape(format="csv")),
        (b"", Shape(format="csv")),
    ],
    ids=["half an object", "half a row", "an open quote", "half a character", "not even names"],
)
@pytest.mark.parametrize("in_memory", [STREAMED, IN_MEMORY])
def test_a_last_line_that_is_not_all_there_is_asked_for_again(body: bytes, shape: Shape, in_memory: int) -> None:
    shape = Shape(format=shape.format, in_memory=in_memory)
    with pytest.raises(SourceUnavailable, match="breaks off"):
        page(Reply(body), shape=shape)


# How much is read.


@pytest.mark.parametrize("form", BODIES)
def test_a_body_above_the_cap_is_refused_with_the_cap_and_the_remedies(form: str) -> None:
    body, shape, expected = BODIES[form]
    exact = Shape(shape.records, shape.format, in_memory=shape.in_memory, max_body=len(body))
    assert rows(page(Reply(body), shape=exact)[0]) == expected
    less = Shape(shape.records, shape.format, in_memory=shape.in_memory, max_body=len(body) - 1)
    with pytest.raises(SourceError, match=rf"more than {len(body) - 1} bytes.*smaller pages.*Shape\(max_body"):
        page(Reply(body), shape=less)


def endless(packed: bool) -> Callable[[], Iterator[bytes]]:
    """A list that begins and goes on with blanks, a mebibyte at a time."""

    def pieces() -> Iterator[bytes]:
        packer = zlib.compressobj(9, wbits=31)
        piece = b"[" + b" " * MEBIBYTE
        while True:
            yield packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH) if packed else piece
            piece = b" " * MEBIBYTE

    return pieces


@pytest.mark.parametrize(
    ("packed", "headers"),
    [(False, {}), (True, {}), (True, {"Content-Encoding": "gzip"})],
    ids=["as it is", "a gzip bomb as a file", "a gzip bomb as a coding"],
)
def test_a_body_without_end_is_read_no_further_than_the_cap(packed: bool, headers: dict[str, str]) -> None:
    with pytest.raises(SourceError, match="more than 20,971,520 bytes"):
        page(Reply(endless(packed), headers=headers), shape=Shape(max_body=20 * MEBIBYTE))


def test_what_is_packed_is_unpacked_in_small_pieces_however_much_it_becomes() -> None:
    packed = zlib.compress(b" " * (64 * MEBIBYTE))
    assert len(packed) < MEBIBYTE / 8
    sizes = [len(piece) for piece in _inflated(iter([packed]), zlib.decompressobj)]
    assert sum(sizes) == 64 * MEBIBYTE
    assert max(sizes) <= MEBIBYTE / 4


@pytest.mark.parametrize("status", [404, 503])
def test_no_more_of_an_errors_body_is_read_than_a_message_takes(status: int) -> None:
    with pytest.raises((SourceError, SourceUnavailable), match=rf"{status}.*\[ "):
        page(Reply(endless(False), status), shape=Shape())


def test_an_error_whose_body_breaks_off_is_still_that_error() -> None:
    with pytest.raises(SourceError, match=r"404 Not Found: 'no such ta'"):
        page(Reply(b"no such ta", 404, fault="short body"), shape=Shape())


def test_a_coding_that_was_not_asked_for_is_refused() -> None:
    with pytest.raises(SourceError, match="coding 'br'"):
        page(coded("br", JSON), shape=Shape("rows"))
    with pytest.raises(SourceError, match="coding 'gzip, gzip'"):
        page(coded("gzip, gzip", gzip.compress(gzip.compress(JSON))), shape=Shape("rows"))


def test_only_codings_that_can_be_unpacked_are_asked_for() -> None:
    with ScriptedServer({PATH: [Reply([])]}) as server, HttpClient(server.url) as client:
        client.get_json(PATH)
        assert server.seen[0].headers["accept-encoding"] == "gzip, deflate"


class Keeper:
    """Reads nothing, and keeps the body."""

    max_body = 100 * MEBIBYTE
    body: Body | None = None

    def read(self, body: Body) -> Answer:
        self.body = body
        return Answer(body.url, body.headers, None)


@pytest.mark.parametrize(("size", "held"), [(IN_MEMORY, IN_MEMORY), (IN_MEMORY + 1, 20_000)])
def test_a_body_above_the_memory_limit_is_not_held_in_memory(size: int, held: int) -> None:
    keeper, sent = Keeper(), b"0123456789" * (size // 10 + 1)
    with ScriptedServer({PATH: [Reply(sent[:size])]}) as server, HttpClient(server.url) as client:
        client.fetch(Request(client.url(PATH)), keeper)
    assert keeper.body is not None
    assert (keeper.body.size, len(keeper.body.start)) == (size, held)
    assert keeper.body.read(0, size) == sent[:size]
    assert keeper.body.read(size - 3, 10) == sent[size - 3 : size]


def test_a_page_of_a_long_body_is_read_from_disk_as_long_as_somebody_holds_it() -> None:
    big = [{"id": number, "text": "x" * 1_000} for number in range(10_000)]
    found, _ = page(Reply({"rows": big, "next": "n"}), shape=Shape("rows"))
    assert found.answer.body == {"rows": [], "next": "n"}
    assert found.answer.at("next") == "n"
    assert sum(table.num_rows for table in found.tables()) == found.count == 10_000
    assert max(table.num_rows for table in found.tables()) < 10_000
    tables = found.tables()
    del found
    assert sum(table.num_rows for table in tables) == 10_000


def test_what_is_malformed_early_in_a_long_body_is_not_read_on() -> None:
    """Past 32 MiB it would be too long, and not malformed."""
    with pytest.raises(SourceError, match="Expecting value at character 15"):
        page(Reply(b'{"rows": [{"a":NONE' + b" " * (33 * MEBIBYTE)), shape=Shape("rows"))


@pytest.mark.slow
def test_a_value_that_is_too_long_to_be_parsed_at_once_is_refused_with_what_to_do() -> None:
    text = b'"' + b"x" * (33 * MEBIBYTE) + b'"'
    for body, shape, error in (
        (b'{"rows": [{"a": ' + text + b"}]}", Shape("rows"), "in one record or beside the records"),
        (b'{"rows": [], "log": ' + text + b"}", Shape("rows"), "in one record or beside the records"),
        (
            b'{"rows": [], ' + b",".join(b'"%d": "%b"' % (n, b"x" * MEBIBYTE) for n in range(33)) + b"}",
            Shape("rows"),
            "in one record or beside the records",
        ),
        (b'{"rows": [], "log": ' + text + b"}", Shape("$.rows"), "since records='\\$.rows' is a JSONPath"),
        (b'{"a": ' + text + b"}", Shape(format="ndjson"), "has a longer line"),
        (b"a\n" + text, Shape(format="csv"), "has a longer line"),
        (b'a\n"' + b"x\n" * (17 * MEBIBYTE), Shape(format="csv"), "has a longer row"),
    ):
        with pytest.raises(SourceError, match=rf"{error}.*no more than 32 MiB are parsed at once"):
            page(Reply(body), shape=shape)


# What is malformed.


@pytest.mark.parametrize(
    ("body", "shape", "reason"),
    [
        (b'{"rows": [{"a": 1}, {"a": NONE}]}', Shape("rows"), "Expecting value at character 26"),
        (b'{"rows": [{"a": 1}]} {}', Shape("rows"), "Extra data at character 21"),
        (b'{"rows": [{"a": 1};]}', Shape("rows"), "Expecting ',' delimiter at character 18"),
        (b'{"rows": [{"a": "\xff"}]}', Shape("rows"), "no utf-8 at byte 17"),
        (b'{"rows": ' + b"[" * 100_000, Shape("rows"), "RecursionError"),
        (b'{"rows": [{"a": 1e99999999999999999999}]}', Shape("rows"), "InvalidOperation"),
        (b"<html>Sign in</html>", Shape("rows"), "Expecting value at character 0"),
        (b'{"a": 1}\n{"a": \n{"a": 3}\n', Shape(format="ndjson"), "line 2: "),
        (b'{"a": 1} {"a": 2}\n', Shape(format="ndjson"), "line 1: Extra data"),
        (b"a,b\n1,2\n3\n4,5\n", Shape(format="csv"), "1 fields where there are 2 columns"),
        (b"a,b\n1,2,3\n", Shape(format="csv"), "3 fields where there are 2 columns"),
        (b'a,b\n"1"2,3\n', Shape(format="csv"), "line 2: "),
        (b"a,a\n1,2\n", Shape(format="csv"), "column 'a' is there twice"),
    ],
)
@pytest.mark.parametrize("in_memory", [STREAMED, IN_MEMORY])
def test_what_is_malformed_fails_at_once_with_the_place_and_an_excerpt(
    body: bytes, shape: Shape, reason: str, in_memory: int
) -> None:
    shape = Shape(shape.records, shape.format, in_memory=in_memory)
    with pytest.raises(SourceError, match=r"is not (JSON|NDJSON|CSV) \(") as caught:
        page(Reply(body), shape=shape)
    assert reason in str(caught.value)
    assert repr(body.decode(errors="replace"))[:10] in str(caught.value)


@pytest.mark.parametrize(
    ("body", "shape"),
    [(b'[{"a": 1}, 2]', Shape()), (b'{"a": 1}\n2\n', Shape(format="ndjson"))],
)
@pytest.mark.parametrize("in_memory", [STREAMED, IN_MEMORY])
def test_a_record_that_is_no_object_is_refused_with_its_number(body: bytes, shape: Shape, in_memory: int) -> None:
    with pytest.raises(SourceError, match=r"Record 1 in .* is a number, not an object"):
        page(Reply(body), shape=Shape(format=shape.format, in_memory=in_memory))


# How texts are written.


@pytest.mark.parametrize("in_memory", [STREAMED, IN_MEMORY])
def test_a_byte_order_mark_and_a_declared_charset_are_read_in_every_form(in_memory: int) -> None:
    for form, text in (("json", '[{"a": "é"}]'), ("ndjson", '{"a": "é"}\n'), ("csv", "a\né\n")):
        shape = Shape(format=form, in_memory=in_memory)  # type: ignore[arg-type]
        assert rows(page(Reply(b"\xef\xbb\xbf" + text.encode()), shape=shape)[0]) == [{"a": "é"}]
        for charset in ("iso-8859-1", "utf-16"):
            reply = Reply(text.encode(charset), headers={"Content-Type": f"text/plain; charset={charset}"})
            assert rows(page(reply, shape=shape)[0]) == [{"a": "é"}]


def test_csv_is_read_in_its_declared_dialect_and_every_value_is_text() -> None:
    body = b"id;note;empty\r\n007;'a;b\r\nc''d';\r\n\r\n1e5;NULL;x\r\n"
    shape = Shape(format="csv", csv=Csv(delimiter=";", quote="'"))
    assert rows(page(Reply(body), shape=shape)[0]) == [
        {"id": "007", "note": "a;b\r\nc'd", "empty": None},
        {"id": "1e5", "note": "NULL", "empty": "x"},
    ]


def test_which_text_of_csv_is_null_is_declared() -> None:
    body = b"a,b\n,NULL\n"
    for null, expected in (("", (None, "NULL")), ("NULL", ("", None)), (None, ("", "NULL"))):
        found = rows(page(Reply(body), shape=Shape(format="csv", csv=Csv(null=null)))[0])
        assert found == [{"a": expected[0], "b": expected[1]}]


def test_no_records_are_an_empty_page_in_every_form() -> None:
    for body, shape in ((b"[]", Shape()), (b"", Shape(format="ndjson")), (b"a,b", Shape(format="csv"))):
        for in_memory in (STREAMED, IN_MEMORY):
            found, _ = page(Reply(body), shape=Shape(format=shape.format, in_memory=in_memory))
            assert (found.count, found.last, list(found.tables())) == (0, None, [])


@pytest.mark.parametrize("dialect", [{"delimiter": ""}, {"delimiter": '"'}, {"quote": "\n"}, {"quote": "''"}])
def test_a_dialect_that_cannot_be_is_a_config_error(dialect: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="two different characters"):
        Csv(**dialect)


# Any text, in pieces of any size.

OBJECTS = st.dictionaries(st.text(max_size=3), SCALARS | st.lists(SCALARS, max_size=2), max_size=3)
PIECES = st.integers(1, 9)


@settings(deadline=None)
@given(st.lists(OBJECTS, max_size=4), PIECES)
def test_json_in_pieces_of_any_size_is_what_the_standard_parser_reads(records: list[Record], piece: int) -> None:
    text = dumped(records)
    found = list(JsonStream(Body.of(text.encode()), "", piece=piece).records())
    assert repr(found) == repr(json.loads(text, parse_float=Decimal))


@settings(deadline=None)
@given(st.lists(OBJECTS, max_size=4), PIECES)
def test_ndjson_in_pieces_of_any_size_is_what_the_standard_parser_reads(records: list[Record], piece: int) -> None:
    text = "\n".join(dumped(record).replace("\n", " ") for record in records)
    found = list(NdjsonStream(Body.of(text.encode()), piece=piece).records())
    assert repr(found) == repr([json.loads(line, parse_float=Decimal) for line in text.split("\n") if line])


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=5)


@settings(deadline=None)
@given(st.integers(1, 3).flatmap(lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width))), PIECES)
def test_csv_in_pieces_of_any_size_is_what_was_written(cells: list[list[str]], piece: int) -> None:
    names = ["a", "b", "c"][: len(cells[0]) if cells else 1]
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([names, *cells])
    found = list(CsvStream(Body.of(text.getvalue().encode()), Csv(null=None), piece).records())
    assert found == [dict(zip(names, row, strict=True)) for row in cells]


@settings(deadline=None)
@given(st.lists(OBJECTS, min_size=1, max_size=3), st.data())
def test_any_beginning_of_json_is_broken_and_never_fewer_rows(records: list[Record], data: st.DataObject) -> None:
    body = dumped({"rows": records, "next": 1}).encode()
    cut = body[: data.draw(st.integers(0, len(body) - 1))]
    for shape in (Shape("rows"), Shape("rows", in_memory=STREAMED)):
        with pytest.raises(Broken):
            shape.read(Body.of(cut))


@settings(deadline=None)
@given(st.lists(OBJECTS, min_size=1, max_size=3), st.data())
def test_any_beginning_of_lines_is_broken_or_ends_with_a_line(records: list[Record], data: st.DataObject) -> None:
    lines = [dumped(record).replace("\n", " ") + "\n" for record in records]
    body = "".join(lines).encode()
    cut = body[: data.draw(st.integers(0, len(body) - 1))]
    for in_memory in (STREAMED, IN_MEMORY):
        shape = Shape(format="ndjson", in_memory=in_memory)
        if cut.endswith(b"\n"):
            found = shape.read(Body.of(cut, proven=False)).records
            assert found is not None and found.count == cut.count(b"\n")
        else:
            with pytest.raises(Broken):
                shape.read(Body.of(cut, proven=False))
