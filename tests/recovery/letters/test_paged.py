"""`every_letter`: each letter once, also where a page ends."""

import pytest

from tasks.pipeline import run_pipeline
from tasks.recovery.letters import paged
from tasks.recovery.letters.mask import mask_letters
from tests.conftest import Databases
from tests.recovery.letters.persons import CANARY, MASKED, PEOPLE, everything, person, put


def test_letters_of_several_pages_are_all_masked(sqlite: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged, "_AT_ONCE", 2)
    put(sqlite.source, [person(number) for number in range(1, 6)])
    run_pipeline(PEOPLE)
    assert mask_letters(MASKED).letters == 5
    assert CANARY not in everything(sqlite.target)
