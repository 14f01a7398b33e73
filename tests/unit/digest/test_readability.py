"""The Flesch–Kincaid grade against texts whose words, sentences and syllables were counted by hand."""

import pytest

from midwatch_services.digest.readability import grade, syllables


@pytest.mark.parametrize(
    ("word", "count"),
    [("run", 1), ("agent", 2), ("handed", 2), ("stopped", 1), ("settled", 2), ("table", 2), ("note", 1),
     ("customer", 3),
     ("12", 2), ("2026", 3), ("the", 1), ("minutes", 2), ("cases", 2)],
)  # fmt: skip
def test_syllables_are_counted(word: str, count: int) -> None:
    assert syllables(word) == count


def test_the_formula_is_that_of_1975() -> None:
    # 6 words and 6 syllables in one sentence: 0.39 * 6 + 11.8 - 15.59.
    assert grade(["The cat sat on the mat."]) == pytest.approx(-1.45)
    # 9 words in 2 sentences, 12 syllables.
    assert grade(["The agent stopped. Nobody has taken it on yet."]) == pytest.approx(
        0.39 * 4.5 + 11.8 * 13 / 9 - 15.59
    )


def test_a_text_without_words_has_no_grade() -> None:
    assert grade([]) == 0


def test_clauses_are_no_sentences() -> None:
    assert grade(["One, two; three: four."]) == grade(["One two three four."])
