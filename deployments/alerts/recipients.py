"""`Recipients`: the notification blocks that alerts go to, of whatever type."""

from typing import Any, Final
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient

from deployments.alerts.causes import Severity
from deployments.alerts.names import CRITICAL, EVERYTHING
from tasks.errors import ConfigError
from tasks.settings import alerts_url

_UNKNOWN: Final = UUID(int=0)


class Recipients:
    """The blocks of a server, found by their names, since their ids differ from server to server."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self._client = client
        self._known = self._read()

    @property
    def expected(self) -> bool:
        """Whether there is one, or the environment says what to make it of: then an alert can be delivered."""
        return EVERYTHING in self._known or alerts_url() is not None

    def known(self, severity: Severity) -> UUID:
        """Id of the block for alerts of that severity, or of none."""
        block = self._known.get(CRITICAL) if severity == "critical" else None
        return block or self._known.get(EVERYTHING, _UNKNOWN)

    def block(self, severity: Severity) -> UUID:
        """Id of the block for alerts of that severity, which may have been made only now.

        Raises:
            ConfigError: there is none.
        """
        if self.known(severity) == _UNKNOWN:
            self._known = self._read()
        if self.known(severity) == _UNKNOWN:
            raise ConfigError(
                f"There is no notification block {EVERYTHING!r} on the server. Make one in its UI, of any type that "
                "notifies, or set TIDEGATE_ALERTS_URL to an address that takes alerts as JSON, and deploy again."
            )
        return self.known(severity)

    def _read(self) -> dict[str, UUID]:
        found: dict[str, UUID] = {}
        for document in self._documents():
            name = document["name"]
            if name in found:
                raise ConfigError(
                    f"Two notification blocks are called {name!r}. Rename the one that is not for alerts."
                )
            found[name] = UUID(document["id"])
        return found

    def _documents(self) -> list[dict[str, Any]]:
        answer = self._client.request(
            "POST",
            "/block_documents/filter",
            json={
                "block_documents": {"name": {"any_": [EVERYTHING, CRITICAL]}},
                "block_schemas": {"block_capabilities": {"all_": ["notify"]}},
                "include_secrets": False,
            },
        )
        answer.raise_for_status()
        documents: list[dict[str, Any]] = answer.json()
        return documents
