"""Random sessions write to a table that Debezium follows, and it is read at random: the target ends as the source."""

import os
import random
from dataclasses import replace

import psycopg
import pytest
from sqlalchemy import text

from tasks.extract.debezium import DebeziumExtract
from tasks.load.upsert import Upsert
from tasks.pipeline import run_pipeline
from tests.conftest import Databases
from tests.extract.test_log import BOOKINGS, drop_slots, rows
from tests.properties.test_log_histories import at_once
from tests.properties.writers import Writers

SEED = os.environ.get("TIDEGATE_TEST_SEED")
MANY = range(20) if SEED is None else range(int(SEED), int(SEED) + 1)


@pytest.mark.debezium
@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_after_a_quiet_last_run_the_target_is_the_source_whatever_happened(debezium_postgresql: Databases) -> None:
    for seed in MANY:
        history(debezium_postgresql, seed)


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
    extract = DebeziumExtract("source", "bookings", chunk=dice.choice([15, 1_000_000]), max_shrink=1.0, patience=60)
    load = Upsert("target", f"bookings_{seed}", key=["id"])
    pipeline = replace(BOOKINGS, name=f"bookings_{seed}", extract=extract, load=load)
    dice_of_runs = random.Random(seed + 1_000_000)

    def run() -> None:
        run_pipeline(pipeline, full_refresh=refreshes and dice_of_runs.random() < 0.3)

    with Writers(databases.source, "bookings", dice, truncates=not refreshes) as writers:
        for _ in range(dice.randrange(2, 4)):
            for _ in range(dice.randrange(15)):
                writers.step()
            # A start of Java takes two seconds, and a chunk takes one.
            at_once(run, writers, pause=0.05)
        writers.rest()
    run_pipeline(pipeline)
    found = rows(databases.target, f"SELECT id, seat, price FROM bookings_{seed} ORDER BY id")
    assert found == rows(databases.source, "SELECT * FROM bookings ORDER BY id"), f"seed {seed}"
    with databases.target.connect() as connection:
        letters = connection.execute(text("SELECT count(*) FROM etl_dead_letters")).scalar_one()
    assert letters == 0, f"seed {seed}"
    drop_slots(databases.source)
