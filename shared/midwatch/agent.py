"""An agent as its program declares it: where its runs begin."""

import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from . import offers
from .contracts import subjects
from .contracts.envelope import new_id
from .contracts.runs import Mode
from .errors import BadAgentName
from .fields import to_text
from .order import Handoff, Order
from .record import BaseRun, Publisher
from .run import Run
from .switch import LocalSwitch

R = TypeVar("R", bound=BaseRun)
F = TypeVar("F", bound=Callable[..., Any])
Fallback = Callable[[Handoff], Any]


class Engine(Publisher, Protocol):
    """What agents need of the engine, or of its twin in memory."""

    closed: bool

    def follow(self, agent: str, version: str) -> LocalSwitch: ...
    def take_cases(self, agent: str, heard: offers.Heard) -> None: ...


class BaseAgent(Generic[R]):
    """One agent in this process. `version` is your word for its prompt and code."""

    _run_type: type[R]
    _blocking = False

    def __init__(self, engine: Engine, name: str, version: str, fallback: Fallback | None, obey: bool) -> None:
        if not subjects.is_agent_name(name):
            raise BadAgentName(agent=name)
        self.name = name
        self.version = version
        self.engine = engine
        self._fallback = fallback
        self._obey = obey
        if obey:
            self._follow()  # present, and its switch read, before the first ticket comes

    def run(
        self, *, input: Any, ticket: str | None = None, channel: str | None = None, customer: str | None = None,
        session: str | None = None, labels: Mapping[str, str] | None = None, run_id: str | None = None,
        mode: Mode = "live", obey: bool | None = None, ids: Callable[[int], str] | None = None,
        at: datetime | None = None,
    ) -> R:  # fmt: skip
        """A run, to be used as a context manager.

        `input`: text, or a list of messages. `customer`: an opaque reference, never a name. `ids` gives each event's
        id by its number, `at` the time at which the run began, and `obey=False` lets the switch alone: a replay
        needs them.

        Entering raises NoCard where no scope card is applied. Leaving after a halt calls the fallback, whose answer
        becomes `run.result`; without one Halted goes on. An agent whose route says `shadow` runs in mode `shadow`.
        """
        obeys = self._obey if obey is None else obey
        switch = self._follow() if obeys else None
        order = Order(
            agent=self.name, version=self.version, input=input, run_id=(to_text(run_id)[:128] if run_id else new_id()),
            ticket=ticket, channel=channel, customer=customer, session=session, labels=labels, mode=mode, ids=ids,
            at=at, fallback=self._fallback,
        )  # fmt: skip
        return self._run_type(self.engine, switch, order)

    def _follow(self) -> LocalSwitch:
        switch = self.engine.follow(self.name, self.version)
        switch.own_fallback = switch.own_fallback or self._fallback is not None
        switch.blocking = switch.blocking or self._blocking
        return switch


class Agent(BaseAgent[Run]):
    """One agent in this process, in asyncio."""

    _run_type = Run

    def handles(self, function: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Makes `async def answer(ticket, run)` a function that takes a ticket and does all of a run.

        The ticket is text (the run's input), or has `id` and `input` as keys or attributes; further keywords go to
        `run`. What the function returns is the run's output, unless it finished or handed off by itself; after a halt
        the fallback's answer is returned, and in shadow None.
        """
        wants_run = takes_run(function)

        @functools.wraps(function)
        async def handle(ticket: Any, **options: Any) -> Any:
            async with self.run(**(of_ticket(ticket) | options)) as run:
                answer = function(ticket, run) if wants_run else function(ticket)
                answer = await answer if inspect.isawaitable(answer) else answer
                run.conclude(answer)
                return answer if run.acts else None
            return run.result

        return handle

    def takes(self, function: F) -> F:
        """Has `async def answer(case, run)` handle the cases of other agents that this agent is offered, each in a run
        of its own, here in this loop: those whose fallback is `agent:<this one>`.

        What it returns is the run's output, as with `handles`. An exception leaves the run `failed`: then, as after a
        halt, the case goes on to people.
        """
        self.engine.take_cases(self.name, offers.take(self, function))
        return function


def takes_run(function: Callable[..., Any]) -> bool:
    """Whether a handler wants the run beside its ticket."""
    return len(inspect.signature(function).parameters) > 1


def of_ticket(ticket: Any) -> dict[str, Any]:
    """What a handler's ticket says to `run`."""
    if isinstance(ticket, str):
        return {"input": ticket}
    found = ticket if isinstance(ticket, Mapping) else {name: getattr(ticket, name, None) for name in ("id", "input")}
    name = found.get("id")
    text = found.get("input")
    return {"input": ticket if text is None else text, "ticket": None if name is None else to_text(name)}
