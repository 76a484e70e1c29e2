"""Invariant 9 for a snapshot diff: five million rows take the memory of half a million."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest
from sqlalchemy import Engine, text

from tests.conftest import Databases

MEGABYTE = 1 << 20
ROWS = (500_000, 5_000_000)

RUN = """
import json
from pathlib import Path
from tasks.pipeline import run_pipeline
from tests.extract.parts import PARTS

report = run_pipeline(PARTS)
# Not ru_maxrss: that one begins with what the process had that started this one.
[peak] = [int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line[:6] == "VmHWM:"]
print(json.dumps({**report.counts.as_dict(), "peak": peak * 1024}))
"""


@dataclass(frozen=True)
class Measured:
    """A run in a process of its own: what it counted, its seconds, its peak of resident memory in bytes."""

    counts: dict[str, int]
    seconds: float
    peak: int


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_a_hundredth_of_ten_times_the_rows_changes_in_the_same_memory(postgresql: Databases) -> None:
    """At most 15 % more for the first snapshot and for the comparison; what is written is what changed."""
    firsts, diffs = [], []
    for rows in ROWS:
        _fill(postgresql.source, rows)
        firsts.append(_run(postgresql))
        assert firsts[-1].counts["inserted"] == rows
        _change_a_hundredth(postgresql.source, rows)
        diffs.append(_run(postgresql))
        kinds = ("inserted", "updated", "deleted", "extracted")
        share = rows // 400
        assert [diffs[-1].counts[kind] for kind in kinds] == [share, 2 * share, share, 4 * share]
        _empty(postgresql.target)
    for name, (few, many) in {"first snapshot": firsts, "1 % changed": diffs}.items():
        for rows, done in zip(ROWS, (few, many), strict=True):
            print(f"{name}, {rows:,} rows: {done.seconds:.1f} s, {done.peak / MEGABYTE:.0f} MB")
        assert many.peak <= 1.15 * few.peak


def _fill(source: Engine, rows: int) -> None:
    with source.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS parts"))
        connection.execute(
            text(
                "CREATE TABLE parts AS SELECT number, 'part ' || number AS name, number / 7.0::float8 AS weight,"
                " number % 100 = 0 AS rare FROM generate_series(1, :rows) AS number"
            ),
            {"rows": rows},
        )
        connection.execute(text("ALTER TABLE parts ADD PRIMARY KEY (number)"))


def _change_a_hundredth(source: Engine, rows: int) -> None:
    """Half of them updates, a quarter deletes, a quarter inserts; spread over the whole table."""
    with source.begin() as connection:
        connection.execute(text("UPDATE parts SET weight = -1 WHERE number % 200 = 1"))
        connection.execute(text("DELETE FROM parts WHERE number % 400 = 2"))
        connection.execute(
            text(
                "INSERT INTO parts SELECT :rows + number, 'new', 0, false "
                "FROM generate_series(1, :rows / 400) AS number"
            ),
            {"rows": rows},
        )


def _empty(target: Engine) -> None:
    with target.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))


def _run(databases: Databases) -> Measured:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN],
        env={**databases.environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout.splitlines()[-1])
    return Measured(counts, time.monotonic() - began, counts.pop("peak"))
