"""`tidegate ddl`."""

from typing import Annotated

import typer

from deployments.output import failing, show_json


def ddl(
    pipeline: Annotated[str, typer.Argument(help="Name of a pipeline in flows/, `flights` for instance.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Print the SQL that a run of a pipeline would execute on its target before it reads; execute nothing."""
    from deployments.pipelines import declared
    from tasks.pipeline import ddl

    with failing():
        found = declared(pipeline)
        statements = ddl(found)
    if as_json:
        show_json({"pipeline": found.name, "target": found.load.table, "statements": statements})
        return
    for statement in statements:
        typer.echo(f"{statement};")
    if not statements:
        typer.echo(f"-- {found.load.table}: nothing to do")
