"""`Bearer`, `ApiKey` and `Basic` against real servers that check what they are sent."""

import base64
import logging
import pickle
import traceback
from collections.abc import Callable

import httpx
import pytest

from tasks.errors import ConfigError, SourceError, SourceUnavailable, TidegateError
from tasks.extract.http.auth.credentials import ApiKey, Basic, Bearer
from tasks.extract.http.client import HttpClient
from tasks.extract.http.pace.retry import Retry
from tasks.extract.http.pages.paginators import NextUrl
from tasks.extract.http.pages.walk import Walk
from tasks.extract.http.request import Request
from tasks.extract.http.shapes.shape import Shape
from tasks.secret import Secret
from tests.scripted_server import Reply, Script, ScriptedServer, Seen

PATH = "/readings"
GOOD = Reply({"rows": [1]})
# Written in other ways in a URL, in a form, in JSON and in base64; no name tells that it is a secret.
AWKWARD = 'q7/W z+&=%"ü'


def guarded(accepts: Callable[[Seen], bool]) -> Script:
    """A server that knows whom it answers."""
    return {PATH: [lambda seen: GOOD if accepts(seen) else Reply(b"who are you?", 401)]}


def ask(server: ScriptedServer, auth: httpx.Auth, path: str = PATH) -> object:
    with HttpClient(server.url, auth=auth, retry=Retry(attempts=1)) as client:
        return client.get_json(path).body


@pytest.mark.parametrize(
    ("auth", "accepts"),
    [
        (Bearer(Secret("api_key")), lambda seen: seen.headers.get("authorization") == "Bearer right-one-7"),
        (Bearer(Secret("api_key"), "Token"), lambda seen: seen.headers.get("authorization") == "Token right-one-7"),
        (ApiKey(Secret("api_key")), lambda seen: seen.headers.get("x-api-key") == "right-one-7"),
        (ApiKey(Secret("api_key"), header="Key"), lambda seen: seen.headers.get("key") == "right-one-7"),
        (ApiKey(Secret("api_key"), query="k"), lambda seen: seen.target == f"{PATH}?k=right-one-7"),
        (
            Basic("ann", Secret("api_key")),
            lambda seen: seen.headers.get("authorization") == f"Basic {base64.b64encode(b'ann:right-one-7').decode()}",
        ),
    ],
    ids=["bearer", "another scheme", "key in X-API-Key", "key in another header", "key in the query", "basic"],
)
def test_the_right_credentials_are_accepted_and_wrong_ones_are_a_source_error_without_them(
    monkeypatch: pytest.MonkeyPatch, auth: httpx.Auth, accepts: Callable[[Seen], bool]
) -> None:
    with ScriptedServer(guarded(accepts)) as server:
        monkeypatch.setenv("TIDEGATE_SECRET_API_KEY", "right-one-7")
        assert ask(server, auth) == {"rows": [1]}
        monkeypatch.setenv("TIDEGATE_SECRET_API_KEY", "wrong-one-8")
        with pytest.raises(SourceError, match="401") as caught:
            ask(server, auth)
    assert "wrong-one" not in "".join(traceback.format_exception(caught.value))


