"""Killed before and after every statement of a commit: nothing is torn, and the rerun gives what was to be had.

A fault point lies before or after a statement of the commit's transaction, COMMIT included. What a crash left is
compared with what undisturbed runs leave in a database of their own.
"""

import contextlib
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.embedded import EmbeddedPostgres
from tests.crash.child import Child, run_child
from tests.crash.fault_points import COMMIT, Point, all_points
from tests.crash.scenarios import SCENARIOS, UPSERT, Scenario
from tests.crash.state import State
from tests.crash.templates import ClusterHome, FolderHome, Home, MariadbHome, Reference, Template
from tests.servers.cluster import remove_folder

_AT_ONCE = 2
_INSTANTS = 20
_REPLIED = Point("after", COMMIT)

Line = tuple[Template, Reference]
Check = Callable[[Template, Reference, Point], None]

each_scenario = pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=list(SCENARIOS))
_MARIADB = pytest.param("mariadb", marks=pytest.mark.mariadb)
each_database = pytest.mark.parametrize("home", ["postgresql", "sqlite", _MARIADB], indirect=True)


@pytest.fixture
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    """Where the databases of a test are."""
    if request.param == "sqlite":
        return FolderHome(tmp_path)
    if request.param == "mariadb":
        return MariadbHome(request.getfixturevalue("mariadb_server"), FolderHome(tmp_path))
    return ClusterHome(request.getfixturevalue("cluster"))


@pytest.mark.parametrize("home", [pytest.param("postgresql", marks=pytest.mark.slow), "sqlite"], indirect=True)
def test_a_client_killed_around_its_writes_or_its_commit_leaves_all_or_nothing(home: Home) -> None:
    line = _line(UPSERT, home)
    tables = ["fct_changes"] if isinstance(home, FolderHome) else ["etl_windows", "fct_changes", "etl_dead_letters"]
    points = [Point("after", _write_to(table, line)) for table in tables]
    _strike_each([*points, Point("before", COMMIT), _REPLIED], [line] * _AT_ONCE, _check_killed_client)


@pytest.mark.slow
@pytest.mark.timeout(900)
@each_database
@each_scenario
def test_a_client_killed_at_any_point_of_its_commit_leaves_all_or_nothing(scenario: Scenario, home: Home) -> None:
    line = _line(scenario, home)
    _strike_each(_points(line), [line] * _AT_ONCE, _check_killed_client)


@pytest.mark.slow
@pytest.mark.timeout(900)
@each_scenario
def test_a_server_backend_killed_at_any_point_of_a_commit_leaves_all_or_nothing(scenario: Scenario) -> None:
    with contextlib.ExitStack() as stack:
        # One killed backend makes the server restart all of them, so points struck at once need a server each.
        homes = [ClusterHome(stack.enter_context(_cluster_of_its_own())) for _ in range(_AT_ONCE)]
        lines = [_line(scenario, home) for home in homes]
        _strike_each(_points(lines[0]), lines, _check_killed_backend)


@pytest.mark.slow
@pytest.mark.mariadb
@pytest.mark.timeout(900)
@pytest.mark.parametrize("home", ["mariadb"], indirect=True)
@each_scenario
def test_a_connection_that_mariadb_ends_at_any_point_of_a_commit_leaves_all_or_nothing(
    scenario: Scenario, home: Home
) -> None:
    line = _line(scenario, home)
    _strike_each(_points(line), [line] * _AT_ONCE, _check_killed_backend)


@pytest.mark.slow
@pytest.mark.timeout(900)
@each_database
@each_scenario
def test_a_client_killed_at_whatever_instant_leaves_all_or_nothing(scenario: Scenario, home: Home) -> None:
    """Twenty instants of a run, from its beginning to its end, drawn anew each time and told if one fails."""
    template, reference = _line(scenario, home)
    began = time.monotonic()
    with template.copy() as url:
        run_child(template.job(url))
    longest = time.monotonic() - began
    seed = int(os.environ.get("TIDEGATE_TEST_SEED", random.randrange(2**32)))
    for instant in map(random.Random(seed).uniform, [0.0] * _INSTANTS, [longest] * _INSTANTS):
        with template.copy() as url:
            with Child(template.job(url)) as child:
                child.killed_after(instant)
            crashed = template.state(url)
            committed = crashed.contents == reference.once.contents
            assert committed or crashed.contents == reference.before.contents, f"torn, {instant} s, seed {seed}"
            told = crashed.ledger[len(reference.before.ledger) :]
            assert told in ([], ["running"], ["committed"]) and committed == (told == ["committed"]), told
            known = ["crashed" if status == "running" else status for status in told]
            _assert_rerun(template, reference, url, committed, *known)


