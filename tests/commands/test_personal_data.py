"""`tidegate dead-letters erase`, `expire` and `mask`, and what masked columns are in everything that is printed."""

import json
from datetime import timedelta

import pytest
from sqlalchemy import update

from tasks.pipeline import run_pipeline
from tasks.state.tables import dead_letters
from tests.commands.conftest import Declare, Tidegate
from tests.conftest import Databases
from tests.orders import START
from tests.recovery.letters.persons import CANARY, PEOPLE, everything, kept, person, put

FILE = """
from tests.recovery.letters.persons import {name} as PIPELINE
"""


@pytest.fixture
def people(sqlite: Databases, declare: Declare) -> Databases:
    """Two letters from before anything was masked."""
    declare("people", FILE.format(name="PEOPLE"))
    put(sqlite.source, [person(1), person(2, name="Bob", email="bob@other.example", day=3)])
    run_pipeline(PEOPLE, START, START + timedelta(days=9))
    return sqlite


def test_erase_counts_and_then_erases(people: Databases, tidegate: Tidegate) -> None:
    asked = ("dead-letters", "erase", "people", "--field", f"email={CANARY}", "--reason", "request 4711")
    counted = tidegate(*asked, "--dry-run")
    assert counted.stdout == "people: 1 dead letters and 0 messages of the ledger would be erased.\n"
    assert CANARY in everything(people.target)
    assert json.loads(tidegate(*asked, "--json").stdout) == {"letters": 1, "messages": 0, "dry_run": False}
    assert CANARY not in everything(people.target)
    by_key = tidegate("dead-letters", "erase", "people", "--key", "id=2", "--reason", "request 4712")
    assert by_key.stdout == "people: 1 dead letters and 0 messages of the ledger were erased.\n"
    assert {letter["status"] for letter in kept(people.target)} == {"discarded"}


@pytest.mark.parametrize("given", [["--key", CANARY], ["--key", "id=1", "--key", "id=2"], []])
def test_erase_repeats_no_value_of_what_it_cannot_read(people: Databases, tidegate: Tidegate, given: list[str]) -> None:
    refused = tidegate("dead-letters", "erase", "people", "--reason", "x", *given)
    assert refused.exit_code == 1 and "ConfigError" in refused.stderr
    assert CANARY not in refused.stderr + refused.stdout


def test_expire_counts_and_then_deletes(people: Databases, tidegate: Tidegate) -> None:
    with people.target.begin() as connection:
        old = {"status": "closed", "closed_at": START - timedelta(days=500), "last_seen": START - timedelta(days=500)}
        connection.execute(update(dead_letters).where(dead_letters.c.row_key == "1").values(**old))
    counted = tidegate("dead-letters", "expire", "people", "--dry-run").stdout
    assert counted == (
        "people: 1 closed dead letters would be deleted (keep_closed=90 days, 0:00:00), 0 open ones would be emptied "
        "(keep_open=None).\n"
    )
    assert len(kept(people.target)) == 2
    told = json.loads(tidegate("dead-letters", "expire", "people", "--json").stdout)
    assert told == {"deleted": 1, "emptied": 0, "dry_run": False}
    assert len(kept(people.target)) == 1


def test_mask_rewrites_what_was_kept_before(people: Databases, declare: Declare, tidegate: Tidegate) -> None:
    assert tidegate("dead-letters", "mask", "people").stdout == "people: it declares no masked columns.\n"
    _masked(declare)
    told = tidegate("dead-letters", "mask", "people").stdout
    assert told == "people: 2 dead letters and 0 messages of the ledger were masked.\n"
    assert json.loads(tidegate("dead-letters", "mask", "people", "--json").stdout) == {"letters": 0, "messages": 0}
    assert CANARY not in everything(people.target)


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_no_command_shows_a_value_of_a_masked_column_though_it_is_kept_from_before(
    people: Databases, declare: Declare, tidegate: Tidegate, as_json: list[str]
) -> None:
    put(people.source, [person(3, age=3, email="good@canary.example")])
    _masked(declare)
    run_id = kept(people.target)[0]["run_id"]
    for command in (
        ["dead-letters", "list", "people"],
        ["dead-letters", "show", "1"],
        ["dead-letters", "replay", "people", "--dry-run"],
        ["run-info", run_id],
        ["preview", "people"],
        ["status"],
        ["runs", "people"],
    ):
        result = tidegate(*command, *as_json)
        assert result.exit_code == 0, (command, result.stderr)
        assert "canary" not in result.stdout + result.stderr, command
    assert "***" in tidegate("preview", "people", *as_json).stdout


def test_letters_are_asked_for_by_a_range_of_their_cursor(people: Databases, tidegate: Tidegate) -> None:
    def rows(*arguments: str) -> list[str]:
        told = json.loads(tidegate("dead-letters", "list", "people", "--json", *arguments).stdout)
        return sorted(one["row_key"] for one in told["letters"])

    assert rows("--start", "2026-01-01", "--end", "2026-01-02") == ["1"]
    assert rows("--start", "2026-01-02") == ["2"]
    assert rows("--start", "2026-01-05") == []
    shown = tidegate("dead-letters", "replay", "people", "--start", "2026-01-02", "--dry-run").stdout
    assert "0 rows pass the contract, 1 do not" in shown
    discarded = tidegate("dead-letters", "discard", "people", "--reason", "a trial", "--end", "2026-01-02").stdout
    assert discarded == "people: 1 dead letters are discarded.\n"
    assert [(letter["row_key"], letter["status"]) for letter in kept(people.target)] == [
        ("1", "discarded"), ("2", "open"),
    ]  # fmt: skip


def _masked(declare: Declare) -> None:
    import sys

    sys.modules.pop("flows.people", None)
    declare("people", FILE.format(name="MASKED"))
