"""`open_rules`: which keys have an open dead letter, and what rule it names."""

import json
from collections.abc import Mapping, Sequence

from sqlalchemy import literal, select

from tasks.dialects.checksum.canonical import Family, value_of
from tasks.recovery.reconcile.table_side import Texts
from tasks.running.assembly import Assembly
from tasks.state.tables import dead_letters

_AT_ONCE = 200


def open_rules(parts: Assembly, keys: Sequence[Texts], families: Mapping[str, Family]) -> dict[Texts, str]:
    """The first rule of the open letter of every key that has one.

    Args:
        parts: of the pipeline.
        keys: as texts.
        families: of the columns of the key, in order, and perhaps others.
    """
    names = list(parts.pipeline.load.key)
    found: dict[Texts, str] = {}
    with parts.target_errors(parts.pipeline.name), parts.engine.connect() as connection:
        for start in range(0, len(keys), _AT_ONCE):
            page = keys[start : start + _AT_ONCE]
            # As the database writes them, which is how letters have them.
            written = [
                parts.dialect.key_text(
                    [
                        literal(value_of(text, families[name]), parts.target.c[name].type)
                        for name, text in zip(names, key, strict=True)
                    ]
                ).label(f"key_{place}")
                for place, key in enumerate(page)
            ]
            texts = dict(zip(connection.execute(select(*written)).one(), page, strict=True))
            letters = select(dead_letters.c.row_key, dead_letters.c.reasons).where(
                dead_letters.c.pipeline == parts.pipeline.name,
                dead_letters.c.status == "open",
                dead_letters.c.row_key.in_(list(texts)),
            )
            for row_key, reasons in connection.execute(letters):
                found[texts[row_key]] = str(json.loads(reasons)[0]["rule"])
    return found
