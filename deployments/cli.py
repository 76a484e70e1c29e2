"""The command `tidegate`."""

import subprocess
import sys
from typing import Annotated

import typer
from rich.console import Console

from tasks.errors import TidegateError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="ETL flows on Prefect 3 that can be rerun, killed or replayed, and the target is still right.",
)


@app.callback()
def _root() -> None:
    """Keep the commands named, however few there are."""


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave server, UI, worker and data up at the end.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop what --keep left running here.")] = False,
) -> None:
    """Load a week of real flights on this machine: PostgreSQL, Prefect server, worker and sources included."""
    from deployments.demo import run

    console = Console()
    try:
        if stop:
            run.stop(console)
        else:
            run.run(console, keep=keep)
    except TidegateError as error:
        Console(stderr=True).print(f"{type(error).__name__}: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@app.command()
def deploy() -> None:
    """Make the work pool and deploy everything in prefect.yaml to the server that PREFECT_API_URL names."""
    from prefect.client.orchestration import get_client

    from deployments import work_pool
    from deployments.prefect_server import PROJECT

    with get_client(sync_client=True) as client:
        work_pool.ensure(client)
    done = subprocess.run([sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"], cwd=PROJECT, check=False)
    raise typer.Exit(done.returncode)
