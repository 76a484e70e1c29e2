"""References that are looked up late: by the worker before a run, instead of once by `prefect deploy`.

`prefect deploy` puts the value of `{{ prefect.blocks.secret.name }}` into the deployment, where everybody who may look
at deployments reads it, and where it stays when the block gets another value. The outputs of build steps are put in
after that, and are not looked at again.
"""

import re
from collections.abc import Sequence
from typing import Any

_REFERENCE = re.compile(r"{{\s*(prefect\.(?:blocks|variables)\.[^\s}]+)\s*}}")
_ID = "late"


def references(names: list[str]) -> dict[str, str]:
    """A build step: each of `names` as the reference that it was, called `r0`, `r1` and so on."""
    return {f"r{number}": f"{{{{ {name} }}}}" for number, name in enumerate(names)}


def held_back(value: Any, names: list[str]) -> Any:
    """`value` with each reference in it replaced by an output of the step; `names` gets what has been replaced."""

    def replaced(found: re.Match[str]) -> str:
        if found[1] not in names:
            names.append(found[1])
        return f"{{{{ {_ID}.r{names.index(found[1])} }}}}"

    if isinstance(value, str):
        return _REFERENCE.sub(replaced, value)
    if isinstance(value, dict):
        return {key: held_back(one, names) for key, one in value.items()}
    return [held_back(one, names) for one in value] if isinstance(value, list) else value


def referred(value: Any) -> set[str]:
    """Every reference in `value`: `prefect.blocks.secret.name` for instance."""
    names: list[str] = []
    held_back(value, names)
    return set(names)


def step(names: Sequence[str]) -> list[dict[str, Any]]:
    """The build step that gives `names` back; none for none."""
    return [{"deployments.deploy.late.references": {"id": _ID, "names": list(names)}}] if names else []
