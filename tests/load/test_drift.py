"""A target that is not what its contract declares: what is changed, what is left, and what is refused."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, get_args

import pandas as pd
import pandera.pandas as pa
import pyarrow
import pytest
from sqlalchemy import Engine, inspect, select, text

from tasks import connections
from tasks.column_types import COMMENT, JSON, UUID
from tasks.dialects import dialect_of
from tasks.dialects.mariadb import Mariadb
from tasks.errors import ConfigError, TargetError
from tasks.load.drift import SchemaDrift
from tasks.load.preparation import Preparation
from tasks.load.target import target_table
from tasks.load.upsert import Upsert
from tasks.partitioned import Partitioned
from tasks.pipeline import Pipeline, ddl, run_pipeline
from tasks.state.tables import runs
from tasks.transform.contract import UtcTimestamp
from tests.conftest import Databases, on_every_target
from tests.orders import ORDERS, OrderSchema, loaded, order, put
from tests.servers.mariadb import MariadbServer

MADE_BY_HAND = "id {id} PRIMARY KEY, customer {customer}, amount {amount}, updated_at {updated_at}"
AS_DECLARED = {
    "postgresql": {"id": "bigint", "customer": "text", "amount": "float8", "updated_at": "timestamptz NOT NULL"},
    "sqlite": {"id": "bigint", "customer": "text", "amount": "double", "updated_at": "datetime NOT NULL"},
}


class Wider(OrderSchema):
    """An order with a region."""

    region: str


WIDER = replace(ORDERS, schema=Wider, transform=lambda raw: raw.assign(region="north"))


@pytest.fixture(params=["postgresql", "sqlite"])
def databases(request: pytest.FixtureRequest) -> Databases:
    """The two whose tables are made by hand here; MariaDB has tests of its own."""
    chosen: Databases = request.getfixturevalue(request.param)
    return chosen


def create(databases: Databases, **types: str) -> None:
    """Make the target by hand, with `types` where it is not as declared; `more` is appended."""
    more = types.pop("more", "")
    columns = MADE_BY_HAND.format(**{**AS_DECLARED[databases.kind], **types}) + more
    with databases.target.begin() as connection:
        connection.execute(text(f"CREATE TABLE fct_orders ({columns})"))


def types(engine: Engine) -> dict[str, str]:
    """The columns of the target with their types in SQL."""
    columns = inspect(engine).get_columns("fct_orders")
    return {column["name"]: str(column["type"].compile(dialect=engine.dialect)) for column in columns}


def under(policy: SchemaDrift, pipeline: Pipeline = ORDERS) -> Pipeline:
    return replace(pipeline, on_drift=policy)


def test_a_table_as_declared_is_no_drift(databases: Databases) -> None:
    create(databases)
    put(databases.source, [order(1)])
    assert ddl(ORDERS) == []
    assert run_pipeline(under("freeze")).counts.inserted == 1


def test_a_table_that_can_hold_more_is_no_drift(postgresql: Databases) -> None:
    """A wider type, a column that may be NULL, columns of somebody else's: nothing is taken away."""
    create(postgresql, id="numeric(30, 5)", more=", note text, made timestamptz NOT NULL DEFAULT now()")
    before = types(postgresql.target)
    put(postgresql.source, [order(2**62 + 1)])
    assert run_pipeline(under("freeze")).counts.inserted == 1
    assert run_pipeline(under("evolve"), full_refresh=True).counts.unchanged == 1
    assert types(postgresql.target) == before


def test_a_text_column_that_is_long_enough_for_the_contract_is_no_drift(postgresql: Databases) -> None:
    class Short(OrderSchema):
        customer: str = pa.Field(nullable=True, str_length={"max_value": 3})

    create(postgresql, customer="varchar(3)")
    put(postgresql.source, [order(1), order(2, customer="anna")])
    report = run_pipeline(under("freeze", replace(ORDERS, schema=Short)))
    assert (report.counts.inserted, report.counts.rejected) == (1, 1)


