"""`Assembly`: the parts that a pipeline's declaration stands for, put together once for a run."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

import pyarrow as pa

from tasks import settings
from tasks.column_types import UTC_TIMESTAMP, key_length
from tasks.connections import engine
from tasks.declaration import Pipeline
from tasks.dialects import dialect_of
from tasks.dialects.unheld import Unheld
from tasks.errors import ConfigError, TargetError, TargetUnavailable
from tasks.extract.api_children import ApiChildren
from tasks.extract.feed import Derived, Feed, Home, Resumable
from tasks.extract.rows import RowsExtract
from tasks.extract.table import TableExtract
from tasks.load.partition import ReplacePartition
from tasks.load.preparation import Preparation, Prepared
from tasks.load.strategy import Load
from tasks.observe.context import flow_run_id
from tasks.overrides import Overrides
from tasks.shrink import ShrinkLimit
from tasks.state.feeds import feed_name
from tasks.transform.bounds import Bound, NullShare, RowCount
from tasks.transform.contract import Contract
from tasks.transform.lookup_join import Join
from tasks.transform.references import References
from tasks.transform.unique import Unique
from tasks.transform.whole_window import WholeWindow
from tasks.transform.window_rules import WindowRule


class Assembly:
    """A pipeline with its contract, its target and the target's database.

    Attributes:
        pipeline: the declaration.
        overrides: guards that are set aside for this run, or None.
        feed: its extract, where that is a feed, else None.
        resumable: its extract, where that is read by windows in parts, else None.
        tells_deletes: whether rows may come in that say that they are gone.
        by_window: whether a window brings all that there is of the partitions it covers, and those are replaced.
        contract: the judge of its rows.
        target: the target table as the contract declares it; from `prepare_target` on, as it is written to.
        companions: the tables that the strategy keeps beside it.
        rejecting: rules over the window that make a row a dead letter.
        warning: those that are only counted.
        engine: the target database.
        dialect: its dialect.

    Raises:
        ConfigError: the load cannot take what the extract brings, or a connection is not known.
        ContractError: see `Contract`.
    """

    def __init__(self, pipeline: Pipeline, overrides: Overrides | None = None) -> None:
        load = pipeline.load
        self.pipeline = pipeline
        self.overrides = overrides
        self.feed = pipeline.extract if isinstance(pipeline.extract, Feed) else None
        self.resumable = pipeline.extract if isinstance(pipeline.extract, Resumable) else None
        self.tells_deletes = isinstance(pipeline.extract, Feed) or pipeline.extract.tells_deletes
        if self.feed and load.deletes_absent:
            raise ConfigError(
                f"{pipeline.name}: {type(load).__name__} takes what did not come in for deleted, and a feed brings "
                "only what changed. Load it with Upsert."
            )
        if (
            not self.feed
            and load.deletes_absent
            and pipeline.extract.cursor is not None
            and not isinstance(load, ReplacePartition)
        ):
            raise ConfigError(
                f"{pipeline.name}: {type(load).__name__} takes what did not come in for deleted, and by the cursor "
                f"{pipeline.extract.cursor!r} only a window of {pipeline.extract.dataset!r} comes in. Leave the cursor "
                "out, or load with Upsert."
            )
        if self.tells_deletes and isinstance(pipeline.transform, WholeWindow):
            raise ConfigError(
                f"{pipeline.name}: WholeWindow sees all rows of a window, and {pipeline.extract.dataset!r} tells "
                "changes: those since the last run, and of a deleted row only its key. Transform its batches, and look "
                "at all rows in the target."
            )
        self.contract = Contract(
            pipeline.name,
            pipeline.schema,
            pipeline.transform,
            key=load.key,
            cursor=pipeline.extract.cursor,
            drops_rows=pipeline.drops_rows,
            adds_rows=pipeline.adds_rows,
            unheld=self._unheld,
            joins=[Join(pipeline.name, lookup, load.connection) for lookup in pipeline.lookups],
            masking=pipeline.masking,
        )
        references = self._references()
        self.rejecting: list[WindowRule] = [one for one in references if one.on_missing == "reject"]
        self.rejecting += pipeline.rules
        self.warning: list[WindowRule] = [one for one in references if one.on_missing == "warn"]
        self._expect_rules_that_fit()
        self._expect_bounds_that_fit()
        if load.dated:
            self._expect_times()
        for reference in pipeline.references:
            reference.expect_time(pipeline.name, self.contract.columns)
        self.target = load.target(self.contract.columns)
        cursor = pipeline.extract.cursor
        if load.track is not None:
            load.track.check(self.contract.columns, f"{type(load).__name__} into {load.table!r}")
        self.companions = tuple(load.companions(self.contract.columns, cursor, tells_deletes=self.tells_deletes))
        self.by_window = isinstance(load, ReplacePartition) and _brings_partitions(pipeline, load, self.contract)
        self.engine = engine(load.connection)
        self.dialect = dialect_of(self.engine)
        contracted = set(self.contract.columns.names) - {cursor, *_partition_columns(load)}
        self._preparation = Preparation(pipeline.name, self.dialect, self.target, pipeline.on_drift, contracted)
        self._beside = [Preparation(pipeline.name, self.dialect, table) for table in self.companions]
        self.dialect.refuse(pipeline.name, self.contract.columns, load.key)
        if isinstance(pipeline.extract, Derived):
            pipeline.extract.check(pipeline.name, self.dialect)
            self._expect_same_ranges(pipeline.extract)
        for audit in pipeline.audits:
            audit.check(pipeline.name, self.dialect)

    def _references(self) -> list[References]:
        """Those of the pipeline, as this run is to take them."""
        declared = {one.column for one in self.pipeline.references}
        overridden = {} if self.overrides is None else self.overrides.on_missing
        if unknown := set(overridden) - declared:
            raise ConfigError(
                f"{self.pipeline.name}: Overrides(on_missing=…) names {', '.join(map(repr, sorted(unknown)))}, and "
                f"the columns with a reference are {', '.join(map(repr, sorted(declared))) or 'none'}."
            )
        return [replace(one, on_missing=overridden.get(one.column, one.on_missing)) for one in self.pipeline.references]

    def _expect_same_ranges(self, extract: Derived) -> None:
        load = self.pipeline.load
        if extract.by is None or not load.deletes_absent:
            return
        if not isinstance(load, ReplacePartition):
            raise ConfigError(
                f"{self.pipeline.name}: {type(load).__name__} takes what did not come in for deleted, and with :start "
                "and :end only ranges come in. Leave them out, or load with ReplacePartition."
            )
        if load.partitions != extract.by:
            raise ConfigError(
                f"{self.pipeline.name}: what comes in is whole by {extract.by}, and what is replaced is by "
                f"{load.partitions}. Declare the same for both."
            )

    def _unheld(self, rows: pa.Table) -> list[Unheld]:
        """The values of a batch that the target's database cannot hold."""
        columns = self.contract.columns
        return self.dialect.unheld(rows, {name: key_length(columns.field(name)) for name in self.pipeline.load.key})

    def _expect_rules_that_fit(self) -> None:
        name = self.pipeline.name
        for rule in (*self.rejecting, *self.warning):
            if unknown := [column for column in rule.columns if column not in self.contract.columns.names]:
                raise ConfigError(
                    f"{name}: the rule {rule.rule!r} is about the column {unknown[0]!r}, which "
                    f"{self.pipeline.schema.__name__} does not declare. Declare it there, or name another."
                )
            if self.tells_deletes and isinstance(rule, Unique) and rule.judges_versions(tuple(self.contract.key)):
                raise ConfigError(
                    f"{name}: the rule {rule.rule!r} holds the key of the load, and a feed brings a key as often as "
                    "its row has changed. Leave the rule out: the newest change of each key is loaded."
                )

    def _expect_bounds_that_fit(self) -> None:
        name = self.pipeline.name
        for bound in self.pipeline.bounds:
            if isinstance(bound, NullShare) and bound.column not in self.contract.columns.names:
                raise ConfigError(
                    f"{name}: NullShare({bound.column!r}) is about a column that {self.pipeline.schema.__name__} does "
                    "not declare. Declare it there, or name another."
                )
            extract = self.pipeline.extract
            if isinstance(bound, RowCount) and (self.feed or (isinstance(extract, Derived) and extract.by)):
                raise ConfigError(
                    f"{name}: {extract.dataset!r} brings what has changed since the last run, however long ago that "
                    "was, so no number of rows is usual. Leave RowCount out."
                )

    def prepare_target(self) -> Prepared:
        """Create the target, or change it, as far as the pipeline's `on_drift` goes; and what lies beside it.

        Raises:
            TargetError: it goes not far enough, or the database refused.
            TargetUnavailable: another attempt may succeed.
        """
        with self.target_errors(self.pipeline.name):
            prepared = self._preparation.run(self.engine)
            beside = [one.run(self.engine) for one in self._beside]
        self.target = prepared.table
        return prepared.with_others(beside)

    def planned_target(self) -> Prepared:
        """What `prepare_target` would do now, without doing it.

        Raises:
            TargetError: see `prepare_target`.
        """
        with self.target_errors(self.pipeline.name):
            prepared = self._preparation.dry_run(self.engine)
            return prepared.with_others([one.dry_run(self.engine) for one in self._beside])

    def _expect_times(self) -> None:
        """A history needs to know when each change happened, in the source's time.

        Raises:
            ConfigError: neither a cursor nor the feed tells that.
        """
        extract, name = self.pipeline.extract, self.pipeline.name
        if self.contract.time_cursor is not None or (self.feed is not None and self.feed.tells_times):
            return
        keeps = f"{name}: {type(self.pipeline.load).__name__} keeps from when each version was valid, and"
        if extract.cursor is None:
            raise ConfigError(
                f"{keeps} {extract.dataset!r} is read whole, without a cursor, so nobody can tell. Read it with "
                "SnapshotDiff, whose changes bear the source's time at the snapshot, or name a cursor that is one."
            )
        raise ConfigError(
            f"{keeps} the cursor {extract.cursor!r} is of type {self.contract.columns.field(extract.cursor).type}, "
            "which is no instant. Declare it as UtcTimestamp where it is one; else read with SnapshotDiff, whose "
            "changes bear the source's time at the snapshot."
        )

    def details(self) -> dict[str, str | None]:
        """What the ledger says of where an attempt came from."""
        return {
            "flow_run_id": flow_run_id(),
            "code_version": settings.code_version(),
            "contract": self.contract.fingerprint,
            "overrides": None if self.overrides is None else self.overrides.as_json(),
        }

    @property
    def shrink_limit(self) -> ShrinkLimit:
        """What this run may delete for not having come in."""
        load = self.pipeline.load
        declared = self.feed.max_shrink if self.feed else load.max_shrink
        may_be_empty = isinstance(load, ReplacePartition) and load.allow_empty
        if self.overrides is None:
            return ShrinkLimit(declared, may_be_empty)
        allowed = self.overrides.max_shrink
        return ShrinkLimit(declared if allowed is None else allowed, self.overrides.allow_empty or may_be_empty)

    @property
    def bounds(self) -> Sequence[Bound]:
        """What the statistics of a window are held to in this run."""
        return () if self.overrides and self.overrides.ignore_bounds else self.pipeline.bounds

    @property
    def whole(self) -> bool:
        """Whether every window is read and committed in one, since something is judged or made of all its rows."""
        pipeline = self.pipeline
        judged = bool(pipeline.rules or pipeline.bounds) or isinstance(pipeline.transform, WholeWindow)
        return pipeline.load.deletes_absent or judged

    @property
    def abort_error_rate(self) -> float:
        """Share of rejected rows, 0 to 1, above which this run refuses a window."""
        if self.overrides and self.overrides.abort_error_rate is not None:
            return self.overrides.abort_error_rate
        return self.pipeline.sla.abort_error_rate

    def home(self, token: str, opened_at: datetime | None = None) -> Home:
        """Where what is read belongs; `token` is unique to whoever asks. Only a feed has a name at its source."""
        name = self.pipeline.name
        feed = ""
        if self.feed:
            with self.target_errors(name):
                feed = feed_name(self.engine, self.dialect, name)
        fingerprint = self.contract.fingerprint
        return Home(name, feed, self.engine, self.dialect, token, opened_at, fingerprint, self.shrink_limit)

    @contextlib.contextmanager
    def target_errors(self, what: str) -> Iterator[None]:
        """Wrap what the target's driver raises; `what` is the pipeline or the attempt, as the message begins."""
        where = f"{what}: the target {self.pipeline.load.connection!r}"
        with self.dialect.translated(where, TargetUnavailable, TargetError):
            yield


