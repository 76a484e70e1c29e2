"""SQL as its author wrote it: which tables it reads, which parameters it has, and that it only reads."""

from pathlib import Path

import pytest

from tasks.errors import ConfigError
from tasks.sql_text import declared_sql, fingerprint, for_binding, parameters, standing_in, tables_read

DIALECTS = ("postgres", "sqlite", "mysql")
RANGE = frozenset({"start", "end"})


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ("SELECT 1", set()),
        ("SELECT * FROM a JOIN b ON a.x = b.x LEFT JOIN c AS d ON true", {"a", "b", "c"}),
        ("SELECT (SELECT max(x) FROM a) FROM b WHERE EXISTS (SELECT 1 FROM c) AND x IN (SELECT y FROM d)", {*"abcd"}),
        ("SELECT x FROM a GROUP BY x HAVING count(*) > (SELECT 1 FROM b) ORDER BY (SELECT 1 FROM c)", {*"abc"}),
        ("SELECT * FROM (SELECT * FROM a) AS b UNION ALL SELECT * FROM c", {"a", "c"}),
        ("WITH b AS (SELECT * FROM a), c AS (SELECT * FROM b) SELECT * FROM c", {"a"}),
        ("WITH a AS (SELECT * FROM a WHERE x > 1) SELECT * FROM a", {"a"}),
        ("SELECT * FROM (WITH b AS (SELECT * FROM a) SELECT * FROM b) AS c JOIN b ON true", {"a", "b"}),
        ("WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n JOIN a ON true) SELECT * FROM n", {"a"}),
        ("SELECT * FROM mart.a JOIN a ON true", {"mart.a", "a"}),
        ("SELECT * FROM a; -- done", {"a"}),
        ("SELECT 'FROM b' AS x /* FROM c */ FROM a -- FROM d", {"a"}),
    ],
)
def test_every_table_that_a_select_reads_is_found(sql: str, tables: set[str], dialect: str) -> None:
    assert tables_read(sql, dialect) == tables


def test_tables_are_spelled_as_the_database_understands_them() -> None:
    assert tables_read('SELECT * FROM Fct_Flights JOIN "Fct_Weather" ON true', "postgres") == {
        "fct_flights",
        "Fct_Weather",
    }


def test_a_function_that_gives_rows_is_no_table() -> None:
    sql = "SELECT * FROM a, generate_series(1, 3) AS n, unnest(ARRAY[1]) AS m, LATERAL (SELECT * FROM b) AS c"
    assert tables_read(sql, "postgres") == {"a", "b"}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("sql", "instead"),
    [
        ("SELECT staged.x FROM staged", "SELECT staged.x FROM (SELECT 1) AS staged"),
        ("SELECT s.x FROM staged AS s, staged z", "SELECT s.x FROM (SELECT 1) AS s, (SELECT 1) z"),
        (
            "SELECT 'staged 😀' FROM a JOIN staged ON true",
            "SELECT 'staged 😀' FROM a JOIN (SELECT 1) AS staged ON true",
        ),
        ("SELECT 1 FROM mart.staged -- staged", "SELECT 1 FROM mart.staged -- staged"),
        ("WITH staged AS (SELECT 2) SELECT * FROM staged", "WITH staged AS (SELECT 2) SELECT * FROM staged"),
        (
            "WITH a AS (WITH b AS (SELECT * FROM staged) SELECT * FROM b) SELECT 1 FROM a "
            "WHERE EXISTS (SELECT 1 FROM staged)",
            "WITH a AS (WITH b AS (SELECT * FROM (SELECT 1) AS staged) SELECT * FROM b) SELECT 1 FROM a "
            "WHERE EXISTS (SELECT 1 FROM (SELECT 1) AS staged)",
        ),
    ],
)
def test_a_table_is_replaced_wherever_it_is_read_and_nowhere_else(sql: str, instead: str, dialect: str) -> None:
    assert standing_in(sql, dialect, "staged", "(SELECT 1)") == instead


