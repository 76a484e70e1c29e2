"""An operating flow: no pipeline is its own."""

from prefect import flow


@flow(name="trial-sweep")
def sweep(days: int = 1) -> None:
    """Sweep."""
