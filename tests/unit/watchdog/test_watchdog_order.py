"""The order in which events arrive changes nothing of what the rules decide, once gaps are filled."""

import random
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.contracts.control import LoopRule, RepeatRule, VelocityRule
from midwatch_services.cost_watchdog.rules.memory import Facts, Usual

RULES = LoopRule(
    writes=RepeatRule(halt_at=3, mode="act"),
    cycle=RepeatRule(halt_at=2, mode="act"),
    text=RepeatRule(halt_at=2),
    hand_offs=RepeatRule(halt_at=2),
    velocity=VelocityRule(times=2),
)
USUAL = Usual(0.0, 0, 7.0, 20)  # e to the seventh, about 1,100 tokens a minute

small = st.integers(0, 2)
step = st.one_of(
    st.builds(lambda call, ok: {"facts": Facts(call=call, ok=ok, write=True), "pair": call}, small, st.booleans()),
    st.builds(lambda text: {"facts": Facts(text=text)}, small),
    st.builds(lambda at, tokens: {"facts": Facts(at=60.0 * at, tokens=tokens * 700.0)}, small, small),
    st.just({"facts": Facts(hand_off=True)}),
    st.just({}),
)


def events(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    told = [{"ticket": "T-1", "seq": seq, "event_id": f"e{seq}", "tool": "t", **one} for seq, one in enumerate(steps)]
    return [*told, {"ticket": "T-1", "seq": len(steps), "event_id": "end", "finished": "resolved"}]


def play_all(play: Any, order: list[dict[str, Any]]) -> Any:
    play.limits, play.usual = replace(play.limits, loops=RULES), USUAL
    for event in order:
        play.event(**event)
    return play


def decided(play: Any) -> Any:
    """What was raised, at which event and with which figures, and whether the run was halted."""
    raised = [(one.dedupe_key, one.seq, one.first_seq, one.value, one.title, one.action) for one in play.raised()]
    return sorted(raised), {run_id for run_id, _ in play.halted()}


@settings(max_examples=300, deadline=None)
@given(steps=st.lists(step, max_size=25), seed=st.integers(0, 2**32))
def test_any_order_of_arrival_ends_in_the_same_decisions(played, steps, seed):
    order = events(steps)
    in_order = play_all(played(), order)
    shuffled = order[:]
    random.Random(seed).shuffle(shuffled)
    other = play_all(played(), shuffled)
    assert decided(other) == decided(in_order)
    assert other.open() == in_order.open() == set()
    assert other.usual == in_order.usual
    assert other.tickets["T-1"].hand_offs == in_order.tickets["T-1"].hand_offs
    assert remembered(other) == remembered(in_order)


def remembered(play: Any) -> Any:
    loops = play.runs["run-1"].loops
    return (loops.writes, loops.texts, loops.calls, loops.same, loops.pace, loops.hand_offs, loops.most)