@pytest.mark.parametrize(
    ("sql", "holds"),
    [
        ("DELETE FROM a", "DELETE"),
        ("WITH gone AS (DELETE FROM a RETURNING *) SELECT * FROM gone", "DELETE"),
        ("WITH b AS (INSERT INTO a VALUES (1) RETURNING *) SELECT * FROM b", "INSERT"),
        ("SELECT * INTO b FROM a", "INTO"),
        ("SELECT * FROM a FOR UPDATE", "LOCK"),
        ("UPDATE a SET x = 1", "UPDATE"),
        ("CREATE TABLE a AS SELECT 1 AS x", "CREATE"),
        ("DROP TABLE a", "DROP"),
        ("VALUES (1)", "VALUES"),
        ("SELECT 1; SELECT 2", "2 statements"),
        ("SELECT 1; DROP TABLE a", "2 statements"),
        ("-- nothing", "0 statements"),
    ],
)
def test_what_is_not_one_select_that_only_reads_is_refused(sql: str, holds: str) -> None:
    with pytest.raises(ConfigError, match=f"The SQL has to be one SELECT.* holds {holds}"):
        tables_read(sql, "postgres")


def test_what_cannot_be_parsed_is_refused_with_its_place() -> None:
    with pytest.raises(ConfigError, match=r"The SQL cannot be read as postgres: .*Line 1, Col: 20") as refused:
        tables_read("SELECT * FROM a WHEN", "postgres")
    assert "\x1b" not in str(refused.value)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("sql", "used"),
    [
        ("SELECT * FROM a", set()),
        ("SELECT * FROM a WHERE x >= :start AND x < :end", {"start", "end"}),
        ("SELECT ':end' AS x FROM a WHERE x >= :start -- :end", {"start"}),
    ],
)
def test_parameters_are_those_outside_of_strings_and_comments(sql: str, used: set[str], dialect: str) -> None:
    assert parameters(sql, dialect, "x.sql", RANGE) == used


@pytest.mark.parametrize("parameter", [":since", ":END", "?", "$1", "%s", "%(start)s"])
def test_an_unknown_parameter_is_refused(parameter: str) -> None:
    with pytest.raises(ConfigError, match=r"x.sql has (the|a) parameter"):
        parameters(f"SELECT * FROM a WHERE x >= {parameter}", "postgres", "x.sql", RANGE)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_only_a_parameter_is_bound_and_the_rest_stays_as_it_is_written(dialect: str) -> None:
    sql = "SELECT ':start 😀' AS a, 'HH24:MI' AS b, x /* :end */ FROM t WHERE x >= :start\n  AND x < :end"
    escaped = sql.replace("':start", r"'\:start").replace("/* :end", r"/* \:end")
    assert for_binding(f"{sql} ; -- :start", dialect, RANGE) == escaped


def test_a_cast_and_a_slice_are_no_parameters() -> None:
    sql = "SELECT x::start, y[1:2], y[1:end_] FROM t"
    assert for_binding(sql, "postgres", RANGE) == sql


def test_a_comment_or_a_blank_does_not_change_the_fingerprint_and_a_word_does() -> None:
    plain = fingerprint("SELECT x FROM a WHERE y >= :start", "postgres")
    assert fingerprint("select x -- the x\nFROM   a\n WHERE y >= :start;", "postgres") == plain
    assert fingerprint("SELECT x FROM a WHERE y > :start", "postgres") != plain


def test_a_file_is_found_in_the_working_directory_and_in_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "FROM" in declared_sql(None, "flows/sql/daily_delays.sql", "mart")
    (tmp_path / "flows" / "sql").mkdir(parents=True)
    (tmp_path / "flows" / "sql" / "daily_delays.sql").write_text("SELECT 1")
    assert declared_sql(None, "flows/sql/daily_delays.sql", "mart") == "SELECT 1"


def test_an_absent_file_is_refused_with_the_places_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"mart: there is no file 'absent.sql'.*{tmp_path}/absent.sql"):
        declared_sql(None, "absent.sql", "mart")


@pytest.mark.parametrize(("query", "file"), [(None, None), ("SELECT 1", "a.sql")])
def test_the_text_is_in_a_file_or_in_the_declaration(query: str | None, file: str | None) -> None:
    with pytest.raises(ConfigError, match="mart is written in a file or in a query: give one of the two"):
        declared_sql(query, file, "mart")
