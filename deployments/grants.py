"""`tidegate grants`: the least that the roles of pipelines need, derived from the declarations, as SQL."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from textwrap import wrap
from typing import Any

from sqlalchemy import inspect, select
from sqlalchemy.exc import SQLAlchemyError

from tasks import connections
from tasks.declaration import Pipeline
from tasks.dialects import dialect_of
from tasks.errors import ConfigError, one_of
from tasks.extract.feed import Feed
from tasks.graph import parts, tables_of
from tasks.needs import FollowsByTriggers, FollowsLog, Grant, HasNeeds, KeepsState, Loads, LooksAt, Need, Reads
from tasks.state import tables
from tasks.state.schema import VERSION_TABLE
from tasks.transform.contract import Contract

SOURCE_ROLE, TARGET_ROLE = "tidegate_source", "tidegate_target"
LEDGER_ROLE, LETTERS_ROLE = "tidegate_ledger_reader", "tidegate_dead_letter_reader"

_LETTERS = tables.dead_letters.name
_STATE = (*(table.name for table in tables.metadata.sorted_tables), VERSION_TABLE)
_LEDGER = tuple(name for name in sorted(_STATE) if name not in (_LETTERS, tables.parents.name))
"""What tells how runs went, and holds no row of anybody's: a parent's name may be a person's number."""

_PEOPLE = (
    (LEDGER_ROLE, LooksAt(_LEDGER, "who look at how runs went")),
    (LETTERS_ROLE, LooksAt((_LETTERS,), "who may see dead letters: whole raw rows, with personal data in them")),
)


@dataclass(frozen=True)
class Section:
    """What one role needs in one database.

    Attributes:
        connection: its name.
        kind: SQLAlchemy's name for the kind of database.
        database: its name there.
        role: who is granted it.
        login: whether that is tidegate itself, and not people.
        creation: the statement that makes the role; None where there are no roles.
        grants: in the order in which they have to be run.
        pipelines: by statement, who needs it.
    """

    connection: str
    kind: str
    database: str
    role: str
    login: bool
    creation: str | None
    grants: Sequence[Grant] = ()
    pipelines: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def statements(self) -> list[str]:
        """What an administrator runs, once the role is there."""
        return [grant.statement for grant in self.grants if not grant.optional]

    def as_dict(self) -> dict[str, Any]:
        """For programs; without a creation there are no roles, and nothing to grant."""
        return {
            "connection": self.connection,
            "kind": self.kind,
            "database": self.database,
            "role": self.role,
            "login": self.login,
            "creation": self.creation,
            "grants": [
                {
                    "statement": grant.statement,
                    "pipelines": self.pipelines[grant.statement],
                    "purpose": grant.purpose,
                    "note": grant.note,
                    "optional": grant.optional,
                }
                for grant in self.grants
            ],
        }

    def __str__(self) -> str:
        if self.creation is None:
            return (
                f"-- {self.connection}: {self.kind} has no roles. Who may write the file and its folder may do "
                "everything; a source without a `lag` is locked for a moment, which takes writing too.\n"
            )
        lines = [f"-- {self.connection} ({self.kind}, database {self.database}): {self.role}", f"-- {self.creation};"]
        for grant in self.grants:
            told = f"{', '.join(self.pipelines[grant.statement])}: {grant.purpose}{grant.note and '; '}{grant.note}."
            lines += ["", *wrap(told, 110, initial_indent="-- ", subsequent_indent="-- ", break_on_hyphens=False)]
            mark = "-- " if grant.optional else ""
            lines += [f"{mark}{line}" for line in f"{grant.statement};".split("\n")]
        return "\n".join([*lines, ""])


def sections(
    pipelines: Sequence[Pipeline],
    *,
    source_role: str = SOURCE_ROLE,
    target_role: str = TARGET_ROLE,
    connection: str | None = None,
) -> list[Section]:
    """What each role needs, database by database; then what people need who look at a target's ledger.

    A database that one of `pipelines` loads into has one role, the target's, for what is read there as well: a run
    logs in to it once. Nothing is started or changed.

    Args:
        pipelines: whose needs.
        source_role: who reads, as the database takes its name: on MariaDB `name@host`.
        target_role: who loads.
        connection: name of the only database to tell of; None is all of them.

    Raises:
        ConfigError: nothing of `pipelines` is in the database of that name; a query cannot be parsed.
    """
    found: dict[str, list[tuple[str, Need]]] = {}
    for pipeline in pipelines:
        for name, need in _needs(pipeline):
            found.setdefault(name, []).append((pipeline.name, need))
    if connection is not None and connection not in found:
        raise ConfigError(
            f"None of {one_of(sorted(one.name for one in pipelines))} needs a right in {connection!r}. Name "
            f"{one_of(sorted(found))}."
        )
    wanted = sorted(found) if connection is None else [connection]
    loaded = {pipeline.load.connection for pipeline in pipelines}
    made: list[Section] = []
    for name in sorted(wanted, key=lambda name: (name in loaded, name)):
        made.append(_section(name, target_role if name in loaded else source_role, _unowned(found[name])))
        if name in loaded and made[-1].creation is not None:
            made += [_section(name, role, [("people", need)], login=False) for role, need in _PEOPLE]
    return made


