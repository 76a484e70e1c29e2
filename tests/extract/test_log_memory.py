"""Invariant 9 for a followed log: one transaction may be as large as it likes."""

import json
import os
import subprocess
import sys

import pytest

from tasks.pipeline import run_pipeline
from tests.conftest import Databases
from tests.extract.test_log import BOOKINGS, drop_slots, execute

RUN = """
import json
from pathlib import Path
from tasks.pipeline import run_pipeline
from tests.extract.test_log import BOOKINGS

report = run_pipeline(BOOKINGS)
[peak] = [int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line[:6] == "VmHWM:"]
print(json.dumps({"extracted": report.counts.extracted, "peak": peak / 1024}))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_transaction_of_two_million_changes_takes_the_memory_of_a_tenth_of_it(postgresql: Databases) -> None:
    source = postgresql.source
    execute(source, "CREATE TABLE bookings (id bigint PRIMARY KEY, seat text, price float8)")
    run_pipeline(BOOKINGS)
    peaks = []
    for first, last in ((1, 200_000), (200_001, 2_200_000)):
        execute(source, f"INSERT INTO bookings SELECT g, 'seat ' || g, g FROM generate_series({first}, {last}) g")
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", RUN],
            env=dict(os.environ),
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout.splitlines()[-1])
        assert answer["extracted"] == last - first + 1
        peaks.append(answer["peak"])
    drop_slots(source)
    small, large = peaks
    print(f"200,000 changes {small:.0f} MB, 2,000,000 changes {large:.0f} MB")
    assert large <= 1.15 * small
