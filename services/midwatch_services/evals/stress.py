"""Perturbed twins of cases: what the customer says is messier, and what is asked of the agent stays. The same seed
makes the same twins on every machine. Pure."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from midwatch.errors import MidwatchError

from .case import Case
from .model import PERTURBATIONS, Perturbation
from .say import quoted
from .stress_words import ALSO, FRAMES, INSTRUCTIONS, NEIGHBOURS

_TOKEN = re.compile(r"\S+|\s+")
_CORE = re.compile(r"^\W*(.*?)\W*$", re.DOTALL)
_PUNCTUATION = re.compile(r"[.,;:!?…\"“”()]+")
_WORDS_A_TYPO = 7  # one typo in so many words
_LETTERS = 4  # of a word that may get one

Translate = Callable[[str, str], str]  # text and language to text


class NoLanguage(MidwatchError):
    """{language!r} is no language that sentences are written for ({known}): name one of them, or translate with a
    function of your own (--translate module:function)."""


class NotTranslated(MidwatchError):
    """The function of --translate gave no text for a message of {case}: {why}."""


class LostInTranslation(MidwatchError):
    """The translation of {case} lost {words}, which tools need: let the function keep such words."""


@dataclass(frozen=True, slots=True)
class Wish:
    """Which twins: `language` frames the customer's words in hand-written sentences of it; `translate` translates them
    instead."""

    kinds: tuple[Perturbation, ...] = PERTURBATIONS
    language: str = "de"
    translate: Translate | None = None
    seed: int = 0


def twins(case: Case, others: Sequence[Case], wish: Wish) -> Iterator[Case]:
    """The twins of a case; none with several requests where there is no other case. Raises NoLanguage,
    LostInTranslation."""
    for kind in wish.kinds:
        random = Random(f"{wish.seed}/{case.agent}/{case.name}/{kind}")  # noqa: S311
        second = _second(case, others, random) if kind == "several" else None
        if kind != "several" or second:
            yield replace(
                case, name=f"{case.name}--{kind}", turns=tuple(_perturbed(kind, case, second, wish, random)),
                also=(second.run_id,) if second and second.run_id else (), twin_of=case.name, perturbation=kind,
                agreed=(),
            )  # fmt: skip


def _perturbed(kind: Perturbation, case: Case, second: Case | None, wish: Wish, random: Random) -> Sequence[str]:
    needed = needed_words(case)
    if kind == "typos":
        return [_with_typos(turn, needed, random) for turn in case.turns]
    if kind == "shouting":
        return [_shouted(turn, needed) for turn in case.turns]
    if second:
        return _several(case, second, random)
    if kind == "language":
        return _in_language(case, wish)
    at = random.randrange(len(case.turns))
    instruction = random.choice(INSTRUCTIONS)
    return [*case.turns[:at], f"{case.turns[at]}\n\n{instruction}", *case.turns[at + 1 :]]


def needed_words(case: Case) -> set[str]:
    """Words that tools are called with, in small letters: an agent that does not get them cannot do what is asked."""
    given: list[Any] = [call.arguments for call in case.recorded]
    rules = (*case.expect.calls, *(case.expect.writes or ()))
    given += [list(rule.arguments.values()) for rule in rules]
    return {word for text in _texts(given) for word in re.findall(r"\w+", text.casefold())}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield str(value)


def _kept(token: str, needed: set[str]) -> bool:
    """Whether the token is an identifier, a number, an address, or a word that tools need."""
    core = _CORE.sub(r"\1", token)
    plain = all(char.isalpha() or char in "'’-" for char in core)
    odd = not plain or (len(core) > 1 and core[1:] != core[1:].lower())
    return bool(core) and (odd or any(word in needed for word in re.findall(r"\w+", core.casefold())))


def _with_typos(text: str, needed: set[str], random: Random) -> str:
    tokens = _TOKEN.findall(text)
    may = [at for at, token in enumerate(tokens) if sum(map(str.isalpha, token)) >= _LETTERS]
    may = [at for at in may if not _kept(tokens[at], needed)]
    wanted = min(len(may), max(1, len(tokens) // 2 // _WORDS_A_TYPO))
    for at in sorted(random.sample(may, wanted)):
        tokens[at] = _misspelt(tokens[at], random)
    return "".join(tokens)


def _misspelt(token: str, random: Random) -> str:
    """The token with two letters swapped, one dropped, or one that its neighbour on the keyboard took the place of."""
    # The first letter stays: people see to that one.
    inside = [at for at in range(1, len(token) - 1) if token[at].isalpha() and token[at + 1].isalpha()]
    swap = [at for at in inside if token[at] != token[at + 1]]
    slip = [at for at in inside if token[at] in NEIGHBOURS]
    ways = [name for name, places in (("swap", swap), ("drop", inside), ("slip", slip)) if places]
    if not ways:
        return token
    way = random.choice(ways)
    if way == "swap":
        at = random.choice(swap)
        return token[:at] + token[at + 1] + token[at] + token[at + 2 :]
    if way == "drop":
        at = random.choice(inside)
        return token[:at] + token[at + 1 :]
    at = random.choice(slip)
    return token[:at] + random.choice(NEIGHBOURS[token[at]]) + token[at + 1 :]


def _shouted(text: str, needed: set[str]) -> str:
    """In capitals and without punctuation, save what tools need as it stands."""
    parts = []
    for token in _TOKEN.findall(text):
        core = _CORE.sub(r"\1", token)
        if token.isspace():
            parts.append(token)
        elif _kept(token, needed):
            parts.append(token.strip('.,;:!?…"“”()') or token)
        else:
            parts.append(_PUNCTUATION.sub("", token).upper() if core else "")
    shouted = "".join(parts).strip()
    return shouted or text


def _second(case: Case, others: Sequence[Case], random: Random) -> Case | None:
    some = sorted((one for one in others if _is_other(one, case)), key=lambda one: one.name)
    return random.choice(some) if some else None


def _several(case: Case, second: Case, random: Random) -> Sequence[str]:
    """With another case's first request in the same message, before or after."""
    both = [case.turns[0], second.turns[0]]
    if random.random() < 0.5:
        both.reverse()
    return [random.choice(ALSO).format(first=both[0].strip(), second=both[1].strip()), *case.turns[1:]]


