"""Sessions that write to a PostgreSQL table at random, in transactions that stay open, commit late, or roll back."""

import random
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

KEYS = 12


@dataclass
class Writers:
    """Three sessions on one table of `id`, `seat` and `price`, driven step by step.

    Attributes:
        conninfo: of the source.
        table: the table they write to.
        dice: decides everything.
        truncates: whether TRUNCATE is among what they do.
    """

    conninfo: str
    table: str
    dice: random.Random
    truncates: bool = True
    sessions: list[psycopg.Connection] = field(default_factory=list)

    def __enter__(self) -> "Writers":
        for _ in range(3):
            session = psycopg.connect(self.conninfo)
            # Whoever finds a row locked by another gives up at once: one thread drives them all.
            session.execute("SET lock_timeout = '5ms'")
            session.commit()
            self.sessions.append(session)
        return self

    def __exit__(self, *_: object) -> None:
        for session in self.sessions:
            session.close()

    def step(self) -> None:
        """One session does one thing."""
        session = self.dice.choice(self.sessions)
        what = self.dice.choices(["write", "commit", "rollback", "savepoint"], [10, 5, 1, 1])[0]
        if what == "commit":
            session.commit()
        elif what == "rollback":
            session.rollback()
        else:
            self._write(session, undone=what == "savepoint")

    def rest(self) -> None:
        """Every transaction ends."""
        for session in self.sessions:
            session.commit() if self.dice.random() < 0.8 else session.rollback()

    def _write(self, session: psycopg.Connection, *, undone: bool) -> None:
        statement, values = self._statement()
        try:
            session.execute("SAVEPOINT before")
            session.execute(sql.SQL(statement).format(sql.Identifier(self.table)), values)
            if undone:
                session.execute("ROLLBACK TO SAVEPOINT before")
        except (psycopg.errors.LockNotAvailable, psycopg.errors.UniqueViolation):
            session.execute("ROLLBACK TO SAVEPOINT before")
        except psycopg.errors.DeadlockDetected:
            session.rollback()

    def _statement(self) -> tuple[str, dict[str, object]]:
        dice = self.dice
        values: dict[str, object] = {
            "id": dice.randrange(KEYS),
            "new": dice.randrange(KEYS),
            # Some are stored out of line, so that an update of another column leaves them out of the log.
            "seat": dice.choice([None, "A", "ß", "x" * 5_000]),
            "price": dice.choice([None, 0, 1, 2.5]),
        }
        kinds = {
            "INSERT INTO {} VALUES (%(id)s, %(seat)s, %(price)s)": 6,
            "INSERT INTO {} VALUES (%(id)s, %(seat)s, 1) ON CONFLICT (id) DO UPDATE SET price = excluded.price": 3,
            "UPDATE {} SET price = %(price)s WHERE id = %(id)s": 5,
            "UPDATE {} SET seat = %(seat)s WHERE id = %(id)s": 3,
            "UPDATE {} SET id = %(new)s WHERE id = %(id)s": 2,
            "UPDATE {} SET price = price + 1": 1,
            "DELETE FROM {} WHERE id = %(id)s": 3,
            "TRUNCATE {}": 0.3 if self.truncates else 0,
        }
        return dice.choices(list(kinds), list(kinds.values()))[0], values
