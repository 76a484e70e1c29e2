"""What runs and `watch` measure, from the rows, the clock or the log of a real source to what arrives at the sink.

One story on the package's server and its worker: five pipelines load, come to their limits, pass them, and recover.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import Engine, MetaData, create_engine, delete, insert, text

from deployments.prefect_server import PrefectServer, Worker
from tasks.extract.log import LogExtract
from tasks.observe import causes
from tasks.settings import url_variable
from tests.deployments import alerts
from tests.deployments.alarming import MARKER, MEASURED
from tests.deployments.alerts import Alert, Sink
from tests.deployments.looking import Keyboard, Seen
from tests.deployments.until import until
from tests.orders import DAY, SOURCE, START, order

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(600)]

STATED = 20.0
"""Seconds after the end of the run that measured it, while others end at the same time."""

LOADED_AT = START + 10 * DAY
"""What the source's clock shows when everything is loaded."""


@dataclass(frozen=True)
class Case:
    """One promise of one pipeline.

    Attributes:
        pipeline: its name.
        measured: what of it.
        kept: what the event says at the limit; nothing may be told of that.
        breached: what the alert says.
        over: what the notice says that it is over.
        by: the flow that measures the breach.
        shows: what the command in the alert shows.
        status: how the command ends; `doctor` says 1 where something fails.
        severity: of the alert.
    """

    pipeline: str
    measured: causes.Measured
    kept: str
    breached: str
    over: str
    by: str
    shows: str
    status: int = 0
    severity: str = "warning"

    @property
    def alert(self) -> str:
        return f"[{self.severity}] {self.pipeline}: {self.measured.cause}"

    @property
    def resolved(self) -> str:
        return f"[resolved] {self.pipeline}: {self.measured.cause}"


CASES = [
    Case(
        "stale",
        causes.FRESHNESS,
        kept=r"Everything up to 2026-01-11 00:00:00 UTC is loaded, 1 d ago, no more than the 1 d promised\.",
        breached=r"Everything up to 2026-01-11 00:00:00 UTC is loaded, 1 d ago, more than the 1 d promised\.",
        over=r"Everything up to 2026-01-12 00:00:01 UTC is loaded, 0 s ago, no more than the 1 d promised\.",
        by="watching",
        shows=r"stale .* 2026-01-11 00:00 +breached 24h of 24h",
    ),
    Case(
        "sprinkled",
        causes.RECENT_ERROR_RATE,
        kept=r"In the last 2 runs 1 of 20 rows were rejected, 5 %, no more than the 5 % promised\.",
        breached=r"In the last 3 runs 2 of 21 rows were rejected, 9\.524 %, more than the 5 % promised\.",
        over=r"In the last 4 runs 2 of 61 rows were rejected, 3\.279 %, no more than the 5 % promised\.",
        by="sprinkled",
        shows=r"2 +greater_than_or_equal_to\(0\) +amount",
    ),
    Case(
        "growing",
        causes.DEAD_LETTERS,
        kept=r"2 dead letters are open\.",
        breached=r"3 dead letters are open, and each of the last 3 runs left more: \+1, \+1, \+1\.",
        over=r"3 dead letters are open\.",
        by="growing",
        shows=r"3 +greater_than_or_equal_to\(0\) +amount",
    ),
    Case(
        "crowded",
        causes.DEAD_LETTERS,
        kept=r"3 dead letters are open, no more than the 3 allowed\.",
        breached=r"4 dead letters are open, more than the 3 allowed\.",
        over=r"3 dead letters are open, no more than the 3 allowed\.",
        by="crowded",
        shows=r"4 +greater_than_or_equal_to\(0\) +amount",
    ),
    Case(
        "followed",
        causes.SLOT_LAG,
        kept=r"The slot \w+ keeps 1[23]\d,\d{3},\d{3} bytes of log at source, no more than 134,217,728\.",
        breached=r"The slot \w+ keeps 1\d\d,\d{3},\d{3} bytes of log at source, more than 134,217,728; run this",
        over=r"The slot \w+ keeps [\d,]+ bytes of log at source, no more than 134,217,728\.",
        by="watching",
        shows=r"fail  slot of followed: \w+ keeps 1\d\d,\d{3},\d{3} bytes of log at source; nobody is reading it",
        status=1,
        severity="critical",
    ),
]
A_BAD_ROW = "[warning] sprinkled: error-rate"
"""Told of the rate of a single run, for it is the only row that this has."""

