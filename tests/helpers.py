"""What tests share that is no fixture."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

from nats.js import JetStreamContext

from midwatch.runtime.erasure import is_past


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


async def all_read(js: JetStreamContext, stream: str, consumer: str) -> bool:
    """Whether the consumer has acknowledged every message of the stream that it is to hear. Not by what the server
    counts as pending: a message that it has just acknowledged to its publisher may not be among it yet."""
    return await is_past(js, stream, consumer, (await js.stream_info(stream)).state.last_seq)


async def hears_offers(mw: Any, agent: str) -> None:
    """Waits until the process behind `mw` hears offers to `agent`, and may act on them."""
    engine = mw._engine
    await eventually(lambda: engine._nc is not None and not engine.follow(agent, "1").lapsed)
    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(engine._nc.flush(), engine._loop))
