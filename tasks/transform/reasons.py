"""Why a row is a dead letter: every rule that it broke, by name, with the value."""

from collections.abc import Sequence
from typing import Any

Reason = dict[str, Any]
"""`rule`, `column` and `value`; what is about several columns has them by name in its value, and no column."""


def reason(rule: str, columns: Sequence[str], values: Sequence[Any]) -> Reason:
    """One broken rule, with the value of its column, or by name those of several."""
    if len(columns) == 1:
        return {"rule": rule, "column": columns[0], "value": values[0]}
    return {"rule": rule, "column": None, "value": dict(zip(columns, values, strict=True))}
