"""Guards that are set aside for one run, and what the ledger says of it."""

import json
from dataclasses import replace

import pytest
from sqlalchemy import select

from tasks.errors import ConfigError, GuardRefused
from tasks.extract.snapshot import SnapshotDiff
from tasks.load.replace import Replace
from tasks.pipeline import Overrides, Pipeline, Sla, run_pipeline
from tasks.state.tables import runs
from tests.conftest import Databases, on_every_target
from tests.orders import ORDERS, SNAPSHOT, loaded, order, put, remove

REPLACED = replace(SNAPSHOT, load=Replace("target", "fct_orders", key=["id"]))
DIFFERENCE = replace(ORDERS, name="difference", extract=SnapshotDiff("source", "orders", key=["id"]))

ALL_GONE = Overrides("the shop has closed", max_shrink=1, allow_empty=True)


@pytest.mark.parametrize("pipeline", [REPLACED, DIFFERENCE], ids=["replace", "snapshot diff"])
def test_a_shrink_is_allowed_for_the_run_that_is_told_so_and_no_other(sqlite: Databases, pipeline: Pipeline) -> None:
    put(sqlite.source, [order(number) for number in range(8)])
    run_pipeline(pipeline)
    remove(sqlite.source, [0, 1, 2, 3, 4])
    with pytest.raises(GuardRefused, match=r"run it with Overrides\(max_shrink="):
        run_pipeline(pipeline)
    assert run_pipeline(pipeline, overrides=Overrides("moved away", max_shrink=0.7)).counts.deleted == 5
    remove(sqlite.source, [5, 6])
    with pytest.raises(GuardRefused):
        run_pipeline(pipeline)
    assert len(loaded(sqlite.target)) == 3


@on_every_target
@pytest.mark.parametrize("pipeline", [REPLACED, DIFFERENCE], ids=["replace", "snapshot diff"])
def test_an_empty_source_empties_the_target_where_both_guards_are_set_aside(
    databases: Databases, pipeline: Pipeline
) -> None:
    put(databases.source, [order(1), order(2)])
    run_pipeline(pipeline)
    remove(databases.source, [1, 2])
    with pytest.raises(GuardRefused):
        run_pipeline(pipeline, overrides=Overrides("not enough", max_shrink=1))
    assert len(loaded(databases.target)) == 2
    assert run_pipeline(pipeline, overrides=ALL_GONE).counts.deleted == 2
    assert loaded(databases.target) == []
    put(databases.source, [order(1), order(2)])
    assert run_pipeline(pipeline).counts.inserted == 2, "what was gone comes back, though it is what it was"


def test_a_window_of_bad_rows_is_loaded_where_its_error_rate_is_allowed(sqlite: Databases) -> None:
    strict = replace(ORDERS, sla=Sla(abort_error_rate=0.1))
    put(sqlite.source, [order(1), order(2, amount=-1)])
    with pytest.raises(GuardRefused):
        run_pipeline(strict)
    counts = run_pipeline(strict, overrides=Overrides("known fault of the till", abort_error_rate=0.5)).counts
    assert (counts.inserted, counts.rejected) == (1, 1)


def test_the_ledger_keeps_what_was_set_aside_and_why(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    run_pipeline(REPLACED)
    run_pipeline(REPLACED, overrides=ALL_GONE)
    with sqlite.target.connect() as connection:
        kept = connection.execute(select(runs.c.overrides).order_by(runs.c.started_at)).scalars().all()
    said = {"reason": "the shop has closed", "max_shrink": 1, "abort_error_rate": None, "allow_empty": True}
    said |= {"ignore_bounds": False, "on_missing": {}}
    assert kept[0] is None and json.loads(str(kept[1])) == said


def test_an_override_has_a_reason_and_shares() -> None:
    with pytest.raises(ConfigError, match="write it down in `reason`"):
        Overrides(" ")
    with pytest.raises(ConfigError, match="max_shrink is a share from 0 to 1, got 2"):
        Overrides("why", max_shrink=2)
