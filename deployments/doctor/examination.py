"""Everything that pipelines need, looked at in order: databases and APIs, clocks, slots, and the server."""

from collections.abc import Iterator, Sequence

import yaml

from deployments.doctor.apis import examine_api
from deployments.doctor.connections import Connected, connections_of
from deployments.doctor.databases import examine_database
from deployments.doctor.finding import Finding
from deployments.doctor.programs import examine_programs
from deployments.doctor.server import examine_server
from deployments.doctor.slots import examine_slot
from deployments.pipelines import every
from deployments.prefect_server import PROJECT
from tasks.errors import TidegateError
from tasks.pipeline import Pipeline


def examine(pipelines: Sequence[Pipeline] | None = None) -> list[Finding]:
    """What was seen. Nothing that is looked at is changed, and nothing is left behind.

    Args:
        pipelines: whose needs; None takes those of `flows/`.
    """
    chosen = every() if pipelines is None else pipelines
    return list(_examine(chosen))


def _examine(pipelines: Sequence[Pipeline]) -> Iterator[Finding]:
    yield from examine_programs(yaml.safe_load((PROJECT / "prefect.yaml").read_text()))
    for one in connections_of(pipelines):
        yield from _guarded(one)
    for pipeline in pipelines:
        yield from examine_slot(pipeline)
    yield from examine_server(pipelines)


def _guarded(one: Connected) -> Iterator[Finding]:
    """The findings of a connection; an error ends them, and not those of the others."""
    try:
        yield from examine_api(one) if one.is_api else examine_database(one)
    except TidegateError as error:
        remedy = f"Check {one.variable}, the block {one.block!r}, the network and the server's log."
        yield Finding("fail", f"connection {one.name}", f"{type(error).__name__}: {error}", remedy)
