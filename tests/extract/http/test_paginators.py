"""Page strategies, walked over a real server."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import httpx
import pytest

from tasks.errors import ConfigError, SourceError, SourceUnavailable
from tasks.extract.http.client import HttpClient
from tasks.extract.http.pages.numbered import Keyset, Numbered, Offset, PageNumber
from tasks.extract.http.pages.page import Page
from tasks.extract.http.pages.paginators import Cursor, CursorHeader, LinkHeader, NextUrl, Paginator, SinglePage
from tasks.extract.http.pages.walk import Walk
from tasks.extract.http.request import Request
from tasks.extract.http.shapes.arrow import Record
from tasks.extract.http.shapes.shape import Shape
from tests.paged_api import PagedApi
from tests.scripted_server import Reply, Script, ScriptedServer, Seen


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


# Every strategy, over one API that speaks them all.

STRATEGIES: dict[str, Paginator] = {
    "number": PageNumber(),
    "number, total": PageNumber(size=10, total="total"),
    "number, pages": PageNumber(pages="pages"),
    "number, short": PageNumber(size=10, size_param="limit", short_is_last=True),
    "offset": Offset(10),
    "offset, total": Offset(10, total="total"),
    "offset, short": Offset(10, short_is_last=True),
    "cursor": Cursor("next", "cursor"),
    "url": NextUrl("next"),
    "link": LinkHeader(),
    "header": CursorHeader("X-Next", "cursor"),
    "keyset": Keyset("id", "after"),
    "keyset, short": Keyset("id", "after", size=10, size_param="limit", short_is_last=True),
    "search": Cursor("next", "$.page.cursor"),
}


@dataclass
class Walked:
    ids: list[object]
    requests: list[Seen]


def walked(name: str, api: PagedApi, at_once: int = 1) -> Walked:
    path, paginator = name.partition(",")[0], STRATEGIES[name]
    with ScriptedServer(api) as server, HttpClient(server.url) as client:
        asked = Request(client.url(path), {"page": {"limit": api.size}} if path == "search" else None)
        visits = Walk(client, Shape("rows"), paginator, at_once).visits(paginator.first(asked))
        return Walked([row.get("id") for visit in visits for row in records(visit.page)], server.seen)


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 95, 100])
@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_brings_every_record_once_and_stops(name: str, count: int) -> None:
    done = walked(name, PagedApi([{"id": number} for number in range(count)]))
    assert done.ids == list(range(count))
    # An empty page is the end where nothing else tells it, and costs a request.
    assert len(done.requests) <= -(-count // 10) + 1


@pytest.mark.parametrize("at_once", [2, 7])
@pytest.mark.parametrize("count", [0, 9, 10, 95, 100])
@pytest.mark.parametrize("name", [name for name in STRATEGIES if isinstance(STRATEGIES[name], Numbered)])
def test_pages_asked_for_at_once_come_in_order_and_few_are_asked_for_in_vain(
    name: str, count: int, at_once: int
) -> None:
    done = walked(name, PagedApi([{"id": number} for number in range(count)]), at_once)
    assert done.ids == list(range(count))
    needed = max(-(-count // 10), 1)
    told = "total" in name or "pages" in name
    assert len(done.requests) <= needed + (0 if told else at_once)


@pytest.mark.parametrize("name", ["offset", "keyset", "number"])
def test_an_api_that_gives_fewer_than_asked_for_loses_no_record(name: str) -> None:
    assert walked(name, PagedApi([{"id": number} for number in range(30)], most=4)).ids == list(range(30))


@pytest.mark.parametrize(
    ("name", "at_once", "error"),
    [
        ("number, total", 1, "brought 4 records where at least 10 were left"),
        ("number, total", 3, "brought 4 records where at least 10 were left"),
        ("offset", 3, "brought 4 records where 10 were asked for"),
        ("offset, total", 3, "brought 4 records where 10 were asked for"),
    ],
)
def test_where_fewer_than_asked_for_would_leave_gaps_the_walk_ends_with_an_error(
    name: str, at_once: int, error: str
) -> None:
    with pytest.raises((SourceError, SourceUnavailable), match=error):
        walked(name, PagedApi([{"id": number} for number in range(30)], most=4), at_once)


def test_records_that_go_while_they_are_counted_make_another_attempt() -> None:
    api = PagedApi([{"id": number} for number in range(30)])

    def shrink(seen: Seen) -> Reply | None:
        if seen.params["offset"] == "20":
            del api.records[5:]
            return Reply({"rows": [], "total": 30})
        return None

    api.before = shrink
    with pytest.raises(SourceUnavailable, match="says total=30 and brought 0 records"):
        walked("offset, total", api)


@pytest.mark.parametrize("name", ["number", "number, short", "offset", "keyset"])
@pytest.mark.parametrize("at_once", [1, 3])
def test_an_api_that_ignores_the_page_is_noticed_at_the_second_one(name: str, at_once: int) -> None:
    with pytest.raises(SourceError, match="the very records of the page before"):
        walked(name, PagedApi([], before=lambda _: Reply({"rows": [{"id": n} for n in range(10)]})), at_once)


def test_a_token_that_comes_twice_is_a_circle() -> None:
    answers = iter(range(100))
    same = PagedApi([], before=lambda _: Reply({"rows": [{"id": next(answers)}], "next": "again"}))
    with pytest.raises(SourceError, match="in a circle"):
        walked("cursor", same)


@pytest.mark.parametrize(
    ("name", "told", "error"),
    [
        ("cursor", {"rows": []}, "no 'next'"),
        ("cursor", {"rows": [], "next": {"a": 1}}, "cursor 'next' .* is an object"),
        ("number, total", {"rows": [], "total": "many"}, "says a text in 'total', where a count"),
        ("number, pages", {"rows": [], "pages": True}, "says true in 'pages', where a count"),
        ("keyset", {"rows": [{"name": "ann"}]}, "has null in 'id', which leads to no next page"),
    ],
)
def test_an_answer_that_does_not_tell_how_to_go_on_is_an_error_and_not_the_end(
    name: str, told: object, error: str
) -> None:
    with pytest.raises(SourceError, match=error):
        walked(name, PagedApi([], before=lambda _: Reply(told)))


def test_a_link_header_to_another_origin_is_refused() -> None:
    leads_away = PagedApi([], before=lambda _: Reply({"rows": []}, headers={"Link": '<http://[::1]:1/x>; rel="next"'}))
    with pytest.raises(SourceError, match="another origin"):
        walked("link", leads_away)


def test_a_place_in_the_body_is_made_and_the_declared_body_left_as_it_is() -> None:
    body = {"filter": {"kind": "a"}}
    request = Request(httpx.URL("http://source.test/search"), body).having("$.page.cursor", "x").having("limit", 5)
    assert request.body == {"filter": {"kind": "a"}, "page": {"cursor": "x"}}
    assert request.value("$.page.cursor") == "x" and request.value("limit") == "5"
    assert body == {"filter": {"kind": "a"}}
    for wrong in (Request(request.url), replace(request, body={"page": 1})):
        with pytest.raises(ConfigError, match=r"\$\.page\.cursor"):
            wrong.having("$.page.cursor", "y")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: PageNumber(total="total"),
        lambda: PageNumber(short_is_last=True),
        lambda: PageNumber(size_param="limit"),
        lambda: Offset(0),
        lambda: Keyset("id", "after", short_is_last=True),
    ],
)
def test_a_strategy_that_contradicts_itself_is_a_config_error(wrong: Callable[[], Paginator]) -> None:
    with pytest.raises(ConfigError, match="size"):
        wrong()
