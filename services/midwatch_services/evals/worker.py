"""The process in which the agent's code is replayed: `python -m midwatch_services.evals.worker FD TARGET TIMEOUT`.

What that code prints, where it hangs and how it dies concerns this process alone.
"""

import asyncio
import contextlib
import contextvars
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from . import calling, standin, wire
from .calling import BadTarget, Function, Turn
from .standin import CURRENT, Book, CaseOver
from .wire import Beat, Did, Do, Ready, Report

TICK = 0.02  # seconds; what blocks the loop for less is not noticed


class Lag:
    """How long this process's loop was blocked: no case is charged with what another's code took."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._due = time.monotonic() + TICK

    @property
    def seconds(self) -> float:
        """All of it so far."""
        return self._sum + max(0.0, time.monotonic() - self._due)

    def tick(self) -> None:
        """The loop turns."""
        self._sum = self.seconds
        self._due = time.monotonic() + TICK


class Worker:
    """Replays what it is sent, all at once, and says how each went."""

    def __init__(self, function: Function, within: float, writer: asyncio.StreamWriter) -> None:
        self._function = function
        self._within = within
        self._writer = writer
        self._lag = Lag()
        self._told = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Until the other side hangs up."""
        self._beat()
        while body := await reader.readline():
            self._start(self._replay(wire.read_order(body)))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _beat(self) -> None:
        self._lag.tick()
        if time.monotonic() - self._told >= wire.BEAT:
            self._told = time.monotonic()
            self._writer.write(wire.line(Beat()))
        asyncio.get_running_loop().call_later(TICK, self._beat)  # a task would wait for its turn twice

    async def _replay(self, order: Do) -> None:
        began = time.perf_counter()
        book = Book(order.case, order.missing)
        error, stuck = await self._turns(order, book)
        report = Report(
            said=book.said, calls=book.calls, handed_off=book.handed_off, billed=book.billed, error=book.over or error,
            stuck=stuck, seconds=round(time.perf_counter() - began, 6),
        )  # fmt: skip
        self._writer.write(wire.line(Did(id=order.id, report=report)))
        await self._writer.drain()

    async def _turns(self, order: Do, book: Book) -> tuple[str | None, bool]:
        """The customer's turns, until one goes wrong or hands off. What went wrong, and whether it may still run."""
        messages = [{"role": one.role, "text": one.text} for one in order.case.earlier]
        for number, text in enumerate(order.case.turns, 1):
            messages.append({"role": "customer", "text": text})
            book.next_turn()
            answering = self._answering(order, book, Turn(text, number, tuple(messages)))
            if not await self._in_time(answering):
                answering.cancel()  # it may pay no heed
                return f"the agent gave no answer to turn {number} within {self._within:g} s", True
            error = answering.exception() if not answering.cancelled() else asyncio.CancelledError()
            if error is not None and not isinstance(error, CaseOver):
                return f"the agent raised {calling.said_of(error)}", False
            if error is not None or book.over or book.handed_off:
                break
            messages += [{"role": "agent", "text": said} for said in book.said_now]
        return None, False

    def _answering(self, order: Do, book: Book, turn: Turn) -> "asyncio.Future[None]":
        context = contextvars.copy_context()
        context.run(CURRENT.set, book)
        wanted = (book, order.case.agent, order.version, turn)
        if self._function.asynchronous:
            return asyncio.get_running_loop().create_task(_ended(self._function.answer(*wanted)), context=context)
        return _in_thread(lambda: context.run(self._function.answer_in_thread, *wanted))

    async def _in_time(self, answering: "asyncio.Future[None]") -> bool:
        end, blocked = time.monotonic() + self._within, self._lag.seconds
        while not answering.done():
            left = end + self._lag.seconds - blocked - time.monotonic()
            if left <= 0:
                return False
            await asyncio.wait((answering,), timeout=left)
        return True


async def _ended(answering: Coroutine[Any, Any, None]) -> None:
    try:
        await answering
    except (SystemExit, KeyboardInterrupt) as error:  # in a task either would end the whole loop
        raise _as_exception(error) from None


def _as_exception(error: BaseException) -> Exception:
    return RuntimeError(repr(error)).with_traceback(error.__traceback__)


def _in_thread(work: Callable[[], None]) -> "asyncio.Future[None]":
    """Runs `work` in a thread of its own, which nobody waits for at the end."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if outcome.done():
            return
        if error is None:
            outcome.set_result(None)
        else:
            outcome.set_exception(error)

    def run() -> None:
        error: BaseException | None = None
        try:
            work()
        except (SystemExit, KeyboardInterrupt, StopIteration) as raised:  # a future holds none of them
            error = _as_exception(raised)
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=run, daemon=True).start()
    return outcome


def _end_with_parent() -> None:
    """A process whose loop is blocked does not see that the replay was killed."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


async def main(fd: int, target: str, within: float) -> None:
    """Loads the target and replays."""
    channel = socket.socket(fileno=fd)
    channel.set_inheritable(False)  # what the agent starts does not keep it open
    reader, writer = await asyncio.open_connection(sock=channel, limit=wire.LINE_LIMIT)
    standin.install()
    try:
        function = calling.find(target)
    except BadTarget as error:
        writer.write(wire.line(Ready(wrong=str(error))))
        await writer.drain()
        return
    writer.write(wire.line(Ready()))
    with contextlib.suppress(ConnectionError):
        await Worker(function, within, writer).serve(reader)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # so that what is printed last is seen
    threading.Thread(target=_end_with_parent, daemon=True).start()
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
    sys.stdout.flush()
    os._exit(0)  # threads of agents that hang would be waited for
