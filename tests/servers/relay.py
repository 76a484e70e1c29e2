"""`Relay`: a port of the loopback interface before a server that listens on a Unix socket only: Java needs one."""

import contextlib
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Self


class Relay:
    """Passes bytes on, both ways, for as many clients as come; use it as a context manager.

    Args:
        server: the server's socket.
    """

    def __init__(self, server: Path) -> None:
        self._server = str(server)
        self._listener = socket.socket()
        self._sockets: list[socket.socket] = []

    @property
    def port(self) -> int:
        """Where clients find it, on 127.0.0.1."""
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _close(self._listener)
        self.cut_off()

    def cut_off(self) -> None:
        """Hang up on every client; new ones are served."""
        for one in self._sockets:
            _close(one)
        self._sockets.clear()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                try:
                    server.connect(self._server)
                except OSError:
                    _close(client)
                    _close(server)
                    continue
                self._sockets += [client, server]
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=_pass_on, args=(one, other), daemon=True).start()


def _pass_on(source: socket.socket, to: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while received := source.recv(1 << 16):
            to.sendall(received)
    _close(source)
    _close(to)


def _close(one: socket.socket) -> None:
    """Also wakes the thread that waits for it."""
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
