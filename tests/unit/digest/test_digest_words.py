"""Counts, money, time and other people's words, as they stand in a sentence."""

from datetime import date
from decimal import Decimal

import pytest

from midwatch_services.digest import words


@pytest.mark.parametrize(
    ("count", "text"), [(0, "no runs"), (1, "1 run"), (2, "2 runs"), (1200, "1,200 runs")]
)  # fmt: skip
def test_a_count_has_its_noun(count: int, text: str) -> None:
    assert words.many(count, "run") == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 0, "0 %"), (0, 9, "0 %"), (1, 3, "33 %"), (1, 8, "13 %"), (1, 1000, "less than 1 %"), (5, 5, "100 %"),
        (999, 1000, "more than 99 %"),
    ],
)  # fmt: skip
def test_what_is_there_is_never_nothing_and_what_is_not_all_never_all(part: int, whole: int, text: str) -> None:
    assert words.share(part, whole).replace("\u00a0", " ") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "less than a second"), (1, "1 second"), (45.4, "45 seconds"), (119, "119 seconds"), (120, "2 minutes"),
        (3600, "60 minutes"), (7500, "2 hours 5 minutes"), (7200, "2 hours"), (80_000, "22 hours"),
        (200_000, "2 days"), (7260, "2 hours 1 minute"),
    ],
)  # fmt: skip
def test_a_length_of_time_is_told_as_people_do(seconds: float, text: str) -> None:
    assert words.length(seconds) == text


def test_a_budget_is_not_reached_in_words_before_it_is_in_fact() -> None:
    assert words.percent(Decimal("0.999")) == "99\u00a0%"
    assert words.percent(Decimal("0.001")) == "less than 1\u00a0%"
    assert words.percent(Decimal("12.5")) == "1,250\u00a0%"


def test_a_sum_of_floating_point_is_told_to_the_cent() -> None:
    assert words.money(Decimal(str(0.1 + 0.7))) == "$0.80"
    assert words.money(Decimal("0")) == "$0.00"


def test_lists_end_with_and() -> None:
    assert [words.listed(some) for some in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]


def test_a_day_has_its_name() -> None:
    assert words.day(date(2026, 11, 5)) == "Thursday, 5 November 2026"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Where is order #W2378156?", "Where is order …?"),
        ("My id is mia_li_3668, thanks.", "My id is …, thanks."),
        ("ask_for_refund failed", "ask for refund failed"),
        ("write to ann@shop.example or https://x.example/a", "write to … or …"),
        ("reservation XEHM4B and IFOYYZ", "reservation … and …"),
        ("from IAH to SEA on May 23rd at 10:30am", "from IAH to SEA on May 23rd at 10:30am"),
        ("it was $1,250.50 in 2024", "it was $1,250.50 in 2024"),
        ("pay 4111 1111 1111 1111 or +49 170 1234567", "pay … or …"),
        ("card 4111111111111111", "card …"),
        ("WHERE IS MY REFUND", "WHERE IS MY REFUND"),
        ("one\x1b[31m two\u202e three\n\nfour", "one [31m two three four"),
        ("###STOP### bye", "bye"),
        ("3f9a77c0-aaaa-bbbb-cccc-1234567890ab", "…"),
    ],
)  # fmt: skip
def test_ids_are_left_out_and_field_names_are_words(said: str, shown: str) -> None:
    assert words.plain(said) == shown


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("", ""), ("  ", ""), ("...", ""),
        ("Hi! I need my money back. Now.", "“I need my money back – Now”"),
        ("hello there, can you help?", "“Can you help?”"),
        ('He said "no" to me', "“He said 'no' to me”"),
        ("high prices", "“High prices”"),
        (" ".join(["word"] * 20), "“Word " + " ".join(["word"] * 15) + " …”"),
        ("cancel XEHM4B.", "“Cancel …”"),
    ],
)  # fmt: skip
def test_a_customers_words_are_one_short_quotation(said: str, shown: str) -> None:
    assert words.quote(said) == shown


def test_a_tool_is_named_in_words() -> None:
    assert [words.tool(name) for name in ("issue_refund", "lookup-order", "getOrder")] == [
        "issue refund", "lookup order", "get order",
    ]  # fmt: skip
