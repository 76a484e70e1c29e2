"""What a strategy may be told, and exactly where its guards begin to refuse."""

from collections.abc import Callable, Sequence
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from sqlalchemy import select, text

from tasks import connections
from tasks.errors import ConfigError, GuardRefused
from tasks.load.append import Append
from tasks.load.replace import Replace
from tasks.load.upsert import Upsert
from tasks.pipeline import Sla, run_pipeline
from tasks.state.tables import runs
from tests.conftest import Databases
from tests.orders import ORDERS, SNAPSHOT, loaded, order, put, remove

EVERY = [Append, Replace, Upsert]


@pytest.mark.parametrize("strategy", EVERY)
@pytest.mark.parametrize("key", [[], ["id", "id"]], ids=["none", "one column twice"])
def test_a_key_is_one_or_more_different_columns(strategy: Callable[..., Any], key: Sequence[str]) -> None:
    with pytest.raises(ConfigError, match="into 'fct' needs a key of one or more different columns"):
        strategy("target", "fct", key=key)


@pytest.mark.parametrize("strategy", EVERY)
def test_a_strategy_is_a_value(strategy: Callable[..., Any]) -> None:
    one = strategy("target", "fct", key=["id"])
    assert one == strategy("target", "fct", key=("id",))
    assert hash(one) == hash(strategy("target", "fct", key="id"))
    with pytest.raises(FrozenInstanceError):
        one.table = "other"


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_shares_are_from_zero_to_one(share: float) -> None:
    with pytest.raises(ConfigError, match="max_shrink is a share from 0 to 1"):
        Replace("target", "fct", key=["id"], max_shrink=share)
    with pytest.raises(ConfigError, match="max_error_rate is a share from 0 to 1"):
        Sla(max_error_rate=share)
    with pytest.raises(ConfigError, match="abort_error_rate is a share from 0 to 1"):
        Sla(abort_error_rate=share)


@pytest.mark.parametrize(("gone", "refused"), [(1, False), (2, False), (3, True)])
def test_a_shrink_is_refused_only_above_its_limit(sqlite: Databases, gone: int, refused: bool) -> None:
    """Two of four rows are exactly the half that is allowed."""
    pipeline = replace(SNAPSHOT, load=Replace("target", "fct_orders", key=["id"], max_shrink=0.5))
    put(sqlite.source, [order(number) for number in range(4)])
    run_pipeline(pipeline)
    remove(sqlite.source, list(range(gone)))
    if refused:
        with pytest.raises(GuardRefused, match="3 of the 4 rows of 'fct_orders' are not in the extract"):
            run_pipeline(pipeline)
    else:
        assert run_pipeline(pipeline).counts.deleted == gone
    assert len(loaded(sqlite.target)) == (4 if refused else 4 - gone)


def test_an_empty_extract_is_refused_also_where_everything_may_go(sqlite: Databases) -> None:
    pipeline = replace(SNAPSHOT, load=Replace("target", "fct_orders", key=["id"], max_shrink=1.0))
    put(sqlite.source, [order(1)])
    run_pipeline(pipeline)
    remove(sqlite.source, [1])
    with pytest.raises(GuardRefused, match="Empty is not deleted"):
        run_pipeline(pipeline)
    assert len(loaded(sqlite.target)) == 1


def test_an_empty_extract_into_an_empty_target_is_no_loss(sqlite: Databases) -> None:
    put(sqlite.source, [])
    pipeline = replace(SNAPSHOT, load=Replace("target", "fct_orders", key=["id"]))
    assert run_pipeline(pipeline).counts.extracted == 0


@pytest.mark.parametrize(("bad", "refused"), [(2, False), (3, True)])
def test_an_error_rate_is_refused_only_above_its_limit(sqlite: Databases, bad: int, refused: bool) -> None:
    put(sqlite.source, [order(number, amount=-1 if number < bad else 1) for number in range(4)])
    pipeline = replace(ORDERS, sla=Sla(abort_error_rate=0.5))
    if refused:
        with pytest.raises(GuardRefused, match="3 of 4 rows were rejected, more than the 50%"):
            run_pipeline(pipeline)
    else:
        assert run_pipeline(pipeline).counts.rejected == bad
    assert len(loaded(sqlite.target)) == (0 if refused else 4 - bad)


@pytest.mark.slow
def test_a_load_into_an_emptied_table_does_not_look_through_it_for_every_row(postgresql: Databases) -> None:
    """PostgreSQL has seen it empty, so a look costs nothing, it thinks; meanwhile it grows, page by page."""
    put(postgresql.source, [order(number) for number in range(6_000)])
    run_pipeline(ORDERS)
    connections.dispose()  # a session tells what it has looked at when it ends
    with postgresql.target.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("TRUNCATE fct_orders"))
        connection.execute(text("VACUUM ANALYZE fct_orders"))
        connection.execute(text("SELECT pg_stat_reset_single_table_counters('fct_orders'::regclass)"))
    assert run_pipeline(ORDERS, full_refresh=True).counts.inserted == 6_000
    connections.dispose()
    pages = text("SELECT heap_blks_hit FROM pg_statio_user_tables WHERE relname = 'fct_orders'")
    with postgresql.target.connect() as connection:
        assert 6_000 <= connection.execute(pages).scalar_one() < 60_000


def test_the_ledger_counts_the_rows_that_were_written(sqlite: Databases) -> None:
    pipeline = replace(SNAPSHOT, load=Replace("target", "fct_orders", key=["id"]))
    put(sqlite.source, [order(number) for number in range(4)])
    run_pipeline(pipeline)
    put(sqlite.source, [order(1, amount=9), order(5)])
    remove(sqlite.source, [2])
    run_pipeline(pipeline)
    with sqlite.target.connect() as connection:
        assert connection.execute(select(runs.c.written).order_by(runs.c.started_at)).scalars().all() == [4, 3]
