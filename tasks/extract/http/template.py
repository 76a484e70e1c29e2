"""`{name}` in a request's path, parameters and body, filled from a record of another request.

A place is a word in braces without blanks; `{{name}}` stands for the text `{name}` itself.
"""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from tasks.extract.http.answers import described

_PLACE = re.compile(r"\{\{(\w+)\}\}|\{(\w+)\}")
_SLASHES = re.compile(r"[/\\]")
_ABSENT = object()


class Unfit(Exception):
    """A record has no value that a request can be made of."""


def places(template: object) -> Iterator[str]:
    """The names that `template` has places for: a text, or texts in lists and objects, again and again."""
    if isinstance(template, str):
        yield from (found[2] for found in _PLACE.finditer(template) if found[2])
    elif isinstance(template, Mapping):
        for value in template.values():
            yield from places(value)
    elif isinstance(template, list | tuple):
        for value in template:
            yield from places(value)


def filled(template: Any, record: Mapping[str, object]) -> Any:
    """`template` with the values of `record`; a text that is nothing but one place becomes the value itself.

    Raises:
        Unfit: a value is missing, or of a kind that has no text.
    """
    if isinstance(template, str):
        whole = _PLACE.fullmatch(template)
        if whole and whole[2]:
            as_text(record, whole[2])
            return _whole_number(record[whole[2]])
        return _PLACE.sub(lambda found: f"{{{found[1]}}}" if found[1] else as_text(record, found[2]), template)
    if isinstance(template, Mapping):
        return {name: filled(value, record) for name, value in template.items()}
    if isinstance(template, list | tuple):
        return [filled(value, record) for value in template]
    return template


def filled_path(template: str, record: Mapping[str, object]) -> str:
    """A path with the values of `record`, each percent-encoded so that it stays within its segment.

    Raises:
        Unfit: a value is missing or of a kind that has no text, or leads to another path however it is written.
    """
    return _PLACE.sub(lambda found: quote(f"{{{found[1]}}}") if found[1] else _segment(record, found[2]), template)


def as_text(record: Mapping[str, object], name: str) -> str:
    """The value of `name` as a request has it.

    Raises:
        Unfit: there is none, or it is of a kind that has no text.
    """
    value = _whole_number(record.get(name, _ABSENT))
    if value is _ABSENT:
        raise Unfit(f"it has no {name!r}")
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, dict | list):
        raise Unfit(f"its {name!r} is {described(value)}")
    text = str(value)
    if not text or "\0" in text:
        raise Unfit(f"its {name!r} is {'empty' if not text else 'a text with a NUL in it'}")
    return text


def _segment(record: Mapping[str, object], name: str) -> str:
    text = as_text(record, name)
    # Encoded or not, servers and proxies take dots for the way to another path.
    if {".", ".."} & set(_SLASHES.split(text)):
        raise Unfit(f"its {name!r}, {text!r}, leads to another path")
    return quote(text, safe="")


def _whole_number(value: object) -> object:
    """A number without a fraction as the integer that it is, JSON knows no difference; another decimal as its text."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else str(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value
