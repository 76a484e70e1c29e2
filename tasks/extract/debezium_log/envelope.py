"""`EnvelopeDecoder`: Debezium's change events as batches of changes.

An event is what Debezium's documentation calls the envelope: `before`, `after`, `source`, `op`; in JSON, with Kafka
Connect's `schema` beside the `payload` or without it. What else Debezium writes is passed over: tombstones, heartbeats,
transactions, schema changes, notifications, messages.
"""

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa

from tasks.change_columns import BEFORE, COMMITTED_AT, OPERATION, POSITION
from tasks.column_types import UTC_TIMESTAMP
from tasks.errors import SourceError
from tasks.extract.debezium_log.types import DECIMAL, Schema, typed

UNAVAILABLE = "__debezium_unavailable_value"
"""What stands for a long value that an update did not change and PostgreSQL's log left out, unless configured."""

Row = dict[str, Any]
Fields = Mapping[str, Schema]

Reread = Callable[[list[Row], Mapping[str, Schema | None]], list[Row | None]]
"""Columns of the rows with some keys as the source has them now, in the form of Debezium's JSON or as Python's values.
The keys are Python's values. None for a row that is not there any more."""

_OPERATIONS = {"c": "insert", "r": "insert", "u": "update", "d": "delete", "t": "truncate"}
# A binlog with whole row images is what these demand.
_TELL_ALL = ("mysql", "mariadb")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Event:
    """A change event.

    Attributes:
        payload: the envelope.
        fields: schema of each column, in order; None where the event carries none.
        position: see `EnvelopeDecoder.position`; None until it is known.
    """

    payload: Row
    fields: Fields | None
    position: str | None = None

    @property
    def source(self) -> Row:
        """Where it comes from."""
        return self.payload.get("source") or {}

    @property
    def snapshot(self) -> bool:
        """Whether it is a row of a whole snapshot, not of one that runs beside the changes."""
        return self.payload["op"] == "r" and self.source.get("snapshot") != "incremental"


def parsed(event: bytes | str | Mapping[str, Any] | None, where: str) -> Event | None:
    """An event from JSON, or from what JSON says; None where it is no change.

    Raises:
        SourceError: it is no JSON, or no envelope: what `ExtractNewRecordState` makes has lost what a change needs.
    """
    if event is None:
        return None
    if isinstance(event, Mapping):
        return _event(event, where)
    if not event.strip():
        return None
    try:
        found = _event(orjson.loads(event), where)
        if found is not None and _has_float_decimal(found):
            found = _event(json.loads(event, parse_float=Decimal), where)
    except ValueError as error:
        raise SourceError(f"{where}: no JSON ({error}). One event a line is expected.") from error
    return found


def row_fields(schema: Schema) -> Fields:
    """The columns that an envelope's schema tells of.

    Raises:
        KeyError: it is no envelope's.
    """
    for field in schema["fields"]:
        if field.get("field") in ("after", "before") and "fields" in field:
            return {column["field"]: column for column in field["fields"]}
    raise KeyError("after")


def _event(event: Any, where: str) -> Event | None:
    fields = None
    if isinstance(event, Mapping) and "payload" in event and "op" not in event:
        schema, event = event.get("schema"), event["payload"]
        if isinstance(event, str):
            return parsed(event, where)
        if isinstance(schema, Mapping) and isinstance(event, Mapping) and "op" in event and event["op"] != "m":
            fields = row_fields(schema)
    if event is None:
        return None
    if not isinstance(event, Mapping):
        raise SourceError(f"{where}: {type(event).__name__} is no change event of Debezium's.")
    operation = event.get("op")
    if operation in _OPERATIONS:
        return Event(dict(event), fields)
    if operation == "m" or _is_other(event):
        return None
    raise SourceError(
        f"{where}: no envelope of Debezium's; it has {', '.join(map(repr, list(event)[:8])) or 'nothing'}, and op is "
        f"{operation!r}. Keep the whole event: no ExtractNewRecordState, no other transformation of the value."
    )


def _is_other(event: Mapping[str, Any]) -> bool:
    """Whether it is a schema change, a transaction's begin or end, a notification or a heartbeat."""
    known = ({"ddl"}, {"tableChanges"}, {"status", "id"}, {"aggregate_type"})
    return any(names <= event.keys() for names in known) or set(event) <= {"ts_ms"}


