"""`tidegate demo`."""

from typing import Annotated

import typer

from deployments.output import fail, show_json
from tasks.errors import TidegateError


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave server, UI, worker and data up at the end.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop what --keep left running here.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs, on stdout; what people read goes to stderr.")
    ] = False,
) -> None:
    """Load a week of real flights on this machine: PostgreSQL, Prefect server, worker and sources included."""
    from rich.console import Console

    from deployments.demo import run

    console = Console(stderr=as_json)
    try:
        told = {"stopped": run.stop(console)} if stop else run.run(console, keep=keep).as_dict()
    except TidegateError as error:
        fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if as_json:
        show_json(told)
