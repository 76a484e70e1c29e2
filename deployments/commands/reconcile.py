"""`tidegate reconcile`."""

from typing import TYPE_CHECKING, Annotated

import typer

from deployments.output import say_error, show_json

if TYPE_CHECKING:
    from tasks.recovery.reconcile.report import ReconcileReport

_MOST_LISTED = 40
"""Lines for people; programs are told all."""


def reconcile(
    pipeline: Annotated[str, typer.Argument(help="Name of a pipeline in flows/.")],
    start: Annotated[str | None, typer.Option(help="First instant of the cursor, ISO 8601, UTC.")] = None,
    end: Annotated[str | None, typer.Option(help="First instant that is left out.")] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Read every row of the source through the pipeline.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Run what puts the differences right.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Open dead letters are differences too.")] = False,
    values: Annotated[bool, typer.Option("--values", help="Show the values that differ.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Compare source and target; 0: the same, 1: they differ, 2: they could not be compared."""
    from deployments.pipelines import declared
    from tasks.errors import TidegateError
    from tasks.recovery.reconcile.reconcile import reconcile_pipeline
    from tasks.window import Window

    try:
        asked = Window.parse(start, end)
        report = reconcile_pipeline(declared(pipeline), asked.start, asked.end, deep=deep, repair=repair)
    except TidegateError as error:
        say_error(f"{type(error).__name__}: {error}")
        raise typer.Exit(2) from error
    if as_json:
        show_json(report.as_dict(values=values))
    else:
        _show(report, values=values)
    if not report.clean(strict=strict):
        raise typer.Exit(1)


def _show(report: "ReconcileReport", *, values: bool) -> None:
    from deployments.text_table import TextTable, cell, filled
    from tasks.recovery.reconcile.difference import shown

    typer.echo(str(report))
    levels = TextTable(["level", "blocks", "differing", "seconds"])
    for one in report.levels:
        levels.add(one.level, one.blocks, one.differing, one.seconds)
    heads = ["kind", "key", "source cursor", "target cursor", "columns or rule"]
    rows = TextTable(heads, flexible=["key", "columns or rule"])
    # What nobody has accounted for comes first.
    listed = sorted(report.differences, key=lambda difference: difference.accounted)
    for difference in listed[:_MOST_LISTED]:
        told = ", ".join(f"{name}={text}" for name, text in difference.key.items())
        what = difference.rule or ", ".join(difference.columns) or None
        rows.add(difference.kind, told, difference.source_cursor, difference.target_cursor, what)
    for table in (levels, rows):
        for line in table.lines():
            typer.echo(line)
    if len(listed) > _MOST_LISTED:
        typer.echo(f"… and {len(listed) - _MOST_LISTED:,} more; --json has all of them.")
    if values:
        for difference in listed[:_MOST_LISTED]:
            for name, (ours, theirs) in shown(difference).items():
                key = ", ".join(f"{column}={text}" for column, text in difference.key.items())
                typer.echo(f"  {cell(key)}: {cell(name)}: source {cell(ours)}, target {cell(theirs)}")
    for run in report.repairs:
        typer.echo(f"repaired: {run}\n  run {run.run_id}")
    for note in report.notes:
        typer.echo(filled(note, "  "))