def _needs(pipeline: Pipeline) -> Iterator[tuple[str, Need]]:
    """Everything that a run of `pipeline` needs, and in which connection."""
    load, target = pipeline.load, pipeline.load.connection
    for connection, part in parts(pipeline):
        for table in sorted(tables_of(pipeline.name, part)):
            yield connection, Reads(table, f"read by {_named(part)}", made_by_runs=connection == target)
        if isinstance(part, HasNeeds):
            for need in part.needs():
                yield connection, _with_its_name(pipeline, need)
    for upstream in pipeline.upstreams:
        if upstream.connection not in (None, target):
            yield (
                str(upstream.connection),
                Reads(tables.watermarks.name, f"how far {upstream.pipeline} has come", made_by_runs=True),
            )
    yield target, KeepsState("to make the tables of state and staging, which begin with etl_")
    extract, key = pipeline.extract, load.key
    columns = Contract(pipeline.name, pipeline.schema, pipeline.transform, key=key, cursor=extract.cursor).columns
    tells_deletes = isinstance(extract, Feed) or extract.tells_deletes
    beside = load.companions(columns, extract.cursor, tells_deletes=tells_deletes)
    yield (
        target,
        Loads(
            load.table,
            tuple(table.name for table in beside),
            evolves=pipeline.on_drift == "evolve",
            updates=load.updates,
            deletes=load.deletes and load.soft_delete is None,
            purpose=f"loaded by {type(load).__name__}",
        ),
    )


def _named(part: Any) -> str:
    return f"the {type(part).__name__}" if type(part).__name__.endswith("Extract") else f"a {type(part).__name__}"


def _with_its_name(pipeline: Pipeline, need: Need) -> Need:
    """The name of a log beside a followed table, once it has been drawn, and where the target can be asked."""
    if not isinstance(need, FollowsByTriggers) or connections.declared_url(pipeline.load.connection) is None:
        return need
    try:
        target = connections.engine(pipeline.load.connection)
        if not inspect(target).has_table(tables.feeds.name):
            return need
        with target.connect() as connection:
            known = select(tables.feeds.c.name).where(tables.feeds.c.pipeline == pipeline.name)
            return replace(need, log=connection.execute(known).scalar_one_or_none())
    except SQLAlchemyError:
        return need


def _unowned(needs: Sequence[tuple[str, Need]]) -> list[tuple[str, Need]]:
    """`needs` without reads of what the role owns: targets, state, and as a member of its owner what it publishes."""
    own = {need.table for _, need in needs if isinstance(need, Loads)}
    if own:
        own |= set(_STATE)
    own |= {
        need.table for _, need in needs if isinstance(need, FollowsLog) and need.by == "slot" and not need.publication
    }
    return [(name, need) for name, need in needs if not (isinstance(need, Reads) and need.table in own)]


def _section(connection: str, role: str, needs: Sequence[tuple[str, Need]], *, login: bool = True) -> Section:
    engine = connections.unconnected(connection)
    dialect, on = dialect_of(engine), engine.dialect
    database = engine.url.database or connection
    if not dialect.has_roles:
        return Section(connection, dialect.name, database, role, login, None)
    reached = dialect.state_rights_reach_all_tables and any(isinstance(need, KeepsState) for _, need in needs)
    found: dict[str, list[tuple[str, Grant]]] = {}
    for pipeline, need in needs:
        if reached and isinstance(need, Reads) and "." not in need.table:
            continue
        for grant in dialect.grants(on, role, database, need):
            found.setdefault(grant.statement, []).append((pipeline, grant))
    return Section(
        connection,
        dialect.name,
        database,
        dialect.role(on, role, login=login),
        login,
        dialect.role_creation(on, role, login=login),
        [_merged([grant for _, grant in several]) for several in found.values()],
        {statement: tuple(dict.fromkeys(name for name, _ in several)) for statement, several in found.items()},
    )


def _merged(several: Sequence[Grant]) -> Grant:
    """One statement for all who need it."""
    purposes = dict.fromkeys(grant.purpose for grant in several)
    return replace(several[0], purpose="; ".join(purposes))


def script(made: Sequence[Section]) -> str:
    """`made` as a file of SQL, commented."""
    head = (
        "-- Run each part as an administrator, connected to the database it names. All of it can be run again, and\n"
        "-- has to be when a declaration changes. Make the roles first, with passwords of your own: those that log in\n"
        "-- are for tidegate alone; people become members of the readers' roles.\n"
    )
    return "\n".join([head, *(str(section) for section in made)])
