"""A graph of pipelines: what it refuses, and which reads it finds that nobody declared."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tasks.errors import ConfigError
from tasks.extract.table import TableExtract
from tasks.graph import Graph, UndeclaredRead, reads
from tasks.load.upsert import Upsert
from tasks.pipeline import Audit, DependsOn, Lookup, Pipeline, References
from tests.orders import ORDERS


def pipeline(name: str, depends_on: Sequence[str | DependsOn] = (), **parts: object) -> Pipeline:
    """A pipeline that loads `fct_<name>`."""
    load = Upsert("target", f"fct_{name}", key=["id"])
    return replace(ORDERS, **{"name": name, "load": load, "depends_on": depends_on, **parts})  # type: ignore[arg-type]


DIAMOND = Graph([pipeline("d", ["b", "c"]), pipeline("c", ["a"]), pipeline("b", ["a"]), pipeline("a"), pipeline("e")])


def test_the_order_puts_every_pipeline_after_its_upstreams() -> None:
    order = DIAMOND.order
    assert sorted(order) == ["a", "b", "c", "d", "e"]
    assert order.index("a") < min(order.index("b"), order.index("c")) <= max(order.index("b"), order.index("c"))
    assert order.index("d") > max(order.index("b"), order.index("c"))


def test_a_cycle_is_refused_and_named() -> None:
    with pytest.raises(ConfigError, match=r"circle.*: (a → b → c → a|b → c → a → b|c → a → b → c)\."):
        Graph([pipeline("a", ["c"]), pipeline("b", ["a"]), pipeline("c", ["b"]), pipeline("d", ["c"])])


def test_an_unknown_upstream_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(ConfigError, match=r"b depends on 'aa', and there is no such pipeline. Name 'a' or 'b'"):
        Graph([pipeline("a"), pipeline("b", ["aa"])])


def test_two_pipelines_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="several pipelines called 'a'"):
        Graph([pipeline("a"), pipeline("b"), pipeline("a")])


def test_an_upstream_that_loads_into_another_database_has_to_be_declared_so() -> None:
    elsewhere = pipeline("a", load=Upsert("archive", "fct_a", key=["id"]))
    with pytest.raises(ConfigError, match=r"DependsOn\('a', connection='archive'\)"):
        Graph([elsewhere, pipeline("b", ["a"])])
    assert Graph([elsewhere, pipeline("b", [DependsOn("a", connection="archive")])]).order == ("a", "b")


def test_the_diagram_holds_every_pipeline_and_every_arrow() -> None:
    lines = DIAMOND.mermaid().splitlines()
    assert lines[0] == "graph LR"
    assert sorted(line.strip() for line in lines[1:]) == ["a --> b", "a --> c", "b --> d", "c --> d", "e"]


@dataclass(frozen=True)
class Looked:
    """A part of a kind that the graph has never heard of."""

    reads: frozenset[str]


def extract(**what: str) -> TableExtract:
    return TableExtract("target", cursor="updated_at", **what)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param({"references": [References("customer", "fct_a.id")]}, id="a reference"),
        pytest.param({"references": [References("customer", "public.fct_a.id")]}, id="a reference with a schema"),
        pytest.param({"lookups": [Lookup("fct_a", on={"id": "id"}, take={"x": "x"})]}, id="a lookup"),
        pytest.param(
            {"lookups": [Lookup(extract=extract(table="fct_a"), on={"id": "id"}, take={"x": "x"})]},
            id="a lookup that reads",
        ),
        pytest.param({"audits": [Audit("none is left", query="SELECT * FROM fct_a")]}, id="an audit"),
        pytest.param({"extract": extract(table="fct_a")}, id="a table"),
        pytest.param({"extract": extract(query='SELECT * FROM x JOIN "fct_a" USING (id)')}, id="a query"),
        pytest.param({"extract": extract(query="SELECT * FROM `fct_a`")}, id="a query of MariaDB"),
        pytest.param(
            {"extract": extract(query="WITH x AS (SELECT * FROM fct_a) SELECT * FROM x")}, id="a query within a query"
        ),
        pytest.param({"references": [Looked(frozenset({"fct_a"}))]}, id="a part of a new kind"),
    ],
)
def test_a_read_of_what_another_pipeline_loads_is_found_unless_it_is_declared(parts: dict[str, Any]) -> None:
    found = Graph([pipeline("a"), pipeline("b", **parts)]).undeclared_reads()
    assert [(one.reader, one.loader) for one in found] == [("b", "a")]
    assert Graph([pipeline("a"), pipeline("b", ["a"], **parts)]).undeclared_reads() == []


@pytest.mark.parametrize(
    "read",
    [
        pytest.param(extract(query="WITH fct_a AS (SELECT 1 AS id) SELECT * FROM fct_a"), id="a name for a subquery"),
        pytest.param(TableExtract("source", "fct_a", cursor="updated_at"), id="a table of another database"),
        pytest.param(extract(table="fct_b"), id="its own target"),
        pytest.param(extract(table="fct_aa"), id="a longer name"),
    ],
)
def test_what_only_looks_like_another_pipelines_table_is_no_read_of_it(read: TableExtract) -> None:
    assert Graph([pipeline("a"), pipeline("b", extract=read)]).undeclared_reads() == []


def test_an_indirect_dependency_does_not_declare_a_read() -> None:
    graph = Graph(
        [pipeline("a"), pipeline("b", ["a"]), pipeline("c", ["b"], references=[References("id", "fct_a.id")])]
    )
    assert graph.undeclared_reads() == [UndeclaredRead("c", "fct_a", "a")]
    assert str(graph.undeclared_reads()[0]) == ("c reads fct_a, which a loads: add 'a' to the depends_on of c.")


def test_a_query_that_cannot_be_parsed_is_refused() -> None:
    with pytest.raises(ConfigError, match="b: what its query reads cannot be told"):
        reads(pipeline("b", extract=extract(query="SELECT FROM WHERE (")))