def _check_killed_client(template: Template, reference: Reference, point: Point) -> None:
    with template.copy() as url:
        outcome = run_child(replace(template.job(url), point=point, strike="kill client"))
        assert outcome.exit_code == -9, f"the client was not killed there: {outcome}"
        crashed = template.state(url)
        committed = point == _REPLIED
        assert crashed.contents == (reference.once if committed else reference.before).contents, "torn"
        _assert_ledger(crashed, reference, "committed" if committed else "running")
        _assert_rerun(template, reference, url, committed, "committed" if committed else "crashed")


def _check_killed_backend(template: Template, reference: Reference, point: Point) -> None:
    with template.copy() as url:
        outcome = run_child(replace(template.job(url), point=point, strike="kill backend"))
        assert outcome.struck, f"the backend was not killed there: {outcome}"
        survived = template.state(url)
        committed = survived.contents == reference.once.contents
        assert committed or survived.contents == reference.before.contents, "torn"
        if outcome.exit_code == 0:
            assert committed, "reported a commit that is not there"
            assert (outcome.counts, outcome.attempts) == (reference.outcome.counts, 1)
        else:
            assert outcome.error == "TargetUnavailable" and "is not available" in outcome.message, outcome
        assert survived.window_statuses == survived.ledger
        tries = survived.ledger[len(reference.before.ledger) :]
        dead = tries[:-1] if committed else tries
        assert tries[-1] == "committed" or not committed
        assert set(dead) <= {"failed", "crashed", "running"} and bool(dead) == (point != _REPLIED), tries
        told = ["crashed" if status == "running" else status for status in tries]
        _assert_rerun(template, reference, url, committed, *told)


def _assert_rerun(template: Template, reference: Reference, url: str, committed: bool, *told: str) -> None:
    """Run again: the contents are those of an undisturbed history, and the ledger says what the crash was."""
    again = run_child(template.job(url))
    assert again.exit_code == 0, again
    rerun = template.state(url)
    assert rerun.contents == (reference.twice if committed else reference.once).contents
    _assert_ledger(rerun, reference, *told, "committed")
    assert rerun.staging == []


def _assert_ledger(state: State, reference: Reference, *added: str) -> None:
    assert state.ledger == [*reference.before.ledger, *added]
    assert state.window_statuses == state.ledger


def _line(scenario: Scenario, home: Home) -> Line:
    template = Template.make(scenario, home)
    reference = Reference.of(template)
    counts = reference.outcome.counts
    assert counts is not None and all(getattr(counts, term) for term in scenario.terms), counts
    changed = [letter[2] for letter in reference.once.letters if letter not in reference.before.letters]
    assert {"open", "closed"} <= set(changed), "the disturbed run has to open letters, and to close some"
    return template, reference


def _points(line: Line) -> list[Point]:
    return all_points(len(line[1].outcome.statements))


def _write_to(table: str, line: Line) -> int:
    """The number of the first statement that writes to `table`."""
    writes = (f"UPDATE {table} ", f"UPDATE {table}, ", f"INSERT INTO {table} ")
    return next(number for number, text in enumerate(line[1].outcome.statements, start=1) if text.startswith(writes))


def _strike_each(points: Sequence[Point], lines: Sequence[Line], check: Check) -> None:
    """Check every point, shared out among the lines, and report all that failed."""

    def follow(place: int) -> list[str]:
        template, reference = lines[place]
        failures = []
        for point in points[place :: len(lines)]:
            try:
                check(template, reference, point)
            except AssertionError as failure:
                number = point.statement
                text = number if number == COMMIT else reference.outcome.statements[number - 1]
                failures.append(f"{point} ({' '.join(text.split())[:100]}): {failure}")
        return failures

    with ThreadPoolExecutor(len(lines)) as threads:
        failures = [failure for found in threads.map(follow, range(len(lines))) for failure in found]
    assert not failures, f"{len(failures)} of {len(points)} points failed:\n" + "\n".join(failures)


@contextlib.contextmanager
def _cluster_of_its_own() -> Iterator[EmbeddedPostgres]:
    folder = Path(tempfile.mkdtemp(prefix="tidegate-crash-"))
    server = EmbeddedPostgres(folder / "postgres").use()
    try:
        yield server
    finally:
        server.release()
        remove_folder(folder)
