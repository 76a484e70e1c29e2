"""Where a run happens: inside a Prefect flow run, or as plain Python.

Prefect is imported only where it is running already: as plain Python a run starts in half the time without it.
"""

import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from tasks.masking import speaking_plainly

if TYPE_CHECKING:
    from prefect.context import FlowRunContext

Result = TypeVar("Result")


def flow_run_id() -> str | None:
    """Id of the Prefect flow run this is in, or None."""
    context = _flow_run_context()
    return str(context.flow_run.id) if context and context.flow_run else None


def logger() -> "logging.Logger | logging.LoggerAdapter[Any]":
    """Prefect's logger inside a flow run, else the standard one called `tidegate`."""
    if _flow_run_context() is None:
        return logging.getLogger("tidegate")
    from prefect.logging import get_run_logger

    return get_run_logger()


def as_task(name: str, step: Callable[[], Result]) -> Callable[[], Result]:
    """`step` as a Prefect task run of that name inside a flow run, else `step` itself.

    It takes no argument and hands none on, so that no frame is hashed, stored or sent. It is not retried by itself: a
    second `extract` would refill a queue that has been staged already. The window is.
    """
    step = speaking_plainly(step)
    if _flow_run_context() is None:
        return step
    from prefect import task
    from prefect.cache_policies import NO_CACHE

    return task(name=name, retries=0, cache_policy=NO_CACHE, persist_result=False)(step)


def skipped_state(result: Result, message: str) -> Result:
    """What a flow returns that did not do its work, on purpose: inside a flow run, Prefect's state `Skipped`.

    It is of the type Completed, with `message`, and carries `result`, which is what a caller of the flow gets.
    Elsewhere `result` itself.
    """
    if _flow_run_context() is None:
        return result
    from prefect.states import Completed

    return cast(Result, Completed(name="Skipped", message=message, data=result))


def _flow_run_context() -> "FlowRunContext | None":
    known = sys.modules.get("prefect.context")
    return known.FlowRunContext.get() if known else None
