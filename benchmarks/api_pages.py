"""How near reading an API's pages at once comes to what its latency allows.

::

    python -m benchmarks.api_pages [PAGES] [MILLISECONDS]

A server in a process of its own waits that long before each answer of 100 records. The floor is `latency * pages /
concurrency`; the first page is asked for alone, so that one latency more is the least there can be.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tasks.extract.api import ApiExtract
from tasks.extract.http.pages.numbered import Offset
from tasks.window import Window

SIZE = 100
AT_ONCE = (1, 2, 4, 8, 16, 32)


class Handler(BaseHTTPRequestHandler):
    """Answers one page, late, over a connection that stays open."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    pages, latency = 0, 0.0

    def do_GET(self) -> None:
        """Answer."""
        begun = time.monotonic()
        offset = int(parse_qs(urlsplit(self.path).query)["offset"][0])
        there = max(min(SIZE, self.pages * SIZE - offset), 0)
        rows = [{"id": offset + number, "name": f"record {offset + number}"} for number in range(there)]
        body = json.dumps({"total": self.pages * SIZE, "rows": rows}).encode()
        time.sleep(max(self.latency - (time.monotonic() - begun), 0))
        self.send_response_only(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


class Server(ThreadingHTTPServer):
    """Takes many connections in one moment: one that waits for room in the queue would wait a second."""

    request_queue_size = 128


def serve(pages: int, latency: float) -> None:
    """Serve until standard input ends; print the port."""
    Handler.pages, Handler.latency = pages, latency
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()


@contextmanager
def served(pages: int, latency: float) -> Iterator[None]:
    """A server in a process of its own, as the connection `slow`."""
    command = [sys.executable, "-m", "benchmarks.api_pages", "serve", str(pages), str(latency)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None and server.stdin is not None
        os.environ["TIDEGATE_SLOW_URL"] = f"http://127.0.0.1:{int(server.stdout.readline())}"
        yield
        server.stdin.close()


def measure(pages: int, latency: float) -> None:
    """Print the seconds for each number of requests at once, and how far they are above the floor."""
    print(f"{pages:,} pages of {SIZE} records, {1_000 * latency:g} ms each")
    print(f"{'at once':>8} {'seconds':>8} {'floor':>8} {'above':>7}")
    with served(pages, latency):
        for at_once in AT_ONCE:
            extract = ApiExtract("slow", "/", "rows", Offset(SIZE, total="total"), concurrency=at_once)
            begun = time.monotonic()
            rows = sum(batch.num_rows for batch in extract.batches(Window()))
            seconds, floor = time.monotonic() - begun, latency * pages / at_once
            assert rows == pages * SIZE
            print(f"{at_once:>8} {seconds:>8.2f} {floor:>8.2f} {seconds / floor - 1:>7.1%}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]), float(sys.argv[3]))
    else:
        measure(*(int(sys.argv[1]) if sys.argv[1:] else 1_000, (float(sys.argv[2]) if sys.argv[2:] else 100) / 1_000))
