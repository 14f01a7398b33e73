"""Tool calls that brought nothing new: the same call with the same result came before in the run.

The streak is the number of such calls since the last that was none. Two generations of digests are kept.
"""

from collections.abc import Sequence

from msgspec.structs import replace

from ..alerts import Book, Cause, Condition
from ..policy import MEMORY, Policy
from ..state import RunState, Waiting
from .memory import LoopState, Most
from .repeats import meet
from .words import NO_NEW_STATE, title

_LEVELS = ("warn", "halt")


def follow(run: RunState, calls: Sequence[Waiting], policy: Policy, book: Book) -> RunState:
    """The run after tool calls."""
    seen, older, streak, most = set(run.seen), run.older, run.streak, run.loops.most.get(NO_NEW_STATE, Most())
    for call in calls:
        assert call.pair is not None
        new = call.pair not in seen and call.pair not in older
        seen.add(call.pair)
        if len(seen) >= MEMORY:
            seen, older = set(), frozenset(seen)
        if new:
            streak, most = 0, Most()
            if book.alerts:
                for level in _LEVELS:
                    book.end(f"{NO_NEW_STATE}.{level}", "a tool call brought something new")
            continue
        streak += 1
        most = Most(streak, call.seq if most.first is None else most.first, call.seq, call.tool)
        _judge(book, most, policy, Cause(book.owner, run.ticket, call.event_id, call.seq), again=True)
    return replace(run, seen=frozenset(seen), older=older, streak=streak, loops=_with(run.loops, most))


def judge_anew(run: RunState, policy: Policy, book: Book) -> None:
    """Judges the streak by the card as it is now."""
    most = run.loops.most.get(NO_NEW_STATE, Most(run.streak))
    for level, limit in (("warn", policy.alert_at), ("halt", policy.halt_at)):
        if most.count < limit:
            book.end(f"{NO_NEW_STATE}.{level}", f"the limit is now {limit}")
    _judge(book, most, policy, Cause(book.owner, run.ticket, None, most.last), again=False)


def _judge(book: Book, most: Most, policy: Policy, cause: Cause, *, again: bool) -> None:
    halts = most.count >= policy.halt_at
    if halts or most.count >= policy.alert_at:
        sentence = title(NO_NEW_STATE, book.owner, most, cause.ticket)
        limit = policy.halt_at if halts else policy.alert_at
        met = Condition(
            NO_NEW_STATE, "halt" if halts else "warn", sentence, most.count, limit, "run" if halts else None,
            tool=most.tool, first_seq=most.first,
        )  # fmt: skip
        meet(book, met, cause, again=again)


def _with(loops: LoopState, most: Most) -> LoopState:
    if most.count:
        return replace(loops, most={**loops.most, NO_NEW_STATE: most})
    if NO_NEW_STATE in loops.most:
        return replace(loops, most={rule: of for rule, of in loops.most.items() if rule != NO_NEW_STATE})
    return loops
