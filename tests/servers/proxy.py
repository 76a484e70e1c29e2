"""`PostgresProxy`: stands between clients and a PostgreSQL server, and can lose a COMMIT or the reply to it.

It passes the protocol on message by message, over Unix sockets both ways, and knows two things about it: which
connection holds the lock that begins a commit of tidegate, and which message is that connection's COMMIT.
"""

import contextlib
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tasks.embedded import EmbeddedPostgres
from tests.servers.cluster import remove_folder

Fault = Literal["reply lost", "request lost", "request late"]
"""What happens to a COMMIT whose client is cut off: it is done, it never arrives, or it arrives when told."""

_SOCKET = ".s.PGSQL.5432"
_LENGTH = struct.Struct("!I")
_READY_FOR_QUERY = b"Z"


class PostgresProxy:
    """A proxy of one server; use it as a context manager.

    Args:
        server: where to.
    """

    def __init__(self, server: EmbeddedPostgres) -> None:
        self._server = str(server.socket_folder / _SOCKET)
        self._folder = Path(tempfile.mkdtemp(prefix="tidegate-proxy-"))
        self._listener = socket.socket(socket.AF_UNIX)
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._fault: Fault | None = None
        self._wait_for_lateness: Callable[[], None] = lambda: None
        self.struck = threading.Event()

    def url(self, database: str) -> str:
        """SQLAlchemy URL of `database` through the proxy."""
        return f"postgresql+psycopg://postgres@/{database}?host={self._folder}"

    def arm(self, fault: Fault, wait_for_lateness: Callable[[], None] = lambda: None) -> None:
        """Let `fault` befall the next commit of tidegate, once; `struck` says that it has.

        Args:
            fault: what.
            wait_for_lateness: returns when a late request is late enough.
        """
        self._wait_for_lateness = wait_for_lateness
        self._fault = fault

    def __enter__(self) -> Self:
        self._listener.bind(str(self._folder / _SOCKET))
        self._listener.listen()
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _close(self._listener)
        for one in self._sockets:
            _close(one)
        for thread in self._threads:
            thread.join(10)
        remove_folder(self._folder)

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                self._sockets += [client, server]
                server.connect(self._server)
                connection = _Connection(self, client, server)
                self._start(connection.forward)
                self._start(connection.back)

    def _take_fault(self) -> Fault | None:
        fault, self._fault = self._fault, None
        return fault


class _Connection:
    """A client's connection, and ours to the server for it."""

    def __init__(self, proxy: PostgresProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._commits = False
        self._fault: Fault | None = None

    def forward(self) -> None:
        """From the client to the server, until either leaves."""
        for message in _messages(self._client, begins_with_startup=True):
            if b"etl_targets" in message and b"FOR UPDATE" in message:
                self._commits = True
            if self._commits and message[:1] == b"Q" and message[5:].rstrip(b"\0").upper() == b"COMMIT":
                self._commits = False
                self._fault = self._proxy._take_fault()
                if self._fault is not None:
                    self._cut_off(message)
                    return
            if not _send(self._server, message):
                break
        _close(self._server)

    def back(self) -> None:
        """From the server to the client, until either leaves; the reply to a lost COMMIT stays here."""
        for message in _messages(self._server, begins_with_startup=False):
            if self._fault is None:
                if not _send(self._client, message):
                    break
            elif message[:1] == _READY_FOR_QUERY:
                self._proxy.struck.set()
                break
        _close(self._client)
        _close(self._server)

    def _cut_off(self, commit: bytes) -> None:
        if self._fault == "reply lost":
            _send(self._server, commit)  # `back` closes both when the server is ready with it
            return
        _close(self._client)
        if self._fault == "request late":
            self._proxy._wait_for_lateness()
            _send(self._server, commit)
            return
        self._proxy.struck.set()
        _close(self._server)


def _messages(source: socket.socket, begins_with_startup: bool) -> Iterator[bytes]:
    """Whole protocol messages, until the other side leaves; the first of a client has no type byte."""
    head = 0 if begins_with_startup else 1
    buffer = b""
    while True:
        while len(buffer) >= head + 4:
            size = head + _LENGTH.unpack_from(buffer, head)[0]
            if len(buffer) < size:
                break
            yield buffer[:size]
            buffer, head = buffer[size:], 1
        try:
            received = source.recv(1 << 16)
        except OSError:
            return
        if not received:
            return
        buffer += received


def _send(to: socket.socket, message: bytes) -> bool:
    try:
        to.sendall(message)
    except OSError:
        return False
    return True


def _close(one: socket.socket) -> None:
    """Also wakes the thread that waits for it."""
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
