"""`docs/load-sql.md` shows what the code runs."""

from tests.load.statements import PAGE, page


def test_the_page_shows_the_statements_of_the_code() -> None:
    """Where it does not: `python -m tests.load.statements` writes it anew."""
    assert PAGE.read_text() == page()
