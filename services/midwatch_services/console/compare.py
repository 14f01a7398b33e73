"""Two runs side by side: their steps aligned, what differs marked. Pure."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from .filters import said
from .run_story import Step

LONGEST = 800  # characters of a text that are shown: those where two begin to differ
_BEFORE = 200  # of them before that
_PART = re.compile(r"\s+|\w+|[^\w\s]")

State = Literal["same", "figures", "differs", "left", "right"]
Pieces = list[tuple[str, bool]]  # a text in parts, each with whether the other has it not


@dataclass(frozen=True, slots=True)
class Text:
    """A text of a step, as both have it. `cut`: a text of the catalogue that says what of it is shown; empty where it
    is all."""

    label: str
    left: Pieces
    right: Pieces
    cut: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """A step of both, or of one of them alone. `figures`: the words are the same, the tokens or the cost are not."""

    state: State
    left: Step | None
    right: Step | None
    texts: list[Text]


def align(left: Sequence[Step], right: Sequence[Step], is_late: Callable[[], bool] = lambda: False) -> list[Pair]:
    """The steps of both in order: those that are of a kind stand beside each other. Once it `is_late`, what differs of
    a text is marked as one piece: an agent may write texts that take a second each to tell apart."""
    matcher = SequenceMatcher(None, [step.key for step in left], [step.key for step in right], autojunk=False)
    pairs: list[Pair] = []
    for _, a, b, c, d in matcher.get_opcodes():
        alike = b - a == d - c and all(x.key == y.key for x, y in zip(left[a:b], right[c:d], strict=True))
        if alike:
            pairs += [_both(x, y, is_late) for x, y in zip(left[a:b], right[c:d], strict=True)]
        else:
            pairs += [Pair("left", step, None, _alone(step, is_left=True)) for step in left[a:b]]
            pairs += [Pair("right", None, step, _alone(step, is_left=False)) for step in right[c:d]]
    return pairs


def _both(left: Step, right: Step, is_late: Callable[[], bool]) -> Pair:
    labels = list(dict.fromkeys([name for name, _ in left.texts] + [name for name, _ in right.texts]))
    names = [[step.names.get(name) for name in ("tool", "model", "to", "event")] for step in (left, right)]
    texts, same = list[Text](), left.what == right.what and names[0] == names[1]
    for label in labels:
        one, other = _text_of(left, label), _text_of(right, label)
        same = same and one == other
        texts.append(_text(label, one, other, _roughly if is_late() else _marked))
    if not same:
        return Pair("differs", left, right, texts)
    return Pair("same" if _figures(left) == _figures(right) else "figures", left, right, texts)


def _figures(step: Step) -> tuple[object, ...]:
    return step.names.get("input"), step.names.get("output"), step.cost, step.unpriced


def _text(label: str, one: str, other: str, marked: Callable[[str, str], tuple[Pieces, Pieces]]) -> Text:
    if max(len(one), len(other)) <= LONGEST:
        return Text(label, *marked(one, other))
    if one == other:
        return Text(label, [(_stretch(one, 0), False)], [(_stretch(other, 0), False)], "beginning")
    begin = max(0, _alike(one, other) - _BEFORE)
    return Text(label, *marked(_stretch(one, begin), _stretch(other, begin)), "stretch")


def _stretch(text: str, begin: int) -> str:
    before, after = "…" if begin else "", "…" if len(text) > begin + LONGEST else ""
    return f"{before}{text[begin : begin + LONGEST]}{after}"


def _text_of(step: Step, label: str) -> str:
    return "\n".join(said(value) for name, value in step.texts if name == label)


def _alone(step: Step, *, is_left: bool) -> list[Text]:
    found = []
    for label, value in step.texts:
        text = said(value)
        pieces: Pieces = [(_stretch(text, 0), False)]
        cut = "beginning" if len(text) > LONGEST else ""
        found.append(Text(label, pieces if is_left else [], [] if is_left else pieces, cut))
    return found


def _alike(one: str, other: str) -> int:
    """With how many characters both begin."""
    return next((at for at, (x, y) in enumerate(zip(one, other, strict=False)) if x != y), min(len(one), len(other)))


def _roughly(left: str, right: str) -> tuple[Pieces, Pieces]:
    """All between what both begin and end with."""
    begin = _alike(left, right)
    end = _alike(left[begin:][::-1], right[begin:][::-1])

    def pieces(text: str) -> Pieces:
        parts = [(text[:begin], False), (text[begin : len(text) - end], True), (text[len(text) - end :], False)]
        return [part for part in parts if part[0]]

    return pieces(left), pieces(right)


def _marked(left: str, right: str) -> tuple[Pieces, Pieces]:
    if left == right:
        return [(left, False)], [(right, False)]
    one, other = _PART.findall(left), _PART.findall(right)
    pieces: tuple[Pieces, Pieces] = ([], [])
    for tag, a, b, c, d in SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        for some, place in ((one[a:b], 0), (other[c:d], 1)):
            if some:
                pieces[place].append(("".join(some), tag != "equal"))
    return pieces
