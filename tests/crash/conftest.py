"""What is killed or raced may be the first run of all."""

import pytest


@pytest.fixture
def state_tables() -> bool:
    return False