def test_evolve_widens_what_is_narrow_and_keeps_every_value(postgresql: Databases) -> None:
    create(
        postgresql, id="int", customer="varchar(3) NOT NULL DEFAULT 'bob'", amount="real", updated_at="timestamptz(0)"
    )
    with postgresql.target.begin() as connection:
        connection.execute(text("INSERT INTO fct_orders VALUES (2147483647, 'ann', 0.5, '2026-01-01')"))
    put(postgresql.source, [order(2**40, amount=1 / 3, customer="anna and others", day=0.123456789), order(3)])
    run_pipeline(ORDERS)
    assert [(row["id"], row["customer"], row["amount"]) for row in loaded(postgresql.target)] == [
        (3, "ann", 1.0),
        (2147483647, "ann", 0.5),
        (2**40, "anna and others", 1 / 3),
    ]
    assert types(postgresql.target) == {
        "id": "BIGINT",
        "customer": "TEXT",
        "amount": "DOUBLE PRECISION",
        "updated_at": "TIMESTAMP WITH TIME ZONE",
    }
    customer = inspect(postgresql.target).get_columns("fct_orders")[1]
    assert customer["nullable"] and "bob" in str(customer["default"])


def test_a_decimal_grows_on_both_sides_of_its_point_and_never_shrinks(postgresql: Databases) -> None:
    """Ten digits before the point and two behind meet eight and four: ten and four hold both."""
    create(postgresql, amount="numeric(12, 2)")
    with postgresql.target.begin() as connection:
        connection.execute(text("INSERT INTO fct_orders VALUES (1, NULL, 9999999999.99, '2026-01-01')"))
    pipeline = replace(
        ORDERS, schema=decimals(12, 4), transform=lambda raw: raw.assign(amount=raw["amount"].astype(str))
    )
    put(postgresql.source, [order(2, amount=0.25)])
    run_pipeline(pipeline)
    assert types(postgresql.target)["amount"] == "NUMERIC(14, 4)"
    with postgresql.target.connect() as connection:
        amounts = connection.execute(text("SELECT amount::text FROM fct_orders ORDER BY id")).scalars().all()
    assert amounts == ["9999999999.9900", "0.2500"]
    assert ddl(pipeline) == []


def test_evolving_is_done_once(databases: Databases) -> None:
    create(databases)
    put(databases.source, [order(1)])
    assert len(ddl(WIDER)) == 1
    run_pipeline(WIDER)
    assert ddl(WIDER) == []


def test_freeze_tells_every_difference_before_anything_is_read(postgresql: Databases) -> None:
    """There is no source: whoever read it would fail otherwise."""
    create(postgresql, id="int", customer="text NOT NULL")
    with pytest.raises(TargetError) as told:
        run_pipeline(under("freeze", WIDER))
    message = str(told.value)
    assert "'id' is INTEGER there, and the contract needs BIGINT" in message
    assert "'customer' is NOT NULL there, and the contract allows NULL" in message
    assert "'region' is not there" in message
    assert "on_drift='evolve' would change the table" in message
    assert types(postgresql.target)["id"] == "INTEGER"
    with postgresql.target.connect() as connection:
        assert connection.execute(select(runs.c.status, runs.c.message)).one() == ("failed", f"TargetError: {message}")


def test_freeze_creates_a_table_that_is_absent(sqlite: Databases) -> None:
    put(sqlite.source, [order(1)])
    assert run_pipeline(under("freeze")).counts.inserted == 1


