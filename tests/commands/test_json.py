"""Every command says what it says to programs as well."""

import json
from collections.abc import Iterator
from typing import Any

import typer.main

from deployments.cli import app
from tests.commands.conftest import Tidegate
from tests.conftest import Databases
from tests.orders import ORDERS, order, put


def commands(group: Any, name: str = "tidegate") -> Iterator[tuple[str, Any]]:
    for word, one in group.commands.items():
        if hasattr(one, "commands"):
            yield from commands(one, f"{name} {word}")
        else:
            yield f"{name} {word}", one


def test_every_command_takes_it() -> None:
    found = dict(commands(typer.main.get_command(app)))
    assert len(found) > 10
    without = [name for name, one in found.items() if not any("--json" in option.opts for option in one.params)]
    assert without == []


def test_ddl_tells_the_statements_of_a_run(databases: Databases, orders: str, tidegate: Tidegate) -> None:
    put(databases.source, [order(1)])
    told = json.loads(tidegate("ddl", "orders", "--json").stdout)
    assert (told["pipeline"], told["target"]) == ("orders", "fct_orders")
    assert "CREATE TABLE" in told["statements"][0]
    assert "".join(f"{one};\n" for one in told["statements"]) == tidegate("ddl", "orders").stdout
    tidegate("run", "orders")
    assert json.loads(tidegate("ddl", "orders", "--json").stdout)["statements"] == []


def test_grants_tells_every_role_with_its_statements_and_who_needs_them(
    postgresql: Databases, orders: str, tidegate: Tidegate
) -> None:
    told = json.loads(tidegate("grants", "orders", "--json").stdout)
    printed = tidegate("grants", "orders").stdout
    assert [(one["connection"], one["role"], one["login"]) for one in told] == [
        ("source", "tidegate_source", True),
        ("target", "tidegate_target", True),
        ("target", "tidegate_ledger_reader", False),
        ("target", "tidegate_dead_letter_reader", False),
    ]
    [reads] = [grant for grant in told[0]["grants"] if "orders" in grant["statement"]]
    assert (reads["pipelines"], reads["optional"]) == ([ORDERS.name], False)
    assert all(f"{grant['statement']};" in printed for one in told for grant in one["grants"])


def test_an_error_is_told_on_stderr_and_stdout_stays_empty(sqlite: Databases, orders: str, tidegate: Tidegate) -> None:
    for command in (["ddl", "absent"], ["grants", "absent"], ["deploy", "--file", "/absent.yaml"]):
        shown = tidegate(*command, "--json")
        assert (shown.exit_code, shown.stdout) == (1, "") and shown.stderr
