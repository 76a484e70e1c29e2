"""Every error tidegate raises, grouped by what the caller does next.

::

    TidegateError
    ├── RetriableError              try the same window again, as a new attempt
    │   ├── SourceUnavailable         the source did not answer, or broke off
    │   └── TargetUnavailable         the target database did not answer, or broke off
    ├── FatalError                  a person has to change something first
    │   ├── ConfigError               the declaration or the environment is wrong
    │   ├── NotComparable             a source and its target cannot be compared, or not in this way
    │   ├── SourceError               the source refused for good (a 404, a missing table)
    │   ├── TargetError               the target refused for good
    │   ├── ContractError             a column or a transform is broken, not a row
    │   ├── ConservationError         the counts of a window do not add up: a bug, nothing was written
    │   └── HistoryError              versions of a key overlap or leave a gap: nothing was written
    ├── GraphFailed                 some pipelines of a graph failed; the others were carried out
    ├── WatchFailed                 some pipelines could not be measured; the others were
    ├── ReplayFailed                dead letters of some pipelines could not be replayed; those of the others were
    ├── RetentionFailed             letters of some pipelines are kept longer than declared; not those of the others
    ├── BackfillFailed              some windows of a backfill could not be loaded; the others were
    ├── ReconcileFailed             some targets are not what their sources say, or could not be compared
    └── Refusal                     nothing is broken, and nothing was written, on purpose
        ├── Fenced                    another attempt took this window, or moved the watermark
        ├── Superseded                data read later than this has already been committed
        └── GuardRefused              an empty or shrunken extract, or too many bad rows

A message names the pipeline, the window where there is one, the value that was wrong and the remedy.
Foreign exceptions are wrapped once, at the boundary where they appear, decided by code or type and never
by their text.
"""

import re
from collections.abc import Iterable
from urllib.parse import unquote

_URL_PASSWORD = re.compile(r"(?P<head>[a-zA-Z][\w+.-]*://[^:/@\s]*:)[^@\s/]+@")
_KEY_VALUE = re.compile(
    r"(?i)(?P<head>(?:\b|_)(?:password|passwd|pwd|secret|token|api_?key|access_?key|authorization)\b[\"']?\s*[=:]\s*[\"']?)"
    r"(?:(?:bearer|basic)\s+)?[^\s\"'&,;}]+"
)
_MASK = "***"

_secrets: set[str] = set()


def remember_secret(value: str) -> None:
    """Have `redact` mask `value` from now on, wherever it appears in this process.

    Args:
        value: the secret as it is sent; values under four characters are left out, since masking them
            would destroy ordinary text.
    """
    if len(value) >= 4:
        _secrets.add(value)


def is_secret(value: str) -> bool:
    """Whether `value` is a remembered secret."""
    return value in _secrets


def holds_secret(text: str) -> bool:
    """Whether a remembered secret is anywhere in `text`, percent-encoded or not."""
    plain = unquote(text)
    return any(secret in text or secret in plain for secret in _secrets)


def redact(text: str) -> str:
    """`text` without remembered secrets, passwords in URLs, and values that follow a telling name."""
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, _MASK)
    text = _URL_PASSWORD.sub(rf"\g<head>{_MASK}@", text)
    return _KEY_VALUE.sub(rf"\g<head>{_MASK}", text)


class TidegateError(Exception):
    """The root. Its text never holds a secret."""

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))


class RetriableError(TidegateError):
    """Worth another attempt after a pause."""


class SourceUnavailable(RetriableError):
    """The source did not answer, or broke off half way."""


class TargetUnavailable(RetriableError):
    """The target database did not answer, or broke off half way."""


class FatalError(TidegateError):
    """Another attempt would end the same way."""


class ConfigError(FatalError):
    """The declaration, a parameter or the environment is wrong."""


class NotComparable(FatalError):
    """Source and target of a pipeline cannot be compared, or not in the way that was asked for."""


class SourceError(FatalError):
    """The source refused for good."""


class TargetError(FatalError):
    """The target database refused for good."""


class ContractError(FatalError):
    """A whole column, a check or a transform is broken, so that no row can be judged."""


class ConservationError(FatalError):
    """The outcomes of a window do not add up to what was extracted. The commit was rolled back."""


class HistoryError(FatalError):
    """The versions of a key would overlap, leave a gap, or be current twice. The commit was rolled back."""


class GraphFailed(TidegateError):
    """Some pipelines of a graph failed, and all that does not depend on them was carried out. Run it again."""


class WatchFailed(TidegateError):
    """How some pipelines are could not be measured, and all others were. See to what did not answer."""


class BackfillFailed(TidegateError):
    """Some windows of a backfill could not be loaded; the others were. Asked again, it goes on with what is left."""


class ReplayFailed(TidegateError):
    """Dead letters of some pipelines could not be replayed; those of the others were."""


class RetentionFailed(TidegateError):
    """Dead letters of some pipelines could not be seen to; those of the others were. Run it again."""


class ReconcileFailed(TidegateError):
    """Some targets are not what their sources say, or could not be compared; all others are right."""


class Refusal(TidegateError):
    """Nothing is broken; tidegate declined to write."""


class Fenced(Refusal):
    """Another attempt took over this window, or moved the watermark it started from."""


class Superseded(Refusal):
    """An overlapping window that was read later is already in the target."""


class GuardRefused(Refusal):
    """The extract is empty, shrank too much, or holds too many bad rows."""


def one_of(names: Iterable[str]) -> str:
    """`names` as they read in a message: ``'a', 'b' or 'c'``."""
    quoted = [repr(name) for name in names]
    if len(quoted) < 2:
        return "".join(quoted) or "none"
    return f"{', '.join(quoted[:-1])} or {quoted[-1]}"
