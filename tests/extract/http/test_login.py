"""`JwtLogin` against simplejwt, and against a server that answers what real ones do not."""

import base64
import json
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tasks.errors import ConfigError, SourceError
from tasks.extract.http.auth.login import JwtLogin
from tasks.extract.http.client import HttpClient
from tasks.extract.http.pace.retry import Retry
from tasks.secret import Secret
from tests.extract.http.conftest import Clock
from tests.scripted_server import Reply, ScriptedServer
from tests.servers.tokens import TokenSite

PASSWORD = 'pa "ss" wörd-4711'
PATH = "/readings"
GOOD = Reply({"rows": [1]})


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_SECRET_CRM_PASSWORD", PASSWORD)


def login(url: str = "/login", user: str = "ann", **more: Any) -> JwtLogin:
    return JwtLogin(url, {"username": user, "password": Secret("crm_password")}, **more)


def ask(url: str, auth: httpx.Auth, path: str = PATH) -> object:
    with HttpClient(url, auth=auth, retry=Retry(attempts=1)) as client:
        return client.get_json(path).body


def jwt(claims: object) -> str:
    head, payload = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({"alg": "HS256"}, claims)
    )
    return f"{head}.{payload}.c2lnbmF0dXJl"


def test_a_login_brings_a_token_that_the_api_accepts(token_site: TokenSite) -> None:
    auth = login(user=token_site.user(PASSWORD), token="access")
    assert ask(token_site.url, auth, "jwt-items") == {"rows": [{"id": 1}], "next_url": "/jwt-items?page=2"}


def test_a_wrong_password_is_a_source_error_that_names_the_login_and_the_remedy_and_not_the_password(
    token_site: TokenSite,
) -> None:
    auth = login(user=token_site.user("another one"), token="access")
    with pytest.raises(SourceError) as caught:
        ask(token_site.url, auth, "jwt-items")
    for part in (f"{token_site.url}/login refused: 401", "Check body=", "TIDEGATE_SECRET_CRM_PASSWORD"):
        assert part in str(caught.value)
    assert "4711" not in "".join(traceback.format_exception(caught.value))


def test_the_exp_claim_of_the_token_says_when_to_log_in_again(token_site: TokenSite, clock: Clock) -> None:
    auth = login(user=token_site.user(PASSWORD), token="access", clock=clock)
    before = len(token_site.seen("/login"))
    for seconds, logins in ((0, 1), (3600 - 64, 1), (3600 - 59, 2)):
        clock.ahead = timedelta(seconds=seconds)
        ask(token_site.url, auth, "jwt-items")
        assert len(token_site.seen("/login")) == before + logins


def test_a_declared_lifetime_wins(token_site: TokenSite, clock: Clock) -> None:
    user = token_site.user(PASSWORD)
    auth = login(user=user, token="access", clock=clock, lifetime=timedelta(minutes=5))
    before = len(token_site.seen("/login"))
    for seconds, logins in ((0, 1), (238, 1), (242, 2)):
        clock.ahead = timedelta(seconds=seconds)
        ask(token_site.url, auth, "jwt-items")
        assert len(token_site.seen("/login")) == before + logins


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_clock_that_differs_from_the_servers_does_not_matter(clock: Clock, hours: int) -> None:
    """The claim and the response's Date are both by the server's clock."""
    servers_now = datetime.now(UTC) + timedelta(hours=hours)
    date = {"Date": format_datetime(servers_now, usegmt=True)}
    answer = Reply({"token": jwt({"exp": servers_now.timestamp() + 600})}, headers=date)
    with ScriptedServer({"/login": [answer], PATH: [GOOD]}) as server:
        auth = login(clock=clock)
        for minutes, logins in ((0, 1), (8, 1), (9.5, 2)):
            clock.ahead = timedelta(minutes=minutes)
            ask(server.url, auth)
            assert server.targets.count("/login") == logins


@pytest.mark.parametrize(
    "token",
    [
        "opaque-token",
        jwt({}),
        jwt({"exp": "soon"}),
        jwt({"exp": 1e300}),
        jwt([1]),
        jwt({"exp": None}),
        "a.b.c",
        "a.!.c",
        "..",
    ],
)
def test_a_token_that_does_not_say_when_it_ends_is_used_until_the_api_rejects_it(clock: Clock, token: str) -> None:
    script = {"/login": [Reply({"token": token})], PATH: [GOOD, GOOD, Reply(status=401), GOOD]}
    with ScriptedServer(script) as server:
        auth = login(clock=clock)
        for days in (0, 1000):
            clock.ahead = timedelta(days=days)
            ask(server.url, auth)
        assert server.targets.count("/login") == 1
        ask(server.url, auth)
        assert server.targets.count("/login") == 2


def test_the_body_is_sent_as_it_is_declared_with_its_secrets_filled_in() -> None:
    body: Mapping[str, Any] = {"user": {"name": "ann", "roles": ["etl", Secret("crm_password")]}, "keep": True}
    with ScriptedServer({"/login": [Reply({"token": "granted-1"})], PATH: [GOOD]}) as server:
        ask(server.url, JwtLogin("/login", body))
    assert json.loads(server.seen[0].body) == {"user": {"name": "ann", "roles": ["etl", PASSWORD]}, "keep": True}
    assert server.seen[0].headers["content-type"] == "application/json"
    assert isinstance(body["user"]["roles"][1], Secret)


def test_the_token_is_found_in_the_body_and_sent_in_the_declared_form() -> None:
    answer = Reply({"data": [{"jwt": "granted-4711"}]}, 201)
    for scheme, header, sent in (("JWT", "X-Auth", "JWT granted-4711"), ("", "Token", "granted-4711")):
        with ScriptedServer({"/login": [answer], PATH: [GOOD]}) as server:
            ask(server.url, login(token="data.0.jwt", scheme=scheme, header=header))
        assert server.seen[1].headers[header.lower()] == sent
        assert "authorization" not in server.seen[1].headers


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"jwt": "granted-4711"}, "no token at the path 'token'; it answered an object with the keys 'jwt'"),
        ({"token": {"granted": 4711}}, "no token at the path 'token'"),
        ({"token": ""}, "no token at the path 'token'"),
        ("granted-4711", "it answered a text"),
    ],
)
def test_a_token_that_is_elsewhere_is_a_source_error_that_does_not_quote_the_answer(body: object, message: str) -> None:
    with ScriptedServer({"/login": [Reply(body)]}) as server, pytest.raises(SourceError) as caught:
        ask(server.url, login())
    assert message in str(caught.value)
    assert "4711" not in "".join(traceback.format_exception(caught.value))


def test_a_token_that_the_api_quotes_in_any_form_is_masked() -> None:
    token = 'Zq7"Zq7/Zq7=='
    echo = Reply({"said": token, "quoted": json.dumps(token), "url": quote(token, safe="")}, 403)
    with (
        ScriptedServer({"/login": [Reply({"token": token})], PATH: [echo]}) as server,
        pytest.raises(SourceError, match="403 Forbidden") as caught,
    ):
        ask(server.url, login())
    assert "***" in str(caught.value) and "Zq7" not in str(caught.value)


def test_a_declaration_shows_nothing_of_its_body_and_can_be_compared() -> None:
    assert "ann" not in repr(login())
    assert login() == login() and hash(login()) == hash(login()) and login() != login(user="bob")


def test_a_login_url_that_is_none_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="https://host/path"):
        login("login")
