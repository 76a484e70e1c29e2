"""`CommitWatch`: strikes at one point of the commit's transaction, which it follows through SQLAlchemy's own events."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Engine, event

COMMIT: Literal["COMMIT"] = "COMMIT"


@dataclass(frozen=True)
class Point:
    """A point of the commit's transaction.

    Attributes:
        moment: before the client sends the statement, or after it has the answer.
        statement: its number, from 1, or `COMMIT`.
    """

    moment: Literal["before", "after"]
    statement: int | Literal["COMMIT"]

    def __str__(self) -> str:
        return f"{self.moment} {self.statement}"


def all_points(statements: int) -> list[Point]:
    """Every point of a commit with so many statements, in order."""
    numbers: list[int | Literal["COMMIT"]] = [*range(1, statements + 1), "COMMIT"]
    return [Point(moment, number) for number in numbers for moment in ("before", "after")]


class CommitWatch:
    """Follows the first commit on `engine` and calls `strike` at `point`, once, with the DBAPI connection it is on.

    The commit's transaction is the one whose first statement looks for the target in `etl_targets` and locks it; on
    SQLite, where a transaction locks at BEGIN IMMEDIATE, the first statement alone tells.

    Args:
        engine: the target.
        point: where to strike; None only counts.
        strike: what happens there.

    Attributes:
        statements: the text of every statement of the commit so far, the lock first.
        struck: whether the point was reached.
    """

    def __init__(self, engine: Engine, point: Point | None, strike: Callable[[Any], None]) -> None:
        self.statements: list[str] = []
        self.struck = False
        self._point = point
        self._strike = strike
        self._sqlite = engine.dialect.name == "sqlite"
        self._driver: Any = None
        self._ended = False
        self._began: Connection | None = None
        event.listen(engine, "before_cursor_execute", self._before)
        event.listen(engine, "after_cursor_execute", self._after)
        event.listen(engine, "commit", self._commit)
        event.listen(engine.pool, "reset", self._reset)

    def _before(self, connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if self._driver is None and self._locks(connection, statement):
            self._driver = connection.connection.dbapi_connection
        self._began = connection if statement.startswith("BEGIN") else None
        if self._follows(connection):
            self.statements.append(statement)
            self._reach("before", len(self.statements))

    def _after(self, connection: Connection, *_: Any) -> None:
        if self._follows(connection):
            self._reach("after", len(self.statements))

    def _commit(self, connection: Connection) -> None:
        if self._follows(connection):
            self._ended = True
            self._reach("before", COMMIT)

    def _reset(self, driver: Any, *_: Any) -> None:
        # The first the pool hears of the connection after its COMMIT has been answered.
        if self._ended and driver is self._driver:
            self._reach("after", COMMIT)

    def _follows(self, connection: Connection) -> bool:
        return not self._ended and connection.connection.dbapi_connection is self._driver

    def _locks(self, connection: Connection, statement: str) -> bool:
        locked = self._began is connection if self._sqlite else "FOR UPDATE" in statement
        return locked and "FROM etl_targets" in statement

    def _reach(self, moment: Literal["before", "after"], statement: int | Literal["COMMIT"]) -> None:
        if not self.struck and self._point == Point(moment, statement):
            self.struck = True
            self._strike(self._driver)
