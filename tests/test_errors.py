"""What errors say, and what they never say."""

import traceback
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import strategies as st
from sqlalchemy import select

from tasks import connections, errors
from tasks.errors import TidegateError, one_of, redact, remember_secret
from tasks.pipeline import Pipeline, run_pipeline
from tasks.state.tables import runs
from tests.conftest import Databases
from tests.orders import ORDERS
from tests.properties.effort import Prove, effort

ONCE: Pipeline = replace(ORDERS, max_attempts=1)

# Letters that no other test uses: what is remembered here is masked for the rest of the session.
GREEK = "αβγδεζηθικλμνξοπρστυφχψω"
SECRETS = st.lists(st.text(GREEK, min_size=4, max_size=9), min_size=1, max_size=3)
AROUND = st.text(GREEK + " :/@=&\"'abc\n", max_size=6)


@effort(few=40, many=2_000)
def test_a_remembered_secret_never_appears(prove: Prove) -> None:
    def claim(example: tuple[list[str], list[str]]) -> None:
        secrets, around = example
        for secret in secrets:
            remember_secret(secret)
        text = "".join(f"{before}{secret}" for before, secret in zip(around, secrets * len(around), strict=False))
        for shown in (redact(text), str(TidegateError(text)), repr(TidegateError(text))):
            assert not [secret for secret in secrets if secret in shown]

    prove(st.tuples(SECRETS, st.lists(AROUND, min_size=1, max_size=4)), claim)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql+psycopg://ann:hidden@db:5432/x", "postgresql+psycopg://ann:***@db:5432/x"),
        ("two: http://a:hidden@x and https://b:hidden@y", "two: http://a:***@x and https://b:***@y"),
        ("redis://:hidden@cache", "redis://:***@cache"),
        ("host=db user=ann password=hidden dbname=x", "host=db user=ann password=*** dbname=x"),
        ("password='hidden'", "password='***'"),
        ("?user=ann&password=hidden&sslmode=require", "?user=ann&password=***&sslmode=require"),
        ("Authorization: Bearer hid.den-1", "Authorization: ***"),
        ("{'authorization': 'Basic aGlkZGVu'}", "{'authorization': '***'}"),
        ('{"token": "hidden", "page": 2}', '{"token": "***", "page": 2}'),
        ("https://api/v1?api_key=hidden&page=2", "https://api/v1?api_key=***&page=2"),
        ("client_secret=hidden; access_token=hidden", "client_secret=***; access_token=***"),
    ],
)
def test_what_follows_a_telling_name_is_masked_and_the_rest_is_not(text: str, masked: str) -> None:
    assert redact(text) == masked
    assert str(TidegateError(text)) == masked


@pytest.mark.parametrize(
    "text",
    [
        "the key ('origin', 'time_hour') is not unique",
        "12 of 3,000 rows were rejected: [2013-01-08T00:00:00+00:00, the end)",
        "https://example.org/a?b=c",
        "mail ann@example.org",
        "a tokenizer of passwords",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert redact(text) == text


def test_a_secret_too_short_to_tell_from_text_is_not_masked_everywhere() -> None:
    remember_secret("the")
    assert redact("the end") == "the end"


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """Every error is drawn, under the one it derives from."""
    drawn = [line for line in (errors.__doc__ or "").splitlines() if "──" in line]
    group, found = "", {}
    for line in drawn:
        name = line.split("──")[1].split()[0]
        nested = line.startswith("    │") or line.startswith("        ├") or line.startswith("        └")
        found[name] = group if nested else "TidegateError"
        group = group if nested else name
    defined = {
        kind.__name__: kind.__base__.__name__
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, TidegateError) and kind is not TidegateError and kind.__base__
    }
    assert found == defined


def test_choices_read_as_a_person_would_list_them() -> None:
    assert (one_of(["a"]), one_of(["a", "b"]), one_of(["a", "b", "c"])) == ("'a'", "'a' or 'b'", "'a', 'b' or 'c'")


URLS = {
    "plain": "postgresql://ann:Kq7-zdXw@127.0.0.1:1/db",
    "quoted": "postgresql://ann:Kq7-%40zdXw@127.0.0.1:1/db",
    "in the query": "postgresql://127.0.0.1:1/db?user=ann&password=Kq7-zdXw",
    "malformed": "postgresql//ann:Kq7-zdXw@127.0.0.1:1/db",
}


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
def test_a_password_shows_nowhere_when_a_database_cannot_be_reached(
    sqlite: Databases, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, side: str, url: str
) -> None:
    """Nothing listens there. The whole chain of errors with its traceback, every log line, and the ledger."""
    monkeypatch.setenv(f"TIDEGATE_{side.upper()}_URL", url)
    with caplog.at_level("DEBUG"), pytest.raises(TidegateError) as raised:
        run_pipeline(ONCE)
    shown = "".join(traceback.format_exception(raised.value)) + caplog.text
    if side == "source":
        with connections.engine("target").connect() as connection:
            shown += "".join(str(row) for row in connection.execute(select(runs)).all())
    assert "127.0.0.1" in shown or "not a database URL" in shown
    assert "zdXw" not in shown


def test_the_ledger_keeps_the_message_of_a_failed_attempt_without_its_secret(sqlite: Databases, tmp_path: Path) -> None:
    """The password is in the statement that the source refuses, and so in the driver's error."""
    query = "SELECT id, customer, amount, updated_at FROM orders WHERE password = 'Kq7-zdXw'"
    extract = replace(ORDERS.extract, table=None, query=query)  # type: ignore[type-var]
    with pytest.raises(TidegateError):
        run_pipeline(replace(ONCE, extract=extract))
    with sqlite.target.connect() as connection:
        entry = connection.execute(select(runs)).one()
    assert entry.status == "failed"
    assert "SourceError" in entry.message
    assert "zdXw" not in entry.message
