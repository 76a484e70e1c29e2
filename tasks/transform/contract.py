"""`Contract`: a pandera model and a transform, applied to one batch; good rows and dead letters come out.

The transform's frame carries each row's number as its index: the passport by which a rejected row finds its raw
record. Types are cast in Arrow, so that no value changes on the way; pandera checks the rules.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa
from pandera.errors import SchemaError, SchemaErrors

from tasks.change_columns import Clearing, Marker
from tasks.column_types import UTC_TIMESTAMP, storable
from tasks.errors import ContractError
from tasks.masking import NO_MASKING, Masking, has_field, hiding, shown, told
from tasks.state.staged import ROW
from tasks.transform.bisect import run_transform
from tasks.transform.columns import as_frame, cast_column, nulls
from tasks.transform.holding import FindUnheld, holds_everything, readable, set_apart
from tasks.transform.letters import letters
from tasks.transform.logical_types import Json, Uuid
from tasks.transform.lookup_join import Join, joined
from tasks.transform.reasons import Reason
from tasks.transform.rules import UtcTimestamp, arrow_type, described, fingerprint, rules_only

__all__ = ["SIBLINGS", "Contract", "Json", "Judged", "UtcTimestamp", "Uuid"]

SIBLINGS = 20
"""A row's number is its passport shifted by this many bits, plus its place among the rows exploded from it."""

_FIRST_PASSPORT = 1 << 40
"""Passports start here, so that a transform that renumbers its rows from 0 is noticed."""


@dataclass(frozen=True)
class Judged:
    """A batch after the contract.

    Attributes:
        valid: good rows in the contract's types, with `etl_row` first.
        rejected: dead letters, in the columns of `tasks.state.dead_letters.rejected_schema`.
        added: rows beyond the first that the transform made of a raw row.
        filtered: raw rows that it left out.
        markers: raw rows that are no changes of a row; see `tasks.change_columns`.
        cleared_at: `etl_row` of the last marker: rows before it are gone.
        cleared_by: what it is.
        unreadable: dead letters of what the source did not hand out; see `tasks.change_columns`.
        clearings: every marker with its time, where the rows are dated; see `Dating`.
    """

    valid: pa.Table
    rejected: pa.Table
    added: int
    filtered: int
    markers: int = 0
    cleared_at: int | None = None
    cleared_by: Marker | None = None
    unreadable: int = 0
    clearings: tuple[Clearing, ...] = ()


