"""Debezium's engine in a process of its own: `python -m tasks.extract.debezium_log.engine`.

A JVM cannot be started twice in a process, takes its signals, and would take a flow down with it. So it lives here.
The first line of standard input says what to do, as JSON; passwords come that way and no other. What the engine tells
goes to standard output in frames, see `frames.py`; a pipe that is full holds the engine up. The process ends
with its parent, at whose end standard input ends.
"""

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.extract.debezium_log.frames import Kind, frame

_LOGGING = """\
status = error
appender.err.type = Console
appender.err.name = err
appender.err.target = SYSTEM_ERR
appender.err.layout.type = PatternLayout
appender.err.layout.pattern = %d %p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRef.err.ref = err
"""
# Small and quick to start: what comes is handed on at once, and the pipe holds the engine up.
_OPTIONS = ["-Xms32m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xrs"]


def main() -> None:
    """Run the engine until it fails, or whoever reads has had enough."""
    import jpype

    # Whatever a library prints must not end up among the frames.
    frames = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    work = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def send(kind: Kind, payload: bytes) -> None:
        try:
            frames.write(frame(kind, payload))
            frames.flush()
        except BrokenPipeError:
            os._exit(0)

    try:
        _start_jvm(work["jars"], Path(work["folder"]), work["memory"])
        _run(work["properties"], work["offset"], work["told"], send)
    except jpype.JVMNotFoundException as error:
        send("E", json.dumps([{"class": "JVMNotFoundException", "message": str(error)}]).encode())
    except jpype.JException as error:
        send("E", json.dumps(_causes(error)).encode())
    # Other threads of the JVM would keep the process.
    os._exit(0)


def _end_with_parent() -> None:
    while sys.stdin.buffer.read(1 << 16):
        pass
    os._exit(0)


def _start_jvm(jars: list[str], folder: Path, memory: str) -> None:
    import jpype

    logging = folder / "log4j2.properties"
    logging.write_text(_LOGGING)
    options = [*_OPTIONS, f"-Xmx{memory}", f"-Dlog4j.configurationFile={logging}", f"-Djava.io.tmpdir={folder}"]
    jpype.startJVM(*options, classpath=jars)


def _run(
    properties: dict[str, str], offset: dict[str, Any] | None, told: list[str], send: Callable[[Kind, bytes], None]
) -> None:
    import jpype

    if offset is not None:
        _write_offset(properties, offset)
    builder = jpype.JClass("io.debezium.engine.DebeziumEngine").create(jpype.JClass("io.debezium.embedded.Connect"))
    wanted = jpype.JClass("java.util.Properties")()
    for name, value in properties.items():
        wanted.setProperty(name, value)

    def completed(success: bool, message: Any, error: Any) -> None:
        if not success:
            send("E", json.dumps(_causes(error) or [{"class": "", "message": str(message)}]).encode())

    callback = jpype.JProxy("io.debezium.engine.DebeziumEngine$CompletionCallback", dict={"handle": completed})
    consumer = jpype.JProxy(
        "io.debezium.engine.DebeziumEngine$ChangeConsumer",
        dict={"handleBatch": _Records(told, send).handle, "supportsTombstoneEvents": lambda: True},
    )
    engine = builder.using(wanted).using(callback).notifying(consumer).build()
    engine.run()


def _write_offset(properties: dict[str, str], offset: dict[str, Any]) -> None:
    """The file that the engine reads its offset from; nothing is ever written to it after this."""
    import jpype

    def octets(value: Any) -> Any:
        return jpype.JArray(jpype.JByte)(json.dumps(value, separators=(",", ":")).encode())

    entries = jpype.JClass("java.util.HashMap")()
    entries.put(octets([properties["name"], {"server": properties["topic.prefix"]}]), octets(offset))
    file = jpype.JClass("java.io.FileOutputStream")(properties["offset.storage.file.filename"])
    stream = jpype.JClass("java.io.ObjectOutputStream")(file)
    stream.writeObject(entries)
    stream.close()


class _Records:
    """Turns the engine's records into frames. A schema is sent once, before the first record that has it."""

    def __init__(self, told: list[str], send: Callable[[Kind, bytes], None]) -> None:
        import jpype

        settings = jpype.JClass("java.util.HashMap")()
        # Else a NULL in a column that has a default would come as the default.
        settings.put("replace.null.with.default", "false")
        settings.put("schemas.enable", "false")
        self._values = jpype.JClass("org.apache.kafka.connect.json.JsonConverter")()
        self._values.configure(settings, False)
        self._send = send
        self._told = frozenset(told)
        self._schemas: dict[str, Any] = {}

    def handle(self, records: Any, _committer: Any) -> None:
        """A batch, in order. Nothing is ever marked as processed: offsets are committed elsewhere, with the data."""
        lines: list[bytes] = []
        for event in records:
            record = event.value()
            value = record.value()
            if value is None:
                continue
            schema, topic = record.valueSchema(), str(record.topic())
            known = self._schemas.get(topic)
            if known is None or not schema.equals(known):
                self._flush(lines)
                self._schemas[topic] = schema
                described = str(self._values.asJsonSchema(schema).toString())
                self._send("S", topic.encode() + b"\n" + described.encode())
            lines.append(
                topic.encode() + b"\n" + self._offset(topic, record) + b"\n"
                + bytes(self._values.fromConnectData(topic, schema, value))
            )  # fmt: skip
        self._flush(lines)

    def _flush(self, lines: list[bytes]) -> None:
        if lines:
            self._send("R", b"\n".join(lines))
            lines.clear()

    def _offset(self, topic: str, record: Any) -> bytes:
        """As JSON, where it is asked for: a row's change may stand amid a transaction, where nobody stops."""
        if topic not in self._told or record.sourceOffset() is None:
            return b""
        return bytes(self._values.fromConnectData(topic, None, record.sourceOffset()))


def _causes(error: Any) -> list[dict[str, Any]]:
    """Class, message and codes of an exception and of what caused it."""
    import jpype

    found: list[dict[str, Any]] = []
    sql = jpype.JClass("java.sql.SQLException")
    while error is not None and len(found) < 10:
        cause: dict[str, Any] = {"class": str(error.getClass().getName()), "message": str(error.getMessage())}
        if isinstance(error, sql):
            cause["state"] = str(error.getSQLState() or "")
        found.append(cause)
        error = error.getCause()
    return found


if __name__ == "__main__":
    main()
