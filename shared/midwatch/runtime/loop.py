"""The event loop of a process: the fastest there is, ended in order by a signal."""

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any


def run_until_signal(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs `work` on the fastest loop there is and cancels it, so that it ends in order, on SIGINT or SIGTERM."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_until_signal(work()))


async def _until_signal(work: Coroutine[Any, Any, None]) -> None:
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C is a KeyboardInterrupt there
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the fastest loop there is, for `asyncio.Runner`; None for asyncio's own."""
    if sys.platform == "win32":
        return None
    try:
        import uvloop
    except ImportError:
        logging.getLogger("midwatch").debug("uvloop is not installed: running on asyncio's own loop")
        return None
    return uvloop.new_event_loop
