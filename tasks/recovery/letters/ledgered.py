"""`Ledgered`: work on the dead letters of a pipeline, page by page; the ledger counts with every page what was done."""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Connection, update

from tasks.declaration import Pipeline
from tasks.running.assembly import Assembly
from tasks.state.attempts import Attempt, lock_target, new_token, note_target, record_unplanned
from tasks.state.schema import ensure_schema
from tasks.state.tables import runs
from tasks.window import Window

Page = Callable[[Connection, datetime], int | None]
"""Does a part of the work, inside a transaction, given the target's clock: how many were changed; None: all is done."""


class Ledgered:
    """One piece of work. It waits for commits into the target, and they wait for no more than a page of it.

    Args:
        pipeline: whose letters.
        told: what the ledger says of so many.
    """

    def __init__(self, pipeline: Pipeline, told: Callable[[int], str]) -> None:
        self.pipeline = pipeline
        self.told = told
        self.changed = 0
        self.parts = Assembly(pipeline)
        self.attempt = Attempt(pipeline.name, pipeline.load.table, new_token(), "replay", Window())
        with self.parts.target_errors(pipeline.name):
            ensure_schema(self.parts.engine, self.parts.dialect)
            with self.parts.dialect.transaction(self.parts.engine) as connection:
                note_target(connection, pipeline.load.table)

    def carry_out(self, page: Page) -> int:
        """Call `page` until all is done; how many were changed.

        Raises:
            TidegateError: the pages before are done, and the ledger has them.
        """
        before = self.changed
        done: int | None = 0
        with self.parts.target_errors(self.pipeline.name):
            while done is not None:
                with self.parts.dialect.transaction(self.parts.engine) as connection:
                    lock_target(connection, self.pipeline.load.table)
                    now = self.parts.dialect.clock(connection)
                    done = page(connection, now)
                    if done:
                        self._record(connection, done, now)
        return self.changed - before

    def _record(self, connection: Connection, done: int, now: datetime) -> None:
        first, self.changed = not self.changed, self.changed + done
        if first:
            said = self.told(self.changed)
            record_unplanned(connection, self.attempt, said, now, self.parts.details(), "skipped")
        else:
            mine = update(runs).where(runs.c.attempt == self.attempt.token)
            connection.execute(mine.values(message=self.told(self.changed), finished_at=now))
