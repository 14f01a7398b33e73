"""An agent as its program declares it: where its runs begin."""

import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

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
Fallback = Callable[[Handoff], Any]


class Engine(Publisher, Protocol):
    """What agents need of the engine, or of its twin in memory."""

    closed: bool

    def follow(self, agent: str, version: str) -> LocalSwitch: ...


class BaseAgent(Generic[R]):
    """One agent in this process. `version` is your word for its prompt and code."""

    _run_type: type[R]

    def __init__(self, engine: Engine, name: str, version: str, fallback: Fallback | None, obey: bool) -> None:
        if not subjects.is_agent_name(name):
            raise BadAgentName(agent=name)
        self.name = name
        self.version = version
        self._engine = engine
        self._fallback = fallback
        self._obey = obey
        if obey:
            engine.follow(name, version)  # present, and its switch read, before the first ticket comes

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
        becomes `run.result`; without one Halted goes on.
        """
        obeys = self._obey if obey is None else obey
        switch = self._engine.follow(self.name, self.version) if obeys else None
        order = Order(
            agent=self.name, version=self.version, input=input, run_id=(to_text(run_id)[:128] if run_id else new_id()),
            ticket=ticket, channel=channel, customer=customer, session=session, labels=labels, mode=mode, ids=ids,
            at=at, fallback=self._fallback,
        )  # fmt: skip
        return self._run_type(self._engine, switch, order)


class Agent(BaseAgent[Run]):
    """One agent in this process, in asyncio."""

    _run_type = Run

    def handles(self, function: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Makes `async def answer(ticket, run)` a function that takes a ticket and does all of a run.

        The ticket is text (the run's input), or has `id` and `input` as keys or attributes; further keywords go to
        `run`. What the function returns is the run's output, unless it finished or handed off by itself; after a halt
        the fallback's answer is returned.
        """
        wants_run = takes_run(function)

        @functools.wraps(function)
        async def handle(ticket: Any, **options: Any) -> Any:
            async with self.run(**(of_ticket(ticket) | options)) as run:
                answer = function(ticket, run) if wants_run else function(ticket)
                answer = await answer if inspect.isawaitable(answer) else answer
                run.conclude(answer)
                return answer
            return run.result

        return handle


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
