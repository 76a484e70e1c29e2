"""What a pandera model says: the type of every column, and the rules apart from the types."""

import hashlib
import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa

from tasks.column_types import COMMENT, MAX_LENGTH, UTC_TIMESTAMP
from tasks.errors import ContractError
from tasks.transform.logical_types import LogicalType
from tasks.transform.whole_window import WholeWindow

UtcTimestamp = Annotated[pd.ArrowDtype, UTC_TIMESTAMP]
"""Annotation for a column of instants: `updated_at: UtcTimestamp`."""


def arrow_type(pipeline: str, name: str, dtype: Any) -> pa.DataType:
    """The Arrow type that a pandera dtype stands for."""
    if isinstance(dtype, LogicalType):
        return dtype.arrow
    kind = getattr(dtype, "type", None)
    if isinstance(kind, pd.ArrowDtype):
        return kind.pyarrow_dtype
    if kind is str or isinstance(kind, pd.StringDtype):
        return pa.string()
    if isinstance(kind, pd.DatetimeTZDtype):
        return pa.timestamp("us", "UTC")
    if hasattr(dtype, "precision") and hasattr(dtype, "scale"):
        return pa.decimal128(dtype.precision, dtype.scale)
    if type(dtype).__name__ == "Date":
        return pa.date32()
    kind = getattr(kind, "numpy_dtype", kind)
    try:
        return pa.from_numpy_dtype(kind)
    except (pa.ArrowNotImplementedError, TypeError):
        raise ContractError(
            f"{pipeline}: column {name!r} is declared as {dtype}, which is no type of a database column. Declare str, "
            "int, float, bool, datetime.date, UtcTimestamp, Uuid, Json, a pandera Decimal or a pandas ArrowDtype."
        ) from None


def described(column: pandera.Column) -> dict[bytes, bytes]:
    """What a target's column is told of besides its type: a comment, and the longest text that the rules let pass."""
    known: dict[bytes, bytes] = {}
    if comment := column.description or column.title:
        known[COMMENT] = comment.encode()
    lengths = [check.statistics for check in column.checks if check.name == "str_length"]
    most = [
        limit for told in lengths for limit in (told.get("exact_value"), told.get("max_value")) if limit is not None
    ]
    if most:
        known[MAX_LENGTH] = str(min(most)).encode()
    return known


def rules_only(schema: pandera.DataFrameSchema) -> pandera.DataFrameSchema:
    """`schema` without types, which Arrow has cast, and uniqueness, which the load decides."""
    untyped = {name: {"dtype": None, "coerce": False, "unique": False} for name in schema.columns}
    rules = schema.update_columns(untyped)
    rules.strict, rules.ordered, rules.unique, rules.coerce, rules.dtype = False, False, None, False, None
    rules.checks = [_unknown_passes(check) for check in schema.checks]
    return rules


def _unknown_passes(check: pandera.Check) -> pandera.Check:
    """A frame-wide check for which a comparison with NULL is no failure, as in SQL and in pandera's column checks."""

    def passes(frame: pd.DataFrame) -> Any:
        verdict = check._check_fn(frame)
        return verdict.fillna(True).astype(bool) if isinstance(verdict, pd.Series) else verdict

    return pandera.Check(passes, name=check.name, error=check.error or check.name, ignore_na=False)


def fingerprint(
    schema: pandera.DataFrameSchema, transform: Callable[..., Any] | None, lookups: Sequence[str] = ()
) -> str:
    """Changes whenever the columns, the checks, the transform's source or the lookups do."""
    described = [
        f"{name} {column.dtype} {column.nullable} {[str(check) for check in column.checks]}"
        for name, column in schema.columns.items()
    ]
    described += [str(check.name) for check in schema.checks]
    described += lookups
    if isinstance(transform, WholeWindow):
        described.append("whole window")
        transform = transform.function
    if transform is not None:
        try:
            described.append(inspect.getsource(transform))
        except (OSError, TypeError):
            described.append(repr(transform))
    return hashlib.sha256("\n".join(described).encode()).hexdigest()
