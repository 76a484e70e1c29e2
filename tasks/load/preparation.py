"""`Preparation`: the DDL that brings a target in line with its declaration, before anything is read."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Dialect as SqlDialect
from sqlalchemy import Engine, Inspector, Table, inspect
from sqlalchemy.schema import ExecutableDDLElement

from tasks.dialects.ddl_text import ddl_text
from tasks.dialects.dialect import Dialect
from tasks.errors import TargetError, TargetUnavailable
from tasks.load.ddl import creation, evolution
from tasks.load.drift import Drift, SchemaDrift
from tasks.load.target import without


@dataclass(frozen=True)
class Prepared:
    """A target that can be written to.

    Attributes:
        table: what is written: the declaration, less the columns that the table lacks and the policy does not add.
        statements: the DDL that made it so, in the database's own SQL.
        overlooked: how it still differs from its declaration, as sentences.
    """

    table: Table
    statements: Sequence[str] = ()
    overlooked: Sequence[str] = ()

    def with_others(self, others: Sequence["Prepared"]) -> "Prepared":
        """This one, with the statements for tables of tidegate's own beside it."""
        statements = [statement for one in (self, *others) for statement in one.statements]
        return replace(self, statements=tuple(statements))


@dataclass(frozen=True)
class Preparation:
    """What a run does to a table that it loads, before it reads anything.

    Attributes:
        pipeline: whose target it is.
        dialect: of its database.
        target: its declaration.
        on_drift: what is done where the table differs from that.
        optional: columns that are left out where the table lacks them and none may be added.
    """

    pipeline: str
    dialect: Dialect
    target: Table
    on_drift: SchemaDrift = "evolve"
    optional: Collection[str] = ()

    def run(self, engine: Engine) -> Prepared:
        """Create the table where it is absent, and change it as far as the policy goes. Nothing is ever taken away.

        Raises:
            TargetError: it differs in a way that the policy does not bridge, or the database refused a statement.
            TargetUnavailable: another attempt may succeed.
        """
        prepared, statements = self._planned(inspect(engine))
        if not statements:
            return prepared
        with self.dialect.transaction(engine) as connection:
            # Looked at again under the lock: another run may have been first.
            self.dialect.serialize(connection, f"etl_ddl {self.target.fullname}")
            prepared, statements = self._planned(inspect(connection))
            for statement in statements:
                what = f"{self.pipeline}: {ddl_text(statement, engine.dialect)}"
                with self.dialect.translated(what, TargetUnavailable, TargetError):
                    connection.execute(statement)
        return prepared

    def dry_run(self, engine: Engine) -> Prepared:
        """What `run` would do, without doing it.

        Raises:
            TargetError: see `run`.
        """
        return self._planned(inspect(engine))[0]

    def _planned(self, inspector: Inspector) -> tuple[Prepared, list[ExecutableDDLElement]]:
        on = inspector.dialect
        if not inspector.has_table(self.target.name, self.target.schema):
            statements = list(creation(self.target, on))
            return self._after(statements, on), statements
        drift = Drift.of(inspector, self.dialect, self.target, self.optional)
        self._refuse(drift)
        if self.on_drift == "evolve":
            statements = list(evolution(self.target, drift.changes, self.dialect, on))
            return self._after(statements, on), statements
        lost = {change.wanted.name for change in drift.changes if change.missing}
        return Prepared(without(self.target, lost), (), tuple(change.said for change in drift.changes)), []

    def _after(self, statements: Sequence[ExecutableDDLElement], on: SqlDialect) -> Prepared:
        return Prepared(self.target, tuple(ddl_text(one, on) for one in statements))

    def _refuse(self, drift: Drift) -> None:
        faults = drift.beyond(self.on_drift)
        if not faults:
            return
        bridged = {change.said for change in drift.changes}
        remedy = " on_drift='evolve' would change the table." if bridged.issuperset(faults) else ""
        raise TargetError(
            f"{self.pipeline}: the table {self.target.fullname!r} is not what the contract declares, so nothing was "
            f"read or written (on_drift={self.on_drift!r}): {'; '.join(faults)}.{remedy}"
        )
