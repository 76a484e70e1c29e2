"""How hard a property is tried: a few fixed examples in every run of the suite, many random ones in the slow one."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

Prove = Callable[[SearchStrategy[Any], Callable[[Any], None]], None]
"""Holds a claim against examples of a strategy."""


def effort(few: int, many: int) -> pytest.MarkDecorator:
    """Run the test with a `prove` that tries `few` examples, always the same, and, slow, with one that tries `many`."""
    return pytest.mark.parametrize(
        "prove",
        [
            pytest.param(_prove(few, derandomize=True, phases=[Phase.explicit, Phase.generate]), id="few"),
            pytest.param(_prove(many), id="many", marks=[pytest.mark.slow, pytest.mark.timeout(3_600)]),
        ],
    )


def _prove(examples: int, **how: Any) -> Prove:
    chosen = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        **how,
    )

    def prove(strategy: SearchStrategy[Any], claim: Callable[[Any], None]) -> None:
        def holds(example: Any) -> None:
            claim(example)

        chosen(given(strategy)(holds))()

    return prove
