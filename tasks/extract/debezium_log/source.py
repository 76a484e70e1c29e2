"""`SourceLog`: what Debezium has to know of a kind of database, and what it does not do for us: begin, end, forget."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Engine

from tasks.errors import ConfigError
from tasks.extract.debezium_log.envelope import Reread
from tasks.extract.debezium_log.process import EngineProcess, Record
from tasks.extract.feed import Notice


class SourceLog(Protocol):
    """The log of one source, for one feed."""

    key: Sequence[str]
    """Columns that identify a row."""

    full_before: bool
    """Whether a change tells the whole row before it."""

    files: Mapping[str, str]
    """What Debezium finds in its folder, by name."""

    offset: Mapping[str, Any] | None
    """Where Debezium goes on; None begins with a snapshot."""

    reached: bool
    """Whether everything has come that had been committed when the end was set."""

    @property
    def reread(self) -> Reread | None:
        """Asks the source for values that its log left out; None where it leaves out none."""

    def properties(self) -> dict[str, str]:
        """Debezium's configuration for this kind of source; `{folder}` stands for its folder."""

    def set_end(self) -> datetime:
        """Note where the log ends now; the source's clock (UTC) before that."""

    def boundary(self, record: Record) -> bool:
        """Whether every transaction begun before `record`, which is no change of a row, has come whole."""

    def position(self, engine: EngineProcess) -> str:
        """Where the next run goes on, if this one ends at the last boundary."""

    def acknowledge(self, position: str) -> None:
        """Let the source forget what lies before `position`."""

    def notices(self) -> Sequence[Notice]:
        """What an operator wants to know of the source."""


def address(source: Engine, where: str) -> dict[str, str]:
    """Where Debezium finds the server, and as whom.

    Raises:
        ConfigError: Java's drivers cannot go there.
    """
    url = source.url
    host = url.host or str(url.query.get("host") or "")
    if not host or host.startswith("/") or "unix_socket" in url.query:
        raise ConfigError(
            f"{where}: Java's drivers know no Unix sockets. Name a host and a port in the URL of the source "
            "(and let the server listen there)."
        )
    found = {"database.hostname": host, "database.user": url.username or "", "database.password": url.password or ""}
    return found | ({"database.port": str(url.port)} if url.port else {})


def pattern(*names: str) -> str:
    """A regular expression of Java's, in a list separated by commas, for exactly these names joined by dots."""
    return "[.]".join(re.sub(r"([^\w])", r"\\\1", name) for name in names)


def further_jars(jars: str | None) -> Path | None:
    """The folder of that name."""
    return None if jars is None else Path(jars)
