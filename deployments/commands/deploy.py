"""`tidegate deploy`."""

from pathlib import Path
from typing import Annotated

import typer

from deployments.output import failing, show_json


def deploy(
    environment: Annotated[
        str | None, typer.Option("--environment", "-e", help="One of prefect.yaml, `prod` for instance; `dev` without.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would change; touch nothing.")] = False,
    file: Annotated[Path | None, typer.Option("--file", help="Another prefect.yaml.", show_default=False)] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs, on stdout; what people read goes to stderr.")
    ] = False,
) -> None:
    """Make the Prefect server hold what prefect.yaml says: pool, blocks, limits, deployments, schedules, alerts."""
    from rich.console import Console

    from deployments.deploy import command
    from deployments.deploy.environment import DEFAULT

    with failing():
        plan = command.run(Console(stderr=as_json), environment=environment, dry_run=dry_run, file=file)
    if as_json:
        show_json({**plan.as_dict(), "environment": environment or DEFAULT, "applied": not dry_run})