def test_ignore_leaves_out_the_columns_that_are_not_there_and_says_so_once(
    databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    create(databases)
    put(databases.source, [order(1), order(2, day=1)])
    for inserted, unchanged in ((2, 0), (0, 2)):
        caplog.clear()
        counts = run_pipeline(under("ignore", WIDER), full_refresh=True).counts
        assert (counts.inserted, counts.unchanged) == (inserted, unchanged)
        [said] = [record.getMessage() for record in caplog.records if "on_drift='ignore'" in record.getMessage()]
        assert "the column 'region' is not there" in said
    assert set(types(databases.target)) == {"id", "customer", "amount", "updated_at"}


def test_ignore_refuses_a_table_without_the_column_by_which_changed_partitions_are_told(sqlite: Databases) -> None:
    create(sqlite)
    tracking = Upsert("target", "fct_orders", key=["id"], track=Partitioned("region"))
    with pytest.raises(TargetError, match="the column 'region' is not there"):
        run_pipeline(replace(under("ignore", WIDER), load=tracking))


def test_ignore_leaves_a_type_that_refuses_what_it_cannot_hold(postgresql: Databases) -> None:
    create(postgresql, id="int", customer="text NOT NULL")
    put(postgresql.source, [order(7)])
    assert run_pipeline(under("ignore")).counts.inserted == 1
    put(postgresql.source, [order(8, day=1), order(2**40, day=1)])
    with pytest.raises(TargetError, match="integer out of range"):
        run_pipeline(under("ignore"))
    assert [row["id"] for row in loaded(postgresql.target)] == [7]


@pytest.mark.parametrize(
    ("column", "kind"), [("amount", "real"), ("customer", "varchar(3)"), ("updated_at", "timestamptz(3)")]
)
def test_ignore_refuses_a_type_that_would_round_or_cut(postgresql: Databases, column: str, kind: str) -> None:
    create(postgresql, **{column: kind})
    with pytest.raises(TargetError, match=f"column '{column}' is .* there, and the contract needs"):
        run_pipeline(under("ignore"))


def test_ignore_refuses_a_table_without_the_cursor(databases: Databases) -> None:
    with databases.target.begin() as connection:
        connection.execute(text("CREATE TABLE fct_orders (id bigint PRIMARY KEY, customer text)"))
    with pytest.raises(TargetError, match="the column 'updated_at' is not there"):
        run_pipeline(under("ignore"))


UNSAFE = {
    "a text where a number is declared": ({"amount": "text"}, "column 'amount' is TEXT there, .* declares DOUBLE"),
    "a number where a text is declared": ({"customer": "bigint"}, "column 'customer' is BIGINT there, .* TEXT"),
    "a date where an instant is declared": ({"updated_at": "date"}, "column 'updated_at' is DATE there"),
    "a decimal where a float is declared": ({"amount": "numeric(10, 2)"}, "column 'amount' is NUMERIC.10, 2. there"),
    "no column that must be there": ({"more": ", note text NOT NULL"}, "'note' is NOT NULL there, has no default"),
}


@pytest.mark.parametrize("case", UNSAFE)
def test_what_cannot_be_bridged_is_refused_under_every_policy_before_anything_is_read(
    databases: Databases, case: str
) -> None:
    columns, said = UNSAFE[case]
    create(databases, **columns)
    before = types(databases.target)
    for policy in get_args(SchemaDrift):
        with pytest.raises(TargetError, match=said):
            run_pipeline(under(policy))
    assert types(databases.target) == before


def test_a_key_that_is_not_unique_there_is_refused(databases: Databases) -> None:
    """It was made by hand, without its key."""
    with databases.target.begin() as connection:
        connection.execute(
            text("CREATE TABLE fct_orders (id bigint, customer text, amount double precision, updated_at timestamp)")
        )
    with pytest.raises(TargetError, match=r"the key of the load is \(id\), and the table has no primary key"):
        run_pipeline(ORDERS)


def test_another_key_is_refused(databases: Databases) -> None:
    put(databases.source, [order(1)])
    run_pipeline(ORDERS)
    other = replace(ORDERS, load=Upsert("target", "fct_orders", key=["customer"]))
    with pytest.raises(TargetError, match=r"key of the load is \(customer\), and that of the table is \(id\)"):
        run_pipeline(other)


@pytest.mark.parametrize(("index", "enough"), [("(id)", True), ("(id) WHERE id > 5", False), ("(id, customer)", False)])
def test_a_unique_index_is_as_good_as_a_primary_key(databases: Databases, index: str, enough: bool) -> None:
    kinds = AS_DECLARED[databases.kind]
    columns = MADE_BY_HAND.format(**kinds).replace(" PRIMARY KEY", "")
    with databases.target.begin() as connection:
        connection.execute(text(f"CREATE TABLE fct_orders ({columns})"))
        connection.execute(text(f"CREATE UNIQUE INDEX only_one ON fct_orders {index}"))
    put(databases.source, [order(1)])
    if enough:
        assert run_pipeline(ORDERS).counts.inserted == 1
    else:
        with pytest.raises(TargetError, match="the table has no primary key"):
            run_pipeline(ORDERS)


def test_a_name_in_other_letters_is_not_a_second_column(databases: Databases) -> None:
    with databases.target.begin() as connection:
        connection.execute(text('CREATE TABLE fct_orders (id bigint PRIMARY KEY, "Amount" double precision)'))
    with pytest.raises(TargetError, match="the column 'amount' is called 'Amount' there; give both the same name"):
        run_pipeline(ORDERS)


def test_a_column_that_the_database_fills_in_is_refused(postgresql: Databases) -> None:
    create(postgresql, amount="float8 GENERATED ALWAYS AS (1) STORED")
    with pytest.raises(TargetError, match="'amount' is filled in by the database there"):
        run_pipeline(ORDERS)


def test_sqlite_refuses_to_let_null_in_where_it_cannot(sqlite: Databases) -> None:
    create(sqlite, amount="double NOT NULL")
    with pytest.raises(TargetError, match="'amount' is NOT NULL there, the contract allows NULL, and sqlite cannot"):
        run_pipeline(ORDERS)


def test_what_a_view_holds_fast_is_told_with_the_statement(postgresql: Databases) -> None:
    create(postgresql, id="int")
    with postgresql.target.begin() as connection:
        connection.execute(text("CREATE VIEW ids AS SELECT id FROM fct_orders"))
    with pytest.raises(TargetError, match=r"ALTER TABLE fct_orders ALTER COLUMN id TYPE BIGINT refused: .* view"):
        run_pipeline(ORDERS)


def test_comments_come_from_the_schema(postgresql: Databases) -> None:
    """Also that of a column which is added; a percent sign is a percent sign."""

    class Described(OrderSchema):
        amount: float = pa.Field(nullable=True, ge=0, description="Euro, 100 % of it")

    class More(Described):
        region: str = pa.Field(nullable=True, title="Where it's sold, in %s")

    put(postgresql.source, [order(1)])
    run_pipeline(replace(ORDERS, schema=Described))
    run_pipeline(replace(ORDERS, schema=More, transform=lambda raw: raw.assign(region=None)))
    comments = {column["name"]: column["comment"] for column in inspect(postgresql.target).get_columns("fct_orders")}
    assert comments["amount"] == "Euro, 100 % of it"
    assert comments["region"] == "Where it's sold, in %s"
    assert comments["id"] is None


def test_a_change_is_told_with_its_sql(databases: Databases, caplog: pytest.LogCaptureFixture) -> None:
    put(databases.source, [order(1)])
    caplog.set_level("INFO")
    run_pipeline(ORDERS)
    assert any("orders: CREATE TABLE fct_orders" in record.getMessage() for record in caplog.records)
    caplog.clear()
    run_pipeline(WIDER)
    told = [record.getMessage() for record in caplog.records if "ALTER TABLE" in record.getMessage()]
    assert told == ["orders: ALTER TABLE fct_orders ADD COLUMN region TEXT"]


def test_a_policy_is_one_of_three() -> None:
    with pytest.raises(ConfigError, match="on_drift is 'evolve', 'ignore' or 'freeze', got 'adapt'"):
        replace(ORDERS, on_drift="adapt")  # type: ignore[arg-type]


def decimals(precision: int, scale: int) -> type[pa.DataFrameModel]:
    """A contract whose amount is a decimal."""

    class Exact(pa.DataFrameModel):
        id: int
        customer: str = pa.Field(nullable=True)
        amount: Annotated[pd.ArrowDtype, pyarrow.decimal128(precision, scale)] = pa.Field(nullable=True)
        updated_at: UtcTimestamp

    return Exact


@pytest.mark.mariadb
def test_mariadb_widens_in_place_and_keeps_what_else_a_column_is(mariadb_engine: Engine) -> None:
    with mariadb_engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE fct_orders (id int PRIMARY KEY, "
            "customer varchar(9) COLLATE utf8mb4_nopad_bin NOT NULL DEFAULT 'a :x %%' COMMENT '5 %%', "
            "amount float, updated_at datetime NOT NULL, note int)"
        )
        connection.exec_driver_sql("INSERT INTO fct_orders VALUES (2147483647, 'ann', 0.5, '2026-01-01', 7)")
    prepared = PREPARATION.run(mariadb_engine)
    assert len(prepared.statements) == 1
    assert PREPARATION.run(mariadb_engine).statements == ()
    with mariadb_engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO fct_orders (id, amount, updated_at) VALUES (1099511627776, 1e300, now())"
        )
        rows = connection.exec_driver_sql("SELECT id, customer, amount, note FROM fct_orders ORDER BY id").all()
    assert [tuple(row) for row in rows] == [(2147483647, "ann", 0.5, 7), (1099511627776, "a :x %", 1e300, None)]
    columns = {column["name"]: column for column in inspect(mariadb_engine).get_columns("fct_orders")}
    assert columns["customer"]["comment"] == "5 %"
    assert columns["customer"]["nullable"] and not columns["updated_at"]["nullable"]


