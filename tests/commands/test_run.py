"""`tidegate run`: a pipeline without any server."""

import json
import os
import subprocess
import sys

import pytest
from sqlalchemy import select

from deployments.commands.run import parsed
from tasks.overrides import Overrides
from tasks.state.tables import runs
from tests.commands.conftest import Declare, Tidegate
from tests.conftest import Databases
from tests.orders import DAY, START, loaded, order, put

WAITING = """
from dataclasses import replace
from tests.orders import ORDERS
PIPELINE = replace(ORDERS, depends_on=["others"])
"""


def test_it_loads_and_prints_the_report(databases: Databases, orders: str, tidegate: Tidegate) -> None:
    put(databases.source, [order(1), order(2, amount=-1)])
    shown = tidegate("run", "orders")
    assert shown.exit_code == 0
    assert "extracted 2, inserted 1, rejected 1, error rate 50.00%" in shown.stdout
    assert [row["id"] for row in loaded(databases.target)] == [1]


def test_a_range_is_read_in_utc_and_leaves_the_watermark(sqlite: Databases, orders: str, tidegate: Tidegate) -> None:
    put(sqlite.source, [order(1), order(2, day=1), order(3, day=2)])
    told = tidegate("run", "orders", "--start", "2026-01-02", "--end", "2026-01-03T02:00:00+02:00", "--json")
    report = json.loads(told.stdout)
    assert report["window"] == {"start": (START + DAY).isoformat(), "end": (START + 2 * DAY).isoformat()}
    assert (report["extracted"], report["watermark"]) == (1, None)


def test_a_full_refresh_deletes_what_is_gone(sqlite: Databases, orders: str, tidegate: Tidegate) -> None:
    from tests.orders import remove

    put(sqlite.source, [order(1), order(2), order(3)])
    tidegate("run", "orders")
    remove(sqlite.source, [3])
    assert "deleted 1" in tidegate("run", "orders", "--full-refresh").stdout


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--start", "2026-13-01"], "start '2026-13-01' is not a date or time"),
        (["--start", "2026-01-02", "--end", "2026-01-01"], "ends before it starts"),
        (["--override", "max_shrink"], "NAME=VALUE"),
        (["--override", "max_shrink=1"], "for a reason"),
        (["--override", "on_missing=warn"], "on_missing.COLUMN=warn"),
        (["--override", "reason=x", "--override", "on_missing.dest=skip"], "'reject' or 'warn'"),
        (["--override", "reason=x", "--override", "max_shrink=all"], "a share from 0 to 1"),
        (["--override", "reason=x", "--override", "allow_empty=1"], "true or false"),
        ([], "SourceError"),
    ],
)
def test_what_is_refused_says_why_and_ends_with_1(
    sqlite: Databases, orders: str, tidegate: Tidegate, arguments: list[str], why: str
) -> None:
    shown = tidegate("run", "orders", *arguments)
    assert shown.exit_code == 1
    assert why in shown.stderr
    assert shown.stdout == ""


def test_an_override_is_kept_in_the_ledger(sqlite: Databases, orders: str, tidegate: Tidegate) -> None:
    put(sqlite.source, [order(1)])
    given = ("reason=they moved", "max_shrink=0.9", "ignore_bounds=true")
    assert tidegate("run", "orders", *(text for one in given for text in ("--override", one))).exit_code == 0
    with sqlite.target.connect() as connection:
        kept = json.loads(connection.execute(select(runs.c.overrides)).scalar_one())
    assert (kept["reason"], kept["max_shrink"], kept["ignore_bounds"]) == ("they moved", 0.9, True)


def test_an_override_of_a_reference_is_by_its_column() -> None:
    assert parsed(["reason=x", "on_missing.tailnum=reject"]) == Overrides("x", on_missing={"tailnum": "reject"})


def test_a_run_that_reads_nothing_on_purpose_is_none_that_failed(
    sqlite: Databases, declare: Declare, tidegate: Tidegate
) -> None:
    declare("orders", WAITING)
    put(sqlite.source, [order(1)])
    shown = tidegate("run", "orders")
    assert shown.exit_code == 0
    assert "skipped, nothing was read: others has not been loaded yet" in shown.stdout


def test_in_a_process_of_its_own_it_runs_without_a_server_and_without_colours(sqlite: Databases) -> None:
    # A flow of the project, over a source that has no such table.
    environment = {
        **os.environ, "TIDEGATE_OPERATIONS_URL": sqlite.source_url, "TIDEGATE_WAREHOUSE_URL": sqlite.target_url
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", "from deployments.cli import app; app()", "run", "airlines"],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("SourceError: ") and "\x1b" not in done.stderr


def test_help_loads_neither_prefect_nor_pandas() -> None:
    asked = "import sys, deployments.cli; print([m for m in ('prefect', 'pandas', 'sqlalchemy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
