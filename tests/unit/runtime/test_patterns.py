"""A pattern that a card may hold, and what is said of one that it may not."""

import pytest

from midwatch.runtime import patterns

GOOD = [r"A-\d{4}", r"\bRMA\d+\b", r"(?i)order[ -]no\.? \d+", r"(?:a|b)c{1,3}?", r"[^]x]y", r"[\[\]-]1", r"(a+)+b"]
BAD = [
    ("x*", "can match the empty text"), ("a|", "can match the empty text"), (r"\b", "can match the empty text"),
    ("(a", "is no pattern"), ("[a-", "is no pattern"), ("a{2000}", "is no pattern"),
    ("^a", "holds ^"), ("a$", "holds $"),
    ("(?=a)b", "holds (?…"), ("(?P<n>a)", "holds (?…"), ("a(?i)b", "holds (?…"), (r"(a)\1", r"holds \1"),
    (r"\p{L}", r"holds \p"), (r"\Aa", r"holds \A"), ("[[:alpha:]]", "holds an unescaped ["), ("a" * 201, "has 201"),
    ("a\n", "holds control characters"), ("(x{500}){500}", "is no pattern"), (r"\w{1000}\W{1000}" * 5, "is too large"),
]  # fmt: skip


@pytest.mark.parametrize("pattern", GOOD)
def test_it_is_taken(pattern: str) -> None:
    patterns.check(pattern)


@pytest.mark.parametrize(("pattern", "says"), BAD)
def test_it_is_refused_with_what_to_do(pattern: str, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        patterns.check(pattern)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_a_pattern_that_would_take_re_for_ever_takes_a_moment() -> None:
    assert patterns.compiled(r"(a+)+b").search("a" * 200_000) is None
