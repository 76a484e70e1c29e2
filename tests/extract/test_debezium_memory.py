"""Invariant 9 for Debezium: neither a snapshot nor a transaction is held in memory, and Java keeps its limit."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import Databases
from tests.extract.test_log import drop_slots, execute

RUN = """
import json
import sys
import threading
import time
from pathlib import Path

from dataclasses import replace

import psutil

from tasks.load.upsert import Upsert
from tasks.pipeline import run_pipeline
from tests.extract.test_debezium import BOOKINGS

engine = [0]


def watch() -> None:
    while True:
        for child in psutil.Process().children():
            try:
                engine[0] = max(engine[0], child.memory_info().rss)
            except psutil.Error:
                pass
        time.sleep(0.1)


threading.Thread(target=watch, daemon=True).start()
began = time.monotonic()
name = sys.argv[1]
report = run_pipeline(replace(BOOKINGS, name=name, load=Upsert("target", name, key=["id"])))
seconds = time.monotonic() - began
[peak] = [int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line[:6] == "VmHWM:"]
print(json.dumps({"extracted": report.counts.extracted, "peak": peak / 1024, "engine": engine[0] / 2**20,
                  "seconds": seconds}))
"""


@pytest.mark.debezium
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_snapshot_and_a_transaction_of_ten_times_the_rows_take_the_same_memory(
    debezium_postgresql: Databases,
) -> None:
    source = debezium_postgresql.source
    execute(source, "CREATE TABLE bookings (id bigint PRIMARY KEY, seat text, price float8)")
    found = {}
    try:
        for what, first, last in (
            ("a small snapshot", 1, 60_000), ("a small transaction", 60_001, 120_000),
            ("a large transaction", 120_001, 720_000),
        ):  # fmt: skip
            execute(source, f"INSERT INTO bookings SELECT g, 'seat ' || g, g FROM generate_series({first}, {last}) g")
            found[what] = _run("bookings", last - first + 1)
        found["a large snapshot"] = _run("again", 720_000)
    finally:
        drop_slots(source)
    for what, answer in found.items():
        print(f"{what}: {answer['peak']:.0f} MB here, {answer['engine']:.0f} MB in Java, {answer['seconds']:.1f} s")
    for what in ("snapshot", "transaction"):
        assert found[f"a large {what}"]["peak"] <= 1.15 * found[f"a small {what}"]["peak"]
    assert max(answer["engine"] for answer in found.values()) < 900


def _run(pipeline: str, expected: int) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN, pipeline],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    assert answer["extracted"] == expected
    return answer
