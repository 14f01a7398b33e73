"""A halt cannot be swallowed, and cuts no write in half, however the agent's code waits for its calls."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from halting import READ, TOOLS, WRITE, begun, for_ever, nothing_pending, resolutions, to_human
from midwatch import Halted, testing


@pytest.fixture
async def mw() -> AsyncIterator[testing.InMemory]:
    async with testing.midwatch([testing.card("desk", tools=TOOLS)]) as mw:
        yield mw


async def plainly(call: Awaitable[Any]) -> Any:
    return await call


async def in_a_group(call: Awaitable[Any]) -> Any:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(plainly(call))
    return task.result()


async def gathered(call: Awaitable[Any]) -> Any:
    return (await asyncio.gather(call))[0]


async def gathered_with_exceptions(call: Awaitable[Any]) -> Any:
    return (await asyncio.gather(call, return_exceptions=True))[0]


async def shielded(call: Awaitable[Any]) -> Any:
    return await asyncio.shield(call)


async def waited_for(call: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(call, 20)


async def waited(call: Awaitable[Any]) -> Any:
    done, _ = await asyncio.wait([asyncio.ensure_future(call)])
    return done.pop().result()


WAYS: list[Callable[[Awaitable[Any]], Awaitable[Any]]] = [
    plainly, in_a_group, gathered, gathered_with_exceptions, shielded, waited_for, waited,
]  # fmt: skip
way = pytest.mark.parametrize("wait", WAYS, ids=lambda wait: wait.__name__)


@way
async def test_except_exception_does_not_swallow_a_halt(mw: testing.InMemory, wait: Any) -> None:
    async with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:
        asyncio.get_running_loop().call_soon(mw.halt, "desk")
        try:
            await wait(run.model(for_ever, model="m"))
        except Exception as error:
            raise AssertionError("swallowed") from error
    assert run.result == "a person, because halted"
    await nothing_pending()


@pytest.mark.parametrize("times", [1, 3])
async def test_a_task_whose_library_swallows_the_cancellation_is_cancelled_again(
    mw: testing.InMemory, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    monkeypatch.setattr("midwatch.interrupt.AGAIN", 0.02)
    async with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:
        mw.halt("desk")
        for _ in range(times):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        await asyncio.Event().wait()
    assert run.result == "a person, because halted"
    await nothing_pending()


async def test_a_task_that_has_left_its_run_is_not_cancelled_again(
    mw: testing.InMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("midwatch.interrupt.AGAIN", 0.0)
    async with mw.agent("desk", version="1", fallback=to_human).run(input="x"):
        mw.halt("desk")
        await asyncio.Event().wait()
    await nothing_pending()


@way
async def test_a_halt_before_the_call_is_not_swallowed_either(mw: testing.InMemory, wait: Any) -> None:
    calls: list[str] = []
    async with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:
        mw.halt("desk")
        for _ in range(2):
            try:
                await wait(run.tool(WRITE, calls.append, "written"))
            except Exception as error:
                raise AssertionError("swallowed") from error
    assert (calls, run.result) == ([], "a person, because halted")
    await nothing_pending()


@way
async def test_a_write_under_way_drains_and_its_result_is_recorded(mw: testing.InMemory, wait: Any) -> None:
    began, end, work = begun()
    draining: list[bool] = []
    async with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:

        async def halt() -> None:
            await began.wait()
            mw.halt("desk")
            await asyncio.sleep(0.01)
            draining.append(run.draining)
            end.set()

        halting = asyncio.create_task(halt())
        await wait(run.tool(WRITE, work))
    await halting
    tool = next(event.data for event in mw.events if event.event == "tool_called")
    assert (draining, tool.result, tool.error) == ([True], "done", None)
    assert [event.event for event in mw.events] == ["started", "tool_called", "handed_off", "finished"]
    await nothing_pending()


@way
async def test_the_record_says_halted_by_whom_and_by_which_epoch(mw: testing.InMemory, wait: Any) -> None:
    epochs: list[int] = []
    with pytest.raises(Halted) as caught:
        async with mw.agent("desk", version="1").run(input="x") as run:
            asyncio.get_running_loop().call_soon(lambda: epochs.append(mw.halt("desk", by="eva")))
            await wait(run.model(for_ever, model="m"))
    finished = mw.events[-1].data
    assert (finished.resolution, finished.halted_by, [finished.epoch]) == ("halted", "eva", epochs)
    assert [caught.value.epoch] == epochs


# Threads


async def test_a_thread_that_writes_is_waited_for(mw: testing.InMemory) -> None:
    began, end = threading.Event(), threading.Event()

    def refund() -> str:
        began.set()
        end.wait(5)
        return "refunded"

    async with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:

        async def halt() -> None:
            await asyncio.to_thread(began.wait, 5)
            mw.halt("desk")
            await asyncio.sleep(0.01)
            assert run.draining
            end.set()

        halting = asyncio.create_task(halt())
        await run.tool(WRITE, asyncio.to_thread, refund)
    await halting
    assert mw.events[1].data.result == "refunded"
    assert resolutions(mw) == ["fell_back"]


async def test_a_thread_of_a_halted_run_stops_before_its_next_call(mw: testing.InMemory) -> None:
    calls: list[int] = []
    began, over = threading.Event(), threading.Event()

    async with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:

        def work() -> None:
            try:
                while True:
                    run.check(WRITE)
                    calls.append(len(calls))
                    began.set()
                    time.sleep(0.001)
            finally:
                over.set()

        async def halt() -> None:
            await asyncio.to_thread(began.wait, 5)
            mw.halt("desk")
            calls.clear()

        halting = asyncio.create_task(halt())
        await asyncio.to_thread(work)
    await halting
    assert await asyncio.to_thread(over.wait, 5)
    assert len(calls) <= 1  # at most the one that was past its check
    assert run.result == "a person, because halted"


async def test_halted_that_a_thread_raises_ends_the_run(mw: testing.InMemory) -> None:
    async with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:

        def work() -> None:
            mw.halt("desk")
            run.check()

        try:
            await asyncio.to_thread(work)
        except Exception as error:
            raise AssertionError("swallowed") from error
    assert run.result == "a person, because halted"
    await nothing_pending()


def test_in_threads_the_fallback_waits_for_a_write_of_another_thread() -> None:
    began, end = threading.Event(), threading.Event()

    def refund() -> str:
        began.set()
        end.wait(5)
        return "refunded"

    with testing.midwatch([testing.card("desk", tools=TOOLS)]) as mw:
        with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:
            writer = threading.Thread(target=lambda: run.tool(WRITE, refund))
            writer.start()
            began.wait(5)
            mw.halt("desk")
            threading.Timer(0.05, end.set).start()
            run.tool(READ, str)
        writer.join(5)
        assert [event.event for event in mw.events] == ["started", "tool_called", "handed_off", "finished"]
        assert mw.events[1].data.result == "refunded"


def test_every_thread_of_a_run_stops_before_its_next_call() -> None:
    calls: list[int] = []
    halted: list[int] = []

    with testing.midwatch([testing.card("desk", tools=TOOLS)]) as mw:
        with mw.agent("desk", version="1", fallback=to_human).run(input="x") as run:
            ready = threading.Barrier(5)

            def work(number: int) -> None:
                run.tool(READ, calls.append, number)
                ready.wait(5)
                ready.wait(5)
                try:
                    run.tool(READ, calls.append, -1)
                except Halted:
                    halted.append(number)

            threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            ready.wait(5)
            mw.halt("desk")
            ready.wait(5)
            for thread in threads:
                thread.join(5)
        assert (sorted(calls), sorted(halted)) == ([0, 1, 2, 3], [0, 1, 2, 3])
        assert run.result == "a person, because halted"
