"""A publication and a logical replication slot of PostgreSQL: made, looked at, moved and dropped through SQL."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from sqlalchemy import Connection, Engine, text

from tasks.dialects import dialect_of
from tasks.dialects.postgresql import libpq_conninfo
from tasks.errors import ConfigError, SourceError, SourceUnavailable
from tasks.extract.transaction_log.pgoutput import lsn_number, lsn_text
from tasks.missing_right import remedy

_OUTPUT_SETTINGS = "-c timezone=UTC -c datestyle=ISO -c bytea_output=hex -c extra_float_digits=1"
"""Values come as text; these make it the same text whatever the server's or the role's own settings are."""

_CONSISTENT_SECONDS = 60
_IDLE_SECONDS = 10

_TABLE = text("""
    SELECT c.oid::bigint, n.nspname, c.relname, c.relreplident, c.relkind,
           (SELECT array_agg(a.attname ORDER BY k.place)
            FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(attnum, place)
                 JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
            WHERE i.indrelid = c.oid AND i.indisprimary) AS primary_key
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = to_regclass(:name)
""")
_SLOT = text("""
    SELECT confirmed_flush_lsn::text AS confirmed, wal_status, active, database = current_database() AS here,
           pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint AS lag
    FROM pg_replication_slots WHERE slot_name = :name
""")

_REPLICATES = text("SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user")


@dataclass(frozen=True)
class Followed:
    """A table that is followed.

    Attributes:
        schema: its schema.
        name: its name.
        key: columns that identify a row.
    """

    schema: str
    name: str
    key: tuple[str, ...]


@dataclass(frozen=True)
class SlotState:
    """What the server says of a slot: where it stands, how many bytes of log it keeps, and whether it is being read."""

    confirmed: int
    lost: bool
    lag: int
    active: bool = False


def output_conninfo(engine: Engine) -> str:
    """`engine`'s URL for libpq, for a read-only session in which every value has the text that is decoded here."""
    return libpq_conninfo(engine, f"{_OUTPUT_SETTINGS} -c default_transaction_read_only=on")


def followed(connection: Connection, table: str, key: Sequence[str]) -> Followed:
    """The table called `table`, `name` or `schema.name`, checked for what a log can tell of it.

    Raises:
        SourceError: there is no such table.
        ConfigError: its rows have no key, or its log would not tell which row was updated or deleted.
    """
    quote = connection.dialect.identifier_preparer.quote
    row = connection.execute(_TABLE, {"name": ".".join(quote(part) for part in table.split("."))}).one_or_none()
    if row is None:
        raise SourceError(
            f"There is no table {table!r} in {connection.engine.url.render_as_string()}, or none that its user may "
            f"see. Check its name. {remedy(SourceError)}"
        )
    if row.relkind not in ("r", "p"):
        raise ConfigError(f"{table!r} is no table: a log tells nothing of a view. Name the tables under it.")
    primary = tuple(row.primary_key or ())
    chosen = tuple(key) or primary
    if not chosen:
        raise ConfigError(
            f"The table {table!r} has no primary key, so nothing says which of its rows a change is about. Declare "
            "`key`, and ALTER TABLE it REPLICA IDENTITY FULL."
        )
    identity = row.relreplident
    if identity == "n" or (identity == "d" and not primary):
        raise ConfigError(
            f"The table {table!r} has no replica identity: once it is published, PostgreSQL refuses every UPDATE and "
            f"DELETE of it. ALTER TABLE {table} REPLICA IDENTITY FULL (or add a primary key) first."
        )
    if identity == "d" and not set(chosen) <= set(primary):
        raise ConfigError(
            f"The log tells of a deleted row of {table!r} only its primary key ({', '.join(primary)}), and the key "
            f"declared is {', '.join(chosen)}. Declare the primary key, or ALTER TABLE it REPLICA IDENTITY FULL."
        )
    return Followed(row.nspname, row.relname, chosen)


def expect_logical(connection: Connection) -> None:
    """Check that the server keeps a log that can be decoded.

    Raises:
        ConfigError: `wal_level` is another.
    """
    level = connection.execute(text("SHOW wal_level")).scalar_one()
    if level != "logical":
        raise ConfigError(
            f"{connection.engine.url.render_as_string()} has wal_level={level}; its log can be decoded only with "
            "wal_level=logical. ALTER SYSTEM SET wal_level = logical, and restart the server."
        )


def publish(connection: Connection, publication: str, table: Followed) -> None:
    """Create the publication of one table unless it is there; before the slot, which would not know it otherwise."""
    known = text("SELECT 1 FROM pg_publication WHERE pubname = :name")
    if connection.execute(known, {"name": publication}).first() is not None:
        return
    options = ["publish_via_partition_root = true"]
    if (connection.dialect.server_version_info or (0,)) >= (18,):
        options.append("publish_generated_columns = stored")
    quote = connection.dialect.identifier_preparer.quote
    connection.exec_driver_sql(
        f"CREATE PUBLICATION {quote(publication)} FOR TABLE {quote(table.schema)}.{quote(table.name)} "
        f"WITH ({', '.join(options)})"
    )


def published_columns(connection: Connection, publication: str, table: Followed) -> list[str]:
    """The columns that the publication tells of, in the table's order.

    Raises:
        ConfigError: it does not tell of the table.
    """
    names = connection.execute(
        text("SELECT attnames FROM pg_publication_tables WHERE pubname = :p AND schemaname = :s AND tablename = :t"),
        {"p": publication, "s": table.schema, "t": table.name},
    ).scalar_one_or_none()
    if names is None:
        raise ConfigError(
            f"The publication {publication!r} does not hold the table {table.schema}.{table.name}. "
            f"ALTER PUBLICATION {publication} ADD TABLE {table.schema}.{table.name}. {remedy(SourceError)}"
        )
    return list(names)


