"""What the role of a pipeline has to be allowed in a database, as the declarations say; a dialect writes it as SQL.

`purpose` says what for. A part of a declaration that needs more than to read its tables has a method `needs`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class LogsIn:
    """To log in to the database, whatever is read there: a query need not read a table."""


@dataclass(frozen=True, slots=True)
class Reads:
    """To read a table or view.

    Attributes:
        table: `name` or `schema.name`.
        purpose: what for.
        made_by_runs: it may not be there before a pipeline has loaded it.
    """

    table: str
    purpose: str
    made_by_runs: bool = False


@dataclass(frozen=True, slots=True)
class Calls:
    """To call a function that is not the database's own, and all that it reads."""

    function: str
    purpose: str


@dataclass(frozen=True, slots=True)
class SeesTransactions:
    """To see which transactions of others are open, so that a bound can be proven.

    Attributes:
        lag: whether one is declared, that bounds how long they may take.
        purpose: what for.
    """

    lag: bool
    purpose: str


@dataclass(frozen=True, slots=True)
class FollowsLog:
    """To follow a table in the database's own log.

    Attributes:
        table: `name` or `schema.name`.
        publication: PostgreSQL's, made by an administrator; None: the run makes one.
        by: who reads the log, Debezium or the database itself.
        purpose: what for.
    """

    table: str
    publication: str | None
    by: Literal["slot", "debezium"]
    purpose: str


@dataclass(frozen=True, slots=True)
class FollowsByTriggers:
    """To make a change log beside a table, and triggers that write to it.

    Attributes:
        table: `name` or `schema.name`.
        log: the log's name; None where it has not been drawn yet, or nobody can be asked.
        purpose: what for.
    """

    table: str
    purpose: str
    log: str | None = None


@dataclass(frozen=True, slots=True)
class KeepsState:
    """To make the tables that begin with `etl_`, of state and of staging, and to write to them."""

    purpose: str


@dataclass(frozen=True, slots=True)
class Loads:
    """To write to a target.

    Attributes:
        table: `name` or `schema.name`; the first run makes it.
        beside: names of the tables that the strategy keeps in the same schema.
        evolves: a run alters it where it differs from its contract.
        updates: rows that are there may be written over.
        deletes: rows that are there may be deleted.
        purpose: what for.
    """

    table: str
    beside: tuple[str, ...]
    evolves: bool
    updates: bool
    deletes: bool
    purpose: str


@dataclass(frozen=True, slots=True)
class LooksAt:
    """For people: to read some of tidegate's own tables, which are not there before the first run."""

    tables: tuple[str, ...]
    purpose: str


Need = LogsIn | Reads | Calls | SeesTransactions | FollowsLog | FollowsByTriggers | KeepsState | Loads | LooksAt


@runtime_checkable
class HasNeeds(Protocol):
    """A part of a declaration that needs more in its `connection` than to read the tables it names."""

    def needs(self) -> Sequence[Need]:
        """What that is."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A statement for an administrator.

    Attributes:
        statement: SQL, in which names are quoted, without a semicolon at its end.
        purpose: what for.
        note: what an administrator has to know about it.
        optional: works without it, or only a person can say whether it is wanted: printed, but as a comment.
    """

    statement: str
    purpose: str
    note: str = ""
    optional: bool = False
