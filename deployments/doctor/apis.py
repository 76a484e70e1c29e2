"""An API: whether it answers, whether it lets us in, and what time it has."""

from collections.abc import Iterator
from datetime import timedelta
from email.utils import parsedate_to_datetime

import httpx

from deployments.doctor.connections import Connected
from deployments.doctor.databases import utc_now
from deployments.doctor.finding import Finding
from tasks import settings
from tasks.errors import TidegateError
from tasks.extract.api import ApiExtract
from tasks.window import Window, to_utc

_SECONDS = 10.0
_SKEW = timedelta(seconds=5)


def examine_api(one: Connected) -> Iterator[Finding]:
    """See above; a page that holds no record is asked for, with the credentials that are declared."""
    about = f"connection {one.name}"
    text = settings.connection_url(one.name)
    if text is None:
        yield Finding(
            "fail", about, f"{one.variable} is not set ({one.users}).", f"Set {one.variable} to its base URL."
        )
        return
    url = httpx.URL(text)
    shown = str(url.copy_with(userinfo=b"", query=None))
    before = utc_now()
    try:
        answer = httpx.get(url.copy_with(userinfo=b""), timeout=_SECONDS, follow_redirects=False)
    except httpx.HTTPError as error:
        yield Finding(
            "fail", about, f"{shown} does not answer: {error or type(error).__name__} ({one.users}).",
            f"Check {one.variable}, the network, and whether the API is up.",
        )  # fmt: skip
        return
    yield Finding("ok", about, f"{shown} answers with HTTP {answer.status_code}; {one.users}.")
    if "date" in answer.headers:
        # Whole seconds, cut.
        skew = to_utc(parsedate_to_datetime(answer.headers["date"])) + timedelta(seconds=0.5) - before
        if abs(skew) > _SKEW + (utc_now() - before):
            yield Finding(
                "warn", f"clock of {one.name}", f"it differs from this machine's by {skew.total_seconds():+.0f} s.",
                "Where the API's own clock says what is new, declare it (ApiClock), or a lag.",
            )  # fmt: skip
    for pipeline in one.sources:
        extract = pipeline.extract
        if not isinstance(extract, ApiExtract) or extract.cursor is None:
            continue
        try:
            bound = extract.bound()
            assert bound is not None, "an extract with a cursor has a bound"
            next(iter(extract.batches(Window(bound - timedelta(seconds=1), bound))), None)
        except TidegateError as error:
            yield Finding(
                "fail", f"source of {pipeline.name}", f"{type(error).__name__}: {error}",
                "Check its credentials and its path.",
            )  # fmt: skip
            continue
        yield Finding("ok", f"source of {pipeline.name}", f"{extract.dataset} can be read.")
