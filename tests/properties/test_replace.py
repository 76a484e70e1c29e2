"""`Replace`: after any two states of a source, the target is the good part of the last, or was refused."""

from dataclasses import replace

import pytest
from hypothesis import strategies as st
from sqlalchemy import text

from tasks.errors import GuardRefused
from tasks.extract.table import TableExtract
from tasks.load.replace import Replace
from tasks.pipeline import Pipeline, run_pipeline
from tests.conftest import Databases
from tests.orders import SNAPSHOT, loaded, order, put
from tests.properties.effort import Prove, effort

State = dict[int, int]
"""Amounts by key; a negative one is bad."""

STATES = st.dictionaries(st.integers(0, 7), st.integers(-1, 3), max_size=8)
SHRINKS = st.sampled_from([0.0, 0.25, 0.5, 1.0])


@effort(few=4, many=60)
def test_the_target_is_the_good_part_of_the_last_state(databases: Databases, prove: Prove) -> None:
    """A rejected key keeps its last good version; a state that lost too much is refused as a whole."""

    def claim(example: tuple[list[State], float]) -> None:
        states, max_shrink = example
        pipeline = replace(SNAPSHOT, load=Replace("target", "fct_orders", key=["id"], max_shrink=max_shrink))
        _forget(databases)
        target: dict[int, float] = {}
        for state in states:
            gone = target.keys() - state.keys()
            refused = target and (not state or len(gone) / len(target) > max_shrink)
            if not refused:
                target = {key: value for key, value in target.items() if key in state}
                target |= {key: float(value) for key, value in state.items() if value >= 0}
            _show(databases, state)
            assert _refused(pipeline) == bool(refused)
            assert {row["id"]: row["amount"] for row in loaded(databases.target)} == target

    prove(st.tuples(st.lists(STATES, min_size=2, max_size=3), SHRINKS), claim)


@effort(few=2, many=40)
def test_a_second_run_on_the_same_state_writes_nothing(databases: Databases, prove: Prove) -> None:
    pipeline = replace(SNAPSHOT, load=Replace("target", "fct_orders", key=["id"]))

    def claim(state: State) -> None:
        _forget(databases)
        _show(databases, state)
        run_pipeline(pipeline)
        before = loaded(databases.target)
        counts = run_pipeline(pipeline).counts
        assert counts.unchanged + counts.rejected == counts.extracted == len(state)
        assert loaded(databases.target) == before

    prove(st.dictionaries(st.integers(0, 7), st.integers(-1, 3), min_size=1), claim)


@pytest.mark.parametrize("max_shrink", [0.0, 0.5])
def test_a_rejected_row_without_a_key_may_be_any_row_so_nothing_is_deleted(
    databases: Databases, max_shrink: float
) -> None:
    pipeline = replace(SNAPSHOT, load=Replace("target", "fct_orders", key=["id"], max_shrink=max_shrink))
    _show(databases, {1: 1, 2: 2})
    run_pipeline(pipeline)
    _show(databases, {1: 1})
    query = (
        "SELECT id, customer, amount, updated_at FROM orders UNION ALL SELECT NULL, 'bob', 3, updated_at FROM orders"
    )
    counts = run_pipeline(replace(pipeline, extract=TableExtract("source", query=query))).counts
    assert (counts.rejected, counts.deleted, counts.unchanged) == (1, 0, 1)
    assert [row["id"] for row in loaded(databases.target)] == [1, 2]


def _refused(pipeline: Pipeline) -> bool:
    try:
        run_pipeline(pipeline)
    except GuardRefused:
        return True
    return False


def _show(databases: Databases, state: State) -> None:
    """Make the source's table what `state` says."""
    put(databases.source, [])
    with databases.source.begin() as connection:
        connection.execute(text("DELETE FROM orders"))
    put(databases.source, [order(key, amount=value) for key, value in state.items()])


def _forget(databases: Databases) -> None:
    """Empty the target, for the next example."""
    with databases.target.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS fct_orders"))
