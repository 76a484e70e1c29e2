"""`Assembly`: the parts that a pipeline's declaration stands for, put together once for a run."""

import contextlib
from collections.abc import Iterator
from datetime import datetime

from tasks import settings
from tasks.connections import engine
from tasks.declaration import Pipeline
from tasks.dialects import dialect_of
from tasks.errors import ConfigError, TargetError, TargetUnavailable
from tasks.extract.feed import Feed, Home, Resumable
from tasks.load.tombstones import tombstone_table
from tasks.observe.context import flow_run_id
from tasks.overrides import Overrides
from tasks.shrink import ShrinkLimit
from tasks.state.feeds import feed_name
from tasks.transform.contract import Contract


class Assembly:
    """A pipeline with its contract, its target and the target's database.

    Attributes:
        pipeline: the declaration.
        overrides: guards that are set aside for this run, or None.
        feed: its extract, where that is a feed, else None.
        resumable: its extract, where that is read by windows in parts, else None.
        changes: whether its rows may be deletes.
        contract: the judge of its rows.
        target: the target table as the contract declares it.
        tombstones: where its deletes are remembered, or None where no older version can come after one.
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
        self.changes = isinstance(pipeline.extract, Feed) or pipeline.extract.tells_deletes
        if self.feed and load.deletes_absent:
            raise ConfigError(
                f"{pipeline.name}: {type(load).__name__} takes what did not come in for deleted, and a feed brings "
                "only what changed. Load it with Upsert."
            )
        if not self.feed and load.deletes_absent and pipeline.extract.cursor is not None:
            raise ConfigError(
                f"{pipeline.name}: {type(load).__name__} takes what did not come in for deleted, and by the cursor "
                f"{pipeline.extract.cursor!r} only a window of {pipeline.extract.dataset!r} comes in. Leave the cursor "
                "out, or load with Upsert."
            )
        self.contract = Contract(
            pipeline.name,
            pipeline.schema,
            pipeline.transform,
            key=load.key,
            cursor=pipeline.extract.cursor,
            drops_rows=pipeline.drops_rows,
            adds_rows=pipeline.adds_rows,
        )
        self.target = load.target(self.contract.columns)
        cursor = pipeline.extract.cursor
        buries = self.changes and cursor is not None and load.updates and load.deletes
        self.tombstones = tombstone_table(self.target, load.key, cursor) if buries and cursor is not None else None
        self.engine = engine(load.connection)
        self.dialect = dialect_of(self.engine)

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
        declared = self.feed.max_shrink if self.feed else self.pipeline.load.max_shrink
        if self.overrides is None:
            return ShrinkLimit(declared)
        allowed = self.overrides.max_shrink
        return ShrinkLimit(declared if allowed is None else allowed, self.overrides.allow_empty)

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
