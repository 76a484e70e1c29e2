"""Random sessions write to a table that Debezium follows, and it is read at random: the target ends as the source."""

import random
from dataclasses import replace

import pytest

from tasks.extract.debezium import DebeziumExtract
from tasks.load.upsert import Upsert
from tasks.pipeline import run_pipeline
from tests.conftest import Databases
from tests.extract.test_log import BOOKINGS, drop_slots, execute
from tests.properties.interleaving import assert_followed, interleave, seeds
from tests.properties.test_log_histories import logged_bookings
from tests.properties.writers import Writers
from tests.servers.debezium import MARIADB_JARS, needs_mariadb_jars

MANY = seeds(20)
CREATE = "CREATE TABLE bookings (id bigint PRIMARY KEY, seat text, price double precision)"


@pytest.mark.debezium
@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_after_a_quiet_last_run_the_target_is_the_source_whatever_happened(debezium_postgresql: Databases) -> None:
    for seed in MANY:
        history(debezium_postgresql, seed)


@pytest.mark.debezium
@pytest.mark.mariadb
@pytest.mark.slow
@pytest.mark.timeout(1_800)
@needs_mariadb_jars
def test_on_mariadb_too_the_target_is_the_source_after_a_quiet_last_run(debezium_mariadb: Databases) -> None:
    for seed in MANY:
        history(debezium_mariadb, seed)


def history(databases: Databases, seed: int) -> None:
    """One random history; `TIDEGATE_TEST_SEED=<seed>` runs a single one again."""
    print(f"seed {seed}")
    dice = random.Random(seed)
    # On MariaDB a snapshot locks everything for a moment, and a session that cannot wait cannot even commit.
    locks = databases.kind == "mariadb"
    refreshes = dice.random() < 0.3 and not locks
    if locks:
        execute(databases.source, "DROP TABLE IF EXISTS bookings", CREATE)
    else:
        logged_bookings(databases, dice, stays=refreshes)
    chunk = dice.choice([15, 1_000_000])
    extract = DebeziumExtract("source", "bookings", chunk=chunk, max_shrink=1.0, patience=60, jars=MARIADB_JARS)
    load = Upsert("target", f"bookings_{seed}", key=["id"])
    pipeline = replace(BOOKINGS, name=f"bookings_{seed}", extract=extract, load=load)
    dice_of_runs = random.Random(seed + 1_000_000)

    def run() -> None:
        run_pipeline(pipeline, full_refresh=refreshes and dice_of_runs.random() < 0.3)

    if locks:
        run_pipeline(pipeline)
    with Writers(databases.source, "bookings", dice, truncates=not refreshes and not locks) as writers:
        # A start of Java takes two seconds, and a chunk takes one.
        interleave(run, writers, dice, rounds=4, pause=0.05)
    run_pipeline(pipeline)
    assert_followed(databases, f"bookings_{seed}", seed)
    if not locks:
        drop_slots(databases.source)