each_case = pytest.mark.parametrize("case", CASES, ids=[case.pipeline for case in CASES])


@dataclass
class Story:
    """What was done, and what the sink received.

    Attributes:
        server: with the automations.
        sink: with every alert.
        source: with the rows.
        marker: what arrived after everything had come to its limit.
        breached: when the source passed the limits.
        measured: when the runs had ended that measured that, by the flow.
        seen: what the commands in the alerts showed, by their subjects.
    """

    server: PrefectServer
    sink: Sink
    source: Engine
    marker: Alert | None = None
    breached: datetime | None = None
    measured: dict[str, datetime] = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)
    _rows: int = 0

    def put(self, name: str, amounts: Sequence[float], first: int | None = None) -> None:
        """Write rows that are newer than all before, with new ids or from `first` on."""
        table = SOURCE.to_metadata(MetaData(), name=f"orders_{name}")
        table.create(self.source, checkfirst=True)
        with self.source.begin() as connection:
            for place, amount in enumerate(amounts):
                self._rows += 1
                number = self._rows if first is None else first + place
                connection.execute(delete(table).where(table.c.id == number))
                connection.execute(insert(table).values(**order(number, amount, day=self._rows / 10_000)))

    def show(self, moment: datetime) -> None:
        """Set the source's clock."""
        with self.source.begin() as connection:
            connection.execute(text("CREATE TABLE IF NOT EXISTS source_clock (shown timestamptz)"))
            connection.execute(text("DELETE FROM source_clock"))
            connection.execute(text("INSERT INTO source_clock VALUES (:moment)"), {"moment": moment})

    def fill_log(self, share: float) -> None:
        """Write at the source until the log that it keeps for `followed` is at least this share of the limit."""
        extract = MEASURED["followed"].extract
        assert isinstance(extract, LogExtract)
        kept = text(
            "SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), restart_lsn) FROM pg_replication_slots "
            "WHERE database = current_database()"
        )
        # What else the source writes is kept as well.
        write = text(
            "INSERT INTO elsewhere SELECT string_agg(md5(random()::text), '') "
            "FROM generate_series(1, 40) AS row, generate_series(1, 5000) GROUP BY row"
        )
        with self.source.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("CREATE TABLE IF NOT EXISTS elsewhere (words text)"))
            connection.execute(text("ALTER TABLE elsewhere ALTER words SET STORAGE external"))
            while connection.execute(kept).scalar_one() < share * extract.max_lag:
                connection.execute(write)
            # As the server's background writer does every 15 seconds; a slot lets go of the log between two of these.
            for _ in range(2):
                connection.execute(text("SELECT pg_log_standby_snapshot()"))

    def run(self, *names: str) -> dict[str, datetime]:
        """Run flows beside each other, and say when each has ended."""
        runs = {name: alerts.start(self.server, name) for name in names}
        return {name: alerts.ended(run.completed(120)) for name, run in runs.items()}


@pytest.fixture(scope="module")
def source(prefect_server: PrefectServer) -> Iterator[Engine]:
    engine = create_engine(alerts.databases(prefect_server)[url_variable("source")])
    yield engine
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # It would keep log for ever.
        connection.execute(
            text(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
                "WHERE database = current_database()"
            )
        )
    engine.dispose()


@pytest.fixture(scope="module")
def sink(prefect_server: PrefectServer) -> Iterator[Sink]:
    with Sink() as receiving:
        alerts.send_to(prefect_server, receiving)
        yield receiving
        alerts.clear(prefect_server)


@pytest.fixture(scope="module")
def story(
    prefect_server: PrefectServer, worker: Worker, source: Engine, sink: Sink, tmp_path_factory: pytest.TempPathFactory
) -> Story:
    story = Story(prefect_server, sink, source)
    keyboard = Keyboard(prefect_server, tmp_path_factory.mktemp("flows"))
    keyboard.declare("MEASURED", MEASURED)
    alerts.deploy(prefect_server, tmp_path_factory.mktemp("measured"), [*MEASURED, "watching"])
    alerts.apply(prefect_server, [*MEASURED.values(), MARKER])
    load(story)
    come_to_the_limits(story)
    pass_the_limits(story)
    for subject in [A_BAD_ROW, *(case.alert for case in CASES)]:
        story.seen[subject] = keyboard.look(sink.wait(subject, 60))
    recover(story)
    return story


