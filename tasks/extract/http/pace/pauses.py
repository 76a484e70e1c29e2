"""`pause`: how long an answer's headers ask not to be asked again."""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import http_sf

from tasks.extract.http.pace.retry import http_date, retry_after

_FAMILIES = ("x-ratelimit", "x-rate-limit", "ratelimit")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_EPOCH_FROM = 1e9
_EPOCH_MS_FROM = 1e12


def pause(headers: Mapping[str, str], now: datetime) -> float | None:
    """The seconds an answer asks to wait before the next request; None where it asks for nothing.

    `Retry-After` says so outright, and wins, as the drafts of the IETF on rate limits have it. Otherwise it is a quota
    that is used up, and when it begins anew; of several the last. Understood are

    - `X-RateLimit-Remaining` and `-Reset`, also spelled `X-Rate-Limit-…`, and the drafts' first form, `RateLimit-…`;
    - the drafts' structured field, `RateLimit: "default";r=0;t=30`, and the dictionary it was before,
      `RateLimit: limit=10, remaining=0, reset=30`.

    A reset is in seconds from now, or in seconds or milliseconds since 1970: a number from 1e9 on, which is the year
    2001, or a wait of 31 years, is taken for a time; from 1e12 on for one in milliseconds. What cannot be read asks for
    nothing.

    Args:
        headers: of the response.
        now: this machine's time, aware; for a source that sends no `Date`.
    """
    asked = retry_after(headers, now)
    if asked is not None:
        return asked
    here = http_date(headers.get("date", "")) or now
    return max((_seconds(reset, here) for remaining, reset in _quotas(headers) if remaining <= 0), default=None)


def _quotas(headers: Mapping[str, str]) -> Iterator[tuple[float, float]]:
    """What is left of each quota, and when it begins anew."""
    for family in _FAMILIES:
        pair = [headers.get(f"{family}-{name}", "").strip() for name in ("remaining", "reset")]
        if all(map(_NUMBER.fullmatch, pair)):
            yield float(pair[0]), float(pair[1])
    for remaining, reset in _structured(headers.get("ratelimit", "")):
        if _is_number(remaining) and _is_number(reset):
            yield float(remaining), float(reset)


def _structured(text: str) -> list[tuple[Any, Any]]:
    try:
        items = http_sf.parse(text.encode(), tltype="list")
    except ValueError:
        try:
            fields: Any = http_sf.parse(text.encode(), tltype="dictionary")
        except ValueError:
            return []
        return [tuple(_bare(fields.get(name)) for name in ("remaining", "reset"))]
    assert isinstance(items, list), "that is how it was parsed"
    return [(item[1].get("r"), item[1].get("t")) for item in items if isinstance(item, tuple)]


def _bare(item: Any) -> Any:
    """The value of an item, which comes with its parameters where it has any."""
    return item[0] if isinstance(item, tuple) else item


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _seconds(reset: float, here: datetime) -> float:
    if reset < _EPOCH_FROM:
        return reset
    return (reset / 1_000 if reset >= _EPOCH_MS_FROM else reset) - here.timestamp()
