"""How hard a text is to read: the Flesch–Kincaid grade level.

J. P. Kincaid et al., Derivation of new readability formulas for Navy enlisted personnel, Research Branch Report 8-75,
1975: 0.39 words a sentence + 11.8 syllables a word - 15.59. Syllables are counted by groups of vowels, less a silent
`e` at the end; figures as one syllable a digit, at most three.
"""

import re
from collections.abc import Iterable

_WORDS = re.compile(r"[A-Za-z]+(?:'[a-z]+)?|\d[\d.,:]*")
_ENDS = re.compile(r"(?<=[.!?])[\"”’)]*\s+")
_VOWELS = re.compile(r"[aeiouy]+")
_SILENT = re.compile(r"(?:[^laeiouy]e|(?:[^tdl]|[aeiouyl]l)ed|(?:[^sxzcgl]|[aeiouy]l)es)$")


def grade(sentences: Iterable[str]) -> float:
    """The grade of a text, each of whose parts is a sentence or several; 0 where there is none."""
    text = [one for part in sentences for one in _ENDS.split(part) if _WORDS.search(one)]
    words = [word for one in text for word in _WORDS.findall(one)]
    if not words:
        return 0.0
    return 0.39 * len(words) / len(text) + 11.8 * sum(map(syllables, words)) / len(words) - 15.59


def syllables(word: str) -> int:
    """Syllables of an English word, or of a figure."""
    if word[0].isdigit():
        return min(3, sum(char.isdigit() for char in word))
    lower = word.lower()
    count = len(_VOWELS.findall(lower))
    return max(1, count - (1 if _SILENT.search(lower) else 0))
