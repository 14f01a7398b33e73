"""A shadow agent acts on nothing, whatever happens to it; a canary acts on its share of the tickets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from halting import READ, TOOLS, WRITE, begun, for_ever, nothing_pending, resolutions, to_human
from midwatch import Halted, testing
from midwatch.agent import Agent
from midwatch.contracts.runs import Mode
from midwatch.run import Run
from midwatch.switch import FOREVER, Answer, clock


@pytest.fixture
async def mw() -> AsyncIterator[testing.InMemory]:
    async with testing.midwatch([testing.card("desk", tools=TOOLS)]) as mw:
        yield mw


def refuse(_: Any) -> None:
    raise AssertionError("nobody waits for a shadow's answer")


def what(mw: testing.InMemory) -> list[tuple[str, str]]:
    return [(event.event, event.data.mode) for event in mw.events]


async def test_a_shadow_run_reads_and_proposes_and_calls_nothing_that_may_write(mw: testing.InMemory) -> None:
    mw.route("desk", "shadow")
    done: list[str] = []
    async with mw.agent("desk", version="1", fallback=refuse).run(input="x") as run:
        assert await run.tool(READ, lambda order: f"found {order}", "A-1") == "found A-1"
        assert await run.tool(WRITE, done.append, order="A-1") is None
        assert await run.tool("undeclared", done.append, amount=3) is None
        assert not run.acts
        run.finish("Your refund is on its way.")
    assert done == []
    assert [event.event for event in mw.events] == [
        "started", "tool_called", "proposed", "proposed", "proposed", "finished",
    ]  # fmt: skip
    assert {event.data.mode for event in mw.events} == {"shadow"}
    proposed = [(event.data.action, event.data.output) for event in mw.events if event.event == "proposed"]
    assert proposed == [
        (WRITE, {"order": "A-1"}),
        ("undeclared", {"amount": 3}),
        ("reply", "Your refund is on its way."),
    ]


async def test_a_run_of_an_agent_that_acts_says_so_and_proposes_nothing(mw: testing.InMemory) -> None:
    async with mw.agent("desk", version="1").run(input="x") as run:
        assert run.acts
        run.finish("done")
    assert [event.event for event in mw.events] == ["started", "finished"]


async def test_a_program_that_asks_for_shadow_gets_it_whatever_the_route(mw: testing.InMemory) -> None:
    mw.route("desk", "full")
    done: list[str] = []
    async with mw.agent("desk", version="1").run(input="x", mode="shadow") as run:
        assert await run.tool(WRITE, done.append, "A-1") is None
        run.finish("reply")
    assert done == []
    assert [event.event for event in mw.events] == ["started", "proposed", "proposed", "finished"]


async def test_a_shadow_that_obeys_nobody_acts_on_nothing_either(mw: testing.InMemory) -> None:
    done: list[str] = []
    async with mw.agent("desk", version="1", obey=False).run(input="x", mode="shadow") as run:
        assert await run.tool(WRITE, done.append, "A-1") is None
        run.finish()
    assert done == []


async def test_handles_returns_nothing_in_shadow(mw: testing.InMemory) -> None:
    mw.route("desk", "shadow")

    @mw.agent("desk", version="1").handles
    async def answer(ticket: str, run: Run) -> str:
        return ticket.upper()

    assert await answer("hello") is None
    assert mw.events[1].data.output == "HELLO"


def test_handles_returns_nothing_in_shadow_in_threads() -> None:
    with testing.midwatch() as mw:
        mw.route("desk", "shadow")

        @mw.agent("desk", version="1").handles
        def answer(ticket: str) -> str:
            return ticket.upper()

        assert answer("hello") is None


async def test_a_finished_shadow_run_proposes_one_reply(mw: testing.InMemory) -> None:
    mw.route("desk", "shadow")
    async with mw.agent("desk", version="1").run(input="x") as run:
        run.finish("first")
        run.finish("second")
    assert [event.data.output for event in mw.events if event.event == "proposed"] == ["first"]


async def test_a_halt_ends_a_shadow_run_without_fallback_or_case(mw: testing.InMemory) -> None:
    mw.route("desk", "shadow")
    async with mw.agent("desk", version="1", fallback=refuse).run(input="x") as run:
        asyncio.get_running_loop().call_soon(mw.halt, "desk")
        await run.model(for_ever, model="m")
    assert run.result is None
    assert [event.event for event in mw.events] == ["started", "model_called", "finished"]
    assert resolutions(mw) == ["halted"]
    await nothing_pending()


async def test_without_a_fallback_a_halted_shadow_raises_as_a_live_run_does(mw: testing.InMemory) -> None:
    mw.route("desk", "shadow")
    with pytest.raises(Halted):
        async with mw.agent("desk", version="1").run(input="x") as run:
            mw.halt("desk")
            await run.tool(READ, str)
    assert [event.event for event in mw.events] == ["started", "finished"]


# Flips in flight


def lapse(mw: testing.InMemory) -> None:
    switch = mw._engine.follow("desk", "1")
    for key in switch.keys.values():
        key.asked = clock() - 60
    switch.review()


def come_back(mw: testing.InMemory) -> None:
    switch = mw._engine.follow("desk", "1")
    for key in switch.keys.values():
        key.asked = FOREVER
    switch.review()


FLIPS = {
    "halt": lambda mw: mw.halt("desk"),
    "resume": lambda mw: mw.resume("desk"),
    "lapse": lapse,
    "return": come_back,
    "full": lambda mw: mw.route("desk", "full"),
    "shadow": lambda mw: mw.route("desk", "shadow"),
}


@pytest.mark.parametrize("mode", ["live", "shadow"], ids=["by its route", "by its program"])
@pytest.mark.parametrize(
    "flips",
    [
        ("halt",), ("halt", "resume"), ("lapse",), ("lapse", "return"), ("full",), ("full", "halt", "resume"),
        ("halt", "full", "resume"), ("lapse", "full", "return"), ("full", "shadow", "full"),
    ],
    ids=" then ".join,
)  # fmt: skip
async def test_a_shadow_never_acts_however_the_switch_flips(
    mw: testing.InMemory, flips: tuple[str, ...], mode: Mode
) -> None:
    if mode == "live":
        mw.route("desk", "shadow")
    done: list[str] = []
    async with mw.agent("desk", version="1", fallback=refuse).run(input="x", mode=mode) as run:
        await run.tool(WRITE, done.append, "before")
        for flip in flips:
            FLIPS[flip](mw)
            with suppress(Halted):
                await run.tool(WRITE, done.append, flip)
            assert not run.acts
        run.finish("reply")
    assert done == []
    assert {event.data.mode for event in mw.events} == {"shadow"}
    assert not {event.event for event in mw.events} & {"tool_called", "handed_off"}


@pytest.mark.parametrize("lifted", ["resume", "full"])
async def test_an_agent_halted_and_in_shadow_does_not_act_when_only_one_of_them_is_lifted(
    mw: testing.InMemory, lifted: str
) -> None:
    mw.route("desk", "shadow")
    mw.halt("desk")
    done: list[str] = []
    desk = mw.agent("desk", version="1", fallback=lambda _: None)
    FLIPS[lifted](mw)
    async with desk.run(input="x") as run:
        await run.tool(WRITE, done.append, "acted")
        run.finish()
    assert done == []


# The route of a live run


async def test_a_live_run_whose_agent_is_put_into_shadow_stops_and_its_customer_gets_the_fallback(
    mw: testing.InMemory,
) -> None:
    done: list[str] = []
    async with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:
        await run.tool(WRITE, done.append, "before")
        mw.route("desk", "shadow")
        await run.tool(WRITE, done.append, "after")
    assert done == ["before"]
    assert run.result == "a person, because the agent was put into shadow"
    handed_off, finished = (event.data for event in mw.events[-2:])
    assert (handed_off.key, handed_off.epoch) == ("route", None)
    assert (finished.resolution, finished.mode, finished.epoch) == ("fell_back", "live", None)


async def test_a_case_that_was_taken_is_not_handled_in_shadow_but_goes_on(mw: testing.InMemory) -> None:
    mw.route("desk", "shadow")
    done: list[str] = []
    async with mw.agent("desk", version="1", fallback=to_human).run(input="x", labels={"midwatch.case": "c-1"}) as run:
        await run.tool(WRITE, done.append, "acted")
    assert done == []
    assert run.result == "a person, because the agent was put into shadow"
    assert {event.data.mode for event in mw.events} == {"live"}


async def test_a_write_under_way_ends_before_the_shadow_comes(mw: testing.InMemory) -> None:
    began, end, work = begun()
    async with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:
        call = asyncio.create_task(run.tool(WRITE, work))
        await began.wait()
        mw.route("desk", "shadow")
        end.set()
        await call
    assert mw.events[1].data.result == "done"
    assert resolutions(mw) == ["fell_back"]


async def test_a_route_deleted_in_flight_stops_the_run(mw: testing.InMemory) -> None:
    async with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:
        mw._engine.follow("desk", "1").take_route(Answer(90, 90, None), clock())
        await run.tool(WRITE, print)
    assert run.result == "a person, because the route was deleted"


async def test_a_run_inside_the_canary_goes_on_when_the_share_shrinks(mw: testing.InMemory) -> None:
    mw.route("desk", "canary", traffic=0.5, salt="salt")
    desk = mw.agent("desk", version="1", fallback=to_human)
    async with desk.run(input="x", ticket="T-1") as run:
        mw.route("desk", "canary", traffic=0.1, salt="salt")
        assert await run.tool(READ, lambda: "found") == "found"
        run.finish()
    async with desk.run(input="x", ticket="T-1") as after:
        await after.tool(READ, str)
    assert after.result == "a person, because outside the canary's 10 %"


async def drawn(desk: Agent, **options: Any) -> bool:
    """Whether a run acts."""
    async with desk.run(input="x", **options) as run:
        await run.tool(READ, str)
        run.finish()
    return run.result is None


async def test_a_ticket_falls_on_the_same_side_in_every_run(mw: testing.InMemory) -> None:
    mw.route("desk", "canary", traffic=0.5, salt="salt")
    desk = mw.agent("desk", version="1", fallback=to_human)
    assert [await drawn(desk, ticket="T-1") for _ in range(5)] == [True] * 5
    assert [await drawn(desk, ticket="T-3") for _ in range(5)] == [False] * 5


async def test_without_a_ticket_the_run_is_drawn(mw: testing.InMemory) -> None:
    mw.route("desk", "canary", traffic=0.5, salt="salt")
    desk = mw.agent("desk", version="1", fallback=to_human)
    assert await drawn(desk, run_id="T-1")
    assert not await drawn(desk, run_id="T-3")


async def test_a_run_outside_the_canary_cannot_finish_as_if_it_had_acted(mw: testing.InMemory) -> None:
    mw.route("desk", "canary", traffic=0.0)
    async with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:
        run.finish("an answer without a single call")
    assert run.result == "a person, because outside the canary's 0 %"


@pytest.mark.parametrize("mode", ["eval", "replay", "drill"])
@pytest.mark.parametrize("stage", ["shadow", "canary", "deleted"])
async def test_the_route_does_not_change_what_is_not_live(mw: testing.InMemory, mode: Mode, stage: str) -> None:
    if stage == "deleted":
        mw._engine.follow("desk", "1").take_route(Answer(90, 90, None), clock())
    else:
        mw.route("desk", stage, traffic=0.0)  # type: ignore[arg-type]
    done: list[str] = []
    async with mw.agent("desk", version="1", fallback=refuse).run(input="x", mode=mode) as run:
        await run.tool(WRITE, done.append, "acted")
        run.finish()
    assert done == ["acted"]
    assert set(what(mw)) == {("started", mode), ("tool_called", mode), ("finished", mode)}


@pytest.mark.parametrize(("mode", "answered"), [("eval", 0), ("replay", 0), ("drill", 1)])
async def test_only_where_somebody_waits_a_halt_calls_the_fallback(
    mw: testing.InMemory, mode: Mode, answered: int
) -> None:
    calls: list[Any] = []
    mw.halt("desk")
    async with mw.agent("desk", version="1", fallback=calls.append).run(input="x", mode=mode) as run:
        await run.tool(WRITE, print)
    assert len(calls) == answered
    assert run.awaited is bool(answered)
