"""`Graph`: pipelines and what each of them depends on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from graphlib import CycleError, TopologicalSorter
from typing import Any

from tasks.declaration import Pipeline
from tasks.errors import ConfigError, one_of
from tasks.sql_text import tables_in
from tasks.upstreams import ReadsTables


@dataclass(frozen=True, slots=True)
class UndeclaredRead:
    """A pipeline reads what another one loads, and does not depend on it."""

    reader: str
    table: str
    loader: str

    def __str__(self) -> str:
        return (
            f"{self.reader} reads {self.table}, which {self.loader} loads: add {self.loader!r} to the depends_on of "
            f"{self.reader}."
        )


@dataclass(frozen=True)
class Graph:
    """Pipelines that are run together, each after those that it depends on.

    Attributes:
        pipelines: in any order.

    Raises:
        ConfigError: two of one name, an upstream that is not among them, or that loads into another database than is
            said; or a cycle.
    """

    pipelines: Sequence[Pipeline]

    def __post_init__(self) -> None:
        known = {pipeline.name: pipeline for pipeline in self.pipelines}
        if len(known) != len(self.pipelines):
            names = [pipeline.name for pipeline in self.pipelines]
            twice = {name for name in names if names.count(name) > 1}
            raise ConfigError(f"There are several pipelines called {one_of(sorted(twice))}. Rename all but one.")
        for pipeline in self.pipelines:
            for upstream in pipeline.upstreams:
                if upstream.pipeline not in known:
                    raise ConfigError(
                        f"{pipeline.name} depends on {upstream.pipeline!r}, and there is no such pipeline. Name "
                        f"{one_of(sorted(known))}, or add it to the graph."
                    )
                loads_into = known[upstream.pipeline].load.connection
                if loads_into != (upstream.connection or pipeline.load.connection):
                    raise ConfigError(
                        f"{pipeline.name}: the watermark of {upstream.pipeline!r} is where it loads into. Write "
                        f"DependsOn({upstream.pipeline!r}, connection={loads_into!r})."
                    )
        try:
            self.sorter().prepare()
        except CycleError as error:
            cycle = " → ".join(error.args[1])
            raise ConfigError(
                f"Pipelines depend on each other in a circle, so none of them can be first: {cycle}. Take one of these "
                "out of a depends_on."
            ) from error

    def sorter(self) -> "TopologicalSorter[str]":
        """What hands out the names of the pipelines, each after its upstreams; not prepared yet."""
        return TopologicalSorter({pipeline.name: self.upstreams(pipeline.name) for pipeline in self.pipelines})

    def __getitem__(self, name: str) -> Pipeline:
        return next(pipeline for pipeline in self.pipelines if pipeline.name == name)

    def named(self, name: str) -> Pipeline:
        """The pipeline that somebody asks for.

        Raises:
            ConfigError: there is none of that name.
        """
        if name not in {pipeline.name for pipeline in self.pipelines}:
            raise ConfigError(f"There is no pipeline {name!r}; there are {', '.join(sorted(self.order))}.")
        return self[name]

    @property
    def order(self) -> tuple[str, ...]:
        """The names, each after its upstreams."""
        return tuple(self.sorter().static_order())

    def upstreams(self, name: str) -> tuple[str, ...]:
        """What `name` depends on itself."""
        return tuple(upstream.pipeline for upstream in self[name].upstreams)

    def undeclared_reads(self) -> list[UndeclaredRead]:
        """Where a pipeline reads the target of another one that it does not depend on.

        Raises:
            ConfigError: a query cannot be parsed.
        """
        return [
            UndeclaredRead(reader.name, table, loader.name)
            for reader in self.pipelines
            for connection, table in sorted(reads(reader))
            for loader in self.pipelines
            if loader.load.connection == connection
            and same_table(loader.load.table, table)
            and loader is not reader
            and loader.name not in self.upstreams(reader.name)
        ]

    def mermaid(self) -> str:
        """The graph as a Mermaid flow chart, from left to right; upstreams before those that depend on them."""
        lines = ["graph LR"]
        for name in self.order:
            downstreams = sorted(one.name for one in self.pipelines if name in self.upstreams(one.name))
            lines += [f"    {name} --> {other}" for other in downstreams]
            if not downstreams and not self.upstreams(name):
                lines.append(f"    {name}")
        return "\n".join(lines)


def reads(pipeline: Pipeline) -> set[tuple[str, str]]:
    """Every table that `pipeline` reads, as connection and name.

    What counts is each part of the declaration that says so (`ReadsTables`), or else has a `table` or a `query`.

    Raises:
        ConfigError: a query cannot be parsed.
    """
    return {(connection, table) for connection, part in parts(pipeline) for table in tables_of(pipeline.name, part)}


def parts(pipeline: Pipeline) -> Iterator[tuple[str, Any]]:
    """Every part of the declaration but its load, with the connection that it is about."""
    for part in _parts(pipeline):
        yield getattr(part, "connection", None) or pipeline.load.connection, part


def _parts(pipeline: Pipeline) -> Iterator[Any]:
    for field in fields(pipeline):
        value = getattr(pipeline, field.name)
        if field.name != "load":
            for part in value if isinstance(value, list | tuple) else (value,):
                # A lookup reads a table of the target, or has an extract of its own.
                yield from (part, getattr(part, "extract", None))


def tables_of(name: str, part: Any) -> frozenset[str]:
    """The tables that a part of the pipeline `name` reads.

    Raises:
        ConfigError: a query cannot be parsed.
    """
    if isinstance(part, ReadsTables):
        return part.reads
    table, query = getattr(part, "table", None), getattr(part, "query", None)
    if isinstance(query, str):
        return frozenset(tables_in(query, f"{name}: what its query reads cannot be told"))
    return frozenset({table} if isinstance(table, str) else ())


def same_table(one: str, other: str) -> bool:
    """Whether two names are one table; a name without a schema may be in any."""
    if "." in one and "." in other:
        return one == other
    return one.rpartition(".")[2] == other.rpartition(".")[2]
