"""`tidegate watermark`."""

import sys
from typing import Annotated

import typer

from deployments.output import failing, instant, show_json

app = typer.Typer(no_args_is_help=True, help="Look at how far a pipeline has come, or move that by hand.")

Name = Annotated[str, typer.Argument(help="Name of a pipeline in flows/.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.command()
def get(pipeline: Name, as_json: AsJson = False) -> None:
    """Show the watermark of a pipeline, or the position of its feed."""
    from deployments.pipelines import declared
    from deployments.text_table import cell
    from tasks.state.history import opened_history
    from tasks.state.watermarks import Watermark, read_watermark

    with failing():
        found = declared(pipeline)
        with opened_history(found.load.connection) as connection:
            seen = Watermark() if connection is None else read_watermark(connection, found.name)
    if as_json:
        show_json(
            {
                "pipeline": found.name,
                "watermark": seen.value,
                "covered_until": seen.covered_until,
                "version": seen.version,
                "position": seen.position,
            }
        )
        return
    typer.echo(f"{found.name}: {'never loaded' if seen.version == 0 else f'version {seen.version}'}")
    for name, value in (
        ("watermark", None if seen.value is None else f"{seen.value.isoformat()} (UTC)"),
        ("covered until", None if seen.covered_until is None else f"{seen.covered_until.isoformat()} (UTC)"),
        ("position", seen.position),
    ):
        if value is not None:
            typer.echo(f"  {name:<13} {cell(value)}")


@app.command("set")
def set_(
    pipeline: Name,
    value: Annotated[str, typer.Argument(help="The new watermark, ISO 8601, UTC unless it says so.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Have the next run go on at another time. Back: it reads again what lies above. Forward: it leaves that out."""
    import getpass
    import socket

    from deployments.pipelines import declared
    from tasks.errors import ConfigError
    from tasks.recovery.watermark_change import change_watermark, expect_watermark
    from tasks.state.history import opened_history
    from tasks.state.watermarks import Watermark, read_watermark
    from tasks.window import to_utc

    with failing():
        found, moved = declared(pipeline), to_utc(value, "the watermark")
        expect_watermark(found)
        if not yes:
            with opened_history(found.load.connection) as connection:
                seen = Watermark() if connection is None else read_watermark(connection, found.name)
            if not sys.stdin.isatty():
                raise ConfigError(f"{found.name}: nobody is here to be asked. Say --yes to set the watermark.")
            question = f"Set the watermark of {found.name} from {instant(seen.value)} to {instant(moved)} UTC?"
            if not typer.confirm(question, err=True):
                raise typer.Exit(1)
        change = change_watermark(found, moved, f"{getpass.getuser()} on {socket.gethostname()}")
    if as_json:
        show_json(
            {
                "pipeline": change.pipeline,
                "run_id": change.run_id,
                "before": {"watermark": change.before.value, "covered_until": change.before.covered_until},
                "after": {"watermark": change.after.value, "covered_until": change.after.covered_until},
            }
        )
        return
    typer.echo(
        f"{change.pipeline}: the watermark was {instant(change.before.value)}, and is {instant(change.after.value)} "
        f"UTC; covered until {instant(change.after.covered_until)} UTC. It is in the ledger as run {change.run_id}."
    )
