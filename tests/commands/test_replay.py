"""`tidegate dead-letters replay` and `discard`."""

import json

import pytest

from tasks.pipeline import run_pipeline
from tests.commands.conftest import Declare, Tidegate
from tests.conftest import Databases
from tests.orders import ORDERS, loaded, order, put

MENDED = """
from dataclasses import replace
from tests.orders import ORDERS
PIPELINE = replace(ORDERS, transform=lambda raw: raw.assign(amount=raw["amount"].abs()))
"""


WHOLE = """
from dataclasses import replace
from tests.orders import SNAPSHOT
PIPELINE = replace(SNAPSHOT, name="orders")
"""


@pytest.fixture
def mended(sqlite: Databases, declare: Declare) -> Databases:
    """Two rows were bad, and the transform of today makes them good."""
    put(sqlite.source, [order(1), order(2, amount=-2), order(3, amount=-3)])
    run_pipeline(ORDERS)
    declare("orders", MENDED)
    return sqlite


def statuses(tidegate: Tidegate) -> list[str]:
    told = json.loads(tidegate("dead-letters", "list", "orders", "--status", "all", "--json").stdout)
    return [letter["status"] for letter in told["letters"]]


def test_what_passes_is_loaded_and_its_letters_are_closed(mended: Databases, tidegate: Tidegate) -> None:
    shown = tidegate("dead-letters", "replay", "orders")
    assert shown.exit_code == 0
    assert "orders dead letters: extracted 2, inserted 2, error rate 0.00%" in shown.stdout
    assert [row["amount"] for row in loaded(mended.target)] == [1, 2, 3]
    assert statuses(tidegate) == ["closed", "closed"]
    assert "no open dead letters of that kind" in tidegate("dead-letters", "replay", "orders").stdout


def test_a_dry_run_says_what_would_pass_and_writes_nothing(mended: Databases, tidegate: Tidegate) -> None:
    assert "2 rows pass the contract, 0 do not" in tidegate("dead-letters", "replay", "orders", "--dry-run").stdout
    assert len(loaded(mended.target)) == 1
    assert statuses(tidegate) == ["open", "open"]


def test_a_dry_run_names_the_windows_that_would_be_read_again(
    sqlite: Databases, declare: Declare, tidegate: Tidegate
) -> None:
    declare("orders", WHOLE)
    put(sqlite.source, [order(1, amount=-1), order(2)])
    tidegate("run", "orders")
    shown = tidegate("dead-letters", "replay", "orders", "--dry-run").stdout
    assert "'orders' is read whole, without a cursor, so these windows would be read again" in shown
    assert "[the beginning, the end)" in shown


def test_discarded_letters_are_gone_from_the_open_ones(mended: Databases, tidegate: Tidegate) -> None:
    shown = tidegate("dead-letters", "discard", "orders", "--reason", "a rehearsal")
    assert "2 dead letters are discarded" in shown.stdout
    assert statuses(tidegate) == ["discarded", "discarded"]
    newest = json.loads(tidegate("runs", "orders", "--json").stdout)[0]
    assert newest["message"] == "2 dead letters were discarded: a rehearsal"


def test_to_discard_needs_a_reason(mended: Databases, tidegate: Tidegate) -> None:
    assert tidegate("dead-letters", "discard", "orders").exit_code == 2
    refused = tidegate("dead-letters", "discard", "orders", "--reason", " ")
    assert (refused.exit_code, statuses(tidegate)) == (1, ["open", "open"])
