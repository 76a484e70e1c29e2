"""`Decoder`: messages of PostgreSQL's `pgoutput` plugin as batches of changes.

The messages are those of protocol version 1 in PostgreSQL's manual, "Logical Replication Message Formats". A batch of
them is taken apart with numpy, so that no Python object is made for a row.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.change_columns import BEFORE, COMMITTED_AT, OPERATION, POSITION
from tasks.errors import SourceError
from tasks.extract.transaction_log.tuples import Bytes, Places, Tuples, big_endian
from tasks.extract.transaction_log.types import typed

_BEGIN, _COMMIT, _RELATION, _INSERT, _UPDATE, _DELETE, _TRUNCATE = (ord(letter) for letter in "BCRIUDT")
_KEY, _OLD, _NEW = (ord(letter) for letter in "KON")
_EPOCH = 946_684_800_000_000
"""Microseconds from Unix's epoch to PostgreSQL's."""

_PADDING = np.zeros(8, dtype=np.uint8)

Reread = Callable[["Relation", pa.Table, list[str]], pa.Table]
"""Columns of the rows with some keys as the source has them now, as text: the keys, then the columns."""


@dataclass(frozen=True)
class Relation:
    """A table as the log describes it before its first row, and again when it has changed.

    Attributes:
        oid: its number.
        schema: its schema.
        name: its name.
        columns: names, in order.
        types: number and modifier of each one's type.
    """

    oid: int
    schema: str
    name: str
    columns: tuple[str, ...]
    types: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, message: bytes) -> "Relation":
        """From a message `R`."""
        (oid,) = struct.unpack_from(">I", message, 1)
        schema, name, rest = message[5:].split(b"\0", 2)
        (count,) = struct.unpack_from(">H", rest, 1)
        columns, types, place = [], [], 3
        for _ in range(count):
            end = rest.index(b"\0", place + 1)
            columns.append(rest[place + 1 : end].decode())
            number, modifier = struct.unpack_from(">Ii", rest, end + 1)
            types.append((number, modifier))
            place = end + 9
        return cls(oid, schema.decode() or "pg_catalog", name.decode(), tuple(columns), tuple(types))


class Decoder:
    """Decodes the messages of one slot, in order; transactions may span batches.

    Args:
        schema: schema of the table to follow; the rows of others are passed over.
        table: its name.
        key: columns that identify a row.
        reread: asks the source for values that an update did not change and the log left out.

    Attributes:
        position: end of the last transaction seen, a log sequence number; 0 before the first.
        committed_at: when it committed, microseconds since 1970 UTC.
        changes: changes decoded.
    """

    def __init__(self, schema: str, table: str, key: Sequence[str], reread: Reread) -> None:
        self._table = (schema, table)
        self._key = tuple(key)
        self._reread = reread
        self._relation: Relation | None = None
        self._messages = 0
        # Of the transaction that the next message belongs to: commit LSN, commit time, number of its first message.
        self._transaction = (0, 0, 0)
        self.position = 0
        self.committed_at = 0
        self.changes = 0

    def decode(self, messages: pa.BinaryArray) -> Iterator[pa.Table]:
        """The changes that a batch of messages tells, in order; a new table for each shape the rows have."""
        offsets, data = _buffers(messages)
        kinds = data[offsets[:-1]]
        begins = np.flatnonzero(kinds == _BEGIN)
        lsns = np.append(self._transaction[0], big_endian(data, offsets[begins] + 1, 8))
        times = np.append(self._transaction[1], big_endian(data, offsets[begins] + 9, 8) + _EPOCH)
        firsts = np.append(self._transaction[2], begins + self._messages)
        start = 0
        for place in [*np.flatnonzero((kinds == _RELATION) | (kinds == _TRUNCATE)).tolist(), len(kinds)]:
            rows = start + np.flatnonzero(np.isin(kinds[start:place], (_INSERT, _UPDATE, _DELETE)))
            if self._relation is not None and len(rows):
                rows = rows[big_endian(data, offsets[rows] + 1, 4) == self._relation.oid]
            if self._relation is not None and len(rows):
                changes = self._rows(data, offsets[rows], kinds[rows], rows)
                yield self._stamped(changes, begins, lsns, times, firsts)
            if place < len(kinds):
                message = data[offsets[place] : offsets[place + 1]].tobytes()
                if kinds[place] == _RELATION:
                    self._describe(Relation.parse(message))
                elif self._is_ours(message):
                    marker = pa.table({OPERATION: ["truncate"], "row": [place], BEFORE: pa.nulls(1)})
                    yield self._stamped(marker, begins, lsns, times, firsts)
            start = place + 1
        self._remember(data, offsets, kinds, (int(lsns[-1]), int(times[-1]), int(firsts[-1])))

    def _describe(self, relation: Relation) -> None:
        if (relation.schema, relation.name) != self._table:
            return
        missing = [name for name in self._key if name not in relation.columns]
        if missing:
            raise SourceError(
                f"The table {'.'.join(self._table)} lost its key column {', '.join(missing)} after "
                f"{lsn_text(self.position)}; its columns are {', '.join(relation.columns)}. Declare the new key, and "
                "run with full_refresh."
            )
        self._relation = relation

    def _is_ours(self, truncate: bytes) -> bool:
        (count,) = struct.unpack_from(">I", truncate, 1)
        return self._relation is not None and self._relation.oid in struct.unpack_from(f">{count}I", truncate, 6)

    def _remember(self, data: Bytes, offsets: Places, kinds: Bytes, transaction: tuple[int, int, int]) -> None:
        commits = np.flatnonzero(kinds == _COMMIT)
        if len(commits):
            last = offsets[commits[-1:]]
            self.position = int(big_endian(data, last + 10, 8)[0])
            self.committed_at = int(big_endian(data, last + 18, 8)[0]) + _EPOCH
        self._transaction = transaction
        self._messages += len(kinds)

    def _rows(self, data: Bytes, begins: Places, kinds: Bytes, rows: Places) -> pa.Table:
        """Changes of the current relation, with the number of their message in `row`, and without position and time."""
        assert self._relation is not None
        relation, count = self._relation, len(self._relation.columns)
        submessage = data[begins + 5]
        told = np.flatnonzero((submessage == _KEY) | (submessage == _OLD))
        old = Tuples.parse(data, begins[told] + 6, count)
        new_begins = begins + 6
        new_begins[told] = old.ends + 1
        written = np.flatnonzero(kinds != _DELETE)
        new = Tuples.parse(data, new_begins[written], count)
        old_texts = [old.texts(column) for column in range(count)]
        new_texts = [new.texts(column) for column in range(count)]

        # For each row message its place among the old tuples and among the new ones; -1 where it has none.
        old_of, new_of = np.full(len(rows), -1), np.full(len(rows), -1)
        old_of[told], new_of[written] = np.arange(len(told)), np.arange(len(written))
        rekeyed = np.zeros(len(rows), dtype=bool)
        both = told[kinds[told] == _UPDATE]
        rekeyed[both] = self._key_differs(old_texts, new_texts, new, old_of[both], new_of[both])

        gone = np.flatnonzero((kinds == _DELETE) | rekeyed)
        # A delete stands before the insert that the same message makes.
        order = np.argsort(np.concatenate([2 * gone, 2 * written + 1]), kind="stable")
        source = np.concatenate([gone, written])[order]
        deleted = (np.arange(len(order)) < len(gone))[order]
        operation = np.where(deleted, 0, np.where((kinds[source] == _INSERT) | rekeyed[source], 1, 2))
        picked = np.where(deleted, old_of[source], len(told) + new_of[source])
        texts = [pa.concat_arrays([before, after]) for before, after in zip(old_texts, new_texts, strict=True)]
        texts = [column.take(pa.array(picked)) for column in texts]
        unsent = {
            column: np.flatnonzero(~deleted & np.append(np.zeros(len(told), bool), new.unchanged(column))[picked])
            for column in range(count)
        }
        unsent = {column: places for column, places in unsent.items() if len(places)}
        texts, kept = self._filled(relation, texts, unsent, old_texts, old_of[source])
        described = zip(relation.columns, texts, relation.types, strict=True)
        columns = {name: typed(column, *kind) for name, column, kind in described}
        columns[OPERATION] = pa.array(["delete", "insert", "update"]).take(pa.array(operation))
        columns[BEFORE] = self._before(relation, old_texts, np.where(deleted | ~rekeyed[source], old_of[source], -1))
        columns["row"] = pa.array(rows[source])
        self.changes += len(order)
        changes = pa.table(columns)
        return changes if kept is None else changes.filter(pa.array(kept))

    def _key_differs(
        self, old: list[pa.Array], new: list[pa.Array], tuples: Tuples, old_of: Places, new_of: Places
    ) -> npt.NDArray[np.bool_]:
        assert self._relation is not None
        differs = np.zeros(len(old_of), dtype=bool)
        for column in (self._relation.columns.index(name) for name in self._key):
            same = pc.equal(old[column].take(pa.array(old_of)), new[column].take(pa.array(new_of)))
            differs |= ~(np.asarray(same.fill_null(False)) | tuples.unchanged(column)[new_of])
        return differs

    def _filled(
        self, relation: Relation, texts: list[pa.Array], unsent: dict[int, Places], old: list[pa.Array], old_of: Places
    ) -> tuple[list[pa.Array], npt.NDArray[np.bool_] | None]:
        """`texts` with what the log left out, and which rows to keep; None keeps all.

        Under `REPLICA IDENTITY FULL` the old tuple has the value. Else the source is asked for its current one: a later
        change of it is further on in the log, and a row that is not there any more is deleted further on.
        """
        if not unsent:
            return texts, None
        keep = np.ones(len(old_of), dtype=bool)
        for column, places in unsent.items():
            known = np.flatnonzero(old_of[places] >= 0)
            if len(known):
                values = old[column].take(pa.array(old_of[places[known]]))
                texts[column] = _put(texts[column], places[known], values)
        asked = {
            column: places[np.asarray(texts[column].take(pa.array(places)).is_null())]
            for column, places in unsent.items()
        }
        asked = {column: places for column, places in asked.items() if len(places)}
        if not asked:
            return texts, None
        rows = np.unique(np.concatenate(list(asked.values())))
        keys = pa.table({name: texts[relation.columns.index(name)].take(pa.array(rows)) for name in self._key})
        wanted = [relation.columns[column] for column in asked]
        found = self._reread(relation, keys, wanted)
        matched = _matched(keys, found, self._key)
        keep[rows[matched < 0]] = False
        for column, places in asked.items():
            there = matched[np.searchsorted(rows, places)]
            values = found.column(relation.columns[column]).take(pa.array(there[there >= 0])).combine_chunks()
            texts[column] = _put(texts[column], places[there >= 0], values)
        return texts, keep

    def _before(self, relation: Relation, old: list[pa.Array], old_of: Places) -> pa.Array:
        """The old tuples as structs; -1 is none."""
        picked = pa.array(old_of, mask=old_of < 0)
        values = [typed(column, *kind).take(picked) for column, kind in zip(old, relation.types, strict=True)]
        fields = [pa.field(name, value.type) for name, value in zip(relation.columns, values, strict=True)]
        return pa.StructArray.from_arrays(values, fields=fields, mask=pa.array(old_of < 0))

    def _stamped(self, changes: pa.Table, begins: Places, lsns: Places, times: Places, firsts: Places) -> pa.Table:
        """`changes` with position and commit time instead of `row`."""
        rows = changes.column("row").to_numpy()
        of = np.searchsorted(begins, rows, side="right")
        numbers = pa.array(rows + self._messages - firsts[of])
        prefixes = pa.array([f"{lsn:016X}/" for lsn in lsns.tolist()]).take(pa.array(of))
        position = pc.binary_join_element_wise(prefixes, pc.utf8_lpad(pc.cast(numbers, pa.string()), 10, "0"), "")
        committed = pa.array(times[of]).cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))
        return changes.drop_columns("row").append_column(POSITION, position).append_column(COMMITTED_AT, committed)


def lsn_text(lsn: int) -> str:
    """A log sequence number as PostgreSQL writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def lsn_number(text: str) -> int:
    """A log sequence number from PostgreSQL's text of it."""
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) | int(low, 16)


def _buffers(messages: pa.BinaryArray) -> tuple[Places, Bytes]:
    """Where each message begins, with the end of the last one, and the bytes."""
    _, offsets, data = messages.buffers()
    width = np.int32 if pa.types.is_binary(messages.type) else np.int64
    places = np.frombuffer(offsets, width)[messages.offset : messages.offset + len(messages) + 1].astype(np.int64)
    content = np.frombuffer(data, np.uint8)[places[0] : places[-1]]
    return places - places[0], np.concatenate([content, _PADDING])


def _put(column: pa.Array, places: Places, values: pa.Array) -> pa.Array:
    """`column` with `values` at `places`."""
    picked = np.arange(len(column))
    picked[places] = len(column) + np.arange(len(places))
    return pa.concat_arrays([column, values]).take(pa.array(picked))


def _matched(keys: pa.Table, found: pa.Table, key: Sequence[str]) -> Places:
    """For each of `keys` its row in `found`, or -1."""
    known = {
        row: place for place, row in enumerate(zip(*(found.column(name).to_pylist() for name in key), strict=True))
    }
    asked = zip(*(keys.column(name).to_pylist() for name in key), strict=True)
    return np.array([known.get(row, -1) for row in asked], dtype=np.int64)