def load(story: Story) -> None:
    story.show(LOADED_AT)
    story.put("stale", [1.0])
    story.put("sprinkled", [1.0] * 19)
    story.put("growing", [-1.0] + [1.0] * 99)
    story.put("crowded", [-1.0] * 3 + [1.0] * 97)
    story.put("followed", [1.0])
    story.run(*MEASURED)


def come_to_the_limits(story: Story) -> None:
    """Each of them to the last value that is kept, or as near as the log of a server that does more can be brought."""
    story.put("sprinkled", [-1.0])
    story.put("growing", [-1.0] + [1.0] * 99)
    story.run("sprinkled", "growing")
    story.show(LOADED_AT + DAY)
    story.fill_log(0.95)
    story.run("watching")
    for case in CASES:
        until(f"{case.pipeline} is at its limit", partial(_is_told, story, case))
    story.marker = alerts.mark(story.server, story.sink, "Everything is at its limit.")


def _is_told(story: Story, case: Case) -> bool:
    said = alerts.told(story.server, case.pipeline, case.measured.kept)
    return any(re.match(case.kept, one) for one in said)


def pass_the_limits(story: Story) -> None:
    story.put("sprinkled", [-1.0])
    story.put("growing", [-1.0] + [1.0] * 99)
    story.put("followed", [1.0])
    story.put("crowded", [-1.0] + [1.0] * 99)
    story.show(LOADED_AT + DAY + timedelta(seconds=1))
    story.fill_log(1.01)
    story.breached = datetime.now(UTC)
    story.measured = story.run("watching", "sprinkled", "growing", "crowded")


def recover(story: Story) -> None:
    """Good rows, no more bad ones, a bad one mended, and runs of those that had none."""
    story.put("sprinkled", [1.0] * 40)
    story.put("growing", [1.0] * 10)
    with story.source.connect() as connection:
        bad = text("SELECT max(id) FROM orders_crowded WHERE amount < 0")
        story.put("crowded", [1.0], first=connection.execute(bad).scalar_one())
    story.run(*MEASURED)
    # PostgreSQL's slot lets go of the log one run late.
    story.run("followed")
    for case in CASES:
        story.sink.wait(case.resolved, 60)


@each_case
def test_what_is_measured_above_its_limit_is_told(story: Story, case: Case) -> None:
    alert = story.sink.wait(case.alert, 5)
    seconds = alert.after(story.measured[case.by])
    print(f"{case.alert}: {seconds:.1f} s after {case.by}, {alert.after(story.breached):.1f} s after its cause")
    assert seconds <= STATED
    assert re.match(case.breached, alert.body)


@each_case
def test_what_is_measured_at_its_limit_is_not(story: Story, case: Case) -> None:
    assert _is_told(story, case)
    [first] = [alert for alert in story.sink.alerts if alert.subject == case.alert]
    assert story.marker is not None and first.after(story.marker.at) > 0
    assert first.after(story.breached) > 0


@each_case
def test_it_is_resolved_once_it_is_within_its_limit_again(story: Story, case: Case) -> None:
    told = [alert for alert in story.sink.of(case.pipeline) if case.measured.cause in alert.subject.split()]
    assert [alert.subject for alert in told] == [case.alert, case.resolved]
    assert re.match(case.over, told[1].body)
    assert f"Dedup key: tidegate/{case.pipeline}/{case.measured.cause}" in told[1].body


@each_case
def test_the_command_in_the_alert_shows_the_cause(story: Story, case: Case) -> None:
    seen = story.seen[case.alert]
    assert seen.status == case.status, seen.output
    assert re.search(case.shows, seen.output), seen.output


def test_so_does_that_of_a_single_run(story: Story) -> None:
    seen = story.seen[A_BAD_ROW]
    assert seen.status == 0 and "--run " in seen.command
    assert re.search(r"1 +greater_than_or_equal_to\(0\) +amount", seen.output), seen.output


def test_nothing_else_is_told_but_the_rate_of_a_single_bad_row(story: Story) -> None:
    expected = [subject for case in CASES for subject in (case.alert, case.resolved)]
    expected += [A_BAD_ROW, "[resolved] sprinkled: error-rate"]
    assert sorted(alert.subject for alert in story.sink.alerts if alert not in story.sink.of(MARKER.name)) == sorted(
        expected
    )
