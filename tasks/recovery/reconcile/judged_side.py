"""`JudgedSide`: a source whose rows go through the pipeline's own transform and contract before they are compared."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from tasks.connections import engine
from tasks.declaration import Pipeline
from tasks.dialects import dialect_of
from tasks.dialects.checksum.canonical import Family, canonical, digest, joined, number, value_of
from tasks.errors import SourceError, SourceUnavailable
from tasks.extract.changes import Extract
from tasks.extract.deleted import with_operations
from tasks.extract.table import TableExtract
from tasks.recovery.reconcile.blocks import Block, Level, Total, windows_of
from tasks.recovery.reconcile.table_side import Texts, block_of
from tasks.running.assembly import Assembly
from tasks.state.staged import DELETED
from tasks.transform.changes import judge_changes
from tasks.transform.contract import Judged
from tasks.transform.whole_window import WholeWindow
from tasks.window import Window

_KEYS = 500


@dataclass
class JudgedSide:
    """One side of a comparison; a batch of it is in memory at a time.

    Attributes:
        pipeline: whose transform and contract.
        parts: the pipeline's.
        extract: what is read.
        families: the columns that are compared, and the families of their types; those of the key first.
        key: how many of them are the key.
        cursor: the column that the blocks go by, or None.
        summed: the columns that the checksums are of.
        window: the slice of the cursor that is compared.
        by_window: whether the window of a block is all that has to be read for its rows.
        read: raw rows that have been read so far.
        asked: the keys that the source has raw rows of, as far as it was asked by key.
    """

    pipeline: Pipeline
    parts: Assembly
    extract: Extract
    families: Mapping[str, Family]
    key: int
    cursor: str | None
    summed: Sequence[str]
    window: Window
    by_window: bool
    read: int = field(default=0)
    asked: set[Texts] = field(default_factory=set)

    def totals(self, level: Level, within: Sequence[Block] | None) -> dict[Block, Total]:
        """Rows and checksum of every block of `level`; everything is read, and 16 bytes are kept of each block."""
        names = list(self.families)
        places = [names.index(name) for name in self.summed]
        kinds = [self.families[name] for name in self.summed]
        known = None if within is None else set(within)
        coarser = None if not within else Level(len(within[0].time), len(within[0].digits))
        found: dict[Block, Total] = {}
        for row in self._judged([self.window]):
            block = self._block(row, level)
            if known is None or (coarser is not None and block.within(coarser) in known):
                hashed = number(digest(joined([row[place] for place in places], kinds)))
                known_so_far = found.get(block, Total())
                found[block] = Total(known_so_far.rows + 1, known_so_far.checksum + hashed)
        return found

    def rows(self, level: Level, blocks: Sequence[Block]) -> Iterator[Texts]:
        """The rows of some blocks of `level`."""
        wanted = set(blocks)
        windows = windows_of(blocks) if self.by_window and level.time else [self.window]
        return (row for row in self._judged(windows) if self._block(row, level) in wanted)

    def rows_with(self, keys: Sequence[Texts]) -> Iterator[Texts] | None:
        """The rows of some keys, wherever they lie now; None where the source cannot be asked by key."""
        extract, names = self.extract, list(self.families)[: self.key]
        if not isinstance(extract, TableExtract) or extract.table is None:
            return None
        source = engine(extract.connection)
        relation = dialect_of(source).relation(source, extract.table)
        if any(name not in relation.c for name in names):
            return None
        return self._asked(extract, relation, names, keys)

    def _asked(
        self, extract: TableExtract, relation: object, names: Sequence[str], keys: Sequence[Texts]
    ) -> Iterator[Texts]:
        source = engine(extract.connection)
        dialect = dialect_of(source)
        where = f"{self.pipeline.name}: the source {extract.connection!r}, {extract.dataset}"
        with (
            dialect.translated(where, SourceUnavailable, SourceError),
            dialect.reader(source, relation, names) as reader,
        ):
            for start in range(0, len(keys), _KEYS):
                page = keys[start : start + _KEYS]
                columns = {
                    name: pa.array([value_of(key[place], self.families[name]) for key in page])
                    for place, name in enumerate(names)
                }
                for batch in reader.rows_with(pa.table(columns)):
                    self.asked |= set(self._keys(batch, names))
                    rows = batch if extract.deleted is None else with_operations(batch, extract.deleted)
                    yield from self._texts(self._judge(rows, 0))

    def _keys(self, batch: pa.Table, names: Sequence[str]) -> Iterator[Texts]:
        kinds = [self.families[name] for name in names]
        columns = [batch.column(name).to_pylist() for name in names]
        for values in zip(*columns, strict=True):
            yield tuple(canonical(value, family) for value, family in zip(values, kinds, strict=True))

    def _judged(self, windows: Sequence[Window]) -> Iterator[Texts]:
        for window in windows:
            batches = self.extract.batches(window)
            if isinstance(self.pipeline.transform, WholeWindow):
                batches = self.pipeline.transform.gathered(batches, self.pipeline.name)
            first = 0
            for batch in batches:
                yield from self._texts(self._judge(batch, first))
                first += batch.num_rows
                self.read += batch.num_rows

    def _judge(self, batch: pa.Table, first: int) -> Judged:
        contract = self.parts.contract
        return judge_changes(contract, batch, first) if self.extract.tells_deletes else contract.judge(batch, first)

    def _texts(self, judged: Judged) -> Iterator[Texts]:
        rows = judged.valid
        if DELETED in rows.column_names:
            rows = rows.filter(pc.invert(rows.column(DELETED)))
        columns = [
            [canonical(value, family) for value in rows.column(name).to_pylist()]
            for name, family in self.families.items()
        ]
        return zip(*columns, strict=True) if rows.num_rows else iter(())

    def _block(self, row: Texts, level: Level) -> Block:
        names = list(self.families)
        cursor = None if self.cursor is None else names.index(self.cursor)
        return block_of(row, level, list(self.families.values()), self.key, cursor)
