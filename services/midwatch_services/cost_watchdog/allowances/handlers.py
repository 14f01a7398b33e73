"""What cost-watchdog does with requests to set money aside, and with the events of the calls that it was for.

Requests are judged in groups, each in one transaction with those that wait; an answer leaves once that is saved.
"""

import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

import msgspec
import structlog
from sqlalchemy.engine import Connection

from midwatch.contracts import budget, subjects
from midwatch.contracts.budget import REQUEST_LIMIT, Commit, Committed, Rates, Reserve, Reserved
from midwatch.contracts.money import to_money
from midwatch.contracts.runs import ModelCalled, RunData, ToolCalled, Usage
from midwatch.runtime import answering, faults, telemetry
from midwatch.runtime.card_book import CardBook
from midwatch.runtime.pricing import CEILING, price

from ..decide import Observed
from ..observe import shortened
from ..store import Store
from . import decide
from .decide import Key

BATCH = 256  # requests in one transaction
WAITING = 20_000  # requests that wait for one; more are told to ask again
FIRST_CALL = Usage(input_tokens=10_000, output_tokens=2_000)  # what a call is taken for of whose kind none was seen
REMEMBERED = 4096  # models of agents whose dearest call is remembered

log = structlog.get_logger("midwatch.cost_watchdog.allowances")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MILLION = 1_000_000
_CALLS = (
    ModelCalled,
    ToolCalled,
)  # a tuple: to make `ModelCalled | ToolCalled` for each event cost as much as judging it
_decoders: dict[str, msgspec.json.Decoder[Any]] = {
    "reserve": msgspec.json.Decoder(Reserve),
    "commit": msgspec.json.Decoder(Commit),
}

Write = Callable[[Callable[[Connection], object]], Awaitable[None]]
Answer = Reserved | Committed


Request = answering.Request[Reserve | Commit, Answer]


class Allowances:
    """Answers reservations. `write` runs a transaction as every other of the watchdog's, one after another."""

    def __init__(
        self, states: Store, write: Write, cards: CardBook, now: Callable[[], datetime], fleet_budget: Decimal | None
    ) -> None:
        self._states, self._write, self._cards, self._now = states, write, cards, now
        self._fleet_budget = fleet_budget
        self._dearest: OrderedDict[tuple[str, str], Decimal] = OrderedDict()  # call of an agent's model, seen so far
        subject = subjects.budget("*", "*")  # one subscription: a commit is not to overtake its reservation
        self.answering = answering.Answering(
            subject, subjects.COST_WATCHDOG, batch=BATCH, waiting=WAITING, read=read, judge=self._judge_saved,
            refuse=_refusal, encode=_encoded,
        )  # fmt: skip

    async def _judge_saved(self, batch: list[Request]) -> list[Answer]:
        answers: list[Answer] = []

        def work(conn: Connection) -> None:
            self._states.begin(conn)
            answers.extend(self._judge_all(conn, batch))
            self._states.save(conn, self._now())

        await self._write(work)
        faults.reach("cost_watchdog.allowances.saved")
        return answers

    async def on_tick(self) -> None:
        """Drops reservations whose time is over."""
        now = self._now().timestamp()
        if not self._states.reservations.due(now):
            return

        def work(conn: Connection) -> None:
            self._states.begin(conn)
            if dropped := self._states.reservations.expire(now):
                log.warning("reservations_dropped", count=dropped)
            self._states.save(conn, self._now())

        await self._write(work)

    def settle(self, conn: Connection, event: Observed, data: RunData) -> None:
        """Within the transaction that sums the event's cost: its reservation is over."""
        # A replay carries the ids of the live calls that it repeats.
        if event.run.mode != "live" or not isinstance(data, _CALLS):
            return
        model = data.model if isinstance(data, ModelCalled) else None
        if data.reservation and _ID.fullmatch(data.reservation):
            reservations, key = self._states.reservations, Key(event.run.agent, data.reservation)
            reservations.load(conn, [key])
            known = reservations.get(key)
            reservations.put(key, decide.settle(known, self._now().timestamp()))
            model = (known and known.model) or model
        if model and event.cost is not None and event.cost.amount:
            self._learn(event.run.agent, model, event.cost.amount)

    def _judge_all(self, conn: Connection, batch: list[Request]) -> list[Answer]:
        asked = [one for one in batch if isinstance(one.ask, Reserve | Commit)]
        self._states.reservations.load(conn, [Key(one.agent, one.ask.id) for one in asked])
        now = self._now()
        return [self._judge(conn, one, now) for one in batch]

    def _judge(self, conn: Connection, request: Request, now: datetime) -> Answer:
        if isinstance(request.ask, Reserve):
            return self._reserve(conn, request.agent, request.ask, now)
        if isinstance(request.ask, Commit):
            return self._commit(request.agent, request.ask, now)
        return request.ask

    def _reserve(self, conn: Connection, agent: str, ask: Reserve, now: datetime) -> Answer:
        reservations, key = self._states.reservations, Key(agent, ask.id)
        known = reservations.get(key)
        if known is None and reservations.ledger.full(agent):
            why = f"{agent} holds {decide.OPEN_LIMIT} reservations already: commit those that are over"
            return Reserved(id=ask.id, error="too_many", reason=why)
        rates = _rates(ask.provider, ask.model, now.replace(second=0, microsecond=0)) if ask.model else None
        ceiling = decide.ceiling_of(ask, self._likely(agent, ask, now))
        if ask.ticket is not None:
            ask = msgspec.structs.replace(ask, ticket=shortened(ask.ticket))
        limits = self._limits(conn, agent, ask.ticket, now) if known is None else []
        after = decide.reserve(known, ask, ceiling, limits, now.timestamp())
        reservations.put(key, after)
        if after.answer is None:
            return Reserved(id=ask.id, error="over", reason="the call that this was for is over")
        return msgspec.structs.replace(after.answer, rates=rates) if rates else after.answer

    def _limits(self, conn: Connection, agent: str, ticket: str | None, now: datetime) -> list[decide.Budget]:
        """The agent's budgets with what is gone of them."""
        limits = decide.budgets(agent, ticket, self._cards.get(agent).budget, self._fleet_budget, now)
        sums, reserved = self._states.tickets, self._states.reservations.ledger.reserved
        sums.load(conn, [one.subject for one in limits])
        return [
            replace(one, spent=sums.get(one.subject).spent.amount, reserved=reserved(one.account)) for one in limits
        ]

    def _commit(self, agent: str, ask: Commit, now: datetime) -> Committed:
        reservations, key = self._states.reservations, Key(agent, ask.id)
        known = reservations.get(key)
        reservations.put(key, decide.commit(known, decide.amount_of(ask.cost), now.timestamp()))
        return Committed(id=ask.id, known=known is not None and known.open)

    def _likely(self, agent: str, ask: Reserve, now: datetime) -> Decimal | None:
        """What a call without a ceiling may cost: as the agent's dearest of this model, else as an ordinary one."""
        if ask.ceiling is not None or not ask.model:
            return None
        known = self._dearest.get((agent, ask.model))
        return known if known is not None else price(ask.provider, ask.model, FIRST_CALL, None, now).amount

    def _learn(self, agent: str, model: str, amount: Decimal) -> None:
        kind = (agent, model)
        if amount > self._dearest.get(kind, decide.NOTHING):
            self._dearest[kind] = min(amount, CEILING)
        if kind in self._dearest:
            self._dearest.move_to_end(kind)
        while len(self._dearest) > REMEMBERED:
            self._dearest.popitem(last=False)


