"""A real HTTP server on a free loopback port that plays a script kept as data, faults included.

::

    with ScriptedServer({"/readings": [Reply(status=503), Reply([{"id": 1}])]}) as server:
        ...                                # ask server.url
    assert server.targets == ["/readings", "/readings"]
"""

import json
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qsl

Fault = Literal["none", "short body", "cut chunk", "no length", "reset", "silence"]


@dataclass(frozen=True)
class Reply:
    """One answer of the script.

    Attributes:
        body: bytes as they are, pieces in chunks as a function makes them, anything else as JSON; `$HOST` becomes the
            server's own `host:port`, but in pieces.
        status: of the response.
        headers: of the response; `$HOST` as in the body.
        fault: "short body" promises more bytes than it sends, "cut chunk" breaks off inside a chunk, "no length" closes
            the connection at the end of the body, "reset" sends a TCP reset instead of a response, "silence" nothing
            until the server ends.
        first: called before it is sent, while other requests are being answered; it may wait for them.
    """

    body: object = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    fault: Fault = "none"
    first: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Seen:
    """A request as it arrived; header names in lower case."""

    target: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def params(self) -> dict[str, str]:
        """The query's parameters."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))


Maker = Callable[[Seen], Reply]
"""Makes a reply of a request."""

Script = Mapping[str, Sequence[Reply | Maker]] | Maker
"""Replies by target (`/path?query`), or else by path, a row's last given again and again; or made by a function."""


class ScriptedServer:
    """Plays a `Script` while it is entered.

    Its port is taken from the beginning, and refuses connections until `start`.

    Args:
        script: what to answer; what is not in it is a 404.
        up: start at once; otherwise when `start` is called.
    """

    def __init__(self, script: Script, up: bool = True) -> None:
        self.seen: list[Seen] = []
        self._script = script
        self._played: dict[str, int] = {}
        self._lock = threading.Lock()
        self._up = up
        self._thread: threading.Thread | None = None
        self._server = _Server(self)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.host}"
        self.ending = threading.Event()

    @property
    def targets(self) -> list[str]:
        """What was asked for, in order."""
        return [seen.target for seen in self.seen]

    def start(self) -> None:
        """Accept connections from now on."""
        if self._thread is None:
            self._server.server_activate()
            self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
            self._thread.start()

    def next_reply(self, seen: Seen) -> Reply:
        """The script's answer to `seen`."""
        with self._lock:
            self.seen.append(seen)
            if callable(self._script):
                return self._script(seen)
            key = seen.target if seen.target in self._script else seen.target.partition("?")[0]
            replies = self._script.get(key, [Reply(b"not in the script", 404)])
            number = self._played.get(key, 0)
            self._played[key] = number + 1
            reply = replies[min(number, len(replies) - 1)]
        return reply if isinstance(reply, Reply) else reply(seen)

    def __enter__(self) -> Self:
        if self._up:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ending.set()
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    """So that closing the server waits for every handler."""

    def __init__(self, scripted: ScriptedServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler, bind_and_activate=False)
        self.scripted = scripted
        self.server_bind()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        scripted = self.server.scripted
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = scripted.next_reply(Seen(self.path, headers, body))
        self.close_connection = True
        reply.first()
        if reply.fault == "silence":
            scripted.ending.wait()
        elif reply.fault == "reset":
            # A linger of zero makes the close a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        else:
            self._respond(reply, scripted.host)

    do_POST = do_GET

    def _respond(self, reply: Reply, host: str) -> None:
        if callable(reply.body):
            self._head(reply, host, {"Transfer-Encoding": "chunked"})
            # Who has read enough hangs up.
            with suppress(ConnectionError):
                for piece in reply.body():
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.wfile.write(b"0\r\n\r\n")
            return
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        body = body.replace(b"$HOST", host.encode())
        length = {"Content-Length": str(len(body) + (10 if reply.fault == "short body" else 0))}
        if reply.fault == "cut chunk":
            length = {"Transfer-Encoding": "chunked"}
            body = b"%x\r\n" % (len(body) + 10) + body
        self._head(reply, host, {} if reply.fault == "no length" else length)
        with suppress(ConnectionError):
            self.wfile.write(body)

    def _head(self, reply: Reply, host: str, length: Mapping[str, str]) -> None:
        self.send_response_only(reply.status)
        headers = {"Content-Type": "application/json", "Connection": "close", **reply.headers, **length}
        for name, value in headers.items():
            self.send_header(name, value.replace("$HOST", host))
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""
