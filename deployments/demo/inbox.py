"""`Inbox`: where the demo's alerts arrive, as they would in a chat channel: an HTTP server that keeps every message."""

import json
import sys
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from deployments.processes import Process, ProcessFailed, answers, free_port

_START_SECONDS = 30.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Message:
    """One alert as it came in.

    Attributes:
        subject: its first line.
        body: the rest.
    """

    subject: str
    body: str


class Inbox(Process):
    """A webhook on a free port of the loopback address, whose messages are lines of `alerts.jsonl`.

    Args:
        home: folder for its file and its log.
    """

    def __init__(self, home: Path) -> None:
        self.port = free_port()
        self.file = home / "alerts.jsonl"
        super().__init__(
            "inbox", [sys.executable, "-m", "deployments.demo.inbox", str(self.file), str(self.port)], home
        )

    @property
    def url(self) -> str:
        """Where to send messages: a POST of JSON with `subject` and `body`."""
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> "Inbox":
        """Start it; ready when this returns.

        Raises:
            ProcessFailed: it did not answer within half a minute.
        """
        super().start()
        return self.wait_until(answers(self.url), _START_SECONDS)

    def messages(self) -> list[Message]:
        """Everything that has come in, the oldest first."""
        if not self.file.exists():
            return []
        return [Message(**json.loads(line)) for line in self.file.read_text().splitlines()]

    def wait_for(self, words: str, seconds: float) -> Message:
        """The first message with `words` in its subject.

        Raises:
            ProcessFailed: none had come after `seconds`.
        """
        deadline = time.monotonic() + seconds
        while True:
            for message in self.messages():
                if words in message.subject:
                    return message
            if time.monotonic() > deadline:
                came = "; ".join(message.subject for message in self.messages()) or "nothing"
                raise ProcessFailed(f"No alert {words!r} came within {seconds:g} s. What came: {came}.")
            time.sleep(_POLL_SECONDS)


def main() -> None:
    """Serve: `python -m deployments.demo.inbox FILE PORT`."""
    file, port = Path(sys.argv[1]), int(sys.argv[2])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(b"Alerts are posted here.\n")

        def do_POST(self) -> None:
            sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            # One write of one line: messages may come at once, and a reader sees whole lines.
            with file.open("a") as kept:
                kept.write(json.dumps({"subject": sent["subject"], "body": sent["body"]}) + "\n")
            self._answer(b"Received.\n")

        def _answer(self, text: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
