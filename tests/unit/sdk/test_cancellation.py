"""What a halt does to a run in asyncio: it ends the run it means, whole writes excepted, and nothing else."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from halting import READ, TOOLS, WRITE, begun, for_ever, nothing_pending, resolutions, to_human
from midwatch import Halted, testing


@pytest.fixture
async def mw() -> AsyncIterator[testing.InMemory]:
    async with testing.midwatch([testing.card(name, tools=TOOLS) for name in ("desk", "inner")]) as mw:
        yield mw


async def test_a_halt_wakes_a_run_that_awaits_anything(mw: testing.InMemory) -> None:
    async with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:
        asyncio.get_running_loop().call_soon(mw.halt, "desk")
        await asyncio.Event().wait()
    assert run.result == "a person, because halted"
    assert resolutions(mw) == ["fell_back"]
    await nothing_pending()


async def test_without_a_fallback_halted_reaches_the_caller(mw: testing.InMemory) -> None:
    with pytest.raises(Halted) as caught:
        async with mw.agent("desk", version="1").run(input="x"):
            asyncio.get_running_loop().call_soon(mw.halt, "desk")
            await asyncio.Event().wait()
    assert (caught.value.key, caught.value.by) == ("agent.desk", "test")
    assert resolutions(mw) == ["halted"]
    await nothing_pending()


async def test_a_run_halted_before_it_began_stops_at_its_first_await(mw: testing.InMemory) -> None:
    desk = mw.agent("desk", version="1", fallback=to_human)
    mw.halt("desk")
    reached = []
    async with desk.run(input="x"):
        reached.append("body")
        await asyncio.sleep(0)
        reached.append("after the first await")
    assert reached == ["body"]
    assert [event.event for event in mw.events] == ["started", "handed_off", "finished"]


async def test_a_model_call_under_way_is_interrupted_and_recorded(mw: testing.InMemory) -> None:
    async with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:
        asyncio.get_running_loop().call_soon(mw.halt, "desk")
        await run.model(for_ever, model="m")
    called = next(event.data for event in mw.events if event.event == "model_called")
    assert (called.model, called.error) == ("m", "CancelledError")


async def test_a_write_under_way_ends_and_is_recorded_before_the_halt_comes(mw: testing.InMemory) -> None:
    began, end, work = begun()
    async with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:

        async def halt() -> None:
            await began.wait()
            mw.halt("desk")
            await asyncio.sleep(0.02)
            assert run.draining
            end.set()

        halting = asyncio.create_task(halt())
        await run.tool(WRITE, work)
        raise AssertionError("the halt did not come after the write")
    await halting
    assert [event.event for event in mw.events] == ["started", "tool_called", "handed_off", "finished"]
    assert mw.events[1].data.result == "done"
    await nothing_pending()


async def test_a_tool_of_undeclared_kind_drains_like_a_write(mw: testing.InMemory) -> None:
    began, end, work = begun()
    async with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:
        call = asyncio.create_task(run.tool("unknown_tool", work))
        await began.wait()
        mw.halt("desk")
        asyncio.get_running_loop().call_later(0.02, end.set)
        await call
    assert mw.events[1].data.result == "done"
    assert resolutions(mw) == ["fell_back"]


async def test_a_reading_tool_is_interrupted(mw: testing.InMemory) -> None:
    async with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:
        asyncio.get_running_loop().call_soon(mw.halt, "desk")
        await run.tool(READ, for_ever)
    assert mw.events[1].data.error == "CancelledError"


async def test_a_halted_tool_interrupts_the_reading_call_of_it_and_no_other(mw: testing.InMemory) -> None:
    desk = mw.agent("desk", version="1", fallback=to_human)
    async with desk.run(input="x") as run:
        mw.halt("desk", tool=WRITE)
        assert await run.tool(READ, lambda: "found") == "found"
        asyncio.get_running_loop().call_soon(lambda: mw.halt("desk", tool=READ))
        await run.tool(READ, for_ever)
    assert mw.events[-1].data.epoch == mw.halt("desk", tool=READ) - 1


async def test_the_hosts_own_cancellation_reaches_a_write(mw: testing.InMemory) -> None:
    began, _, work = begun()

    async def body() -> None:
        async with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:
            await run.tool(WRITE, work)

    task = asyncio.create_task(body())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert mw.events[1].data.error == "CancelledError"
    assert resolutions(mw) == ["failed"]


async def test_a_run_that_swallows_its_cancellation_is_halted_at_its_next_call(mw: testing.InMemory) -> None:
    calls = []
    async with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:
        asyncio.get_running_loop().call_soon(mw.halt, "desk")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            calls.append("swallowed")
        await run.model(calls.append, "model")
    assert calls == ["swallowed"]
    assert run.result == "a person, because halted"
    await nothing_pending()


async def test_a_swallowed_halt_cannot_be_turned_into_a_resolved_run(mw: testing.InMemory) -> None:
    async with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:
        asyncio.get_running_loop().call_soon(mw.halt, "desk")
        try:
            await asyncio.Event().wait()
        finally:
            await run.finish("all is well")
    assert resolutions(mw) == ["fell_back"]


async def test_a_halt_that_was_lifted_before_the_run_noticed_does_nothing(mw: testing.InMemory) -> None:
    async with mw.agent("desk", version="1").run(input="x") as run:
        mw.halt("desk")
        mw.resume("desk")
        await asyncio.sleep(0.01)
        run.finish("ok")
    assert resolutions(mw) == ["resolved"]


async def test_a_halt_after_finish_does_not_touch_the_rest_of_the_block(mw: testing.InMemory) -> None:
    async with mw.agent("desk", version="1").run(input="x") as run:
        await run.finish("ok")
        mw.halt("desk")
        await asyncio.sleep(0.01)
        after = "reached"
    assert after == "reached"
    assert resolutions(mw) == ["resolved"]


async def test_the_fallback_itself_can_be_cancelled(mw: testing.InMemory) -> None:
    async def slow(_: Any) -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02), mw.agent("desk", version="1", fallback=slow).run(input="x"):
            mw.halt("desk")
            await asyncio.Event().wait()
    assert resolutions(mw) == ["halted"]
    await nothing_pending()
