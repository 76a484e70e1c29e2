"""`Masking`: columns whose values are in the source and in the target, and nowhere else for anybody to see.

Two things keep them out. What is written down of a row names its columns, and `Masking` puts `MASK` for their values.
What an error says is a text, in which nobody finds a value again: inside of `hiding`, what quotes rows, or repeats what
somebody else's error said of them, says `MASK` or names the place in the code instead.
"""

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from tasks.channel import ChannelClosed
from tasks.errors import FatalError, TidegateError, redact

MASK = "***"
"""Stands for a value, whatever its type; NULL stays NULL."""

MASKED_TYPE = "masked"
"""Stands for the type of a masked field, so that nobody takes its mark for a value."""

_LEAST = 4
"""A text of fewer characters is found in too many others by chance."""

Result = TypeVar("Result")

_hiding: ContextVar[bool] = ContextVar("hiding", default=False)


@dataclass(frozen=True)
class Masking:
    """The columns of a pipeline whose values are masked, raw ones and those of the contract alike.

    Attributes:
        columns: their names.
    """

    columns: frozenset[str] = frozenset()

    @classmethod
    def of(cls, columns: Iterable[str]) -> "Masking":
        """The masking of `columns`."""
        return cls(frozenset(columns))

    def __bool__(self) -> bool:
        return bool(self.columns)

    def record(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """`record` without the values of masked columns, nor of fields of that name inside of others."""
        return {name: _mark(value) if name in self.columns else self._inside(value) for name, value in record.items()}

    def types(self, types: Mapping[str, str]) -> dict[str, str]:
        """The types of a record's columns, of which the masked ones have none."""
        return {name: MASKED_TYPE if name in self.columns else kind for name, kind in types.items()}

    def reasons(self, reasons: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """`reasons` without the values of masked columns.

        A value of another column is masked too, where it holds one of them as a text: a column that was renamed.

        Args:
            reasons: `rule`, `column` and `value` of each rule that a row broke.
            record: its raw record, as it came.
        """
        if not self:
            return [dict(reason) for reason in reasons]
        known = [value for value in self._values(record) if len(value) >= _LEAST]
        return [{**reason, "value": self._reason(reason, known)} for reason in reasons]

    def _reason(self, reason: Mapping[str, Any], known: Sequence[str]) -> Any:
        value = reason["value"]
        if value is None:
            return None
        if reason["column"] in self.columns:
            return MASK
        if reason["rule"] == "transform":
            # An exception says what it likes of the row; what kind it was tells nothing.
            return str(value).partition(": ")[0]
        value = self._inside(value)
        if isinstance(value, Mapping):
            return {name: MASK if name in self.columns and one is not None else _unlike(one, known)
                    for name, one in value.items()}  # fmt: skip
        return _unlike(value, known)

    def _inside(self, value: Any) -> Any:
        """`value` without what is in its fields that bear a masked column's name."""
        if isinstance(value, Mapping):
            return self.record(value)
        if isinstance(value, list | tuple):
            return [self._inside(one) for one in value]
        return value

    def _values(self, value: Any, *, masked: bool = False) -> Iterator[str]:
        """Every masked value of a record, as a text."""
        if isinstance(value, Mapping):
            for name, one in value.items():
                yield from self._values(one, masked=masked or name in self.columns)
        elif isinstance(value, list | tuple):
            for one in value:
                yield from self._values(one, masked=masked)
        elif masked and value is not None:
            yield str(value)


def has_field(fields: Iterable[pa.Field], name: str) -> bool:
    """Whether one of `fields`, or one inside of them, is called so; nobody knows what is in a text."""
    return any(
        field.name == name or (pa.types.is_nested(field.type) and has_field(_inner(field.type), name))
        for field in fields
    )


def _inner(kind: pa.DataType) -> list[pa.Field]:
    return [kind.field(place) for place in range(kind.num_fields)]


NO_MASKING = Masking()
"""Of a pipeline that has nothing to hide."""


def _mark(value: Any) -> Any:
    return None if value is None else MASK


def _unlike(value: Any, known: Sequence[str]) -> Any:
    text = str(value)
    return MASK if any(one in text for one in known) else value


@contextmanager
def hiding(masking: Masking) -> Iterator[None]:
    """Have what is said of rows in this block say no value, where there are masked columns."""
    before = _hiding.set(_hiding.get() or bool(masking))
    try:
        yield
    finally:
        _hiding.reset(before)


def shown(value: object) -> str:
    """A row's value as a message quotes it."""
    return MASK if _hiding.get() else repr(value)


def said(text: object) -> str:
    """What somebody else has said of rows, or the rows themselves, as a message repeats it."""
    return f"{MASK} (not shown: the pipeline has masked columns)" if _hiding.get() else str(text)


def repeated(error: object) -> str:
    """What a database's driver says; where values are hidden its kind and code, and whom it is about by name."""
    if not _hiding.get():
        return str(error)
    arguments = getattr(error, "args", ())
    code = getattr(error, "sqlstate", None) or getattr(error, "sqlite_errorname", None)
    code = code or (arguments[0] if arguments and isinstance(arguments[0], int) else None)
    names = [
        getattr(getattr(error, "diag", None), part, None) for part in ("table_name", "column_name", "constraint_name")
    ]
    about = [str(one) for one in (code, *names) if one is not None]
    return " ".join([type(error).__name__, *about, "(not shown: the pipeline has masked columns)"])


def told(error: BaseException) -> str:
    """An error as one line; of one that is not ours only the kind and the place, where values are hidden."""
    if not _hiding.get() or isinstance(error, TidegateError):
        return f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {frames[-1].name}, line {frames[-1].lineno} of {Path(frames[-1].filename).name}" if frames else ""
    return f"{type(error).__name__}{place}"


def speaking_plainly(step: Callable[[], Result]) -> Callable[[], Result]:
    """`step`, whose error tells no value where they are hidden: it comes alone, without the error that it came of."""

    def guarded() -> Result:
        failure: TidegateError
        try:
            return step()
        except ChannelClosed:
            # Another step's error is the one to tell, and is known from this.
            raise
        except TidegateError as error:
            if not _hiding.get():
                raise
            failure = error
        except Exception as error:
            if not _hiding.get():
                raise
            failure = FatalError(
                f"{redact(told(error))}. What it says is not shown, since the pipeline has masked columns."
            )
        # Raised out here, no other error is its context.
        failure.__cause__ = failure.__context__ = None
        raise failure

    return guarded
