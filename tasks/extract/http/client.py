"""`HttpClient`: requests for JSON that outlast a source's bad moments and never leave its origin.

This layer owns the retries of HTTP; nothing above it retries a request.
"""

import base64
import contextlib
import functools
import logging
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from http.cookiejar import DefaultCookiePolicy
from types import TracebackType
from typing import Self

import httpx

from tasks.errors import ConfigError, SourceError, redact, remember_secret
from tasks.extract.http.answers import NOT_MODIFIED, Answer, Refused, shown
from tasks.extract.http.origin import checked_url, same_origin
from tasks.extract.http.pace.pauses import pause
from tasks.extract.http.pace.rate import RateLimit
from tasks.extract.http.pace.retry import RETRIED, Broken, Retry
from tasks.extract.http.pace.waiting import Waiting
from tasks.extract.http.parallel import wait
from tasks.extract.http.request import Params, Request
from tasks.extract.http.shapes.bodies import Reader, beginning, downloaded
from tasks.extract.http.shapes.shape import Shape

CONNECT_TIMEOUT = timedelta(seconds=10)
READ_TIMEOUT = timedelta(seconds=60)

_REDIRECTS_WITH_BODY = frozenset({307, 308})
_CONDITIONS = frozenset({"if-none-match", "if-modified-since"})
_MAX_REDIRECTS = 10
_JSON = Shape()

_PUBLIC_HEADERS = frozenset(
    {"accept", "accept-encoding", "accept-language", "cache-control", "connection", "content-type"}
)
_PUBLIC_HEADERS |= {"content-length", "host", "if-modified-since", "if-none-match", "user-agent"}
_SET_COOKIE = re.compile(r"(?i)(b'set-cookie', b')[^']*'")


