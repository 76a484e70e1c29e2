"""`docs/transform.md` is executed: each example, on the tables it begins with, gives those it ends with."""

import pytest

from tasks.extract.sql import SqlTransform
from tasks.extract.table import TableExtract
from tasks.load.partition import ReplacePartition
from tasks.load.replace import Replace
from tasks.load.upsert import Upsert
from tasks.partitioned import Partitioned
from tasks.pipeline import (
    Audit,
    Lookup,
    NullShare,
    Pipeline,
    References,
    RowCount,
    Sla,
    Unique,
    WholeWindow,
)
from tests import pages
from tests.conftest import Databases

EXAMPLES = pages.examples("transform.md")
KNOWN = (
    Audit,
    Lookup,
    NullShare,
    Partitioned,
    Pipeline,
    References,
    Replace,
    ReplacePartition,
    RowCount,
    Sla,
    SqlTransform,
    TableExtract,
    Unique,
    Upsert,
    WholeWindow,
)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_loads_and_rejects_what_the_page_says(
    sqlite: Databases, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_RATES_URL", sqlite.source_url.replace("source.db", "rates.db"))
    pages.carry_out(EXAMPLES[name], {kind.__name__: kind for kind in KNOWN}, sqlite.target)


def test_every_kind_of_declaration_has_an_example() -> None:
    code = "\n".join(example.code for example in EXAMPLES.values())
    assert [kind.__name__ for kind in KNOWN if f"{kind.__name__}(" not in code] == []