def test_a_declaration_asks_for_no_secret_and_shows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a module that declares it can be imported anywhere; and it can be compared, hashed and sent elsewhere."""
    monkeypatch.delenv("TIDEGATE_SECRET_NOT_SET", raising=False)
    for auth in (Bearer(Secret("not_set")), ApiKey(Secret("not_set"), query="k"), Basic("ann", Secret("not_set"))):
        assert "Secret('not_set')" in repr(auth)
        assert pickle.loads(pickle.dumps(auth)) == auth
        assert hash(auth) == hash(pickle.loads(pickle.dumps(auth)))


def test_a_missing_secret_fails_before_anything_is_sent_and_names_both_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIDEGATE_SECRET_NOT_SET", raising=False)
    with ScriptedServer({PATH: [GOOD]}) as server:
        with pytest.raises(ConfigError, match="TIDEGATE_SECRET_NOT_SET or the Prefect Secret block 'not-set'"):
            ask(server, Bearer(Secret("not_set")))
        assert server.seen == []


def test_user_and_password_are_sent_in_utf_8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_SECRET_API_KEY", "pä:ss-word")
    with ScriptedServer({PATH: [GOOD]}) as server:
        ask(server, Basic("änn", Secret("api_key")))
    assert base64.b64decode(server.seen[0].headers["authorization"].removeprefix("Basic ")).decode() == "änn:pä:ss-word"


def test_a_user_with_a_colon_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_SECRET_API_KEY", "pass-word")
    with ScriptedServer({PATH: [GOOD]}) as server, pytest.raises(ConfigError, match="colon"):
        ask(server, Basic("a:b", Secret("api_key")))


def test_a_key_in_a_header_and_in_the_query_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="Leave one of them out"):
        ApiKey(Secret("api_key"), header="X", query="k")


@pytest.mark.parametrize("value", ["se\ncret-7", "secret-7 ", "sécret-7", "secret-7\n"])
@pytest.mark.parametrize("auth", [Bearer(Secret("api_key")), ApiKey(Secret("api_key"))], ids=["bearer", "key"])
def test_a_secret_that_no_header_can_hold_is_a_config_error_that_does_not_quote_it(
    monkeypatch: pytest.MonkeyPatch, auth: httpx.Auth, value: str
) -> None:
    monkeypatch.setenv("TIDEGATE_SECRET_API_KEY", value)
    with ScriptedServer({PATH: [GOOD]}) as server:
        with pytest.raises(ConfigError, match="cannot be sent in the header") as caught:
            ask(server, auth)
        assert server.seen == []
    assert "cret-7" not in "".join(traceback.format_exception(caught.value))


def test_a_key_that_a_next_link_repeats_is_sent_once_and_the_rest_of_the_link_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TIDEGATE_SECRET_API_KEY", AWKWARD)
    script = {
        f"{PATH}?a=x%20y+z&k=q7%2FW%20z%2B%26%3D%25%22%C3%BC": [
            Reply({"rows": [{"id": 1}], "next_url": f"{PATH}?k=q7/W+z%2B%26%3D%25%22%C3%BC&after=1%2F2&a=x%20y+z"})
        ],
        f"{PATH}?after=1%2F2&a=x%20y+z&k=q7%2FW%20z%2B%26%3D%25%22%C3%BC": [Reply({"rows": [], "next_url": None})],
    }
    with (
        ScriptedServer(script) as server,
        HttpClient(server.url, auth=ApiKey(Secret("api_key"), query="k")) as client,
    ):
        list(Walk(client, Shape("rows"), NextUrl()).visits(Request(client.url(f"{PATH}?a=x%20y+z"))))
    assert server.targets == list(script)


FAILURES: dict[str, Script] = {
    "a 404 that echoes the URL": {PATH: [lambda seen: Reply(f"no {seen.target} here".encode(), 404)]},
    "a 500 that echoes the key": {PATH: [Reply({"key": AWKWARD, "text": AWKWARD}, 500)]},
    "no JSON": {PATH: [lambda seen: Reply(f"<a href='{seen.target}'>".encode())]},
    "no records": {PATH: [Reply({"other": AWKWARD})]},
    "no next link": {PATH: [Reply({"rows": []})]},
    "a redirect to another origin": {
        PATH: [lambda seen: Reply(status=302, headers={"Location": f"http://elsewhere.test{seen.target}"})]
    },
    "redirects without end": {PATH: [lambda seen: Reply(status=302, headers={"Location": seen.target})]},
    "a circle": {PATH: [lambda seen: Reply({"rows": [], "next_url": seen.target})]},
    "a next link to another origin": {
        PATH: [lambda seen: Reply({"rows": [], "next_url": f"http://elsewhere.test{seen.target}"})]
    },
    "a next link that is no URL": {PATH: [lambda seen: Reply({"rows": [], "next_url": f"http://[{seen.target}"})]},
    "a reset": {PATH: [Reply(fault="reset")]},
}


@pytest.mark.parametrize("script", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("name", ["k", "api_key"])
def test_a_key_in_the_query_shows_in_no_error_and_no_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, script: Script, name: str
) -> None:
    """The whole chain of errors with its traceback, and every log line of httpx and what is under it."""
    monkeypatch.setenv("TIDEGATE_SECRET_API_KEY", AWKWARD)
    with (
        caplog.at_level(logging.DEBUG),
        ScriptedServer(script) as server,
        HttpClient(server.url, auth=ApiKey(Secret("api_key"), query=name), retry=Retry(attempts=1)) as client,
        pytest.raises((SourceError, SourceUnavailable)) as caught,
    ):
        list(Walk(client, Shape("rows"), NextUrl()).visits(Request(client.url(PATH))))
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + caplog.text
    assert "receive_response_headers" in caplog.text
    assert "q7" not in shown


def test_a_session_cookie_shows_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.DEBUG),
        ScriptedServer({PATH: [Reply({}, headers={"Set-Cookie": "session=c-0815-x; Path=/"})]}) as server,
        HttpClient(server.url) as client,
    ):
        client.get_json(PATH)
    assert "Set-Cookie" in caplog.text
    assert "c-0815-x" not in caplog.text


def test_credentials_are_sent_to_no_other_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither after a redirect, nor by a next link, nor for a URL that a caller makes up."""
    monkeypatch.setenv("TIDEGATE_SECRET_API_KEY", "stays-here-7")
    for auth in (Bearer(Secret("api_key")), ApiKey(Secret("api_key"), query="k"), Basic("ann", Secret("api_key"))):
        with ScriptedServer({PATH: [GOOD]}) as elsewhere:
            away = elsewhere.url + PATH
            script: Script = {
                "/moved": [Reply(status=307, headers={"Location": away})],
                "/linked": [Reply({"rows": [], "next_url": away})],
            }
            with ScriptedServer(script) as server, HttpClient(server.url, auth=auth) as client:
                for path in ("/moved", "/linked"):
                    with pytest.raises(SourceError, match="another origin"):
                        list(Walk(client, Shape("rows"), NextUrl()).visits(Request(client.url(path))))
                with pytest.raises(TidegateError, match="not at the configured origin"):
                    client.get_json(away)
                assert len(server.seen) == 2
            assert elsewhere.seen == []
