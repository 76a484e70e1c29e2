"""`Connected`: a database or an API that pipelines name, and which of them do."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tasks import settings
from tasks.connections import block_name
from tasks.extract.api import ApiExtract
from tasks.extract.api_children import ApiChildren
from tasks.extract.rows import RowsExtract
from tasks.pipeline import Pipeline


@dataclass
class Connected:
    """What a connection is used for.

    Attributes:
        name: as pipelines declare it.
        sources: pipelines that read from it.
        targets: pipelines that load into it.
        watched: pipelines that only look at watermarks in it, or look values up.
    """

    name: str
    sources: list[Pipeline] = field(default_factory=list)
    targets: list[Pipeline] = field(default_factory=list)
    watched: list[Pipeline] = field(default_factory=list)

    @property
    def is_api(self) -> bool:
        """Whether it is an API, and no database."""
        return any(isinstance(pipeline.extract, ApiExtract | ApiChildren) for pipeline in self.sources)

    @property
    def variable(self) -> str:
        """The environment variable that names it."""
        return settings.url_variable(self.name)

    @property
    def block(self) -> str:
        """What a Prefect block for it is called."""
        return block_name(self.name)

    @property
    def users(self) -> str:
        """Who needs it."""
        told = [
            (f"read by {_names(self.sources)}", self.sources),
            (f"loaded by {_names(self.targets)}", self.targets),
            (f"looked at by {_names(self.watched)}", self.watched),
        ]
        return "; ".join(text for text, some in told if some)


def connections_of(pipelines: Sequence[Pipeline]) -> list[Connected]:
    """Every connection that one of them names, in the order of the names."""
    found: dict[str, Connected] = {}

    def called(name: str) -> Connected:
        return found.setdefault(name, Connected(name))

    for pipeline in pipelines:
        if not isinstance(pipeline.extract, RowsExtract):
            called(pipeline.extract.connection).sources.append(pipeline)
        called(pipeline.load.connection).targets.append(pipeline)
        others = {upstream.connection for upstream in pipeline.upstreams} - {pipeline.load.connection}
        others |= {getattr(lookup.extract, "connection", None) for lookup in pipeline.lookups}
        for other in others - {None}:
            called(str(other)).watched.append(pipeline)
    return [found[name] for name in sorted(found)]


def _names(pipelines: Sequence[Pipeline]) -> str:
    return ", ".join(sorted(pipeline.name for pipeline in pipelines))
