"""Several pipelines compared at once."""

from dataclasses import replace

import pytest
from sqlalchemy import delete

from tasks.errors import NotComparable, ReconcileFailed
from tasks.load.upsert import Upsert
from tasks.pipeline import run_pipeline
from tasks.recovery.reconcile.reconcile_run import reconcile_pipelines
from tests.conftest import Databases
from tests.orders import ORDERS, TARGET, order, put

OTHER = replace(ORDERS, name="other", load=Upsert("target", "fct_other", key=["id"]))
NEVER = replace(ORDERS, name="never", load=Upsert("target", "fct_never", key=["id"]))


def test_what_differs_fails_the_whole_after_all_were_compared(sqlite: Databases) -> None:
    put(sqlite.source, [order(1), order(2)])
    for pipeline in (ORDERS, OTHER):
        run_pipeline(pipeline)
    with sqlite.target.begin() as target:
        target.execute(delete(TARGET).where(TARGET.c.id == 1))
    with pytest.raises(ReconcileFailed, match=r"1 of 3 pipelines differ.+orders: 1 missing"):
        reconcile_pipelines("reconcile", [NEVER, ORDERS, OTHER])
    report = reconcile_pipelines("reconcile", [NEVER, ORDERS, OTHER], repair=True)
    assert [one.failed for one in report.outcomes] == [False, False, False]
    assert report.outcomes[0].skipped is not None


def test_one_alone_that_cannot_be_compared_says_so(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    with pytest.raises(NotComparable, match="has not been loaded yet"):
        reconcile_pipelines("reconcile", [NEVER])
