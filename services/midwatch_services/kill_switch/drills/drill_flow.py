"""The tickets that a drill sends to an agent, and what the streams say became of them."""

import asyncio
import itertools
import logging
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import msgspec
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from midwatch.agent import Agent
from midwatch.contracts import codec, subjects
from midwatch.contracts.envelope import Envelope
from midwatch.contracts.runs import Finished, ModelCalled, ToolCalled
from midwatch.errors import Halted, MidwatchError
from midwatch.runtime.stream_read import Stored, read_range

from .drill_plan import Shape

LABEL = "midwatch.drill"
_LOOK = 0.05  # seconds between two readings of the streams

log = logging.getLogger("midwatch.drill")


class Flow:
    """A steady flow of tickets to an agent, several in flight. Each has a run of the ticket's name."""

    def __init__(self, agent: Agent, drill_id: str, tool: str, shape: Shape) -> None:
        self._agent, self._drill_id, self._tool, self._shape = agent, drill_id, tool, shape
        self._under_way: set[asyncio.Task[None]] = set()
        self.sent: list[str] = []

    async def run(self) -> None:
        """Sends tickets until cancelled."""
        clock = asyncio.get_running_loop().time
        began = clock()
        for count in itertools.count(1):
            ticket = f"{self._drill_id}-{count}"
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


class Readback:
    """What the streams hold of the drill's own tickets, by the server's clock. Runs are read in batches from any
    replica: one that lags only delays the count. Cases are read from the leader, so that none is overlooked."""

    def __init__(self, nc: Client, js: JetStreamContext, agent: str, drill_id: str) -> None:
        self._nc, self._js = nc, js
        self._mine = f"{drill_id}-"
        self._runs, self._opened = subjects.run(agent, "*"), subjects.case(agent, "opened")
        self._run_place = self._case_place = 0  # sequence of the last event read
        self.answers: Counter[str] = Counter()
        self.ended: set[str] = set()
        self.cases: Counter[str] = Counter()
        self.answered_at: dict[str, datetime] = {}
        self.case_at: dict[tuple[str, int | None], datetime] = {}  # by key and epoch of the halt: the first
        self.calls: list[datetime] = []  # when each model or tool call began, by our clock
        self.last_run_event = 0  # sequence of the last event of ours

    async def begin(self) -> None:
        """Skips what the streams hold now."""
        self._run_place, self._case_place = await self._end_of(subjects.RUNS), await self._end_of(subjects.GOVERNANCE)

    async def follow(self) -> None:
        """Reads on until cancelled."""
        while True:
            await self.catch_up()
            await asyncio.sleep(_LOOK)

    async def catch_up(self) -> None:
        """Reads all that there is now."""
        end = await self._end_of(subjects.RUNS)
        if end > self._run_place:
            async for batch in read_range(self._nc, subjects.RUNS, self._runs, self._run_place + 1, to=end):
                for one in batch:
                    self._run_place = one.seq
                    self._take_run(one)
        end = await self._end_of(subjects.GOVERNANCE)
        while self._case_place < end and await self._next_case():
            pass

    async def _end_of(self, stream: str) -> int:
        return (await self._js.stream_info(stream)).state.last_seq

    def _take_run(self, one: Stored) -> None:
        event = self._ours(one.subject, one.body)
        if event is None:
            return
        self.last_run_event, data = one.seq, event.data
        if isinstance(data, Finished):
            self.ended.add(data.run_id)
            if data.resolution == "resolved":
                self.answers[data.run_id] += 1
                self.answered_at.setdefault(data.run_id, msgspec.convert(one.stored_at, datetime))
        elif isinstance(data, ModelCalled | ToolCalled):
            self.calls.append(event.time - timedelta(milliseconds=data.latency_ms or 0.0))

    async def _next_case(self) -> bool:
        after = self._case_place + 1
        try:
            message = await self._js.get_msg(subjects.GOVERNANCE, seq=after, subject=self._opened, next=True)
        except NotFoundError:
            return False
        self._case_place = message.seq or after
        event = self._ours(message.subject or "", message.data or b"")
        if event is not None and message.time is not None:
            self.cases[event.data.run_id] += 1
            self.case_at.setdefault((event.data.key, event.data.epoch), message.time)
        return True

    def _ours(self, subject: str, body: bytes) -> Envelope[Any] | None:
        try:
            event = codec.decode(subject, body)
        except codec.Refused:
            return None  # not ours, and for others to bury
        return event if event.data.mode == "drill" and event.data.run_id.startswith(self._mine) else None

    def settled(self, tickets: list[str]) -> bool:
        """Whether each ticket's run has ended, and is answered or has a case."""
        return all(one in self.ended and (self.answers[one] or self.cases[one]) for one in tickets)
