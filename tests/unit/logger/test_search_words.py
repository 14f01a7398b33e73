"""Words, questions and marks: what is stored and what is asked meet."""

import pytest

from midwatch_services.logger.search import grammar, marks
from midwatch_services.logger.search.grammar import BadQuestion, Question, Term, parse
from midwatch_services.logger.search.words import words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Where is MY order?", ["where", "is", "my", "order"]),
        ("Café — Ångström, STRASSE/straße", ["cafe", "angstrom", "strasse", "strasse"]),
        ("emma_kim_9957, A-1001, $1,250.00", ["emma", "kim", "9957", "a", "1001", "1", "250", "00"]),
        ("注文 A はどこ", ["注", "文", "a", "は", "ど", "こ"]),
        ("한국어 주문", ["한국어", "주문"]),
        ("§t1 \x00 ' \" * -", ["t1"]),
        ("x" * 100, ["x" * 64]),
    ],
)
def test_a_word_is_letters_and_digits_without_case_or_accents(text: str, found: list[str]) -> None:
    assert words(text) == found


def test_a_question_is_words_phrases_beginnings_and_what_must_not_be() -> None:
    assert parse('Refund "two weeks" cancel* -weather -"bad luck" "of my ord"*') == Question(
        wanted=(
            Term(("refund",)), Term(("two", "weeks")), Term(("cancel",), begins=True),
            Term(("of", "my", "ord"), begins=True),
        ),
        unwanted=(Term(("weather",)), Term(("bad", "luck"))),
    )  # fmt: skip


def test_what_is_several_words_to_the_log_is_a_phrase() -> None:
    assert parse("A-1001").wanted == (Term(("a", "1001")),)


def test_a_quote_that_nobody_closed_goes_to_the_end() -> None:
    assert parse('refund "two weeks').wanted == (Term(("refund",)), Term(("two", "weeks")))


@pytest.mark.parametrize("text", ["", "  ", "?!", '""', "*", "-", "§", "ab*", "word " * 33])
def test_a_question_without_words_or_with_too_many_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(BadQuestion) as error:
        parse(text)
    assert "\n" not in str(error.value)


def test_a_question_as_sqlite_takes_it() -> None:
    question = parse('refund "two weeks" can* -weather -x1')
    assert grammar.for_sqlite(question) == '("refund" AND "two weeks" AND "can"*) NOT ("weather" OR "x1")'
    assert grammar.for_sqlite(parse("-weather")) == '("§") NOT ("weather")'
    marked = Question(wanted=(Term(("a",)),), one_of=(("§x", "§y"),))
    assert grammar.for_sqlite(marked) == '"a" AND ("§x" OR "§y")'


def test_a_question_as_postgresql_takes_it() -> None:
    question = parse('refund "two weeks" can* -weather')
    assert grammar.for_postgres(question) == "('refund') & ('two' <-> 'weeks') & ('can':*) & !('weather')"
    assert grammar.for_postgres(parse("-weather")) == "'§' & !('weather')"


def test_a_long_beginning_is_looked_for_by_a_short_one_and_then_looked_at() -> None:
    question = parse('reserv* "gift car"*')
    assert grammar.broadened(question) == parse('res* "gift car"*')
    assert grammar.holds(question, "my reservation and a gift card")
    assert not grammar.holds(question, "my resort and a gift card")
    assert not grammar.holds(question, "my reservation and a card gift")
    assert grammar.broadened(parse("refund ref* -ref*")) == parse("refund ref* -ref*")
    assert grammar.broadened(parse("refund -reserv* -gift")) == parse("refund -gift")
    assert not grammar.holds(parse("refund -reserv*"), "refund my reservation")
    assert grammar.holds(parse("refund -reserv*"), "refund my resort")


@pytest.mark.parametrize(
    ("figure", "at"),
    [(2**20, 40), (1_482_910, 40), (1_482_911, 41), (2**21 - 1, 41), (2**21, 42), (0, 28), (1, 28), (2**200, 80)],
)
def test_each_power_of_two_has_two_brackets(figure: int, at: int) -> None:
    assert marks.bracket(figure) == at


def test_brackets_of_a_span_are_those_of_all_its_figures() -> None:
    assert marks.brackets("p", 2**20, 2**21) == ["§p40", "§p41", "§p42"]
    assert marks.brackets("p", None, 2**15) == ["§p28", "§p29", "§p30"]
    assert marks.brackets("p", 2**60, None) == ["§p80"]


def test_the_hours_of_a_span_are_covered_by_few_marks_and_no_other_hour_is() -> None:
    zero = 2**31
    assert list(marks.span_of_hours(15, 32)) == [f"§h0x{zero + 15}", f"§h1x{zero + 1}", f"§h0x{zero + 32}"]
    assert list(marks.span_of_hours(4096, 8191)) == [f"§h3x{zero + 1}"]
    assert list(marks.span_of_hours(-1, 0)) == [f"§h0x{zero - 1}", f"§h0x{zero}"]


def test_numbers_are_in_the_order_of_time_and_differ_at_one_time() -> None:
    earlier = marks.number("2026-11-22T12:00:00.000000Z", "desk", "r-1")
    later = marks.number("2026-11-22T12:00:00.000001Z", "desk", "r-1")
    again = marks.number("2026-11-22T12:00:00.000000Z", "desk", "r-1", attempt=1)
    assert earlier < later
    assert again != earlier
    assert marks.least("2026-11-22T12:00:00.000000Z") <= again < marks.least("2026-11-22T12:00:01.000000Z")


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z"])
def test_a_clock_that_is_far_off_still_makes_a_number(time: str) -> None:
    assert -(2**62) <= marks.number(time, "desk", "r-1") <= 2**62 + marks.SLACK
    assert all(mark.isalnum() for mark in (one[1:] for one in marks.hours_of(marks.number(time, "desk", "r-1"))))