def _brings_partitions(pipeline: Pipeline, load: ReplacePartition, contract: Contract) -> bool:
    """Whether a window of the extract is all that there is of the partitions it covers.

    Raises:
        ConfigError: it brings only a part of them, and the rest would be deleted.
    """
    extract, cursor = pipeline.extract, pipeline.extract.cursor
    # Rows in memory lie in no window: they are what somebody made of it.
    if cursor is None or isinstance(extract, Feed | RowsExtract):
        return False
    zones = {load.zone, (isinstance(extract, TableExtract) and extract.zone) or "UTC"}
    for wrong, why in (
        (
            load.partition != cursor,
            f"by the cursor {cursor!r} only some rows of a partition come in, and the others would be deleted. Leave "
            f"the cursor out, or make it {load.partition!r}",
        ),
        (load.grain is None, "a window of the cursor is a range. Declare grain='hour', 'day' or 'month'"),
        (
            isinstance(extract, ApiChildren),
            "each parent goes on at its own watermark, so that no window holds all children of a partition. Leave the "
            "cursor out, or load with Upsert",
        ),
        (
            contract.columns.field(cursor).type != UTC_TIMESTAMP and zones != {"UTC"},
            "a window takes a date, or a time that names no zone, for one in UTC. Leave the zones out, or declare "
            f"`{cursor}: UtcTimestamp`",
        ),
    ):
        if wrong:
            raise ConfigError(f"{pipeline.name}: ReplacePartition into {load.table!r} by {load.partition!r}: {why}.")
    return True


def _partition_columns(load: Load) -> set[str]:
    """The columns by which a load tells partitions: it cannot do without them."""
    own = {load.partition} if isinstance(load, ReplacePartition) else set()
    return own | ({load.track.column} if load.track is not None else set())
