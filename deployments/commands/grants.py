"""`tidegate grants`."""

from typing import Annotated

import typer

from deployments.output import failing, show_json


def grants(
    pipelines: Annotated[
        list[str] | None, typer.Argument(help="Names of pipelines in flows/; all without any.")
    ] = None,
    source_role: Annotated[
        str, typer.Option(help="Who reads the sources; on MariaDB `name@host`.")
    ] = "tidegate_source",
    target_role: Annotated[str, typer.Option(help="Who loads the targets.")] = "tidegate_target",
    connection: Annotated[str | None, typer.Option(help="Only what is needed in this connection.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: a list of roles, each in one database.")
    ] = False,
) -> None:
    """Print the least that the roles of pipelines need in their databases, as SQL for an administrator."""
    from deployments.grants import script, sections
    from deployments.pipelines import chosen

    with failing():
        made = sections(
            chosen(pipelines or ()), source_role=source_role, target_role=target_role, connection=connection
        )
    if as_json:
        show_json([section.as_dict() for section in made])
    else:
        typer.echo(script(made), nl=False)
