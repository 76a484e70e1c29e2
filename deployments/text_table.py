"""`TextTable`: a table as plain text, no wider than 120 columns or the terminal, one line a row also in a pipe."""

import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.errors import redact

WIDTH = 120
_GAP = "  "
_LEAST = 12


@dataclass
class TextTable:
    """Rows under heads; a number stands right in its column, None is a dash.

    Attributes:
        heads: one for each column.
        rows: values, written as `cell` writes them.
        flexible: the columns that are cut short, with `…`, where a line would be too long; always the widest of them.
    """

    heads: Sequence[str]
    rows: list[Sequence[Any]] = field(default_factory=list)
    flexible: Sequence[str] = ()

    def add(self, *values: Any) -> None:
        """A further row."""
        self.rows.append(values)

    def lines(self, width: int | None = None) -> Iterable[str]:
        """The table, line by line; nothing where it has no row."""
        if not self.rows:
            return
        cells = [[cell(value) for value in row] for row in self.rows]
        widths = [max(len(text) for text in column) for column in zip(self.heads, *cells, strict=True)]
        over = sum(widths) + len(_GAP) * (len(widths) - 1) - (width or _line_width())
        places = [self.heads.index(name) for name in self.flexible]
        for _ in range(over):
            widest = max(places, key=lambda place: widths[place], default=None)
            if widest is None or widths[widest] <= _LEAST:
                break
            widths[widest] -= 1
        numbers = [
            all(row[place] is None or isinstance(row[place], int | float) or str(row[place]).endswith("%")
                for row in self.rows)
            for place in range(len(widths))
        ]  # fmt: skip
        for row in [list(self.heads), *cells]:
            placed = [
                _cut(text, size).rjust(size) if right else _cut(text, size).ljust(size)
                for text, size, right in zip(row, widths, numbers, strict=True)
            ]
            yield _GAP.join(placed).rstrip()


def cell(value: Any) -> str:
    """A value on one line: nothing in it moves the cursor or is a secret."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}"
    return printable(redact(str(value)))


def printable(text: str) -> str:
    """`text` with what is no visible character written as Python writes it."""
    return text if text.isprintable() else "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text
    )  # fmt: skip


def filled(text: str, indent: str) -> str:
    """`text` under a line of a table, in as many lines as it takes."""
    return textwrap.fill(
        cell(text), _line_width(), initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 1] + "…"


def _line_width() -> int:
    return shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else WIDTH
