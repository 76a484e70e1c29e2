"""`tidegate backfill`."""

from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from deployments.output import failing, instant, say_error, show_json

if TYPE_CHECKING:
    from datetime import datetime

    from tasks.pipeline import Pipeline
    from tasks.recovery.backfill.calendar import By
    from tasks.recovery.backfill.here import Progress
    from tasks.recovery.backfill.ledger import Backfill
    from tasks.recovery.backfill.plan import BackfillPlan, Only
    from tasks.recovery.backfill.report import BackfillReport

_STOPPED = 130
"""What a shell says of a command that Ctrl-C ended."""


def backfill(
    pipeline: Annotated[str, typer.Argument(help="Name of a pipeline in flows/.")],
    start: Annotated[
        str | None, typer.Option(help="First instant, ISO 8601, UTC; left out, where the extract begins.")
    ] = None,
    end: Annotated[
        str | None, typer.Option(help="First instant that is left out; without it, as far as is proven.")
    ] = None,
    by: Annotated[str, typer.Option(help="What a window is: hour, day, week or month.")] = "day",
    jobs: Annotated[int, typer.Option(help="How many windows are under way at once.", min=1)] = 4,
    only: Annotated[str, typer.Option(help="Which windows: missing, failed, stale or all.")] = "missing",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the plan; write nothing.")] = False,
    here: Annotated[bool, typer.Option("--here", help="Load them in this process, without any server.")] = False,
    afresh: Annotated[
        bool, typer.Option("--afresh", help="Begin a new backfill, although one that asks the same is not done.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Start it on the server, and do not wait for its end.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Load what the ledger does not have of a range, window by window; the same command goes on where it was left."""
    from deployments.pipelines import declared
    from tasks.recovery.backfill.here import expect_jobs
    from tasks.recovery.backfill.ledger import open_backfill
    from tasks.recovery.backfill.plan import plan_backfill
    from tasks.window import Window

    with failing():
        found, asked = declared(pipeline), Window.parse(start, end)
        plan = plan_backfill(found, asked.start, asked.end, cast("By", by), cast("Only", only))
        if dry_run:
            show_json(plan.as_dict() | {"jobs": jobs}) if as_json else show_plan(plan, jobs)
            return
        if not here:
            parameters = {
                "pipeline": found.name,
                "start": _text(asked.start),
                "end": _text(asked.end),
                "by": by,
                "jobs": jobs,
                "only": only,
                "afresh": afresh,
            }
            _on_the_server(found, plan, parameters, detach=detach, as_json=as_json)
            return
        expect_jobs(found, jobs)
        begun = open_backfill(found, plan, afresh=afresh)
        if not as_json:
            _show_begun(begun)
        report = _run_here(found, begun, jobs, quiet=as_json)
    show_json(report.as_dict()) if as_json else show_report(report)
    if report.status != "done":
        raise typer.Exit(_STOPPED if report.status == "cancelled" else 1)


def _on_the_server(
    pipeline: "Pipeline", plan: "BackfillPlan", parameters: dict[str, Any], *, detach: bool, as_json: bool
) -> None:
    """Start the flow `backfill`, and follow it to its end; Ctrl-C leaves it running."""
    from deployments.server_backfill import DEPLOYMENT, last_report, started

    with started(pipeline.name, parameters) as begun:
        told = f"`prefect flow-run cancel {begun.id}` ends it; the same command goes on with what is left then."
        if detach:
            answer = {"flow_run_id": str(begun.id), "deployment": DEPLOYMENT}
            show_json(answer) if as_json else typer.echo(f"Started as flow run {begun.id}. {told}")
            return
        if not as_json:
            typer.echo(f"Started as flow run {begun.id}; Ctrl-C leaves it running.")
        try:
            run = begun.followed(lambda _: None) if as_json else begun.followed(lambda said: typer.echo(f"  {said}"))
        except KeyboardInterrupt:
            say_error(f"\nIt goes on on the server as flow run {begun.id}. {told}")
            raise typer.Exit(_STOPPED) from None
    report = last_report(pipeline, plan.asked.start, plan.by, plan.only)
    if report is not None:
        show_json(report.as_dict()) if as_json else show_report(report)
    state = run.state
    if state is None or not state.is_completed():
        say_error(f"Flow run {begun.id} ended {run.state_name}: {(state and state.message) or 'without a word'}")
        raise typer.Exit(1)


def _text(at: "datetime | None") -> str | None:
    return None if at is None else at.isoformat()


def _run_here(pipeline: "Pipeline", begun: "Backfill", jobs: int, *, quiet: bool) -> "BackfillReport":
    from deployments.commands.runs import window_text
    from deployments.text_table import cell
    from tasks.recovery.backfill.here import run_backfill_here

    def show(progress: "Progress") -> None:
        place = f"{progress.ended:>{len(str(progress.of))}}/{progress.of}"
        text = f"  {place}  {window_text(progress.window)}"
        if progress.error is None:
            typer.echo(text)
        else:
            say_error(f"{text}  {cell(progress.error)}")

    return run_backfill_here(pipeline, begun, jobs, None if quiet else show)


def _show_begun(begun: "Backfill") -> None:
    if begun.resumed:
        typer.echo(
            f"{begun.pipeline}: goes on with backfill {begun.backfill_id[:8]} of {instant(begun.started_at)} UTC, that "
            f"set out to do {len(begun.windows):,} windows; --afresh begins a new one."
        )


def show_plan(plan: "BackfillPlan", jobs: int) -> None:
    """A line for each window, or for each month where they are many; then what they will take together."""
    from deployments.commands.runs import window_text
    from deployments.text_table import TextTable
    from tasks.window import Window

    chosen = set(plan.chosen)
    if plan.windows:
        whole = window_text(Window(plan.windows[0].window.start, plan.windows[-1].window.end))
        typer.echo(
            f"{plan.pipeline}: {whole} UTC in {len(plan.windows):,} windows by {plan.by}, {len(chosen):,} of them to "
            f"do ({plan.only})."
        )
    if plan.clipped:
        typer.echo(f"It ends at {instant(plan.bound)} UTC: what lies at or after that could still change.")
    if len(plan.windows) > _MOST_LINES:
        _show_months(plan)
    else:
        table = TextTable(
            (
                "window (UTC)",
                "standing",
                "to do",
                "rows",
                "requests",
                "seconds",
                "covered (UTC)",
                "by version",
                "contract",
            ),
            flexible=("by version",),
        )
        for one in plan.windows:
            covered = None if one.covered_at is None else f"{one.covered_at:%Y-%m-%d %H:%M}"
            contract = None if one.contract is None else one.contract[:8]
            table.add(
                window_text(one.window), one.standing, one in chosen, one.rows, one.calls, one.seconds, covered,
                one.code_version, contract,
            )  # fmt: skip
        for line in table.lines():
            typer.echo(line)
    typer.echo(_totals(plan, jobs))


_MOST_LINES = 40


def _show_months(plan: "BackfillPlan") -> None:
    from collections import Counter
    from itertools import groupby

    from deployments.text_table import TextTable
    from tasks.recovery.backfill.plan import total

    chosen = set(plan.chosen)
    table = TextTable(
        ("month", "windows", "covered", "stale", "failed", "missing", "to do", "rows", "requests", "seconds")
    )
    for month, group in groupby(plan.windows, key=lambda one: f"{one.window.start:%Y-%m}"):
        windows = list(group)
        stand, to_do = Counter(one.standing for one in windows), [one for one in windows if one in chosen]
        table.add(
            month, len(windows), stand["covered"], stand["stale"], stand["failed"], stand["missing"], len(to_do),
            total(one.rows for one in to_do), total(one.calls for one in to_do), total(one.seconds for one in to_do),
        )  # fmt: skip
    for line in table.lines():
        typer.echo(line)


def _totals(plan: "BackfillPlan", jobs: int) -> str:
    many = len(plan.chosen)
    if not many:
        return "Nothing is to do."
    told, at_once = [f"{many:,} windows are to do"], min(jobs, many)
    if plan.rows is None:
        told.append("how much that is, no earlier run tells")
    else:
        told.append(f"about {plan.rows:,} rows")
    if plan.calls is not None:
        told.append(f"about {plan.calls:,} requests")
    if plan.seconds is not None:
        told.append(
            f"about {plan.seconds:,.0f} s one after the other, {plan.seconds / at_once:,.0f} s {at_once} at once"
        )
    return f"{', '.join(told)}."


def show_report(report: "BackfillReport") -> None:
    """The sum, and a line for each window that is not committed."""
    from deployments.commands.runs import SHORT, window_text
    from deployments.text_table import TextTable, filled

    typer.echo(str(report))
    table = TextTable(("window (UTC)", "status", "attempts", "run"))
    for one in report.left:
        table.add(window_text(one.window), one.status, one.attempts, one.run_id and one.run_id[:SHORT])
    for line, error in zip(table.lines(), [None, *(one.error for one in report.left)], strict=False):
        typer.echo(line)
        if error is not None:
            typer.echo(filled(error, indent="    "))
    if report.left:
        typer.echo("The same command goes on with these.")
