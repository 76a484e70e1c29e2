"""`tidegate preview`."""

from typing import Annotated

import typer

from deployments.output import failing, show_json


def preview(
    pipeline: Annotated[str, typer.Argument(help="Name of a pipeline in flows/.")],
    rows: Annotated[int, typer.Option(help="How many rows of the source at most.", min=1, max=10_000)] = 20,
    start: Annotated[str | None, typer.Option(help="First instant of a range, ISO 8601, UTC.")] = None,
    end: Annotated[str | None, typer.Option(help="First instant that is left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Read the first rows of a pipeline's source, transform and judge them, and write nothing anywhere."""
    from deployments.pipelines import declared
    from deployments.text_table import TextTable, cell
    from tasks.running.preview import preview
    from tasks.window import Window

    with failing():
        window = Window.parse(start, end)
        seen = preview(declared(pipeline), rows, window.start, window.end)
    if as_json:
        show_json(
            {
                "pipeline": seen.pipeline,
                "read": seen.read,
                "valid": seen.valid.to_pylist(),
                "rejected": [{"record": one.record, "reasons": one.reasons} for one in seen.rejected],
                "added": seen.added,
                "filtered": seen.filtered,
                "notes": seen.notes,
            }
        )
        return
    typer.echo(
        f"{seen.pipeline}: {seen.read:,} rows read, {seen.valid.num_rows:,} valid, {len(seen.rejected):,} rejected, "
        f"{seen.added:,} added, {seen.filtered:,} filtered; nothing was written."
    )
    # Too many columns for a line go below each other.
    names = seen.valid.column_names
    for place in range(0, len(names) if seen.valid.num_rows else 0, _COLUMNS):
        some = names[place : place + _COLUMNS]
        table = TextTable(some, flexible=some)
        for row in seen.valid.select(some).to_pylist():
            table.add(*(_exact(row[name]) for name in some))
        typer.echo()
        for line in table.lines():
            typer.echo(line)
    if seen.rejected:
        typer.echo("\nrejected:")
    for one in seen.rejected:
        typer.echo(f"  {cell(', '.join(f'{name}={value!r}' for name, value in one.record.items()))}")
        for reason in one.reasons:
            column = "" if reason["column"] is None else f"{reason['column']}: "
            typer.echo(f"    {cell(column + reason['rule'])}, got {cell(repr(reason['value']))}")
    for note in seen.notes:
        typer.echo(f"\n{note}")


_COLUMNS = 8


def _exact(value: object) -> str | None:
    """As the target would hold it, every digit."""
    return None if value is None else str(value)
