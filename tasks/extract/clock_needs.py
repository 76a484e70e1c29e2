"""What the SQL of a declared clock needs: the tables that it reads, and the functions that it calls."""

from tasks.needs import Calls, Need, Reads
from tasks.sql_text import functions_in, tables_in


def clock_needs(clock: str | None, dataset: str) -> tuple[Need, ...]:
    """The rights for `clock`, an SQL expression, or None, of the extract of `dataset`.

    Raises:
        ConfigError: it is no expression that only reads.
    """
    if clock is None:
        return ()
    sql, what = f"SELECT {clock}", f"The clock of {dataset!r}"
    return (
        *(Reads(table, f"read by the clock of {dataset}") for table in sorted(tables_in(sql, what))),
        *(Calls(function, f"called by the clock of {dataset}") for function in sorted(functions_in(sql, what))),
    )
