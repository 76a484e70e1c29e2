"""`take_shared`: a rate that runs on several machines keep together, by a global concurrency limit of Prefect's."""

from tasks import settings
from tasks.errors import ConfigError, SourceUnavailable


def take_shared(name: str, create: str) -> None:
    """Wait until the limit called `name` lets one more request through.

    A limit that somebody has disabled on the server lets everything through; that is what disabling is for.

    Args:
        name: of a global concurrency limit with a slot decay.
        create: the command that creates it, for the message.

    Raises:
        ConfigError: no server is named, or it has no such limit, or that has no slot decay.
        SourceUnavailable: the server did not answer.
    """
    if not settings.api_server_known():
        raise ConfigError(
            f"The rate shared as {name!r} is kept by a Prefect server, and none is named. Set PREFECT_API_URL, or "
            "leave out shared=…."
        )
    import httpx
    from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
    from prefect.concurrency.sync import rate_limit

    try:
        rate_limit(name, occupy=1, strict=True)
    except ConcurrencySlotAcquisitionError as error:
        cause = error.__cause__
        # Prefect has one error for everything; only that of an absent limit has no cause.
        if cause is None:
            raise ConfigError(
                f"The Prefect server has no global concurrency limit {name!r}, by which a rate is shared. Create it:\n"
                f"{create}"
            ) from error
        if isinstance(cause, httpx.HTTPStatusError) and cause.response.status_code < 500:
            raise ConfigError(
                f"The global concurrency limit {name!r} cannot be used as a rate: {error}. Delete it, and create it "
                f"with a slot decay:\n{create}"
            ) from error
        raise SourceUnavailable(
            f"The Prefect server did not say whether the rate shared as {name!r} allows another request: {cause!r}."
        ) from error
