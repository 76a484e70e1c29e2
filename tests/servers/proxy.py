"""`CommitProxy`: stands between clients and a server, and can lose a COMMIT or the reply to it.

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
from typing import Literal, Protocol, Self

from tasks.embedded import EmbeddedPostgres
from tests.servers.cluster import remove_folder
from tests.servers.mariadb import MariadbServer

Fault = Literal["reply lost", "request lost", "request late"]
"""What happens to a COMMIT whose client is cut off: it is done, it never arrives, or it arrives when told."""

_LENGTH = struct.Struct("!I")


class Wire(Protocol):
    """What has to be known of a protocol."""

    def size(self, buffer: bytes, is_startup: bool) -> int | None:
        """How long the message is that `buffer` begins with; None where too little of it has come."""

    def is_commit(self, message: bytes) -> bool:
        """Whether a client's message is COMMIT."""

    def ends_reply(self, message: bytes) -> bool:
        """Whether a server's message is the last of its answer to that."""


class PostgresWire:
    """PostgreSQL's: a type, a length that counts itself, a body; a client's first message has no type."""

    def size(self, buffer: bytes, is_startup: bool) -> int | None:
        """See `Wire`."""
        head = 0 if is_startup else 1
        return head + _LENGTH.unpack_from(buffer, head)[0] if len(buffer) >= head + 4 else None

    def is_commit(self, message: bytes) -> bool:
        """See `Wire`."""
        return message[:1] == b"Q" and message[5:].rstrip(b"\0").upper() == b"COMMIT"

    def ends_reply(self, message: bytes) -> bool:
        """See `Wire`: ready for another query."""
        return message[:1] == b"Z"


class MariadbWire:
    """MariaDB's: a length of three bytes, a number, a body."""

    def size(self, buffer: bytes, is_startup: bool) -> int | None:
        """See `Wire`."""
        return 4 + int.from_bytes(buffer[:3], "little") if len(buffer) >= 4 else None

    def is_commit(self, message: bytes) -> bool:
        """See `Wire`."""
        return message[4:].upper() == b"\x03COMMIT"

    def ends_reply(self, message: bytes) -> bool:
        """See `Wire`: it is one message."""
        return True


class CommitProxy:
    """A proxy of one server; use it as a context manager.

    Args:
        server: its socket.
        wire: its protocol.
    """

    def __init__(self, server: Path, wire: Wire) -> None:
        self._server = str(server)
        self._wire = wire
        self._name = server.name
        self._folder = Path(tempfile.mkdtemp(prefix="tidegate-proxy-"))
        self._listener = socket.socket(socket.AF_UNIX)
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._fault: Fault | None = None
        self._wait_for_lateness: Callable[[], None] = lambda: None
        self.struck = threading.Event()

    @property
    def socket(self) -> Path:
        """Where clients find it."""
        return self._folder / self._name

    def arm(self, fault: Fault, wait_for_lateness: Callable[[], None] = lambda: None) -> None:
        """Let `fault` befall the next commit of tidegate, once; `struck` says that it has.

        Args:
            fault: what.
            wait_for_lateness: returns when a late request is late enough.
        """
        self._wait_for_lateness = wait_for_lateness
        self._fault = fault

    def __enter__(self) -> Self:
        self._listener.bind(str(self.socket))
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


class PostgresProxy(CommitProxy):
    """A proxy of a PostgreSQL.

    Args:
        server: where to.
    """

    def __init__(self, server: EmbeddedPostgres) -> None:
        super().__init__(server.socket_folder / ".s.PGSQL.5432", PostgresWire())

    def url(self, database: str) -> str:
        """SQLAlchemy URL of `database` through the proxy."""
        return f"postgresql+psycopg://postgres@/{database}?host={self.socket.parent}"


class MariadbProxy(CommitProxy):
    """A proxy of a MariaDB.

    Args:
        server: where to.
    """

    def __init__(self, server: MariadbServer) -> None:
        super().__init__(server.socket, MariadbWire())

    def url(self, database: str) -> str:
        """SQLAlchemy URL of `database` through the proxy."""
        return f"mariadb+pymysql://root@/{database}?unix_socket={self.socket}"


class _Connection:
    """A client's connection, and ours to the server for it."""

    def __init__(self, proxy: CommitProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._commits = False
        self._fault: Fault | None = None

    def forward(self) -> None:
        """From the client to the server, until either leaves."""
        for message in _messages(self._client, self._proxy._wire, begins_with_startup=True):
            if b"etl_targets" in message and b"FOR UPDATE" in message:
                self._commits = True
            if self._commits and self._proxy._wire.is_commit(message):
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
        for message in _messages(self._server, self._proxy._wire, begins_with_startup=False):
            if self._fault is None:
                if not _send(self._client, message):
                    break
            elif self._proxy._wire.ends_reply(message):
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


def _messages(source: socket.socket, wire: Wire, begins_with_startup: bool) -> Iterator[bytes]:
    """Whole protocol messages, until the other side leaves."""
    is_startup = begins_with_startup
    buffer = b""
    while True:
        while (size := wire.size(buffer, is_startup)) is not None and len(buffer) >= size:
            yield buffer[:size]
            buffer, is_startup = buffer[size:], False
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
