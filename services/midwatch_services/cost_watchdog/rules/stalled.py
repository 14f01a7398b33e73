"""A run of which nothing is heard any more though it has not finished. It is only said: there is nothing to halt.

A replay is as quiet as whoever replays it, and is not watched.
"""

from msgspec.structs import replace

from ..alerts import Book, Cause, Condition
from . import words
from .memory import LoopState

_NAME = f"{words.STALLED}.warn"


def heard(loops: LoopState, book: Book, after: float, now: float, *, finished: bool) -> LoopState:
    """The run at one of its events. `after`: seconds of silence that are reported, 0 for never."""
    if book.alerts:
        book.end(_NAME, "the run goes on")
    due = None
    if _watched(book, after, finished=finished):
        # Once set it stays until it has come, and is set anew then: an index is not written with each event.
        due = loops.stalls_at or now + after
    return replace(loops, heard=now, stalls_at=due)


def judge_anew(
    loops: LoopState, book: Book, after: float, now: float, ticket: str | None, *, finished: bool, counts: bool
) -> LoopState:
    """The run without an event, by the card as it is now. `counts`: whether silence means anything at the moment."""
    if not loops.heard:  # a run of a former release
        return heard(loops, book, after, now, finished=finished)
    due = loops.heard + after if _watched(book, after, finished=finished) else None
    if due is None or now < due:
        book.end(_NAME, f"the limit is now {after:g} seconds" if after else "silence is not reported any more")
    elif counts:
        silence = now - loops.heard
        met = Condition(words.STALLED, "warn", words.stalled(book.owner, silence), int(silence), int(after), None)
        book.met(met, Cause(book.owner, ticket), again=False)
        due = None
    elif _NAME in book.alerts:
        due = None
    return loops if due == loops.stalls_at else replace(loops, stalls_at=due)


def _watched(book: Book, after: float, *, finished: bool) -> bool:
    return after > 0 and not finished and book.owner.mode != "replay"
