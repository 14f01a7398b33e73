"""The demo itself, act by act. Each act ends with something that was seen from outside, or the demo has failed."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Any

import midwatch
from midwatch.contracts import subjects
from midwatch.contracts.envelope import utc_now
from midwatch.contracts.governance import AlertRaised, SwitchContained, SwitchMoved
from midwatch.contracts.money import dollars
from midwatch.runtime.broker import connection
from midwatch.runtime.database import Database
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Switchboard
from midwatch_services import cards
from midwatch_services.cards import bucket

from . import stack
from .desk import AGENT, STUCK, TICKETS, Desk, Ticket
from .watch import NotSeen, Watch, run_log

ALLOWED = Decimal(1)  # US dollars that the loop may cost
BY = "operator (demo)"

Say = Callable[[str], None]


@dataclass
class Outcome:
    """What was to be seen, in order; with what is wrong where it was not."""

    seen: list[tuple[str, str | None]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def missing(self) -> list[str]:
        """Names of what was not seen."""
        return [name for name, wrong in self.seen if wrong is not None]


class Story:
    """The acts, on a Midwatch that runs."""

    def __init__(self, desk: Desk, watch: Watch, board: Switchboard, say: Say) -> None:
        self.outcome = Outcome()
        self._desk, self._watch, self._board, self._say = desk, watch, board, say

    async def play(self) -> None:
        """All acts. What is not seen is noted, and the story goes on."""
        first, loop, more, refused, last = TICKETS[:6], TICKETS[6], TICKETS[7:10], TICKETS[10], TICKETS[11]
        async with self._act("the log fills"):
            await self._ordinary(first)
        async with self._act("the looping run is halted below $1"):
            await self._runaway(loop)
        async with self._act("its ticket reaches a person, with its context"):
            await self._handed_over(loop)
        async with self._act("other tickets go on"):
            await self._ordinary(more)
        async with self._act("the operator's halt, contained with proof"):
            await self._halt()
        async with self._act("the next ticket reaches a person"):
            await self._refused(refused)
        async with self._act("resumed, a ticket is answered again"):
            await self._resumed(last)
        self.outcome.rows = await self._watch.rows()

    @contextlib.asynccontextmanager
    async def _act(self, name: str) -> AsyncIterator[None]:
        try:
            yield
            self.outcome.seen.append((name, None))
        except NotSeen as error:
            self._say(str(error))
            self.outcome.seen.append((name, str(error)))

    async def _ordinary(self, tickets: list[Ticket]) -> None:
        for ticket in tickets:
            await self._desk.answer(ticket)
        for ticket in tickets:
            row = await self._watch.row(f"{ticket.id} in the run log", ticket.id, _is("resolved"))
        self._say(
            f"{tickets[0].id} to {tickets[-1].id} are answered and in the run log, each with its cost "
            f"({tickets[-1].id}: {_dollars(row['cost_usd'])}, {row['model_calls']} model calls, {row['cost_basis']})"
        )

    async def _runaway(self, ticket: Ticket) -> None:
        self._say(
            f'{ticket.id} asks for order {STUCK}: its lookup says "try again" for ever, at about 11 cents a round'
        )
        answering = asyncio.create_task(self._desk.answer(ticket))
        try:
            for words, action in (("the watchdog's alert", "none"), ("the watchdog's halt", "halted_run")):
                alert = await self._watch.event(words, subjects.alert(AGENT, "raised"), _taken(ticket, action))
                self._say(f"{words}: {alert.title}")
            answer = await answering
        finally:
            answering.cancel()
        row = await self._watch.row(f"{ticket.id} halted", ticket.id, lambda row: bool(row["halted_by"]))
        cost = _dollars(row["cost_usd"])
        if row["cost_usd"] is None or Decimal(row["cost_usd"]) >= ALLOWED:
            raise NotSeen(f"{ticket.id} was halted at {cost}, not below {_dollars(ALLOWED)}")
        self._say(f"{row['halted_by']} stopped it at {cost}, after {row['model_calls']} model calls")
        self._say(f"the customer hears: {answer}")

    async def _handed_over(self, ticket: Ticket) -> None:
        row = await self._watch.row(f"{ticket.id} with a person", ticket.id, _is("fell_back"))
        handoff = self._desk.handed.get(ticket.id)
        logged = await self._watch.context_events(row["run_id"])
        if handoff is None or row["handed_off_to"] != "human" or len(handoff.events) != logged:
            raise NotSeen(f"{ticket.id} did not reach a person with all {logged} events of its run")
        self._say(f"{ticket.id} is with a {row['handed_off_to']}, who was given all {logged} events of the run so far")

    async def _halt(self) -> None:
        written = await self._board.halt_agent(AGENT, reason="Shown in the demo", by=BY)
        self._say(f"the operator halts {AGENT} (epoch {written.revision}), as `midwatch halt {AGENT}` does")
        halted = _at(written.revision)
        await self._watch.event("the halt announced", subjects.switch(AGENT, "halted"), halted)
        proof = await self._watch.event("the halt contained", subjects.switch(AGENT, "contained"), halted)
        for one in proof.instances:
            self._say(f"instance {one.instance}: {one.state} {_milliseconds(one.seconds)} after the write")
        self._say(f"contained {_milliseconds(proof.seconds)} after the write: every instance obeys, nothing moves")

    async def _refused(self, ticket: Ticket) -> None:
        answer = await self._desk.answer(ticket)
        row = await self._watch.row(f"{ticket.id} with a person", ticket.id, _is("fell_back"))
        if row["model_calls"] or row["handed_off_to"] != "human":
            raise NotSeen(f"{ticket.id} was not left to a person untouched")
        self._say(f"{ticket.id} arrives: no model is called, the customer hears: {answer}")

    async def _resumed(self, ticket: Ticket) -> None:
        written = await self._board.resume_agent(AGENT, reason="The demo goes on", by=BY)
        resumed = _at(written.revision)
        await self._watch.event("the resumption announced", subjects.switch(AGENT, "resumed"), resumed)
        await self._watch.applied("the agent armed again", subjects.agent_key(AGENT), written.revision)
        self._say(f"the operator resumes {AGENT} (epoch {written.revision}); its instance is armed again")
        answer = await self._desk.answer(ticket)
        await self._watch.row(f"{ticket.id} answered by the agent", ticket.id, _is("resolved"))
        self._say(f"{ticket.id} arrives, the customer hears: {answer}")


async def tell(home: Path, database_url: str | None, say: Say) -> Outcome:
    """Starts everything, plays the story, ends everything. Raises NotUp, and Temporary where no database answers."""
    if database_url:
        await _check_database(Settings(home=home, database_url=database_url))
    async with stack.running(home, database_url) as url:
        settings = Settings(home=home, nats_url=url, database_url=database_url)
        say("nats-server and five services are up, on free ports, with their state in a folder of their own")
        async with connection(url) as nc, run_log(settings) as log:
            js = nc.jetstream()
            session = secrets.token_hex(8)
            watch = Watch(AGENT, session, log)
            await watch.listen(nc)
            with resources.as_file(resources.files(__package__) / "desk.yaml") as card:
                applied = await bucket.apply(js, cards.load(card), by=BY, now=utc_now())
            say(f"the scope card of {AGENT} is applied ({applied.hash[:12]}); its switch says {applied.switch}")
            async with midwatch.connect(url, home=home) as client:
                story = Story(Desk(client, session), watch, Switchboard(js), say)
                await story.play()
            await watch.signed_off()
        say("the agent signs off, the services end")
    return story.outcome


async def _check_database(settings: Settings) -> None:
    # At once, and in words: the services would wait for it.
    database = Database(settings.database_for(subjects.LOGGER), name="demo")
    try:
        await database.ping()
    finally:
        await asyncio.to_thread(database.close)


def _is(resolution: str) -> Callable[[dict[str, Any]], bool]:
    return lambda row: bool(row["resolution"] == resolution)


def _taken(ticket: Ticket, action: str) -> Callable[[AlertRaised], bool]:
    return lambda alert: alert.ticket == ticket.id and alert.action_taken == action


def _at(epoch: int) -> Callable[[SwitchMoved | SwitchContained], bool]:
    return lambda report: report.epoch == epoch


def _dollars(amount: Any) -> str:
    return "an unknown cost" if amount is None else dollars(Decimal(amount))


def _milliseconds(seconds: float | None) -> str:
    return "at a time unknown" if seconds is None else f"{seconds * 1000:.0f} ms"
