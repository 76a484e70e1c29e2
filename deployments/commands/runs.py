"""`tidegate runs` and `tidegate run-info`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployments.output import failing, instant, show_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.past_runs import FoundRun
    from deployments.text_table import TextTable
    from tasks.state.history import PastAttempt
    from tasks.state.letters import Fault
    from tasks.window import Window

SHORT = 8
"""So much of a run id is shown in tables, and tells one run from another."""


def runs(
    pipeline: Annotated[str, typer.Argument(help="Name of a pipeline in flows/.")],
    limit: Annotated[int, typer.Option(help="How many lines.", min=1)] = 20,
    failed: Annotated[
        bool, typer.Option("--failed", help="Only what was to commit rows and did not: failed, refused, crashed, …")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show the ledger of a pipeline, the newest first: a line for each attempt at a window."""
    from deployments.pipelines import declared
    from deployments.text_table import TextTable, filled
    from tasks.state.history import opened_history, past_attempts

    with failing():
        found = declared(pipeline)
        with opened_history(found.load.connection) as connection:
            attempts = [] if connection is None else past_attempts(connection, found.name, limit=limit, failed=failed)
    if as_json:
        show_json([attempt_as_dict(one) for one in attempts])
        return
    if not attempts:
        typer.echo(f"{found.name}: {'no run has failed' if failed else 'nothing has run yet'}.")
    table = TextTable(
        ("when (UTC)", "run", "kind", "window (UTC)", "status", "errors", "seconds", "counts"), flexible=("counts",)
    )
    for one in attempts:
        table.add(
            f"{one.started_at:%Y-%m-%d %H:%M}",
            one.run_id[:SHORT],
            one.kind,
            window_text(one.window),
            one.status,
            None if one.error_rate is None else f"{one.error_rate:.2%}",
            one.seconds,
            _short_counts(one),
        )
    for line, message in zip(table.lines(), [None, *(one.message for one in attempts)], strict=False):
        typer.echo(line)
        if message is not None:
            typer.echo(filled(message, indent=" " * 18))