class HttpClient:
    """Requests for JSON at one origin: with time-outs, retries, and credentials that go nowhere else.

    Use it as a context manager, or `close` it.

    Args:
        base_url: `http(s)://[user:password@]host[:port][/path]`; user and password become basic authentication.
        auth: how requests are authenticated; wins over a user in `base_url`.
        headers: sent with every request; values that could be secret are masked from then on.
        timeout: longest silence while an answer is read; connecting takes ten seconds at most.
        retry: how long a request keeps trying.
        rate: how often the source is asked at most.
        sleep: waits for that many seconds.
        clock: this machine's time, aware; only for a time in the headers of a source that sends no `Date`.
        moment: seconds of a clock that does not go back, and on which `sleep` passes.

    Raises:
        ConfigError: a URL that is none of an API, or headers that cannot be sent.
    """

    def __init__(
        self,
        base_url: str,
        *,
        auth: httpx.Auth | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: timedelta = READ_TIMEOUT,
        retry: Retry | None = None,
        rate: RateLimit | None = None,
        sleep: Callable[[float], None] = wait,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        moment: Callable[[], float] = time.monotonic,
    ) -> None:
        given = checked_url(base_url)
        if auth is None and given.userinfo:
            auth = httpx.BasicAuth(given.username, given.password)
        self.base_url = given.copy_with(userinfo=b"")
        self._clock = clock
        self._waiting = Waiting(self.base_url, retry or Retry(), rate, sleep, moment)
        # Of this thread, from its wait until something is sent.
        self._turn = threading.local()
        self._requests, self._counting = 0, threading.Lock()
        for name, value in (headers or {}).items():
            _remember(name, value)
        seconds = timeout.total_seconds()
        try:
            self._client = httpx.Client(
                auth=auth,
                # What a body is unpacked from here, whatever else httpx may find installed.
                headers={"Accept-Encoding": "gzip, deflate", **(headers or {})},
                timeout=httpx.Timeout(seconds, connect=min(CONNECT_TIMEOUT.total_seconds(), seconds)),
                follow_redirects=False,
                verify=_trusted(),
                event_hooks={"request": [_remember_headers, self._before], "response": [self._after]},
            )
            # None are kept: one jar would serve the API and the endpoint its tokens come from.
            self._client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        except UnicodeEncodeError:
            raise ConfigError(
                f"A header for {self.base_url.host} holds a character outside ASCII. Check how it was copied."
            ) from None

    def url(self, path: str, params: Params | None = None) -> httpx.URL:
        """`path` below the base URL; `params` are added to those in `path`, and win."""
        raw_path = self.base_url.raw_path.rstrip(b"/") + httpx.URL("/" + path.lstrip("/")).raw_path
        url = self.base_url.copy_with(raw_path=raw_path)
        return url.copy_merge_params(params) if params else url

    def get_json(self, url: httpx.URL | str, params: Params | None = None) -> Answer:
        """What `fetch` says to a GET.

        Args:
            url: a URL at the base URL's origin, or a path below the base URL.
            params: query parameters in addition to those of `url`.
        """
        if isinstance(url, str):
            url = httpx.URL(url) if "://" in url.partition("?")[0] else self.url(url)
        return self.fetch(Request(url.copy_merge_params(params) if params else url))

    def fetch(self, request: Request, reader: Reader | None = None) -> Answer:
        """Ask until the whole of the answer has arrived.

        Retried are the statuses 408, 425, 429 and 5xx, every failure of the connection, and a body that was cut off; a
        POST too, since it only asks.

        Args:
            request: at the base URL's origin. One with `If-None-Match` or `If-Modified-Since` may be answered by 304.
            reader: makes the answer of its body; JSON without it.

        Raises:
            SourceUnavailable: no whole answer within the attempts and the waiting allowed, or the source asks to wait
                for longer than that.
            SourceError: the source refused, answers something else than asked for, or leads to another origin; or the
                run has waited for it as long as it may.
            ConfigError: a configured header cannot be sent, or the rate is shared by a limit that is not there.
        """
        request = replace(request, url=request.url.copy_with(userinfo=b""))
        if not same_origin(request.url, self.base_url):
            raise SourceError(
                f"{shown(request.url)} is not at the configured origin {shown(self.base_url)}, so it is not requested. "
                "If the API lives there, point the connection's URL at it."
            )
        asked = f"{request.method} {shown(request.url)}"
        return self._waiting.persist(asked, partial(self._attempt, request, reader or _JSON))

    @property
    def requests(self) -> int:
        """How many have been sent so far: retries, redirects and logins included."""
        return self._requests

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"HttpClient({shown(self.base_url)!r})"

    def _attempt(self, request: Request, reader: Reader) -> Answer:
        """One request and the redirects it leads to, all at the configured origin."""
        here = request
        for _ in range(_MAX_REDIRECTS + 1):
            with self._sent(here) as response:
                if not response.has_redirect_location:
                    return self._answer(response, reader)
                # Read to its end, as a rule, so that the connection can be used again.
                beginning(response)
                here = replace(here, url=self._target(here, response))
        raise SourceError(
            f"{request.method} {shown(request.url)} was redirected more than {_MAX_REDIRECTS} times, last to "
            f"{shown(here.url)}. Point the connection's URL at where the API really answers."
        )

    def _target(self, request: Request, response: httpx.Response) -> httpx.URL:
        """Where a redirect leads."""
        asked = f"{request.method} {shown(request.url)}"
        target = request.url.join(response.headers["location"]).copy_with(userinfo=b"")
        if not same_origin(target, self.base_url):
            raise SourceError(
                f"{asked} redirects to {shown(target)}, which is another origin: not followed, so that no credential "
                "leaves. If the API has moved there, point the connection's URL at it."
            )
        if request.body is not None and response.status_code not in _REDIRECTS_WITH_BODY:
            raise SourceError(
                f"{asked} answered {response.status_code} and leads to {shown(target)}, where the body would not be "
                "sent. Name that path in the declaration, if it is the one that answers."
            )
        return target

    @contextlib.contextmanager
    def _sent(self, request: Request) -> Iterator[httpx.Response]:
        """The response, its body still to be read."""
        # Before it is signed: a signature may not outlast the wait.
        self._waiting.take_turn(f"{request.method} {shown(request.url)}")
        self._turn.taken = True
        asked = self._client.stream(request.method, request.url, json=request.body, headers=request.headers)
        try:
            with asked as response:
                yield response
        except httpx.LocalProtocolError:
            # Its text quotes the header in an escaped form that masking would not recognise.
            raise ConfigError(
                f"A header for {shown(request.url)} cannot be sent as it is. Look for a line break or a blank at an "
                "end of a configured value."
            ) from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise Broken(f"{type(error).__name__}{_elsewhere(error.request, request)}: {error}") from error

    def _answer(self, response: httpx.Response, reader: Reader) -> Answer:
        status = response.status_code
        summary = f"{status} {response.reason_phrase}".strip()
        if status in RETRIED or status >= 500:
            raise Broken(f"{summary}: {beginning(response)}", pause(response.headers, self._clock()))
        if status == NOT_MODIFIED and not _CONDITIONS.isdisjoint(response.request.headers):
            return Answer(response.url, response.headers, None, status)
        if status != 200:
            asked = f"{response.request.method} {shown(response.url)}"
            raise Refused(
                f"{asked} answered {summary}: {beginning(response)!r}. It would answer so again: check the path, the "
                "parameters and the credentials.",
                status,
                asked,
            )
        return reader.read(downloaded(response, reader.max_body))

    def _before(self, request: httpx.Request) -> None:
        """Whatever is sent has its turn; the first request since `_send` has it, what `auth` sends besides waits."""
        with self._counting:
            self._requests += 1
        if not same_origin(request.url, self.base_url):
            return
        if not getattr(self._turn, "taken", False):
            self._waiting.take_turn(f"{request.method} {shown(request.url)}")
        self._turn.taken = False

    def _after(self, response: httpx.Response) -> None:
        if same_origin(response.request.url, self.base_url):
            self._waiting.heed(response.headers, self._clock())


def _elsewhere(sent: httpx.Request, asked: Request) -> str:
    """Names the endpoint of a token request that `asked` needed first, so that nobody looks at the API for it."""
    if sent.url.copy_with(query=None) == asked.url.copy_with(query=None):
        return ""
    return f" at {shown(sent.url)}"


@functools.cache
def _trusted() -> ssl.SSLContext:
    """The certificates to trust, read once: that takes longer than many a request."""
    return httpx.create_ssl_context()


def _remember_headers(request: httpx.Request) -> None:
    for name, value in request.headers.items():
        # Cookies change with every answer; a configured one has been remembered before.
        if name != "cookie":
            _remember(name, value)


def _remember(name: str, value: str) -> None:
    """Have a header's value masked from now on, and what it is made of."""
    if name.lower() in _PUBLIC_HEADERS:
        return
    remember_secret(value)
    scheme, _, credentials = value.partition(" ")
    remember_secret(credentials)
    if scheme.lower() == "basic":
        try:
            remember_secret(base64.b64decode(credentials).decode().partition(":")[2])
        except ValueError:
            return


class _WithoutSecrets(logging.Filter):
    """Masks what httpx logs about each request, its URL, and httpcore, the headers of each response."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(shown(arg) if isinstance(arg, httpx.URL) else arg for arg in record.args)
        record.msg, record.args = _SET_COOKIE.sub(r"\1***'", redact(record.getMessage())), ()
        return True


# A filter on a logger does not see what is logged on those under it.
for _name in ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy", "httpcore.socks"):
    logging.getLogger(_name).addFilter(_WithoutSecrets())
