"""The triggers of `MariadbLog`."""

from collections.abc import Callable, Sequence

from tasks.extract.change_log.log import LOST, NOTE

_ALTERED = (
    1048, 1054, 1118, 1136,  # NULL where none may be; an unknown column; a row too long; too few columns
    1210, 1264, 1265, 1267, 1292, 1366, 1406, 1416, 1525,  # a value that the type of before cannot hold
    3140, 4025, 4078, 4079, 4161,  # JSON that is none; a CHECK; types that do not go together
)  # fmt: skip
_NO_SUCH_TABLE = 1146


def triggers(
    quoted: Callable[[str], str], log: str, columns: Sequence[str], key: Sequence[str], shape: str
) -> dict[str, str]:
    """Their bodies, by the kind of change they fire after.

    No other trigger can change a row once it is written, so OLD and NEW are what is there. Columns that were altered
    since never make an error for whoever writes: `lost` is written down instead. Where the log itself has been dropped
    there is nowhere to write, and the next run finds that it is gone. Every other error, a deadlock for instance, is
    the writer's own, and reaches it.

    Args:
        quoted: quotes an identifier.
        log: the log's name.
        columns: of the table.
        key: those that identify a row.
        shape: stands for the table's columns as they are, in letters and digits; other columns make another body.
    """
    table = quoted(log)
    new, old = ([quoted(f"{prefix}_{name}") for name in columns] for prefix in ("new", "old"))
    after, before = ([f"{row}.{quoted(name)}" for name in columns] for row in ("NEW", "OLD"))
    # To the letter, as the target tells keys apart; a FLOAT has more digits than its text.
    moved = " OR ".join(
        f"NOT (OLD.{name} <=> NEW.{name} AND CAST(OLD.{name} AS BINARY) <=> CAST(NEW.{name} AS BINARY))"
        for name in map(quoted, key)
    )

    def written(operation: str, names: list[str], values: list[str]) -> str:
        return f"INSERT INTO {table} (etl_operation, {', '.join(names)}) VALUES ('{operation}', {', '.join(values)});"

    inserted, deleted = written("insert", new, after), written("delete", old, before)
    updated = written("update", [*new, *old], [*after, *before])
    bodies = {
        "INSERT": inserted,
        "UPDATE": f"IF {moved} THEN {deleted} {inserted} ELSE {updated} END IF;",
        "DELETE": deleted,
    }
    return {
        event: (
            f"BEGIN /* {shape} */ "
            f"DECLARE EXIT HANDLER FOR {_NO_SUCH_TABLE} BEGIN END; "
            f"BEGIN DECLARE EXIT HANDLER FOR {', '.join(map(str, _ALTERED))} "
            f"INSERT INTO {table} (etl_operation, {NOTE}) VALUES ('{LOST}', 'its columns were altered'); "
            f"{body} END; END"
        )
        for event, body in bodies.items()
    }
