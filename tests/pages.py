"""A page of documentation: its examples, the tables they begin with, and those they end with."""

import json
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

_PART = re.compile(
    r"<!-- (?P<kind>given|run|flow|loaded|letters): (?P<name>[\w.]+) -->\n"
    r"(?:```python\n(?P<code>.*?)```|\n(?P<table>(?:\|[^\n]*\n)+))",
    re.DOTALL,
)


@dataclass(frozen=True)
class Rows:
    """A table of a page."""

    name: str
    columns: list[str]
    values: list[list[Any]]

    @property
    def records(self) -> list[dict[str, Any]]:
        return [dict(zip(self.columns, row, strict=True)) for row in self.values]


@dataclass(frozen=True)
class Example:
    """A block of code with the tables before it, since the last one, and after it."""

    name: str
    code: str
    given: list[Rows]
    loaded: list[Rows]
    letters: list[Rows]


def text(page: str) -> str:
    return (ROOT / "docs" / page).read_text()


def examples(page: str, kind: str = "run") -> dict[str, Example]:
    """The examples of a page by their name; of the kind `run`, or `flow`."""
    found: dict[str, Example] = {}
    given: list[Rows] = []
    last: Example | None = None
    for part in _PART.finditer(text(page)):
        name = part["name"]
        if part["code"] is not None:
            last = Example(name, part["code"], given, [], [])
            given = []
            if part["kind"] == kind:
                found[name] = last
        elif part["kind"] == "given":
            given.append(_rows(name, part["table"]))
        else:
            assert last is not None
            (last.loaded if part["kind"] == "loaded" else last.letters).append(_rows(name, part["table"]))
    return found


def proofs(page: str) -> tuple[set[str], set[str]]:
    """The tests, and the files of tests, that a page names."""
    found = text(page)
    return set(re.findall(r"`(test_\w+)`", found)), set(re.findall(r"`(tests/[\w/]+\.py)`", found))


def _rows(name: str, table: str) -> Rows:
    head, _, *body = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.splitlines()]
    return Rows(name, head, [[_value(cell) for cell in row] for row in body])


def _value(cell: str) -> Any:
    """What a cell says: a number, an instant, JSON, nothing, or text."""
    if not cell:
        return None
    if re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]+", cell):
        return datetime.fromisoformat(cell)
    try:
        return json.loads(cell)
    except ValueError:
        return cell
