"""`Difference`: a row that is not the same on both sides, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from tasks.masking import MASK, NO_MASKING, Masking
from tasks.recovery.reconcile.table_side import Texts

Kind = Literal["missing", "stale", "ahead", "differs", "extra", "duplicate", "rejected", "filtered", "pending"]
KINDS: tuple[Kind, ...] = get_args(Kind)

ACCOUNTED: frozenset[Kind] = frozenset({"rejected", "filtered", "pending"})
"""What is known to be so, and is no difference."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A row.

    Attributes:
        kind: `missing` from the target, `extra` there; `stale`: older there, `ahead`: newer; `differs`: of the same
            cursor with other values; `duplicate`: more than once there; `rejected`: an open dead letter says why;
            `filtered`: the transform leaves it out; `pending`: it changed after the last run had read.
        key: name and text of the columns of its key.
        source_cursor: its cursor in the source, as text, UTC; None where there is none.
        target_cursor: that in the target.
        columns: those whose values differ.
        rule: of a rejected one: what it broke.
        values: of each of `columns`, the text in the source and in the target, masked where it is declared so; see
            `shown`.
    """

    kind: Kind
    key: Mapping[str, str | None]
    source_cursor: str | None = None
    target_cursor: str | None = None
    columns: Sequence[str] = ()
    rule: str | None = None
    values: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict, repr=False)

    @property
    def accounted(self) -> bool:
        """Whether it is no difference."""
        return self.kind in ACCOUNTED

    def as_dict(self, *, values: bool = False) -> dict[str, Any]:
        """Without values, unless they are asked for."""
        told = {
            "kind": self.kind,
            "key": dict(self.key),
            "source_cursor": self.source_cursor,
            "target_cursor": self.target_cursor,
            "columns": list(self.columns),
            "rule": self.rule,
        }
        return told | ({"values": shown(self)} if values else {})


def shown(difference: Difference) -> dict[str, list[str | None]]:
    """The values that may be shown: the one place where they leave the comparison."""
    return {name: list(pair) for name, pair in difference.values.items()}


@dataclass(frozen=True, slots=True)
class Explained:
    """What explains a pair of rows that are not equal.

    Attributes:
        names: of the columns; those of the key first.
        key: how many of them are the key.
        cursor: the place of the cursor among them, or None.
        covered: what has a later cursor, as text, was not there for the last run to read; None where nobody can tell.
        once: only what is missing is a difference: rows are written once.
        masking: whose values nobody may see.
    """

    names: Sequence[str]
    key: int
    cursor: int | None
    covered: str | None
    once: bool
    masking: Masking = NO_MASKING

    def explain(
        self, key: Texts, source: Sequence[Texts], target: Sequence[Texts], rule: str | None, *, filtered: bool
    ) -> Difference | None:
        """Why the rows of a key differ; None where they do not.

        Args:
            key: the key.
            source: its versions in the source, the newest last.
            target: its rows in the target.
            rule: what an open dead letter of it names.
            filtered: the source has the row, and the transform leaves it out.
        """
        named = dict(zip(self.names, key, strict=False))
        ours, theirs = self._newest(source), self._newest(target)
        there, here = self._time(ours), self._time(theirs)
        if len(target) > 1:
            return Difference("duplicate", named, there, here)
        if ours == theirs or (self.once and theirs is not None):
            return None
        columns: list[str] = []
        values: dict[str, tuple[str | None, str | None]] = {}
        if ours is not None and theirs is not None:
            pairs = list(zip(self.names, ours, theirs, strict=True))[self.key :]
            values = {name: (self._shown(name, one), self._shown(name, other)) for name, one, other in pairs
                      if one != other}  # fmt: skip
            columns = list(values)
        return Difference(self._kind(ours, theirs, rule, filtered), named, there, here, columns, rule, values)

    def _shown(self, name: str, value: str | None) -> str | None:
        return value if value is None or name not in self.masking.columns else MASK

    def _kind(self, ours: Texts | None, theirs: Texts | None, rule: str | None, filtered: bool) -> Kind:
        there, here = self._time(ours), self._time(theirs)
        if ours is not None and self.covered is not None and there is not None and there >= self.covered:
            return "pending"
        if rule is not None:
            return "rejected"
        if ours is None:
            return "filtered" if filtered else "extra"
        if theirs is None:
            return "missing"
        if there is not None and here is not None and there != here:
            return "stale" if there > here else "ahead"
        return "differs"

    def _newest(self, rows: Sequence[Texts]) -> Texts | None:
        if not rows or self.cursor is None:
            return rows[-1] if rows else None
        cursor = self.cursor
        return max(rows, key=lambda row: row[cursor] or "")

    def _time(self, row: Texts | None) -> str | None:
        return None if row is None or self.cursor is None else row[self.cursor]
