"""Page strategies, walked over a real server."""

from collections.abc import Iterator

import pytest

from tasks.errors import SourceError
from tasks.extract.http.arrow import Record
from tasks.extract.http.client import HttpClient
from tasks.extract.http.page import Page
from tasks.extract.http.paginators import NextUrl, Paginator, SinglePage
from tasks.extract.http.request import Request
from tasks.extract.http.shapes import Shape
from tasks.extract.http.walk import Walk
from tests.scripted_server import Reply, Script, ScriptedServer


def pages(script: Script, paginator: Paginator, path: str = "rows") -> tuple[list[Page], list[str]]:
    with ScriptedServer(script) as server, HttpClient(server.url) as client:
        return list(pages_of(client, Shape(path), paginator)), server.targets


def pages_of(client: HttpClient, shape: Shape, paginator: Paginator) -> Iterator[Page]:
    first = paginator.first(Request(client.url("/readings")))
    return (visit.page for visit in Walk(client, shape, paginator).visits(first))


def records(page: Page) -> list[Record]:
    return [row for table in page.tables() for row in table.to_pylist()]


def linked(row: int, link: object) -> Reply:
    return Reply({"rows": [{"id": row}], "next_url": link})


def test_a_single_page_is_asked_for_once() -> None:
    found, targets = pages({"/readings": [linked(1, "/readings?page=2")]}, SinglePage())
    assert [records(page) for page in found] == [[{"id": 1}]]
    assert targets == ["/readings"]


@pytest.mark.parametrize("end", [None, ""])
def test_next_links_are_followed_to_the_end(end: str | None) -> None:
    script = {
        "/readings": [linked(1, "http://$HOST/readings?page=2")],
        "/readings?page=2": [linked(2, "/readings?page=3")],
        "/readings?page=3": [linked(3, "?page=4")],
        "/readings?page=4": [linked(4, "more/readings")],
        "/more/readings": [linked(5, end)],
    }
    found, targets = pages(script, NextUrl())
    assert [records(page)[0]["id"] for page in found] == [1, 2, 3, 4, 5]
    assert targets == list(script)


def test_a_relative_link_counts_from_where_a_redirect_led() -> None:
    script = {
        "/readings": [Reply(status=307, headers={"Location": "/v2/list"})],
        "/v2/list": [linked(1, "two")],
        "/v2/two": [linked(2, None)],
    }
    found, _ = pages(script, NextUrl())
    assert [records(page)[0]["id"] for page in found] == [1, 2]


def test_the_link_is_found_at_a_dotted_path() -> None:
    script = {
        "/readings": [Reply({"data": {"rows": [{"id": 1}]}, "links": {"next": "/two"}})],
        "/two": [Reply({"data": {"rows": []}, "links": {"next": None}})],
    }
    found, _ = pages(script, NextUrl("links.next"), "data.rows")
    assert [records(page) for page in found] == [[{"id": 1}], []]


def test_a_next_link_to_another_origin_is_refused_and_never_requested() -> None:
    with ScriptedServer({"/readings": [linked(2, None)]}) as elsewhere:
        with (
            ScriptedServer({"/readings": [linked(1, f"{elsewhere.url}/readings")]}) as server,
            HttpClient(server.url, headers={"Authorization": "Bearer stays-here"}) as client,
        ):
            walking = pages_of(client, Shape("rows"), NextUrl())
            assert records(next(walking)) == [{"id": 1}]
            with pytest.raises(SourceError, match="another origin") as caught:
                next(walking)
        assert server.seen[0].headers["authorization"] == "Bearer stays-here"
        assert elsewhere.seen == []
    assert elsewhere.url in str(caught.value)


@pytest.mark.parametrize("link", ["https://127.0.0.1/readings", "//localhost/readings", "ftp://127.0.0.1/readings"])
def test_another_scheme_or_host_is_another_origin(link: str) -> None:
    with pytest.raises(SourceError, match="another origin"):
        pages({"/readings": [linked(1, link)]}, NextUrl())


def test_a_user_in_a_next_link_is_not_sent() -> None:
    script = {"/readings": [linked(1, "http://ann:other@$HOST/two")], "/two": [linked(2, None)]}
    with ScriptedServer(script) as server, HttpClient(server.url) as client:
        assert len(list(pages_of(client, Shape("rows"), NextUrl()))) == 2
    assert "authorization" not in server.seen[1].headers


def test_a_circle_of_links_is_refused_before_a_page_comes_twice() -> None:
    script = {
        "/readings": [linked(1, "/readings?page=2")],
        "/readings?page=2": [linked(2, "/readings?page=3")],
        "/readings?page=3": [linked(3, "/readings?page=2")],
    }
    with ScriptedServer(script) as server, HttpClient(server.url) as client:
        with pytest.raises(SourceError, match="in a circle") as caught:
            list(pages_of(client, Shape("rows"), NextUrl()))
        assert server.targets == list(script)
    assert "page=2" in str(caught.value)


def test_a_missing_link_is_an_error_unless_it_is_optional() -> None:
    script = {"/readings": [Reply({"rows": [], "next": None})]}
    with pytest.raises(SourceError, match=r"no 'next_url'.*the keys 'rows', 'next'.*optional=True"):
        pages(script, NextUrl())
    assert len(pages(script, NextUrl(optional=True))[0]) == 1


@pytest.mark.parametrize(("link", "what"), [(7, "a number"), ({"a": 1}, "an object"), ("http://h:x/", "not a URL")])
def test_a_link_that_is_no_url_is_refused(link: object, what: str) -> None:
    with pytest.raises(SourceError, match=what):
        pages({"/readings": [linked(1, link)]}, NextUrl())


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ({"items": []}, "where 'rows' should be there is an object with the keys 'items'"),
        ({"rows": {"a": 1}}, "but that is an object with the keys 'a'"),
        ({"rows": None}, "but that is null"),
        ({"rows": [{"id": 1}, ["x"]]}, "Record 1 in 'rows' .* is a list of 1"),
        ([1], "where 'rows' should be there is a list of 1"),
    ],
)
def test_records_that_are_not_a_list_of_objects_are_refused_with_what_was_there(body: object, what: str) -> None:
    with pytest.raises(SourceError, match=what):
        pages({"/readings": [Reply(body)]}, SinglePage())


def test_a_page_is_requested_only_when_it_is_asked_for() -> None:
    script = {"/readings": [linked(1, "/two")], "/two": [linked(2, None)]}
    with ScriptedServer(script) as server, HttpClient(server.url) as client:
        walking = pages_of(client, Shape("rows"), NextUrl())
        assert server.targets == []
        next(walking)
        assert server.targets == ["/readings"]
