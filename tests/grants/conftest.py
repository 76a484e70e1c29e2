"""Databases in which a pipeline's roles may do what was printed for it, and nothing more."""

from collections.abc import Iterator

import pytest

from tests.conftest import Databases
from tests.grants.roles import AsRoles, bare, unmake


@pytest.fixture(
    params=[
        "postgresql",
        pytest.param("mariadb", marks=[pytest.mark.mariadb, pytest.mark.slow]),
        pytest.param("mariadb_target", marks=[pytest.mark.mariadb, pytest.mark.slow]),
    ]
)
def chosen(request: pytest.FixtureRequest) -> Databases:
    """Each test that asks for it runs with each database that has roles, as the source and as the target."""
    databases: Databases = request.getfixturevalue(request.param)
    return databases


@pytest.fixture
def state_tables() -> bool:
    """No: the role that loads makes them, and so owns them."""
    return False


@pytest.fixture
def roles(chosen: Databases, monkeypatch: pytest.MonkeyPatch) -> Iterator[AsRoles]:
    """These databases, with roles that may do nothing yet."""
    made = bare(chosen, monkeypatch)
    yield made
    unmake(made)
