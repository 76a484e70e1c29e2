"""Orders with items below each, as an API of the connection `shop`, and the pipeline that loads the items."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import unquote

import pandera.pandas as pa
from sqlalchemy import Engine, text

from tasks.extract.api import ApiClock, ApiExtract
from tasks.extract.api_children import ApiChildren
from tasks.extract.http.pace.retry import Retry
from tasks.extract.http.pages.numbered import PageNumber
from tasks.extract.http.pages.paginators import Cursor
from tasks.load.upsert import Upsert
from tasks.pipeline import Pipeline
from tasks.transform.contract import UtcTimestamp
from tests.extract.shop import DAY, HOUR
from tests.scripted_server import Reply, ScriptedServer, Seen

ONCE = Retry(attempts=1)


class ItemSchema(pa.DataFrameModel):
    id: int
    order_id: str
    at: UtcTimestamp


CHILDREN = ApiExtract(
    "shop",
    "/orders/{id}/items",
    "items",
    Cursor("next", "cursor"),
    cursor="at",
    start_param="since",
    clock=ApiClock("clock", "now"),
    retry=ONCE,
)
ITEMS = Pipeline(
    name="items",
    extract=ApiChildren(
        parents=ApiExtract("shop", "/orders", "data", PageNumber(), retry=ONCE),
        children=CHILDREN,
        include={"order_id": "id"},
        concurrency=4,
    ),
    schema=ItemSchema,
    load=Upsert("target", "fct_items", key=["id"]),
    max_attempts=1,
)


def children(pipeline: Pipeline = ITEMS, **settings: Any) -> Pipeline:
    """`pipeline` with other settings of the children."""
    assert isinstance(pipeline.extract, ApiChildren)
    return replace(pipeline, extract=replace(pipeline.extract, children=replace(pipeline.extract.children, **settings)))


def parents(pipeline: Pipeline = ITEMS, **settings: Any) -> Pipeline:
    """`pipeline` with other settings of the parents."""
    assert isinstance(pipeline.extract, ApiChildren)
    return replace(pipeline, extract=replace(pipeline.extract, parents=replace(pipeline.extract.parents, **settings)))


def changed(pipeline: Pipeline = ITEMS, **settings: Any) -> Pipeline:
    """`pipeline` with other settings of both together."""
    return replace(pipeline, extract=replace(pipeline.extract, **settings))  # type: ignore[type-var]


WHOLE = children(cursor=None, start_param=None, clock=None)


@dataclass
class Orders:
    """The API: `/orders`, `/orders/{id}/items` and `/clock`.

    Attributes:
        items: of each order, in the order of the list.
        size: orders to a page, and items to a page.
        hour: what its clock says, counted from `DAY`.
        refused: orders whose items are refused, with what status.
        before: called with each request and the order it is about; what it returns is the answer instead.
        asked: the orders asked for their items, by request.
    """

    items: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    size: int = 10
    hour: float = 24
    refused: dict[str, int] = field(default_factory=dict)
    before: Callable[[Seen, str], Reply | None] = field(default=lambda seen, order: None)
    asked: list[str] = field(default_factory=list)

    def add(self, order: str, number: int, hour: float) -> None:
        """An item of an order, or another version of it."""
        self.items.setdefault(order, [])[:] = [one for one in self.items.get(order, []) if one["id"] != number]
        self.items[order].append({"id": number, "at": moment(hour)})

    def __call__(self, seen: Seen) -> Reply:
        """The answer to a request."""
        segments = [unquote(segment) for segment in seen.target.partition("?")[0].strip("/").split("/")]
        if segments == ["clock"]:
            return Reply({"now": moment(self.hour)})
        order = segments[1] if len(segments) == 3 else ""
        if order:
            self.asked.append(order)
        instead = self.before(seen, order)
        if instead is not None:
            return instead
        if segments == ["orders"]:
            start = (int(seen.params["page"]) - 1) * self.size
            ids = list(self.items)[start : start + self.size]
            return Reply({"data": [{"id": one, "customer": f"of {one}"} for one in ids]})
        if order in self.refused or order not in self.items:
            return Reply({"error": "no"}, status=self.refused.get(order, 404))
        since = seen.params.get("since", "")
        there = sorted((one for one in self.items[order] if one["at"] >= since), key=lambda one: str(one["at"]))
        start = int(seen.params.get("cursor", 0))
        more = start + self.size < len(there)
        return Reply({"items": there[start : start + self.size], "next": str(start + self.size) if more else None})


def moment(hour: float) -> str:
    """So many hours after `DAY`, as the API writes it."""
    return (DAY + timedelta(hours=hour)).isoformat().replace("+00:00", "Z")


def at(hour: float) -> datetime:
    """So many hours after `DAY`."""
    return DAY + hour * HOUR


def loaded(target: Engine) -> list[tuple[int, str]]:
    """Number and order of every item in the target."""
    return rows(target, "SELECT id, order_id FROM fct_items ORDER BY id")


def rows(target: Engine, query: str) -> list[tuple[Any, ...]]:
    """What a query finds."""
    with target.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def letters(target: Engine) -> list[tuple[Any, ...]]:
    """Status, how often it was seen, record and reasons of every dead letter."""
    return rows(target, "SELECT status, times_seen, record, reasons FROM etl_dead_letters ORDER BY letter")


def places(target: Engine) -> list[str]:
    """The parents that have a place."""
    return [parent for (parent,) in rows(target, "SELECT parent FROM etl_parents ORDER BY parent")]


def since(server: ScriptedServer, order: str) -> list[str | None]:
    """From when on the items of an order were asked for, request by request."""
    path = f"/orders/{order}/items"
    return [seen.params.get("since") for seen in server.seen if seen.target.partition("?")[0] == path]


def family(orders: int, each: int = 1, hour: float = 1) -> Orders:
    """So many orders with so many items each."""
    api = Orders()
    for order in range(orders):
        api.items[str(order)] = []
        for item in range(each):
            api.add(str(order), order * each + item, hour)
    return api