def read(subject: str, body: bytes, reply: str) -> Request:
    """A request, or what to answer where it breaks the contract. The agent is the one in the subject."""
    agent, verb = subject.split(".")[2:4]
    wrong: type[Answer] = Committed if verb == "commit" else Reserved
    if verb not in _decoders or not subjects.is_agent_name(agent):
        return Request(verb, agent, wrong(error="malformed", reason=f"{subject} is no subject of a budget"), reply)
    if len(body) > REQUEST_LIMIT:
        why = f"the request has {len(body)} bytes, the limit is {REQUEST_LIMIT}"
        return Request(verb, agent, wrong(error="oversized", reason=why), reply)
    try:
        ask = _decoders[verb].decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Request(verb, agent, wrong(error="malformed", reason=f"the request breaks the contract: {error}"), reply)
    if isinstance(ask, Reserve) and not reply:
        return Request(verb, agent, wrong(error="malformed", reason="nobody waits for the answer"), reply)
    return Request(verb, agent, ask, reply)


def _refusal(request: Request, reason: str) -> Answer:
    wrong: type[Answer] = Committed if isinstance(request.ask, Commit | Committed) else Reserved
    return wrong(id=request.ask.id, error="unavailable", reason=reason)


def _encoded(answer: Answer) -> bytes:
    telemetry.BUDGET_ANSWERS.labels(subjects.COST_WATCHDOG, _outcome(answer)).inc()
    return budget.encode(answer)


def _outcome(answer: Answer) -> str:
    if answer.error is not None:
        return answer.error
    return "committed" if isinstance(answer, Committed) else "granted" if answer.granted else "refused"


@lru_cache(maxsize=REMEMBERED)
def _rates(provider: str | None, model: str, at: datetime) -> Rates | None:
    read_ = price(provider, model, Usage(input_tokens=_MILLION), None, at).amount
    written = price(provider, model, Usage(output_tokens=_MILLION), None, at).amount
    return None if read_ is None or written is None else Rates(input=to_money(read_), output=to_money(written))