def _has_float_decimal(event: Event) -> bool:
    """Whether a decimal was written as a number (`decimal.format=NUMERIC`), of which a float keeps 16 digits."""
    for name, schema in (event.fields or {}).items():
        if schema.get("name") == DECIMAL:
            for row in (event.payload.get("before"), event.payload.get("after")):
                if row and isinstance(row.get(name), float):
                    return True
    return False


@dataclass
class EnvelopeDecoder:
    """Decodes events of one table, in order.

    Attributes:
        key: columns that identify a row; none, where a change of the key comes as two events anyway.
        where: the source, as a message begins.
        full_before: whether `before` is the whole row. Under PostgreSQL's default replica identity it has the key only,
            and what Debezium puts into the others is made up.
        unavailable: what stands for a value that was left out.
        reread: asks the source for such values; None where there is nobody to ask.
    """

    key: Sequence[str]
    where: str
    full_before: bool
    unavailable: str = UNAVAILABLE
    reread: Reread | None = None

    def __post_init__(self) -> None:
        text = self.unavailable
        octets = base64.b64encode(text.encode()).decode()
        # As Debezium writes it for texts, bytes and maps as text, for arrays of texts and of numbers, and for maps.
        self._texts = {text, octets, json.dumps({text: text}), json.dumps({text: text}, separators=(",", ":"))}
        self._nested: list[Any] = [[text], list(text.encode()), {text: text}]
        self._place = ""
        self._same_place = 0

    def decode(self, events: Sequence[Event]) -> Iterator[pa.Table]:
        """The changes that the events tell, in order; a new table for each shape the rows have.

        Raises:
            SourceError: an event lacks what its operation needs.
        """
        start = 0
        while start < len(events):
            end, fields = start + 1, events[start].fields
            while end < len(events) and (events[end].fields is fields or events[end].fields == fields):
                end += 1
            yield self._table(events[start:end], fields)
            start = end

    def position(self, event: Event) -> str:
        """Where in the source's log it stands; a later event's compares greater."""
        place = source_position(event.source)
        self._same_place = self._same_place + 1 if place == self._place else 0
        self._place = place
        return f"{place}/{self._same_place:010}"

    def _table(self, events: Sequence[Event], fields: Fields | None) -> pa.Table:
        changes = [change for event in events for change in self._changes(event)]
        names = list(fields) if fields is not None else _names(changes)
        changes = self._completed(changes, names, fields)
        columns: dict[str, pa.Array] = {}
        befores: list[pa.Array] = []
        for name in names:
            schema = fields[name] if fields is not None else None
            rows, old = ([(row or {}).get(name) for row in kind] for kind in _rows(changes))
            both = typed([*rows, *old], schema)
            columns[name] = both[: len(rows)]
            befores.append(both[len(rows) :])
        told = pa.array([change.before is None for change in changes], pa.bool_())
        columns[OPERATION] = pa.array([change.operation for change in changes], pa.string())
        columns[BEFORE] = (
            pa.StructArray.from_arrays(befores, names=names, mask=told) if names else pa.nulls(len(changes))
        )
        columns[POSITION] = pa.array([change.position for change in changes], pa.string())
        columns[COMMITTED_AT] = pa.array([change.committed_at for change in changes], UTC_TIMESTAMP)
        return pa.table(columns)

    def _changes(self, event: Event) -> Iterator["_Change"]:
        operation = _OPERATIONS[event.payload["op"]]
        before, after = event.payload.get("before"), event.payload.get("after")
        at = None if event.payload["op"] == "r" else _committed_at(event.source)
        position = event.position or self.position(event)
        full = self.full_before or event.source.get("connector") in _TELL_ALL
        if operation == "truncate":
            yield _Change("truncate", None, None, position, at)
            return
        if (after if operation != "delete" else before) is None:
            missing = "after" if operation != "delete" else "before"
            raise SourceError(
                f"{self.where}: the {operation} at {position} comes without {missing!r}, so nothing says which row it "
                "is about. On PostgreSQL give the table a replica identity, on MariaDB set binlog_row_image=FULL."
            )
        told = before if before is None or full else {name: before.get(name) for name in self.key}
        if operation == "delete":
            yield _Change("delete", told, told, position, at)
        elif operation == "update" and after and told and any(told[name] != after[name] for name in self.key):
            yield _Change("delete", told, told, position, at)
            yield _Change("insert", after, None, f"{position}+", at, told)
        else:
            yield _Change(operation, after, told if operation == "update" else None, position, at, told)

    def _completed(self, changes: list["_Change"], names: list[str], fields: Fields | None) -> list["_Change"]:
        """`changes` with the values that the log left out.

        The row before has them where it is told whole. Else the source is asked for the current ones: a later change of
        them is further on in the log, and a row that is not there any more is deleted further on.
        """
        asked: dict[int, list[str]] = {}
        for place, change in enumerate(changes):
            if change.operation in ("insert", "update") and change.row is not None:
                missing = [name for name, value in change.row.items() if self._left_out(value)]
                if missing:
                    asked[place] = missing
        if not asked:
            return changes
        for place, missing in list(asked.items()):
            change = changes[place]
            old = change.old if self.full_before and change.old is not None else {}
            change.row = {**(change.row or {}), **{name: old[name] for name in missing if name in old}}
            asked[place] = [name for name in missing if name not in old or self._left_out(old[name])]
        asked = {place: missing for place, missing in asked.items() if missing}
        if not asked:
            return changes
        wanted = [name for name in names if any(name in missing for missing in asked.values())]
        if self.reread is None or not self.key:
            raise SourceError(
                f"{self.where}: the event at {changes[min(asked)].position} leaves out {', '.join(wanted)}, a long "
                "value that the update did not change, and there is no source to read it from. ALTER TABLE the "
                "source REPLICA IDENTITY FULL (and set full_before), or read it by DebeziumExtract with a key."
            )
        columns = [
            typed([(changes[place].row or {})[name] for place in asked], fields[name] if fields is not None else None)
            for name in self.key
        ]
        keys = [dict(zip(self.key, row, strict=True)) for row in zip(*(c.to_pylist() for c in columns), strict=True)]
        found = self.reread(keys, {name: fields[name] if fields is not None else None for name in wanted})
        gone: set[int] = set()
        for place, values in zip(asked, found, strict=True):
            if values is None:
                gone.add(place)
            else:
                change = changes[place]
                change.row = {**(change.row or {}), **{name: values[name] for name in asked[place]}}
        return [change for place, change in enumerate(changes) if place not in gone]

    def _left_out(self, value: Any) -> bool:
        if isinstance(value, str):
            return value in self._texts
        return isinstance(value, list | dict) and value in self._nested


