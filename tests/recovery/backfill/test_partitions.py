"""Any partition of any range, in any order, three at once, while the schedule goes on: the target is the same."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise

import pandas as pd
import pytest
from adbc_driver_postgresql import dbapi
from sqlalchemy import Engine, text

from deployments.demo import operations
from flows import airports, flights, planes
from tasks import connections
from tasks.extract.table import TableExtract
from tasks.load.upsert import Upsert
from tasks.pipeline import Pipeline, Sla, run_pipeline
from tasks.recovery.backfill.calendar import By
from tasks.recovery.backfill.here import run_backfill_here
from tasks.recovery.backfill.ledger import open_backfill
from tasks.recovery.backfill.plan import plan_backfill
from tasks.window import Window
from tests.conftest import Databases
from tests.demo import expected

PARTITIONS = 100
STEP = timedelta(days=3.5)
HOUR = timedelta(hours=1)
BYS: tuple[By, ...] = ("day", "week", "month")


@pytest.fixture
def airline(postgresql: Databases, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """The demo's operations database at the beginning of 2013, with airports and planes loaded from its end."""
    monkeypatch.setenv("TIDEGATE_OPERATIONS_URL", postgresql.source_url)
    monkeypatch.setenv("TIDEGATE_WAREHOUSE_URL", postgresql.target_url)
    engine = connections.engine("operations")
    operations.build(engine)
    for module in (airports, planes):
        run_pipeline(module.PIPELINE)
    yield engine
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA replay CASCADE")


def pipeline_of(number: int, initial: datetime) -> Pipeline:
    """The pipeline of the flights with a table of its own, scheduled since `initial`."""
    assert isinstance(flights.PIPELINE.extract, TableExtract) and isinstance(flights.PIPELINE.load, Upsert)
    return replace(
        flights.PIPELINE,
        name=f"flights_{number}",
        extract=replace(flights.PIPELINE.extract, initial=initial),
        load=replace(flights.PIPELINE.load, table=f"fct_flights_{number}"),
        # In an hour of the night, most flights may be to airports that nobody knows.
        sla=Sla(abort_error_rate=1.0),
        depends_on=(),
    )


def replayed(engine: Engine, when: datetime) -> None:
    with engine.begin() as connection:
        operations.replay_to(connection, when)


def cut_at_random(chance: random.Random, start: datetime, end: datetime) -> list[Window]:
    seconds = int((end - start).total_seconds())
    cuts = sorted({chance.randrange(1, seconds) for _ in range(chance.randint(0, 7))})
    borders = [start, *(start + timedelta(seconds=cut) for cut in cuts), end]
    windows = [Window(*pair) for pair in pairwise(borders)]
    chance.shuffle(windows)
    return windows


def loaded(table: str) -> pd.DataFrame:
    url = connections.engine("warehouse").url.set(drivername="postgresql")
    with dbapi.connect(url.render_as_string(hide_password=False)) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {table}")
        frame: pd.DataFrame = cursor.fetch_arrow_table().to_pandas(types_mapper=pd.ArrowDtype)
    return frame


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_a_hundred_random_partitions_of_2013_give_the_reference(airline: Engine) -> None:
    """Some windows of each are left out, and a backfill fills them; flights take off and land all the while."""
    chance = random.Random(2013)
    done = rows = filled = 0
    for number in range(PARTITIONS):
        clock = operations.START + (number + 1) * STEP
        start = clock - timedelta(seconds=chance.randrange(3_600 * 30, 3_600 * 80))
        scheduled = start + (clock - start) * chance.uniform(0.5, 0.95)
        scheduled = scheduled.replace(microsecond=0)
        pipeline, windows = pipeline_of(number, scheduled), cut_at_random(chance, start, scheduled)
        replayed(airline, clock)
        # The first run makes the table; those that go on beside the windows see what has happened since.
        run_pipeline(pipeline)
        left_out = windows[: chance.randint(0, len(windows) // 2)]

        def schedule(pipeline: Pipeline = pipeline, clock: datetime = clock) -> None:
            for hours in (1, 2):
                replayed(airline, clock + hours * HOUR)
                run_pipeline(pipeline)

        with ThreadPoolExecutor(4) as threads:
            scheduled_runs = threads.submit(schedule)
            starts, ends = zip(*((one.start, one.end) for one in windows[len(left_out) :]), strict=True)
            list(threads.map(partial(run_pipeline, pipeline), starts, ends))
            scheduled_runs.result()
        by: By = "hour" if number % 10 == 0 else chance.choice(BYS)
        plan = plan_backfill(pipeline, start, scheduled, by)
        assert bool(plan.chosen) == bool(left_out)
        report = run_backfill_here(pipeline, open_backfill(pipeline, plan), jobs=3)
        assert report.status == "done"
        assert plan_backfill(pipeline, start, clock, "hour").chosen == ()
        reference = expected.fct_flights_at(clock + 2 * HOUR)
        reference = reference[reference["updated_at"] >= start].reset_index(drop=True)
        expected.assert_same_rows(loaded(pipeline.load.table), reference, ["flight_id"])
        done, rows, filled = done + len(windows), rows + len(reference), filled + len(report.windows)
        with connections.engine("warehouse").begin() as connection:
            connection.execute(text(f"DROP TABLE {pipeline.load.table}"))
    print(f"{PARTITIONS} partitions, {done} windows, {filled} of backfills, {rows:,} rows")
    assert rows > 100 * PARTITIONS and filled > PARTITIONS // 2
