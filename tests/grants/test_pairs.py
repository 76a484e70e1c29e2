"""The suite of strategies and databases, whose pipelines log in as the roles that `tidegate grants` prints."""

from collections.abc import Iterator

import pytest

from tests.conftest import Databases
from tests.grants.roles import as_roles
from tests.load.test_every_pair import *  # noqa: F403

pytestmark = pytest.mark.slow


@pytest.fixture(params=["postgresql", pytest.param("mariadb_target", marks=pytest.mark.mariadb)])
def databases(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Databases]:
    """A source and a target, as an administrator sees them."""
    yield from as_roles(request.getfixturevalue(request.param), monkeypatch)
