"""`tidegate dead-letters erase`, `expire` and `mask`."""

from collections.abc import Sequence
from typing import Annotated

import typer

from deployments.output import failing, show_json

_Pipeline = Annotated[str, typer.Argument(help="Name of a pipeline in flows/.")]
_Json = Annotated[bool, typer.Option("--json", help="For programs.")]


def erase(
    pipeline: _Pipeline,
    reason: Annotated[str, typer.Option(help="Why; the ledger keeps it, so write no value into it.")],
    key: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE of a column of the load's key; once for each of them.")
    ] = None,
    field: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE of a field of the raw record, at any depth; all have to hold.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be erased.")] = False,
    as_json: _Json = False,
) -> None:
    """Take the data of one row or person out of every dead letter, open or closed, and out of the ledger's messages."""
    from deployments.pipelines import declared
    from tasks.recovery.letters.erase import Person, count_erasable, erase_letters

    with failing():
        found = declared(pipeline)
        person = Person(_pairs("--key", key), _pairs("--field", field))
        erased = count_erasable(found, person) if dry_run else erase_letters(found, person, reason)
    if as_json:
        show_json({"letters": erased.letters, "messages": erased.messages, "dry_run": dry_run})
        return
    typer.echo(
        f"{found.name}: {erased.letters:,} dead letters and {erased.messages:,} messages of the ledger "
        f"{_done(dry_run, 'erased')}."
    )
    if set(person.fields) & set(found.masked):
        typer.echo("What is masked holds no value to be found by; give the key, or a field that is not masked.")


def expire(
    pipeline: _Pipeline,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    as_json: _Json = False,
) -> None:
    """Delete closed letters and empty open ones that have been kept as long as the pipeline declares in `letters`."""
    from deployments.pipelines import declared
    from tasks.recovery.letters.expire import count_expired, expire_letters

    with failing():
        found = declared(pipeline)
        expired = count_expired(found) if dry_run else expire_letters(found)
    if as_json:
        show_json({"deleted": expired.deleted, "emptied": expired.emptied, "dry_run": dry_run})
        return
    kept = found.letters
    typer.echo(
        f"{found.name}: {expired.deleted:,} closed dead letters {_done(dry_run, 'deleted')} (keep_closed="
        f"{kept.keep_closed}), {expired.emptied:,} open ones {_done(dry_run, 'emptied')} (keep_open={kept.keep_open})."
    )


def mask(
    pipeline: _Pipeline,
    as_json: _Json = False,
) -> None:
    """Mask what dead letters and messages of the ledger hold from before a column was declared in `masked`."""
    from deployments.pipelines import declared
    from tasks.recovery.letters.mask import mask_letters

    with failing():
        found = declared(pipeline)
        masked = mask_letters(found)
    if as_json:
        show_json({"letters": masked.letters, "messages": masked.messages})
        return
    if not found.masked:
        typer.echo(f"{found.name}: it declares no masked columns.")
        return
    typer.echo(
        f"{found.name}: {masked.letters:,} dead letters and {masked.messages:,} messages of the ledger were masked."
    )


def _done(dry_run: bool, what: str) -> str:
    return f"would be {what}" if dry_run else f"were {what}"


def _pairs(option: str, given: Sequence[str] | None) -> dict[str, str]:
    from tasks.errors import ConfigError

    pairs: dict[str, str] = {}
    for one in given or ():
        name, found, value = one.partition("=")
        if not found or not name or name in pairs:
            # The value may be a person's: it is not repeated.
            raise ConfigError(f"{option} is NAME=VALUE, once for each name; one of those given is not.")
        pairs[name] = value
    return pairs