@dataclass(slots=True)
class _Change:
    """One change: `row` is the one after it (of a delete what is told of the one before), `old` what completes it."""

    operation: str
    row: Row | None
    before: Row | None
    position: str
    committed_at: datetime | None
    old: Row | None = None


def source_position(source: Mapping[str, Any]) -> str:
    """Where in the source's log an event stands, as text that compares as the log goes.

    On PostgreSQL: where the transaction before ended, since they come in the order of their commits, then the place of
    the change. On MariaDB and MySQL: binlog file and position, and the row in the event. Elsewhere its time.
    """
    if source.get("lsn") is not None:
        lsn = int(source["lsn"])
        before = json.loads(source.get("sequence") or "[null]")[0]
        return f"{lsn if before is None else int(before):016X}/{lsn:016X}"
    if source.get("file") is not None and source.get("pos") is not None:
        file = str(source["file"]).rpartition(".")[2]
        return f"{file:0>10}/{int(source['pos']):012}/{int(source.get('row') or 0):08}"
    return f"{_microseconds(source):020}"


def _committed_at(source: Mapping[str, Any]) -> datetime | None:
    count = _microseconds(source)
    return _EPOCH + timedelta(microseconds=count) if count else None


def read_at(event: Event) -> datetime | None:
    """The source's time of a row of a snapshot; of MySQL and MariaDB to the second, as their changes have theirs."""
    at = _committed_at(event.source)
    return at.replace(microsecond=0) if at and event.source.get("connector") in ("mysql", "mariadb") else at


def _microseconds(source: Mapping[str, Any]) -> int:
    return int(source["ts_us"]) if source.get("ts_us") is not None else 1_000 * int(source.get("ts_ms") or 0)


def _rows(changes: Sequence[_Change]) -> tuple[list[Row | None], list[Row | None]]:
    return [change.row for change in changes], [change.before for change in changes]


def _names(changes: Sequence[_Change]) -> list[str]:
    """The columns of rows that carry no schema, in the order in which they appear."""
    found: dict[str, None] = {}
    for change in changes:
        found |= dict.fromkeys((*(change.row or {}), *(change.before or {})))
    return list(found)
