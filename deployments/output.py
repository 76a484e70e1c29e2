"""What a command prints: text or JSON on stdout, an error on stderr."""

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any, NoReturn

import typer

from tasks.errors import TidegateError, redact


def fail(error: TidegateError) -> NoReturn:
    """Say what is wrong, on stderr, and end with status 1."""
    say_error(f"{type(error).__name__}: {error}")
    raise typer.Exit(1) from error


def say_error(text: str) -> None:
    """A line on stderr, red on a terminal."""
    typer.secho(text, err=True, fg=typer.colors.RED if sys.stderr.isatty() else None)


@contextmanager
def failing() -> Iterator[None]:
    """End as `fail` does with the block's error, where it is one of ours."""
    try:
        yield
    except TidegateError as error:
        fail(error)


def show_json(value: Any) -> None:
    """`value` as JSON: times ISO 8601 in UTC, every digit of a number, NaN and infinity as texts; no secret."""
    typer.echo(json.dumps(_plain(value), indent=2, ensure_ascii=False))


def instant(value: datetime | None) -> str:
    """A time as people read it, in UTC, to the second; what stands around it names the zone."""
    return "-" if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(member) for key, member in value.items()}
    if isinstance(value, str):
        return redact(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Sequence | set | frozenset):
        return [_plain(member) for member in value]
    return str(value)
