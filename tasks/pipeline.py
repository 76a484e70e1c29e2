"""`Pipeline`: the declaration of one flow of data; `run_pipeline`: how it is carried out.

A flow file imports everything it declares with from here.
"""

from datetime import datetime

from tasks.declaration import Pipeline, Sla
from tasks.observe.context import skipped_state
from tasks.overrides import Overrides
from tasks.report import RunReport
from tasks.retention import Letters
from tasks.running.assembly import Assembly
from tasks.running.run import Run
from tasks.transform.audits import Audit
from tasks.transform.bounds import NullShare, RowCount
from tasks.transform.lookup import Lookup
from tasks.transform.references import References
from tasks.transform.unique import Unique
from tasks.transform.whole_window import WholeWindow
from tasks.upstreams import DependsOn

__all__ = [
    "Audit",
    "DependsOn",
    "Letters",
    "Lookup",
    "NullShare",
    "Overrides",
    "Pipeline",
    "References",
    "RowCount",
    "Sla",
    "Unique",
    "WholeWindow",
    "ddl",
    "finished",
    "remove_feed",
    "run_pipeline",
    "skip_pipeline",
]


def run_pipeline(
    pipeline: Pipeline,
    start: datetime | None = None,
    end: datetime | None = None,
    *,
    full_refresh: bool = False,
    overrides: Overrides | None = None,
) -> RunReport:
    """Sync what changed since the watermark, replay `[start, end)`, or read everything anew.

    Inside a Prefect flow run, every phase is a task run, and the report is an artifact and an event; outside of one
    it works the same without them.

    Args:
        pipeline: what to run.
        start: first instant of an explicit window over the cursor, UTC if naive; None for an incremental run.
        end: first instant that is left out; None is as far as is proven.
        full_refresh: forget the watermark, and read the source from its beginning; a feed takes a new snapshot. What is
            in the target and did not come in is gone from the source, and is deleted, within `max_shrink`. Only Append,
            an extract from an API or with an `initial`, and a target that other pipelines write to as well keep it.
        overrides: guards to set aside for this run; recorded in the ledger.

    Returns:
        What was committed. Where an upstream was behind, `skipped` says so, and nothing was read.

    Raises:
        TidegateError: see `tasks.errors`; nothing of the window that raised is in the target.
    """
    return Run(pipeline, overrides).run(start, end, full_refresh=full_refresh)


def ddl(pipeline: Pipeline) -> list[str]:
    """What a run would execute on the target now, in the target's own SQL, before it reads; nothing is executed.

    tidegate's own tables, whose names begin with `etl_`, are left out.

    Returns:
        The statements in order; none where the table is as declared, or is left as it is.

    Raises:
        TargetError: the run would refuse the table; the message says why.
        TidegateError: see `tasks.errors`.
    """
    return list(Assembly(pipeline).planned_target().statements)


def remove_feed(pipeline: Pipeline) -> None:
    """Take away what the feed of `pipeline` has made at its source: slot, publication, change log, triggers.

    Its target keeps its rows. The next run would begin anew, with a snapshot.

    Raises:
        ConfigError: its extract is no feed.
        TidegateError: see `tasks.errors`; call it again.
    """
    Run(pipeline).remove_feed()


def skip_pipeline(pipeline: Pipeline, reason: str) -> RunReport:
    """Read nothing, and say so in the ledger: a row with the status `skipped` and `reason`.

    Raises:
        TidegateError: the target did not take the row.
    """
    return Run(pipeline).skip(reason)


def finished(report: RunReport) -> RunReport:
    """`report`; a flow that returns it like this ends in the state `Skipped`, of type Completed, where it read nothing.

    For the last line of a flow whose pipeline has `depends_on`. Whoever calls the flow gets the report either way.
    """
    return report if report.skipped is None else skipped_state(report, report.skipped)
