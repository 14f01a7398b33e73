"""The tickets that a drill sends to an agent, and what the streams say became of them."""

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from midwatch.agent import Agent
from midwatch.contracts import codec, subjects
from midwatch.contracts.control import Route
from midwatch.contracts.runs import Finished
from midwatch.errors import Halted, MidwatchError
from midwatch.routing import drawn

from .drill_plan import Shape

LABEL = "midwatch.drill"
_LOOK = 0.05  # seconds between two readings of the streams

log = logging.getLogger("midwatch.drill")


class Flow:
    """A steady flow of tickets to an agent, several in flight. Each has a run of the ticket's name."""

    def __init__(self, agent: Agent, drill_id: str, tool: str, route: Route | None, shape: Shape) -> None:
        self._agent, self._drill_id, self._tool, self._shape = agent, drill_id, tool, shape
        self._names = names(drill_id, route)
        self._under_way: set[asyncio.Task[None]] = set()
        self.sent: list[str] = []

    async def run(self) -> None:
        """Sends tickets until cancelled."""
        clock = asyncio.get_running_loop().time
        began = clock()
        for count in itertools.count(1):
            ticket = next(self._names)
            self.sent.append(ticket)
            task = asyncio.create_task(self._answer(ticket))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            await asyncio.sleep(max(0.0, began + count / self._shape.per_second - clock()))

    async def over(self) -> None:
        """Waits for the tickets under way."""
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def _answer(self, ticket: str) -> None:
        try:
            async with self._agent.run(
                input="A ticket of a drill: nobody waits for an answer.", ticket=ticket, run_id=ticket, mode="drill",
                labels={LABEL: self._drill_id},
            ) as run:  # fmt: skip
                await run.model(_model, self._shape.model, model="midwatch-drill")
                await run.tool(self._tool, asyncio.sleep, self._shape.tool)
                run.finish("Answered by the drill.")
        except Halted:
            pass  # its case is what is looked for
        except MidwatchError as error:
            log.warning("midwatch: ticket %s of the drill was not taken: %s", ticket, error)


async def _model(seconds: float, *, model: str) -> dict[str, Any]:
    await asyncio.sleep(seconds)
    return {"model": model}


def names(drill_id: str, route: Route | None) -> Iterator[str]:
    """Names of tickets, all of which the agent's route lets it act on."""
    for number in itertools.count():
        name = f"{drill_id}-{number}"
        if route is None or route.stage != "canary" or drawn(route.salt, name, route.traffic):
            yield name


class Readback:
    """What the streams hold of the drill's own tickets, by the server's clock. Read from the leader, one event after
    the other, so that a replica that lags loses no ticket."""

    def __init__(self, js: JetStreamContext, agent: str, drill_id: str) -> None:
        self._js = js
        self._mine = f"{drill_id}-"
        self._places = {
            (subjects.RUNS, subjects.run(agent, "*")): 0,
            (subjects.GOVERNANCE, subjects.case(agent, "opened")): 0,
        }
        self.answers: Counter[str] = Counter()
        self.ended: set[str] = set()
        self.cases: Counter[str] = Counter()
        self.answered_at: dict[str, datetime] = {}
        self.case_at: dict[tuple[str, int | None], datetime] = {}  # by key and epoch of the halt: the first
        self.calls: list[datetime] = []  # when each model or tool call began, by our clock
        self.last_run_event = 0  # sequence of the last event of ours

    async def begin(self) -> None:
        """Skips what the streams hold now."""
        for place in self._places:
            self._places[place] = (await self._js.stream_info(place[0])).state.last_seq

    async def follow(self) -> None:
        """Reads on until cancelled."""
        while True:
            await self.catch_up()
            await asyncio.sleep(_LOOK)

    async def catch_up(self) -> None:
        """Reads all that there is."""
        for stream, subject in self._places:
            while await self._next(stream, subject):
                pass

    async def _next(self, stream: str, subject: str) -> bool:
        place = (stream, subject)
        try:
            message = await self._js.get_msg(stream, seq=self._places[place] + 1, subject=subject, next=True)
        except NotFoundError:
            return False
        self._places[place] = message.seq or self._places[place] + 1
        try:
            event = codec.decode(message.subject or "", message.data or b"")
        except codec.Refused:
            return True  # not ours, and for others to bury
        run_id = getattr(event.data, "run_id", "")
        if run_id.startswith(self._mine) and event.data.mode == "drill" and message.time is not None:
            if stream == subjects.RUNS:
                self.last_run_event = self._places[place]
                self._take_event(run_id, event, message.time)
            else:
                self.cases[run_id] += 1
                self.case_at.setdefault((event.data.key, event.data.epoch), message.time)
        return True

    def _take_event(self, run_id: str, event: Any, stored_at: datetime) -> None:
        if isinstance(event.data, Finished):
            self.ended.add(run_id)
            if event.data.resolution == "resolved":
                self.answers[run_id] += 1
                self.answered_at.setdefault(run_id, stored_at)
        elif hasattr(event.data, "latency_ms"):
            self.calls.append(event.time - timedelta(milliseconds=event.data.latency_ms or 0.0))

    def settled(self, tickets: list[str]) -> bool:
        """Whether each ticket's run has ended, and is answered or has a case."""
        return all(one in self.ended and (self.answers[one] or self.cases[one]) for one in tickets)
