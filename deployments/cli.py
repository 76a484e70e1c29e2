"""The command `tidegate`."""

import subprocess
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from tasks.errors import ConfigError, TidegateError

if TYPE_CHECKING:
    from tasks.pipeline import Pipeline

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="ETL flows on Prefect 3 that can be rerun, killed or replayed, and the target is still right.",
)


@app.callback()
def _root() -> None:
    """Keep the commands named, however few there are."""


def _fail(error: TidegateError) -> NoReturn:
    Console(stderr=True).print(f"{type(error).__name__}: {error}", style="red", markup=False, soft_wrap=True)
    raise typer.Exit(1) from error


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
        _fail(error)
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


@app.command()
def ddl(pipeline: Annotated[str, typer.Argument(help="Name of a pipeline in flows/, `flights` for instance.")]) -> None:
    """Print the SQL that a run of a pipeline would execute on its target before it reads; execute nothing."""
    from tasks.pipeline import ddl

    try:
        declared = _declared(pipeline)
        statements = ddl(declared)
    except TidegateError as error:
        _fail(error)
    for statement in statements:
        typer.echo(f"{statement};")
    if not statements:
        typer.echo(f"-- {declared.load.table}: nothing to do")


def _declared(name: str) -> "Pipeline":
    from tasks.pipeline import Pipeline

    try:
        found = getattr(import_module(f"flows.{name}"), "PIPELINE", None)
    except ModuleNotFoundError as error:
        # A flow's own import may be what is missing.
        if not str(error.name).startswith("flows."):
            raise
        found = None
    if not isinstance(found, Pipeline):
        raise ConfigError(f"There is no flows/{name}.py with a PIPELINE in it.")
    return found
