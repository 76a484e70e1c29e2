"""`retain_pipelines`: what is kept of dead letters brought down to what pipelines declare, one after another."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.declaration import Pipeline
from tasks.errors import RetentionFailed, TidegateError, redact
from tasks.masking import hiding, told
from tasks.observe.artifacts import show_report
from tasks.observe.context import logger
from tasks.recovery.letters.expire import Expired, expire_letters
from tasks.recovery.letters.mask import MaskedBefore, mask_letters


@dataclass(frozen=True, slots=True)
class Retained:
    """What was done about the letters of one pipeline.

    Attributes:
        pipeline: its name.
        expired: what has been kept long enough.
        masked: what still held values of masked columns.
        problem: why not all of it was done, or None.
    """

    pipeline: str
    expired: Expired = field(default_factory=Expired)
    masked: MaskedBefore = field(default_factory=MaskedBefore)
    problem: str | None = None

    @property
    def row(self) -> dict[str, Any]:
        """As a table shows it."""
        return {
            "pipeline": self.pipeline,
            "deleted": self.expired.deleted,
            "emptied": self.expired.emptied,
            "masked": self.masked.letters,
            "messages masked": self.masked.messages,
            "problem": self.problem,
        }


@dataclass(frozen=True, slots=True)
class RetentionReport:
    """What was done about the letters of each pipeline, in the order in which these were given."""

    retained: tuple[Retained, ...]

    def __str__(self) -> str:
        deleted = sum(one.expired.deleted for one in self.retained)
        emptied = sum(one.expired.emptied for one in self.retained)
        masked = sum(one.masked.letters for one in self.retained)
        return f"{deleted:,} dead letters deleted, {emptied:,} without their record from now on, {masked:,} masked"


def retain_pipelines(name: str, pipelines: Sequence[Pipeline]) -> RetentionReport:
    """Delete, empty and mask as each pipeline declares; one that fails keeps none of the others.

    Inside a flow run the table of all is an artifact `etl-<name>`.

    Args:
        name: of the whole.
        pipelines: whose letters.

    Raises:
        RetentionFailed: some failed, after all others were seen to.
    """
    report = RetentionReport(tuple(map(_retained, pipelines)))
    show_report(name, [one.row for one in report.retained], str(report))
    problems = [f"{one.pipeline}: {one.problem}" for one in report.retained if one.problem is not None]
    if problems:
        raise RetentionFailed(f"{name}: {len(problems)} of {len(pipelines)} pipelines failed. {'; '.join(problems)}")
    return report


def _retained(pipeline: Pipeline) -> Retained:
    with hiding(pipeline.masking):
        try:
            masked = mask_letters(pipeline, messages_again=False)
            return Retained(pipeline.name, expire_letters(pipeline), masked)
        # Whatever it is, the letters of the other pipelines are to be seen to.
        except Exception as error:
            problem = redact(str(error) if isinstance(error, TidegateError) else told(error))
            logger().error("%s: its dead letters are kept as they are. %s", pipeline.name, problem)
            return Retained(pipeline.name, problem=problem)
