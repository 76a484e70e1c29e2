"""`DependsOn`: a pipeline that has to have come far enough before another one reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, Protocol, runtime_checkable

from tasks.errors import ConfigError


@runtime_checkable
class ReadsTables(Protocol):
    """A part of a declaration that says which tables it reads, in its `connection` or else in the target's database."""

    @property
    def reads(self) -> frozenset[str]:
        """Their names, `name` or `schema.name`."""


@dataclass(frozen=True)
class DependsOn:
    """Nothing is read that lies later than this upstream has come.

    How far a run may read is the upstream's `covered_until` plus `max_age`. The window of an incremental run is cut
    there; where that leaves nothing new, the upstream is behind. An explicit window is not cut: the upstream is behind
    unless it has come to its end. A run without a cursor reads its source as it is now: the upstream is behind unless
    it has come to the moment (target clock) at which the run begins. What is made of tables of the target, a mart,
    reads what its upstreams have loaded, as far as that is: it needs them to have been loaded once, and its explicit
    windows are like any.

    All these are source times, so two sources whose clocks differ need a `max_age` that makes up for it.

    Attributes:
        pipeline: name of the upstream.
        max_age: how far the upstream may be behind what is read: zero for not at all, a day or so for a list that
            changes now and then. None: it only has to have been loaded once, however long ago. What has no cursor, and
            is no mart, needs one of the last two, since the upstream is always a moment behind "now".
        when_behind: `skip` reads nothing in this run; `wait` asks again and again, for `timeout`, and then skips.
        timeout: how long a run waits.
        connection: name of the database that the upstream loads into; None is the one that this pipeline loads into.

    Raises:
        ConfigError: no name, a negative duration, or an unknown `when_behind`.
    """

    pipeline: str
    max_age: timedelta | None = timedelta(0)
    when_behind: Literal["skip", "wait"] = "skip"
    timeout: timedelta = timedelta(minutes=30)
    connection: str | None = None

    def __post_init__(self) -> None:
        what = f"DependsOn({self.pipeline!r})"
        if not self.pipeline:
            raise ConfigError(f"{what}: name the pipeline that has to have come first.")
        if self.when_behind not in ("skip", "wait"):
            raise ConfigError(f"{what}: when_behind is 'skip' or 'wait', got {self.when_behind!r}.")
        for name in ("max_age", "timeout"):
            duration = getattr(self, name)
            if duration is not None and duration < timedelta(0):
                raise ConfigError(f"{what}: {name} is not negative, got {duration}.")


def upstreams(pipeline: str, depends_on: Sequence[str | DependsOn], *, reads_now: bool) -> tuple[DependsOn, ...]:
    """What a pipeline declares, in full; a name alone stands for `DependsOn(name)`.

    Args:
        pipeline: who declares it.
        depends_on: as declared.
        reads_now: it reads its source as it is, without a cursor, and that is not what its upstreams have loaded.

    Raises:
        ConfigError: a name where a list belongs, one twice, its own, or an exact upstream of a pipeline without cursor.
    """
    if isinstance(depends_on, str):
        raise ConfigError(f"{pipeline}: depends_on is a list of pipelines, got {depends_on!r}. Write [{depends_on!r}].")
    declared = tuple(DependsOn(one) if isinstance(one, str) else one for one in depends_on)
    names = [one.pipeline for one in declared]
    for one in declared:
        if one.pipeline == pipeline:
            raise ConfigError(f"{pipeline}: depends_on names itself. Leave it out.")
        if names.count(one.pipeline) > 1:
            raise ConfigError(f"{pipeline}: depends_on names {one.pipeline!r} twice. Leave one of them out.")
        if reads_now and one.max_age == timedelta(0):
            raise ConfigError(
                f"{pipeline}: its source is read as it is now, and {one.pipeline!r} is always a moment behind that. "
                f"Say how far it may be behind: DependsOn({one.pipeline!r}, max_age=timedelta(hours=26)); or with "
                "max_age=None that it only has to have been loaded once."
            )
    return declared
