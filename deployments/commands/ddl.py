"""`tidegate ddl`."""

from typing import Annotated

import typer

from deployments.output import fail
from tasks.errors import TidegateError


def ddl(pipeline: Annotated[str, typer.Argument(help="Name of a pipeline in flows/, `flights` for instance.")]) -> None:
    """Print the SQL that a run of a pipeline would execute on its target before it reads; execute nothing."""
    from deployments.pipelines import declared
    from tasks.pipeline import ddl

    try:
        found = declared(pipeline)
        statements = ddl(found)
    except TidegateError as error:
        fail(error)
    for statement in statements:
        typer.echo(f"{statement};")
    if not statements:
        typer.echo(f"-- {found.load.table}: nothing to do")
