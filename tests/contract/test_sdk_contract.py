"""What agents are promised, proved alike on the twin in memory and on a real server. Expectations are by hand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import nats
import pytest
from nats.js import JetStreamContext

import midwatch
from helpers import eventually
from midwatch import Halted, Midwatch, NoCard, testing
from midwatch.contracts import codec, control, subjects
from midwatch.contracts.codec import RunEvent
from midwatch.contracts.control import SwitchRecord
from midwatch.runtime import topology
from midwatch.runtime.nats_server import start_nats
from midwatch.runtime.settings import Settings

TOOLS = testing.tools(look_up="read", refund="write")


class World(Protocol):
    """A Midwatch to run agents on, with hands on its switch and eyes on its events."""

    mw: Midwatch

    async def write(self, key: str, value: bytes) -> None: ...
    async def take_case(self, agent: str, run_id: str) -> None: ...
    async def events(self, count: int) -> list[RunEvent]: ...


class InMemory:
    def __init__(self, mw: testing.InMemory) -> None:
        self.mw = mw
        self._twin = mw

    async def write(self, key: str, value: bytes) -> None:
        kind, _, agent = key.partition(".")
        if kind in ("tools", "runs"):
            ((name, record),) = (control.decode_map(value) or {}).items()
            act = {"halted": self._twin.halt, "running": self._twin.resume}[record.state]
            act(agent, **{kind[:-1]: name})  # type: ignore[operator]
            return
        record = control.decode_record(value) or SwitchRecord(state="halted")
        if record.state == "halted":
            self._twin.halt(agent or None, reason=record.reason, by=record.by, fallback=record.fallback)
        else:
            self._twin.resume(agent or None)

    async def take_case(self, agent: str, run_id: str) -> None:
        self._twin.take_case(agent, run_id)

    async def events(self, count: int) -> list[RunEvent]:
        return self._twin.events


class OnServer:
    def __init__(self, mw: Midwatch, js: JetStreamContext) -> None:
        self.mw = mw
        self._js = js

    async def write(self, key: str, value: bytes) -> None:
        ack = await self._js.publish(subjects.key_subject(subjects.SWITCH, key), value)
        agent = key.partition(".")[2] or "desk"

        async def applied() -> bool:
            switch = self.mw._engine.follow(agent, "1")
            return switch.applied.get(key, 0) >= ack.seq

        await eventually(applied)

    async def take_case(self, agent: str, run_id: str) -> None:
        await self._js.publish(subjects.key_subject(subjects.CASES, subjects.case_key(agent, run_id)), b"{}")

    async def events(self, count: int) -> list[RunEvent]:
        async def stored() -> int:
            there = (await self._js.stream_info(subjects.RUNS)).state.messages
            return there if there >= count else 0

        there = await eventually(stored)
        sub = await self._js.pull_subscribe("midwatch.run.>", stream=subjects.RUNS)
        return [codec.decode_run(msg.subject, msg.data) for msg in await sub.fetch(there, timeout=20)]


@pytest.fixture(params=["in memory", "on a server"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        if request.param == "in memory":
            yield InMemory(await stack.enter_async_context(testing.midwatch([testing.card("desk", tools=TOOLS)])))
        else:
            yield await _on_server(stack, tmp_path)


async def _on_server(stack: AsyncExitStack, tmp_path: Path) -> OnServer:
    server = await stack.enter_async_context(await start_nats(tmp_path / "nats"))
    nc = await nats.connect(server.url)
    stack.push_async_callback(nc.close)
    js = nc.jetstream()
    await topology.apply(js, Settings(home=tmp_path, nats_url=server.url))
    card = control.encode(testing.card("desk", tools=TOOLS))
    await js.publish(subjects.key_subject(subjects.AGENTS, "desk"), card)
    await js.publish(subjects.key_subject(subjects.SWITCH, "agent.desk"), RUNNING)
    return OnServer(await stack.enter_async_context(midwatch.connect(server.url, home=tmp_path / "home")), js)


RUNNING = b'{"state":"running"}'
HALTED = b'{"state":"halted","reason":"too many refunds","by":"eva","fallback":"agent:desk-2"}'


async def look_up(order_id: str) -> dict[str, str]:
    return {"id": order_id}


def ask(model: str, messages: list[Any]) -> dict[str, Any]:
    return {"model": model, "usage": {"prompt_tokens": 12, "completion_tokens": 3}}


def to_person(handoff: midwatch.Handoff) -> str:
    return f"a person: {handoff.reason}"


async def test_a_run_leaves_its_events_in_order_and_whole(world: World) -> None:
    async with world.mw.agent("desk", version="7").run(ticket="T-1", input="Where?", run_id="r1") as run:
        await run.model(ask, model="m", messages=[])
        assert await run.tool("look_up", look_up, order_id="A-1") == {"id": "A-1"}
        await run.say("agent", "On its way.")
        await run.finish("On its way.")
    events = await world.events(5)
    assert [(event.event, event.data.seq) for event in events] == [
        ("started", 0), ("model_called", 1), ("tool_called", 2), ("said", 3), ("finished", 4),
    ]  # fmt: skip
    assert {(event.agent, event.data.run_id, event.data.version, event.data.ticket) for event in events} == {
        ("desk", "r1", "7", "T-1")
    }
    assert len({event.id for event in events}) == 5
    assert events[1].data.usage.input_tokens == 12
    assert (events[2].data.kind, events[2].data.arguments) == ("read", {"order_id": "A-1"})
    assert events[4].data.resolution == "resolved"


@pytest.mark.parametrize("key", ["fleet", "agent.desk"])
async def test_a_halt_interrupts_the_run_and_the_fallback_answers(world: World, key: str) -> None:
    async with world.mw.agent("desk", version="7", fallback=to_person).run(input="Where?") as run:
        halting = asyncio.create_task(world.write(key, HALTED))
        await asyncio.Event().wait()
    await halting
    assert run.result == "a person: too many refunds"
    handed_off, finished = (event.data for event in (await world.events(3))[1:])
    assert (handed_off.to, handed_off.reason) == ("agent:desk-2", "too many refunds")
    assert (finished.resolution, finished.halted_by) == ("fell_back", "eva")
    assert finished.epoch > 0


async def test_of_two_runs_of_one_name_one_falls_back_and_the_other_is_left_alone(world: World) -> None:
    handoffs: list[midwatch.Handoff] = []
    desk = world.mw.agent("desk", version="7", fallback=handoffs.append)
    await world.write("agent.desk", HALTED)
    async with desk.run(input="Where?", run_id="r1") as run:
        run.check()
    with pytest.raises(Halted):
        async with desk.run(input="Where?", run_id="r1") as run:
            run.check()
    assert [handoff.sole for handoff in handoffs] == [True]
    events = await world.events(5)
    assert [event.event for event in events] == ["started", "handed_off", "finished", "started", "finished"]
    handed_off, fell_back, _, halted = (event.data for event in events[1:])
    assert (handed_off.own, handed_off.key, handed_off.epoch) == (True, "agent.desk", handoffs[0].epoch)
    assert (fell_back.resolution, halted.resolution) == ("fell_back", "halted")


async def test_a_run_whose_case_somebody_else_has_does_not_fall_back(world: World) -> None:
    await world.take_case("desk", "case of r/1")  # no run's name is too odd for a key
    called: list[midwatch.Handoff] = []
    await world.write("agent.desk", HALTED)
    with pytest.raises(Halted):
        async with world.mw.agent("desk", version="7", fallback=called.append).run(
            input="Where?", run_id="case of r/1"
        ) as run:
            run.check()
    assert called == []
    assert [event.event for event in await world.events(2)] == ["started", "finished"]


async def test_a_halted_run_stops_alone(world: World) -> None:
    desk = world.mw.agent("desk", version="7", fallback=to_person)
    async with desk.run(input="x", run_id="good") as good:
        await world.write("runs.desk", b'{"bad":{"state":"halted"}}')
        async with desk.run(input="x", run_id="bad") as bad:
            await bad.tool("look_up", look_up, order_id="A-1")
        assert await good.tool("look_up", look_up, order_id="A-1") == {"id": "A-1"}
        good.finish()
    ended = {event.data.run_id: event.data.resolution for event in await world.events(6) if event.event == "finished"}
    assert ended == {"bad": "fell_back", "good": "resolved"}


async def test_a_halted_tool_stops_the_run_that_calls_it(world: World) -> None:
    with pytest.raises(Halted) as caught:
        async with world.mw.agent("desk", version="7").run(input="x") as run:
            await world.write("tools.desk", b'{"refund":{"state":"halted"}}')
            await run.tool("look_up", look_up, order_id="A-1")
            await run.tool("refund", look_up, order_id="A-1")
    assert caught.value.key == "tools.desk"
    assert [event.event for event in await world.events(4)] == ["started", "tool_called", "handed_off", "finished"]


async def test_a_resumed_agent_runs_again(world: World) -> None:
    desk = world.mw.agent("desk", version="7", fallback=to_person)
    async with desk.run(input="x") as before:
        await world.write("agent.desk", HALTED)
        before.check()
    assert before.result == "a person: too many refunds"
    await world.write("agent.desk", RUNNING)
    async with desk.run(input="x") as after:
        await after.tool("look_up", look_up, order_id="A-1")
        await after.finish("done")
    assert after.result is None
    assert not after.halted


async def test_a_write_under_way_is_let_end(world: World) -> None:
    began, end = asyncio.Event(), asyncio.Event()

    async def refund() -> str:
        began.set()
        await end.wait()
        return "refunded"

    async def halt() -> None:
        await began.wait()
        await world.write("agent.desk", HALTED)
        end.set()

    async with world.mw.agent("desk", version="7", fallback=to_person).run(input="x") as run:
        halting = asyncio.create_task(halt())
        await run.tool("refund", refund)
    await halting
    events = await world.events(4)
    assert [event.event for event in events] == ["started", "tool_called", "handed_off", "finished"]
    assert events[1].data.result == "refunded"


async def test_no_card_no_run(world: World) -> None:
    with pytest.raises(NoCard, match="midwatch card new stranger"):
        async with world.mw.agent("stranger", version="7").run(input="x"):
            raise AssertionError("the run began")


async def test_a_run_that_obeys_nobody_is_recorded_all_the_same(world: World) -> None:
    await world.write("agent.desk", HALTED)
    async with world.mw.agent("desk", version="7", obey=False).run(input="x", mode="replay") as run:
        await run.tool("refund", look_up, order_id="A-1")
        run.finish()
    assert [event.data.mode for event in await world.events(3)] == ["replay"] * 3