@contextlib.contextmanager
def autocommit(source: Engine, where: str) -> Iterator[Connection]:
    """A session in which every statement is a transaction of its own, as slots want it; `where` begins its errors."""
    with (
        dialect_of(source).translated(where, SourceUnavailable, SourceError),
        source.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
    ):
        yield connection


@contextlib.contextmanager
def created(engine: Engine, slot: str) -> Iterator[tuple[int, str]]:
    """A new slot: the position where it begins, and a snapshot of exactly what was committed before it.

    The snapshot can be imported as long as the block lasts.

    Raises:
        SourceUnavailable: a transaction that writes stayed open too long for a consistent start.
        SourceError: the role may not replicate.
    """
    with _walsender(engine) as connection:
        # A walsender speaks the simple protocol only, which psycopg's own execute does not.
        command = sql.SQL("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput (SNAPSHOT 'export')").format(
            sql.Identifier(slot)
        )
        result = connection.pgconn.exec_(command.as_bytes(connection))
        if result.status != psycopg.pq.ExecStatus.TUPLES_OK:
            error = psycopg.errors.lookup(
                (result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) or b"XX000").decode()
            )
            if error is psycopg.errors.LockNotAvailable:
                raise SourceUnavailable(
                    f"{engine.url.render_as_string()}: a slot begins once the transactions have ended that are writing "
                    f"now, and one is open after {_CONSISTENT_SECONDS} s. Look for it in pg_stat_activity."
                )
            raise error(connection.pgconn.error_message.decode(errors="replace").strip())
        lsn, snapshot = ((result.get_value(0, column) or b"").decode() for column in (1, 2))
        yield lsn_number(lsn), snapshot


def _walsender(engine: Engine) -> psycopg.Connection:
    """A session that can make a slot with its snapshot.

    Raises:
        SourceError: the role may not have one. Nothing but this question tells: a refused login has no code.
    """
    conninfo = make_conninfo(libpq_conninfo(engine, f"-c lock_timeout={_CONSISTENT_SECONDS}s"), replication="database")
    try:
        return psycopg.connect(conninfo, autocommit=True)
    except psycopg.OperationalError as error:
        with engine.connect() as connection:
            if connection.execute(_REPLICATES).scalar_one():
                raise
        where = engine.url.render_as_string()
        raise SourceError(f"{where}: {error}. A right is missing: {remedy(SourceError)}") from error


def slot_state(connection: Connection, slot: str) -> SlotState | None:
    """The slot's state; None where there is none of that name.

    Raises:
        ConfigError: it is a slot of another database of the server.
    """
    row = connection.execute(_SLOT, {"name": slot}).one_or_none()
    if row is None:
        return None
    if not row.here:
        raise ConfigError(f"The replication slot {slot!r} belongs to another database of that server. Name another.")
    lost = row.wal_status == "lost" or row.confirmed is None
    return SlotState(0 if lost else lsn_number(row.confirmed), lost, int(row.lag or 0), bool(row.active))


def expect_after(connection: Connection, slot: str, position: int, where: str) -> None:
    """Check that the slot still has the changes after `position`, and move it there.

    Raises:
        SourceError: it has not; `where` is the source, as the message begins.
    """
    state = slot_state(connection, slot)
    gone = f"{where}: the changes after {lsn_text(position)} cannot be read any more: the slot {slot!r} "
    remedy = "Run the pipeline with full_refresh: it takes a new snapshot, and deletes what is gone from the target."
    if state is None:
        raise SourceError(f"{gone}is not there. {remedy}")
    if state.lost:
        raise SourceError(f"{gone}was too far behind, and the server has removed its log. {remedy}")
    if state.confirmed > position:
        raise SourceError(
            f"{gone}stands at {lsn_text(state.confirmed)}: the target is older than that, was it restored from a "
            f"backup? {remedy}"
        )
    if state.confirmed < position:
        # Committed, and then the run died before it could say so here.
        advance(connection, slot, position)


def await_idle(connection: Connection, slot: str, where: str) -> None:
    """Return when nobody reads the slot: a session that is gone lets go of it a moment later.

    Raises:
        SourceUnavailable: somebody does.
    """
    deadline = time.monotonic() + _IDLE_SECONDS
    while (state := slot_state(connection, slot)) is not None and state.active:
        if time.monotonic() > deadline:
            raise SourceUnavailable(
                f"{where}: another session reads the slot {slot!r}. Is another run of this pipeline under way? "
                "pg_replication_slots has its pid."
            )
        time.sleep(0.05)


def drop_slot(connection: Connection, slot: str) -> None:
    """Drop it, if it is there."""
    connection.execute(
        text("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = :name"),
        {"name": slot},
    )


def drop_publication(connection: Connection, publication: str) -> None:
    """Drop it, if it is there."""
    connection.exec_driver_sql(
        f"DROP PUBLICATION IF EXISTS {connection.dialect.identifier_preparer.quote(publication)}"
    )


def advance(connection: Connection, slot: str, position: int) -> None:
    """Let the server forget its log up to `position`."""
    connection.execute(
        text("SELECT pg_replication_slot_advance(:slot, CAST(:lsn AS pg_lsn))"),
        {"slot": slot, "lsn": lsn_text(position)},
    )


def flushed(connection: Connection) -> int:
    """The end of the log on disk, with everything in it that had been committed when this was called.

    A transaction with `synchronous_commit = off` is visible before it is on disk; a commit that is not off flushes it.
    """
    connection.execute(text("SET synchronous_commit = on"))
    connection.execute(text("SELECT pg_current_xact_id()"))
    return lsn_number(connection.execute(text("SELECT pg_current_wal_flush_lsn()::text")).scalar_one())
