"""`tidegate dead-letters`: grouped by what is wrong, listed, and shown one by one."""

import json
from dataclasses import replace

import pytest
from sqlalchemy import select, update

from tasks.pipeline import run_pipeline
from tasks.state.tables import dead_letters
from tests.commands.conftest import Declare, Tidegate
from tests.conftest import Databases
from tests.orders import DAY, ORDERS, START, order, put

STRICTER = """
from dataclasses import replace
import pandera.pandas as pa
from tests.orders import ORDERS, OrderSchema
class Stricter(OrderSchema):
    customer: str = pa.Field(nullable=True, str_length=3)
PIPELINE = replace(ORDERS, schema=Stricter)
"""


def filled(databases: Databases, declare: Declare) -> Databases:
    """Of four rows three are bad, one of them in two ways."""
    declare("orders", STRICTER)
    from flows.orders import PIPELINE  # type: ignore[import-not-found]

    put(databases.source, [order(1), order(2, amount=-1), order(3, amount=-1, customer="robert")])
    put(databases.source, [order(4, day=1, customer="ro\x1b[2J")])
    run_pipeline(PIPELINE)
    return databases


@pytest.fixture
def letters(sqlite: Databases, declare: Declare) -> Databases:
    return filled(sqlite, declare)


def test_they_are_grouped_by_rule_and_column_and_listed_the_newest_first(
    databases: Databases, declare: Declare, tidegate: Tidegate
) -> None:
    filled(databases, declare)
    told = json.loads(tidegate("dead-letters", "list", "orders", "--json").stdout)
    assert [(one["column"], one["letters"]) for one in told["rules"]] == [("amount", 2), ("customer", 2)]
    assert told["rules"][0]["examples"] == [-1.0]
    assert sorted(told["rules"][1]["examples"]) == ["ro\x1b[2J", "robert"]
    assert [one["row_key"] for one in told["letters"]] == ["4", "3", "2"]
    assert list(told["letters"][0]) == [
        "letter", "pipeline", "row_key", "status", "run_id", "window", "cursor", "record", "record_types", "reasons",
        "contract", "first_seen", "last_seen", "times_seen", "closed_run_id", "closed_at",
    ]  # fmt: skip


def test_only_those_asked_for_are_listed(letters: Databases, tidegate: Tidegate) -> None:
    def rows(*arguments: str) -> list[str]:
        told = json.loads(tidegate("dead-letters", "list", "orders", "--json", *arguments).stdout)
        return sorted(one["row_key"] for one in told["letters"])

    told = json.loads(tidegate("dead-letters", "list", "orders", "--json").stdout)
    rule, run_id = told["rules"][0]["rule"], told["letters"][0]["run_id"]
    with letters.target.begin() as connection:
        closed = dead_letters.c.row_key == "2"
        connection.execute(update(dead_letters).where(closed).values(status="closed", closed_at=START, last_seen=START))
    assert rows() == ["3", "4"]
    assert rows("--status", "closed") == ["2"]
    assert rows("--status", "all", "--rule", rule) == ["2", "3"]
    assert rows("--rule", rule, "--limit", "1") == ["3"]
    assert rows("--status", "all", "--since", "2026-01-02") == ["3", "4"]
    assert rows("--run", run_id[:8]) == ["3", "4"]
    assert rows("--limit", "0") == []
    refused = tidegate("dead-letters", "list", "orders", "--status", "lost")
    assert refused.exit_code == 1 and "'open', 'closed', 'discarded' or 'all'" in refused.stderr


def test_those_of_a_run_are_still_listed_once_a_later_run_has_seen_them_again(
    sqlite: Databases, declare: Declare, tidegate: Tidegate
) -> None:
    """An alert names the run, and with a lookback the next one comes before anybody has read it."""
    declare("orders", "from tests.orders import ORDERS as PIPELINE\n")
    runs = []
    for number in range(3):
        put(sqlite.source, [order(number, amount=-1, day=2 * number)])
        runs.append(run_pipeline(replace(ORDERS, extract=replace(ORDERS.extract, lookback=DAY))).run_id)  # type: ignore[type-var]

    def rows(run: str) -> list[str]:
        told = json.loads(tidegate("dead-letters", "list", "orders", "--json", "--run", run).stdout)
        return sorted(one["row_key"] for one in told["letters"])

    # The second run has seen the first row again, and the third the second.
    assert [rows(run) for run in runs] == [["0"], ["0", "1"], ["1", "2"]]


def test_what_is_printed_fits_the_screen_and_moves_no_cursor(letters: Databases, tidegate: Tidegate) -> None:
    shown = tidegate("dead-letters", "list", "orders").stdout
    assert max(map(len, shown.splitlines())) <= 120
    assert "\x1b" not in shown and r"\x1b[2J" in shown


def test_a_letter_is_shown_with_its_record_and_the_contract_then_and_now(
    letters: Databases, declare: Declare, tidegate: Tidegate
) -> None:
    with letters.target.connect() as connection:
        row = connection.execute(select(dead_letters).where(dead_letters.c.row_key == "3")).one()
    told = json.loads(tidegate("dead-letters", "show", str(row.letter), "--json").stdout)
    assert told["record"]["customer"] == "robert" and told["record_types"]["id"].startswith("int")
    assert {reason["column"] for reason in told["reasons"]} == {"amount", "customer"}
    assert (told["times_seen"], told["run_id"]) == (1, row.run_id)
    assert told["contract_now"] == told["contract"]
    assert "contract now  the same" in tidegate("dead-letters", "show", str(row.letter)).stdout
    with letters.target.begin() as connection:
        connection.execute(update(dead_letters).values(contract="0" * 64))
    assert "another; a rerun" in tidegate("dead-letters", "show", str(row.letter)).stdout


def test_a_letter_that_is_not_there_is_refused(letters: Databases, tidegate: Tidegate) -> None:
    shown = tidegate("dead-letters", "show", "4711")
    assert shown.exit_code == 1
    assert "There is no dead letter 4711" in shown.stderr


def test_without_a_letter_it_says_so(sqlite: Databases, orders: str, tidegate: Tidegate) -> None:
    said = "orders: no open dead letters of that kind.\n"
    assert tidegate("dead-letters", "list", orders).stdout == said
    put(sqlite.source, [order(1), order(2, day=1)])
    run_pipeline(ORDERS)
    assert tidegate("dead-letters", "list", orders).stdout == said


def test_large_numbers_keep_every_digit(sqlite: Databases, orders: str, tidegate: Tidegate) -> None:
    put(sqlite.source, [order(9007199254740993, amount=-0.1)])
    run_pipeline(ORDERS)
    shown = tidegate("dead-letters", "list", orders, "--json").stdout
    assert '"id": 9007199254740993' in shown and '"amount": -0.1' in shown
