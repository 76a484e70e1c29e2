"""`Counts`: every change has exactly one outcome, and the sum says so."""

from dataclasses import replace

from hypothesis import strategies as st

from tasks.counts import Counts
from tests.properties.effort import Prove, effort

OUTCOMES = ("inserted", "updated", "deleted", "unchanged", "deduplicated", "stale", "rejected", "filtered")
"""Written out here, so that a term that `Counts` forgets is missed."""

COUNTS = st.builds(Counts, **{name: st.integers(0, 5) for name in Counts().as_dict()})
BALANCED = st.fixed_dictionaries({name: st.integers(0, 5) for name in OUTCOMES}).flatmap(
    lambda outcomes: st.integers(0, sum(outcomes.values())).map(
        lambda added: Counts(extracted=sum(outcomes.values()) - added, added=added, **outcomes)
    )
)


@effort(few=50, many=3_000)
def test_counts_balance_where_every_change_has_an_outcome(prove: Prove) -> None:
    def claim(counts: Counts) -> None:
        terms = counts.as_dict()
        assert counts.balanced == (terms["extracted"] + terms["added"] == sum(terms[name] for name in OUTCOMES))

    prove(COUNTS | BALANCED, claim)


@effort(few=50, many=1_000)
def test_one_change_more_in_any_term_breaks_the_balance(prove: Prove) -> None:
    def claim(counts: Counts) -> None:
        assert counts.balanced
        for name, value in counts.as_dict().items():
            assert not replace(counts, **{name: value + 1}).balanced

    prove(BALANCED, claim)


def test_a_negative_term_never_balances() -> None:
    assert not Counts(extracted=0, inserted=1, updated=-1).balanced


@effort(few=40, many=1_000)
def test_the_error_rate_is_a_share_from_zero_to_one(prove: Prove) -> None:
    def claim(counts: Counts) -> None:
        assert 0 <= counts.error_rate <= 1
        assert counts.error_rate * (counts.extracted + counts.added) == counts.rejected or counts.extracted > 0
        if counts.extracted + counts.added == 0:
            assert counts.error_rate == 0

    prove(BALANCED, claim)


def test_the_error_rate_is_of_what_came_in_with_what_was_added() -> None:
    assert Counts(extracted=3, added=1, rejected=1, inserted=3).error_rate == 0.25


@effort(few=40, many=1_000)
def test_sums_add_every_term(prove: Prove) -> None:
    def claim(pair: tuple[Counts, Counts]) -> None:
        one, other = pair
        assert (one + other).as_dict() == {name: value + other.as_dict()[name] for name, value in one.as_dict().items()}

    prove(st.tuples(COUNTS, COUNTS), claim)


def test_counts_read_as_what_happened() -> None:
    assert str(Counts(extracted=1_234, inserted=1_234)) == "extracted 1,234, inserted 1,234"
    assert str(Counts()) == "nothing"
