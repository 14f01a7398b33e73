"""Halts beside the other ways in which asyncio cancels: task groups, timeouts, the host's own cancellation."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from halting import READ, TOOLS, WRITE, begun, for_ever, nothing_pending, resolutions, to_human
from midwatch import Halted, testing
from midwatch.run import Run


@pytest.fixture
async def mw() -> AsyncIterator[testing.InMemory]:
    async with testing.midwatch([testing.card(name, tools=TOOLS) for name in ("desk", "inner")]) as mw:
        yield mw


async def test_a_halt_from_another_thread_wakes_the_run(mw: testing.InMemory) -> None:
    async with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:
        halting = asyncio.create_task(asyncio.to_thread(mw.halt, "desk"))
        await asyncio.Event().wait()
    await halting
    assert run.result == "a person, because halted"


async def test_halted_in_a_sibling_does_not_cut_a_write_of_the_same_task_group(mw: testing.InMemory) -> None:
    began, end, work = begun()
    async with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:

        async def sibling() -> None:
            await began.wait()
            mw.halt("desk")
            asyncio.get_running_loop().call_later(0.02, end.set)
            await run.model(for_ever, model="m")

        async with asyncio.TaskGroup() as group:
            group.create_task(run.tool(WRITE, work))
            group.create_task(sibling())
    tool = next(event.data for event in mw.events if event.event == "tool_called")
    assert (tool.result, tool.error) == ("done", None)
    assert resolutions(mw) == ["fell_back"]
    await nothing_pending()


async def test_a_write_in_the_body_of_a_task_group_outlives_a_halted_child(mw: testing.InMemory) -> None:
    began, end, work = begun()
    async with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:

        async def child() -> None:
            await began.wait()
            mw.halt("desk")
            asyncio.get_running_loop().call_later(0.02, end.set)
            await run.model(for_ever, model="m")

        async with asyncio.TaskGroup() as group:
            group.create_task(child())
            await run.tool(WRITE, work)
    tool = next(event.data for event in mw.events if event.event == "tool_called")
    assert (tool.result, tool.error) == ("done", None)
    assert run.result == "a person, because halted"
    await nothing_pending()


async def test_the_fallback_waits_for_a_write_that_gather_left_behind(mw: testing.InMemory) -> None:
    began, end, work = begun()
    async with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:

        async def reader() -> None:
            await began.wait()
            asyncio.get_running_loop().call_soon(mw.halt, "desk")
            asyncio.get_running_loop().call_later(0.03, end.set)
            await run.tool(READ, for_ever)

        await asyncio.gather(run.tool(WRITE, work), reader())
    assert [event.event for event in mw.events] == ["started", "tool_called", "tool_called", "handed_off", "finished"]
    assert mw.events[2].data.result == "done"
    await nothing_pending()


async def test_a_halt_crosses_a_task_group_as_one_plain_halted(mw: testing.InMemory) -> None:
    with pytest.raises(Halted):
        async with mw.agent("desk", version="1").run(input="x") as run, asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(run.model(for_ever, model="m"))
            await asyncio.sleep(0)
            mw.halt("desk")
    assert resolutions(mw) == ["halted"]
    await nothing_pending()


async def test_an_error_beside_the_halt_is_kept_in_the_record(mw: testing.InMemory) -> None:
    async with mw.agent("desk", version="1").run(input="x") as run:
        run.finish()
    with pytest.raises(Halted):
        async with mw.agent("desk", version="1").run(input="x") as run, asyncio.TaskGroup() as group:

            async def halted() -> None:
                try:
                    await run.model(for_ever, model="m")
                finally:
                    raise_in.set()

            async def broken() -> None:
                try:
                    await raise_in.wait()
                finally:
                    raise ValueError("broken")

            raise_in = asyncio.Event()
            group.create_task(halted())
            group.create_task(broken())
            await asyncio.sleep(0)
            mw.halt("desk")
    assert "broken" in mw.events[-1].data.error


@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
async def test_a_halt_under_a_timeout_is_no_timeout(mw: testing.InMemory, inside: bool) -> None:
    desk = mw.agent("desk", version="1", fallback=to_human)
    asyncio.get_running_loop().call_later(0.01, mw.halt, "desk")
    if inside:
        async with desk.run(input="x") as run, asyncio.timeout(20):
            await asyncio.Event().wait()
    else:
        async with asyncio.timeout(20), desk.run(input="x") as run:
            await asyncio.Event().wait()
    assert run.result == "a person, because halted"
    await nothing_pending()


async def test_a_timeout_around_the_run_stays_a_timeout(mw: testing.InMemory) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), mw.agent("desk", version="1", fallback=to_human).run(input="x"):
            await asyncio.Event().wait()
    assert resolutions(mw) == ["failed"]


async def test_an_outer_cancellation_wins_over_a_halt_of_the_same_moment(mw: testing.InMemory) -> None:
    fell_back = []

    async def body() -> None:
        async with mw.agent("desk", version="1", fallback=fell_back.append).run(input="x"):
            await asyncio.Event().wait()

    for order in ("halt first", "cancel first"):
        task = asyncio.create_task(body())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if order == "halt first":
            mw.halt("desk")
            task.cancel()
        else:
            task.cancel()
            mw.halt("desk")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        mw.resume("desk")
    assert fell_back == []


async def test_wait_for_and_shield_let_the_halt_through(mw: testing.InMemory) -> None:
    desk = mw.agent("desk", version="1", fallback=to_human)
    inner = asyncio.create_task(asyncio.sleep(0.05, "whole"))
    async with desk.run(input="x") as first:
        asyncio.get_running_loop().call_soon(mw.halt, "desk")
        await asyncio.wait_for(asyncio.shield(inner), 20)
    assert first.result == "a person, because halted"
    assert await inner == "whole"
    await nothing_pending()


async def test_a_halt_does_not_wait_for_a_thread(mw: testing.InMemory) -> None:
    released, ended = threading.Event(), []
    async with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:
        asyncio.get_running_loop().call_later(0.01, mw.halt, "desk")
        await run.model(asyncio.to_thread, lambda: ended.append(released.wait(20)))
    assert run.result == "a person, because halted"
    assert ended == []
    released.set()


async def test_a_halted_fleet_ends_nested_runs_from_the_outer_one(mw: testing.InMemory) -> None:
    outer, inner = (mw.agent(name, version="1", fallback=to_human) for name in ("desk", "inner"))
    async with outer.run(input="x", run_id="outer") as run:
        async with inner.run(input="y", run_id="inner"):
            asyncio.get_running_loop().call_soon(mw.halt)
            await asyncio.Event().wait()
        raise AssertionError("the outer run went on")
    assert run.result == "a person, because halted"
    ended = {event.data.run_id: event.data.resolution for event in mw.events if event.event == "finished"}
    assert ended == {"inner": "halted", "outer": "fell_back"}
    await nothing_pending()


async def test_a_halt_of_the_inner_agent_leaves_the_outer_run_alone(mw: testing.InMemory) -> None:
    async with mw.agent("desk", version="1").run(input="x", run_id="outer") as outer:
        async with mw.agent("inner", version="1", fallback=to_human).run(input="y", run_id="inner") as run:
            asyncio.get_running_loop().call_soon(mw.halt, "inner")
            await asyncio.Event().wait()
        assert run.result == "a person, because halted"
        await nothing_pending()
        outer.finish("ok")
    ended = {event.data.run_id: event.data.resolution for event in mw.events if event.event == "finished"}
    assert ended == {"inner": "fell_back", "outer": "resolved"}


async def test_an_inner_run_without_fallback_fails_the_outer_one(mw: testing.InMemory) -> None:
    with pytest.raises(Halted):
        async with (
            mw.agent("desk", version="1", fallback=to_human).run(input="x", run_id="outer"),
            mw.agent("inner", version="1").run(input="y", run_id="inner"),
        ):
            asyncio.get_running_loop().call_soon(mw.halt, "inner")
            await asyncio.Event().wait()
    ended = {event.data.run_id: event.data.resolution for event in mw.events if event.event == "finished"}
    assert ended == {"inner": "halted", "outer": "failed"}


async def test_a_run_in_a_task_being_cancelled_still_tells_its_halt_apart(mw: testing.InMemory) -> None:
    results: list[Any] = []

    async def body() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:  # cleaning up takes a run of its own
            async with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:
                asyncio.get_running_loop().call_soon(mw.halt, "desk")
                await asyncio.Event().wait()
            results.append(run.result)
            raise

    task = asyncio.create_task(body())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert results == ["a person, because halted"]


async def test_every_task_of_a_run_gets_halted_at_its_next_call(mw: testing.InMemory) -> None:
    async def call(run: Run) -> str:
        try:
            await run.model(for_ever, model="m")
        except Halted:
            return "halted"
        return "went on"

    async with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:
        first = asyncio.create_task(call(run))
        await asyncio.sleep(0)
        mw.halt("desk")
        assert await asyncio.shield(asyncio.gather(first)) == ["halted"]
    assert first.result() == "halted"


async def test_a_task_group_that_failed_earlier_in_the_run_does_not_let_the_halt_leak(mw: testing.InMemory) -> None:
    async def broken() -> None:
        raise ValueError("broken")

    async with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(broken())
        except* ValueError:
            pass
        await run.tool(READ, lambda: "found")
        asyncio.get_running_loop().call_soon(mw.halt, "desk")
        await asyncio.Event().wait()
    assert run.result == "a person, because halted"


async def test_a_call_made_while_unwinding_does_not_hide_the_hosts_cancellation(mw: testing.InMemory) -> None:
    async def body() -> None:
        async with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:
            try:
                await asyncio.Event().wait()
            finally:
                await run.tool(READ, lambda: "tidied")
                mw.halt("desk")
                await run.tool(READ, lambda: "not reached")

    task = asyncio.create_task(body())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert resolutions(mw) == ["halted"]


async def test_halted_in_the_body_does_not_cut_a_write_of_a_child(mw: testing.InMemory) -> None:
    began, end, work = begun()
    async with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run, asyncio.TaskGroup() as group:
        group.create_task(run.tool(WRITE, work))
        await began.wait()
        mw.halt("desk")
        asyncio.get_running_loop().call_later(0.02, end.set)
        await run.model(for_ever, model="m")
    tool = next(event.data for event in mw.events if event.event == "tool_called")
    assert (tool.result, tool.error) == ("done", None)
    assert resolutions(mw) == ["fell_back"]
    await nothing_pending()


async def test_a_write_that_is_about_to_begin_is_not_cut_by_a_halt_of_that_moment(mw: testing.InMemory) -> None:
    _, end, work = begun()
    async with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:
        run_tool = asyncio.ensure_future(run.tool(WRITE, work))
        asyncio.get_running_loop().call_soon(mw.halt, "desk")
        asyncio.get_running_loop().call_later(0.02, end.set)
        await run_tool
    tool = next(event.data for event in mw.events if event.event == "tool_called")
    assert (tool.result, tool.error) == ("done", None)
