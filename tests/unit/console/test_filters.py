"""How values are written on a page."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from markupsafe import Markup

from midwatch_services.console.filters import cost, day, is_cut, labelled, money, said, share, took, when


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("plain, ümläut, 日本語, 👩‍👩‍👧", "plain, ümläut, 日本語, 👩‍👩‍👧"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[31mred\x07", "␛[31mred␇"),
        ("exe\u202egnp", "exe⟨U+202E⟩gnp"),
        ("a\u2066b\u200bc\ufeff", "a⟨U+2066⟩b⟨U+200B⟩c⟨U+FEFF⟩"),
        ("tag\U000e0041", "tag⟨U+E0041⟩"),
        ("half\ud83d", "half⟨U+D83D⟩"),
        ("a\r\nb\rc\x7f\x85", "a\nb␍c␡⟨U+0085⟩"),
        ({"to\u202e": "a\u200bb"}, "“to⟨U+202E⟩”: “a⟨U+200B⟩b”"),
    ],
)
def test_nothing_hides_in_what_somebody_wrote(written: object, shown: str) -> None:
    assert said(written) == shown


def test_a_long_text_is_cut_and_says_so() -> None:
    assert said("x" * 700, 600) == "x" * 600 + "…"
    assert is_cut("x" * 601)
    assert not is_cut("x" * 600)


def test_a_moment_is_utc_until_the_browser_says_it_in_its_own_zone() -> None:
    wanted = '<time datetime="2026-11-25T10:00:01Z" data-when>2026-11-25 10:00 UTC</time>'
    assert when("2026-11-25T11:00:01.5+01:00") == wanted
    assert when(datetime(2026, 11, 25, 10, 0, 1, tzinfo=UTC)) == wanted
    assert when(None) == "–"


def test_what_is_not_known_is_no_zero() -> None:
    assert money(sum([0.1] * 9)) == "$0.90"
    assert (money(None), money(Decimal("0.0123")), money("12")) == ("unknown", "$0.0123", "$12.00")
    assert (share(None), share(0.001), share(0.999), share(1.0)) == ("–", "less than 1 %", "more than 99 %", "100 %")
    assert (took(None), took(0.05), took(1.25), took(90), took(7200)) == (
        "–", "50 ms", "1.2 s", "90 seconds", "2 hours",
    )  # fmt: skip


def test_a_day_is_written_as_the_catalogue_has_it() -> None:
    of = date(2026, 11, 1)
    assert [day(of), day(of, "year"), day(of, "short"), day(of, "date")] == [
        "Sunday, 1 November", "Sunday, 1 November 2026", "1 November", "1 November 2026",
    ]  # fmt: skip


def test_a_cell_with_a_name_of_its_own_keeps_that_alone() -> None:
    assert labelled('<td class="num" data-label="Own">3</td><td>4</td>', ["#Runs", "Cost"]) == (
        '<td class="num" data-label="Own">3</td><td data-label="Cost">4</td>'
    )


def test_a_cell_says_the_name_of_its_column_and_one_that_heads_its_row_does_not() -> None:
    cells = Markup('<th scope="row">desk</th><td>3</td><td class="num">$1</td><td>–</td>')
    assert labelled(cells, ["Agent", "#Runs", "Co<st", ""]) == (
        '<th scope="row">desk</th><td data-label="Runs">3</td><td data-label="Co&lt;st" class="num">$1</td><td>–</td>'
    )


@pytest.mark.parametrize(
    ("amount", "basis", "shown"),
    [
        ("1.20", "priced", "$1.20"),
        ("1.20", "reported", "$1.20"),
        ("1.20", "estimated", "$1.20 (estimated)"),
        (None, "unpriced", "unpriced"),
        (None, None, "–"),
    ],
)
def test_a_cost_says_how_it_is_known_where_that_is_not_sure(amount: str | None, basis: str | None, shown: str) -> None:
    assert cost({"cost_usd": amount, "cost_basis": basis, "unpriced_calls": 0}) == shown
