"""Invariant 9: the memory of a run does not grow with what it reads."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deployments.demo import replay
from flows import airports, planes
from tasks import connections
from tasks.embedded import EmbeddedPostgres
from tasks.pipeline import run_pipeline
from tests.servers.cluster import create_database, drop_database

MONTH = datetime(2013, 2, 1, tzinfo=UTC)
MEGABYTE = 1 << 20

FLIGHTS = """
import json
from pathlib import Path
from flows import flights
from tasks.pipeline import run_pipeline

report = run_pipeline(flights.PIPELINE)
# Not ru_maxrss: that one begins with what the process had that started this one.
[peak] = [int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line[:6] == "VmHWM:"]
print(json.dumps({"extracted": report.counts.extracted, "peak": peak * 1024}))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_year_of_flights_takes_the_memory_of_a_month(
    cluster: EmbeddedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under 500 MB, and at most 15 % more."""
    names = ["operations_of_memory", "warehouse_of_a_month", "warehouse_of_a_year"]
    operations, *warehouses = (cluster.url(name) for name in names)
    for name in names:
        create_database(cluster, name)
    monkeypatch.setenv("TIDEGATE_OPERATIONS_URL", operations)
    source, weather = connections.engine("operations"), tmp_path / "weather.db"
    replay.build(source, weather)
    peaks = []
    for clock, warehouse, extracted in zip((MONTH, replay.END), warehouses, (None, 336_776), strict=True):
        monkeypatch.setenv("TIDEGATE_WAREHOUSE_URL", warehouse)
        replay.replay_to(source, weather, clock)
        for pipeline in (airports.PIPELINE, planes.PIPELINE):
            run_pipeline(pipeline)
        answer = _flights_in_a_process_of_its_own()
        assert extracted is None or answer["extracted"] == extracted
        peaks.append(answer["peak"])
    connections.dispose()
    for name in names:
        drop_database(cluster, name)
    month, year = peaks
    print(f"a month {month / MEGABYTE:.0f} MB, the year {year / MEGABYTE:.0f} MB")
    assert year < 500 * MEGABYTE
    assert year <= 1.15 * month


def _flights_in_a_process_of_its_own() -> dict[str, int]:
    """What it loaded, and its peak of resident memory in bytes."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FLIGHTS],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return answer
