"""`tidegate dead-letters replay` and `tidegate dead-letters discard`."""

from typing import TYPE_CHECKING, Annotated

import typer

from deployments.output import failing, show_json

if TYPE_CHECKING:
    from tasks.state.letters import Wanted

_Pipeline = Annotated[str, typer.Argument(help="Name of a pipeline in flows/.")]
_Rule = Annotated[str | None, typer.Option(help="Only those that broke this rule, by its whole name.")]
_Run = Annotated[str | None, typer.Option(help="Only those that this run saw last: its id, or the beginning of it.")]
_Since = Annotated[str | None, typer.Option(help="Only those seen since this time, ISO 8601, UTC.")]
_Start = Annotated[str | None, typer.Option(help="Only those from this time on, by cursor or window; ISO 8601, UTC.")]
_End = Annotated[str | None, typer.Option(help="Only those before this time.")]
_Json = Annotated[bool, typer.Option("--json", help="For programs.")]


def replay(
    pipeline: _Pipeline,
    rule: _Rule = None,
    run: _Run = None,
    since: _Since = None,
    start: _Start = None,
    end: _End = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only judge them; write nothing.")] = False,
    as_json: _Json = False,
) -> None:
    """Judge open dead letters by what the pipeline says today, load what passes, and close it."""
    from deployments.pipelines import declared
    from tasks.recovery.replay import rehearse_replay, replay_letters

    with failing():
        found = declared(pipeline)
        wanted = _wanted(found.name, rule, run, since, start, end)
        if dry_run:
            told = rehearse_replay(found, wanted)
            if as_json:
                windows = [str(one) for one in told.windows]
                show_json({"passing": told.passing, "failing": told.failing, "windows": windows, "reason": told.reason})
                return
            if told.windows:
                typer.echo(f"{found.name}: {told.reason}, so these windows would be read again:")
                for window in told.windows:
                    typer.echo(f"  {window if not told.snapshot else 'all of the source, by a new snapshot'}")
            if told.passing or told.failing or not told.windows:
                typer.echo(
                    f"{found.name}: {told.passing:,} rows pass the contract, {told.failing:,} do not. References, and "
                    "rules over the window, are asked when it is done."
                )
            return
        reports = replay_letters(found, wanted)
    if as_json:
        show_json([report.as_dict() for report in reports])
        return
    for report in reports:
        typer.echo(f"{report}\n  run {report.run_id}")
    if not reports:
        typer.echo(f"{found.name}: no open dead letters of that kind.")


def discard(
    pipeline: _Pipeline,
    reason: Annotated[str, typer.Option(help="Why nobody will mend them; the ledger keeps it.")],
    rule: _Rule = None,
    run: _Run = None,
    since: _Since = None,
    start: _Start = None,
    end: _End = None,
    as_json: _Json = False,
) -> None:
    """Close open dead letters that nobody will mend; a row that comes in bad again opens its own again."""
    from deployments.pipelines import declared
    from tasks.recovery.replay import discard_letters

    with failing():
        found = declared(pipeline)
        discarded = discard_letters(found, reason, _wanted(found.name, rule, run, since, start, end))
    if as_json:
        show_json({"discarded": discarded})
    else:
        typer.echo(f"{found.name}: {discarded:,} dead letters are discarded.")


def _wanted(
    pipeline: str, rule: str | None, run: str | None, since: str | None, start: str | None, end: str | None
) -> "Wanted":
    from deployments.past_runs import find_run
    from tasks.state.letters import Wanted
    from tasks.window import Window, to_utc

    return Wanted(
        pipeline,
        rule=rule,
        run_id=None if run is None else find_run(run).run.attempts[0].run_id,
        since=None if since is None else to_utc(since, "since"),
        window=Window.parse(start, end),
    )
