"""Shadow, then switch, then canary, then scope: every combination, and what became of a tool and of the fallback.

The expectations are the ordered rules in `expected`, written by hand; the first that speaks counts.
"""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from midwatch import NoCard, testing
from midwatch.contracts.control import SwitchRule
from midwatch.switch import Answer, LocalSwitch, clock

STAGES = ("none", "shadow", "canary in", "canary out", "full", "deleted", "unreadable")
SWITCHES = (
    "running", "fleet halted", "agent halted", "run halted", "tool halted", "key deleted", "key unreadable",
    "key never written", "lapsed, falls back", "lapsed, carries on",
)  # fmt: skip
CARDS = ("present", "absent")
KINDS = ("read", "write", "undeclared")

# What became of it: mode of the run, how it ended, times that the tool was called, times that the fallback was.
ACTS = ("live", "resolved", 1, 0)
FALLS_BACK = ("live", "fell_back", 0, 1)
WATCHES = ("shadow", "resolved", 1, 0)  # it may look things up
PROPOSES = ("shadow", "resolved", 0, 0)
ENDS = ("shadow", "halted", 0, 0)  # nobody waits for it
NO_CARD = ("", "NoCard", 0, 0)


def expected(stage: str, switch: str, card: str, kind: str) -> tuple[str, str, int, int]:
    stopped = ENDS if stage == "shadow" else FALLS_BACK
    if switch == "key never written" and card == "absent":
        return NO_CARD  # nobody has applied this agent
    if switch in ("fleet halted", "agent halted", "run halted", "key deleted", "key unreadable", "key never written"):
        return stopped
    if switch == "lapsed, falls back" or (switch == "lapsed, carries on" and card == "absent"):
        return stopped  # only a card lets an agent carry on
    if stage in ("canary out", "deleted", "unreadable"):
        return FALLS_BACK
    if card == "absent":
        return NO_CARD
    if switch == "tool halted":
        return stopped
    if stage == "shadow":
        return WATCHES if kind == "read" else PROPOSES
    return ACTS


TOOLS = testing.tools(read="read", write="write")
TICKETS = {"canary in": "T-1", "canary out": "T-3"}  # by sha256 at 0.17 and 0.73 of the salt "salt"


def put_on_stage(mw: testing.Controls, switch: LocalSwitch, stage: str) -> None:
    values: dict[str, bytes | None] = {"deleted": None, "unreadable": b'{"stage":"half"}'}
    if stage in ("shadow", "full"):
        mw.route("desk", stage)  # type: ignore[arg-type]
    elif stage.startswith("canary"):
        mw.route("desk", "canary", traffic=0.5, salt="salt")
    elif stage in values:
        switch.take_route(Answer(90, 90, values[stage]), clock())


def turn(mw: testing.Controls, switch: LocalSwitch, to: str, tool: str) -> None:
    """Brings the switch into the position `to`."""
    if to in ("key deleted", "key unreadable"):
        switch.take("agent.desk", Answer(91, 91, None if to == "key deleted" else b"{"), clock())
    elif to == "key never written":
        switch.keys["agent.desk"].floor = (0, 0)
        switch.take("agent.desk", Answer(0, 0, None), clock())
    elif to.startswith("lapsed"):
        for key in switch.keys.values():
            key.asked = clock() - 60
        switch.review()
    halts: dict[str, Callable[[], int]] = {
        "fleet halted": mw.halt,
        "agent halted": lambda: mw.halt("desk"),
        "run halted": lambda: mw.halt("desk", run="r1"),
        "tool halted": lambda: mw.halt("desk", tool=tool),
    }
    halts.get(to, int)()


def world(card: str, switch: str) -> testing.Twin:
    rule = SwitchRule(lost_control="carry_on" if switch == "lapsed, carries on" else "fall_back")
    return testing.midwatch([testing.card("desk", tools=TOOLS, switch=rule)] if card == "present" else [])


def became(events: list[Any], calls: list[str]) -> tuple[str, str, int, int]:
    """What became of the one run in `events`, which hold nothing but it."""
    mode = {event.data.mode for event in events}
    ends = [event.data.resolution for event in events if event.event == "finished"]
    assert len(mode) == len(ends) == 1
    return mode.pop(), ends[0], calls.count("tool"), calls.count("fallback")


CELLS = list(itertools.product(STAGES, CARDS, KINDS))


async def in_asyncio(stage: str, switch: str, card: str, kind: str) -> tuple[str, str, int, int]:
    calls: list[str] = []
    async with world(card, switch) as mw:
        desk = mw.agent("desk", version="1", fallback=lambda _: calls.append("fallback"))
        known = mw._engine.follow("desk", "1")
        put_on_stage(mw, known, stage)
        turn(mw, known, switch, kind)
        try:
            async with asyncio.timeout(20), desk.run(input="x", run_id="r1", ticket=TICKETS.get(stage)) as run:
                await run.tool(kind, calls.append, "tool")
                run.finish()
            return became(mw.events, calls)
        except NoCard:
            assert mw.events == []
            return ("", "NoCard", calls.count("tool"), calls.count("fallback"))


def in_threads(stage: str, switch: str, card: str, kind: str) -> tuple[str, str, int, int]:
    calls: list[str] = []
    with world(card, switch) as mw:
        desk = mw.agent("desk", version="1", fallback=lambda _: calls.append("fallback"))
        known = mw._engine.follow("desk", "1")
        put_on_stage(mw, known, stage)
        turn(mw, known, switch, kind)
        try:
            with desk.run(input="x", run_id="r1", ticket=TICKETS.get(stage)) as run:
                run.tool(kind, calls.append, "tool")
                run.finish()
            return became(mw.events, calls)
        except NoCard:
            assert mw.events == []
            return ("", "NoCard", calls.count("tool"), calls.count("fallback"))


@pytest.mark.parametrize("switch", SWITCHES)
async def test_in_asyncio(switch: str) -> None:
    found = {(stage, card, kind): await in_asyncio(stage, switch, card, kind) for stage, card, kind in CELLS}
    assert found == {(stage, card, kind): expected(stage, switch, card, kind) for stage, card, kind in CELLS}


@pytest.mark.parametrize("switch", SWITCHES)
def test_in_threads(switch: str) -> None:
    found = {(stage, card, kind): in_threads(stage, switch, card, kind) for stage, card, kind in CELLS}
    assert found == {(stage, card, kind): expected(stage, switch, card, kind) for stage, card, kind in CELLS}
