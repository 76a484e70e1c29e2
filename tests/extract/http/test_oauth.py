"""OAuth's client credentials, and what every token has in common, against real authorisation servers."""

import pickle
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, quote_plus

import httpx
import pytest

from tasks.errors import ConfigError, SourceError, SourceUnavailable, TidegateError
from tasks.extract.api import ApiExtract
from tasks.extract.http.auth.oauth import ClientCredentials
from tasks.extract.http.client import HttpClient
from tasks.extract.http.pace.retry import Retry
from tasks.extract.http.pages.paginators import NextUrl
from tasks.extract.http.pages.walk import Walk
from tasks.extract.http.request import Request
from tasks.extract.http.shapes.shape import Shape
from tasks.secret import Secret
from tasks.window import Window
from tests.extract.http.conftest import Clock
from tests.scripted_server import Reply, ScriptedServer, Seen
from tests.servers.tokens import TokenSite

HUSH = "hush: häsh/4711&="
PATH = "/readings"
GOOD = Reply({"rows": [1]})
TOKEN = Reply({"access_token": "granted-token-1", "token_type": "Bearer", "expires_in": 3600})
ROWS = [{"id": 1}, {"id": 2}, {"id": 3}]


@pytest.fixture(autouse=True)
def _hush(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_SECRET_HUSH", HUSH)


def credentials(token_url: str, client_id: str = "etl", **more: Any) -> ClientCredentials:
    return ClientCredentials(token_url, client_id, Secret("hush"), **more)


def ask(url: str, auth: httpx.Auth, path: str = PATH, **client_args: Any) -> object:
    with HttpClient(url, auth=auth, **{"sleep": lambda seconds: None, **client_args}) as client:
        return client.get_json(path).body


def token_requests(site: TokenSite) -> int:
    return len(site.seen("/token"))


@pytest.mark.parametrize("in_body", [False, True], ids=["basic", "in the body"])
def test_a_client_exchanges_its_credentials_for_a_token_that_the_api_accepts(
    token_site: TokenSite, in_body: bool
) -> None:
    client = token_site.client(HUSH)
    auth = credentials(token_site.token_url, client, scope="read", in_body=in_body)
    assert ask(token_site.url, auth, "items") == {"rows": [{"id": 1}], "next_url": "/items?page=2"}
    assert ("authorization" in token_site.seen("/token")[-1]) is not in_body


@pytest.mark.parametrize("in_body", [False, True], ids=["basic", "in the body"])
def test_a_wrong_client_secret_is_a_source_error_that_names_the_endpoint_the_code_and_the_remedy_and_no_secret(
    token_site: TokenSite, in_body: bool
) -> None:
    client = token_site.client("another one")
    before = token_requests(token_site)
    with pytest.raises(SourceError) as caught:
        ask(token_site.url, credentials(token_site.token_url, client, in_body=in_body), "items")
    for part in (f"{token_site.token_url} refused", "401", "invalid_client", "TIDEGATE_SECRET_HUSH", "'hush'"):
        assert part in str(caught.value)
    assert "4711" not in "".join(traceback.format_exception(caught.value))
    assert token_requests(token_site) == before + 1


def test_a_scope_that_is_not_granted_is_a_source_error_that_says_so(token_site: TokenSite) -> None:
    auth = credentials(token_site.token_url, token_site.client(HUSH), scope="everything")
    with pytest.raises(SourceError, match=r"400 Bad Request, invalid_scope\. Check scope="):
        ask(token_site.url, auth, "items")


def test_scope_and_audience_are_asked_for() -> None:
    with ScriptedServer({"/token": [TOKEN], PATH: [GOOD]}) as server:
        ask(server.url, credentials("/token", scope="read write", audience="https://api"))
    form = parse_qs(server.seen[0].body.decode())
    assert form == {"grant_type": ["client_credentials"], "scope": ["read write"], "audience": ["https://api"]}


def test_a_token_serves_every_client_of_a_declaration_until_it_is_about_to_expire(
    token_site: TokenSite, clock: Clock
) -> None:
    """It is good for an hour, and replaced a minute before that."""
    auth = credentials(token_site.token_url, token_site.client(HUSH), clock=clock)
    before = token_requests(token_site)
    for seconds, fetched in ((0, 1), (0, 1), (3600 - 62, 1), (3600 - 59, 2), (3600 - 59, 2)):
        clock.ahead = timedelta(seconds=seconds)
        ask(token_site.url, auth, "items")
        assert token_requests(token_site) == before + fetched


def test_how_long_ahead_can_be_declared(token_site: TokenSite, clock: Clock) -> None:
    auth = credentials(token_site.token_url, token_site.client(HUSH), clock=clock, ahead=timedelta(minutes=10))
    before = token_requests(token_site)
    for minutes, fetched in ((0, 1), (49, 1), (51, 2)):
        clock.ahead = timedelta(minutes=minutes)
        ask(token_site.url, auth, "items")
        assert token_requests(token_site) == before + fetched


@pytest.mark.parametrize(
    ("told", "seconds", "fetched"),
    [
        (30, 14, 1),
        (30, 16, 2),
        ("3600", 3000, 1),
        ("3600", 3550, 2),
        (None, 90_000, 1),
        ("soon", 90_000, 1),
        (0, 0, 2),
        (-5, 0, 2),
    ],
    ids=["short", "half of short", "text", "text", "not told", "not readable", "none", "negative"],
)
def test_a_lifetime_is_read_as_servers_write_it(clock: Clock, told: object, seconds: int, fetched: int) -> None:
    granted = {"access_token": "granted-token-1", "expires_in": told}
    with ScriptedServer({"/token": [Reply(granted)], PATH: [GOOD]}) as server:
        auth = credentials("/token", clock=clock)
        ask(server.url, auth)
        clock.ahead = timedelta(seconds=seconds)
        ask(server.url, auth)
    assert server.targets.count("/token") == fetched


class AnnouncedLock:
    """A lock that says, before it waits, that somebody has come."""

    def __init__(self) -> None:
        self.come = threading.Semaphore(0)
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self.come.release()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait_for(self, count: int) -> None:
        for _ in range(count):
            assert self.come.acquire(timeout=30)


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [(TOKEN, {"rows": [1]}), (Reply({"error": "invalid_client"}, 401), "SourceError")],
    ids=["granted", "refused"],
)
def test_of_eight_threads_one_asks_for_a_token_and_the_others_share_what_it_gets(reply: Reply, outcome: object) -> None:
    """The endpoint answers only when all eight have come: a refusal, too, is asked for once."""
    lock = AnnouncedLock()

    def when_all_have_come(_seen: Seen) -> Reply:
        lock.wait_for(8)
        return reply

    def one(_number: int) -> object:
        try:
            return ask(server.url, auth)
        except SourceError as error:
            assert "invalid_client" in str(error)
            return "SourceError"

    with ScriptedServer({"/token": [when_all_have_come, TOKEN], PATH: [GOOD]}) as server:
        auth = credentials("/token")
        auth._cells.at(httpx.URL(f"{server.url}/token")).lock = lock  # type: ignore[assignment]
        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(one, range(8))) == [outcome] * 8
    assert server.targets.count("/token") == 1


