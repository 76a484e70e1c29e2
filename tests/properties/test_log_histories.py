"""Random sessions write to a followed table while it is read at random: in the end the target is the source."""

import os
import random
import threading
from collections.abc import Callable
from dataclasses import replace

import psycopg
import pytest
from sqlalchemy import text

from tasks.errors import Fenced, RetriableError
from tasks.extract.log import LogExtract
from tasks.load.upsert import Upsert
from tasks.pipeline import run_pipeline
from tests.conftest import Databases
from tests.extract.test_log import BOOKINGS, drop_slots, rows
from tests.properties.writers import Writers

FEW = range(3)
MANY = range(int(os.environ.get("TIDEGATE_TEST_SEED", "0")), int(os.environ.get("TIDEGATE_TEST_SEED", "99")) + 1)


@pytest.mark.parametrize("seed", FEW)
def test_after_a_quiet_last_run_the_target_is_the_source(postgresql: Databases, seed: int) -> None:
    history(postgresql, seed)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_after_a_quiet_last_run_the_target_is_the_source_whatever_happened(postgresql: Databases) -> None:
    for seed in MANY:
        history(postgresql, seed)


def history(databases: Databases, seed: int) -> None:
    """One random history; `TIDEGATE_TEST_SEED=<seed>` runs a single one again."""
    print(f"seed {seed}")
    dice = random.Random(seed)
    refreshes = dice.random() < 0.3
    conninfo = databases.source.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(conninfo, autocommit=True) as admin:
        admin.execute("DROP TABLE IF EXISTS bookings CASCADE")
        admin.execute("CREATE TABLE bookings (id bigint PRIMARY KEY, seat text, price float8)")
        admin.execute("ALTER TABLE bookings ALTER seat SET STORAGE EXTERNAL")
        if refreshes:
            # A new snapshot of an empty table would be refused: empty is not deleted.
            admin.execute("INSERT INTO bookings VALUES (-1, 'stays', 1)")
        admin.execute(f"ALTER TABLE bookings REPLICA IDENTITY {dice.choice(['DEFAULT', 'FULL'])}")
    pipeline = replace(
        BOOKINGS,
        name=f"bookings_{seed}",
        extract=LogExtract("source", "bookings", chunk=dice.choice([3, 1_000_000]), max_shrink=1.0),
        load=Upsert("target", f"bookings_{seed}", key=["id"]),
    )

    def run() -> None:
        run_pipeline(pipeline, full_refresh=refreshes and dice_of_runs.random() < 0.3)

    dice_of_runs = random.Random(seed + 1_000_000)
    with Writers(databases.source, "bookings", dice, truncates=not refreshes) as writers:
        for _ in range(dice.randrange(2, 5)):
            for _ in range(dice.randrange(15)):
                writers.step()
            at_once(run, writers)
        writers.rest()
    run_pipeline(pipeline)
    found = rows(databases.target, f"SELECT id, seat, price FROM bookings_{seed} ORDER BY id")
    assert found == rows(databases.source, "SELECT * FROM bookings ORDER BY id"), f"seed {seed}"
    with databases.target.connect() as connection:
        letters = connection.execute(text("SELECT count(*) FROM etl_dead_letters")).scalar_one()
    assert letters == 0, f"seed {seed}"
    drop_slots(databases.source)


def at_once(run: Callable[[], object], writers: Writers, pause: float = 0.005) -> None:
    """A run in a thread of its own, while the sessions go on: a new slot waits for those that write.

    Args:
        run: the run.
        writers: the sessions.
        pause: seconds between two of their steps.
    """
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