def run_info(
    run_id: Annotated[str, typer.Argument(help="The ledger's run id, or the beginning of one; or a flow run's id.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show everything about one run: its windows and attempts, counts, phases, and what its dead letters broke."""
    from deployments.past_runs import find_run

    with failing():
        found = find_run(run_id)
    show_run(found, as_json=as_json)


def show_run(found: "FoundRun", *, as_json: bool) -> None:
    """Print a run, as text or as JSON."""
    from deployments.text_table import cell

    run, first = found.run, found.run.attempts[0]
    if as_json:
        show_json(
            {
                "run_id": first.run_id,
                "pipeline": first.pipeline,
                "target": first.target,
                "flow_run_id": first.flow_run_id,
                "status": run.status,
                "started_at": run.started_at,
                "finished_at": run.finished_at,
                "seconds": run.seconds,
                "counts": None if run.counts is None else run.counts.as_dict(),
                "error_rate": run.error_rate,
                "attempts": [attempt_as_dict(one) for one in run.attempts],
                "dead_letters": [fault_as_dict(fault) for fault in found.faults],
                "letters_closed": found.closed,
            }
        )
        return
    ended = "still running" if run.seconds is None else f"{run.seconds:.2f} s"
    typer.echo(f"run {first.run_id} of {first.pipeline} into {first.target}: {run.status}, {ended}")
    for name, value in (
        ("started", f"{instant(run.started_at)} UTC"),
        ("finished", None if run.finished_at is None else f"{instant(run.finished_at)} UTC"),
        ("flow run", first.flow_run_id),
        ("code version", first.code_version),
        ("contract", first.contract),
        ("overrides", first.overrides),
        ("counts", run.counts),
        ("error rate", None if run.error_rate is None else f"{run.error_rate:.2%}"),
    ):
        if value is not None:
            typer.echo(f"  {name:<13} {cell(str(value))}")
    for one in run.attempts:
        phases = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in one.phases.items())
        typer.echo(f"\n{instant(one.started_at)} UTC  {one.kind}  {window_text(one.window)}  {one.status}")
        for name, value in (
            ("counts", counts_text(one)),
            ("phases", phases or None),
            ("written", None if one.written is None else f"{one.written:,} rows"),
            ("requests", None if one.requests is None else f"{one.requests:,}"),
            ("warned", f"{one.warned:,} rows" if one.warned else None),
            ("late", f"{one.late:,} rows" if one.late else None),
            ("watermark", one.watermark),
            ("position", one.position),
            ("message", one.message),
            ("attempt", one.attempt),
        ):
            if value is not None:
                typer.echo(f"  {name:<13} {cell(value)}")
    if found.closed:
        typer.echo(f"\nIt closed {found.closed:,} dead letters.")
    if not found.faults:
        return
    typer.echo("\nDead letters that no later run has seen again:")
    for line in faults_table(found.faults).lines():
        typer.echo(line)
    typer.echo(f"tidegate dead-letters list {first.pipeline} --run {first.run_id[:SHORT]} --status all")


def faults_table(faults: "Sequence[Fault]") -> "TextTable":
    """What letters broke, as a table."""
    from deployments.text_table import TextTable

    table = TextTable(("letters", "rule", "column", "examples"), flexible=("rule", "column", "examples"))
    for fault in faults:
        table.add(fault.letters, fault.rule, fault.column, ", ".join(map(repr, fault.examples)))
    return table


def fault_as_dict(fault: "Fault") -> Mapping[str, Any]:
    """What letters broke, for programs."""
    return {"rule": fault.rule, "column": fault.column, "letters": fault.letters, "examples": fault.examples}


def window_text(window: "Window") -> str | None:
    """`2013-01-01 06:00 → 12:00`, `2013-01-01 → 01-02`, `… → 2013-01-02 06:00`; None of what has no window."""
    start, end = window.start, window.end
    if start is None and end is None:
        return None
    days = all(bound is None or (bound.hour, bound.minute, bound.second) == (0, 0, 0) for bound in (start, end))
    until = "%m-%d" if start and end and start.year == end.year else "%Y-%m-%d"
    if not days:
        until = "%H:%M" if start and end and start.date() == end.date() else f"{until} %H:%M"
    first = "…" if start is None else f"{start:%Y-%m-%d}" if days else f"{start:%Y-%m-%d %H:%M}"
    return f"{first} → {'…' if end is None else format(end, until)}"


def _short_counts(attempt: "PastAttempt") -> str | None:
    """Every count that is not 0, by the beginning of its name."""
    if attempt.counts is None:
        return None
    return " ".join(f"{name[:3]} {value:,}" for name, value in attempt.counts.as_dict().items() if value) or "nothing"


def counts_text(attempt: "PastAttempt") -> str | None:
    """Every count that is not 0."""
    return None if attempt.counts is None else str(attempt.counts)


def attempt_as_dict(attempt: "PastAttempt") -> Mapping[str, Any]:
    """A row of the ledger, for programs."""
    import json

    return {
        "attempt": attempt.attempt,
        "run_id": attempt.run_id,
        "pipeline": attempt.pipeline,
        "target": attempt.target,
        "kind": attempt.kind,
        "window": {"start": attempt.window.start, "end": attempt.window.end},
        "status": attempt.status,
        "message": attempt.message,
        "counts": None if attempt.counts is None else attempt.counts.as_dict(),
        "error_rate": attempt.error_rate,
        "written": attempt.written,
        "warned": attempt.warned,
        "late": attempt.late,
        "requests": attempt.requests,
        "seconds": attempt.seconds,
        "phases": dict(attempt.phases),
        "started_at": attempt.started_at,
        "finished_at": attempt.finished_at,
        "watermark": attempt.watermark,
        "position": attempt.position,
        "flow_run_id": attempt.flow_run_id,
        "code_version": attempt.code_version,
        "contract": attempt.contract,
        "overrides": None if attempt.overrides is None else json.loads(attempt.overrides),
    }
