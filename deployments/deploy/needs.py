"""`Needs`: what the declarations of some pipelines name, and somebody else has to have: connections, secrets, rates."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from tasks.errors import ConfigError
from tasks.extract.api import ApiExtract
from tasks.extract.http.auth.oauth import RefreshToken
from tasks.extract.http.pace.rate import RateLimit
from tasks.pipeline import Pipeline
from tasks.secret import Secret


@dataclass
class Needs:
    """What some pipelines need, and the names of those that do.

    Attributes:
        databases: connections that are databases.
        apis: connections that are APIs.
        secrets: by their block's name.
        rotated: blocks of those secrets that a source replaces while it is used.
        rates: rates kept together by a global concurrency limit of that name.
    """

    databases: dict[str, list[str]] = field(default_factory=dict)
    apis: dict[str, list[str]] = field(default_factory=dict)
    secrets: dict[str, Secret] = field(default_factory=dict)
    secret_users: dict[str, list[str]] = field(default_factory=dict)
    rotated: set[str] = field(default_factory=set)
    rates: dict[str, RateLimit] = field(default_factory=dict)

    @classmethod
    def of(cls, pipelines: Iterable[Pipeline]) -> "Needs":
        """What `pipelines` need together.

        Raises:
            ConfigError: two of them share a rate, and declare it differently.
        """
        needs = cls()
        for pipeline in pipelines:
            for part in parts(pipeline):
                needs._add(pipeline.name, part)
        return needs

    def _add(self, user: str, part: object) -> None:
        connection = getattr(part, "connection", None)
        if isinstance(connection, str):
            named = self.apis if isinstance(part, ApiExtract) else self.databases
            _use(named, connection, user)
        if isinstance(part, Secret):
            self.secrets[part.block] = part
            _use(self.secret_users, part.block, user)
        if isinstance(part, RefreshToken):
            self.rotated.add(part.refresh_token.block)
        if isinstance(part, RateLimit) and part.shared is not None:
            known = self.rates.setdefault(part.shared, part)
            if (known.spacing, known.burst) != (part.spacing, part.burst):
                raise ConfigError(
                    f"{user}: the rate shared as {part.shared!r} is {part.requests} in {part.per}, bursts of "
                    f"{part.burst}; another pipeline says {known.requests} in {known.per}, bursts of {known.burst}. "
                    "One limit keeps it for all: declare it alike, or share it under another name."
                )


def _use(named: dict[str, list[str]], name: str, user: str) -> None:
    users = named.setdefault(name, [])
    if user not in users:
        users.append(user)


def parts(declared: Any) -> Iterator[Any]:
    """A declaration and every declaration in it, at whatever depth; a class is none."""
    if isinstance(declared, Mapping):
        for value in declared.values():
            yield from parts(value)
    elif isinstance(declared, list | tuple | set | frozenset):
        for value in declared:
            yield from parts(value)
    elif is_dataclass(declared) and not isinstance(declared, type):
        yield declared
        for one in fields(declared):
            yield from parts(getattr(declared, one.name, None))
