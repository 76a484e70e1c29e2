"""A key as one text, by which dead letters are told apart: the same for the same key, another for another."""

from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import insert, select

from tasks.dialects import dialect_of
from tasks.load.target import staged_table
from tasks.state.staged import ROW
from tests.conftest import Databases

TEXT, BYTES = pa.field("a", pa.string(), metadata={"max_length": "700"}), pa.field("a", pa.binary())
PAIR = [pa.field("a", pa.string()), pa.field("b", pa.string())]

KEYS: dict[str, tuple[list[pa.Field], list[tuple[Any, ...]]]] = {
    "letters and blanks": ([TEXT], [("a",), ("A",), ("a ",), (" a",), ("",), ("é",), ("e\u0301",), ("record:a",)]),
    "long": ([TEXT], [("x" * 440,), ("x" * 441,), ("x" * 700,), ("x" * 699 + "y",), ("y" + "x" * 699,)]),
    "bytes": ([BYTES], [(b"a",), (b"A",), (b"\xff",), (b"\x00",), (b"",), (b"ff",)]),
    "pairs": (PAIR, [("a\x1fb", "c"), ("a", "b\x1fc"), ("a\x1e1b", "c"), ("a\x1e", "1b\x1fc"), ("ab", "c"), ("a", "bc"),
                     ("", "a"), ("a", "")]),
    "numbers": ([pa.field("a", pa.int64()), pa.field("b", pa.bool_())], [(1, True), (1, False), (11, True)]),
}  # fmt: skip


@pytest.mark.parametrize("kind", KEYS)
def test_equal_keys_have_one_text_and_different_ones_have_different_texts(targets: Databases, kind: str) -> None:
    columns, keys = KEYS[kind]
    dialect, engine = dialect_of(targets.target), targets.target
    names = [column.name for column in columns]
    table = staged_table("keys", pa.schema(columns), key=names)
    with dialect.transaction(engine) as connection:
        table.create(connection)
    twice = [{ROW: number, **dict(zip(names, key, strict=True))} for number, key in enumerate([*keys, *keys])]
    with dialect.transaction(engine) as connection:
        connection.execute(insert(table), twice)
        key_text = dialect.key_text([table.c[name] for name in names])
        texts = connection.execute(select(key_text).order_by(table.c[ROW])).scalars().all()
        assert texts[: len(keys)] == texts[len(keys) :]
        assert len(set(texts)) == len(connection.execute(select(key_text).distinct()).all()) == len(keys)
    if targets.kind == "mariadb":
        assert max(map(len, texts)) <= 512, "as long as its column"
