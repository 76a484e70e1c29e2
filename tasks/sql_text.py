"""SQL as its author wrote it: what it reads, and where its parameters stand. Here it is read, never written anew."""

import hashlib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import sqlglot
from sqlglot import expressions as exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.normalize_identifiers import normalize_identifiers
from sqlglot.optimizer.scope import traverse_scope
from sqlglot.tokenizer_core import TokenType

from tasks.errors import ConfigError, one_of

_DIALECTS = ("postgres", "mysql", "sqlite")
_CHECKOUT = Path(__file__).parents[1]

_WRITING = (exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.Into, exp.Lock)

# What SQLAlchemy's `text` would take for the beginning of a parameter.
_COLON = re.compile(r"(?<![:\w\\]):(?=\w)")


def declared_sql(query: str | None, file: str | None, what: str) -> str:
    """The text of a declaration that has it in a file, or in itself.

    Args:
        query: the text; or give `file`.
        file: its path, relative to the working directory or to the folder that holds `tasks/`.
        what: the declaration, as the message begins.

    Raises:
        ConfigError: neither is given, or both; the file is not there, or is no text in UTF-8.
    """
    if (query is None) == (file is None):
        raise ConfigError(f"{what} is written in a file or in a query: give one of the two.")
    if file is None:
        return str(query)
    places = list(dict.fromkeys([Path.cwd() / file, _CHECKOUT / file]))
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise ConfigError(f"{what}: there is no file {file!r}; it is looked for as {one_of(map(str, places))}.")
    try:
        return found.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what}: {file!r} cannot be read as text: {error}. Save it in UTF-8.") from error


def tables_read(sql: str, dialect: str) -> set[str]:
    """The tables and views that a SELECT reads, `name` or `schema.name`; what it names itself in WITH is none.

    Args:
        sql: one statement.
        dialect: sqlglot's name of the database's SQL; see `Source.syntax`. Names are spelled as it understands them:
            PostgreSQL's in small letters, unless they are quoted.

    Raises:
        ConfigError: it is not one SELECT that only reads.
    """
    return {f"{table.db}.{table.name}" if table.db else table.name for table in _tables(sql, dialect)}


def made_columns(sql: str, dialect: str) -> set[str] | None:
    """The columns of its result, in small letters, that are no column of that name, but something made of others.

    Args:
        sql: one SELECT that only reads.
        dialect: sqlglot's name of the database's SQL.

    Returns:
        None where nobody can tell: each of them may be one.
    """
    tree = sqlglot.parse_one(sql, dialect=dialect)
    if not isinstance(tree, exp.Select) or tree.args.get("with_") or tree.args.get("laterals"):
        return None
    start = tree.args.get("from_")
    sources = [part.this for part in (start, *(tree.args.get("joins") or ())) if part is not None]
    if not all(
        isinstance(one, exp.Table) and isinstance(one.this, exp.Identifier) and not one.alias_column_names
        for one in sources
    ):
        return None
    columns = tree.expressions
    names = [column.alias_or_name.lower() for column in columns]
    if any(column.is_star for column in columns):
        return set() if len(columns) == len(sources) == 1 else None
    # Of two columns of one name some databases call the second otherwise.
    if "" in names or len(set(names)) < len(names):
        return None
    # A table's name stands for its whole rows, where no column has it.
    rows = {one.alias_or_name.lower() for one in sources}
    return {
        name
        for name, column in zip(names, columns, strict=True)
        if name in rows or not isinstance(column.unalias(), exp.Column) or column.unalias().name.lower() != name
    }


def functions_in(sql: str, what: str) -> set[str]:
    """The functions that an expression calls and no SQL that is known here has, `name` or `schema.name`.

    Args:
        sql: one SELECT.
        what: what it is, as the message begins.

    Raises:
        ConfigError: see `tables_in`.
    """
    tables_in(sql, what)
    tree = normalize_identifiers(sqlglot.parse_one(sql, dialect=_DIALECTS[0]), dialect=_DIALECTS[0])
    found = set()
    for call in tree.find_all(exp.Anonymous):
        schema = call.parent.this.name if isinstance(call.parent, exp.Dot) else ""
        found.add(f"{schema}.{call.name.lower()}" if schema else call.name.lower())
    return found


def tables_in(sql: str, what: str) -> set[str]:
    """See `tables_read`; for a declaration, which does not know what database its connection will be.

    Args:
        sql: one statement.
        what: what the statement is, as the message begins.

    Raises:
        ConfigError: it is not one SELECT that only reads, in the SQL of any database.
    """
    refused = None
    for dialect in _DIALECTS:
        try:
            return tables_read(sql, dialect)
        except ConfigError as error:
            refused = refused or error
    raise ConfigError(f"{what}: {refused}") from refused


def standing_in(sql: str, dialect: str, table: str, relation: str) -> str:
    """A SELECT that reads `relation` wherever it read `table`.

    Args:
        sql: one statement.
        dialect: sqlglot's name of the database's SQL.
        table: a name without a schema.
        relation: what stands behind FROM instead, without an alias.

    Raises:
        ConfigError: it is not one SELECT that only reads.
    """
    # From the end, so that no place moves before it is reached.
    found = [read for read in _tables(sql, dialect) if read.name == table and not read.db]
    for read in sorted(found, key=lambda read: read.this.meta["start"], reverse=True):
        start, end = read.this.meta["start"], read.this.meta["end"] + 1
        sql = f"{sql[:start]}{relation}{'' if read.alias else f' AS {sql[start:end]}'}{sql[end:]}"
    return sql


