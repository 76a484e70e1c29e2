"""How a run goes is the same on every database; where its SQL is not, a mark says so."""

import pytest

from tests.conftest import SQLITE_FIRST, Databases


@pytest.fixture(params=SQLITE_FIRST)
def databases(request: pytest.FixtureRequest) -> Databases:
    """Each test that asks for it runs on SQLite, and in the slow proofs on every database that is written to."""
    chosen: Databases = request.getfixturevalue(request.param)
    return chosen
