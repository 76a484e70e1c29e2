"""`docs/load.md` is executed: each example, on the table it begins with, gives the one it ends with."""

from dataclasses import replace

import pytest

from tasks.extract.table import TableExtract
from tasks.load.append import Append
from tasks.load.partition import ReplacePartition
from tasks.load.replace import Replace
from tasks.load.scd2 import Scd2
from tasks.load.upsert import Upsert
from tasks.pipeline import Pipeline
from tasks.transform.contract import UtcTimestamp
from tests import pages
from tests.conftest import Databases

EXAMPLES = pages.examples("load.md")
GIVEN = next(iter(EXAMPLES.values())).given
"""All of them read the same table."""

SCHEMA = pages.fences("load.md")[0]
KNOWN = {kind.__name__: kind for kind in (Append, Pipeline, Replace, ReplacePartition, Scd2, TableExtract, Upsert)}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_loads_what_the_page_says(sqlite: Databases, name: str) -> None:
    example = replace(EXAMPLES[name], given=GIVEN, code=f"{SCHEMA}\n{EXAMPLES[name].code}")
    pages.carry_out(example, {**KNOWN, "UtcTimestamp": UtcTimestamp}, sqlite.target)


def test_every_proof_it_names_exists() -> None:
    tests, files = pages.proofs("load.md")
    written = "\n".join(file.read_text() for file in (pages.ROOT / "tests").rglob("test_*.py"))
    assert [name for name in tests if f"def {name}(" not in written] == []
    assert [path for path in files if not (pages.ROOT / path).exists()] == []
