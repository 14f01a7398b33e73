"""The SDK as an agent sees it while a case is replayed: its runs are the real ones, but they publish nothing, obey no
switch, and their tools are answered from the recording."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any

from midwatch import blocking, client, offers
from midwatch import run as runs
from midwatch.agent import Agent, BaseAgent, Fallback
from midwatch.calls import arguments_of
from midwatch.contracts import codec
from midwatch.contracts.budget import Reserve, Reserved
from midwatch.contracts.codec import RunEvent
from midwatch.contracts.runs import EVENT_LIMIT
from midwatch.fields import optional, to_cost, to_json
from midwatch.order import Order
from midwatch.record import Done
from midwatch.switch import LocalSwitch

from .billed import Billed
from .case import Case, Missing
from .desk import Desk, NoAnswer, normal
from .outcome import Called


class ToolFailed(Exception):
    """The recorded call failed with this error, or there is no such call."""


class CaseOver(BaseException):
    """The case cannot go on. A BaseException, so that `except Exception` in an agent cannot swallow it."""


class Engine:
    """Publishes nothing."""

    instance = "eval"
    event_limit = EVENT_LIMIT
    closed = False

    def append(self, subject: str, event_id: str, traceparent: bytes, body: bytes) -> None:
        """Goes nowhere."""

    def claim(self, key: str, body: bytes, within: float) -> "Future[bool | None]":
        answer: Future[bool | None] = Future()
        answer.set_result(True)
        return answer

    def reserve(self, agent: str, request: Reserve, go_on: bool) -> "Future[Reserved | None]":
        answer: Future[Reserved | None] = Future()
        answer.set_result(None)
        return answer

    def commit(self, agent: str, id: str, cost: str) -> None:
        """Nothing was set aside."""

    def release(self, agent: str, ticket: str | None, run_id: str) -> None:
        """Nothing is held."""

    def call_soon(self, work: Callable[[], object]) -> None:
        work()

    def take_cases(self, agent: str, heard: offers.Heard) -> None:
        """No case is offered."""

    def follow(self, agent: str, version: str) -> LocalSwitch:
        raise NotImplementedError("agents under test obey no switch")


class Book(Engine):
    """Takes note of what the agent does in one attempt. From any thread."""

    def __init__(self, case: Case, missing: Missing | None = None) -> None:
        self.said: list[str] = []
        self.calls: list[Called] = []
        self.billed: list[Billed] = []
        self.handed_off = False
        self.over: str | None = None  # why the case cannot go on
        self._turn = 0  # how much was said before it
        self._desk = Desk(case, missing)
        self._lock = threading.RLock()

    def next_turn(self) -> None:
        """The customer says something."""
        self._turn = len(self.said)

    @property
    def said_now(self) -> list[str]:
        """What was said since."""
        return self.said[self._turn :]

    def say(self, text: Any) -> None:
        """Takes note of an answer, once a turn: many agents say it, return it, and finish with it."""
        if isinstance(text, dict | list):
            text = to_json(text).decode()
        with self._lock:
            if isinstance(text, str) and text and text not in self.said_now:
                self.said.append(text)

    def append(self, subject: str, event_id: str, traceparent: bytes, body: bytes) -> None:
        """Takes note of an event of the agent's runs. Tool calls are noted where they are answered."""
        event = codec.decode_run(subject, body)
        with self._lock:
            self._note(event)

    def answer(self, tool: str, arguments: Mapping[str, Any]) -> Any:
        """What the tool gives. Raises ToolFailed, or CaseOver."""
        with self._lock:
            asked, kind = normal(arguments), self._desk.kind(tool)
            try:
                answer = self._desk.answer(tool, asked)
            except NoAnswer as error:
                self.over = self.over or str(error)
                self.calls.append(Called(tool=tool, arguments=asked, error=str(error), kind=kind, answered="missing"))
                raise CaseOver(str(error)) from None
            self.calls.append(
                Called(
                    tool=tool, arguments=asked, result=answer.result, error=answer.error, kind=kind,
                    answered=answer.answered,
                )
            )  # fmt: skip
        if answer.error is not None:
            raise ToolFailed(answer.error)
        return answer.result

    def own(self, tool: str, fields: Mapping[str, Any]) -> None:
        """Takes note of a call that the agent made around us."""
        with self._lock:
            self.calls.append(
                Called(
                    tool=tool, arguments=normal(fields.get("arguments")), result=normal(fields.get("result")),
                    error=optional(fields.get("error")), kind=fields.get("kind") or self._desk.kind(tool),
                    answered="own",
                )
            )  # fmt: skip
            if (cost := to_cost(fields.get("cost_usd"))) is not None:
                self.billed.append(Billed(cost_usd=cost))

    def _note(self, event: RunEvent) -> None:
        data: Any = event.data
        if event.event == "said" and data.by == "agent":
            self.say(data.text)
        elif event.event == "model_called":
            self.billed.append(
                Billed(
                    model=data.model, provider=data.provider, usage=data.usage, cost_usd=data.cost_usd,
                    failed=data.error is not None,
                )
            )  # fmt: skip
        elif event.event == "handed_off":
            self.handed_off = True
        elif event.event == "finished":
            self.say(data.output)
            self.handed_off = self.handed_off or data.resolution == "handed_off"


