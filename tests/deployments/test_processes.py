"""Programs we start are ready when we go on, and gone when we leave: also what they started, and what ignores us."""

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from deployments.processes import Process, ProcessFailed, clean_environment, leftovers, sweep
from deployments.signals import terminable, uninterrupted

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}"
PARENT = (
    f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {DEAF!r}], start_new_session=True); {SLEEPER}"
)


def python(code: str, home: Path, name: str = "program") -> Process:
    return Process(name, [sys.executable, "-c", code], home)


def started(process: Process, lines: int = 1) -> Process:
    """`process`, once it and its children have said that they are up."""
    return process.start().wait_until(lambda: process.log.read_text().count("up") >= lines, 30)


def test_a_program_that_ends_too_early_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    process = python("print('no such file'); raise SystemExit(3)", tmp_path).start()
    with pytest.raises(ProcessFailed, match="no such file"):
        process.wait_until(lambda: False, 30)


def test_a_program_that_is_not_ready_in_time_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    with started(python(SLEEPER, tmp_path)) as process, pytest.raises(ProcessFailed, match=r"within 0\.2 s(.|\n)*up"):
        process.wait_until(lambda: False, 0.2)


def test_a_program_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    process = started(python(DEAF, tmp_path))
    process.stop(grace=0.2)
    assert not process.running
    assert leftovers(tmp_path) == []


def test_what_a_program_started_goes_with_it(tmp_path: Path) -> None:
    process = started(python(PARENT, tmp_path), lines=2)
    assert len(leftovers(tmp_path)) == 2
    process.stop(grace=5)
    assert leftovers(tmp_path) == []


def test_a_sweep_finds_the_orphans_of_a_program_that_was_killed(tmp_path: Path) -> None:
    process = started(python(PARENT, tmp_path), lines=2)
    psutil.Process(process.pid).kill()
    # SIGKILL has been sent, not obeyed; it stays a zombie, for `stop` to find.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert sweep(tmp_path, grace=0.2) == 1
    assert leftovers(tmp_path) == []
    process.stop()


def test_a_sweep_leaves_the_programs_of_other_homes_alone(tmp_path: Path) -> None:
    ours, theirs = python(SLEEPER, tmp_path / "ours"), python(SLEEPER, tmp_path / "theirs")
    with started(ours), started(theirs):
        assert sweep(tmp_path / "ours") == 1
        assert theirs.running


def test_a_program_inherits_no_database_and_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_WAREHOUSE_URL", "postgresql://production/warehouse")
    monkeypatch.setenv("PREFECT_API_URL", "http://production:4200/api")
    assert not {"TIDEGATE_WAREHOUSE_URL", "PREFECT_API_URL"} & clean_environment().keys()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_unwinds_the_stack(number: signal.Signals) -> None:
    with pytest.raises(SystemExit) as caught, terminable():
        signal.raise_signal(number)
    assert caught.value.code == 128 + number


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_interrupts_what_takes_everything_down(number: signal.Signals) -> None:
    with uninterrupted():
        signal.raise_signal(number)


def test_stopping_twice_or_before_starting_does_nothing(tmp_path: Path) -> None:
    process = python(SLEEPER, tmp_path)
    process.stop()
    started(process).stop()
    process.stop()


def test_processes_of_a_home_are_told_by_its_whole_name(tmp_path: Path) -> None:
    with started(python(SLEEPER, tmp_path / "home")):
        assert leftovers(tmp_path / "hom") == []
