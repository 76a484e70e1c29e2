"""`Audit`: SQL that must find nothing in what an attempt has staged; else nothing of it becomes visible."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, Select, Table, func, literal_column, select, text

from tasks.dialects.dialect import Dialect
from tasks.errors import ConfigError, TargetError, TargetUnavailable, redact
from tasks.masking import MASK, NO_MASKING, Masking
from tasks.sql_text import declared_sql, for_binding, made_columns, parameters, standing_in, tables_in, tables_read
from tasks.state.staged import OWN, alive

STAGED = "staged"
"""What an audit calls the rows on their way in."""

_SHOWN_ROWS = 3
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True)
class Audit:
    """A SELECT over the table `staged`, the rows that are about to be written; what it returns is wrong.

    It is run inside the commit, when dead letters and repeated keys are out of `staged`, which has the contract's
    columns, and may read any other table beside it. Its own columns have different names.

    Attributes:
        name: what must be true, for the ledger.
        query: the SELECT; or give `file`.
        file: path of a file that holds it, relative to the working directory or the checkout.

    Raises:
        ConfigError: it has no name; neither a query nor a file is given, or both; the file is not there.
    """

    name: str
    query: str | None = None
    file: str | None = None
    sql: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ConfigError("An audit is refused by its name in the ledger: give it one, such as 'no negative fare'.")
        object.__setattr__(self, "sql", declared_sql(self.query, self.file, self.what))

    @property
    def what(self) -> str:
        """How a message names it."""
        return f"The audit {self.name!r}"

    @property
    def reads(self) -> frozenset[str]:
        """The tables that it reads beside `staged`.

        Raises:
            ConfigError: it is not one SELECT that only reads.
        """
        return frozenset(tables_in(self.sql, self.what) - {STAGED})

    def check(self, pipeline: str, dialect: Dialect) -> None:
        """Refuse what is no audit.

        Raises:
            ConfigError: it is not one SELECT that only reads, has a parameter, or does not look at `staged`.
        """
        what = f"{pipeline}: the audit {self.name!r}"
        parameters(self.sql, dialect.syntax, what, frozenset())
        if STAGED not in tables_read(self.sql, dialect.syntax):
            raise ConfigError(
                f"{what} does not read {STAGED!r}, which is what the rows on their way in are called, so it would find "
                "the same whatever comes in. Select from it."
            )


@dataclass(frozen=True)
class AuditCheck:
    """The audits of one attempt.

    Attributes:
        audits: as the pipeline declares them.
        dialect: the target's.
        staged: the attempt's staged rows.
        where: the attempt, as a message begins.
        masking: columns whose values no message may tell.
    """

    audits: Sequence[Audit]
    dialect: Dialect
    staged: Table
    where: str
    masking: Masking = NO_MASKING

    def refusal(self, connection: Connection) -> str | None:
        """What the first audit that found something says, or None; inside the commit, before anything is written.

        Raises:
            TargetError: the database refused an audit.
            TargetUnavailable: it did not answer.
        """
        for audit in self.audits:
            with self.dialect.translated(f"{self.where}: the audit {audit.name!r}", TargetUnavailable, TargetError):
                found, examples = self._found(connection, audit)
            if found:
                told = "; ".join(self._shown(audit, row) for row in examples)
                return (
                    f"{self.where}: the audit {audit.name!r} found {found:,} rows, and there may be none: "
                    f"{told}{'; …' if found > len(examples) else ''}. Nothing was written. "
                    "Mend the source or the SQL that made them, then run again."
                )
        return None

    def _found(self, connection: Connection, audit: Audit) -> tuple[int, Sequence[Row[Any]]]:
        rows = [column for column in self.staged.columns if column.name not in OWN]
        # SQLAlchemy doubles every percent sign for a driver that formats, and will do so again.
        staged = str(select(*rows).where(*alive(self.staged)).compile(connection)).replace("%%", "%")
        syntax = self.dialect.syntax
        # Not by WITH: on MariaDB a WITH of the author's own would not see it.
        sql = for_binding(standing_in(audit.sql, syntax, STAGED, f"({staged})"), syntax)
        wrong = text(sql).columns().subquery("wrong")
        examples: Select[Any] = select(literal_column("*")).select_from(wrong).limit(_SHOWN_ROWS)
        shown = connection.execute(examples).all()
        if len(shown) < _SHOWN_ROWS:
            return len(shown), shown
        counted = select(func.count()).select_from(wrong)
        return connection.execute(counted).scalar_one(), shown

    def _shown(self, audit: Audit, row: Row[Any]) -> str:
        told = ", ".join(f"{name} = {value}" for name, value in self._visible(audit, dict(row._mapping)).items())
        # Redacted before it is cut: half a secret would not be recognized.
        told = redact(told)
        return f"({told if len(told) <= _SHOWN_CHARACTERS else told[:_SHOWN_CHARACTERS] + '…'})"

    def _visible(self, audit: Audit, row: dict[str, Any]) -> dict[str, Any]:
        """`row` without what is masked, or may be made of it."""
        if not self.masking:
            return row
        made = made_columns(audit.sql, self.dialect.syntax)
        hidden = {name for name in row if made is None or name.lower() in made}
        hidden |= {name for name in row if name.lower() in {column.lower() for column in self.masking.columns}}
        return {name: MASK if name in hidden and value is not None else value for name, value in row.items()}
