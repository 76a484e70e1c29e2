"""`tidegate demo`, as a newcomer runs it: it ends by itself, its figures are right, and nothing survives it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from deployments.processes import leftovers
from tests.demo import expected, expected_mart

pytestmark = [pytest.mark.slow, pytest.mark.prefect, pytest.mark.timeout(600)]

COMMAND = [str(Path(sys.executable).with_name("tidegate")), "demo"]
WEEK = datetime(2013, 1, 8, tzinfo=UTC)
DAY = datetime(2013, 1, 9, tzinfo=UTC)
REPLAYED = (datetime(2013, 1, 2, tzinfo=UTC), datetime(2013, 1, 5, tzinfo=UTC))

# What a shell may hold by accident; a demo that followed it would fail, or write where it must not.
MISLEADING = {
    "TIDEGATE_WAREHOUSE_URL": "postgresql://nobody@127.0.0.1:1/production",
    "TIDEGATE_HOME": "/nowhere",
    "PREFECT_API_URL": "http://127.0.0.1:1/api",
}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A working directory. Not pytest's own: every session of pytest closes all of them to PostgreSQL's user."""
    made = Path(tempfile.mkdtemp(prefix="tidegate-demo-"))
    yield made
    shutil.rmtree(made)


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        env={**os.environ, **MISLEADING},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(demo: subprocess.Popen[str]) -> str:
    """What it printed; it has to have ended well."""
    printed, _ = demo.communicate()
    assert demo.returncode == 0, printed
    return printed


def survivors(folder: Path) -> list[psutil.Process]:
    """Programs of the demo in `folder`, PostgreSQL included, which carries its data folder in its command."""
    home = folder / ".tidegate" / "demo"
    servers = []
    for process in psutil.process_iter(["cmdline"]):
        if any(str(home) in part for part in process.info["cmdline"] or ()):
            servers.append(process)
    return servers + leftovers(home)


def wait_for(text: str, demo: subprocess.Popen[str]) -> None:
    assert demo.stdout is not None
    for line in demo.stdout:
        if text in line:
            return
    raise AssertionError(f"the demo ended before it said {text!r}")


def terms(run: dict[str, Any]) -> dict[str, int]:
    return {name: run[name] for name in expected.airlines_run(loaded=False)}


def test_the_demo_ends_by_itself_and_reports_what_pandas_computes(folder: Path) -> None:
    printed = finish(start(folder))
    assert survivors(folder) == []

    report = json.loads((folder / ".tidegate" / "demo-report.json").read_text())
    replayed = expected.flights_window(*REPLAYED, clock=DAY, loaded_at=DAY)
    unknown = expected.tailnum_missing(*REPLAYED, DAY, planes_loaded_at=DAY)
    strict = {"rejected": replayed["rejected"] + unknown, "unchanged": replayed["unchanged"] - unknown}
    waiting = expected.waiting_flights_run(DAY)
    seen_flights, seen_weather = expected.flights_watermark(WEEK), expected.weather_watermark(WEEK)
    assert [(run["pipeline"], terms(run)) for run in report["runs"]] == [
        ("airlines", expected.airlines_run(loaded=False)),
        ("airports", expected.airports_run(loaded=False)),
        ("planes", expected.planes_run(None, WEEK)),
        ("bookings", expected.bookings_run(None, WEEK)),
        ("weather", expected.weather_run(None, None, WEEK)),
        ("flights", expected.flights_run(None, None, WEEK)),
        ("daily_delays", expected_mart.daily_delays_run(None, WEEK)),
        ("flights", expected.flights_run(WEEK, seen_flights, WEEK)),
        ("flights", expected.flights_run(WEEK, seen_flights, DAY)),
        ("weather", expected.weather_run(WEEK, seen_weather, DAY)),
        ("planes", expected.planes_run(WEEK, DAY)),
        ("bookings", expected.bookings_run(WEEK, DAY)),
        ("daily_delays", expected_mart.daily_delays_run(WEEK, DAY)),
        ("flights", replayed),
        ("flights", replayed | strict),
        ("airports", expected.missing_airports_run()),
        ("flights", waiting),
    ]
    for run in report["runs"]:
        assert run["error_rate"] == pytest.approx(run["rejected"] / (run["extracted"] + run["added"]))
        assert f"{run['extracted']:,}" in printed
    assert report["runs"][-3]["window"] == {"start": REPLAYED[0].isoformat(), "end": REPLAYED[1].isoformat()}
    assert report["seconds"] > 0

    replay = report["replay"]
    assert (replay["letters_before"], replay["letters_after"]) == (waiting["extracted"], 0)
    assert replay["rows"] == waiting["inserted"] > 0
    assert replay["reconciled"] in printed and "flights: no difference" in replay["reconciled"]
    assert replay["started_by"] == "replay of what waited for a dataset"
    assert f"{waiting['inserted']:,} flights came in" in printed and "Nobody asked for the replay" in printed

    subjects = ["[warning] flights: error-rate", "[warning] flights: freshness"]
    assert [alert["subject"] for alert in report["alerts"]] == subjects
    rejected, extracted = (replayed | strict)["rejected"], replayed["extracted"]
    assert f"{rejected:,} of {extracted:,} rows were rejected" in report["alerts"][0]["body"]
    assert "Everything up to 2013-01-09 00:00:00 UTC is loaded, 3 d ago" in report["alerts"][1]["body"]
    assert all(line in printed for alert in report["alerts"] for line in alert["body"].splitlines())


def test_a_demo_refuses_to_start_beside_another_and_leaves_nothing_when_terminated(folder: Path) -> None:
    demo = start(folder)
    wait_for("Prefect server", demo)
    second = start(folder)
    printed, _ = second.communicate()
    assert second.returncode == 1
    assert "Another demo is running" in printed

    demo.send_signal(signal.SIGTERM)
    demo.communicate()
    assert demo.returncode == 128 + signal.SIGTERM
    assert survivors(folder) == []


def test_stop_ends_what_a_killed_demo_left(folder: Path) -> None:
    demo = start(folder)
    wait_for("prefect.yaml", demo)
    demo.kill()
    demo.communicate()
    time.sleep(1)
    assert survivors(folder)
    finish(start(folder, "--stop"))
    assert survivors(folder) == []


def test_keep_leaves_everything_up_until_stop(folder: Path) -> None:
    printed = finish(start(folder, "--keep"))
    [ui] = [line.split()[-1] for line in printed.splitlines() if line.startswith("UI ")]
    assert httpx.get(f"{ui}/api/health", trust_env=False).json() is True
    assert httpx.get(ui, trust_env=False).headers["content-type"].startswith("text/html")
    assert "--stop" in printed
    finish(start(folder, "--stop"))
    assert survivors(folder) == []
