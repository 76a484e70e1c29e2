"""A database: whether it answers, as whom, what that role may do, what time it has, and our tables in it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    column,
    delete,
    false,
    insert,
    inspect,
    select,
    table,
    update,
)

from deployments.doctor.connections import Connected
from deployments.doctor.finding import Finding
from tasks.connections import engine, origin
from tasks.dialects import dialect_of
from tasks.errors import SourceError, SourceUnavailable, TargetError, TargetUnavailable, TidegateError
from tasks.extract.sql import SqlTransform
from tasks.pipeline import Pipeline
from tasks.state.attempts import new_token
from tasks.state.schema import HEAD, schema_version

SKEW = timedelta(seconds=5)
"""More than this between two clocks is told, the time of the question apart."""


def utc_now() -> datetime:
    """This machine's time."""
    return datetime.now(UTC)


def examine_database(one: Connected) -> Iterator[Finding]:
    """See above.

    Raises:
        TidegateError: it does not answer.
    """
    there = engine(one.name)
    dialect = dialect_of(there)
    with (
        dialect.translated(f"The database {one.name!r}", SourceUnavailable, SourceError),
        there.connect() as connection,
    ):
        role = dialect.logged_in_as(connection)
        version = ".".join(map(str, connection.dialect.server_version_info or ())) or "unknown"
        skew, round_trip = _skew(connection)
    whom = "" if role is None else f" as {role}"
    yield Finding(
        "ok", f"connection {one.name}",
        f"{there.url.render_as_string()}, from {origin(one.name)}: {dialect.name} {version}{whom}; {one.users}.",
    )  # fmt: skip
    if abs(skew) > SKEW + round_trip:
        yield Finding(
            "warn", f"clock of {one.name}", f"it differs from this machine's by {skew.total_seconds():+.1f} s.",
            "Have both keep time by NTP: freshness is told by the target's clock, and windows end by the source's.",
        )  # fmt: skip
    else:
        yield Finding("ok", f"clock of {one.name}", f"it differs from this machine's by {skew.total_seconds():+.1f} s.")
    for pipeline in one.sources:
        yield _readable(pipeline, there)
    if one.targets:
        yield _writable(one, there)
        yield _state(one, there)
    for pipeline in one.targets:
        yield from _loadable(pipeline, there)


def _skew(connection: Connection) -> tuple[timedelta, timedelta]:
    """How far the database's clock is ahead of ours, and how long the question took."""
    before = utc_now()
    theirs = dialect_of(connection.engine).clock(connection)
    after = utc_now()
    return theirs - (before + (after - before) / 2), after - before


def _readable(pipeline: Pipeline, there: Engine) -> Finding:
    """Whether the role may read what the pipeline reads: no row is asked for."""
    about, dialect, extract = f"source of {pipeline.name}", dialect_of(there), pipeline.extract
    # What a mart reads are tables that other pipelines make.
    source, query = getattr(extract, "table", None), getattr(extract, "query", None)
    if isinstance(extract, SqlTransform) or (source is None and query is None):
        return Finding("ok", about, f"{extract.dataset} reads tables that others load.")
    try:
        with dialect.translated(f"The source {extract.connection!r}", SourceUnavailable, SourceError):
            relation: Any = dialect.relation(there, source) if source else dialect.query(there, str(query), [])
            with dialect.snapshot(there) as connection:
                connection.execute(select(*dialect.read_columns(relation)).select_from(relation).limit(0)).close()
    except TidegateError as error:
        return Finding(
            "fail", about, f"{type(error).__name__}: {error}",
            f"Grant its role SELECT on {source or 'what the query reads'}, or correct the declaration.",
        )  # fmt: skip
    return Finding("ok", about, f"{source or 'its query'} can be read.")


def _writable(one: Connected, there: Engine) -> Finding:
    """Whether the role may create tables: it makes one and drops it, and rolls back what can be rolled back."""
    about, dialect = f"target {one.name}", dialect_of(there)
    probe = Table(f"etl_doctor_{new_token()}", MetaData(), Column("n", Integer))
    try:
        with (
            dialect.translated(f"The target {one.name!r}", TargetUnavailable, TargetError),
            there.connect() as connection,
            connection.begin() as transaction,
        ):
            probe.create(connection)
            probe.drop(connection)
            transaction.rollback()
    except TidegateError as error:
        return Finding(
            "fail", about, f"no table can be made in it: {error}",
            "Grant its role CREATE on the schema (PostgreSQL) or the database, or let it write to the file.",
        )  # fmt: skip
    return Finding("ok", about, "tables can be made in it.")


def _loadable(pipeline: Pipeline, there: Engine) -> Iterator[Finding]:
    """Whether the role may change the rows of a target that is there: statements that are about no row."""
    about, dialect = f"target of {pipeline.name}", dialect_of(there)
    schema, _, name = pipeline.load.table.rpartition(".")
    try:
        with dialect.translated(f"The target {pipeline.load.connection!r}", TargetUnavailable, TargetError):
            inspector = inspect(there)
            if not inspector.has_table(name, schema or None):
                return
            given = ("computed", "identity")
            known = [
                each["name"]
                for each in inspector.get_columns(name, schema or None)
                if not any(each.get(kind) for kind in given)
            ]
            rows = table(name, *map(column, known), schema=schema or None)
            some = rows.c[known[0]]
            with there.connect() as connection, connection.begin() as transaction:
                connection.execute(insert(rows).from_select(known, select(*rows.c).where(false())))
                if pipeline.load.updates:
                    connection.execute(update(rows).where(false()).values({some: some}))
                if pipeline.load.deletes and pipeline.load.soft_delete is None:
                    connection.execute(delete(rows).where(false()))
                transaction.rollback()
    except TidegateError as error:
        yield Finding(
            "fail", about, f"rows of {pipeline.load.table} cannot be written: {error}",
            f"`tidegate grants {pipeline.name}` prints what its role needs.",
        )  # fmt: skip
        return
    yield Finding("ok", about, f"rows of {pipeline.load.table} can be written.")


def _state(one: Connected, there: Engine) -> Finding:
    about, dialect = f"state tables in {one.name}", dialect_of(there)
    try:
        with dialect.translated(f"The target {one.name!r}", TargetUnavailable, TargetError):
            version = schema_version(there)
    except TidegateError as error:
        return Finding("fail", about, f"they cannot be read: {error}", "`tidegate grants` prints what each role needs.")
    if version is None:
        return Finding("ok", about, "there are none yet; the first run makes them.")
    if version == HEAD:
        return Finding("ok", about, f"they are at version {version}.")
    if version < HEAD:
        return Finding(
            "warn", about, f"they are at version {version}, and this tidegate has {HEAD}.",
            "The next run brings them up to date. Until then nothing here can read them.",
        )  # fmt: skip
    return Finding(
        "fail", about, f"they are at version {version}, which a newer tidegate made; this one knows {HEAD}.",
        "Upgrade tidegate here.",
    )  # fmt: skip
