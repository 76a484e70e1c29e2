"""What a dead letter keeps when its data goes, and what a ledger's message keeps without the rows that it quotes."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tasks.errors import TidegateError
from tasks.masking import MASK

NOTHING = "{}"
"""The record, and the record's types, of a letter that has none any more."""

QUOTING = (
    ("and there may be none: ", ". Nothing was written. Mend the source or the SQL"),
    ("; the first is ", ". Convert the column in the transform"),
    ("the transform fails on every row of a batch: ", ". Mend the transform, or the columns"),
    ("the transform of the whole window fails: ", ". Mend it, or"),
    ("rows but fails itself: ", ". Mend the check"),
    (" rows for ", ", and rows must not multiply"),
    (" answered ", " It would answer so again"),
    (", but its body (", " Check that the path is that of the API"),
    (" refused: ", ""),
)
"""Between which words a message of tidegate's repeats rows, or what somebody else has said of them."""

_FOREIGN = re.compile(r"(\w*(?:Error|Exception|Interrupt|Exit|Iteration)): (.+)", re.DOTALL)


def without_values(reasons: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`reasons` that say which rules were broken, and by no value."""
    return [{**reason, "value": _kind(reason)} for reason in reasons]


def _kind(reason: Mapping[str, Any]) -> str | None:
    if reason["value"] is None:
        return None
    return str(reason["value"]).partition(": ")[0] if reason["rule"] == "transform" else MASK


def without_quotes(message: str, concerns: Callable[[str], bool] = lambda _: True) -> str:
    """`message` without what it quotes of rows, as far as that concerns us.

    Args:
        message: of the ledger.
        concerns: whether a quoted part is to go.
    """
    for before, after in QUOTING:
        head, found, rest = message.partition(before)
        quoted, end, tail = rest.partition(after) if after else (rest, "", "")
        if found and quoted and (end or not after) and quoted != MASK and concerns(quoted):
            message = f"{head}{before}{MASK}{end}{tail}"
    foreign = _FOREIGN.fullmatch(message)
    if foreign and foreign[1] not in _ours() and concerns(foreign[2]):
        message = f"{foreign[1]}: {MASK}"
    return message


def _ours() -> set[str]:
    """The names of tidegate's errors; what follows any other in a message is somebody else's."""
    found, left = set(), [TidegateError]
    while left:
        kind = left.pop()
        found.add(kind.__name__)
        left += kind.__subclasses__()
    return found


def leaves(value: Any, name: str | None = None) -> "list[tuple[str | None, Any]]":
    """Every single value in a record, with the name of the field it is in; JSON in a text is looked into as well."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            value = json.loads(value)
        except ValueError:
            return [(name, value)]
    if isinstance(value, Mapping):
        return [found for inner, one in value.items() for found in leaves(one, str(inner))]
    if isinstance(value, list):
        return [found for one in value for found in leaves(one, name)]
    return [(name, value)]
