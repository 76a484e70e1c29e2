"""Suites of other rooms, in which every pipeline logs in as the roles that `tidegate grants` prints for it.

A test still sees the databases as an administrator does; only runs are under the roles. They are slow proofs.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Databases
from tests.grants.roles import as_roles

_OF_ADMINISTRATION = ("test_a_table_that_cannot_be_followed_is_refused_before_anything_is_made",)
"""Claims of what is missing that an administrator who runs what is printed has made, or learns of there and then."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Only what is about a database with roles; many random examples say no more of rights than a few."""
    folder = Path(__file__).parent
    kept = []
    for item in items:
        if folder in item.path.parents:
            item.add_marker(pytest.mark.slow)
            about = {*getattr(item, "fixturenames", ()), item.name}
            if (
                any("sqlite" in name for name in about)
                or "-many" in item.name
                or item.name.startswith(_OF_ADMINISTRATION)
            ):
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
