"""Prefect tasks for a flow of an unusual shape: it extracts, joins what it likes, and loads, step by step.

A pipeline does the same in a stream and is what most flows want. Here a step's rows are in memory as a
`pyarrow.Table`, so this is for what fits there; nothing is cached, persisted or sent elsewhere. Each task retries what
is worth retrying, with exponential backoff and jitter, and `load` starts from fresh staging each time.

    @flow
    def orders_in_euro() -> RunReport:
        orders = extract_table(TableExtract("shop", "orders"))
        rates = extract_api(ApiExtract("rates", "/latest", records="rates"))
        return load("orders_in_euro", converted(orders, rates), OrderInEuro, Upsert("warehouse", "fct_orders", ["id"]))
"""

from typing import Any

import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from tasks.declaration import Pipeline, Transform
from tasks.errors import RetriableError
from tasks.extract.api import ApiExtract
from tasks.extract.api_children import ApiChildren
from tasks.extract.changes import Extract
from tasks.extract.rows import RowsExtract
from tasks.extract.table import TableExtract
from tasks.load.strategy import Load
from tasks.report import RunReport
from tasks.running.run import Run
from tasks.transform.contract import Contract, Judged
from tasks.window import Window

_RETRIES = 3


def _worth_retrying(_task: Any, _run: Any, state: Any) -> bool:
    return isinstance(state.result(raise_on_failure=False), RetriableError)


_PAUSES = exponential_backoff(backoff_factor=2)


@task(
    retries=_RETRIES,
    retry_delay_seconds=_PAUSES,
    retry_jitter_factor=1.0,
    retry_condition_fn=_worth_retrying,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def extract_table(extract: TableExtract, window: Window | None = None) -> pa.Table:
    """The rows of a table or query in `window`, or all of them.

    Raises:
        SourceUnavailable: the source did not answer, after the retries.
        SourceError: it refused.
    """
    return _read(extract, window)


# An API's client retries each request itself; a second layer would multiply the two.
@task(cache_policy=NO_CACHE, persist_result=False)
def extract_api(extract: ApiExtract | ApiChildren, window: Window | None = None) -> pa.Table:
    """The records of an API in `window`, or all of them.

    Raises:
        SourceUnavailable: the source did not answer, after the retries.
        SourceError: it refused.
    """
    return _read(extract, window)


@task(cache_policy=NO_CACHE, persist_result=False)
def validate(
    name: str,
    rows: pa.Table,
    schema: type[pandera.DataFrameModel],
    transform: Transform | None = None,
    key: tuple[str, ...] = (),
) -> Judged:
    """Transform `rows` and split them into good ones and dead letters, without writing anything.

    Raises:
        ContractError: a whole column, a check or the transform is broken.
    """
    return Contract(name, schema, transform, key=key, drops_rows=True, adds_rows=True).judge(rows, 0)


@task(
    retries=_RETRIES,
    retry_delay_seconds=_PAUSES,
    retry_jitter_factor=1.0,
    retry_condition_fn=_worth_retrying,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def load(
    name: str,
    rows: pa.Table | pd.DataFrame,
    schema: type[pandera.DataFrameModel],
    load: Load,
    cursor: str | None = None,
) -> RunReport:
    """Validate `rows` and load what is good in one commit, with ledger and dead letters, as the pipeline `name`.

    Args:
        name: what the ledger and the dead letters go by.
        rows: what to load.
        schema: the contract.
        load: the strategy.
        cursor: column that orders versions of a row, so that older never overwrites newer; None: as read, so written.

    Raises:
        TidegateError: see `tasks.errors`; then nothing was written.
    """
    table = pa.Table.from_pandas(rows, preserve_index=False) if isinstance(rows, pd.DataFrame) else rows
    pipeline = Pipeline(name, RowsExtract(table, name, cursor), schema, load, max_attempts=1)
    return Run(pipeline).run(None, None)


def _read(extract: Extract, window: Window | None) -> pa.Table:
    batches = list(extract.batches(window or Window()))
    return pa.concat_tables(batches, promote_options="permissive") if batches else pa.table({})
