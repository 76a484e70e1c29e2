"""`HttpClient` against a real server that plays faults."""

import gzip
import logging
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import httpx
import pytest
import respx

from tasks.errors import ConfigError, SourceError, SourceUnavailable
from tasks.extract.http.client import HttpClient
from tasks.extract.http.pace.retry import Retry
from tests.scripted_server import Reply, Script, ScriptedServer

GOOD = Reply({"rows": [1]})
PATH = "/readings"


class Waits(list[float]):
    """Stands in for sleeping: notes the seconds and goes on."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def ask(script: Script, waits: Waits | None = None, **client_args: object) -> tuple[object, ScriptedServer]:
    with ScriptedServer(script) as server, client_for(server, waits, **client_args) as client:
        return client.get_json(PATH).body, server


def client_for(server: ScriptedServer, waits: Waits | None = None, **client_args: object) -> HttpClient:
    slept = Waits() if waits is None else waits
    return HttpClient(server.url, sleep=slept, moment=lambda: sum(slept), **client_args)  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 501, 502, 503, 504])
def test_a_status_that_may_pass_is_asked_again(status: int) -> None:
    waits = Waits()
    body, server = ask({PATH: [Reply(status=status), Reply(status=status), GOOD]}, waits)
    assert body == {"rows": [1]}
    assert server.targets == [PATH] * 3
    assert len(waits) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 410, 418, 422, 451])
def test_any_other_4xx_fails_at_once(status: int) -> None:
    waits = Waits()
    with ScriptedServer({PATH: [Reply(b"no", status), GOOD]}) as server, client_for(server, waits) as client:
        with pytest.raises(SourceError, match=str(status)):
            client.get_json(PATH)
        assert server.targets == [PATH]
    assert waits == []


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(Reply({"rows": [1]}, fault="short body"), id="fewer bytes than its Content-Length"),
        pytest.param(Reply({"rows": [1]}, fault="cut chunk"), id="cut inside a chunk"),
        pytest.param(Reply(fault="reset"), id="connection reset"),
        pytest.param(Reply(gzip.compress(b'{"rows": [1]}')[:15], headers={"Content-Encoding": "gzip"}), id="cut gzip"),
        pytest.param(Reply(b"\x1f\x8bnot gzip", headers={"Content-Encoding": "gzip"}), id="broken gzip"),
    ],
)
def test_an_answer_that_breaks_off_is_asked_again(broken: Reply) -> None:
    body, server = ask({PATH: [broken, GOOD]})
    assert body == {"rows": [1]}
    assert len(server.seen) == 2


WHOLE = b'{"rows": [{"name": "a \\u00e9 b \xc3\xa9", "x": -1.5e-3, "y": [true, false, null, "\\\\"]}]}'


@pytest.mark.parametrize("length", range(len(WHOLE)))
def test_json_cut_anywhere_is_asked_again(length: int) -> None:
    """The HTTP message is whole, so that only the JSON can tell."""
    with respx.mock(base_url="http://source.test") as routes, HttpClient("http://source.test", sleep=Waits()) as client:
        route = routes.get(PATH).mock(
            side_effect=[httpx.Response(200, content=WHOLE[:length]), httpx.Response(200, content=WHOLE)]
        )
        assert client.get_json(PATH).at("rows.0.x") == Decimal("-1.5e-3")
        assert route.call_count == 2


@pytest.mark.parametrize(
    "body",
    [
        b"<!DOCTYPE html><title>Sign in</title>",
        b'{"a": NONE}',
        b'{"a": 1} {"b": 2}',
        b"{'a': 1}",
        b'{"a": "\xff\xfe"}',
        b"[" * 100_000,
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
    ids=[
        "a page",
        "a wrong literal",
        "two documents",
        "single quotes",
        "no UTF-8",
        "endless nesting",
        "endless digits",
    ],
)
def test_a_whole_body_that_is_no_json_fails_at_once(body: bytes) -> None:
    with ScriptedServer({PATH: [Reply(body), GOOD]}) as server, client_for(server) as client:
        with pytest.raises(SourceError, match="is not JSON"):
            client.get_json(PATH)
        assert len(server.seen) == 1


def test_a_byte_order_mark_and_a_declared_charset_are_read() -> None:
    assert ask({PATH: [Reply(b'\xef\xbb\xbf{"a": 1}')]})[0] == {"a": 1}
    latin = Reply('{"a": "é"}'.encode("latin-1"), headers={"Content-Type": "application/json; charset=iso-8859-1"})
    assert ask({PATH: [latin]})[0] == {"a": "é"}


def test_a_source_that_refuses_connections_and_then_comes_up_is_read() -> None:
    with ScriptedServer({PATH: [GOOD]}, up=False) as server:
        waits: list[float] = []

        def start_on_the_second_wait(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 2:
                server.start()

        with HttpClient(server.url, sleep=start_on_the_second_wait) as client:
            assert client.get_json(PATH).body == {"rows": [1]}
        assert len(waits) == 2


def test_a_silent_source_is_given_up_after_the_timeout_and_asked_again() -> None:
    body, server = ask({PATH: [Reply(fault="silence"), GOOD]}, timeout=timedelta(seconds=0.5))
    assert body == {"rows": [1]}
    assert len(server.seen) == 2


def test_every_timeout_is_set_by_default() -> None:
    with HttpClient("http://source.test") as client:
        assert client._client.timeout == httpx.Timeout(connect=10, read=60, write=60, pool=60)


def test_waits_are_drawn_from_zero_to_a_doubling_limit() -> None:
    retry = Retry(attempts=8, first=timedelta(seconds=1), longest=timedelta(seconds=10))
    drawn = []
    for _ in range(40):
        waits = Waits()
        with (
            respx.mock(base_url="http://source.test") as routes,
            HttpClient("http://source.test", sleep=waits, retry=retry) as client,
        ):
            routes.get(PATH).respond(503)
            with pytest.raises(SourceUnavailable):
                client.get_json(PATH)
        drawn.append(list(waits))
    limits = [1, 2, 4, 8, 10, 10, 10]
    for limit, column in zip(limits, zip(*drawn, strict=True), strict=True):
        assert 0 <= min(column) < limit / 3
        assert limit * 2 / 3 < max(column) <= limit


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        (
            {
                "Retry-After": "Tue, 08 Jan 2013 06:00:07 GMT",
                "Date": "Tue, 08 Jan 2013 06:00:00 GMT",
            },
            7,
        ),
        ({"Retry-After": "Tue, 08 Jan 2013 06:00:07 GMT"}, 12),
    ],
    ids=["seconds", "date relative to the source's Date", "date relative to this machine without one"],
)
def test_retry_after_is_the_least_that_is_waited(headers: dict[str, str], seconds: float) -> None:
    waits = Waits()
    body, _ = ask(
        {PATH: [Reply(status=429, headers=headers), GOOD]},
        waits,
        clock=lambda: datetime(2013, 1, 8, 5, 59, 55, tzinfo=UTC),
    )
    assert body == {"rows": [1]}
    assert waits == [seconds]


@pytest.mark.parametrize("text", ["0", "Tue, 08 Jan 2013 05:00:00 GMT", "soon", "-3", "", "Tue, 99 Jan 2013"])
def test_a_retry_after_of_nothing_leaves_the_jitter(text: str) -> None:
    waits = Waits()
    reply = Reply(status=503, headers={"Retry-After": text, "Date": "Tue, 08 Jan 2013 06:00:00 GMT"})
    body, _ = ask({PATH: [reply, GOOD]}, waits)
    assert body == {"rows": [1]}
    assert 0 <= waits[0] <= 1


def test_a_retry_after_beyond_the_budget_fails_without_waiting() -> None:
    waits = Waits()
    with ScriptedServer({PATH: [Reply(status=429, headers={"Retry-After": "3600"}), GOOD]}) as server:
        with client_for(server, waits) as client, pytest.raises(SourceUnavailable) as caught:
            client.get_json(PATH)
        assert len(server.seen) == 1
    assert waits == []
    assert "asks to wait 3600 s" in str(caught.value)
    assert "300 s are left of the 300 s" in str(caught.value)
    assert "Retry(budget=" in str(caught.value)


def test_the_budget_counts_all_waits_of_a_request() -> None:
    waits = Waits()
    retry = Retry(attempts=10, first=timedelta(0), budget=timedelta(seconds=25))
    with (
        ScriptedServer({PATH: [Reply(status=429, headers={"Retry-After": "10"})]}) as server,
        client_for(server, waits, retry=retry) as client,
        pytest.raises(SourceUnavailable, match="5 s are left of the 25 s"),
    ):
        client.get_json(PATH)
    assert waits == [10, 10]


def test_exhausted_attempts_name_the_url_the_cause_the_attempts_and_the_remedy() -> None:
    waits = Waits()
    with ScriptedServer({PATH: [Reply(b"down for repairs", 503)]}) as server:
        with client_for(server, waits, retry=Retry(attempts=3)) as client, pytest.raises(SourceUnavailable) as caught:
            client.get_json(PATH)
        assert len(server.seen) == 3
    for part in (f"{server.url}/readings", "503 Service Unavailable", "down for repairs", "failed 3 times", "Retry("):
        assert part in str(caught.value)
    assert len(waits) == 2


def test_an_unreachable_source_keeps_the_foreign_error_as_cause() -> None:
    with (
        ScriptedServer({}, up=False) as server,
        client_for(server, retry=Retry(attempts=2)) as client,
        pytest.raises(SourceUnavailable, match="ConnectError") as caught,
    ):
        client.get_json(PATH)
    assert isinstance(caught.value.__cause__, httpx.ConnectError)


def test_a_404_quotes_500_characters_of_the_response_and_no_secret() -> None:
    secret = "tkn-5f1c0a77"
    # The secret straddles the 500th character: cutting before masking would leave its first half.
    reply = Reply(b"x" * 494 + secret.encode() + b"y" * 900, 404)
    with (
        ScriptedServer({PATH: [reply]}) as server,
        client_for(server, headers={"X-Api-Key": secret}) as client,
        pytest.raises(SourceError) as caught,
    ):
        client.get_json(PATH, {"limit": 5, "access_token": "abcd-efgh"})
    text = str(caught.value)
    assert server.seen[0].headers["x-api-key"] == secret
    assert f"GET {server.url}/readings?limit=5&access_token=***" in text
    assert "404" in text
    assert "x" * 494 + "***yyy'" in text
    assert "y" * 4 not in text
    assert "tkn" not in text and "abcd" not in text


def test_a_response_that_echoes_the_credentials_is_masked() -> None:
    password = "p4ss:w0rd@home"
    with ScriptedServer({PATH: [Reply(f"no {password} no".encode(), 401)]}) as server:
        base = server.url.replace("http://", f"http://ann:{password.replace(':', '%3A').replace('@', '%40')}@")
        with HttpClient(base, sleep=Waits()) as client:
            assert "p4ss" not in repr(client) and "ann" not in repr(client)
            with pytest.raises(SourceError) as caught:
                client.get_json(PATH)
    assert server.seen[0].headers["authorization"].startswith("Basic ")
    assert "p4ss" not in str(caught.value) and "w0rd" not in str(caught.value)
    assert "no *** no" in str(caught.value)


def test_a_response_that_echoes_a_token_of_the_url_or_a_configured_cookie_is_masked() -> None:
    with (
        ScriptedServer({PATH: [Reply(b"bad token u-4711-x or cookie session=c-0815", 403)]}) as server,
        client_for(server, headers={"Cookie": "session=c-0815"}) as client,
        pytest.raises(SourceError, match=r"bad token \*\*\* or cookie \*\*\*'"),
    ):
        client.get_json(PATH, {"token": "u-4711-x"})
    assert server.seen[0].headers["cookie"] == "session=c-0815"


def test_what_an_auth_adds_is_masked_too() -> None:
    class Bearer(httpx.Auth):
        def auth_flow(self, request: httpx.Request):  # type: ignore[no-untyped-def]
            request.headers["Authorization"] = "Bearer quite-secret-9"
            yield request

    with (
        ScriptedServer({PATH: [Reply(b"unknown: quite-secret-9", 403)]}) as server,
        client_for(server, auth=Bearer()) as client,
        pytest.raises(SourceError) as caught,
    ):
        client.get_json(PATH)
    assert server.seen[0].headers["authorization"] == "Bearer quite-secret-9"
    assert "quite-secret" not in str(caught.value)


def test_the_log_of_a_request_holds_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, "httpx"),
        ScriptedServer({PATH: [GOOD]}) as server,
        client_for(server) as client,
    ):
        client.get_json(PATH, {"api_key": "hidden-4711", "limit": 3})
    assert "limit=3" in caplog.text
    assert "hidden-4711" not in caplog.text


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_within_the_origin_is_followed_with_credentials(status: int) -> None:
    script = {PATH: [Reply(status=status, headers={"Location": "/v2/readings?a=1"})], "/v2/readings": [GOOD]}
    with ScriptedServer(script) as server, client_for(server, headers={"Authorization": "Bearer stays-here"}) as client:
        answer = client.get_json(PATH)
        assert answer.body == {"rows": [1]}
        assert str(answer.url) == f"{server.url}/v2/readings?a=1"
    assert [seen.headers["authorization"] for seen in server.seen] == ["Bearer stays-here"] * 2


def test_a_redirect_to_another_origin_is_refused_and_never_requested() -> None:
    with ScriptedServer({PATH: [GOOD]}) as elsewhere:
        moved = Reply(status=302, headers={"Location": elsewhere.url + PATH})
        with (
            ScriptedServer({PATH: [moved]}) as server,
            client_for(server, headers={"Authorization": "Bearer stays-here"}) as client,
            pytest.raises(SourceError, match="another origin") as caught,
        ):
            client.get_json(PATH)
        assert elsewhere.seen == []
    assert elsewhere.url in str(caught.value)
    assert "point the connection's URL at it" in str(caught.value)


def test_a_user_in_a_redirect_is_not_sent() -> None:
    script = {PATH: [Reply(status=302, headers={"Location": "http://ann:other@$HOST/two"})], "/two": [GOOD]}
    body, server = ask(script)
    assert body == {"rows": [1]}
    assert "authorization" not in server.seen[1].headers


def test_redirects_without_end_are_refused() -> None:
    with (
        ScriptedServer({PATH: [Reply(status=302, headers={"Location": PATH})]}) as server,
        client_for(server) as client,
        pytest.raises(SourceError, match="more than 10 times"),
    ):
        client.get_json(PATH)
    assert len(server.seen) == 11


def test_a_url_at_another_origin_is_refused_and_never_requested() -> None:
    with ScriptedServer({PATH: [GOOD]}) as elsewhere, HttpClient("http://127.0.0.1:9") as client:
        with pytest.raises(SourceError, match="not at the configured origin"):
            client.get_json(elsewhere.url + PATH)
        assert elsewhere.seen == []


@pytest.mark.parametrize(
    ("base", "path", "params", "url"),
    [
        ("https://h", "rows", {}, "https://h/rows"),
        ("https://h/v1/", "/rows", {}, "https://h/v1/rows"),
        ("https://h/v1", "rows?a=1", {"b": 2}, "https://h/v1/rows?a=1&b=2"),
        ("https://h/v1", "rows?a=1&c=3", {"a": 2}, "https://h/v1/rows?a=2&c=3"),
        ("https://h:8443", "//elsewhere.test/rows", {}, "https://h:8443/elsewhere.test/rows"),
        ("https://h", "db:x/rows", {}, "https://h/db:x/rows"),
    ],
)
def test_a_path_is_joined_below_the_base_url(base: str, path: str, params: dict[str, str], url: str) -> None:
    with HttpClient(base) as client:
        assert str(client.url(path, params)) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host/path",
        "ftp://host",
        "postgresql://u:pa55word@host/db",
        "https://",
        "http://u:pa:55@word@h:x",
        "http://h?a=1",
    ],
)
def test_a_base_url_that_is_none_is_a_config_error_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match=r"https://host/path") as caught:
        HttpClient(url)
    assert "55" not in str(caught.value)
    assert caught.value.__cause__ is None and (caught.value.__suppress_context__ or caught.value.__context__ is None)


@pytest.mark.parametrize("value", ["se\ncret-7", "sécret-7"], ids=["a line break", "beyond ASCII"])
def test_a_header_that_cannot_be_sent_is_a_config_error_that_does_not_quote_it(value: str) -> None:
    with (
        ScriptedServer({PATH: [GOOD]}) as server,
        pytest.raises(ConfigError) as caught,
        client_for(server, headers={"X-Key": value}) as client,
    ):
        client.get_json(PATH)
    assert "cret-7" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_path_into_the_body_takes_keys_indexes_and_keys_with_dots() -> None:
    body = {"a": {"b": [{"c": 1}, {"c": 2}], "@odata.nextLink": "n"}, "": 3}
    with ScriptedServer({PATH: [Reply(body)]}) as server, client_for(server) as client:
        answer = client.get_json(PATH)
    assert answer.at("") == body
    assert answer.at("a.b.1.c") == 2
    assert answer.at("a.b.-2.c") == 1
    assert answer.at("a.@odata.nextLink") == "n"
    assert answer.at("a.x.c", None) is None
    with pytest.raises(SourceError, match=r"no 'a\.x\.c': where 'x' should be there is an object with the keys 'b'"):
        answer.at("a.x.c")
    with pytest.raises(SourceError, match=r"where '2' should be there is a list of 2"):
        answer.at("a.b.2")


def test_a_retry_of_no_attempts_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="attempts=0"):
        Retry(attempts=0)


def test_no_cookie_is_kept_since_the_next_request_may_be_for_another_server() -> None:
    cookie = {"Set-Cookie": "session=abcd-efgh; Path=/"}
    with ScriptedServer({PATH: [Reply({"rows": []}, headers=cookie)]}) as server, HttpClient(server.url) as client:
        client.get_json(PATH)
        client.get_json(PATH)
    assert all("cookie" not in seen.headers for seen in server.seen)
