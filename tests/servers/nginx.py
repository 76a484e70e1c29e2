"""An nginx of the suite's own: its own folder and configuration, one worker, a free loopback port."""

import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

MISSING = "nginx is not installed; `make debian` unpacks it from its Debian package"

_UNPACKED = Path(__file__).resolve().parents[2] / ".debian" / "usr" / "sbin"
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin", str(_UNPACKED)])
_STOP_SECONDS = 30

_CONFIGURATION = """
daemon off;
{user}
worker_processes 1;
pid pid;
error_log error.log notice;
events {{ worker_connections 128; }}
http {{
    access_log access.log combined;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    default_type application/json;
    {http}
    server {{
        listen 127.0.0.1:{port};
        root www;
        {server}
    }}
}}
"""


def installed() -> bool:
    """Whether the program is on this machine."""
    return shutil.which("nginx", path=_PATH) is not None


class NginxServer:
    """Serves files from `<folder>/www` while it is entered.

    Args:
        folder: where it keeps everything.
        http: directives for the `http` block.
        server: directives for its only `server` block.
    """

    def __init__(self, folder: Path, http: str = "", server: str = "") -> None:
        self.folder = folder
        self._http, self._server = http, server
        self._process: subprocess.Popen[bytes] | None = None
        # Taken here and handed on, so that nobody else gets the port in between, and nobody has to wait for a start.
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.url = f"http://{self.host}"

    @property
    def statuses(self) -> list[int]:
        """What it has answered, in order; whole once it has ended."""
        lines = (self.folder / "access.log").read_text().splitlines()
        return [int(line.split('"')[2].split()[0]) for line in lines]

    def write(self, files: Mapping[str, str]) -> Self:
        """Put files into what it serves."""
        for name, text in files.items():
            file = self.folder / "www" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return self

    def __enter__(self) -> Self:
        found = shutil.which("nginx", path=_PATH)
        assert found is not None, MISSING
        # As root its worker would become another user, who cannot read the folder.
        user = "user root;" if os.geteuid() == 0 else ""
        port = self._socket.getsockname()[1]
        self.folder.mkdir(parents=True, exist_ok=True)
        configuration = self.folder / "nginx.conf"
        configuration.write_text(
            _CONFIGURATION.format(user=user, port=port, http=self._http, server=self._server), encoding="utf-8"
        )
        descriptor = self._socket.fileno()
        with (self.folder / "output.log").open("ab") as log:
            self._process = subprocess.Popen(
                [found, "-p", f"{self.folder}/", "-c", str(configuration), "-e", str(self.folder / "error.log")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                # How nginx hands its sockets to its own successor.
                pass_fds=[descriptor], env={**os.environ, "NGINX": f"{descriptor};"},
            )  # fmt: skip
        self._socket.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None, "it was entered"
        assert self._process.poll() is None, (self.folder / "output.log").read_text()
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
