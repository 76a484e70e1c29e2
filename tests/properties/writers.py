"""Sessions that write to a table at random, in transactions that stay open, commit late, or roll back."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

KEYS = 12


@dataclass(frozen=True)
class Manners:
    """How a database is written to.

    Attributes:
        settings: whoever finds a row locked by another gives up at once: one thread drives all sessions.
        statements: with their weights, those that every database knows left out.
        passed_over: codes of errors that undo a statement.
        ended: codes of errors that have undone the transaction.
        haste: weight of a commit.
    """

    settings: tuple[str, ...]
    statements: Mapping[str, float]
    passed_over: frozenset[Any]
    ended: frozenset[Any] = frozenset()
    haste: int = 5


_REPLACE = {"REPLACE INTO {} VALUES (:id, :seat, :price)": 2}
_MANNERS = {
    "postgresql": Manners(
        ("SET lock_timeout = '5ms'",),
        {"INSERT INTO {} VALUES (:id, :seat, 1) ON CONFLICT (id) DO UPDATE SET price = excluded.price": 3},
        frozenset({"55P03", "23505"}),
        frozenset({"40P01"}),
    ),
    "mariadb": Manners(
        ("SET innodb_lock_wait_timeout = 0", "SET lock_wait_timeout = 0"),
        {"INSERT INTO {} VALUES (:id, :seat, 1) ON DUPLICATE KEY UPDATE price = VALUES(price)": 3, **_REPLACE},
        frozenset({1205, 1062}),
        frozenset({1213}),
    ),
    # Whoever has the one write lock keeps a run waiting, so it is given back soon.
    "sqlite": Manners(
        ("PRAGMA busy_timeout = 5",),
        {"INSERT INTO {} VALUES (:id, :seat, 1) ON CONFLICT (id) DO UPDATE SET price = excluded.price": 3, **_REPLACE},
        frozenset({19}),
        frozenset({5}),
        haste=12,
    ),
}
_STATEMENTS = {
    "INSERT INTO {} VALUES (:id, :seat, :price)": 6,
    "UPDATE {} SET price = :price WHERE id = :id": 5,
    "UPDATE {} SET seat = :seat WHERE id = :id": 3,
    "UPDATE {} SET id = :new WHERE id = :id": 2,
    "UPDATE {} SET price = price + 1": 1,
    "DELETE FROM {} WHERE id = :id": 3,
}


@dataclass
class Writers:
    """Three sessions on one table of `id`, `seat` and `price`, driven step by step.

    Attributes:
        engine: the source.
        table: the table they write to.
        dice: decides everything.
        truncates: whether TRUNCATE is among what they do.
        settings: more statements that each session begins with.
    """

    engine: Engine
    table: str
    dice: random.Random
    truncates: bool = True
    settings: tuple[str, ...] = ()
    sessions: list[Connection] = field(default_factory=list)

    def __enter__(self) -> "Writers":
        for _ in range(3):
            session = self.engine.connect()
            # What is set goes with the session.
            session.detach()
            for setting in (*self._manners.settings, *self.settings):
                session.exec_driver_sql(setting)
            session.commit()
            self.sessions.append(session)
        return self

    def __exit__(self, *_: object) -> None:
        for session in self.sessions:
            session.close()

    def step(self) -> None:
        """One session does one thing."""
        session = self.dice.choice(self.sessions)
        what = self.dice.choices(["write", "commit", "rollback", "savepoint"], [10, self._manners.haste, 1, 1])[0]
        if what == "commit":
            self._commit(session)
        elif what == "rollback":
            session.rollback()
        else:
            self._write(session, undone=what == "savepoint")

    def rest(self) -> None:
        """Every transaction ends."""
        for session in self.sessions:
            self._commit(session) if self.dice.random() < 0.8 else session.rollback()
            assert not session.in_transaction()

    def _commit(self, session: Connection) -> None:
        with self._passing_over(session, None):
            session.commit()

    def _write(self, session: Connection, *, undone: bool) -> None:
        statement, values = self._statement()
        with self._passing_over(session, None):
            session.exec_driver_sql("SAVEPOINT half")
            with self._passing_over(session, "ROLLBACK TO SAVEPOINT half"):
                session.execute(text(statement.format(self.table)), values)
                if undone:
                    session.exec_driver_sql("ROLLBACK TO SAVEPOINT half")

    @contextmanager
    def _passing_over(self, session: Connection, undo: str | None) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            code = _code(error)
            if code in self._manners.ended:
                session.rollback()
                # A COMMIT that failed is over for SQLAlchemy, and not yet for the driver.
                session.connection.rollback()
            elif code not in self._manners.passed_over:
                raise
            elif undo is not None:
                session.exec_driver_sql(undo)

    def _statement(self) -> tuple[str, dict[str, object]]:
        dice = self.dice
        values: dict[str, object] = {
            "id": dice.randrange(KEYS),
            "new": dice.randrange(KEYS),
            # Some are stored out of line, so that an update of another column leaves them out of the log.
            "seat": dice.choice([None, "A", "ß", "x" * 5_000]),
            "price": dice.choice([None, 0, 1, 2.5]),
        }
        kinds = {**_STATEMENTS, **self._manners.statements, "TRUNCATE {}": 0.3 if self.truncates else 0}
        return dice.choices(list(kinds), list(kinds.values()))[0], values

    @property
    def _manners(self) -> Manners:
        return _MANNERS[self.engine.dialect.name]


def _code(error: DBAPIError) -> Any:
    """PostgreSQL's SQLSTATE, MariaDB's number, SQLite's primary result code."""
    driver: Any = error.orig
    if hasattr(driver, "sqlite_errorcode"):
        return driver.sqlite_errorcode & 0xFF
    return driver.args[0] if isinstance(driver.args[0], int) else driver.sqlstate
