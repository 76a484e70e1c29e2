"""Invariant 9 for a mart: its rows pass through this process, and it does not matter how many they are."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import Databases

RUN = '''
import json
import sys
from pathlib import Path
import pandera.pandas as pa
from tasks.extract.sql import SqlTransform
from tasks.load.append import Append
from tasks.pipeline import Pipeline, run_pipeline

class NumberSchema(pa.DataFrameModel):
    number: int
    name: str

rows = sys.argv[1]
query = f"""
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
    SELECT i AS number, 'the number ' || i AS name FROM n
"""
load = Append("target", f"mart_{rows}", key=["number"])
report = run_pipeline(Pipeline("numbers", SqlTransform("target", query=query), NumberSchema, load))
[peak] = [int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line[:6] == "VmHWM:"]
print(json.dumps({"inserted": report.counts.inserted, "peak": peak / 1024}))
'''


# MariaDB counts to no more than a thousand without being asked to.
@pytest.mark.parametrize("databases", ["postgresql", "sqlite"], indirect=True)
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_mart_of_two_million_rows_takes_the_memory_of_a_tenth_of_it(databases: Databases) -> None:
    peaks = []
    for rows in (200_000, 2_000_000):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", RUN, str(rows)],
            env=dict(os.environ),
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout.splitlines()[-1])
        assert answer["inserted"] == rows
        peaks.append(answer["peak"])
    small, large = peaks
    print(f"200,000 rows {small:.0f} MB, 2,000,000 rows {large:.0f} MB")
    assert large <= 1.15 * small
