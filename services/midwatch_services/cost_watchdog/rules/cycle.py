"""Rounds of the same few tool calls: A-B-A-B, A-B-C-A-B-C.

Of each length of a round it is enough to know how many calls in a row were what the one a round before was: so many
calls, and one round, are that cycle. Results do not count: what brings the same results as well is a streak already.
"""

from collections.abc import Sequence

from msgspec.structs import replace

from midwatch.contracts.control import RepeatRule

from ..alerts import Book, Cause
from ..state import Waiting
from . import repeats
from .memory import LoopState, Most
from .words import CYCLE

SHORTEST, LONGEST = 2, 6  # calls of a round
_LENGTHS = range(SHORTEST, LONGEST + 1)
_NEVER = ((0, 0),) * len(_LENGTHS)


def follow(loops: LoopState, call: int, step: Waiting) -> LoopState:
    """The run after one more tool call; `most` of the cycle is that which it is in now."""
    before, most = loops.calls, loops.most
    calls = (*before[1 - LONGEST :], (call, step.seq))
    if CYCLE in most:
        most = {rule: of for rule, of in most.items() if rule != CYCLE}
    if call not in [digest for digest, _ in before]:
        return replace(loops, calls=calls, same=(), most=most)
    same = tuple(_longer(pair, before, length, call) for pair, length in zip(_pairs(loops), _LENGTHS, strict=True))
    for (repeated, first), length in zip(same, _LENGTHS, strict=True):
        rounds = repeated // length + 1
        if rounds > max(1, most.get(CYCLE, Most()).count) and len({digest for digest, _ in calls[-length:]}) > 1:
            most = {**most, CYCLE: Most(rounds, first, step.seq, step.tool, length)}
    return replace(loops, calls=calls, same=same, most=most)


def _pairs(loops: LoopState) -> Sequence[tuple[int, int]]:
    return loops.same or _NEVER


def _longer(before: tuple[int, int], calls: Sequence[tuple[int, int]], length: int, call: int) -> tuple[int, int]:
    if len(calls) < length or calls[-length][0] != call:
        return (0, 0)
    repeated, first = before
    return (repeated + 1, first if repeated else calls[-length][1])


def judge(book: Book, rule: RepeatRule, before: LoopState, after: LoopState, cause: Cause) -> None:
    """Judges the rounds at a tool call; each whole round more is a repeat."""
    most = after.most.get(CYCLE, Most())
    if most.count < rule.halt_at:
        repeats.end(book, CYCLE, "the run left the cycle")
    else:
        again = most.count > before.most.get(CYCLE, Most()).count
        repeats.judge(book, CYCLE, rule, most, cause, again=again)
