"""A list of records behind every kind of paging that APIs have, for `ScriptedServer` to serve."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.scripted_server import Reply, Seen

Record = dict[str, Any]


@dataclass
class PagedApi:
    """Answers `/number`, `/offset`, `/cursor`, `/url`, `/link`, `/header`, `/keyset` and a POST to `/search`.

    Attributes:
        records: what there is, by ascending `id`.
        size: how many come in a page when nobody asks for another number.
        most: how many come in a page at most.
        before: called with each request before it is answered; what it returns is the answer instead.
    """

    records: list[Record]
    size: int = 10
    most: int = 1_000
    before: Callable[[Seen], Reply | None] = field(default=lambda seen: None)

    def __call__(self, seen: Seen) -> Reply:
        """The answer to a request."""
        return self.before(seen) or self._page(seen)

    def _page(self, seen: Seen) -> Reply:
        kind = seen.target.partition("?")[0].strip("/")
        asked: dict[str, Any] = json.loads(seen.body)["page"] if kind == "search" else seen.params
        size = min(int(asked.get("limit", self.size)), self.most)
        since = asked.get("since", "")
        there = [record for record in self.records if str(record.get("at", "~")) >= since]
        if kind == "keyset":
            return Reply({"rows": [record for record in there if record["id"] > int(asked.get("after", -1))][:size]})
        if kind == "number":
            start = (int(asked["page"]) - 1) * size
        else:
            start = int(asked.get("offset", asked.get("cursor") or 0))
        rows: Sequence[Record] = there[start : start + size]
        more = start + size < len(there)
        body: dict[str, Any] = {"rows": rows, "total": len(there), "pages": -(-len(there) // size)}
        headers = {}
        if kind in ("cursor", "search"):
            body["next"] = str(start + size) if more else None
        elif kind == "url":
            body["next"] = f"/url?offset={start + size}" if more else ""
        elif kind == "link" and more:
            headers["Link"] = f'</link?offset=0>; rel="first", </link?offset={start + size}>; rel="next prefetch"'
        elif kind == "header" and more:
            headers["X-Next"] = str(start + size)
        return Reply(body, headers=headers)
