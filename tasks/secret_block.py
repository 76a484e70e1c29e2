"""Prefect's `Secret` blocks by name. Prefect is imported only when there is a server to ask."""

import threading
import time
from typing import Any

from tasks import settings
from tasks.errors import ConfigError, SourceUnavailable

_FRESH = 60.0
"""For how many seconds a block is not read again: a walk of a thousand pages asks the server once a minute."""

_lock = threading.Lock()
_read: dict[str, tuple[float, str]] = {}


def read_block(name: str, fresh: bool = False) -> str | None:
    """The text in the block `name`, or None where there is no such block or no server.

    Args:
        name: of the block.
        fresh: ask the server, however short ago it was asked.

    Raises:
        SourceUnavailable: the server did not answer.
        ConfigError: the block holds something else than a text.
    """
    if not settings.api_server_known():
        return None
    with _lock:
        at, value = _read.get(name, (float("-inf"), ""))
        if not fresh and time.monotonic() - at < _FRESH:
            return value
        asked = time.monotonic()
        found = _load(name)
        if found is None:
            _read.pop(name, None)
        else:
            _read[name] = (asked, found)
        return found


def write_block(name: str, value: str) -> None:
    """Have the block `name` hold `value`.

    Raises:
        SourceUnavailable: the server did not take it.
    """
    with _lock:
        try:
            _blocks()(value=value).save(name, overwrite=True, _sync=True)
        except Exception as error:
            # Nothing of the original: what the server says of a block it refuses may quote it.
            raise SourceUnavailable(
                f"The Prefect server did not take the new value of the Secret block {name!r} ({type(error).__name__}). "
                "It is kept under TIDEGATE_HOME of this machine, and used there until the block has it."
            ) from None
        _read[name] = (time.monotonic(), value)


def _load(name: str) -> str | None:
    from prefect.exceptions import ObjectNotFound

    try:
        block = _blocks().load(name, _sync=True)
    except Exception as error:
        # Prefect wraps the missing block in a ValueError, which a block that does not validate is, too.
        if isinstance(error, ObjectNotFound) or isinstance(error.__cause__, ObjectNotFound):
            return None
        raise SourceUnavailable(
            f"The Secret block {name!r} could not be read from the Prefect server ({type(error).__name__}). Check that "
            "the server is up, and that PREFECT_API_URL and PREFECT_API_KEY are right."
        ) from None
    # Not `block.get()`, which reads a text as JSON where it can: the token 1e5 would become a number.
    value = block.value.get_secret_value()
    if not isinstance(value, str):
        raise ConfigError(
            f"The Secret block {name!r} holds {type(value).__name__}, not a text. Save the secret as a text."
        )
    return value


def _blocks() -> Any:
    """The type of the blocks; Prefect's own types do not tell that `_sync` makes its methods synchronous."""
    from prefect.blocks.system import Secret

    return Secret
