"""`reconcile_pipelines`: several pipelines compared, one after another."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tasks.declaration import Pipeline
from tasks.errors import NotComparable, ReconcileFailed, TidegateError, redact
from tasks.observe.artifacts import show_report
from tasks.observe.context import logger
from tasks.recovery.reconcile.reconcile import reconcile_pipeline
from tasks.recovery.reconcile.report import ReconcileReport


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one pipeline.

    Attributes:
        pipeline: its name.
        report: what was found; None where it was not compared.
        skipped: why it cannot be compared, or None.
        problem: why the comparison failed, or None.
    """

    pipeline: str
    report: ReconcileReport | None = None
    skipped: str | None = None
    problem: str | None = None

    @property
    def failed(self) -> bool:
        """Whether somebody has to look at it."""
        return self.problem is not None or (self.report is not None and not self.report.clean())

    @property
    def rows(self) -> list[dict[str, Any]]:
        """As a table shows them."""
        if self.report is not None and self.report.rows:
            return self.report.rows
        told = self.skipped or self.problem or "no difference"
        return [{"pipeline": self.pipeline, "kind": None, "key": None, "source": None, "target": None, "what": told}]

    def __str__(self) -> str:
        if self.report is not None:
            return str(self.report)
        return f"{self.pipeline}: not compared" if self.problem is None else f"{self.pipeline}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What became of each pipeline, in the order in which these were given."""

    outcomes: tuple[Outcome, ...]

    def __str__(self) -> str:
        return "; ".join(map(str, self.outcomes)) or "no pipeline was compared"


def reconcile_pipelines(
    name: str,
    pipelines: Sequence[Pipeline],
    start: datetime | None = None,
    end: datetime | None = None,
    *,
    deep: bool = False,
    repair: bool = False,
) -> Reconciled:
    """Compare every pipeline; one that fails keeps none of the others, and one that cannot be compared is passed over.

    Inside a flow run the table of all is an artifact `etl-<name>`.

    Args:
        name: of the whole.
        pipelines: which.
        start: see `reconcile_pipeline`.
        end: likewise.
        deep: likewise.
        repair: likewise.

    Raises:
        NotComparable: it was one alone, and cannot be compared.
        ReconcileFailed: differences are left, or a comparison failed, after all others were done.
    """
    done = Reconciled(tuple(_outcome(one, start, end, deep=deep, repair=repair) for one in pipelines))
    show_report(name, [row for one in done.outcomes for row in one.rows], str(done))
    failed = [one for one in done.outcomes if one.failed]
    if failed:
        raise ReconcileFailed(
            f"{name}: {len(failed)} of {len(pipelines)} pipelines differ, or could not be compared. "
            f"{'; '.join(map(str, failed))}. Look with `tidegate reconcile {failed[0].pipeline}`."
        )
    if len(done.outcomes) == 1 and done.outcomes[0].skipped is not None:
        raise NotComparable(done.outcomes[0].skipped)
    return done


def _outcome(pipeline: Pipeline, start: datetime | None, end: datetime | None, *, deep: bool, repair: bool) -> Outcome:
    try:
        report = reconcile_pipeline(pipeline, start, end, deep=deep, repair=repair)
    except NotComparable as error:
        logger().info("%s", error)
        return Outcome(pipeline.name, skipped=str(error))
    # Whatever it is, the other pipelines are to be compared.
    except Exception as error:
        problem = redact(str(error) if isinstance(error, TidegateError) else f"{type(error).__name__}: {error}")
        logger().error("%s could not be compared. %s", pipeline.name, problem)
        return Outcome(pipeline.name, problem=problem)
    logger().info("%s", report)
    return Outcome(pipeline.name, report)
