"""`tidegate run`: a pipeline without any server."""

import json
import os
import subprocess
import sys
from uuid import uuid4

import pytest
from sqlalchemy import func, select, update

from deployments.commands.run import parsed
from tasks.overrides import Overrides
from tasks.pipeline import run_pipeline
from tasks.state.tables import runs
from tests.commands.conftest import Declare, Tidegate
from tests.conftest import Databases
from tests.orders import DAY, ORDERS, START, loaded, order, put

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


@pytest.mark.parametrize("digits", [8, 12, 32])
def test_a_runs_id_instead_of_a_name_shows_the_run(
    sqlite: Databases, orders: str, tidegate: Tidegate, digits: int
) -> None:
    put(sqlite.source, [order(1)])
    run_id = run_pipeline(ORDERS).run_id
    before = loaded(sqlite.target)
    shown = tidegate("run", run_id[:digits].upper() if digits == 12 else run_id[:digits])
    assert shown.exit_code == 0 and shown.stdout == tidegate("run-info", run_id).stdout
    assert json.loads(tidegate("run", run_id[:digits], "--json").stdout)["run_id"] == run_id
    with sqlite.target.connect() as connection:
        assert connection.execute(select(func.count()).select_from(runs)).scalar_one() == 1
    assert loaded(sqlite.target) == before


def test_a_flow_runs_id_shows_the_run_that_it_was(sqlite: Databases, orders: str, tidegate: Tidegate) -> None:
    put(sqlite.source, [order(1)])
    run_id, flow_run = run_pipeline(ORDERS).run_id, str(uuid4())
    with sqlite.target.begin() as connection:
        connection.execute(update(runs).values(flow_run_id=flow_run))
    assert f"run {run_id} of orders" in tidegate("run", flow_run).stdout


@pytest.mark.parametrize(
    "option", [["--start", "2026-01-01"], ["--end", "2026-01-02"], ["--full-refresh"], ["--override", "reason=x"]]
)
def test_a_run_is_only_shown_so_that_options_of_running_are_refused(
    sqlite: Databases, orders: str, tidegate: Tidegate, option: list[str]
) -> None:
    put(sqlite.source, [order(1)])
    shown = tidegate("run", run_pipeline(ORDERS).run_id, *option)
    assert shown.exit_code == 1 and "is a run of orders, and is only shown" in shown.stderr


@pytest.mark.parametrize("name", ["0123456", "ordres", "0123456789abcdefg"])
def test_what_is_neither_a_pipeline_nor_like_an_id_is_said_to_be_neither(
    sqlite: Databases, orders: str, tidegate: Tidegate, name: str
) -> None:
    shown = tidegate("run", name)
    assert shown.exit_code == 1
    assert f"There is no flows/{name}.py with a PIPELINE in it. The pipelines here are 'orders'." in shown.stderr
    assert f"And {name!r} is no run's id, of which 8 hexadecimal digits or more are given." in shown.stderr


def test_an_id_that_no_ledger_has_is_told_with_the_pipelines_there_are(
    sqlite: Databases, orders: str, tidegate: Tidegate
) -> None:
    shown = tidegate("run", "0123abcd")
    assert shown.exit_code == 1
    assert "The pipelines here are 'orders'. And as an id: No ledger has a run '0123abcd'" in shown.stderr


def test_a_pipeline_whose_name_looks_like_an_id_is_run(sqlite: Databases, declare: Declare, tidegate: Tidegate) -> None:
    declare("deadbeef", "from tests.orders import ORDERS as PIPELINE")
    put(sqlite.source, [order(1)])
    assert "inserted 1" in tidegate("run", "deadbeef").stdout
