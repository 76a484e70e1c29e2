"""A MariaDB server of the suite's own: its own folder, a socket and no port, every change in the row binlog."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from functools import cached_property
from pathlib import Path

import pymysql

MISSING = "mariadbd is not installed; `make debian` does it (apt-get install mariadb-server-core mariadb-client-core)"

_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
_START_SECONDS = 60
_STOP_SECONDS = 30

# Not in UTC: a time read without naming the zone is wrong at once. What a crash could lose is not waited for.
_SETTINGS = ["--default-time-zone=+05:30", "--skip-networking", "--skip-name-resolve", "--character-set-server=utf8mb4",
             "--log-bin=binlog", "--binlog-format=ROW", "--binlog-row-image=FULL", "--server-id=1", "--sync-binlog=0",
             "--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync", "--skip-innodb-doublewrite",
             "--innodb-buffer-pool-size=64M", "--skip-ssl"]  # fmt: skip


def installed() -> bool:
    """Whether the server's programs are on this machine."""
    return all(shutil.which(program, path=_PATH) for program in ("mariadbd", "mariadb-install-db"))


class MariadbServer:
    """One server. `start` it, and `stop` it in the end.

    Args:
        folder: where it keeps its files; a socket's path is short, so this one is too.
        settings: more of its command-line options.
    """

    def __init__(self, folder: Path, *settings: str) -> None:
        self.folder = folder
        self._settings = [*_SETTINGS, *settings]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        """Where clients find it."""
        return self.folder / "mariadb.sock"

    @property
    def pid(self) -> int:
        """The server's process id, while it runs."""
        assert self._process is not None, "it runs"
        return self._process.pid

    def url(self, database: str, user: str = "root") -> str:
        """SQLAlchemy URL of `database`, over the socket."""
        return f"mariadb+pymysql://{user}@/{database}?unix_socket={self.socket}"

    def start(self) -> "MariadbServer":
        """Run until `stop`; the files are made where they are absent."""
        if not self._data.exists():
            self._run_to_its_end("mariadb-install-db", "--auth-root-authentication-method=normal", "--skip-test-db")
        log = (self.folder / "server.log").open("ab")
        self._process = subprocess.Popen(
            [*self._command("mariadbd"), f"--socket={self.socket}", f"--pid-file={self.folder / 'pid'}",
             *self._settings],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        log.close()
        self._await_answer()
        return self

    def stop(self) -> None:
        """End the server, and by force when it does not want to."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """Let it crash."""
        assert self._process is not None, "it runs"
        self._process.kill()
        self._process.wait()
        self._process = None

    def execute(self, statement: str) -> None:
        """Run `statement` as root, in no database."""
        with contextlib.closing(self._connect()) as connection, connection.cursor() as cursor:
            cursor.execute(statement)

    def create_database(self, name: str) -> None:
        """An empty database."""
        self.execute(f"CREATE DATABASE `{name}`")

    def drop_database(self, name: str) -> None:
        """Drop it; whoever still uses it is cut off first, since DROP waits for open transactions."""
        with contextlib.closing(self._connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT id FROM information_schema.processlist WHERE db = %s", (name,))
            for (session,) in cursor.fetchall():
                # It may have left by itself.
                with contextlib.suppress(pymysql.err.OperationalError):
                    cursor.execute(f"KILL CONNECTION {session}")
            cursor.execute(f"DROP DATABASE IF EXISTS `{name}`")

    def _connect(self) -> "pymysql.Connection[pymysql.cursors.Cursor]":
        return pymysql.connect(unix_socket=str(self.socket), user="root", autocommit=True)

    @cached_property
    def _data(self) -> Path:
        return self.folder / "data"

    def _command(self, program: str) -> list[str]:
        found = shutil.which(program, path=_PATH)
        assert found is not None, MISSING
        # Root has to be named, or the server refuses to be root.
        root = ["--user=root"] if os.geteuid() == 0 else []
        # A folder for its temporary files of its own too: two servers in one give their files the same names.
        return [found, "--no-defaults", f"--datadir={self._data}", f"--tmpdir={self.folder}", *root]

    def _run_to_its_end(self, program: str, *options: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run([*self._command(program), *options], stdin=subprocess.DEVNULL, capture_output=True)
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()

    def _await_answer(self) -> None:
        assert self._process is not None, "it was started"
        deadline = time.monotonic() + _START_SECONDS
        while True:
            # Not by the driver, which leaves a socket behind where nobody answers.
            with socket.socket(socket.AF_UNIX) as client:
                if client.connect_ex(str(self.socket)) == 0:
                    return
                log = self.folder / "server.log"
                assert self._process.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")
                time.sleep(0.05)
