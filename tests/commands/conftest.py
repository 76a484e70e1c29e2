"""The command `tidegate` over pipelines of a test's own."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from typer.testing import CliRunner, Result

import flows
from deployments import cli

Test = TypeVar("Test", bound=Callable[..., object])


Tidegate = Callable[..., Result]
Declare = Callable[[str, str], None]


def untouched(test: Test) -> Test:
    """Marks a claim about a target in which nothing is yet, not even tidegate's own tables."""
    alone = pytest.mark.parametrize("state_tables", [False], ids=["untouched"])
    marked: Test = alone(pytest.mark.usefixtures("state_tables")(test))
    return marked


@pytest.fixture
def tidegate() -> Tidegate:
    """Calls the command in this process: `tidegate("runs", "orders")`."""

    def call(*arguments: str, input: str | None = None) -> Result:
        return CliRunner().invoke(cli.app, list(arguments), input=input)

    return call


@pytest.fixture
def declare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Declare]:
    """Makes `flows/` a folder that holds only the files that are declared here."""
    folder = tmp_path / "flows"
    folder.mkdir()
    monkeypatch.setattr(flows, "__path__", [str(folder)])
    before = {name: module for name, module in sys.modules.items() if name.startswith("flows.")}
    for name in before:
        del sys.modules[name]

    def write(name: str, source: str) -> None:
        (folder / f"{name}.py").write_text(source)

    yield write
    for name in [name for name in sys.modules if name.startswith("flows.")]:
        del sys.modules[name]
    sys.modules.update(before)


ORDERS_FILE = """
from tests.orders import ORDERS as PIPELINE
"""


@pytest.fixture
def orders(declare: Declare) -> str:
    """The only pipeline there is: `tests.orders.ORDERS`."""
    declare("orders", ORDERS_FILE)
    return "orders"
