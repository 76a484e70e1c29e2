"""Judging a batch of changes: rows by the contract, deletes by their key, markers by what they clear away."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tasks.change_columns import BEFORE, COMMITTED_AT, IDENTITY, OPERATION, POSITION, REASON
from tasks.column_types import UTC_TIMESTAMP
from tasks.errors import ContractError, RetriableError
from tasks.state.dead_letters import identity_hash, rejected_schema
from tasks.state.staged import DELETED, ROW
from tasks.transform.columns import as_frame, cast_column
from tasks.transform.contract import SIBLINGS, Contract, Judged
from tasks.transform.holding import set_apart
from tasks.transform.letters import letters

_SIBLING = (1 << SIBLINGS) - 1
_CHANGE = {BEFORE, COMMITTED_AT, IDENTITY, OPERATION, POSITION, REASON}


def judge_changes(contract: Contract, raw: pa.Table, first: int) -> Judged:
    """What `Contract.judge` does, for a batch of a feed.

    Args:
        contract: the judge of the rows.
        raw: changes, in order, with the columns of `tasks.change_columns`; without them all rows are there now.
        first: number of the first of them in the window.

    Returns:
        The good rows, `etl_deleted` telling which of them are gone; of those only key and cursor are filled.

    Raises:
        ContractError: see `Contract.judge`.
    """
    if OPERATION not in raw.column_names:
        judged = contract.judge(raw, first)
        return replace(judged, valid=_flagged(judged.valid, deleted=False))
    operations = raw.column(OPERATION)
    deletes = np.flatnonzero(pc.equal(operations, "delete"))
    markers = np.flatnonzero(pc.is_in(operations, pa.array(["truncate", "snapshot"])))
    unreadable = np.flatnonzero(pc.equal(operations, "unreadable"))
    others = np.concatenate([deletes, markers, unreadable])
    rows = np.setdiff1d(np.arange(raw.num_rows), others, assume_unique=True)
    parts = []
    if len(rows):
        judged = contract.judge(raw if len(rows) == raw.num_rows else raw.take(pa.array(rows)), 0)
        parts.append(replace(judged, valid=_flagged(judged.valid, deleted=False)))
    if len(deletes):
        parts.append(_judge_deletes(contract, raw.take(pa.array(deletes))))
    if len(unreadable):
        parts.append(_unreadable(contract, raw.take(pa.array(unreadable))))
    numbers = [places for places in (rows, deletes, unreadable) if len(places)]
    valid = [_renumbered(part.valid, first + places) for part, places in zip(parts, numbers, strict=True)]
    rejected = [_renumbered(part.rejected, first + places) for part, places in zip(parts, numbers, strict=True)]
    last = int(markers[-1]) if len(markers) else None
    return Judged(
        valid=pa.concat_tables(valid) if valid else contract.columns.empty_table(),
        rejected=pa.concat_tables(rejected) if rejected else rejected_schema(contract.key_schema).empty_table(),
        added=sum(part.added for part in parts),
        filtered=sum(part.filtered for part in parts),
        markers=len(markers),
        cleared_at=None if last is None else (first + last) << SIBLINGS,
        cleared_by=None if last is None else operations[last].as_py(),
        unreadable=len(unreadable),
    )


def _judge_deletes(contract: Contract, raw: pa.Table) -> Judged:
    """Deletes: their key as the transform makes it, else as the source calls it; without one they are dead letters.

    A deleted row may be all NULL but for its key, so no rule is asked, and a transform may well drop it or raise on it.
    """
    frame = as_frame(raw)
    made = _transformed(contract, frame)
    passports: npt.NDArray[np.int64] = np.asarray(made.index, dtype=np.int64)
    left = np.setdiff1d(np.arange(len(frame)), passports)
    # The cursor too, where the source tells it: a delete that is older than the row it is about is no delete.
    told = [*contract.key, *([contract.cursor] if contract.cursor and contract.cursor not in contract.key else [])]
    known_columns = pa.schema([contract.columns.field(name) for name in told])
    found = pa.concat_tables([_cast(contract, frame, known_columns) for frame in (made, frame.iloc[left])])
    found, unheld = set_apart(found, contract.unheld)
    passports = np.concatenate([passports, left])
    siblings = pd.Series(passports).groupby(passports).cumcount().to_numpy(dtype=np.int64)
    numbers = (passports << SIBLINGS) + siblings
    known = np.ones(len(passports), dtype=bool)
    for name in contract.key:
        known &= np.asarray(found.column(name).is_valid())
    nameless = np.flatnonzero(~known)
    lacks = [{"rule": "a delete has its key", "column": name, "value": None} for name in contract.key]
    reasons = [[reason for place, reason in unheld if place == row] or lacks for row in nameless]
    rejected = letters(
        raw,
        passports[nameless].tolist(),
        numbers[nameless],
        found.select(contract.key).take(pa.array(nameless)).columns,
        pa.nulls(len(nameless), UTC_TIMESTAMP),
        reasons,
        contract.masking,
    )
    found = found.filter(pa.array(known))
    columns = {name: found.column(name) if name in told else pa.nulls(len(found), kind)
               for name, kind in zip(contract.columns.names, contract.columns.types, strict=True)}  # fmt: skip
    valid = pa.table({ROW: pa.array(numbers[known], pa.int64()), **columns})
    return Judged(_flagged(valid, deleted=True), rejected, added=len(passports) - len(np.unique(passports)), filtered=0)


def _unreadable(contract: Contract, raw: pa.Table) -> Judged:
    """What the source did not hand out: dead letters all, without the key of a row, since nobody has seen one."""
    records = raw.drop_columns([name for name in raw.column_names if name in _CHANGE])
    places = np.arange(raw.num_rows)
    rejected = letters(
        records,
        places.tolist(),
        places << SIBLINGS,
        [pa.nulls(raw.num_rows, field.type) for field in contract.key_schema],
        pa.nulls(raw.num_rows, UTC_TIMESTAMP),
        [[{"rule": "source answers", "column": None, "value": why}] for why in raw.column(REASON).to_pylist()],
        contract.masking,
    )
    # The record may differ next time; the letter stays the same one all the same.
    hashes = [
        own if identity is None else identity_hash(identity)
        for own, identity in zip(
            rejected.column("record_hash").to_pylist(), raw.column(IDENTITY).to_pylist(), strict=True
        )
    ]
    position = rejected.schema.get_field_index("record_hash")
    rejected = rejected.set_column(position, "record_hash", pa.array(hashes, pa.string()))
    none: dict[str, pa.Array] = {ROW: pa.array([], pa.int64())}
    none |= {field.name: pa.array([], field.type) for field in contract.columns}
    return Judged(_flagged(pa.table(none), deleted=False), rejected, added=0, filtered=0)


def _transformed(contract: Contract, frame: pd.DataFrame) -> pd.DataFrame:
    """What the transform makes of deletes, as far as it can be used: it has the index it was given, and every key."""
    nothing = frame.iloc[:0]
    if contract.transform is None and not contract.joins:
        return nothing
    try:
        made = contract.made(frame)
    except RetriableError:
        raise
    except Exception:
        return nothing
    usable = (
        isinstance(made, pd.DataFrame)
        and set(contract.key) <= set(made.columns)
        and (made.empty or (pd.api.types.is_integer_dtype(made.index.dtype) and made.index.isin(frame.index).all()))
    )
    return made[made[list(contract.key)].notna().all(axis=1)] if usable else nothing


def _cast(contract: Contract, frame: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    """Columns of `frame` as the contract has them; NULL where they are missing or cannot be."""
    arrays = []
    for field in schema:
        try:
            arrays.append(cast_column(frame[field.name].reset_index(drop=True), field.type, contract.pipeline).values)
        except (KeyError, ContractError):
            arrays.append(pa.nulls(len(frame), field.type))
    fields = [field.with_nullable(True) for field in schema]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _flagged(valid: pa.Table, *, deleted: bool) -> pa.Table:
    return valid.append_column(DELETED, pa.array(np.full(valid.num_rows, deleted)))


def _renumbered(rows: pa.Table, numbers: npt.NDArray[np.int64]) -> pa.Table:
    """`rows`, numbered by their place in a part of the batch, with the numbers those places have in the window."""
    own = rows.column(ROW).to_numpy()
    places = (numbers[own >> SIBLINGS] << SIBLINGS) | (own & _SIBLING)
    return rows.set_column(rows.schema.get_field_index(ROW), ROW, pa.array(places, pa.int64()))
