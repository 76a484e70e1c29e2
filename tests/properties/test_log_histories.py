"""Random sessions write to a followed table while it is read at random: in the end the target is the source."""

import random
from dataclasses import replace

import psycopg
import pytest

from tasks.extract.log import LogExtract
from tasks.load.upsert import Upsert
from tasks.pipeline import run_pipeline
from tests.conftest import Databases
from tests.extract.test_log import BOOKINGS, drop_slots
from tests.properties.interleaving import assert_followed, interleave, seeds
from tests.properties.writers import Writers

FEW = range(3)
MANY = seeds(100)


@pytest.mark.slow
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
    logged_bookings(databases, dice, stays=refreshes)
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
        interleave(run, writers, dice)
    run_pipeline(pipeline)
    assert_followed(databases, f"bookings_{seed}", seed)
    drop_slots(databases.source)


def logged_bookings(databases: Databases, dice: random.Random, *, stays: bool) -> None:
    """The table, with long values out of line and one of the two replica identities.

    Args:
        databases: where.
        dice: chooses the identity.
        stays: one row is never deleted: a new snapshot of an empty table would be refused, empty is not deleted.
    """
    conninfo = databases.source.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(conninfo, autocommit=True) as admin:
        admin.execute("DROP TABLE IF EXISTS bookings CASCADE")
        admin.execute("CREATE TABLE bookings (id bigint PRIMARY KEY, seat text, price float8)")
        admin.execute("ALTER TABLE bookings ALTER seat SET STORAGE EXTERNAL")
        if stays:
            admin.execute("INSERT INTO bookings VALUES (-1, 'stays', 1)")
        admin.execute(f"ALTER TABLE bookings REPLICA IDENTITY {dice.choice(['DEFAULT', 'FULL'])}")