class Contract:
    """What a pipeline demands of its rows.

    Its `unseen` are the masked columns that neither the model nor any batch so far has; None before the first batch.

    Args:
        pipeline: its name, for messages.
        model: the pandera model.
        transform: see `Pipeline.transform`.
        key: columns that must not be NULL because they identify the row.
        cursor: column that must not be NULL because it orders versions of a row, or None.
        drops_rows: the transform may leave rows out.
        adds_rows: the transform may explode rows.
        unheld: finds the values that the target's database cannot hold.
        joins: lookups of further columns, before and after the transform.
        masking: columns whose values no dead letter and no message may tell.

    Raises:
        ContractError: a key or the cursor is not in the model.
    """

    def __init__(
        self,
        pipeline: str,
        model: type[pandera.DataFrameModel],
        transform: Callable[[pd.DataFrame], pd.DataFrame] | None = None,
        *,
        key: Sequence[str] = (),
        cursor: str | None = None,
        drops_rows: bool = False,
        adds_rows: bool = False,
        unheld: FindUnheld = holds_everything,
        joins: Sequence[Join] = (),
        masking: Masking = NO_MASKING,
    ) -> None:
        self.pipeline = pipeline
        self.transform = transform
        self.key = tuple(key)
        self.cursor = cursor
        self.drops_rows = drops_rows
        self.adds_rows = adds_rows
        self.unheld = unheld
        self.joins = tuple(joins)
        self.masking = masking
        self.unseen: set[str] | None = None
        schema = model.to_schema()
        self.columns = pa.schema(
            [
                pa.field(
                    name,
                    storable(arrow_type(pipeline, name, column.dtype)),
                    nullable=bool(column.nullable),
                    metadata=described(column),
                )
                for name, column in schema.columns.items()
            ]
        )
        for name in (*self.key, *([cursor] if cursor else [])):
            if name not in schema.columns:
                raise ContractError(
                    f"{pipeline}: {model.__name__} lacks the column {name!r}, which the load needs to tell rows and "
                    f"their versions apart. Declare it, for instance `{name}: UtcTimestamp` for a cursor."
                )
        self._optional = {name for name, column in schema.columns.items() if not column.required}
        self._rules = rules_only(schema)
        self._key_schema = pa.schema([self.columns.field(name) for name in self.key])
        self.fingerprint = fingerprint(schema, transform, [join.lookup.described for join in self.joins])

    @property
    def key_schema(self) -> pa.Schema:
        """The key columns and their types."""
        return self._key_schema

    @property
    def time_cursor(self) -> str | None:
        """The cursor, where it is an instant: dead letters are ordered by it."""
        if self.cursor is None:
            return None
        return self.cursor if self.columns.field(self.cursor).type == UTC_TIMESTAMP else None

    def judge(self, raw: pa.Table, first: int) -> Judged:
        """Transform, cast and check one batch.

        Args:
            raw: source rows.
            first: number of the first of them in the window.

        Raises:
            ContractError: a column is missing or cannot be cast, a check raises, the transform lost the index, fails
                on every row, or drops or adds rows without the pipeline declaring it.
        """
        with hiding(self.masking):
            return self._judge(raw, first)

    def _judge(self, raw: pa.Table, first: int) -> Judged:
        if self.masking:
            left = self.masking.columns - set(self.columns.names) if self.unseen is None else self.unseen
            self.unseen = {name for name in left if not has_field(raw.schema, name)}
        frame = as_frame(raw)
        frame.index = pd.RangeIndex(_FIRST_PASSPORT + first, _FIRST_PASSPORT + first + len(frame))
        frame, lacking = joined(self.joins, frame, made=False)
        out, broken = run_transform(self.transform, frame, self.pipeline)
        passports = self._passports(out.index, first, len(frame))
        distinct = len(np.unique(passports))
        added, filtered = len(passports) - distinct, len(frame) - distinct - len(broken)
        self._declared(added, filtered)
        out, reasons = joined(self.joins, out.reset_index(drop=True), made=True)
        for position in np.flatnonzero(np.isin(passports - first, list(lacking))).tolist() if lacking else ():
            reasons[position] = lacking[passports[position] - first] + reasons.get(position, [])
        rows = self._cast(out, reasons)
        self._check(rows, reasons)
        numbers = self._numbers(passports)
        bad = np.fromiter(reasons, np.int64, len(reasons))
        good = np.ones(len(passports), dtype=bool)
        good[bad] = False
        valid = rows.add_column(0, pa.field(ROW, pa.int64()), pa.array(numbers)).filter(pa.array(good))
        found = list(reasons.values())
        rejected = self._letters(raw, first, passports[bad], numbers[bad], rows.take(pa.array(bad)), found)
        if broken:
            rejected = pa.concat_tables([rejected, self._broken_letters(raw, first, broken, lacking)])
        return Judged(valid, rejected, added, filtered)

    def made(self, frame: pd.DataFrame) -> pd.DataFrame:
        """What lookups and transform make of `frame`, as it comes; its index is left to them."""
        before, _ = joined(self.joins, frame.copy(deep=False), made=False)
        return joined(self.joins, before if self.transform is None else self.transform(before), made=True)[0]

    def _passports(self, index: "pd.Index[Any]", first: int, size: int) -> npt.NDArray[np.int64]:
        known = len(index) == 0 or (
            pd.api.types.is_integer_dtype(index.dtype)
            and index.min() >= _FIRST_PASSPORT + first
            and index.max() < _FIRST_PASSPORT + first + size
        )
        if not known:
            raise ContractError(
                f"{self.pipeline}: the transform lost the frame's index, by which a bad row finds its raw record. "
                "Keep it: use ignore_index=False, and set the index again after a merge or groupby."
            )
        return np.asarray(index, dtype=np.int64) - _FIRST_PASSPORT

    def _declared(self, added: int, filtered: int) -> None:
        if filtered and not self.drops_rows:
            raise ContractError(
                f"{self.pipeline}: the transform dropped {filtered:,} rows. If it is meant to, declare "
                "Pipeline(drops_rows=True), and they count as filtered."
            )
        if added and not self.adds_rows:
            raise ContractError(
                f"{self.pipeline}: the transform made {added:,} more rows than came in. If it is meant to, declare "
                "Pipeline(adds_rows=True), and they count as added."
            )

    def _numbers(self, passports: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        siblings = pd.Series(passports).groupby(passports).cumcount().to_numpy(dtype=np.int64)
        if len(siblings) and siblings.max() >= 1 << SIBLINGS:
            raise ContractError(f"{self.pipeline}: the transform made over {1 << SIBLINGS:,} rows of one.")
        return (passports << SIBLINGS) + siblings

    def _cast(self, out: pd.DataFrame, reasons: dict[int, list[Reason]]) -> pa.Table:
        """The declared columns in their types; what cannot be cast is added to `reasons`."""
        arrays = []
        for field in self.columns:
            if field.name not in out.columns:
                if field.name not in self._optional:
                    raise ContractError(
                        f"{self.pipeline}: column {field.name!r} is missing; the columns are "
                        f"{', '.join(map(str, out.columns)) or 'none'}. Select it in the source, or make it in the "
                        "transform."
                    )
                arrays.append(pa.nulls(len(out), field.type))
                continue
            column = cast_column(out[field.name], field.type, self.pipeline)
            arrays.append(column.values)
            for position, value in column.failed.items():
                reason = {"rule": f"is {field.type}", "column": field.name, "value": value}
                reasons.setdefault(position, []).append(reason)
        fields = [field.with_nullable(True).remove_metadata() for field in self.columns]
        rows, unheld = set_apart(pa.Table.from_arrays(arrays, schema=pa.schema(fields)), self.unheld)
        for position, found in unheld:
            reasons.setdefault(position, []).append(found)
        return rows

    def _check(self, rows: pa.Table, reasons: dict[int, list[Reason]]) -> None:
        """Add to `reasons` every rule that a row broke."""
        uncast = {(position, reason["column"]) for position, found in reasons.items() for reason in found}
        for name in {*self.key, *([self.cursor] if self.cursor else [])}:
            for position in np.flatnonzero(nulls(rows.column(name))).tolist():
                if (position, name) not in uncast:
                    rule = "key is not null" if name in self.key else "cursor is not null"
                    reasons.setdefault(position, []).append({"rule": rule, "column": name, "value": None})
                    uncast.add((position, name))
        try:
            self._rules.validate(as_frame(rows), lazy=True)
        except SchemaErrors as errors:
            for error in errors.schema_errors:
                self._gather(error, rows, reasons, uncast)

    def _gather(
        self, error: SchemaError, rows: pa.Table, reasons: dict[int, list[Reason]], uncast: set[tuple[int, str]]
    ) -> None:
        cases = error.failure_cases
        name = error.schema.name if error.schema is not self._rules else None
        rule = str(getattr(error.check, "error", None) or error.check)
        if not isinstance(cases, pd.DataFrame) or "index" not in cases or cases["index"].isna().any():
            raise ContractError(
                f"{self.pipeline}: the check {rule} of {f'column {name!r}' if name else 'the frame'} does not judge "
                f"rows but fails itself: {cases if isinstance(cases, str) else shown(_first_case(cases))}. "
                "Mend the check; the columns it sees are Arrow-backed pandas columns."
            ) from error
        for position in cases["index"].astype(int).drop_duplicates():
            if name is not None and (position, name) in uncast:
                continue
            value = readable(rows.column(name)[position]) if name else rows.slice(position, 1).to_pylist()[0]
            reasons.setdefault(position, []).append({"rule": rule, "column": name, "value": value})

    def _letters(
        self,
        raw: pa.Table,
        first: int,
        passports: npt.NDArray[np.int64],
        numbers: npt.NDArray[np.int64],
        rows: pa.Table,
        reasons: Sequence[Sequence[Reason]],
    ) -> pa.Table:
        cursors = rows.column(self.time_cursor) if self.time_cursor else pa.nulls(len(rows), UTC_TIMESTAMP)
        keys = [rows.column(name) for name in self.key]
        return letters(raw, (passports - first).tolist(), numbers, keys, cursors, reasons, self.masking)

    def _broken_letters(
        self, raw: pa.Table, first: int, broken: dict[int, Exception], lacking: dict[int, list[Reason]]
    ) -> pa.Table:
        """Dead letters of rows on which the transform raised; their key is taken from the raw row, where it has one."""
        positions = [passport - _FIRST_PASSPORT - first for passport in broken]
        picked = as_frame(raw.take(pa.array(positions, pa.int64())))
        known: dict[str, pa.Array] = {}
        for name in (*self.key, *([self.cursor] if self.cursor else [])):
            kind = self.columns.field(name).type
            try:
                known[name] = cast_column(picked[name], kind, self.pipeline).values
            except (KeyError, ContractError):
                known[name] = pa.nulls(len(positions), kind)
        keys, _ = set_apart(pa.table(known), self.unheld)
        reasons = [
            [*lacking.get(position, []), {"rule": "transform", "column": None, "value": told(error)}]
            for position, error in zip(positions, broken.values(), strict=True)
        ]
        numbers = np.array([(first + position) << SIBLINGS for position in positions], dtype=np.int64)
        cursors = keys.column(self.time_cursor) if self.time_cursor else pa.nulls(len(positions), UTC_TIMESTAMP)
        names = [keys.column(name) for name in self.key]
        return letters(raw, positions, numbers, names, cursors, reasons, self.masking)


def _first_case(cases: Any) -> Any:
    return cases["failure_case"].iloc[0] if isinstance(cases, pd.DataFrame) and "failure_case" in cases else cases