def _is_other(one: Case, case: Case) -> bool:
    return not one.twin_of and one.name != case.name and (not one.task or one.task != case.task)


def _in_language(case: Case, wish: Wish) -> Sequence[str]:
    if wish.translate is not None:
        turns = [_translated(turn, case, wish.language, wish.translate) for turn in case.turns]
        lost = sorted(_odd_words(case.turns) & needed_words(case) - _odd_words(turns))
        if lost:
            raise LostInTranslation(case=case.name, words=", ".join(lost))
        return turns
    if wish.language not in FRAMES:
        raise NoLanguage(language=wish.language, known=", ".join(FRAMES))
    before, after = FRAMES[wish.language]
    return [f"{before}\n\n{case.turns[0]}\n\n{after}", *case.turns[1:]]


def _translated(turn: str, case: Case, language: str, translate: Translate) -> str:
    try:
        found = translate(turn, language)
    except Exception as error:
        raise NotTranslated(case=case.name, why=f"it raised {type(error).__name__}: {quoted(str(error))}") from None
    if not isinstance(found, str) or not found.strip():
        raise NotTranslated(case=case.name, why=f"it gave {quoted(repr(found))}")
    return found


def _odd_words(turns: Sequence[str]) -> set[str]:
    """Words with a digit in them."""
    found = {word for turn in turns for word in re.findall(r"\w+", turn.casefold())}
    return {word for word in found if any(char.isdigit() for char in word)}
