"""Watch: how every pipeline is, measured every few minutes, whether or not any of them runs."""

from prefect import flow

from flows.nightly import MEMBERS
from tasks.watch import WatchReport, watch_pipelines


@flow(name="watch")
def watch() -> WatchReport:
    """Tell what each pipeline keeps and breaches of what it promises, and fail in the end if one cannot be measured."""
    return watch_pipelines("watch", [pipeline for pipeline, _ in MEMBERS])
