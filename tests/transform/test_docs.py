"""`docs/transform.md` is executed: each example, on the tables it begins with, gives those it ends with."""

import json
from datetime import date, timedelta
from typing import Any

import pandas as pd
import pandera.pandas as pa
import pytest
from sqlalchemy import select, text

from tasks import connections
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
    run_pipeline,
)
from tasks.state.tables import dead_letters
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
    example = EXAMPLES[name]
    for given in example.given:
        connection, _, table = given.name.partition(".")
        frame = pd.DataFrame(given.records, columns=given.columns)
        frame.to_sql(table, connections.engine(connection), index=False)
    known: dict[str, Any] = {kind.__name__: kind for kind in (*KNOWN, date, timedelta)} | {"pa": pa, "pd": pd}
    exec(example.code, known)
    run_pipeline(known["PIPELINE"])
    with sqlite.target.connect() as connection_:
        for loaded in example.loaded:
            rows = connection_.execute(text(f"SELECT * FROM {loaded.name} ORDER BY 1"))
            assert list(rows.keys()) == loaded.columns
            assert [list(row) for row in rows] == loaded.values
        found = [
            [int(letter.row_key), each["rule"], each["column"], each["value"]]
            for letter in connection_.execute(select(dead_letters).order_by(dead_letters.c.row_key))
            for each in json.loads(letter.reasons)
        ]
    assert found == [row for letters in example.letters for row in letters.values]
    assert example.loaded, "an example shows what it loads"


def test_every_kind_of_declaration_has_an_example() -> None:
    code = "\n".join(example.code for example in EXAMPLES.values())
    assert [kind.__name__ for kind in KNOWN if f"{kind.__name__}(" not in code] == []
