"""Secrets, and rates that are kept together: what declarations call by a name, and the server has to have."""

from collections.abc import Iterator, Sequence, Set
from typing import TYPE_CHECKING

from deployments.deploy.needs import Needs
from deployments.doctor.finding import Finding
from tasks import settings
from tasks.errors import ConfigError
from tasks.pipeline import Pipeline

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


def examine_named(client: "SyncPrefectClient", pipelines: Sequence[Pipeline], blocks: Set[str]) -> Iterator[Finding]:
    """See above; no secret is read.

    Args:
        client: of the server.
        pipelines: whose declarations.
        blocks: the names of the blocks that the server has.
    """
    try:
        needs = Needs.of(pipelines)
    except ConfigError as error:
        yield Finding("fail", "rates", str(error), "Declare it alike wherever it is shared.")
        return
    for block, secret in sorted(needs.secrets.items()):
        about, users = f"secret {secret.name}", ", ".join(needs.secret_users[block])
        variable = settings.secret_variable(secret.name)
        if block in blocks:
            yield Finding("ok", about, f"the block {block!r} holds it; needed by {users}.")
        elif settings.secret(secret.name) is not None:
            yield Finding("ok", about, f"{variable} holds it here, and a worker needs that as well; needed by {users}.")
        else:
            yield Finding(
                "fail", about, f"there is neither a block {block!r} nor {variable}, so {users} cannot log in.",
                f"Set {variable}, and `tidegate deploy` makes its block.",
            )  # fmt: skip
    limits = {limit.name: limit for limit in client.read_global_concurrency_limits(limit=200)} if needs.rates else {}
    for name in sorted(needs.rates):
        if name not in limits:
            yield Finding(
                "fail", f"limit {name}", "it is not on the server, so that runs fail.", "Run `tidegate deploy`."
            )
        elif not limits[name].active:
            yield Finding(
                "warn", f"limit {name}", "it is not active, so that nothing keeps the rate between runs.",
                f"prefect gcl enable {name}, if nobody disabled it on purpose.",
            )  # fmt: skip
        else:
            yield Finding("ok", f"limit {name}", "it is there and active.")
