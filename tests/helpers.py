"""What tests share that is no fixture."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any


async def eventually(predicate: Callable[[], Any], within: float = 20.0) -> Any:
    """The first truthy answer of `predicate` (plain or async), which may also assert. Fails after `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        failed: AssertionError | None = None
        answer: Any = None
        try:
            answer = predicate()
            if inspect.isawaitable(answer):
                answer = await answer
        except AssertionError as error:
            failed = error
        if answer and not failed:
            return answer
        if time.monotonic() > deadline:
            raise failed or AssertionError(f"still {answer!r} after {within:g} s")
        await asyncio.sleep(0.01)


async def hears_offers(mw: Any, agent: str) -> None:
    """Waits until the process behind `mw` hears offers to `agent`, and may act on them."""
    engine = mw._engine
    await eventually(lambda: engine._nc is not None and not engine.follow(agent, "1").lapsed)
    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(engine._nc.flush(), engine._loop))
