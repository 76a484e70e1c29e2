"""Bookings: every change in the log of the operations database, deletes included, applied to `fct_bookings`."""

import pandera.pandas as pa
from prefect import flow

from tasks.extract.log import LogExtract
from tasks.load.upsert import Upsert
from tasks.pipeline import Overrides, Pipeline, Sla, run_pipeline
from tasks.report import RunReport
from tasks.transform.contract import UtcTimestamp


class BookingSchema(pa.DataFrameModel):
    """A seat on a flight that somebody holds now."""

    booking_id: int
    flight_id: str
    seat: str = pa.Field(str_matches=r"^([1-9]|[12]\d|30)[A-F]$")
    fare_cents: int = pa.Field(ge=0)
    booked_at: UtcTimestamp
    changed_at: UtcTimestamp


PIPELINE = Pipeline(
    name="bookings",
    extract=LogExtract("operations", "bookings"),
    schema=BookingSchema,
    load=Upsert("warehouse", "fct_bookings", key=["booking_id"]),
    sla=Sla(max_error_rate=0.01),
)


@flow(name="bookings")
def bookings(full_refresh: bool = False, overrides: Overrides | None = None) -> RunReport:
    """Apply what changed since the last run, or take a new snapshot."""
    return run_pipeline(PIPELINE, full_refresh=full_refresh, overrides=overrides)