def test_a_token_from_a_path_goes_to_the_api_whose_path_it_is_and_to_no_other() -> None:
    with (
        ScriptedServer({"/token": [TOKEN], PATH: [GOOD]}) as one,
        ScriptedServer({"/token": [Reply({"access_token": "of-the-other"})], PATH: [GOOD]}) as other,
    ):
        auth = credentials("/token")
        for server in (one, other):
            ask(server.url, auth)
    assert one.seen[-1].headers["authorization"] == "Bearer granted-token-1"
    assert other.seen[-1].headers["authorization"] == "Bearer of-the-other"


def test_no_token_travels_with_a_declaration() -> None:
    with ScriptedServer({"/token": [TOKEN], PATH: [GOOD]}) as server:
        auth = credentials(f"{server.url}/token")
        ask(server.url, auth)
        for copy in (pickle.loads(pickle.dumps(auth)), deepcopy(auth), replace(auth)):
            assert copy == auth
            assert copy._cells.at(httpx.URL(auth.token_url)).token is None
        assert "granted-token" not in repr(auth) + repr(vars(auth)) + repr(
            auth._cells.at(httpx.URL(auth.token_url)).token
        )


def test_a_401_in_the_middle_of_a_walk_fetches_another_token_and_the_walk_goes_on(
    token_site: TokenSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_SITE_URL", token_site.url)
    client = token_site.client(HUSH)
    extract = ApiExtract("site", "items", "rows", NextUrl(), auth=credentials(token_site.token_url, client))
    before, pages = token_requests(token_site), token_site.seen("/items")
    rows = []
    for batch in batches(extract):
        rows += batch
        if len(rows) == 1:
            token_site.expire(client)
    assert rows == ROWS
    assert token_requests(token_site) == before + 2
    assert len(token_site.seen("/items")) == len(pages) + 4


def batches(extract: ApiExtract) -> Iterator[list[dict[str, object]]]:
    return (batch.to_pylist() for batch in extract.batches(Window()))


def test_a_second_401_is_an_error() -> None:
    with (
        ScriptedServer({"/token": [TOKEN], PATH: [Reply(b"no granted-token-1", 401)]}) as server,
        pytest.raises(SourceError, match=r"answered 401 Unauthorized: 'no \*\*\*'"),
    ):
        ask(server.url, credentials("/token"))
    assert server.targets == ["/token", PATH, "/token", PATH]


def test_threads_whose_token_is_rejected_fetch_one_new_token_between_them() -> None:
    """The one that comes second finds the new token of the first, and asks for none."""

    def granted(seen: Seen) -> Reply:
        return Reply({"access_token": "granted-token-2"})

    def judged(seen: Seen) -> Reply:
        if seen.headers["authorization"] == "Bearer granted-token-2":
            return GOOD
        both.wait()
        return Reply(status=401)

    both = threading.Barrier(2)
    with ScriptedServer({"/token": [TOKEN, granted], PATH: [judged], "/first": [GOOD]}) as server:
        auth = credentials("/token")
        ask(server.url, auth, "/first")
        with ThreadPoolExecutor(2) as threads:
            assert list(threads.map(lambda _: ask(server.url, auth), range(2))) == [{"rows": [1]}] * 2
    assert server.targets.count("/token") == 2


@pytest.mark.parametrize(
    "trouble",
    [
        Reply(status=503),
        Reply(status=500),
        Reply(status=429),
        Reply(fault="reset"),
        Reply({"access_token": "cut-off-token"}, fault="short body"),
        Reply(b'{"access_token": "cut-off-to'),
        Reply(fault="silence"),
    ],
    ids=["503", "500", "429", "reset", "short body", "cut JSON", "silence"],
)
def test_a_token_endpoint_in_trouble_is_asked_again_by_the_clients_own_retry(trouble: Reply) -> None:
    with ScriptedServer({"/token": [trouble, TOKEN], PATH: [GOOD]}) as server:
        body = ask(server.url, credentials("/token"), timeout=timedelta(seconds=0.5))
    assert body == {"rows": [1]}
    assert server.targets == ["/token", "/token", PATH]


def test_what_a_token_endpoint_asks_to_wait_is_waited() -> None:
    waits: list[float] = []
    with ScriptedServer({"/token": [Reply(status=429, headers={"Retry-After": "7"}), TOKEN], PATH: [GOOD]}) as server:
        ask(server.url, credentials("/token"), sleep=waits.append, moment=lambda: sum(waits))
    assert waits == [7]


@pytest.mark.parametrize("up", [True, False], ids=["500", "down"])
def test_a_token_endpoint_that_stays_in_trouble_is_named(up: bool) -> None:
    with (
        ScriptedServer({"/token": [Reply(b"oops", 500)]}, up=up) as login,
        ScriptedServer({PATH: [GOOD]}) as api,
    ):
        with pytest.raises(SourceUnavailable, match="failed 2 times") as caught:
            ask(api.url, credentials(f"{login.url}/token"), retry=Retry(attempts=2))
        assert api.seen == []
    assert f"{login.url}/token" in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_of_the_token_endpoint_is_refused_and_never_requested(status: int) -> None:
    with ScriptedServer({"/token": [TOKEN]}) as elsewhere:
        moved = Reply(status=status, headers={"Location": f"{elsewhere.url}/token"})
        with ScriptedServer({"/token": [moved], PATH: [GOOD]}) as server:
            with pytest.raises(SourceError, match="not followed") as caught:
                ask(server.url, credentials("/token"))
            assert server.targets == ["/token"]
        assert elsewhere.seen == []
    assert f"moved to {elsewhere.url}/token, declare that URL" in str(caught.value)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(b"<p>granted-token-9</p>"), "is not JSON"),
        (Reply(b'"granted-token-9"'), "granted no access_token"),
        (Reply(["granted-token-9"]), "but answered a list of 1"),
        (Reply({"token": "granted-token-9"}), "but answered an object with the keys 'token'"),
        (Reply({"access_token": {"value": "granted-token-9"}}), "granted no access_token"),
        (Reply({"access_token": "granted-token-9", "token_type": "mac"}), "another type than Bearer"),
        (Reply({"access_token": "granted-token-9\n"}), "cannot be sent in the header"),
        (Reply({"access_token": "granted-token-9\ud800"}), "cannot be sent in the header"),
        (Reply({"error": "invalid_grant", "error_description": "granted-token-9"}), "200 OK, invalid_grant"),
        (Reply({"error": "granted-token-9 is wrong"}, 400), "refused: 400 Bad Request. Check client_id"),
        (Reply(b"granted-token-9", 403), "refused: 403 Forbidden. Check client_id"),
        (Reply(b"granted-token-9", 404), "and the token URL"),
        (Reply({"error": ["granted-token-9"]}, 400), "refused: 400 Bad Request. Check client_id"),
    ],
)
def test_an_answer_that_grants_nothing_of_use_is_an_error_that_quotes_nothing_of_it(reply: Reply, message: str) -> None:
    with ScriptedServer({"/token": [reply], PATH: [GOOD]}) as server:
        with pytest.raises(TidegateError) as caught:
            ask(server.url, credentials("/token"))
        assert server.targets == ["/token"]
    assert message in str(caught.value)
    assert "granted-token" not in "".join(traceback.format_exception(caught.value))


