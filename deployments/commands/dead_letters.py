"""`tidegate dead-letters`."""

from typing import Annotated, Any

import typer

from deployments.commands.runs import SHORT, fault_as_dict, faults_table, window_text
from deployments.output import failing, instant, say_error, show_json

app = typer.Typer(no_args_is_help=True, help="Look at the rows that broke a contract, and at what they broke.")


@app.command("list")
def list_(
    pipeline: Annotated[str, typer.Argument(help="Name of a pipeline in flows/.")],
    rule: Annotated[str | None, typer.Option(help="Only those that broke this rule, by its whole name.")] = None,
    run: Annotated[
        str | None,
        typer.Option(
            help="Only those of this run, seen again since or not: its id, its beginning, or a flow run's id."
        ),
    ] = None,
    since: Annotated[str | None, typer.Option(help="Only those seen since this time, ISO 8601, UTC.")] = None,
    start: Annotated[
        str | None, typer.Option(help="Only those from this time on, by cursor or window; ISO 8601, UTC.")
    ] = None,
    end: Annotated[str | None, typer.Option(help="Only those before this time.")] = None,
    status: Annotated[str, typer.Option(help="open, closed, discarded or all.")] = "open",
    limit: Annotated[int, typer.Option(help="How many letters are listed, the newest first.", min=0)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show what the dead letters of a pipeline broke, by rule and column, and then the letters."""
    from typing import cast

    from deployments.past_runs import find_run
    from deployments.pipelines import declared
    from deployments.text_table import TextTable
    from tasks.state.history import opened_history
    from tasks.state.letters import LetterStatus, Wanted, find_faults, find_letters
    from tasks.window import Window, to_utc

    with failing():
        found = declared(pipeline)
        seen = None if since is None else to_utc(since, "since")
        of = None if run is None else find_run(run).run
        # A letter knows the run that saw it last, and a lookback soon makes that another one.
        wanted = Wanted(
            found.name,
            cast(LetterStatus, status),
            rule=rule,
            since=seen if of is None else max(of.started_at, seen or of.started_at),
            until=None if of is None else of.finished_at,
            window=Window.parse(start, end),
            masking=found.masking,
        )
        with opened_history(found.load.connection) as connection:
            faults = [] if connection is None else find_faults(connection, wanted)
            letters = [] if connection is None else find_letters(connection, wanted, limit)
    if as_json:
        show_json({"rules": [fault_as_dict(one) for one in faults], "letters": [_as_dict(one) for one in letters]})
        return
    if not faults:
        typer.echo(f"{found.name}: no {'' if status == 'all' else f'{status} '}dead letters of that kind.")
        return
    for line in faults_table(faults).lines():
        typer.echo(line)
    table = TextTable(
        ("letter", "status", "last seen (UTC)", "times", "run", "row", "broke"), flexible=("row", "broke")
    )
    for letter in letters:
        table.add(
            str(letter.number),
            letter.status,
            instant(letter.last_seen),
            letter.times_seen,
            letter.run_id[:SHORT],
            letter.row_key,
            "; ".join(_broke(reason) for reason in letter.reasons),
        )
    typer.echo()
    for line in table.lines():
        typer.echo(line)


@app.command()
def show(
    letter: Annotated[int, typer.Argument(help="Its number, as `list` shows it.")],
    pipeline: Annotated[
        str | None, typer.Option(help="Whose it is, where letters of several databases have that number.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show a dead letter: its record, what it broke, when and in which run, and whether the contract is another now."""
    from deployments.found_letters import find_letter
    from deployments.text_table import cell

    with failing():
        found = find_letter(letter, pipeline)
    one = found.letter
    if found.problem:
        say_error(found.problem)
    if as_json:
        show_json(_as_dict(one) | {"contract_now": found.contract_now})
        return
    typer.echo(f"letter {one.number} of {one.pipeline}: {one.status}, row {cell(one.row_key)}")
    for name, value in (
        ("first seen", f"{instant(one.first_seen)} UTC"),
        ("last seen", f"{instant(one.last_seen)} UTC, {one.times_seen:,} times"),
        ("run", one.run_id),
        ("window (UTC)", window_text(one.window)),
        ("cursor", None if one.cursor_value is None else one.cursor_value.isoformat()),
        ("contract then", one.contract),
        ("contract now", _now(one.contract, found.contract_now)),
        ("closed", None if one.closed_at is None else f"{instant(one.closed_at)} UTC by run {one.closed_run_id}"),
    ):
        if value is not None:
            typer.echo(f"  {name:<13} {cell(value)}")
    typer.echo("broke")
    for reason in one.reasons:
        typer.echo(f"  {cell(_broke(reason))}")
    typer.echo("record")
    for name, value in one.record.items():
        typer.echo(f"  {cell(name)}: {cell(repr(value))}  ({cell(one.record_types.get(name, 'unknown'))})")


def _now(then: str, now: str | None) -> str | None:
    return None if now is None else "the same" if now == then else f"{now}: another; a rerun of the window judges anew"


def _broke(reason: Any) -> str:
    where = "" if reason["column"] is None else f"{reason['column']}: "
    return f"{where}{reason['rule']}, got {reason['value']!r}"


def _as_dict(letter: Any) -> dict[str, Any]:
    return {
        "letter": letter.number,
        "pipeline": letter.pipeline,
        "row_key": letter.row_key,
        "status": letter.status,
        "run_id": letter.run_id,
        "window": {"start": letter.window.start, "end": letter.window.end},
        "cursor": letter.cursor_value,
        "record": letter.record,
        "record_types": letter.record_types,
        "reasons": letter.reasons,
        "contract": letter.contract,
        "first_seen": letter.first_seen,
        "last_seen": letter.last_seen,
        "times_seen": letter.times_seen,
        "closed_run_id": letter.closed_run_id,
        "closed_at": letter.closed_at,
    }
