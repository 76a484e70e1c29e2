"""Random sessions write to a table that is compared with its last snapshot: in the end the target is the source."""

import os
import random
from dataclasses import replace
from functools import partial

import psycopg
import pytest

from tasks.extract.snapshot import SnapshotDiff
from tasks.load.upsert import Upsert
from tasks.pipeline import run_pipeline
from tests.conftest import Databases
from tests.extract.test_log import BOOKINGS, rows
from tests.properties.test_log_histories import at_once
from tests.properties.writers import Writers

MANY = range(int(os.environ.get("TIDEGATE_TEST_SEED", "0")), int(os.environ.get("TIDEGATE_TEST_SEED", "199")) + 1)


@pytest.mark.parametrize("seed", range(3))
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
    conninfo = databases.source.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(conninfo, autocommit=True) as admin:
        admin.execute("DROP TABLE IF EXISTS bookings CASCADE")
        admin.execute("CREATE TABLE bookings (id bigint PRIMARY KEY, seat text, price float8)")
        # An empty source would be refused: empty is not deleted.
        admin.execute("INSERT INTO bookings VALUES (-1, 'stays', 1)")
    table = f"compared_{seed}"
    pipeline = replace(
        BOOKINGS,
        name=table,
        extract=SnapshotDiff("source", "bookings", key=["id"], max_shrink=1.0),
        load=Upsert("target", table, key=["id"]),
    )
    with Writers(databases.source, "bookings", dice, truncates=False) as writers:
        for _ in range(dice.randrange(2, 5)):
            for _ in range(dice.randrange(15)):
                writers.step()
            at_once(partial(run_pipeline, pipeline), writers)
        writers.rest()
    run_pipeline(pipeline)
    found = rows(databases.target, f"SELECT id, seat, price FROM {table} ORDER BY id")
    assert found == rows(databases.source, "SELECT * FROM bookings ORDER BY id"), f"seed {seed}"
    again = run_pipeline(pipeline)
    assert again.counts.extracted == 0, f"seed {seed}"
