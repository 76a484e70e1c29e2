"""`tidegate run`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployments.output import failing, instant, show_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.past_runs import FoundRun
    from tasks.overrides import Overrides
    from tasks.pipeline import Pipeline


def run(
    pipeline: Annotated[
        str,
        typer.Argument(help="Name of a pipeline in flows/; or the id of a run, 8 digits or more, which is then shown."),
    ],
    start: Annotated[str | None, typer.Option(help="First instant of a range, ISO 8601, UTC.")] = None,
    end: Annotated[str | None, typer.Option(help="First instant that is left out.")] = None,
    full_refresh: Annotated[bool, typer.Option("--full-refresh", help="Read the source from its beginning.")] = False,
    override: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Set a guard aside for this run: reason=…, max_shrink=…, abort_error_rate=…, allow_empty=true, "
            "ignore_bounds=true, on_missing.COLUMN=warn.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Run a pipeline here and now, without any server; 0 where it did what it should, or read nothing on purpose."""
    from deployments.commands.runs import show_run
    from deployments.text_table import cell
    from tasks.errors import ConfigError
    from tasks.pipeline import Pipeline, run_pipeline
    from tasks.window import Window

    with failing():
        found = _named(pipeline)
        if not isinstance(found, Pipeline):
            if start or end or full_refresh or override:
                raise ConfigError(
                    f"{pipeline} is a run of {found.run.attempts[0].pipeline}, and is only shown: --start, --end, "
                    "--full-refresh and --override are for the name of a pipeline, which is then run."
                )
            show_run(found, as_json=as_json)
            return
        window = Window.parse(start, end)
        overrides = parsed(override or [])
        report = run_pipeline(found, window.start, window.end, full_refresh=full_refresh, overrides=overrides)
    if as_json:
        show_json(
            report.as_dict()
            | {"watermark": report.watermark, "covered_until": report.covered_until, "windows": len(report.windows)}
        )
        return
    typer.echo(str(report))
    for name, value in (
        ("run", report.run_id),
        ("windows", len(report.windows)),
        ("watermark", f"{instant(report.watermark)} UTC" if report.watermark else None),
        ("covered until", f"{instant(report.covered_until)} UTC" if report.covered_until else None),
        ("position", report.position),
        ("skipped", report.skipped if report.windows else None),
        ("warned", report.warned or None),
        ("late", report.late or None),
        ("null cursors", report.null_cursors or None),
    ):
        if value is not None:
            typer.echo(f"  {name:<13} {cell(value)}")


def _named(name: str) -> "Pipeline | FoundRun":
    """The pipeline of that name; where there is none, the run of that id.

    Raises:
        ConfigError: it is neither, or stands for several runs.
    """
    from deployments.past_runs import UnknownRun, could_be_run, find_run
    from deployments.pipelines import declared
    from tasks.errors import ConfigError

    try:
        return declared(name)
    except ConfigError as error:
        if not could_be_run(name):
            raise ConfigError(
                f"{error} And {name!r} is no run's id, of which 8 hexadecimal digits or more are given."
            ) from None
        no_pipeline = error
    try:
        return find_run(name)
    except UnknownRun as error:
        raise ConfigError(f"{no_pipeline} And as an id: {error}") from None


def parsed(given: "Sequence[str]") -> "Overrides | None":
    """The overrides that `name=value` texts stand for; None where there are none.

    Raises:
        ConfigError: another name, a value that is none, or no reason.
    """
    from dataclasses import fields

    from tasks.errors import ConfigError, one_of
    from tasks.overrides import Overrides

    if not given:
        return None
    names = [one.name for one in fields(Overrides)]
    values: dict[str, Any] = {"reason": ""}
    for text in given:
        name, equals, value = text.partition("=")
        name, _, column = name.partition(".")
        if not equals or name not in names or bool(column) != (name == "on_missing"):
            raise ConfigError(
                f"--override {text!r}: write it as NAME=VALUE, where NAME is {one_of(names)}; the last as "
                "on_missing.COLUMN=warn."
            )
        if column:
            values.setdefault(name, {})[column] = value
        else:
            values[name] = value if name == "reason" else _value(name, value)
    return Overrides(**values)


def _value(name: str, value: str) -> float | bool:
    from tasks.errors import ConfigError

    if name in ("allow_empty", "ignore_bounds"):
        if value.lower() not in ("true", "false"):
            raise ConfigError(f"--override {name}: it is true or false, got {value!r}.")
        return value.lower() == "true"
    try:
        return float(value)
    except ValueError as error:
        raise ConfigError(f"--override {name}: it is a share from 0 to 1, got {value!r}.") from error