@pytest.mark.mariadb
def test_mariadb_refuses_a_text_that_takes_two_letters_for_one(mariadb_engine: Engine) -> None:
    with mariadb_engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE fct_orders (id bigint PRIMARY KEY, customer longtext, amount double, updated_at datetime(6)) "
            "COLLATE utf8mb4_general_ci"
        )
    with pytest.raises(TargetError, match=r"'customer' is LONGTEXT.* there, and the contract declares LONGTEXT.*_bin"):
        PREPARATION.run(mariadb_engine)


@pytest.mark.mariadb
def test_mariadb_is_made_with_comments_and_refuses_what_cannot_be_bridged(mariadb_engine: Engine) -> None:
    made = replace(PREPARATION, target=target_table("made", ["id"], COLUMNS))
    assert "COMMENT 'Euro, 100 % of it'" in made.dry_run(mariadb_engine).statements[0]
    made.run(mariadb_engine)
    assert made.run(mariadb_engine).statements == ()
    comments = {column["name"]: column["comment"] for column in inspect(mariadb_engine).get_columns("made")}
    assert comments["amount"] == "Euro, 100 % of it"
    with mariadb_engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE fct_orders (id bigint unsigned PRIMARY KEY, customer text, amount double, "
            "updated_at timestamp(6))"
        )
    with pytest.raises(TargetError, match=r"'id' is BIGINT.* UNSIGNED there.*'updated_at' is TIMESTAMP"):
        PREPARATION.run(mariadb_engine)


