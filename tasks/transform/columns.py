"""Casting: a pandas column to the Arrow type the contract declares, value by value where it has to be."""

import uuid
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tasks.column_types import JSON, UUID, decimal_text
from tasks.errors import ContractError
from tasks.json_documents import is_json
from tasks.masking import shown


@dataclass(frozen=True)
class CastColumn:
    """A column in its declared type.

    Attributes:
        values: as declared; NULL where a value could not be cast.
        failed: positions of those, with the value that came.
    """

    values: pa.Array
    failed: dict[int, Any]


def cast_column(series: "pd.Series[Any]", target: pa.DataType, pipeline: str) -> CastColumn:
    """`series` as `target`, without changing a value.

    A value that cannot be cast, or would lose digits, fails alone.

    Raises:
        ContractError: the types have no conversion at all, or not one of several values has.
    """
    arrow = as_arrow(series)
    if arrow is not None:
        if arrow.type == target:
            return CastColumn(arrow, {})
        try:
            return CastColumn(_convert(arrow, target), {})
        except pa.ArrowNotImplementedError as error:
            raise ContractError(
                f"{pipeline}: column {series.name!r} arrives as {arrow.type}, which cannot become {target}. "
                "Convert it in the transform, or declare another type."
            ) from error
        except pa.ArrowInvalid:
            pass
    values = series.tolist() if arrow is None else arrow.to_pylist()
    cast, failed = _one_by_one(values, target)
    present = sum(value is not None and value is not pd.NA for value in values)
    if present > 1 and len(failed) == present:
        value = next(iter(failed.values()))
        raise ContractError(
            f"{pipeline}: not one of the {present:,} values of column {series.name!r} can become {target}; "
            f"the first is {shown(value)}. Convert the column in the transform, or declare another type."
        )
    return CastColumn(cast, failed)


def as_arrow(series: "pd.Series[Any]") -> pa.Array | None:
    """The column as one Arrow array; None where its Python objects are of several types."""
    try:
        arrow = pa.Array.from_pandas(series)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return None
    if isinstance(arrow, pa.ChunkedArray):
        arrow = arrow.combine_chunks()
    return arrow


def _one_by_one(values: list[Any], target: pa.DataType) -> tuple[pa.Array, dict[int, Any]]:
    cast: list[Any] = []
    failed: dict[int, Any] = {}
    for position, value in enumerate(values):
        if value is None or value is pd.NA or value is pd.NaT:
            cast.append(None)
            continue
        try:
            cast.append(_convert(pa.scalar(value), target).as_py())
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
            cast.append(None)
            failed[position] = value
    return pa.array(cast, target), failed


def _convert(values: Any, target: pa.DataType) -> Any:
    """An array or scalar as `target`; a text of a time without zone counts as UTC, as a naive timestamp does.

    A decimal becomes text without zeros at its end: how many there are depends on what else is in a batch of JSON, and
    the same row has to be the same text in every window.
    """
    if target in (UUID, JSON) and values.type != target:
        return _uuids(values) if target == UUID else _documents(values)
    if pa.types.is_decimal(values.type) and (pa.types.is_string(target) or pa.types.is_large_string(target)):
        if isinstance(values, pa.Scalar):
            return pa.scalar(decimal_text(values.as_py()), target)
        return pa.array([None if value is None else decimal_text(value) for value in values.to_pylist()], target)
    try:
        return pc.cast(values, target)
    except pa.ArrowInvalid:
        if not (pa.types.is_timestamp(target) and target.tz and pa.types.is_string(values.type)):
            raise
        return pc.assume_timezone(pc.cast(values, pa.timestamp(target.unit)), target.tz)


def _uuids(values: Any) -> Any:
    """Of 16 bytes each, or of texts."""
    if not (_is_text(values.type) or values.type in (pa.binary(16), pa.binary())):
        raise pa.ArrowNotImplementedError(str(values.type))
    given = [values.as_py()] if isinstance(values, pa.Scalar) else values.to_pylist()
    try:
        made = [value if value is None else _uuid(value) for value in given]
    except ValueError as error:
        raise pa.ArrowInvalid(str(error)) from error
    array = pa.array(made, UUID)
    return array[0] if isinstance(values, pa.Scalar) else array


def _uuid(value: str | bytes) -> uuid.UUID:
    return uuid.UUID(value) if isinstance(value, str) else uuid.UUID(bytes=value)


def _documents(values: Any) -> Any:
    """Of texts that are JSON, which stay as they are."""
    if not _is_text(values.type):
        raise pa.ArrowNotImplementedError(str(values.type))
    given = [values.as_py()] if isinstance(values, pa.Scalar) else values.to_pylist()
    for value in given:
        if value is not None and not is_json(value):
            raise pa.ArrowInvalid(f"{value!r} is no JSON")
    array = pa.ExtensionArray.from_storage(JSON, pa.array(given, pa.string()))
    return array[0] if isinstance(values, pa.Scalar) else array


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def as_frame(table: pa.Table) -> pd.DataFrame:
    """`table` as pandas columns that keep its types: integers with NULL stay integers, decimals decimals."""
    frame: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
    return frame


def nulls(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Where `column` is NULL."""
    return np.asarray(pc.is_null(column))
