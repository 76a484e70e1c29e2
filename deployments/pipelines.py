"""The pipelines of `flows/`, found by their names."""

import pkgutil
from collections.abc import Sequence
from importlib import import_module

import flows
from tasks.errors import ConfigError, one_of
from tasks.masking import NO_MASKING, Masking
from tasks.pipeline import Pipeline


def declared(name: str) -> Pipeline:
    """The pipeline of `flows/<name>.py`.

    Raises:
        ConfigError: there is none.
    """
    try:
        found = getattr(import_module(f"flows.{name}"), "PIPELINE", None)
    except ModuleNotFoundError as error:
        # A flow's own import may be what is missing.
        if not str(error.name).startswith("flows."):
            raise
        found = None
    if not isinstance(found, Pipeline):
        raise ConfigError(
            f"There is no flows/{name}.py with a PIPELINE in it. The pipelines here are "
            f"{one_of(pipeline.name for pipeline in every()).replace(' or ', ' and ')}."
        )
    return found


def every() -> list[Pipeline]:
    """All of them, by name."""
    modules = [import_module(f"flows.{module.name}") for module in pkgutil.iter_modules(flows.__path__)]
    found = [getattr(module, "PIPELINE", None) for module in modules]
    return sorted((one for one in found if isinstance(one, Pipeline)), key=lambda pipeline: pipeline.name)


def masking_of(name: str) -> Masking:
    """What nobody may see of the rows of that pipeline; of one that is not declared any more, nobody can say."""
    return next((pipeline.masking for pipeline in every() if pipeline.name == name), NO_MASKING)


def chosen(names: Sequence[str]) -> list[Pipeline]:
    """Those of `names`, or all of them where none is given.

    Raises:
        ConfigError: there is none of one of these names.
    """
    return [declared(name) for name in names] if names else every()
