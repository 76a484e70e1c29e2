"""Runs at random instants of what random sessions do; `TIDEGATE_TEST_SEED=<seed>` plays a single history again."""

import os
import random
import threading
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, text

from tasks.errors import Fenced, RetriableError
from tests.conftest import Databases
from tests.properties.writers import Writers


def seeds(many: int) -> range:
    """So many, or the one that the environment names."""
    chosen = os.environ.get("TIDEGATE_TEST_SEED")
    return range(many) if chosen is None else range(int(chosen), int(chosen) + 1)


def interleave(
    run: Callable[[], object], writers: Writers, dice: random.Random, rounds: int = 5, pause: float = 0.005
) -> None:
    """Some writing, then a run while writing goes on, a few times; in the end every transaction ends.

    Args:
        run: the run.
        writers: the sessions.
        dice: decides how often.
        rounds: fewer than this.
        pause: seconds between two steps while a run is on.
    """
    for _ in range(dice.randrange(2, rounds)):
        for _ in range(dice.randrange(15)):
            writers.step()
        _at_once(run, writers, pause)
    writers.rest()


def assert_followed(databases: Databases, table: str, seed: int) -> None:
    """The target is the source's bookings, and no row is a dead letter."""
    found = _rows(databases.target, f"SELECT id, seat, price FROM {table} ORDER BY id")
    assert found == _rows(databases.source, "SELECT id, seat, price FROM bookings ORDER BY id"), f"seed {seed}"
    assert _rows(databases.target, "SELECT * FROM etl_dead_letters") == [], f"seed {seed}"


def _at_once(run: Callable[[], object], writers: Writers, pause: float) -> None:
    """A run in a thread of its own, while the sessions go on: a new slot waits for those that write."""
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            run()
        except (RetriableError, Fenced):
            pass
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    while thread.is_alive():
        writers.step()
        thread.join(pause)
    if errors:
        raise errors[0]


def _rows(engine: Engine, query: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]
