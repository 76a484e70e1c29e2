"""`Pipeline` and `Sla`: frozen declarations of one flow of data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import get_args

import pandas as pd
import pandera.pandas as pa

from tasks.errors import ConfigError, one_of
from tasks.extract.api_children import ApiChildren
from tasks.extract.changes import Extract
from tasks.extract.feed import Feed
from tasks.load.drift import SchemaDrift
from tasks.load.partition import ReplacePartition
from tasks.load.strategy import Load
from tasks.masking import Masking
from tasks.partitioned import Partitioned
from tasks.retention import Letters
from tasks.transform.audits import Audit
from tasks.transform.bounds import Bound
from tasks.transform.lookup import Lookup
from tasks.transform.references import References
from tasks.transform.window_rules import WindowRule
from tasks.upstreams import DependsOn, ReadsTables, upstreams

Transform = Callable[[pd.DataFrame], pd.DataFrame]


@dataclass(frozen=True)
class Sla:
    """What a pipeline promises, and who is told where it is not kept.

    Attributes:
        max_runtime: longest a run may take; None is any time.
        max_freshness: oldest `covered_until` may be; None is any age.
        max_error_rate: share of rejected rows, 0 to 1, above which an alert is raised: in one run, or in the last
            `recent_runs` together. Rows that only the lookback read again count once.
        abort_error_rate: share of rejected rows above which a window is refused.
        max_start_delay: latest a run may start after its time.
        recent_runs: over how many committed runs the recent error rate is taken.
        max_open_letters: most dead letters that may be open; None is any number, as long as they do not grow run by
            run.
        owner: who sees to it; every alert names them.
        runbook: address, `https://…`, of what to do; None is this project's own.
        alert_interval: the same alert of a pipeline is sent once in it.

    Raises:
        ConfigError: a share outside of 0 to 1, a time that is not positive, or a number, owner or address that cannot
            be meant.
    """

    max_runtime: timedelta | None = None
    max_freshness: timedelta | None = None
    max_error_rate: float = 0.05
    abort_error_rate: float = 0.5
    max_start_delay: timedelta = timedelta(minutes=5)
    recent_runs: int = 20
    max_open_letters: int | None = None
    owner: str = "data engineering"
    runbook: str | None = None
    alert_interval: timedelta = timedelta(hours=1)

    def __post_init__(self) -> None:
        for name in ("max_error_rate", "abort_error_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"Sla: {name} is a share from 0 to 1, got {getattr(self, name)}.")
        for name in ("max_runtime", "max_freshness", "max_start_delay", "alert_interval"):
            duration = getattr(self, name)
            if duration is not None and duration <= timedelta(0):
                raise ConfigError(f"Sla: {name} is longer than zero, got {duration}. Say timedelta(hours=2), or so.")
        if self.recent_runs < 1:
            raise ConfigError(f"Sla: recent_runs is 1 or more, got {self.recent_runs}; 1 looks at the last run alone.")
        if self.max_open_letters is not None and self.max_open_letters < 0:
            raise ConfigError(
                f"Sla: max_open_letters is 0 or more, got {self.max_open_letters}. None allows any number."
            )
        if not self.owner.strip():
            raise ConfigError(f"Sla: owner is {self.owner!r}. Name who sees to an alert; left out, it is a default.")
        if self.runbook is not None and not self.runbook.startswith(("https://", "http://")):
            raise ConfigError(
                f"Sla: runbook is an address that begins with https:// or http://, got {self.runbook!r}. Left out, it "
                "is this project's own."
            )


@dataclass(frozen=True)
class Pipeline:
    """One source, one contract, one target.

    Attributes:
        name: unique; the ledger, watermark and dead letters go by it.
        extract: what to read by windows, or what feed to follow.
        schema: pandera model of a target row.
        load: where to write, and how.
        transform: one batch in, one batch out; pure, without I/O; the index is each row's passport. None takes the
            source's columns as they are. `WholeWindow` makes it one window in, one window out.
        lookups: columns of other tables that rows are given by a key, before the contract judges them.
        references: keys in other tables of the target that rows have to exist in.
        rules: what the rows of a window have to keep together, `Unique` for instance; judged inside the commit.
        bounds: what a window as a whole may look like, compared with those before it: `RowCount`, `NullShare`.
        audits: SQL that must find nothing in the staged rows, or the window is refused.
        sla: promises and limits.
        drops_rows: the transform may leave rows out; they count as filtered.
        adds_rows: the transform may make several rows of one; the additional ones count as added.
        split: longest window of one commit, so that a crash loses at most one; None never splits.
        max_attempts: how often a window is tried when a source or the target is unavailable.
        depends_on: pipelines that have to have come as far as a run reads; a name alone is `DependsOn(name)`.
        on_drift: what is done before anything is read where the target's table differs from the schema. `evolve` adds
            the columns it lacks, nullable, makes types wider where every value keeps what it is, and lets NULL in where
            the schema does. `ignore` leaves the table, and says every time which columns it does not write; it refuses
            a type that would round or cut. `freeze` refuses any difference. None takes anything away; what cannot be
            bridged safely is refused under each of them; a table that is absent is created.
        masked: columns, of the source and of the contract alike, whose values nobody may see outside of source and
            target: not in dead letters, the ledger, messages, logs, events, nor in what a command prints. Neither key
            nor cursor. A replay of such a pipeline reads the source again.
        letters: how long its dead letters are kept.

    Raises:
        ConfigError: an `on_drift` or an upstream that cannot be, or a masked column that rows are told apart by.
    """

    name: str
    extract: Extract | Feed
    schema: type[pa.DataFrameModel]
    load: Load
    transform: Transform | None = None
    lookups: Sequence[Lookup] = ()
    references: Sequence[References] = ()
    rules: Sequence[WindowRule] = ()
    bounds: Sequence[Bound] = ()
    audits: Sequence[Audit] = ()
    sla: Sla = field(default_factory=Sla)
    drops_rows: bool = False
    adds_rows: bool = False
    split: timedelta | None = None
    max_attempts: int = 4
    depends_on: Sequence[str | DependsOn] = ()
    on_drift: SchemaDrift = "evolve"
    masked: Sequence[str] = ()
    letters: Letters = field(default_factory=Letters)

    def __post_init__(self) -> None:
        object.__setattr__(self, "masked", self._maskable())
        if self.on_drift not in get_args(SchemaDrift):
            raise ConfigError(f"{self.name}: on_drift is {one_of(get_args(SchemaDrift))}, got {self.on_drift!r}.")
        without_cursor = isinstance(self.extract, Feed) or self.extract.cursor is None
        reads_now = without_cursor and not isinstance(self.extract, ReadsTables)
        object.__setattr__(self, "depends_on", upstreams(self.name, self.depends_on, reads_now=reads_now))

    @property
    def masking(self) -> Masking:
        """What of its rows nobody may see."""
        return Masking.of(self.masked)

    @property
    def upstreams(self) -> tuple[DependsOn, ...]:
        """What `depends_on` says, in full."""
        return tuple(one for one in self.depends_on if isinstance(one, DependsOn))

    def _maskable(self) -> tuple[str, ...]:
        if isinstance(self.masked, str):
            raise ConfigError(f"{self.name}: masked is a list of columns, got {self.masked!r}. Say [{self.masked!r}].")
        masked = tuple(dict.fromkeys(self.masked))
        tells_apart = self._telling_apart() if masked else {}
        for column in masked:
            if column in tells_apart:
                raise ConfigError(
                    f"{self.name}: masked names {column!r}, which is {tells_apart[column]}: rows are told apart by it, "
                    "in the ledger and in dead letters. Load by another key, or by one that the source or the "
                    "transform makes of it and that tells nothing; then mask it."
                )
        return masked

    def _telling_apart(self) -> dict[str, str]:
        """The columns whose values tidegate keeps beside the rows, and what each is."""
        extract, load = self.extract, self.load
        found: dict[str, str] = {}
        if isinstance(extract, ApiChildren):
            found |= dict.fromkeys(extract.columns, "what the children of a parent are asked for by")
        if load.track is not None:
            found[load.track.column] = "what the partitions of the target are by"
        if isinstance(load, ReplacePartition):
            found[load.partition] = "what its partitions are by"
        # Not every extract has partitions or a key of its own.
        by, key = getattr(extract, "by", None), getattr(extract, "key", ())
        if isinstance(by, Partitioned):
            found[by.column] = "what the partitions of its result are by"
        if isinstance(key, Sequence):
            found |= dict.fromkeys(key, "in the key of its extract")
        found |= dict.fromkeys(load.key, "in the key of its load")
        if extract.cursor is not None:
            found[extract.cursor] = "the cursor of its extract"
        return found
