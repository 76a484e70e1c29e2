"""Whether open dead letters wait for rows of a table: they broke a rule that looked for their value in it."""

import json

from sqlalchemy import Connection, literal, or_, select

from tasks.state.tables import dead_letters

_ESCAPE = "/"
_KINDS = (("references", "."), ("lookup", ": "))
"""How a rule that looks for values in a table begins, and what follows the table's name in it."""


def awaited(connection: Connection, table: str) -> bool:
    """Whether an open letter in this database names `table` in a reference or a lookup that it broke.

    The names are looked for in the documents as they are, in the database: now and then one is found that is none, and
    none is missed. One statement, which ends at the first.

    Args:
        connection: the database of the table.
        table: `name` or `schema.name`; a rule may name it either way.
    """
    bare = json.dumps(table.rpartition(".")[2], ensure_ascii=False)[1:-1]
    for special in (_ESCAPE, "%", "_"):
        bare = bare.replace(special, _ESCAPE + special)
    named = [f'%"{kind} {before}{bare}{after}%' for kind, after in _KINDS for before in ("", "%.")]
    waiting = select(literal(1)).where(
        dead_letters.c.status == "open", or_(*(dead_letters.c.reasons.like(one, escape=_ESCAPE) for one in named))
    )
    return connection.execute(waiting.limit(1)).first() is not None
