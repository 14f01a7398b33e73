"""The SDK for threads: the same runs and records, without asyncio in your program.

    with midwatch.blocking.connect() as mw:
        desk = mw.agent("refund-desk", version="2026-11-22", fallback=to_human)
        with desk.run(ticket="T-1042", input=question) as run:
            reply = run.model(client.chat.completions.create, model="gpt-4.1", messages=messages)

A halt comes before the next model or tool call: a thread cannot be interrupted.
"""

import asyncio
import contextlib
import functools
import inspect
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, overload

from . import agent as agents
from . import cases, offers
from .agent import BaseAgent, F, Fallback, of_ticket, takes_run
from .client import open_engine
from .engine import EngineThread
from .errors import Halted, NotConnected
from .purse import Charge
from .record import BaseRun, beside
from .spending import PATIENCE, Dollars
from .switch import Halt, clock

P = ParamSpec("P")
T = TypeVar("T")


class Run(BaseRun):
    """A run of an agent: `with desk.run(input=…) as run:`. Its calls may be made from several threads."""

    _written: threading.Condition

    def __enter__(self) -> Self:
        self._written = threading.Condition(self._lock)
        if self._switch is not None and (left := self._switch.known_by - clock()) > 0:
            with contextlib.suppress(TimeoutError):
                self._switch.known.result(left)
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        halt = self._verdict(error)
        if halt is None:
            return False
        if self._replaced(halt, error):
            return True
        if isinstance(error, Halted) and error in self._raised:
            return False
        raise self._halted(halt) from error

    def _replaced(self, halt: Halt, error: BaseException | None) -> bool:
        """Lets writes of other threads end, then calls the fallback, if there is one and the case is this program's.
        Whether the program goes on after the block."""
        try:
            with self._written:
                self._written.wait_for(lambda: self._writes == 0)
            if self._order.fallback is None or not self.awaited:
                self._end("halted", halt=halt, error=beside(error))
                return self._order.fallback is not None  # where nobody waits the program goes on as if it had answered
            handoff = self._take_over(halt, self._claimed(halt))
            if handoff is None:
                self._end("halted", halt=halt, error=cases.TAKEN)
                return False
            answer = self._order.fallback(handoff)
            self.result = asyncio.run(_result(answer)) if inspect.isawaitable(answer) else answer
            self._end("fell_back", output=self.result, halt=halt)
        except BaseException as failure:
            self._fail(halt, failure)
            raise
        return True

    def _drain(self, change: int) -> None:
        super()._drain(change)
        with self._written:
            self._written.notify_all()

    def _claimed(self, halt: Halt) -> bool | None:
        key, value, within = cases.claim(self._order, self._publisher.instance, halt)
        try:
            return self._publisher.claim(key, value, within).result(within)
        except TimeoutError:
            return None

    @overload
    def model(self, function: Callable[..., T], /, *args: Any, ceiling: Dollars, **keywords: Any) -> T: ...
    @overload
    def model(self, function: Callable[P, T], /, *args: P.args, **keywords: P.kwargs) -> T: ...
    def model(self, function: Callable[..., Any], /, *args: Any, ceiling: Any = None, **keywords: Any) -> Any:
        """Calls `function` and records the model call. `ceiling`: US dollars that it costs at most; by default what
        such calls cost before. Raises Halted instead of calling it when the switch, or a budget, says so."""
        call = self._model_call(function, keywords, ceiling)
        self._set_aside(call.charge)
        with call:
            return call.came_back(function(*args, **keywords))

    def tool(self, name: str, function: Callable[P, T], /, *args: P.args, **keywords: P.kwargs) -> T:
        """Calls `function` and records the call of tool `name`. Raises Halted instead of calling it when the switch
        says so. In shadow a tool that may write is not called: None."""
        call = self._tool_call(name, function, args, keywords)
        if call is None:
            return None  # type: ignore[return-value]  # the type is of agents that act
        self._set_aside(call.charge)
        with call:
            return call.came_back(function(*args, **keywords))

    def _set_aside(self, charge: Charge | None) -> None:
        """Waits until money is set aside for a call, where the card says so."""
        if charge is None or charge.asked is None:
            return
        try:
            asked, answer = self._ask(charge.asked), None
            with contextlib.suppress(TimeoutError):
                answer = asked.result(PATIENCE)
            self.check()
        except BaseException:
            charge.drop()
            raise
        self._admit(charge, answer)


class Agent(BaseAgent[Run]):
    """One agent in this process, in threads."""

    _run_type = Run
    _blocking = True

    def handles(self, function: Callable[..., T]) -> Callable[..., T]:
        """Makes `def answer(ticket, run)` a function that takes a ticket and does all of a run, as the asyncio
        agent's `handles` does."""
        wants_run = takes_run(function)

        @functools.wraps(function)
        def handle(ticket: Any, **options: Any) -> Any:
            with self.run(**(of_ticket(ticket) | options)) as run:
                answer = function(ticket, run) if wants_run else function(ticket)
                run.conclude(answer)
                return answer if run.acts else None
            return run.result

        return handle

    def takes(self, function: F) -> F:
        """Has `def answer(case, run)` handle the cases that this agent is offered, as the asyncio agent's `takes` does,
        each in a thread of its own."""
        self.engine.take_cases(self.name, offers.take_in_threads(self, function))
        return function


class Midwatch:
    """The connection of one process, for threads."""

    def __init__(self, engine: agents.Engine) -> None:
        self._engine = engine

    @property
    def instance(self) -> str:
        """Name of this process in presence and in the source of its events."""
        return self._engine.instance

    def agent(self, name: str, *, version: str, fallback: Fallback | None = None, obey: bool = True) -> Agent:
        """Declares an agent, as `midwatch.Midwatch.agent` does. Raises BadAgentName."""
        if self._engine.closed:
            raise NotConnected
        return Agent(self._engine, name, version, fallback, obey)


class Connection:
    """What `connect` gives: `with midwatch.blocking.connect() as mw:`."""

    def __init__(self, url: str | None, home: Path | None, instance: str | None) -> None:
        self._options = (url, home, instance)
        self._thread: EngineThread | None = None

    def __enter__(self) -> Midwatch:
        self._thread = open_engine(*self._options)
        return Midwatch(self._thread.engine)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._thread.close()


def connect(url: str | None = None, *, home: Path | str | None = None, instance: str | None = None) -> Connection:
    """As `midwatch.connect`, for threads: `with midwatch.blocking.connect() as mw:`."""
    return Connection(url, Path(home) if home is not None else None, instance)


async def _result(answer: Any) -> Any:
    return await answer
