"""`Shape`: where records are, and what rows become of them."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.errors import ConfigError, SourceError
from tasks.extract.api import ApiExtract
from tasks.extract.http.pages.page import Page
from tasks.extract.http.pages.paginators import NextUrl
from tasks.extract.http.shapes.arrow import Record
from tasks.extract.http.shapes.bodies import MEBIBYTE, Body
from tasks.extract.http.shapes.csv_text import Csv
from tasks.extract.http.shapes.json_text import JsonStream
from tasks.extract.http.shapes.records import Listed
from tasks.extract.http.shapes.shape import Shape
from tasks.window import Window
from tests.extract.http.documents import SCALARS, dumped
from tests.scripted_server import Reply, ScriptedServer


def page(document: object, shape: Shape) -> Page:
    return shape.page(shape.read(Body.of(dumped(document).encode())))


def rows(document: object, shape: Shape) -> list[Record]:
    return [row for table in page(document, shape).tables() for row in table.to_pylist()]


# Where the records are.

DOCUMENT = {
    "data": {"rows": [{"id": 1, "x": Decimal("0.1")}, {"id": 2, "x": Decimal("2.5")}], "by.id": [{"id": 3}]},
    "by_id": {"4": {"id": 4}, "5": {"id": 5}},
    "groups": [{"rows": [{"id": 6}]}, {"rows": [{"id": 7}, {"id": 8}]}],
    "none": [],
}


@pytest.mark.parametrize(
    ("records", "ids"),
    [
        ("data.rows", [1, 2]),
        ("data.by.id", [3]),
        ("groups.1.rows", [7, 8]),
        ("groups.-1.rows", [7, 8]),
        ("none", []),
        ("$.data.rows", [1, 2]),
        ("$.data.rows[*]", [1, 2]),
        ("$['data']['by.id']", [3]),
        ("$.by_id[*]", [4, 5]),
        ("$.groups[*].rows[*]", [6, 7, 8]),
        ("$..rows[*]", [1, 2, 6, 7, 8]),
        ("$.data.rows[?@.id > 1]", [2]),
        ("$.data.rows[?@.x == 0.1]", [1]),
        ("$.data.rows[?@.x < 2.5]", [1]),
        ("$.data.rows[?@.id == 9]", []),
        ("$.none[*]", []),
    ],
)
@pytest.mark.parametrize("numbers", ["exact", "float"])
def test_records_are_found_by_a_dotted_path_or_a_jsonpath(records: str, ids: list[int], numbers: Any) -> None:
    for in_memory in (0, MEBIBYTE):
        shape = Shape(records, numbers=numbers, in_memory=in_memory)
        assert [row["id"] for row in rows(DOCUMENT, shape)] == ids


@pytest.mark.parametrize(
    ("records", "error"),
    [
        ("data.row", "no 'data.row': where 'row' should be there is an object with the keys 'rows'"),
        ("groups.2.rows", "where '2' should be there is a list of 2"),
        ("data", "expected in 'data', but that is an object"),
        ("", "expected in the body itself, but that is an object"),
        ("$.data.row", r"has no \"\$\['data'\]\['row'\]\""),
        ("$.data.row[*]", r"has no \"\$\['data'\]\['row'\]\""),
        ("$.data", "expected in .*, but that is an object"),
        ("$.data.rows[*].id", "Record 0 in .* is a number, not an object"),
    ],
)
@pytest.mark.parametrize("in_memory", [0, MEBIBYTE])
def test_a_path_that_leads_to_no_list_is_refused_and_is_no_empty_page(records: str, error: str, in_memory: int) -> None:
    with pytest.raises(SourceError, match=error):
        rows(DOCUMENT, Shape(records, in_memory=in_memory))


def test_a_jsonpath_that_is_none_fails_where_it_is_declared() -> None:
    for wrong in ("$.rows[", "$[?@.a = 1]", "$.~keys"):
        with pytest.raises(ConfigError, match="no JSONPath"):
            Shape(wrong)


def test_a_path_that_can_be_read_in_two_ways_is_refused_where_the_two_cannot_be_compared() -> None:
    document = {"a": {"b": [{"id": 1}]}, "a.b": [{"id": 2}]}
    assert rows(document, Shape("a.b")) == [{"id": 2}]
    with pytest.raises(SourceError, match="in two ways"):
        rows(document, Shape("a.b", in_memory=0))


# In a stream as at once, whatever the document.

KEYS = st.sampled_from(["a", "b", "c"])
RECORDS = st.lists(st.dictionaries(KEYS, SCALARS, max_size=3), max_size=3)
DOCUMENTS = st.recursive(
    SCALARS | RECORDS,
    lambda inner: st.dictionaries(KEYS, inner, max_size=3) | st.lists(inner, max_size=3),
    max_leaves=8,
)
STEPS = st.lists(KEYS | st.sampled_from(["0", "1", "-1"]), max_size=3)


@st.composite
def placed(draw: st.DrawFn) -> tuple[Any, str]:
    """A document and a path; mostly one that leads to records in it, between other things."""
    steps = draw(STEPS)
    node: Any = draw(RECORDS | DOCUMENTS)
    for step in reversed(steps):
        if step.isdecimal():
            node = [*draw(st.lists(DOCUMENTS, min_size=int(step), max_size=int(step))), node]
        else:
            node = {**draw(st.dictionaries(KEYS, DOCUMENTS, max_size=1)), step: node}
        if isinstance(node, dict):
            node |= {"later": draw(DOCUMENTS)}
    return node, ".".join(steps)


def outcome(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except SourceError as error:
        return str(error)


@settings(deadline=None, max_examples=300)
@given(placed(), st.integers(1, 9))
@example(({"n": 12345, "a": [{"b": 1}]}, "a"), 1)
def test_any_document_read_in_a_stream_is_the_same_page_as_read_at_once(place: tuple[Any, str], piece: int) -> None:
    document, path = place
    text = dumped(document).encode()
    shape = Shape(path)
    at_once = outcome(lambda: shape.page(shape.read(Body.of(text))))
    streamed = outcome(lambda: Shape(path, in_memory=0).page(Shape(path, in_memory=0).read(Body.of(text))))
    if isinstance(at_once, str):
        assert streamed == at_once
        return
    assert not isinstance(streamed, str), streamed
    assert (streamed.count, repr(streamed.last), streamed.fingerprint) == (
        at_once.count,
        repr(at_once.last),
        at_once.fingerprint,
    )
    stream = JsonStream(Body.of(text), path, piece=piece)
    found = list(stream.records())
    whole = json.loads(text, parse_float=Decimal)
    if stream.found:
        assert repr(found) == repr(at_once.answer.at(path))
        whole = without(whole, path)
    assert repr(stream.around) == repr(whole)


def without(node: Any, path: str) -> Any:
    """The document with an empty list at the path."""
    if not path:
        return []
    step, _, rest = path.partition(".")
    place: Any = step if isinstance(node, dict) else int(step)
    node[place] = without(node[place], rest)
    return node


@settings(deadline=None)
@given(RECORDS, RECORDS, st.booleans())
def test_fingerprints_agree_exactly_where_the_records_do(
    one: list[Record], other: list[Record], other_order: bool
) -> None:
    again = [dict(reversed(record.items())) for record in one] if other_order else one
    assert page(one, Shape()).fingerprint == page(again, Shape(in_memory=0)).fingerprint
    if json.loads(dumped(one), parse_float=str) != json.loads(dumped(other), parse_float=str) or len(one) != len(other):
        assert page(one, Shape()).fingerprint != page(other, Shape()).fingerprint


def test_a_number_and_the_text_of_its_digits_have_different_fingerprints() -> None:
    assert page([{"a": Decimal("0.5")}], Shape()).fingerprint != page([{"a": "0.5"}], Shape()).fingerprint


# Nested objects and lists.

ORDER = {
    "id": 1,
    "buyer": {"name": "Ann", "address": {"city": "Bonn", "zip": "53111"}},
    "lines": [{"sku": "a", "price": {"net": 2}}, {"sku": "b"}],
}


@pytest.mark.parametrize(
    ("flatten", "names"),
    [
        ([], ["id", "buyer", "lines"]),
        (["buyer"], ["id", "buyer_name", "buyer_address", "lines"]),
        (["buyer.address"], ["id", "buyer_name", "buyer_address_city", "buyer_address_zip", "lines"]),
        ("*", ["id", "buyer_name", "buyer_address_city", "buyer_address_zip", "lines"]),
    ],
)
@pytest.mark.parametrize("in_memory", [0, MEBIBYTE])
def test_declared_objects_become_columns(flatten: list[str], names: list[str], in_memory: int) -> None:
    [table] = page([ORDER], Shape(flatten=flatten, in_memory=in_memory)).tables()
    assert table.column_names == names


def test_an_object_that_is_null_or_absent_makes_nulls_and_another_value_stays() -> None:
    records = [{"id": 1, "to": {"city": "Bonn"}}, {"id": 2, "to": None}, {"id": 3}, {"id": 4, "to": "?"}]
    assert rows(records, Shape(flatten=["to"])) == [
        {"id": 1, "to_city": "Bonn", "to": None},
        {"id": 2, "to_city": None, "to": None},
        {"id": 3, "to_city": None, "to": None},
        {"id": 4, "to_city": None, "to": "?"},
    ]
    assert rows([{"to": None}], Shape(flatten=["to"])) == [{"to": None}]


@pytest.mark.parametrize(
    "records",
    [[{"to": {"city": 1}, "to_city": 2}], [{"to_city": 2}, {"to": {"city": 1}}], [{"a": {"b_c": 1}, "a_b": {"c": 2}}]],
    ids=["in a record", "in two", "of two objects"],
)
def test_two_fields_of_one_columns_name_are_an_error_that_names_both(records: list[Record]) -> None:
    with pytest.raises(SourceError, match=r"'.*' and '.*' would both be the column '(to_city|a_b_c)'"):
        rows(records, Shape(flatten=["to", "a", "a_b"]))


@pytest.mark.parametrize("in_memory", [0, MEBIBYTE])
def test_a_list_becomes_rows_with_the_other_fields_repeated(in_memory: int) -> None:
    shape = Shape(flatten=["lines.price", "buyer.address"], explode="lines", in_memory=in_memory)
    common = {"id": 1, "buyer_name": "Ann", "buyer_address_city": "Bonn", "buyer_address_zip": "53111"}
    assert rows([ORDER], shape) == [
        {**common, "lines_sku": "a", "lines_price_net": 2},
        {**common, "lines_sku": "b", "lines_price_net": None},
    ]
    assert page([ORDER], shape).count == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1, 2], [1, 2]),
        ([], [None]),
        (None, [None]),
        ([None], [None]),
        ("x", ["x"]),
        ([[1], [2]], [[1], [2]]),
    ],
)
def test_no_record_is_lost_where_its_list_is_empty_null_or_no_list(value: object, expected: list[object]) -> None:
    found = rows([{"id": 1, "tags": value}], Shape(explode="tags"))
    assert [row.get("tags") for row in found] == expected
    assert [row["id"] for row in found] == [1] * len(expected)
    assert rows([{"tags": []}], Shape(explode="tags")) == [{"tags": None}]
    assert rows([{"id": 1}], Shape(explode="a.b")) == [{"id": 1}]


def test_a_list_within_a_list_is_refused() -> None:
    with pytest.raises(SourceError, match="leads through the list 'a'"):
        rows([{"a": [{"b": [1]}]}], Shape(explode="a.b"))


def test_rows_that_one_record_explodes_into_come_in_bounded_batches() -> None:
    tables = list(page([{"id": 1, "tags": list(range(25_000))}], Shape(explode="tags")).tables())
    assert [table.num_rows for table in tables] == [10_000, 10_000, 5_000]


NESTED = st.recursive(
    SCALARS, lambda inner: st.dictionaries(KEYS, inner, max_size=2) | st.lists(inner, max_size=2), max_leaves=6
)
OPENED = st.lists(st.lists(KEYS, min_size=1, max_size=3).map(".".join), max_size=2)


def modelled(record: Record, flatten: list[str], explode: str | None) -> list[Record]:
    """What `Shape` should make of a record, by brute force over the paths of its leaves."""
    copies = [record]
    if explode is not None:
        *way, last = explode.split(".")
        holder: Any = record
        for step in way:
            holder = holder.get(step) if isinstance(holder, dict) else None
            if isinstance(holder, list):
                raise SourceError("in a list")
        if isinstance(holder, dict) and last in holder:
            items = holder[last] if isinstance(holder[last], list) else [holder[last]]
            copies = []
            for item in items or [None]:
                copy = json.loads(dumped(record), parse_float=Decimal)
                inner = copy
                for step in way:
                    inner = inner[step]
                inner[last] = item
                copies.append(copy)
    opened = [path.split(".") for path in [*flatten, *([explode] if explode else [])]]
    made = []
    for copy in copies:
        leaves: list[tuple[list[str], Any]] = [([name], value) for name, value in copy.items()]
        row: Record = {}
        while leaves:
            path, value = leaves.pop(0)
            is_open = any(path == one[: len(path)] for one in opened)
            if is_open and isinstance(value, dict):
                leaves += [([*path, name], member) for name, member in value.items()]
            elif not (is_open and value is None):
                row["_".join(path)] = value
        made.append(row or {"_".join(opened[-1 if explode else 0]): None})
    return made


@settings(deadline=None, max_examples=300)
@given(
    st.dictionaries(KEYS, NESTED, min_size=1, max_size=3),
    OPENED,
    st.none() | st.sampled_from(["a", "b.a", "a.b.c"]),
)
def test_flatten_and_explode_make_what_the_model_makes(record: Record, flatten: list[str], explode: str | None) -> None:
    shape = Shape(flatten=flatten, explode=explode)
    try:
        expected = modelled(record, flatten, explode)
    except SourceError:
        with pytest.raises(SourceError, match="leads through the list"):
            rows([record], shape)
        return
    assert [row for batch in shape.rows(Listed([record])) for row in batch] == expected


# How it is declared.


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"format": "xml"}, "'xml' is not 'json', 'ndjson' or 'csv'"),
        ({"numbers": "decimal"}, "'decimal' is not 'exact' or 'float'"),
        ({"format": "csv", "records": "rows"}, "a place in a JSON document"),
        ({"format": "csv", "explode": "rows"}, "nothing to flatten or explode"),
        ({"csv": Csv(";")}, "csv=… is for"),
        ({"flatten": "address"}, r"flatten is a list: \['address'\]"),
        ({"flatten": [""]}, "paths within a record"),
        ({"max_body": 0}, "numbers of bytes"),
        ({"in_memory": 33 * MEBIBYTE}, "no more than 33,554,432 bytes"),
    ],
)
def test_a_shape_that_contradicts_itself_is_a_config_error(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Shape(**settings)


def test_an_extract_takes_its_records_from_either_place_but_not_from_both() -> None:
    flat = Shape(flatten=["a"])
    assert ApiExtract("shop", "orders", "rows", shape=flat).shaped == Shape("rows", flatten=["a"])
    assert ApiExtract("shop", "orders", shape=Shape("rows")).shaped == Shape("rows")
    with pytest.raises(ConfigError, match="declared twice"):
        ApiExtract("shop", "orders", "rows", shape=Shape("items"))


def test_an_extract_reads_pages_in_a_stream_and_finds_links_behind_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    script = {
        "/orders": [Reply({"rows": [ORDER, ORDER], "next_url": "/two"})],
        "/two": [Reply({"rows": [{**ORDER, "id": 2}], "next_url": None})],
    }
    with ScriptedServer(script) as server:
        monkeypatch.setenv("TIDEGATE_SHOP_URL", server.url)
        extract = ApiExtract("shop", "orders", "rows", NextUrl(), shape=Shape(explode="lines", in_memory=0))
        found = [row for batch in extract.batches(Window()) for row in batch.to_pylist()]
    assert [(row["id"], row["lines_sku"]) for row in found] == [(1, "a"), (1, "b")] * 2 + [(2, "a"), (2, "b")]
