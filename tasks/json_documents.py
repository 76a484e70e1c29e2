"""JSON documents as text: which text is one, and which PostgreSQL's `jsonb` cannot hold."""

import json
import re
from decimal import Decimal
from typing import Any

import orjson

_SUSPICIOUS = re.compile(r"\\u0000|[eE][+-]?[0-9]{4}")
"""In every document that `jsonb` cannot hold, and in few others."""

_LARGEST_EXPONENT = 16_383


def is_json(text: str) -> bool:
    """Whether `text` is one JSON value, without NaN and infinity, which JSON does not have."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def fits_jsonb(text: str) -> bool:
    """Whether `jsonb` can hold a JSON document: no NUL in its texts, and no number of tens of thousands of digits."""
    if _SUSPICIOUS.search(text) is None:
        return True
    try:
        return _fits(json.loads(text, parse_float=Decimal))
    except (RecursionError, ValueError):
        return False


def _fits(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" not in value
    if isinstance(value, Decimal):
        return value.is_finite() and abs(int(value.as_tuple().exponent)) <= _LARGEST_EXPONENT
    if isinstance(value, dict):
        return all(_fits(key) and _fits(member) for key, member in value.items())
    return all(map(_fits, value)) if isinstance(value, list) else True
