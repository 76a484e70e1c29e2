"""The README is executed: its flow runs, its commands and names exist."""

import re
from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy import text

from tasks import connections
from tests.conftest import Databases

README = (Path(__file__).parent.parent / "README.md").read_text()


def _between(start: str, end: str) -> str:
    return README.split(start, 1)[1].split(end, 1)[0]


def test_the_example_flow_runs_as_it_is_printed(sqlite: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_SHOP_URL", sqlite.source_url)
    monkeypatch.setenv("TIDEGATE_WAREHOUSE_URL", sqlite.target_url)
    with connections.engine("shop").begin() as shop:
        shop.execute(text("CREATE TABLE orders (order_id bigint, customer text, euro float, updated_at timestamp)"))
        shop.execute(
            text(
                "INSERT INTO orders VALUES (1, 'ann', 1.1, '2026-01-01 00:00:00'),"
                " (2, 'bob', 2, '2026-01-01 00:00:00'), (3, 'ann', -3, '2026-01-01 00:00:00')"
            )
        )
    with connections.engine("warehouse").begin() as warehouse:
        warehouse.execute(text("CREATE TABLE dim_customers (name text PRIMARY KEY)"))
        warehouse.execute(text("INSERT INTO dim_customers VALUES ('ann')"))
    example = ModuleType("orders")
    source = _between("<!-- example -->\n```python\n", "```\n<!-- /example -->")
    exec(compile(source, "README.md", "exec"), example.__dict__)
    with pytest.raises(Exception, match="2 of 3 rows were rejected"):
        example.run_pipeline(example.PIPELINE)
    with connections.engine("warehouse").begin() as warehouse:
        warehouse.execute(text("INSERT INTO dim_customers VALUES ('bob')"))
    report = example.run_pipeline(example.PIPELINE)
    assert (report.counts.inserted, report.counts.rejected) == (2, 1)
    with connections.engine("warehouse").connect() as warehouse:
        rows = warehouse.execute(text("SELECT order_id, cents FROM fct_orders ORDER BY order_id")).all()
    assert [tuple(row) for row in rows] == [(1, 110), (2, 200)]


def test_the_example_flow_is_about_as_short_as_promised() -> None:
    lines = _between("<!-- example -->\n```python\n", "```\n<!-- /example -->").splitlines()
    assert len([line for line in lines if line.strip() and not line.startswith(("import", "from"))]) <= 30


def test_every_make_target_it_names_exists() -> None:
    makefile = (Path(__file__).parent.parent / "Makefile").read_text()
    for target in re.findall(r"`?make (\w[\w-]*)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_extract_load_and_link_it_names_exists() -> None:
    from tasks.extract.api import ApiExtract
    from tasks.extract.log import LogExtract
    from tasks.extract.rows import RowsExtract
    from tasks.extract.table import TableExtract
    from tasks.extract.triggers import TriggerExtract
    from tasks.load.append import Append
    from tasks.load.replace import Replace
    from tasks.load.upsert import Upsert

    for known in (TableExtract, LogExtract, TriggerExtract, ApiExtract, RowsExtract, Upsert, Append, Replace):
        assert f"| `{known.__name__}` |" in README
    for link in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (Path(__file__).parent.parent / link).exists(), link


def test_the_demo_it_shows_has_the_columns_of_the_real_one() -> None:
    from io import StringIO

    from rich.console import Console

    from deployments.demo.report import Report

    output = StringIO()
    Report([], [], 0.0).show(Console(file=output, width=80))
    shown = _between("```text\n", "```").splitlines()[:2]
    assert [line.split() for line in output.getvalue().splitlines()[:2]] == [line.split() for line in shown]
