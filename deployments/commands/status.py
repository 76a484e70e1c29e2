"""`tidegate status`."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.output import failing, say_error, show_json

if TYPE_CHECKING:
    from deployments.standing import Standing


def status(
    pipelines: Annotated[
        list[str] | None, typer.Argument(help="Names of pipelines in flows/; all, without one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: times in UTC, ages in seconds.")] = False,
) -> None:
    """Show how far each pipeline has come, whether that is as fresh as promised, and how its last run ended."""
    from deployments.pipelines import chosen
    from deployments.standing import next_runs, standings
    from deployments.text_table import TextTable

    with failing():
        found = standings(chosen(pipelines or []))
    upcoming, away = next_runs([one.pipeline for one in found])
    if as_json:
        show_json([{**one.as_dict(), "next_run": upcoming.get(one.pipeline)} for one in found])
    else:
        table = TextTable(
            (
                "pipeline",
                "watermark UTC",
                "covered until UTC",
                "freshness",
                "last run",
                "errors",
                "letters",
                "next run",
            ),
            flexible=("pipeline",),
        )
        for one in found:
            next_run = upcoming.get(one.pipeline)
            table.add(
                one.pipeline,
                _minute(one.watermark),
                _minute(one.covered_until),
                _freshness(one),
                _last_run(one),
                None if one.error_rate is None else f"{one.error_rate:.2%}",
                one.open_letters,
                None if next_run is None else f"in {span(max(next_run - one.now, timedelta(0)))}",
            )
        for line in table.lines():
            typer.echo(line)
    for problem in [*(f"{one.pipeline}: {one.problem}" for one in found if one.problem), *([away] if away else [])]:
        say_error(problem)


def span(length: timedelta) -> str:
    """A length of time in the largest unit that it has two of: `3d`, `26h`, `90m`, `12s`."""
    seconds = int(length.total_seconds())
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= 2 * size), (1, "s"))
    return f"{seconds // size}{unit}"


_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"))


def _minute(value: datetime | None) -> str | None:
    return None if value is None else f"{value:%Y-%m-%d %H:%M}"


def _freshness(one: "Standing") -> str | None:
    if one.age is None:
        return None if one.limit is None else f"unknown of {span(one.limit)}"
    limit = "" if one.limit is None else f" of {span(one.limit)}"
    return f"{one.freshness} {span(one.age)}{limit}" if one.limit is not None else span(one.age)


def _last_run(one: "Standing") -> str | None:
    run = one.last_run
    if run is None:
        return None
    seconds = "" if run.seconds is None else f" {run.seconds:.1f}s"
    return f"{run.status} {span(max(one.now - run.started_at, timedelta(0)))} ago{seconds}"