def _tables(sql: str, dialect: str) -> list[exp.Table]:
    tree = normalize_identifiers(parse_select(sql, dialect, "The SQL"), dialect=dialect)
    sources = [source for scope in traverse_scope(tree) for source in scope.sources.values()]
    # A function that gives rows stands where a table does, and has no name.
    return [source for source in sources if isinstance(source, exp.Table) and source.name]


def parse_select(sql: str, dialect: str, what: str) -> exp.Query:
    """The syntax tree of a SELECT, WITH included.

    Args:
        sql: one statement.
        dialect: sqlglot's name of the database's SQL.
        what: what the statement is, as the message begins.

    Raises:
        ConfigError: it is not one SELECT that only reads.
    """
    try:
        statements = sqlglot.parse(sql, dialect=dialect or None)
    except SqlglotError as error:
        # The parser marks the place with the codes that colour a terminal.
        said = re.sub(r"\x1b\[\d*m", "", str(error)).strip()
        raise ConfigError(f"{what} cannot be read as {dialect or 'SQL'}: {said}") from error
    # A comment behind the semicolon is a statement of its own to the parser.
    trees = [tree for tree in statements if tree is not None and not isinstance(tree, exp.Semicolon)]
    if len(trees) != 1:
        raise ConfigError(f"{what} has to be one SELECT, and holds {len(trees)} statements.")
    [tree] = trees
    if not isinstance(tree, exp.Query) or (writing := tree.find(*_WRITING)):
        kind = type(tree if not isinstance(tree, exp.Query) else writing).__name__.upper()
        raise ConfigError(f"{what} has to be one SELECT that only reads, and holds {kind}. The load is what writes.")
    return tree


def parameters(sql: str, dialect: str, what: str, known: frozenset[str]) -> frozenset[str]:
    """The names of the parameters, `:name`, that a SELECT uses.

    Args:
        sql: one statement.
        dialect: sqlglot's name of the database's SQL.
        what: what the statement is, as the message begins.
        known: the names that there are values for.

    Raises:
        ConfigError: it is not one SELECT that only reads, or has a parameter that is not known or written otherwise.
    """
    tree = parse_select(sql, dialect, what)
    placeholders = [str(found.this or "?") for found in tree.find_all(exp.Placeholder)]
    used = {*placeholders, *(found.sql(dialect) for found in tree.find_all(exp.Parameter))}
    written = f"A parameter is written :{' or :'.join(sorted(known))}." if known else "Write the value into it."
    if used - known:
        raise ConfigError(f"{what} has the parameter {min(used - known)!r}, and no value for it. {written}")
    if len(placeholders) != len(list(_places(sql, dialect, known))):
        raise ConfigError(f"{what} has a parameter that is not written as one. {written}")
    return frozenset(used)


def for_binding(sql: str, dialect: str, names: frozenset[str] = frozenset()) -> str:
    """The text of a statement for SQLAlchemy's `text`, in which only `names` are parameters.

    A colon in a string, a comment or a slice of an array stays the author's own. What follows the last word is left
    out.
    """
    pieces, done = [], 0
    for start, end in _places(sql, dialect, names):
        pieces += [_escaped(sql[done:start]), sql[start:end]]
        done = end
    # Without what follows the last word: a semicolon, or a comment that would swallow what is put behind it.
    words = [token for token in sqlglot.tokenize(sql, dialect or None) if token.token_type is not TokenType.SEMICOLON]
    return "".join([*pieces, _escaped(sql[done : words[-1].end + 1])])


def _places(sql: str, dialect: str, names: frozenset[str]) -> Iterator[tuple[int, int]]:
    """Where a statement has `:name`, from the colon to the end of the name."""
    for colon, name in itertools.pairwise(sqlglot.tokenize(sql, dialect or None)):
        adjacent = colon.token_type is TokenType.COLON and name.start == colon.end + 1
        if adjacent and sql[name.start : name.end + 1] in names:
            yield colon.start, name.end + 1


def fingerprint(sql: str, dialect: str) -> str:
    """What is the same for two SELECTs that differ in comments, blanks and the case of keywords only.

    Raises:
        ConfigError: it is not one SELECT that only reads.
    """
    plain = parse_select(sql, dialect, "The SQL").sql(dialect or None, comments=False)
    return hashlib.sha256(plain.encode()).hexdigest()


def _escaped(text: str) -> str:
    return _COLON.sub(r"\\:", text)


def undeclared(sql: str, dialect: str, declared: frozenset[str], what: str) -> None:
    """Refuse a SELECT that reads a table nobody declared.

    Raises:
        ConfigError: it does.
    """
    missing = sorted(tables_read(sql, dialect) - declared)
    if missing:
        raise ConfigError(
            f"{what} reads {one_of(missing)}, which its upstreams do not name. Add it to `upstreams`, so that the "
            "runs that load it come first, and what they change is read again."
        )
