"""All rules, at the events of a run whose turn has come, and anew when its card may have changed. Pure."""

from collections.abc import Sequence

from msgspec.structs import replace

from midwatch.contracts.control import LoopRule

from ..alerts import Book, Cause
from ..policy import Policy
from ..state import RunState, Waiting
from . import cycle, repeats, streak, velocity
from .memory import Facts, LoopState, Most, Usual
from .words import CYCLE, HAND_OFFS, TEXT, WRITES


def follow(
    run: RunState, steps: Sequence[Waiting], policy: Policy, book: Book, usual: Usual, hand_offs: int
) -> tuple[RunState, int]:
    """The run after `steps`, and how many of them handed it off. `hand_offs`: of its ticket, or of it, before."""
    if calls := [step for step in steps if step.pair is not None]:
        run = streak.follow(run, calls, policy, book)
    loops, handed = run.loops, 0
    for step in steps:
        if (facts := step.facts) is None:
            continue
        cause = Cause(book.owner, run.ticket, step.event_id, step.seq)
        if facts.call is not None:
            loops = _call(loops, facts, facts.call, step, policy, book, cause)
        if facts.text is not None:
            loops = _text(loops, facts.text, step, policy.loops, book, cause)
        if facts.hand_off:
            handed += 1
            loops = _hand_off(loops, hand_offs + handed, step, policy.loops, book, cause)
        if facts.tokens or facts.dollars:
            loops = velocity.follow(loops, facts, step.seq)
            velocity.judge(book, policy.loops.velocity, loops, usual, cause)
    return (run if loops is run.loops else replace(run, loops=loops)), handed


def anew(run: RunState, policy: Policy, book: Book, usual: Usual) -> None:
    """Judges what the run did before by its card as it is now."""
    streak.judge_anew(run, policy, book)
    rules = policy.loops
    counting = {WRITES: rules.writes, CYCLE: rules.cycle, TEXT: rules.text, HAND_OFFS: rules.hand_offs}
    for rule, limits in counting.items():
        repeats.judge_anew(book, rule, limits, run.loops.most.get(rule, Most()), run.ticket)
    velocity.judge_anew(book, rules.velocity, run.loops, usual)


def learn(run: RunState, usual: Usual) -> tuple[RunState, Usual]:
    """What is usual for the agent once a run of it has finished and none of its events is waited for."""
    if not run.finished or run.waiting or run.loops.learnt:
        return run, usual
    return replace(run, loops=replace(run.loops, learnt=True)), velocity.learnt(usual, run.loops.pace)


def _call(
    loops: LoopState, facts: Facts, call: int, step: Waiting, policy: Policy, book: Book, cause: Cause
) -> LoopState:
    before = loops
    loops = cycle.follow(loops, call, step)
    if facts.ok and (facts.write or step.tool in policy.writes):
        writes, times, first = repeats.counted(loops.writes, call, step.seq)
        loops, most = _further(replace(loops, writes=writes), WRITES, Most(times, first, step.seq, step.tool))
        repeats.judge(book, WRITES, policy.loops.writes, most, cause, again=True)
    cycle.judge(book, policy.loops.cycle, before, loops, cause)
    return loops


def _text(loops: LoopState, text: int, step: Waiting, rules: LoopRule, book: Book, cause: Cause) -> LoopState:
    texts, times, first = repeats.counted(loops.texts, text, step.seq)
    loops, most = _further(replace(loops, texts=texts), TEXT, Most(times, first, step.seq))
    repeats.judge(book, TEXT, rules.text, most, cause, again=True)
    return loops


def _hand_off(loops: LoopState, times: int, step: Waiting, rules: LoopRule, book: Book, cause: Cause) -> LoopState:
    known = loops.most.get(HAND_OFFS, Most())
    first = step.seq if known.first is None else known.first
    loops, most = _further(replace(loops, hand_offs=loops.hand_offs + 1), HAND_OFFS, Most(times, first, step.seq))
    repeats.judge(book, HAND_OFFS, rules.hand_offs, most, cause, again=True)
    return loops


def _further(loops: LoopState, rule: str, now: Most) -> tuple[LoopState, Most]:
    """The state with `now`, if the run never went further by this rule."""
    if now.count < loops.most.get(rule, Most()).count:
        return loops, now
    return replace(loops, most={**loops.most, rule: now}), now
