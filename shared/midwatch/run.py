"""A run in asyncio: its calls, what a halt cancels, and what follows when it is left."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import datetime
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, overload

from . import cases
from .cases import known
from .errors import Halted
from .fields import to_text
from .interrupt import Scope
from .purse import Charge
from .record import BaseRun, Done, beside
from .spending import PATIENCE, Dollars
from .switch import Halt, clock

P = ParamSpec("P")
T = TypeVar("T")


class Run(BaseRun):
    """A run of an agent: `async with desk.run(input=…) as run:`.

    A halt cancels the task that entered the run, and model calls and reading tools of its other tasks, except while
    a tool that may write is under way: that one ends first.
    """

    _scope: Scope

    async def __aenter__(self) -> Self:
        self._scope = Scope(self._may_interrupt)
        self._scopes: set[Scope] = set()  # calls under way in other tasks
        self._inner: set[asyncio.Future[Any]] = set()  # writes under way
        self._raised_in: set[asyncio.Task[Any]] = set()  # where Halted was raised
        self._tool: str | None = None  # under way in the run's own task
        if self._switch is not None and (left := self._switch.known_by - clock()) > 0:
            await _until(self._switch.known, left)
        self._begin()
        self.review()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        fired = self._scope.fired
        self._scope.close()
        outside = self._outside(error)
        cancelled = isinstance(error, asyncio.CancelledError)
        halt = self._verdict(error, interrupted=cancelled and not outside and self._halt is not None)
        if halt is None:
            if fired and cancelled and not outside and self._halt is not None:
                raise self._halted(self._halt) from None  # ended meanwhile, but the cancellation was ours
            return False
        if outside:
            # Somebody else wants this task to end: that wins, and leaves no time for a fallback.
            self._end("halted", halt=halt, error=None if cancelled else to_text(repr(error)))
            if cancelled:
                return False
            raise asyncio.CancelledError from error
        if await self._replaced(halt, error):
            return True
        if isinstance(error, Halted) and error in self._raised:
            return False
        raise self._halted(halt) from (error if isinstance(error, BaseExceptionGroup) else None)

    def _outside(self, error: BaseException | None) -> bool:
        """Whether somebody else wants this task to end, which wins over a halt."""
        if self._halt is None:
            return False
        return self._scope.outer(error)

    # What users call.

    @overload
    async def model(
        self, function: Callable[..., Awaitable[T]], /, *args: Any, ceiling: Dollars, **keywords: Any
    ) -> T: ...
    @overload
    async def model(self, function: Callable[..., T], /, *args: Any, ceiling: Dollars, **keywords: Any) -> T: ...
    @overload
    async def model(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **keywords: P.kwargs) -> T: ...
    @overload
    async def model(self, function: Callable[P, T], /, *args: P.args, **keywords: P.kwargs) -> T: ...
    async def model(self, function: Callable[..., Any], /, *args: Any, ceiling: Any = None, **keywords: Any) -> Any:
        """Calls `function` (asynchronous or not) and records the model call: model, usage, time, answer.

        `ceiling`: US dollars that the call costs at most; by default what such calls cost before. Raises Halted
        instead of calling it, or during it, when the switch says so, and instead of it where a budget forbids it.
        """
        call = self._model_call(function, keywords, ceiling)
        await self._set_aside(call.charge)
        with call:
            answer = function(*args, **keywords)
            if inspect.isawaitable(answer):
                with self._interruptible(None):
                    answer = await answer
            return call.came_back(answer)

    @overload
    async def tool(
        self, name: str, function: Callable[P, Awaitable[T]], /, *args: P.args, **keywords: P.kwargs
    ) -> T: ...
    @overload
    async def tool(self, name: str, function: Callable[P, T], /, *args: P.args, **keywords: P.kwargs) -> T: ...
    async def tool(self, name: str, function: Callable[..., Any], /, *args: Any, **keywords: Any) -> Any:
        """Calls `function` (asynchronous or not) and records the call of tool `name`.

        Raises Halted instead of calling it when the switch says so. During a tool that the card calls `read`, a halt
        interrupts; any other is let end and is recorded first.
        """
        call = self._tool_call(name, function, args, keywords)
        if call is None:
            return None
        await self._set_aside(call.charge)
        if call.drains:

            async def write() -> Any:
                with call:
                    answer = function(*args, **keywords)
                    return call.came_back(await answer if inspect.isawaitable(answer) else answer)

            answer = await self._whole(write())
            self.check(name)
            return answer
        with call:
            answer = function(*args, **keywords)
            if inspect.isawaitable(answer):
                with self._interruptible(name):
                    answer = await answer
            return call.came_back(answer)

    async def _set_aside(self, charge: Charge | None) -> None:
        """Waits until money is set aside for a call, where the card says so."""
        if charge is None or charge.asked is None:
            return
        try:
            with self._interruptible(None):
                answer = await known(self._ask(charge.asked), PATIENCE)
            self.check()
        except BaseException:
            charge.drop()
            raise
        self._admit(charge, answer)

    # What the switch calls.

    def review(self) -> None:
        """The switch moved: cancels what a halt cancels. From any thread."""
        if self._over or clock() < self._gate.until:
            return
        for scope in (self._scope, *tuple(self._scopes)):
            scope.request()

    def _entered(self) -> None:
        super()._entered()
        self._scope.settle()

    def _record(self, event: str, at: datetime | None, **values: Any) -> Done:
        if self._begun:
            self._scope.settle()
        return super()._record(event, at, **values)

    def _may_interrupt(self) -> bool:
        return not self._over and self._writes == 0 and self._latch(self._judge(self._tool))

    def _halted(self, halt: Halt) -> Halted:
        task = None
        with suppress(RuntimeError):  # no loop in this thread
            task = asyncio.current_task()
        if self._begun and task is not None:  # before it is entered nothing is armed
            self._raised_in.add(task)
            if task is self._scope.task:
                self._scope.disarm()  # it unwinds already
        return super()._halted(halt)

    # Calls under way.

    @contextmanager
    def _interruptible(self, tool: str | None) -> Generator[None, None, None]:
        """A stretch in which a halt cancels this task. In the run's own task it always does."""
        if asyncio.current_task() is self._scope.task:
            before, self._tool = self._tool, tool
            try:
                yield
            finally:
                self._tool = before
            return
        scope = Scope(lambda: not self._over and self._latch(self._judge(tool)))
        self._scopes.add(scope)
        interrupted = False
        try:
            yield
        except asyncio.CancelledError:
            interrupted = scope.close() and self._halt is not None
            if not interrupted:
                raise
        finally:
            scope.close()
            self._scopes.discard(scope)
        if interrupted and self._halt is not None:
            raise self._halted(self._halt)  # here, where no cancellation is its context: it is not the host's

    async def _whole(self, write: Coroutine[Any, Any, T]) -> T:
        """Waits for a write in a task of its own, so that no halt cuts it in half; the caller's own cancellation
        reaches it."""
        self._drain(1)  # from now on, not from its first step: a halt in between would cancel the caller
        inner = asyncio.ensure_future(write)
        self._inner.add(inner)
        inner.add_done_callback(self._written)
        cancelled: asyncio.CancelledError | None = None
        while not inner.done():
            try:
                await asyncio.wait((inner,))
            except asyncio.CancelledError as error:
                if cancelled is not None or not self._aborted():
                    inner.cancel()
                cancelled = error
        if cancelled is not None:
            if not inner.cancelled():
                inner.exception()  # it is recorded; the cancellation is what goes on
            raise cancelled
        return inner.result()

    def _written(self, inner: asyncio.Future[Any]) -> None:
        self._inner.discard(inner)
        self._drain(-1)

    def _aborted(self) -> bool:
        """Whether a cancellation that arrives now is the echo of a halt: Halted was raised in a sibling task, and
        their task group ends this one. A second cancellation is somebody's own."""
        return any(task is not asyncio.current_task() for task in self._raised_in)

    # Leaving.

    async def _replaced(self, halt: Halt, error: BaseException | None) -> bool:
        """Lets writes end, then calls the fallback, if there is one and the case is this program's. Whether the program
        goes on after the block."""
        try:
            while self._inner:
                await asyncio.wait(self._inner)
            await self._absorb()
            if self._order.fallback is None or not self.awaited:
                self._end("halted", halt=halt, error=beside(error))
                return self._order.fallback is not None  # where nobody waits the program goes on as if it had answered
            claim = cases.claim(self._order, self._publisher.instance, halt)
            handoff = self._take_over(halt, await known(self._publisher.claim(*claim), claim[2]))
            if handoff is None:
                self._end("halted", halt=halt, error=cases.TAKEN)
                return False
            answer = self._order.fallback(handoff)
            self.result = await answer if inspect.isawaitable(answer) else answer
            self._end("fell_back", output=self.result, halt=halt)
        except BaseException as failure:
            self._fail(halt, failure)
            raise
        return True

    async def _absorb(self) -> None:
        # Two halts at once, or a task group that passes a cancellation on, leave one pending: it must not hit the
        # fallback. Somebody else's must.
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            if self._scope.cancelled_from_outside:
                raise


async def _until(known: "Future[None]", within: float) -> None:
    """Waits for a future of another thread, without passing a cancellation on to it."""
    if known.done():
        return
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def tell(_: "Future[None]") -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(done.set)

    known.add_done_callback(tell)
    with suppress(TimeoutError):
        async with asyncio.timeout(within):
            await done.wait()
