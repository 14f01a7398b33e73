"""Money that cost-watchdog sets aside for the calls of this process: asked for, renewed, given back.

Where the card says `unreachable: go_on`, two reservations more than are needed are held for each ticket. They serve
when nobody answers, for as long as they surely stand.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from .contracts import budget, subjects
from .contracts.budget import LEASE, Commit, Reserve, Reserved
from .contracts.envelope import new_id
from .keys import clock

log = logging.getLogger("midwatch")

WITHIN = 2.0  # seconds for which an answer is waited for: a cost-watchdog that starts again is back by then
AWAY_WITHIN = 0.3  # the same where the last one was waited for in vain
AGAIN = 0.2  # seconds after which what was not answered is asked again; doubled each time
RENEW = 20.0  # seconds between two renewals of what is held
SPARES = 2  # held for each ticket where the agent goes on without an answer

Spawn = Callable[[Coroutine[Any, Any, None]], None]
Held = tuple[str, str]  # agent, reservation


@dataclass(slots=True)
class _Rest:
    """What is held for a ticket beyond its calls under way, and the runs that it is held for."""

    runs: set[str] = field(default_factory=set)
    spares: list[tuple[str, Decimal]] = field(default_factory=list)
    filling: bool = False


class Allowances:
    """Asks over the engine's connection. None waits for another. Runs in one loop."""

    def __init__(self, spawn: Spawn) -> None:
        self._spawn = spawn
        self._nc: Client | None = None
        self._inbox = ""
        self._asked: dict[str, asyncio.Future[Reserved]] = {}  # by the token of its answers
        self._renewing: dict[str, Held] = {}  # the same, of renewals
        self._asking: dict[Held, bool] = {}  # under way, with whether it was given up meanwhile
        self._instead: dict[Held, str] = {}  # what was held already and given in place of what was asked for
        self._held: dict[Held, tuple[Reserve, float]] = {}  # with until when it surely stands, by `clock`
        self._rests: dict[tuple[str, str], _Rest] = {}  # by agent and ticket
        self._count = 0
        self._away = False

    async def subscribe(self, nc: Client) -> None:
        """Hears answers on a new connection."""
        self._inbox = nc.new_inbox()
        await nc.subscribe(f"{self._inbox}.*", cb=self._answered)
        self._nc = nc

    async def reserve(self, agent: str, request: Reserve, *, go_on: bool) -> Reserved | None:
        """The answer; None where nobody answers in time. What is granted may stand under another id than was asked."""
        if go_on:
            self._rests.setdefault((agent, request.ticket or ""), _Rest()).runs.add(request.run_id)
        held = (agent, request.id)
        self._asking[held] = False
        try:
            answer = await self._ask(agent, request)
            if answer is None:
                await self._free(agent, request.id)  # it may be granted yet
            if answer is None or not answer.granted:
                answer = self._spare(agent, request) or answer
            elif go_on:
                self._fill(agent, request, answer)
        finally:
            given_up = self._asking.pop(held)
        if given_up:
            await self.commit(agent, request.id, "0")
        return answer

    async def commit(self, agent: str, id: str, cost: str) -> None:
        """Says what a call cost, for which `id` was asked for. Nobody waits for the answer: its event says the same."""
        if (agent, id) in self._asking:
            self._asking[agent, id] = True
        await self._free(agent, self._instead.pop((agent, id), id), cost)

    async def release(self, agent: str, ticket: str | None, run_id: str) -> None:
        """A run is over: what is held for its ticket goes back with the last one."""
        rest = self._rests.get((agent, ticket or ""))
        if rest is None:
            return
        rest.runs.discard(run_id)
        if not rest.runs:
            del self._rests[agent, ticket or ""]
            for id, _ in rest.spares:
                await self._free(agent, id)

    async def close(self) -> None:
        """Gives back what is held for no call."""
        for (agent, _), rest in self._rests.items():
            for id, _ in rest.spares:
                await self._free(agent, id)
        self._rests.clear()

    async def renew(self) -> None:
        """Renews what is held, until cancelled."""
        while True:
            await asyncio.sleep(RENEW)
            self._renewing.clear()
            for (agent, id), (request, _) in list(self._held.items()):
                self._count += 1
                token = str(self._count)
                self._renewing[token] = (agent, id)
                await self._publish(subjects.budget(agent, "reserve"), budget.encode(request), token)

    async def _ask(self, agent: str, request: Reserve) -> Reserved | None:
        loop = asyncio.get_running_loop()
        self._count += 1
        token, began, pause = str(self._count), loop.time(), AGAIN
        ends = began + (AWAY_WITHIN if self._away else WITHIN)
        answer: asyncio.Future[Reserved] = loop.create_future()
        self._asked[token] = answer
        body, stands = budget.encode(request), clock() + LEASE
        try:
            while not answer.done() and (left := ends - loop.time()) > 0:
                await self._publish(subjects.budget(agent, "reserve"), body, token)
                await asyncio.wait((answer,), timeout=min(pause, left))
                pause *= 2
        finally:
            del self._asked[token]
        self._away = not answer.done()
        if self._away:
            return None
        said = answer.result()
        if said.error is not None:
            log.warning("midwatch: cost-watchdog sets nothing aside for agent %s: %s", agent, said.reason)
            return None
        if said.granted:
            self._held[agent, request.id] = (request, stands)
        return said

    def _fill(self, agent: str, request: Reserve, answer: Reserved) -> None:
        rest = self._rests.get((agent, request.ticket or ""))  # none where its last run ended meanwhile
        if rest is not None and not rest.filling and len(rest.spares) < SPARES:
            rest.filling = True
            self._spawn(self._hold_spares(agent, msgspec.structs.replace(request, ceiling=answer.ceiling), rest))

    async def _hold_spares(self, agent: str, request: Reserve, rest: _Rest) -> None:
        try:
            while len(rest.spares) < SPARES:
                spare = msgspec.structs.replace(request, id=new_id())
                answer = await self._ask(agent, spare)
                if answer is None or not answer.granted:
                    return
                rest.spares.append((spare.id, Decimal(answer.ceiling or 0)))
                if self._rests.get((agent, request.ticket or "")) is not rest:
                    await self._free(agent, spare.id)  # its last run ended meanwhile
                    return
        finally:
            rest.filling = False

    def _spare(self, agent: str, request: Reserve) -> Reserved | None:
        """One that is held already and large enough, in place of what was not granted."""
        rest, needed, now = self._rests.get((agent, request.ticket or "")), Decimal(request.ceiling or 0), clock()
        for place, (id, ceiling) in enumerate(rest.spares if rest else ()):
            _, stands = self._held.get((agent, id), (None, 0.0))
            if rest is not None and ceiling >= needed and now < stands:
                del rest.spares[place]
                self._instead[agent, request.id] = id
                return Reserved(id=id, granted=True, ceiling=request.ceiling or str(ceiling))
        return None

    async def _free(self, agent: str, id: str, cost: str = "0") -> None:
        """Says that what was set aside for a call is not needed any more."""
        self._held.pop((agent, id), None)
        await self._publish(subjects.budget(agent, "commit"), budget.encode(Commit(id=id, cost=cost)), "")

    async def _publish(self, subject: str, body: bytes, token: str) -> None:
        nc = self._nc
        if nc is None or not nc.is_connected:
            return  # it would be sent when the connection is back, and be old
        with contextlib.suppress(nats.errors.Error):
            await nc.publish(subject, body, reply=f"{self._inbox}.{token}" if token else "")

    async def _answered(self, msg: Msg) -> None:
        token = msg.subject.rsplit(".", 1)[1]
        answer, held = self._asked.get(token), self._renewing.pop(token, None)
        try:
            said = msgspec.json.decode(msg.data, type=Reserved) if msg.data else None
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return
        if said is None or said.error == "unavailable":
            return  # nobody is there to answer, or nobody who can: one may be soon
        if held in self._held and said.granted:
            self._held[held] = (self._held[held][0], clock() + LEASE - RENEW)
        elif answer is not None and not answer.done():
            answer.set_result(said)
