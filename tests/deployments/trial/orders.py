"""A pipeline that names everything a deploy sees to: an API with a secret and a shared rate, and a database."""

from datetime import date

import pandera.pandas as pa
from prefect import flow

from tasks.extract.api import ApiExtract
from tasks.extract.http.auth.credentials import Bearer
from tasks.extract.http.pace.rate import RateLimit
from tasks.load.replace import Replace
from tasks.pipeline import Pipeline
from tasks.secret import Secret


class OrderSchema(pa.DataFrameModel):
    id: int


PIPELINE = Pipeline(
    name="trial_orders",
    extract=ApiExtract(
        "trial_shop",
        "/orders",
        auth=Bearer(Secret("trial_key")),
        rate=RateLimit(120, shared="trial-rate", burst=3),
    ),
    schema=OrderSchema,
    load=Replace("trial_warehouse", "orders", key=["id"]),
)


@flow(name="trial-orders")
def orders(day: date | None = None, at_once: int = 1) -> None:
    """Take orders."""
