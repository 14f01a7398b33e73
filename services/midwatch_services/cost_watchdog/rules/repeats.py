"""The rules that count: the same write, the same text, hand-offs of one ticket; and what is common to them all."""

from typing import Protocol

from midwatch.contracts.control import RepeatRule, TripMode

from ..alerts import Book, Cause, Condition
from .memory import Counts, Most
from .words import title

REMEMBERED = 256  # different writes, and texts, of one run; of more, those that were seen again last


class Limits(Protocol):
    """What a card says of a rule."""

    @property
    def mode(self) -> TripMode: ...


def counted(seen: Counts, digest: int, seq: int) -> tuple[Counts, int, int]:
    """The counts with one more of `digest`, how often that was seen, and at which event first."""
    after = dict(seen)
    times, first = after.pop(digest, (0, seq))
    after[digest] = (times + 1, first)
    if len(after) > REMEMBERED:
        del after[next(iter(after))]
    return after, times + 1, first


def judge(book: Book, rule: str, limits: RepeatRule, most: Most, cause: Cause, *, again: bool) -> None:
    """Raises the alert of a rule that counts, and halts its run, where the count has reached the card's limit."""
    if most.count >= limits.halt_at:
        sentence = title(rule, book.owner, most, cause.ticket)
        meet(book, condition(rule, limits, sentence, most.count, limits.halt_at, most), cause, again=again)


def judge_anew(book: Book, rule: str, limits: RepeatRule, most: Most, ticket: str | None) -> None:
    """Judges what a run did before by the card as it is now."""
    end_other(book, rule, limits)
    if most.count < limits.halt_at:
        end(book, rule, f"the limit is now {limits.halt_at}")
    else:
        judge(book, rule, limits, most, Cause(book.owner, ticket, None, most.last), again=False)


def condition(rule: str, limits: Limits, sentence: str, value: str | int, limit: str | int, most: Most) -> Condition:
    """A condition that halts its run, or only says that it would."""
    acts = limits.mode == "act"
    return Condition(
        rule, "halt" if acts else "observe", sentence, value, limit, "run", observe=not acts, tool=most.tool,
        first_seq=most.first,
    )  # fmt: skip


def meet(book: Book, met: Condition, cause: Cause, *, again: bool) -> None:
    """Raises the alert of a condition, and halts the run where it was raised."""
    if book.met(met, cause, again=again) and met.halts:
        book.halt(book.owner.name, met)


def end(book: Book, rule: str, reason: str) -> None:
    """What the rule watches for has ended."""
    if book.alerts:
        book.end(f"{rule}.halt", reason)
        book.end(f"{rule}.observe", reason)


def end_other(book: Book, rule: str, limits: Limits) -> None:
    """The card changed the mode of a rule: its alert in the other mode ends."""
    acts = limits.mode == "act"
    book.end(f"{rule}.{'observe' if acts else 'halt'}", f"the rule now {'halts' if acts else 'only observes'}")
