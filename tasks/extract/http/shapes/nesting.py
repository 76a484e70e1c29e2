"""`Nesting`: what becomes of objects and lists within a record."""

from collections.abc import Iterator, Sequence

from tasks.errors import SourceError
from tasks.extract.http.shapes.arrow import Record

EVERYTHING = "*"


class Nesting:
    """Takes the records of one page apart. It remembers which column stands for what.

    Args:
        flatten: dotted paths of objects whose fields become columns, and `*` for all.
        explode: dotted path of a list whose items become rows, or None.
    """

    def __init__(self, flatten: Sequence[str], explode: str | None) -> None:
        self._everything = EVERYTHING in flatten
        self._explode = explode
        # An object within another becomes columns only if that one does.
        self._opened = {
            ".".join(steps[:length])
            for path in (*flatten, *([] if explode is None else [explode]))
            for steps in (path.split("."),)
            for length in range(1, len(steps) + 1)
        }
        self._first = next(iter((*([] if explode is None else [explode]), *flatten)), "")
        self._meaning: dict[str, str] = {}

    def rows(self, record: Record) -> Iterator[Record]:
        """What becomes of `record`: one row or more.

        Raises:
            SourceError: two fields make a column of the same name, or the list is in another one.
        """
        for one in [record] if self._explode is None else self._exploded(record, self._explode):
            row: Record = {}
            self._flatten(one, "", "", row)
            if record and not row:
                # All there was is an empty list or object, and a row without columns would be none.
                row[self._first.replace(".", "_")] = None
            yield row

    def _exploded(self, node: Record, path: str) -> Iterator[Record]:
        """`node` once for each item of the list at `path`, which the item takes the place of."""
        step, _, rest = path.partition(".")
        if path in node:
            value = node[path]
            items = value if isinstance(value, list) else [value]
            for item in items or [None]:
                yield {**node, path: item}
        elif rest and isinstance(node.get(step), dict):
            for inner in self._exploded(node[step], rest):  # type: ignore[arg-type]
                yield {**node, step: inner}
        elif rest and isinstance(node.get(step), list):
            raise SourceError(
                f"explode={self._explode!r} leads through the list {step!r}. Explode that one, and take its items "
                "apart in the transform."
            )
        else:
            yield node

    def _flatten(self, node: Record, path: str, name: str, row: Record) -> None:
        for key, value in node.items():
            here = f"{path}.{key}" if path else key
            column = f"{name}_{key}" if name else key
            if isinstance(value, dict) and (self._everything or here in self._opened):
                self._flatten(value, here, column, row)
            elif value is not None or here not in self._opened:
                if self._meaning.setdefault(column, here) != here:
                    raise SourceError(
                        f"{here!r} and {self._meaning[column]!r} would both be the column {column!r}. Flatten less, "
                        "and take the rest apart in the transform."
                    )
                row[column] = value
