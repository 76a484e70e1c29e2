"""Suites of other rooms, in which every pipeline logs in as the roles that `tidegate grants` prints for it.

A test still sees the databases as an administrator does; only runs are under the roles. They are slow proofs.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Databases
from tests.grants.roles import as_roles


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """SQLite has no roles."""
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in here:
        item.add_marker(pytest.mark.slow)
    items[:] = [item for item in items if item not in here or "sqlite" not in item.name]


@pytest.fixture
def postgresql(postgresql: Databases, monkeypatch: pytest.MonkeyPatch) -> Iterator[Databases]:
    """See `tests.conftest`."""
    yield from as_roles(postgresql, monkeypatch)


@pytest.fixture
def mariadb(mariadb: Databases, monkeypatch: pytest.MonkeyPatch) -> Iterator[Databases]:
    """See `tests.conftest`."""
    yield from as_roles(mariadb, monkeypatch)


@pytest.fixture
def mariadb_target(mariadb_target: Databases, monkeypatch: pytest.MonkeyPatch) -> Iterator[Databases]:
    """See `tests.conftest`."""
    yield from as_roles(mariadb_target, monkeypatch)
