"""Pipelines over an API of records, the connection `shop`, that many tests use."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pandera.pandas as pa
from sqlalchemy import Engine, text

from tasks.extract.api import ApiClock, ApiExtract
from tasks.extract.http.pace.retry import Retry
from tasks.extract.http.pages.numbered import PageNumber
from tasks.load.upsert import Upsert
from tasks.pipeline import Pipeline
from tasks.transform.contract import UtcTimestamp
from tests.scripted_server import Script, ScriptedServer

DAY = datetime(2013, 1, 8, tzinfo=UTC)
HOUR = timedelta(hours=1)


class RecordSchema(pa.DataFrameModel):
    id: int
    at: UtcTimestamp


def record(number: int, hour: float = 0) -> dict[str, Any]:
    return {"id": number, "at": (DAY + hour * HOUR).isoformat().replace("+00:00", "Z")}


Serve = Callable[[Script], ScriptedServer]
"""Start a server as the connection `shop`."""

WHOLE = Pipeline(
    name="records",
    extract=ApiExtract(
        "shop", "number", "rows", PageNumber(), checkpoint=4, retry=Retry(attempts=2, first=timedelta(0))
    ),
    schema=RecordSchema,
    load=Upsert("target", "fct_records", key=["id"]),
    max_attempts=1,
)


def changed(pipeline: Pipeline, **settings: Any) -> Pipeline:
    assert isinstance(pipeline.extract, ApiExtract)
    return replace(pipeline, extract=replace(pipeline.extract, **settings))


BY_TIME = changed(WHOLE, cursor="at", start_param="since", clock=ApiClock("clock", "now"))


def ids(target: Engine) -> list[int]:
    with target.connect() as connection:
        return list(connection.execute(text("SELECT id FROM fct_records ORDER BY id")).scalars())