def test_neither_the_api_nor_the_token_endpoint_sees_the_others_credentials() -> None:
    with (
        ScriptedServer({"/token": [TOKEN]}) as login,
        ScriptedServer({PATH: [Reply(status=401), GOOD]}) as api,
    ):
        ask(api.url, credentials(f"{login.url}/token"), headers={"X-Api-Key": "of-the-api-1", "Cookie": "a=of-the-api"})
    assert len(login.seen) == len(api.seen) == 2
    assert all(seen.headers["authorization"].startswith("Basic ") for seen in login.seen)
    assert all(seen.headers["authorization"] == "Bearer granted-token-1" for seen in api.seen)
    assert "of-the-api" not in repr(login.seen) and "granted-token" not in repr(login.seen)
    assert quote_plus(HUSH) not in repr(api.seen)


def test_a_token_is_sent_to_no_other_origin() -> None:
    with ScriptedServer({PATH: [GOOD]}) as elsewhere, ScriptedServer({"/token": [TOKEN]}) as login:
        script = {
            "/moved": [Reply(status=307, headers={"Location": elsewhere.url + PATH})],
            "/linked": [Reply({"rows": [], "next_url": elsewhere.url + PATH})],
            "/to-login": [Reply({"rows": [], "next_url": f"{login.url}/token"})],
        }
        with (
            ScriptedServer(script) as server,
            HttpClient(server.url, auth=credentials(f"{login.url}/token")) as client,
        ):
            for path in script:
                with pytest.raises(SourceError, match="another origin"):
                    list(Walk(client, Shape("rows"), NextUrl()).visits(Request(client.url(path))))
        assert elsewhere.seen == []
        assert len(login.seen) == 1


@pytest.mark.parametrize(
    "url",
    ["", "host/token", "ftp://h/token", "https://ann:pa55@h/token", "https://h/token#x", "//h/token", "http://h:x"],
)
def test_a_token_url_that_is_none_is_a_config_error_that_does_not_quote_it(url: str) -> None:
    with pytest.raises(ConfigError, match="https://host/path") as caught:
        credentials(url)
    assert "55" not in str(caught.value)


def test_a_negative_ahead_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="negative"):
        credentials("/token", ahead=timedelta(seconds=-1))


def test_a_missing_client_secret_fails_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIDEGATE_SECRET_HUSH")
    with ScriptedServer({"/token": [TOKEN]}) as server:
        with pytest.raises(ConfigError, match="TIDEGATE_SECRET_HUSH"):
            ask(server.url, credentials("/token"))
        assert server.seen == []
