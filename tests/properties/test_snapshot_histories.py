"""Random sessions write to a table that is compared with its last snapshot: in the end the target is the source."""

import random
from dataclasses import replace
from functools import partial

import psycopg
import pytest

from tasks.extract.snapshot import SnapshotDiff
from tasks.load.upsert import Upsert
from tasks.pipeline import run_pipeline
from tests.conftest import Databases
from tests.extract.test_log import BOOKINGS
from tests.properties.interleaving import assert_followed, interleave, seeds
from tests.properties.writers import Writers
from tests.variants import slow_but

MANY = seeds(200)


@pytest.mark.parametrize("seed", slow_but([0], range(3)))
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
        interleave(partial(run_pipeline, pipeline), writers, dice)
    run_pipeline(pipeline)
    assert_followed(databases, table, seed)
    again = run_pipeline(pipeline)
    assert again.counts.extracted == 0, f"seed {seed}"
