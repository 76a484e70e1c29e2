"""Rate limits and passwords against nginx: `limit_req` and `auth_basic` are its own."""

import hashlib
import json
from base64 import b64encode
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest

from tasks.errors import SourceError
from tasks.extract.api import ApiExtract
from tasks.extract.http.client import HttpClient
from tasks.extract.http.pace.rate import RateLimit
from tasks.extract.http.pace.retry import Retry
from tasks.extract.http.pages.paginators import NextUrl
from tasks.run_scope import run_scope
from tasks.window import Window
from tests.servers import nginx
from tests.servers.nginx import NginxServer

pytestmark = [
    pytest.mark.nginx,
    pytest.mark.skipif(not nginx.installed(), reason=nginx.MISSING),
]

PAGES = 12
PER_SECOND = 10
FAST = Retry(attempts=50, first=timedelta(milliseconds=20), longest=timedelta(milliseconds=200))


def pages(count: int = PAGES) -> Mapping[str, str]:
    """A list of records behind links, three to a page."""
    return {
        f"page{number}.json": json.dumps(
            {
                "rows": [{"id": 3 * number + row} for row in range(3)],
                "next": f"/page{number + 1}.json" if number + 1 < count else None,
            }
        )
        for number in range(count)
    }


def limited(folder: Path, status: int) -> NginxServer:
    """Ten requests in a second, and four more that came too early: machines have other things to do, too."""
    return NginxServer(
        folder,
        http=f"limit_req_zone $binary_remote_addr zone=all:1m rate={PER_SECOND}r/s;",
        server=f"limit_req zone=all burst=4 nodelay; limit_req_status {status};",
    ).write(pages())


def walk(server: NginxServer, monkeypatch: pytest.MonkeyPatch, rate: RateLimit | None = None) -> list[int]:
    monkeypatch.setenv("TIDEGATE_SHOP_URL", server.url)
    extract = ApiExtract("shop", "page0.json", "rows", NextUrl("next"), retry=FAST, rate=rate)
    return [row["id"] for batch in extract.batches(Window()) for row in batch.to_pylist()]


@pytest.mark.parametrize("status", [429, 503])
def test_a_walk_that_nginx_slows_down_is_whole_and_nothing_comes_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    with limited(tmp_path, status) as server:
        assert walk(server, monkeypatch) == list(range(3 * PAGES))
    assert server.statuses.count(200) == PAGES
    assert server.statuses.count(status) > 0
    assert set(server.statuses) == {200, status}


def test_below_the_limit_of_nginx_there_is_not_one_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with limited(tmp_path, 429) as server:
        assert walk(server, monkeypatch, RateLimit(PER_SECOND - 2)) == list(range(3 * PAGES))
    assert server.statuses == [200] * PAGES


def test_eight_threads_of_a_run_stay_below_the_limit_of_nginx_together(tmp_path: Path) -> None:
    def ask(url: str, number: int) -> None:
        with HttpClient(url, rate=RateLimit(PER_SECOND - 2), retry=FAST) as client:
            client.get_json(f"page{number}.json")
            client.get_json("page0.json")

    with limited(tmp_path, 429) as server, run_scope(), ThreadPoolExecutor(8) as threads:
        for future in [threads.submit(copy_context().run, ask, server.url, number) for number in range(8)]:
            future.result()
    assert server.statuses == [200] * 16


PASSWORD = "p4ss:w/rd@home"


def guarded(folder: Path) -> NginxServer:
    server = NginxServer(folder, server=f'auth_basic "shop"; auth_basic_user_file {folder / "users"};')
    digest = b64encode(hashlib.sha1(PASSWORD.encode()).digest()).decode()
    (folder / "users").write_text(f"ann:{{SHA}}{digest}\n")
    return server.write(pages(2))


def with_user(server: NginxServer, password: str) -> str:
    return server.url.replace("http://", f"http://ann:{quote(password, safe='')}@")


def test_the_password_in_a_connections_url_opens_what_nginx_guards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with guarded(tmp_path) as server:
        monkeypatch.setenv("TIDEGATE_SHOP_URL", with_user(server, PASSWORD))
        extract = ApiExtract("shop", "page0.json", "rows", NextUrl("next"))
        assert sum(batch.num_rows for batch in extract.batches(Window())) == 6
    assert server.statuses == [200, 200]


def test_a_wrong_password_fails_at_once_and_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with guarded(tmp_path) as server:
        monkeypatch.setenv("TIDEGATE_SHOP_URL", with_user(server, "wr0ng-secret"))
        with pytest.raises(SourceError, match="401") as caught:
            list(ApiExtract("shop", "page0.json", "rows", NextUrl("next")).batches(Window()))
    assert "wr0ng" not in str(caught.value)
    assert server.statuses == [401]
