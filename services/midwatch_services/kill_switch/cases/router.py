"""What the router does with a run that was stopped, a claim, a word of people, and the passing of time: each run that
leaves someone waiting makes one case, and each case has one who sees to it."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext

from midwatch.contracts import codec, subjects
from midwatch.contracts.codec import Refused, RunEvent
from midwatch.contracts.control import CaseClaim
from midwatch.contracts.envelope import Envelope
from midwatch.contracts.governance import CaseAccepted, CaseClosed, CaseReturned
from midwatch.contracts.runs import Finished, HandedOff, Resolution
from midwatch.errors import Permanent
from midwatch.runtime import faults
from midwatch.runtime.card_book import CardBook
from midwatch.runtime.database import Database
from midwatch.runtime.delivery import Received
from midwatch.runtime.outbox import Outbox
from midwatch.runtime.stream_read import read_range
from midwatch.runtime.switchboard import Switchboard

from ..decide import Instance, Surroundings
from ..handlers import KillSwitch
from ..hearing import Hearing
from ..policy import Policy
from ..reports import SOURCE
from . import case_store, routing
from .case_book import CaseBook, Change, Hooks, Want
from .claims import Claimed
from .flights import Flights
from .routing import BY, HUMAN, OWN, Case

LOOK = 0.25  # seconds between two looks at offers and at those who fell silent
_REASON, _NAME = 2000, 256  # characters of a reason, and of a name or key, that stand in a claim

log = structlog.get_logger("midwatch.kill_switch")


class Router:
    """Finds out what happens to cases; the book keeps them."""

    def __init__(
        self, nc: Client, js: JetStreamContext, database: Database, outbox: Outbox, switch: KillSwitch, cards: CardBook,
        now: Callable[[], datetime], policy: Policy, hooks: Hooks | None = None,
    ) -> None:  # fmt: skip
        self._nc, self._js, self._database, self._outbox, self._switch = nc, js, database, outbox, switch
        self._cards, self._now, self._policy = cards, now, policy
        self._board = Switchboard(js)
        self._flights = Flights()
        self._book = CaseBook(nc, js, database, outbox, switch, self._flights, now, policy, hooks)
        self._claims = self._book.claims
        self._hearing = Hearing(nc, switch, now, policy.silent_after)
        self._saved = 0  # sequence in the stream of runs

    async def load(self) -> None:
        """Takes up where the last process stopped; what that had heard of runs since it saved last, the stream has."""
        await self._book.load()
        seq, flights = await self._database.read(case_store.flights)
        if seq > (await self._js.stream_info(subjects.RUNS)).state.last_seq:  # the stream was made anew
            seq, flights = 0, {}
        self._flights.load(seq, flights)
        heard = (await self._js.consumer_info(subjects.RUNS, subjects.KILL_SWITCH)).delivered
        if heard is None or seq >= heard.stream_seq:
            return
        start = seq + 1 if seq else self._now() - self._policy.lookback  # it may have died before it first saved
        async for batch in read_range(self._nc, subjects.RUNS, subjects.run("*", "*"), start, to=heard.stream_seq):
            for stored in batch:
                with contextlib.suppress(Refused, RecursionError):
                    event = codec.decode_run(stored.subject, stored.body)
                    if routing.waits(event.data.mode):
                        self._note(event, stored.seq, datetime.fromisoformat(stored.stored_at))

    async def reload(self) -> None:
        """Takes the cases as the tables have them now: what was erased there is not to be in memory."""
        await self._book.load()

    # Run events

    async def on_runs(self, batch: Sequence[Received]) -> None:
        """Opens the cases of runs that were stopped, and follows those who see to a case in a run."""
        wants: list[Want] = []
        followed: list[Received] = []
        now = self._now()  # not the server's time: what began is held against when instances were heard, by this clock
        for received in batch:
            data = received.event.data
            if not routing.waits(data.mode):
                continue
            self._note(received.event, received.stream_seq, now)
            if isinstance(data, HandedOff):
                wants += self._handed_off(received, data)
            elif isinstance(data, Finished):
                wants += self._stopped(received, data)
                followed.append(received)
            elif subjects.CASE_LABEL in data.labels and received.event.event == "started":
                followed.append(received)
        if wants:
            await self._book.open(wants)
        if followed:
            await self._follow(followed)

    def _note(self, event: RunEvent, seq: int, at: datetime) -> None:
        data = event.data
        ended = data.resolution if isinstance(data, Finished) else None
        run, begins = (event.agent, data.run_id), data.seq == 0
        self._flights.note(run, seq, at, _instance(event.source), ended, begins=begins)

    def _handed_off(self, received: Received, data: HandedOff) -> list[Want]:
        """The case of a run that was stopped. Without a key it was the agent's own wish, and is the agent's affair."""
        if not data.key:
            return []
        by, to = (_instance(received.event.source), OWN) if data.own else (BY, data.to)
        claim = self._claim(data.agent, data.run_id, by=by, to=to, key=data.key, epoch=data.epoch, reason=data.reason)
        at = received.stored_at if data.own else None
        return [Want(claim, received.stream_seq, data.seq, at=at)]

    def _stopped(self, received: Received, data: Finished) -> list[Want]:
        """A halted run has a case, even where nobody said that it was handed off."""
        if data.resolution != "halted":
            return []
        claim = self._claim(
            data.agent, data.run_id, by=BY, to=self._fallback(data.agent), key=self._key(data), epoch=data.epoch,
            reason=data.error or "the run was halted",
        )  # fmt: skip
        return [Want(claim, received.stream_seq, data.seq)]

    def _key(self, data: Finished) -> str:
        """What stopped the run: `halted_by` is who did. Empty where no halt of that epoch stands any more."""
        keys = subjects.switch_keys(data.agent)
        halts = self._switch.halts.values()
        return next((halt.key for halt in halts if halt.epoch == data.epoch and halt.key in keys), "")

    def _claim(
        self, agent: str, run_id: str, *, by: str, to: str, key: str = "", epoch: int | None = None, reason: str = ""
    ) -> CaseClaim:
        """Of words of any length, a claim that the bucket takes."""
        return CaseClaim(
            agent=agent, run_id=run_id, at=self._now(), by=by[:_NAME], to=to[:_NAME], key=key[:_NAME], epoch=epoch,
            reason=reason[:_REASON],
        )  # fmt: skip

    def _fallback(self, agent: str) -> str:
        """Who takes over: by the halt that stands, else by the card."""
        for key in (subjects.agent_key(agent), subjects.FLEET_KEY):
            halt = self._switch.halts.get((key, None))
            if halt and halt.record.fallback:
                return halt.record.fallback
        return self._cards.get(agent).fallback

    async def _follow(self, events: Sequence[Received]) -> None:
        """A run began or ended: of a case that an agent had taken, or one that left a case itself."""
        changes: list[Change] = []
        ended: list[tuple[Case, Resolution | None]] = []
        for received in events:
            agent, data, now = received.event.agent, received.event.data, self._now()
            over = data.resolution if isinstance(data, Finished) else None
            taken = self._book.cases.get(data.labels.get(subjects.CASE_LABEL, ""))
            if taken is not None and taken.taker == agent:
                if taken.state == "offered":
                    await self._settle_offer(taken)
                changes.append(
                    Change(taken.case_id, partial(routing.taker_began, agent=agent, run_id=data.run_id, now=now))
                )
                if over:
                    end = partial(routing.taker_ended, agent=agent, run_id=data.run_id, ended=over, now=now)
                    changes.append(Change(taken.case_id, end))
            left = self._book.cases.get(subjects.case_id(agent, data.run_id)) if over else None
            if over and left is not None and left.state == "claimed":
                ended.append((left, over))
            elif over and left is not None:
                changes.append(Change(left.case_id, partial(routing.late_answer, ended=over, now=now)))
        await self._book.apply(changes)
        await self._book.conclude(ended)

    # Claims and offers

    async def on_claims(self, batch: Sequence[Received[Claimed]]) -> None:
        """Learns who sees to which case. One that is ours and is in no table was claimed by a process that died."""
        oldest = self._now() - self._policy.keep
        claims = [(one.event.claim, one.stored_at) for one in batch if not one.event.offer and one.stored_at > oldest]
        await self._switch.taken(max((claim.epoch or 0 for claim, _ in claims), default=0))
        await self._book.open([Want(claim, stands=True, at=at) for claim, at in claims])
        await self._decide_offers({one.event.key: one.event.claim for one in batch if one.event.offer})

    async def _decide_offers(self, standing: Mapping[str, CaseClaim]) -> None:
        """By key of the offer, what was created there: the agent has the case, or we took the offer back."""
        changes: list[Change] = []
        for case in self._book.cases.values() if standing else ():
            if case.state == "offered" and (claim := standing.get(_offer_key(case))):
                change = partial(routing.offer_decided, by=claim.by, now=self._now())
                changes.append(Change(case.case_id, change))
        await self._book.apply(changes)

    async def _settle_offer(self, case: Case) -> None:
        """The agent says that it has the case: see whether it is so before its key was delivered to us."""
        key = _offer_key(case)
        if claim := await self._claims.standing(key):
            await self._decide_offers({key: claim})

    async def _withdraw(self, cases: Sequence[Case]) -> None:
        """Takes offers back, unless the agent has been faster."""
        mine = [(_offer_key(case), self._claim(case.agent, case.run_id, by=BY, to=HUMAN)) for case in cases]
        standing = await self._claims.create_all(mine)
        faults.reach("kill_switch.offer_withdrawn")
        await self._decide_offers({key: claim for (key, _), claim in zip(mine, standing, strict=True)})

    # What people do

    async def on_spoken(self, batch: Sequence[Received[Envelope[Any]]]) -> None:
        """Cases that are accepted, returned and closed, in the order of the stream."""
        changes: list[Change] = []
        for received in batch:
            data = received.event.data
            if not isinstance(data, CaseAccepted | CaseReturned | CaseClosed) or received.event.source == SOURCE:
                continue
            agent, case = received.subject.split(".")[2], self._book.cases.get(data.case_id)
            if case is not None and case.state == "offered":
                if isinstance(data, CaseAccepted) and agent == case.taker:
                    await self._settle_offer(case)
                elif isinstance(data, CaseClosed) and agent == case.agent:
                    await self._withdraw([case])
            happens = partial(routing.spoken, said=data, now=self._now(), agent=agent)
            changes.append(Change(data.case_id, happens, (agent, received.event.id)))
        await self._book.apply(changes)

    # The passing of time

    async def look(self) -> None:
        """Takes back offers that nobody accepts, and sees to the cases of those who fell silent."""
        if not await self._hearing.hears():
            return
        now = self._now()
        around = Surroundings(now, self._hearing.since, 0)
        cases = list(self._book.cases.values())
        if due := [case for case in cases if case.state == "offered" and case.due_at and case.due_at <= now]:
            await self._withdraw(due)
        own = [case for case in cases if case.state == "claimed"]
        await self._book.conclude(
            [(case, None) for case in own if self._is_gone(case.agent, case.opened_by, case, around)]
        )
        await self._take_back([case for case in cases if case.state == "taken" and case.with_agent], around)
        await self._rescue(around)
        await self._outbox.drain()

    def _is_gone(self, agent: str, name: str, case: Case, around: Surroundings) -> bool:
        found = next((one for one in self._switch.instances.of(agent) if one.instance == name), None)
        since = case.updated_at
        if found is not None and (flight := self._flights.get((agent, case.run_id))):
            since = min(since, flight.at)  # what a process had begun is told late, by the next one that has its disk
        return routing.gone(found, since, around, self._carries_on(agent), self._policy)

    def _carries_on(self, agent: str) -> bool:
        return self._cards.get(agent).switch.lost_control == "carry_on"

    async def _take_back(self, taken: Sequence[Case], around: Surroundings) -> None:
        """Cases whose taker vanished, or never began. The run in which it had one leaves a case of its own."""
        changes: list[Change] = []
        wants: list[Want] = []
        for case in taken:
            gone = self._is_gone(case.taker, case.taken_by, case, around)
            run = (case.taker, case.taken_run)
            if gone and case.taken_run and not self._flights.ended(run):
                claim = self._claim(*run, by=BY, to=HUMAN, reason=_vanished(case.taken_by))
                wants.append(Want(claim, vanished=True, parent=case.case_id))
            elif (gone and not case.taken_run) or routing.overdue(case, around.now, self._policy):
                why = f"{case.taker} took it and " + ("vanished" if gone else "did not begin")
                changes.append(Change(case.case_id, partial(routing.given_up, why=why, now=around.now)))
        await self._book.apply(changes)
        await self._open_new(wants)

    async def _rescue(self, around: Surroundings) -> None:
        """The runs of instances that fell silent for longer than their lease."""
        wants: list[Want] = []
        for instance in self._switch.instances.of(None):
            agent, carries_on = instance.agent, self._carries_on(instance.agent)
            gone = routing.gone(instance, instance.seen_at, around, carries_on, self._policy)
            # Its last word may be older than its last run, or of a run whose end it could not send any more.
            silent = gone and not instance.left
            until = around.now if silent else routing.replaced(instance, around)
            begun = self._flights.of(agent, instance.instance, until)
            found = routing.stranded(instance, begun) if gone else routing.left_behind(instance, begun)
            runs = [run for run in found if self._is_stranded(agent, run)]
            to, why, doubt = self._fallback(agent), _vanished(instance.instance), ""
            if runs and carries_on and not await self._halt_runs(instance, runs):
                why, doubt = f"{why} and could not be halted", routing.DOUBT_GOES_ON
            claims = (self._claim(agent, run, by=BY, to=to, reason=why) for run in runs)
            wants += [Want(claim, vanished=True, doubt=doubt) for claim in claims]
        await self._open_new(wants)

    async def _halt_runs(self, instance: Instance, runs: Sequence[str]) -> bool:
        """Halts runs of an instance that acts without a lease, so that it leaves them alone when it wakes. Their
        customers are not left waiting where that cannot be written."""
        why = f"{_vanished(instance.instance)}; others see to its runs"
        try:
            await self._board.halt_runs(instance.agent, runs, reason=why, by=BY)
        except Permanent as error:
            log.error("runs_not_halted", agent=instance.agent, instance=instance.instance, error=str(error))
            return False
        faults.reach("kill_switch.runs_halted")
        return True

    def _is_stranded(self, agent: str, run_id: str) -> bool:
        return self._flights.ended((agent, run_id)) is None and not self._book.is_known(subjects.case_id(agent, run_id))

    async def _open_new(self, wants: Sequence[Want]) -> None:
        await self._book.open([want for want in wants if not self._book.is_known(want.case_id)])

    async def save(self) -> None:
        """Saves which runs are in flight, and how far the stream was followed."""
        self._flights.forget(self._now() - self._policy.forget_after)
        changes = self._flights.changes()
        try:
            if changes.seq != self._saved:
                await self._database.write(lambda conn: case_store.save_flights(conn, subjects.RUNS, changes))
            self._saved = changes.seq
        except BaseException:
            self._flights.unsaved(changes)
            raise

    async def forget(self) -> None:
        """Drops cases that were closed long ago."""
        before = self._now() - self._policy.keep
        await self._database.write(lambda conn: case_store.forget(conn, before))


def _offer_key(case: Case) -> str:
    return subjects.offer_key(case.taker, case.agent, case.run_id)


def _instance(source: str) -> str:
    """Who speaks in an event of this source."""
    return source.rsplit("/", 1)[-1] or "?"


def _vanished(instance: str) -> str:
    return f"its instance {instance} vanished"
