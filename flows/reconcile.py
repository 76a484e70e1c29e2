"""Reconcile: source against target of every pipeline that can be compared, once a week."""

from datetime import datetime

from prefect import flow

from flows.nightly import GRAPH
from tasks.errors import ConfigError
from tasks.recovery.reconcile.reconcile_run import Reconciled, reconcile_pipelines


@flow(name="reconcile")
def reconcile(
    pipeline: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    deep: bool = False,
    repair: bool = False,
) -> Reconciled:
    """Find and explain what differs, of all pipelines or of one; fail where a difference is left."""
    if pipeline is not None and pipeline not in GRAPH.order:
        raise ConfigError(f"There is no pipeline {pipeline!r}; there are {', '.join(sorted(GRAPH.order))}.")
    chosen = [GRAPH[name] for name in ([pipeline] if pipeline else GRAPH.order)]
    return reconcile_pipelines("reconcile", chosen, start, end, deep=deep, repair=repair)