COLUMNS = pyarrow.schema(
    [
        pyarrow.field("id", pyarrow.int64(), nullable=False),
        pyarrow.field("customer", pyarrow.string()),
        pyarrow.field("amount", pyarrow.float64(), metadata={COMMENT: b"Euro, 100 % of it"}),
        pyarrow.field("updated_at", pyarrow.timestamp("us", "UTC"), nullable=False),
    ]
)
PREPARATION = Preparation("orders", Mariadb("mariadb"), target_table("fct_orders", ["id"], COLUMNS))


@pytest.fixture
def mariadb_engine(mariadb_server: MariadbServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A database of the MariaDB, as the connection `target`."""
    mariadb_server.create_database("drift")
    monkeypatch.setenv("TIDEGATE_TARGET_URL", mariadb_server.url("drift"))
    yield connections.engine("target")
    connections.dispose()
    mariadb_server.drop_database("drift")


EVERY_TYPE = {
    "int16": pyarrow.int16(),
    "int32": pyarrow.int32(),
    "int64": pyarrow.int64(),
    "decimal": pyarrow.decimal128(38, 9),
    "double": pyarrow.float64(),
    "bool": pyarrow.bool_(),
    "string": pyarrow.string(),
    "binary": pyarrow.binary(),
    "date": pyarrow.date32(),
    "time": pyarrow.time64("us"),
    "naive": pyarrow.timestamp("us"),
    "instant": pyarrow.timestamp("us", "UTC"),
    "uuid": UUID,
    "json": JSON,
}


@on_every_target
@pytest.mark.parametrize("key", ["int64", "string", "binary", "uuid", "instant", "decimal"])
def test_a_table_that_was_made_from_a_contract_is_no_drift_whatever_its_types(databases: Databases, key: str) -> None:
    columns = pyarrow.schema([pyarrow.field(name, kind) for name, kind in EVERY_TYPE.items()])
    made = Preparation("types", dialect_of(databases.target), target_table("made", [key], columns), "freeze")
    assert len(made.run(databases.target).statements) == 1
    assert made.run(databases.target).statements == ()
