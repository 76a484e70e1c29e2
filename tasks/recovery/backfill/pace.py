"""`paced`: a pipeline for one of several runs at once, that together ask an API no more often than it is declared."""

from dataclasses import replace

from tasks.declaration import Pipeline
from tasks.extract.api import ApiExtract
from tasks.extract.api_children import ApiChildren


def paced(pipeline: Pipeline, jobs: int) -> Pipeline:
    """`pipeline` with its share of the rate of its API, where each run keeps one; contract and target are the same.

    Args:
        pipeline: what each of the runs carries out.
        jobs: how many there are at once.
    """
    extract = pipeline.extract
    if isinstance(extract, ApiExtract):
        return replace(pipeline, extract=_paced(extract, jobs))
    if isinstance(extract, ApiChildren):
        parents, children = (_paced(one, jobs) for one in (extract.parents, extract.children))
        return replace(pipeline, extract=replace(extract, parents=parents, children=children))
    return pipeline


def _paced(extract: ApiExtract, jobs: int) -> ApiExtract:
    rate = extract.rate
    if rate is None or jobs == 1:
        return extract
    return replace(extract, rate=replace(rate, per=rate.per * jobs, burst=max(1, rate.burst // jobs)))
