"""Suites of other rooms, in which every pipeline logs in as the roles that `tidegate grants` prints for it.

A test still sees the databases as an administrator does; only runs are under the roles. They are slow proofs.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Databases
from tests.grants.roles import as_roles


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Only what is about a database with roles; many random examples say no more of rights than a few."""
    folder = Path(__file__).parent
    kept = []
    for item in items:
        if folder in item.path.parents:
            item.add_marker(pytest.mark.slow)
            about = {*getattr(item, "fixturenames", ()), item.name}
            if any("sqlite" in name for name in about) or "-many" in item.name:
                continue
        kept.append(item)
    items[:] = kept


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
