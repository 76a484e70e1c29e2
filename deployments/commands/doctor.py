"""`tidegate doctor`."""

from typing import Annotated

import typer

from deployments.output import show_json


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Look at everything the pipelines need, from databases to automations; 1 where something fails."""
    from deployments.doctor.examination import examine

    found = examine()
    if as_json:
        show_json([one.as_dict() for one in found])
    else:
        for one in found:
            for line in one.lines():
                typer.echo(line)
    if any(one.verdict == "fail" for one in found):
        raise typer.Exit(1)
