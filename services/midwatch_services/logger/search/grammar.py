"""What a person asks for in words: `refund "two weeks" cancel* -weather`. Pure.

Every word must occur, a phrase with its words side by side, a word with `*` as the beginning of one, a word with `-`
must not. What is asked becomes a `Question` of plain words; only those are ever written into a query of a database.
"""

import re
from dataclasses import dataclass

from midwatch.errors import MidwatchError

from .marks import EVERY
from .words import words

MOST = 32  # terms of one question
SHORTEST_BEGINNING = 3  # letters before a `*`: of so many SQLite has an index
_TERM = re.compile(r'(?P<no>-?)(?:"(?P<phrase>[^"]*)"?|(?P<word>[^\s"]+))(?P<star>\*?)')


class BadQuestion(MidwatchError):
    """{problem}: words must all occur; "words in quotes" side by side; beginning* ; -not."""


@dataclass(frozen=True, slots=True)
class Term:
    """Words that stand side by side; of the last one, with `begins`, only the beginning."""

    words: tuple[str, ...]
    begins: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """What must occur: each of `wanted`, one of each of `one_of`, none of `unwanted`."""

    wanted: tuple[Term, ...] = ()
    unwanted: tuple[Term, ...] = ()
    one_of: tuple[tuple[str, ...], ...] = ()


def parse(text: str) -> Question:
    """Raises BadQuestion where nothing is asked, or too much."""
    wanted, unwanted = list[Term](), list[Term]()
    for found in _TERM.finditer(text):
        written = found["phrase"] if found["phrase"] is not None else found["word"]
        begins = bool(found["star"]) or (found["word"] or "").endswith("*")
        term = Term(tuple(words(written)), begins)
        if not term.words:
            continue
        if begins and len(term.words[-1]) < SHORTEST_BEGINNING:
            raise BadQuestion(problem=f"{written!r} with a * needs {SHORTEST_BEGINNING} letters before it")
        (unwanted if found["no"] else wanted).append(term)
    count = sum(len(term.words) for term in (*wanted, *unwanted))
    if not count:
        raise BadQuestion(problem=f"{text!r} has no word in it")
    if count > MOST:
        raise BadQuestion(problem=f"{count} words are asked for, {MOST} can be")
    return Question(tuple(wanted), tuple(unwanted))


def for_sqlite(question: Question) -> str:
    """The question as FTS5 takes it in MATCH."""
    parts = [_fts5(term) for term in question.wanted]
    parts += [f"({' OR '.join(_quoted(mark) for mark in marks)})" for marks in question.one_of]
    asked = " AND ".join(parts) or _quoted(EVERY)
    if not question.unwanted:
        return asked
    return f"({asked}) NOT ({' OR '.join(_fts5(term) for term in question.unwanted)})"


def broadened(question: Question) -> Question:
    """The question with each beginning cut to the letters that SQLite has an index of, and without those that must not
    occur; itself where none is longer."""

    def cut(term: Term) -> Term:
        if not term.begins:
            return term
        return Term((*term.words[:-1], term.words[-1][:SHORTEST_BEGINNING]), begins=True)

    unwanted = tuple(term for term in question.unwanted if cut(term) == term)
    return Question(tuple(map(cut, question.wanted)), unwanted, question.one_of)


def holds(question: Question, text: str) -> bool:
    """Whether all that is wanted stands in a text of words, and nothing that is not."""
    text = f" {text} "

    def stands(term: Term) -> bool:
        return f" {' '.join(term.words)}{'' if term.begins else ' '}" in text

    return all(map(stands, question.wanted)) and not any(map(stands, question.unwanted))


def for_postgres(question: Question) -> str:
    """The question as PostgreSQL reads a tsquery."""
    parts = [_tsquery(term) for term in question.wanted]
    parts += ["(" + " | ".join(f"'{mark}'" for mark in marks) + ")" for marks in question.one_of]
    parts = parts or [f"'{EVERY}'"]
    return " & ".join([*parts, *(f"!{_tsquery(term)}" for term in question.unwanted)])


def _quoted(text: str) -> str:
    return f'"{text}"'


def _fts5(term: Term) -> str:
    return _quoted(" ".join(term.words)) + ("*" if term.begins else "")


def _tsquery(term: Term) -> str:
    each = [f"'{word}'" for word in term.words]
    return f"({' <-> '.join(each)}{':*' if term.begins else ''})"
