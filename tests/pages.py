"""A page of documentation: its examples, the tables they begin with, and those they end with."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa
from sqlalchemy import Engine, select
from sqlalchemy import text as sql

from tasks import connections
from tasks.pipeline import run_pipeline
from tasks.state.tables import dead_letters

ROOT = Path(__file__).parent.parent

_PART = re.compile(
    r"<!-- (?P<kind>given|run|flow|loaded|letters): (?P<name>[\w.]+) -->\n"
    r"(?:```python\n(?P<code>.*?)```|\n(?P<table>(?:\|[^\n]*\n)+))",
    re.DOTALL,
)


_INSTANT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


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


def fences(page: str) -> list[str]:
    """The Python of a page that is no example by itself."""
    return re.findall(r"(?<!-->\n)```python\n(.*?)```", text(page), re.DOTALL)


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


def carry_out(example: Example, known: Mapping[str, Any], target: Engine) -> None:
    """Run an example's `PIPELINE` over the tables it is given, and hold what it says against the target.

    Args:
        example: a block of a page.
        known: what its code may name besides `pa`, `pd`, `date` and `timedelta`, by its name.
        target: the database it loads into.
    """
    for given in example.given:
        connection, _, table = given.name.partition(".")
        frame = pd.DataFrame(given.records, columns=given.columns)
        frame.to_sql(table, connections.engine(connection), index=False)
    names: dict[str, Any] = {**known, "date": date, "timedelta": timedelta, "pa": pa, "pd": pd}
    exec(example.code, names)
    run_pipeline(names["PIPELINE"])
    assert example.loaded, "an example shows what it loads"
    with target.connect() as opened:
        for loaded in example.loaded:
            order = ", ".join(str(place) for place in range(1, len(loaded.columns) + 1))
            rows = opened.execute(sql(f"SELECT * FROM {loaded.name} ORDER BY {order}"))
            assert list(rows.keys()) == loaded.columns
            assert [[_shown(value) for value in row] for row in rows] == loaded.values
        found = [
            [int(letter.row_key), each["rule"], each["column"], each["value"]]
            for letter in opened.execute(select(dead_letters).order_by(dead_letters.c.row_key))
            for each in json.loads(letter.reasons)
        ]
    assert found == [row for letters in example.letters for row in letters.values]


def _shown(value: Any) -> Any:
    """SQLite keeps an instant as text."""
    return datetime.fromisoformat(value) if isinstance(value, str) and _INSTANT.match(value) else value


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
