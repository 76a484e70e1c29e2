"""`slow_but`: cases of a parametrized test, of which the quick tests try a few and the slow proofs the others."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pytest


def slow_but(quick: Collection[Any], cases: Mapping[str, Any] | Iterable[Any]) -> list[Any]:
    """Parameters for each of `cases`; those that are not among `quick` are slow.

    Args:
        quick: what the quick tests try: names of a mapping, else values. Each has to be there.
        cases: what is claimed to hold; the names of a mapping become the cases' ids.
    """
    named = list(cases.items()) if isinstance(cases, Mapping) else [(None, case) for case in cases]
    chosen = [case if name is None else name for name, case in named]
    assert all(one in chosen for one in quick), f"{quick} are not all among {chosen}"
    return [
        pytest.param(case, id=name, marks=() if one in quick else pytest.mark.slow)
        for (name, case), one in zip(named, chosen, strict=True)
    ]
