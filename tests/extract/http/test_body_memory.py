"""Invariant 9 for an answer: a body of 300 MB takes the memory of one of 30 MB."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from tests.scripted_server import Reply, ScriptedServer

MEGABYTE = 1 << 20
SIZES = (30 * MEGABYTE, 300 * MEGABYTE)

READ = """
import json, sys
from pathlib import Path
from tasks.extract.api import ApiExtract
from tasks.extract.http.shapes.shape import Shape
from tasks.window import Window

form = sys.argv[1]
extract = ApiExtract("shop", form, "rows" if form == "json" else "", shape=Shape(format=form))
rows, total = 0, 0
for batch in extract.batches(Window()):
    rows += batch.num_rows
    total += sum(map(int, batch.column("id").to_pylist()))
# Not ru_maxrss: that one begins with what the process had that started this one.
[peak] = [int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line[:6] == "VmHWM:"]
print(json.dumps({"rows": rows, "total": total, "peak": peak * 1024}))
"""

RECORDS = {
    "json": (
        b'{"total": 1, "rows": [',
        b'%b{"id": %d, "name": "number %d", "price": %d.25, "tags": ["a", "b"]}',
        b"]}",
    ),
    "ndjson": (b"", b'%.0b{"id": %d, "name": "number %d", "price": %d.25, "tags": ["a", "b"]}\n', b""),
    "csv": (b"id,name,price,note\n", b'%.0b%d,number %d,%d.25,"a, ""b"""\n', b""),
}


def body(form: str, size: int) -> tuple[Callable[[], Iterator[bytes]], int]:
    """About so many bytes of records with the ids from 0 on, in pieces; and how many records."""
    head, record, tail = RECORDS[form]
    in_piece = 1_000
    pieces = size // (in_piece * len(record % (b",", 1_234_567, 1_234_567, 1_234_567)))

    def made() -> Iterator[bytes]:
        if head:
            yield head
        for first in range(0, pieces * in_piece, in_piece):
            yield b"".join(
                record % (b"," if number else b"", number, number, number) for number in range(first, first + in_piece)
            )
        if tail:
            yield tail

    return made, pieces * in_piece


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("form", RECORDS)
def test_ten_times_the_body_is_read_in_the_same_memory(form: str) -> None:
    """At most 15 % more, and under 400 MB."""
    peaks = []
    for size in SIZES:
        made, count = body(form, size)
        with ScriptedServer({f"/{form}": [Reply(made)]}) as server:
            began = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-W", "error", "-c", READ, form],
                env={**os.environ, "TIDEGATE_SHOP_URL": server.url},
                capture_output=True,
                text=True,
                timeout=600,
            )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        print(f"{form}, {size / MEGABYTE:.0f} MB: {found['peak'] / MEGABYTE:.0f} MB, {time.monotonic() - began:.1f} s")
        assert (found["rows"], found["total"]) == (count, count * (count - 1) // 2)
        peaks.append(found["peak"])
    small, large = peaks
    assert large < 400 * MEGABYTE
    assert large <= 1.15 * small
