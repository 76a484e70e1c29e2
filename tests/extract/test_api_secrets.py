"""What a run that fails half way leaves behind holds no secret, however the API is authenticated."""

import json
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, quote_plus

import httpx
import pytest
from sqlalchemy import inspect, text

from tasks.errors import SourceError
from tasks.extract.api import ApiExtract
from tasks.extract.http.auth.credentials import ApiKey, Basic, Bearer
from tasks.extract.http.auth.login import JwtLogin
from tasks.extract.http.auth.oauth import ClientCredentials, RefreshToken
from tasks.extract.http.pages.paginators import NextUrl
from tasks.pipeline import Pipeline, run_pipeline
from tasks.secret import Secret
from tests.conftest import Databases
from tests.orders import ORDERS
from tests.scripted_server import Reply, Script, ScriptedServer, Seen
from tests.variants import slow_but

# Every part of each begins with these letters, which nothing else does.
HIDDEN = "Zq7"
SECRET = f'{HIDDEN}/{HIDDEN}x +{HIDDEN}&"{HIDDEN}'
PLAIN = f"{HIDDEN}-{HIDDEN}-in-a-header"

AUTHS: dict[str, httpx.Auth] = {
    "bearer": Bearer(Secret("plain")),
    "key in a header": ApiKey(Secret("plain")),
    "key in the query": ApiKey(Secret("awkward"), query="k"),
    "basic": Basic("ann", Secret("awkward")),
    "client credentials": ClientCredentials("/token", "etl", Secret("awkward")),
    "client credentials in the body": ClientCredentials("/token", "etl", Secret("awkward"), in_body=True),
    "refresh token": RefreshToken("/token", "etl", Secret("plain"), Secret("awkward")),
    "login": JwtLogin("/token", {"user": "ann", "password": Secret("awkward")}, "access_token"),
}

GRANTED = {
    "access_token": f"{HIDDEN}-access",
    "refresh_token": f"{HIDDEN}-next",
    "token_type": "bearer",
    "expires_in": 3600,
}


def echo(seen: Seen) -> str:
    """What a careless server says of a request."""
    told = [f"no {seen.target} for {dict(seen.headers)}"]
    if PLAIN not in "".join(seen.headers.values()):
        told += [SECRET, quote(SECRET), quote_plus(SECRET), json.dumps(SECRET), repr(SECRET)]
    return " ".join(told)


def orders(seen: Seen) -> Reply:
    """One good order and a bad one, and a link that repeats the request's query, the key with it."""
    query = seen.target.partition("?")[2]
    rows = [{"id": 1, "customer": "ann", "amount": 1.0}, {"id": 2, "customer": "bob", "amount": -1.0}]
    return Reply(
        {
            "rows": [{**row, "updated_at": "2026-01-02T00:00:00Z"} for row in rows],
            "next_url": f"/more?{query}" if query else "/more",
        }
    )


FAILURES: dict[str, Callable[[Seen], Reply]] = {
    "404": lambda seen: Reply(echo(seen).encode(), 404),
    "403 in JSON": lambda seen: Reply({"error": echo(seen)}, 403),
    "no JSON": lambda seen: Reply(echo(seen).encode()),
    "redirect": lambda seen: Reply(status=302, headers={"Location": f"http://elsewhere.test{seen.target}"}),
}


def pipeline(auth: httpx.Auth) -> Pipeline:
    extract = ApiExtract("shop", "orders", "rows", NextUrl(), auth=auth, checkpoint=1)
    return replace(ORDERS, extract=extract, max_attempts=1)


def everything_in(databases: Databases) -> str:
    """Every value of every table of the target."""
    found = []
    with databases.target.connect() as connection:
        for table in inspect(connection).get_table_names():
            found += [str(tuple(row)) for row in connection.execute(text(f'SELECT * FROM "{table}"'))]
    return "\n".join(found)


@pytest.mark.parametrize("failure", slow_but(["403 in JSON", "redirect"], FAILURES))
@pytest.mark.parametrize("auth", AUTHS.values(), ids=AUTHS)
def test_a_run_that_fails_half_way_leaves_no_secret_in_logs_errors_or_the_target(
    sqlite: Databases,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    auth: httpx.Auth,
    failure: Callable[[Seen], Reply],
) -> None:
    """Every log line at DEBUG, the whole chain of errors, and the bytes of the target: ledger, dead letters, place."""
    monkeypatch.setenv("TIDEGATE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TIDEGATE_SECRET_AWKWARD", SECRET)
    monkeypatch.setenv("TIDEGATE_SECRET_PLAIN", PLAIN)
    script: Script = {"/token": [Reply(GRANTED)], "/orders": [orders], "/more": [failure]}
    with ScriptedServer(script) as server, caplog.at_level("DEBUG"):
        monkeypatch.setenv("TIDEGATE_SHOP_URL", server.url)
        with pytest.raises(SourceError) as raised:
            run_pipeline(pipeline(auth))
    left = everything_in(sqlite)
    assert "bob" in left and "/more" in left
    assert HIDDEN not in left
    assert HIDDEN.encode() not in Path(sqlite.target_url.removeprefix("sqlite:///")).read_bytes()
    shown = "".join(traceback.format_exception(raised.value)) + repr(raised.value) + repr(pipeline(auth)) + repr(auth)
    assert HIDDEN not in shown
    assert "HTTP Request: GET" in caplog.text
    assert HIDDEN not in caplog.text


def test_the_secrets_were_sent() -> None:
    """Else the test above would find none in any case."""
    assert HIDDEN in json.dumps(GRANTED) and SECRET.count(HIDDEN) == 4


@pytest.mark.parametrize("auth", AUTHS.values(), ids=AUTHS)
def test_a_run_with_the_right_credentials_loads_and_the_api_has_seen_them(
    sqlite: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, auth: httpx.Auth
) -> None:
    monkeypatch.setenv("TIDEGATE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TIDEGATE_SECRET_AWKWARD", SECRET)
    monkeypatch.setenv("TIDEGATE_SECRET_PLAIN", PLAIN)
    last = Reply({"rows": [], "next_url": None})
    with ScriptedServer({"/token": [Reply(GRANTED)], "/orders": [orders], "/more": [last]}) as server:
        monkeypatch.setenv("TIDEGATE_SHOP_URL", server.url)
        report = run_pipeline(pipeline(auth))
    assert next(window.entry.counts.rejected for window in report.windows) == 1
    api = [seen for seen in server.seen if seen.target != "/token"]
    assert len(api) == 2
    assert all(HIDDEN in seen.target or len(seen.headers.keys() & {"authorization", "x-api-key"}) == 1 for seen in api)
