"""A replication slot: whether it is there, whether somebody reads it, and how much log it keeps."""

from collections.abc import Iterator

from sqlalchemy import select

from deployments.doctor.finding import Finding
from tasks.connections import engine
from tasks.dialects import dialect_of
from tasks.errors import TargetError, TargetUnavailable, TidegateError
from tasks.extract.debezium import DebeziumExtract
from tasks.extract.log import LogExtract
from tasks.extract.transaction_log import replication
from tasks.pipeline import Pipeline
from tasks.state.history import opened_history
from tasks.state.schema import HEAD, schema_version
from tasks.state.tables import feeds
from tasks.state.watermarks import read_watermark


def examine_slot(pipeline: Pipeline) -> Iterator[Finding]:
    """What there is to say of the slot of a pipeline, where it has one."""
    extract, about = pipeline.extract, f"slot of {pipeline.name}"
    if not isinstance(extract, LogExtract | DebeziumExtract):
        return
    try:
        source = engine(extract.connection)
        # Of MySQL and MariaDB, Debezium reads the binlog, where nobody keeps a place for us.
        if source.dialect.name != "postgresql":
            return
        target = engine(pipeline.load.connection)
        with dialect_of(target).translated(f"The target {pipeline.load.connection!r}", TargetUnavailable, TargetError):
            version = schema_version(target)
        if version not in (None, HEAD):
            return
        with opened_history(pipeline.load.connection) as connection:
            known = select(feeds.c.name).where(feeds.c.pipeline == pipeline.name)
            slot = None if connection is None else connection.execute(known).scalar_one_or_none()
            position = None if connection is None else read_watermark(connection, pipeline.name).position
        if slot is None:
            yield Finding("ok", about, "there is none yet; the first run makes it.")
            return
        with replication.autocommit(source, f"The source {extract.connection!r}") as session:
            state = replication.slot_state(session, slot)
    except TidegateError as error:
        yield Finding("fail", about, f"{type(error).__name__}: {error}", "Mend the connections above first.")
        return
    anew = f"tidegate run {pipeline.name} --full-refresh makes it anew, takes a new snapshot, and deletes what is gone."
    if state is None:
        began = position is not None
        told = "is not there, and changes are lost" if began else "is not there; the first run did not come so far"
        yield Finding("fail" if began else "ok", about, f"{slot} {told}.", anew if began else None)
    elif state.lost:
        yield Finding("fail", about, f"{slot} was too far behind, and the server has removed its log.", anew)
    else:
        use = "a run is reading it" if state.active else "nobody is reading it"
        text = f"{slot} keeps {state.lag:,} bytes of log at {extract.connection}; {use}."
        if state.lag > extract.max_lag:
            remedy = (
                f"That is more than max_lag={extract.max_lag:,}: run {pipeline.name} more often. If it is to run no "
                "more, remove the feed (tasks.pipeline.remove_feed), or the log fills the source's disk."
            )
            yield Finding("fail", about, text, remedy)
        else:
            yield Finding("ok", about, text)
