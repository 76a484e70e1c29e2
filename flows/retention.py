"""Retention: what is kept of dead letters, brought down every day to what each pipeline declares."""

from prefect import flow

from flows.nightly import MEMBERS
from tasks.recovery.letters.retention_run import RetentionReport, retain_pipelines


@flow(name="retention")
def retention() -> RetentionReport:
    """Delete closed letters, take the records of old open ones, and mask what was kept before it was declared."""
    return retain_pipelines("retention", [pipeline for pipeline, _ in MEMBERS])