CURRENT: ContextVar[Book] = ContextVar("midwatch_eval")  # of the attempt that this task or thread is part of


class _NoCase(RuntimeError):
    """A run was begun outside every case: begin runs in the function that is replayed, or in what it calls."""


class Run(runs.Run):
    """A run whose tools are answered from the recording."""

    def __init__(self, publisher: object, switch: LocalSwitch | None, order: Order) -> None:
        self._book = _book()
        super().__init__(self._book, None, order)

    async def tool(self, name: str, function: Callable[..., Any], /, *args: Any, **keywords: Any) -> Any:
        """Answers from the recording; `function` is not called."""
        return await super().tool(name, _answering(self._book, name), **arguments_of(function, args, keywords))

    def record_tool_call(self, tool: str, **fields: Any) -> Done:
        self._book.own(tool, fields)
        return super().record_tool_call(tool, **fields)


class BlockingRun(blocking.Run):
    """The same for threads."""

    def __init__(self, publisher: object, switch: LocalSwitch | None, order: Order) -> None:
        self._book = _book()
        super().__init__(self._book, None, order)

    def tool(self, name: str, function: Callable[..., Any], /, *args: Any, **keywords: Any) -> Any:
        """Answers from the recording; `function` is not called."""
        return super().tool(name, _answering(self._book, name), **arguments_of(function, args, keywords))

    def record_tool_call(self, tool: str, **fields: Any) -> Done:
        self._book.own(tool, fields)
        return super().record_tool_call(tool, **fields)


def _answering(book: Book, name: str) -> Callable[..., Any]:
    def answer(**arguments: Any) -> Any:
        return book.answer(name, arguments)

    return answer


def _book() -> Book:
    try:
        return CURRENT.get()
    except LookupError:
        raise _NoCase(" ".join((_NoCase.__doc__ or "").split())) from None


class _Replayed(BaseAgent[Any]):
    """An agent whose runs are all in mode `eval`."""

    def run(self, **options: Any) -> Any:
        return super().run(**{**options, "mode": "eval", "obey": False})


class StandInAgent(_Replayed, Agent):
    """An agent in asyncio whose runs are replayed."""

    _run_type = Run


class StandInBlockingAgent(_Replayed, blocking.Agent):
    """An agent in threads whose runs are replayed."""

    _run_type = BlockingRun


_ENGINE = Engine()


class StandIn(client.Midwatch):
    """What `midwatch.connect()` gives in a replay."""

    def __init__(self) -> None:
        super().__init__(_ENGINE)

    def agent(self, name: str, *, version: str, fallback: Fallback | None = None, obey: bool = True) -> Agent:
        return StandInAgent(_ENGINE, name, version, fallback, obey=False)


class BlockingStandIn(blocking.Midwatch):
    """What `midwatch.blocking.connect()` gives in a replay."""

    def __init__(self) -> None:
        super().__init__(_ENGINE)

    def agent(self, name: str, *, version: str, fallback: Fallback | None = None, obey: bool = True) -> blocking.Agent:
        return StandInBlockingAgent(_ENGINE, name, version, fallback, obey=False)


class _Connection:
    def __init__(self, *_: object, **__: object) -> None:
        """Whatever address is named: nothing is connected to."""

    async def __aenter__(self) -> StandIn:
        return StandIn()

    async def __aexit__(self, *_: object) -> None:
        """Nothing is open."""


class _BlockingConnection:
    def __init__(self, *_: object, **__: object) -> None:
        """Whatever address is named: nothing is connected to."""

    def __enter__(self) -> BlockingStandIn:
        return BlockingStandIn()

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""


def install() -> None:
    """From now on a program of this process that connects gets the stand-in: nothing that it does reaches a bus."""
    client.connect = _Connection  # type: ignore[assignment]
    blocking.connect = _BlockingConnection  # type: ignore[assignment]
