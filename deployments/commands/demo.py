"""`tidegate demo`."""

from typing import Annotated

import typer

from deployments.output import fail
from tasks.errors import TidegateError


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave server, UI, worker and data up at the end.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop what --keep left running here.")] = False,
) -> None:
    """Load a week of real flights on this machine: PostgreSQL, Prefect server, worker and sources included."""
    from rich.console import Console

    from deployments.demo import run

    console = Console()
    try:
        if stop:
            run.stop(console)
        else:
            run.run(console, keep=keep)
    except TidegateError as error:
        fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
