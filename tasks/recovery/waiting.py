"""Whose dead letters wait for rows of a table, and by which rules: what is judged anew once that has landed."""

from tasks.declaration import Pipeline
from tasks.graph import Graph, same_table
from tasks.observe.context import logger
from tasks.recovery.replay import needs_source
from tasks.state.letters import Wanted


def waiting_for(graph: Graph, landed: str) -> list[tuple[Pipeline, Wanted]]:
    """The pipelines that refer to what `landed` loads, and of each the letters that lacked something there.

    What is replayed lands in its turn, and may be waited for as well. That ends, since every letter is closed once;
    but windows that are read again may change for other reasons. So where references go round in a circle, what has to
    be read again is left to the nightly replay.

    Args:
        graph: the pipelines.
        landed: name of one of them.
    """
    found = []
    for name in graph.order:
        rules = rules_on(graph, graph[name], landed)
        if not rules:
            continue
        why = needs_source(graph[name])
        if why is not None and landed in _reached(graph, name):
            logger().info("%s: %s, and %s refers to it: the nightly replay judges its letters.", name, why, landed)
            continue
        found.append((graph[name], Wanted(name, rule=rules)))
    return found


def rules_on(graph: Graph, pipeline: Pipeline, landed: str) -> tuple[str, ...]:
    """The rules of `pipeline` that a row breaks for want of a row in the table that `landed` loads."""
    load = graph[landed].load
    if load.connection != pipeline.load.connection:
        return ()
    referring = [one.rule for one in pipeline.references if same_table(one.table, load.table)]
    # One that leaves its columns empty rejects nothing.
    looking = [
        one.rule
        for one in pipeline.lookups
        if one.on_missing == "reject" and one.table is not None and same_table(one.table, load.table)
    ]
    return tuple(dict.fromkeys((*referring, *looking)))


def _reached(graph: Graph, name: str) -> set[str]:
    """What a landing of `name` leads to: every pipeline that refers to it, at whatever remove."""
    reached: set[str] = set()
    ahead = [name]
    while ahead:
        landed = ahead.pop()
        new = {other for other in graph.order if rules_on(graph, graph[other], landed)} - reached
        reached |= new
        ahead += new
    return reached
