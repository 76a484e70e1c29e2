"""Random sessions write to a table that triggers follow, while it is read at random: the target becomes the source."""

import random
from dataclasses import replace

import pytest

from tasks.extract.triggers import TriggerExtract
from tasks.load.upsert import Upsert
from tasks.pipeline import remove_feed, run_pipeline
from tests.conftest import Databases
from tests.extract.followed import BOOKINGS, execute, logs, terms, triggers, waiting
from tests.properties.interleaving import assert_followed, interleave, seeds
from tests.properties.writers import Writers
from tests.variants import slow_but

MANY = seeds(100)


@pytest.mark.slow
@pytest.mark.parametrize("seed", slow_but([0], range(3)))
def test_after_a_quiet_last_run_the_target_is_the_source(sources: Databases, seed: int) -> None:
    history(sources, seed)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_after_a_quiet_last_run_the_target_is_the_source_whatever_happened(sources: Databases) -> None:
    for seed in MANY:
        history(sources, seed)


def history(databases: Databases, seed: int) -> None:
    """One random history; `TIDEGATE_TEST_SEED=<seed>` runs a single one again."""
    print(f"seed {seed}")
    source, dice = databases.source, random.Random(seed)
    # Where TRUNCATE makes a new snapshot, one of an empty table would be refused: empty is not deleted.
    truncates = databases.kind == "postgresql" and dice.random() < 0.7
    execute(source, "CREATE TABLE bookings (id bigint NOT NULL PRIMARY KEY, seat text, price double precision)")
    if not truncates:
        execute(source, "INSERT INTO bookings VALUES (-1, 'stays', 1)")
    pipeline = replace(
        BOOKINGS,
        name=f"bookings_{seed}",
        extract=TriggerExtract("source", "bookings", key=["id"], max_shrink=1.0),
        load=Upsert("target", f"bookings_{seed}", key=["id"]),
    )
    dice_of_runs = random.Random(seed + 1_000_000)

    def run() -> None:
        run_pipeline(pipeline, full_refresh=not truncates and dice_of_runs.random() < 0.2)

    # The numbers of a cluster's node.
    settings = ("SET auto_increment_increment = 3, auto_increment_offset = 2",) if dice.random() < 0.3 else ()
    settings = settings if databases.kind == "mariadb" else ()
    with Writers(source, "bookings", dice, truncates, settings) as writers:
        interleave(run, writers, dice, rounds=6)
    run_pipeline(pipeline)
    assert_followed(databases, f"bookings_{seed}", seed)
    assert waiting(source) == 0, f"seed {seed}"
    assert terms(run_pipeline(pipeline)) == {}, f"seed {seed}"
    remove_feed(pipeline)
    assert logs(source) == triggers(source) == [], f"seed {seed}"
    execute(source, "DROP TABLE bookings")
