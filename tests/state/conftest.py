"""How the state tables come to be is the claim here."""

import pytest


@pytest.fixture
def state_tables() -> bool:
    return False
