"""The programs here: which versions of Python, tidegate and Prefect run, beside what prefect.yaml asks for."""

import platform
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from deployments.doctor.finding import Finding


def examine_programs(written: dict[str, Any]) -> Iterator[Finding]:
    """See above.

    Args:
        written: what prefect.yaml holds.
    """
    installed, asked = version("prefect"), written.get("prefect-version")
    here = f"Python {platform.python_version()}, tidegate {version('tidegate')}, Prefect {installed}"
    if asked in (None, installed):
        yield Finding("ok", "versions", f"{here}.")
    else:
        yield Finding(
            "warn", "versions", f"{here}; prefect.yaml is for Prefect {asked}.",
            f"Install that (pip install prefect=={asked}), or write the other one there: `tidegate deploy` refuses.",
        )  # fmt: skip
