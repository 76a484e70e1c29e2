"""`ApiProxy`: an HTTP proxy in front of a real API that spoils single requests, or the answers to them."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self

import httpx

Fault = Literal["request lost", "reply lost", "refused"]
"""Not passed on; passed on, and its answer withheld; not passed on, and quoted in the answer, as a 422 does."""

_SKIPPED = {"host", "content-length", "transfer-encoding", "connection", "content-encoding", "keep-alive"}


@dataclass(frozen=True)
class Asked:
    """A request that arrived, by whichever number."""

    number: int
    method: str
    path: str

    @property
    def writes(self) -> bool:
        """Whether it is one that changes something; a POST to `filter` only reads."""
        return self.method != "GET" and not self.path.partition("?")[0].endswith("/filter")


@dataclass
class ApiProxy:
    """Passes on to `upstream` while it is entered.

    Attributes:
        upstream: scheme, host and port of the API.
        spoil: what to do to a request; None lets it through.
        asked: what arrived, in order.
    """

    upstream: str
    spoil: Callable[[Asked], Fault | None] = lambda _asked: None
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.client = httpx.Client(base_url=self.upstream, trust_env=False, timeout=60)
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.client.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, proxy: ApiProxy) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        proxy = self.server.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with proxy.lock:
            asked = Asked(len(proxy.asked), self.command, self.path)
            proxy.asked.append(asked)
            fault = proxy.spoil(asked)
        if fault == "refused":
            return self._answer(422, b'{"detail": ' + (body or b"null") + b"}")
        if fault != "request lost":
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _SKIPPED}
            reply = proxy.client.request(self.command, self.path, content=body, headers=headers)
        if fault is not None:
            # Not one of those that Prefect's client tries again.
            return self._answer(500, b'{"exception_message": "Internal Server Error"}')
        return self._answer(reply.status_code, reply.content)

    do_POST = do_PATCH = do_PUT = do_DELETE = do_GET

    def _answer(self, status: int, body: bytes) -> None:
        self.close_connection = True
        self.send_response_only(status)
        for name, value in {"Content-Type": "application/json", "Connection": "close"}.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if status != 204:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""
