"""Global concurrency limits: one for each rate that a declaration shares between runs and machines."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate
from prefect.exceptions import ObjectNotFound

from deployments.change import Change
from tasks.extract.http.pace.rate import RateLimit

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

KIND = "limit"


def changes(client: "SyncPrefectClient", rates: Mapping[str, RateLimit]) -> list[Change]:
    """What makes the server keep `rates`, by name. Whether a limit is active is left to whoever disabled it."""
    return [change for name, rate in sorted(rates.items()) for change in _changes(client, name, rate)]


def _changes(client: "SyncPrefectClient", name: str, rate: RateLimit) -> list[Change]:
    decay = 1 / rate.spacing

    def create() -> None:
        client.create_global_concurrency_limit(
            GlobalConcurrencyLimitCreate(name=name, limit=rate.burst, slot_decay_per_second=decay)
        )

    def update() -> None:
        client.update_global_concurrency_limit(
            name, GlobalConcurrencyLimitUpdate(limit=rate.burst, slot_decay_per_second=decay)
        )

    try:
        there = client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        return [Change("create", KIND, name, create, f"{rate.requests} requests in {rate.per}")]
    differs = []
    if there.limit != rate.burst:
        differs.append(f"limit {there.limit} → {rate.burst}")
    # The server keeps it in single or double precision, whatever its database has.
    if not math.isclose(there.slot_decay_per_second, decay, rel_tol=1e-5):
        differs.append(f"slot decay per second {there.slot_decay_per_second:.6g} → {decay:.6g}")
    return [Change("update", KIND, name, update, ", ".join(differs))] if differs else []
