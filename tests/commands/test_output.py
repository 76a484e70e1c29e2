"""What commands print: plain text that fits, JSON that programs can rely on, and no secret."""

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from deployments.output import show_json
from deployments.text_table import TextTable, cell
from tasks.errors import remember_secret


def test_json_has_times_in_utc_and_every_digit(capsys: pytest.CaptureFixture[str]) -> None:
    value = {
        "when": datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))),
        "many": 10**30,
        "exact": Decimal("0.10"),
        "float": 0.1 + 0.2,
        "none": float("nan"),
        "list": (1, "é"),
    }
    show_json(value)
    shown = capsys.readouterr().out
    assert "é" in shown
    assert json.loads(shown) == {
        "when": "2026-01-01T00:00:00+00:00", "many": 10**30, "exact": "0.10", "float": 0.30000000000000004,
        "none": "nan", "list": [1, "é"],
    }  # fmt: skip


def test_a_table_is_cut_where_it_is_widest_and_no_line_breaks() -> None:
    table = TextTable(("name", "number", "text"), flexible=("name", "text"))
    table.add("flights", 1234, "x" * 300)
    table.add("a\nb", None, "short")
    lines = list(table.lines(60))
    assert len(lines) == 3 and max(map(len, lines)) <= 60
    assert lines[1].startswith("flights   1,234  xxx") and lines[1].endswith("…")
    assert lines[2].startswith(r"a\nb          -  short")
    assert list(TextTable(("name",)).lines()) == []


def test_no_cell_holds_a_secret() -> None:
    remember_secret("open-sesame-3")
    assert cell("postgresql://etl:open-sesame-3@db/x") == "postgresql://etl:***@db/x"
    assert cell(datetime(2026, 1, 1, tzinfo=UTC).isoformat()) == "2026-01-01T00:00:00+00:00"
