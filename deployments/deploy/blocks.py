"""Blocks: connections and secrets that pipelines name, and the block `tidegate-alerts` that notifications go to.

A value comes from the environment of whoever deploys. Without one there, a block that is on the server stays as it is.
No value is ever shown: an update says which field differs, and an error holds nothing of what the server answered.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prefect.client.schemas.actions import BlockDocumentUpdate
from prefect.exceptions import ObjectNotFound
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from deployments.alerts.names import EVERYTHING
from deployments.change import Change
from deployments.deploy.failure import DeployFailed
from deployments.deploy.needs import Needs
from deployments.deploy.pages import everything
from tasks import settings
from tasks.connections import block_name
from tasks.errors import ConfigError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import BlockDocument

KIND = "block"

CONNECTOR, SECRET, WEBHOOK = "sqlalchemy-connector", "secret", "custom-webhook"

_OUR_ADDRESS = "{{ url }}"
"""Tells a webhook block of ours: the address, which may hold a token, is not in `url`, but among the secrets."""


@dataclass(frozen=True)
class WantedBlock:
    """A block whose value is known here.

    Attributes:
        type: slug of its type.
        name: of the block.
        data: the fields that are decided here, and their values.
        kept: an existing one stays as it is, whatever it holds.
    """

    type: str
    name: str
    data: Mapping[str, Any] = field(repr=False)
    kept: bool = False

    @property
    def label(self) -> str:
        """How `prefect block inspect` calls it."""
        return f"{self.type}/{self.name}"

    def save(self) -> None:
        """Make it on the server that Prefect's settings name."""
        block: Any = _types()[self.type](**self.data)
        block.save(self.name, overwrite=True, _sync=True)


def wanted(needs: Needs) -> list[WantedBlock]:
    """The blocks whose values the environment of this process gives.

    Raises:
        ConfigError: a URL there is none.
    """
    found = []
    for connection in sorted(needs.databases):
        url = settings.connection_url(connection)
        if url is not None:
            data = {"connection_info": _connection_info(settings.url_variable(connection), url)}
            found.append(WantedBlock(CONNECTOR, block_name(connection), data))
    for name, secret in sorted(needs.secrets.items()):
        value = settings.secret(secret.name)
        if value is not None:
            # A source that rotates a secret has put its own value into the block; ours may be used up long ago.
            found.append(WantedBlock(SECRET, name, {"value": value}, kept=name in needs.rotated))
    alerts = settings.alerts_url()
    if alerts is not None:
        found.append(WantedBlock(WEBHOOK, EVERYTHING, _webhook(alerts)))
    return found


def read(client: "SyncPrefectClient", block_type: str, name: str) -> "BlockDocument | None":
    """A block with its secrets, or None."""
    try:
        return client.read_block_document_by_name(name, block_type)
    except ObjectNotFound:
        return None


def alerts_block(client: "SyncPrefectClient") -> "BlockDocument | None":
    """The block `tidegate-alerts`, of any type that can notify, or None."""
    for document in everything(client.read_block_documents, include_secrets=False):
        schema = document.block_schema
        if document.name == EVERYTHING and schema is not None and "notify" in schema.capabilities:
            return document
    return None


def changes(client: "SyncPrefectClient", blocks: list[WantedBlock]) -> list[Change]:
    """What makes the server hold `blocks`."""
    return [change for block in blocks for change in _changes(client, block)]


def _changes(client: "SyncPrefectClient", block: WantedBlock) -> list[Change]:
    def create() -> None:
        _silently(block, block.save)

    def update() -> None:
        document = read(client, block.type, block.name)
        if document is None:
            return create()
        merged = BlockDocumentUpdate(
            block_schema_id=document.block_schema_id, data=dict(block.data), merge_existing_data=True
        )
        _silently(block, lambda: client.update_block_document(document.id, merged))

    if block.type == WEBHOOK and _made_by_a_person(client):
        return []
    document = read(client, block.type, block.name)
    if document is None:
        return [Change("create", KIND, block.label, create)]
    differs = [name for name, value in block.data.items() if not _same(name, document.data.get(name), value)]
    return [Change("update", KIND, block.label, update, ", ".join(differs))] if differs and not block.kept else []


def _made_by_a_person(client: "SyncPrefectClient") -> bool:
    document = alerts_block(client)
    return document is not None and document.data.get("url") != _OUR_ADDRESS


def _silently(block: WantedBlock, save: Any) -> None:
    try:
        save()
    except Exception as error:
        # Nothing of the original: what the server says of a block it refuses may quote it.
        raise DeployFailed(f"The block {block.label} could not be written ({type(error).__name__}).") from None


def _same(name: str, there: Any, value: Any) -> bool:
    if name == "connection_info" and there is not None:
        return bool(_rendered(there) == _rendered(value))
    return bool(there == value)


def _rendered(connection_info: Any) -> Any:
    from prefect_sqlalchemy import ConnectionComponents

    if isinstance(connection_info, str):
        return make_url(connection_info)
    return ConnectionComponents(**connection_info).create_url()


def _connection_info(variable: str, text: str) -> Any:
    """A URL as the block holds it: one with a password in parts, since only so Prefect masks it to who reads it."""
    try:
        url = make_url(text)
    except ArgumentError:
        raise ConfigError(
            f"{variable} is not a database URL. Write it as postgresql+psycopg://user:password@host:5432/database."
        ) from None
    if url.password is None:
        return text
    several = sorted(name for name, value in url.query.items() if not isinstance(value, str))
    if several:
        raise ConfigError(f"{variable} gives {several[0]!r} more than once, which a block cannot hold. Give it once.")
    parts = {
        "driver": url.drivername,
        "username": url.username,
        "password": str(url.password),
        "host": url.host,
        "port": str(url.port) if url.port is not None else None,
        "database": url.database,
        "query": dict(url.query) or None,
    }
    return {name: value for name, value in parts.items() if value is not None}


def _webhook(address: str) -> dict[str, Any]:
    return {
        "name": EVERYTHING,
        "url": _OUR_ADDRESS,
        "secrets": {"url": address},
        "json_data": {"subject": "{{ subject }}", "body": "{{ body }}"},
    }


def _types() -> dict[str, Any]:
    from prefect.blocks.notifications import CustomWebhookNotificationBlock
    from prefect.blocks.system import Secret
    from prefect_sqlalchemy import SqlAlchemyConnector

    return {CONNECTOR: SqlAlchemyConnector, SECRET: Secret, WEBHOOK: CustomWebhookNotificationBlock}
