"""`Child`: a pipeline run in a process of its own, which dies, is cut off or waits where it is told to.

The processes are forked from one that has imported everything and opened nothing, so that a hundred of them are
affordable. Each ends by itself, or is killed by its own hand; `Child.outcome` waits for it.
"""

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Literal, Self

import pyarrow as pa
import pymysql
from sqlalchemy import NullPool, create_engine, text
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from tasks.connections import engine
from tasks.counts import Counts
from tasks.errors import TidegateError
from tasks.extract.changes import Extract
from tasks.pipeline import Pipeline, run_pipeline
from tasks.settings import url_variable
from tasks.window import Window
from tests.crash.fault_points import CommitWatch, Point

Strike = Literal["kill client", "kill backend", "wait"]

_SECONDS = 120

_parent: Connection | None = None
"""In a child: the way to the process that started it."""

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.crash.preload"])

_reaping = threading.Lock()
"""Whoever starts a process asks for the end of all others, which is told once: of two at it one reads 255."""


@dataclass(frozen=True)
class Outcome:
    """How a child ended.

    Attributes:
        exit_code: 0, 1 for an error, or minus the signal that killed it.
        struck: whether it came to its point and told of it: a client that killed itself did not.
        statements: of its first commit.
        run_id: of the report.
        counts: of the report.
        attempts: how many windows the report has.
        error: class of the `TidegateError` that ended it.
        message: its text.
    """

    exit_code: int
    struck: bool = False
    statements: tuple[str, ...] = ()
    run_id: str | None = None
    counts: Counts | None = None
    attempts: int = 0
    error: str | None = None
    message: str = ""


@dataclass(frozen=True)
class Job:
    """What a child does.

    Attributes:
        pipeline: what it runs.
        urls: its databases, by name.
        point: where of the first commit something happens, or None.
        strike: what.
        start: of an explicit window.
        end: of an explicit window.
    """

    pipeline: Pipeline
    urls: Mapping[str, str]
    point: Point | None = None
    strike: Strike = "kill client"
    start: datetime | None = None
    end: datetime | None = None


@dataclass
class Child:
    """A running child; as a context manager it is killed at the end, unless it has ended.

    Attributes:
        job: what it does.
    """

    job: Job
    _parent_end: Connection = field(init=False, repr=False)
    _process: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._parent_end, child_end = _forks.Pipe()
        self._process = _forks.Process(target=_main, args=(self.job, child_end))
        with _reaping:
            self._process.start()
        child_end.close()

    def wait_at_point(self) -> None:
        """Return when the child waits: at its point, if it strikes with `wait`, or where its extract is `Paused`."""
        told = self._receive()
        assert told == "waiting", f"{self.job} did not come to its point: {told}"

    def go_on(self) -> None:
        """Let it go on from there."""
        self._parent_end.send("go on")

    def outcome(self) -> Outcome:
        """Wait for its end."""
        told = self._receive()
        wait([self._process.sentinel], _SECONDS)
        with _reaping:
            code = self._process.exitcode
        self.end()
        assert code is not None, f"{self.job} did not end"
        return Outcome(exit_code=code, **(told if isinstance(told, dict) else {}))

    def killed_after(self, seconds: float) -> None:
        """Kill it `seconds` from now, or less where it ends before."""
        wait([self._process.sentinel], seconds)
        self.end()

    def end(self) -> None:
        """Kill it where it still runs."""
        if not self._parent_end.closed:
            with _reaping:
                self._process.kill()
                self._process.join()
                self._process.close()
            self._parent_end.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def _receive(self) -> Any:
        if not self._parent_end.poll(_SECONDS):
            self._process.kill()
            raise AssertionError(f"{self.job} did nothing for {_SECONDS} s")
        try:
            return self._parent_end.recv()
        except EOFError:
            return None


def run_child(job: Job) -> Outcome:
    """Start a child and wait for its end."""
    with Child(job) as child:
        return child.outcome()


@dataclass(frozen=True)
class Paused:
    """An extract that waits when it has read everything, and nothing has been committed, for `Child.go_on`."""

    extract: Extract

    @property
    def connection(self) -> str:
        """See `Extract`."""
        return self.extract.connection

    @property
    def dataset(self) -> str:
        """See `Extract`."""
        return self.extract.dataset

    @property
    def cursor(self) -> str | None:
        """See `Extract`."""
        return self.extract.cursor

    @property
    def tells_deletes(self) -> bool:
        """See `Extract`."""
        return self.extract.tells_deletes

    @property
    def lookback(self) -> timedelta:
        """See `Extract`."""
        return self.extract.lookback

    @property
    def initial(self) -> datetime | None:
        """See `Extract`."""
        return self.extract.initial

    def bound(self) -> datetime | None:
        """See `Extract`."""
        return self.extract.bound()

    def null_cursors(self) -> int:
        """See `Extract`."""
        return self.extract.null_cursors()

    def batches(self, window: Window) -> Iterator[pa.Table]:
        """See `Extract`."""
        yield from self.extract.batches(window)
        _wait()


def _wait() -> None:
    assert _parent is not None, "only a child waits"
    _parent.send("waiting")
    _parent.recv()


def _kill_backend(driver: Any, url: str) -> None:
    """End the server's side of a connection, and return when it has ended."""
    if not isinstance(driver, pymysql.Connection):
        os.kill(driver.info.backend_pid, signal.SIGKILL)
        return
    admin = create_engine(url, poolclass=NullPool)
    session = {"session": int(driver.thread_id())}  # type: ignore[no-untyped-call]
    with admin.connect() as connection:
        connection.execute(text("KILL CONNECTION :session"), session)
        left = text("SELECT count(*) FROM information_schema.processlist WHERE id = :session")
        Retrying(retry=retry_if_result(bool), stop=stop_after_delay(60), wait=wait_fixed(0.01))(
            lambda: connection.execute(left, session).scalar_one()
        )


def _main(job: Job, parent: Connection) -> None:
    global _parent
    _parent = parent
    warnings.simplefilter("error")
    os.environ.update({url_variable(name): url for name, url in job.urls.items()})

    def strike(driver: Any) -> None:
        match job.strike:
            case "kill client":
                os.kill(os.getpid(), signal.SIGKILL)
            case "kill backend":
                _kill_backend(driver, job.urls[job.pipeline.load.connection])
            case "wait":
                _wait()

    watch = CommitWatch(engine(job.pipeline.load.connection), job.point, strike)
    told: dict[str, Any] = {}
    try:
        report = run_pipeline(job.pipeline, job.start, job.end)
        told = {"run_id": report.run_id, "counts": report.counts, "attempts": len(report.windows)}
    except TidegateError as error:
        told = {"error": type(error).__name__, "message": str(error)}
        raise SystemExit(1) from error
    finally:
        parent.send({**told, "struck": watch.struck, "statements": tuple(watch.statements)})
