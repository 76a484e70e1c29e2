"""`Secret`: the name of a value that no declaration holds.

It is looked up when it is first needed, in this order:

1. the environment variable `TIDEGATE_SECRET_<NAME>`,
2. the Prefect `Secret` block `<name>`, with hyphens for underscores (when `PREFECT_API_URL` is set).

A source may replace a secret, as OAuth does with single-use refresh tokens. The new value goes to where the old one
came from: into the block, or, since nobody can write to an environment, into a file of mode 0600 under `TIDEGATE_HOME`.
That file then wins over the environment, until the environment holds another value than the one it was made for: then
a person has set a new one.
"""

import base64
import hashlib
import hmac
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

from tasks import settings
from tasks.errors import ConfigError, remember_secret
from tasks.kept import KeptFile
from tasks.secret_block import read_block, write_block

_NAME = re.compile(r"[A-Za-z0-9]+([_-][A-Za-z0-9]+)*")


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """A secret by its name. It can be declared, compared, logged and pickled: its value is not in it.

    Attributes:
        name: letters, digits, and single hyphens or underscores, which are the same.

    Raises:
        ConfigError: a name that no variable and no block can have.
    """

    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            # Not quoted: who writes the value where the name belongs should not find it in a log.
            raise ConfigError(
                f"A Secret's name is made of letters, digits, - and _; one of {len(self.name)} characters is not. "
                "Write the name under which the secret is looked up, not its value."
            )

    def __repr__(self) -> str:
        return f"Secret({self.name!r})"

    @property
    def block(self) -> str:
        """The name of its Prefect block."""
        return self.name.lower().replace("_", "-")

    @property
    def places(self) -> str:
        """Where it is looked up, for a message."""
        return (
            f"the environment variable {settings.secret_variable(self.name)} or the Prefect Secret block {self.block!r}"
        )

    def value(self, fresh: bool = False) -> str:
        """The value, masked in messages and logs from now on.

        Args:
            fresh: ask the Prefect server again, even if that was done within the last minute.

        Raises:
            ConfigError: it is in neither place, or what is there is no text.
            SourceUnavailable: the Prefect server did not answer.
        """
        declared, _ = self._declared(fresh)
        kept = self._file.read()
        value: str = kept["value"] if kept is not None and has_digest(declared, kept["replaced"]) else declared
        remember_forms(value)
        return value

    def store(self, value: str) -> None:
        """Have `value` take the place of the current one, for this and every later process.

        When this returns, it is on disk or with the Prefect server. Call it under `locked`.

        Raises:
            ConfigError: it cannot be written.
            SourceUnavailable: the Prefect server did not take it; it is on disk, and used from there on this machine.
        """
        remember_forms(value)
        declared, from_block = self._declared(fresh=True)
        # On disk even if it belongs into a block: the server may be away, and this value cannot be had again.
        self._file.write({"value": value, "replaced": digest(declared)})
        if from_block:
            write_block(self.block, value)
            self._file.remove()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep out every other thread and process of this machine that wants to replace this secret.

        Raises:
            ConfigError: a new value could not be kept: there is no place to write.
        """
        with self._file.locked():
            yield

    @property
    def _file(self) -> KeptFile:
        return KeptFile(self.block)

    def _declared(self, fresh: bool) -> tuple[str, bool]:
        """The value that a person has set, and whether it is in a block."""
        value = settings.secret(self.name)
        if value is not None:
            return value, False
        value = read_block(self.block, fresh)
        if not value:
            raise ConfigError(f"The secret {self.name!r} has no value. Set {self.places}.")
        return value, True


def remember_forms(value: str) -> None:
    """Have `value` masked from now on, as it is and as it is written in URLs, forms, JSON, base64 and a `repr`."""
    # Twice, for an error in JSON that quotes a request in JSON.
    quoted = [json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]]
    quoted += [json.dumps(form, ensure_ascii=False)[1:-1] for form in quoted]
    # A surrogate is no text, but a source can send one.
    data = value.encode("utf-8", "surrogatepass")
    encoded = [base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode()]
    for form in (value, repr(value)[1:-1], quote(data), quote(data, safe=""), quote_plus(data), *quoted, *encoded):
        remember_secret(form)


def digest(value: str) -> str:
    """A salted fingerprint: it tells whether a value is the same, and not what it is."""
    return _salted(value, os.urandom(16).hex())


def has_digest(value: str, of: str) -> bool:
    """Whether `digest` made `of` from `value`."""
    return hmac.compare_digest(_salted(value, of.partition(":")[0]), of)


def _salted(value: str, salt: str) -> str:
    return f"{salt}:{hashlib.sha256(f'{salt}:{value}'.encode()).hexdigest()}"
