"""cost-watchdog killed at twenty points under load: no call counted twice, none forgotten, nothing held for ever."""

import asyncio
import os
import random
import sys
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import nats.errors
import pytest

from budget_helpers import apply, caught_up
from helpers import eventually
from midwatch.contracts import budget, codec, subjects
from midwatch.contracts.budget import Commit, Reserve, Reserved
from midwatch.contracts.envelope import new_id, utc_now
from midwatch.contracts.runs import ModelCalled
from midwatch.runtime.card_book import CardBook
from midwatch.runtime.database import Database
from midwatch.runtime.settings import Settings
from midwatch_services.cost_watchdog.handlers import Watchdog
from midwatch_services.cost_watchdog.state import Subject
from stack import Process, Stack

pytestmark = pytest.mark.chaos
PROGRAM = Path(__file__).with_name("budget_program.py")

TICKETS = [f"T-{number}" for number in range(200)]
AT_ONCE = 4  # tickets that are worked on together
ANSWERS = 200  # after which those have had their share, and the next ones come
LIMIT = Decimal("0.25")
WORKERS = 24
SEED = 20261126
# Where a process dies by itself, and on which passage.
POINTS = [
    "cost_watchdog.allowances.saved:3", "cost_watchdog.allowances.saved:40", "cost_watchdog.allowances.saved:111",
    "cost_watchdog.saved:1", "cost_watchdog.saved:9", "delivery.received:5", "delivery.handled:2",
    "delivery.handled:17", "delivery.drained:4", "delivery.acked:7",
]  # fmt: skip


class Customer:
    """What agents do, and what they know to be true of each ticket."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.js = stack, stack.client.jetstream()
        self.draw = random.Random(SEED)
        self.true = dict.fromkeys(TICKETS, Decimal(0))  # of what was granted: its cost, while unknown its ceiling
        self.published = dict.fromkeys(TICKETS, Decimal(0))
        self.orphans: dict[str, Decimal] = dict.fromkeys(TICKETS, Decimal(0))
        self.most = Decimal(0)
        self.granted = self.refused = 0
        self.over = asyncio.Event()

    async def work(self) -> None:
        while not self.over.is_set():
            first = AT_ONCE * ((self.granted + self.refused) // ANSWERS)
            await self.call(self.draw.choice(TICKETS[first : first + AT_ONCE]))

    async def call(self, ticket: str) -> None:
        ceiling = Decimal(self.draw.randint(1, 20)) / 1000
        ask = Reserve(id=new_id(), run_id=new_id(), ticket=ticket, model="m", ceiling=str(ceiling))
        answer = await self.asked(ask)
        if not answer.granted:
            self.refused += 1
            await asyncio.sleep(0.01)
            return
        self.granted += 1
        self.true[ticket] += ceiling
        self.most = max(self.most, self.true[ticket])
        if self.draw.random() < 0.01:  # its process dies in the call
            self.orphans[ticket] += ceiling
            return
        await asyncio.sleep(self.draw.random() * 0.02)
        cost = ceiling * self.draw.randint(0, 4) / 4
        steps = [lambda: self.commit(ask.id, cost)] * self.draw.choice((0, 1, 1, 2))
        steps += [lambda: self.event(ask, cost, id)] * self.draw.choice((1, 1, 2))
        self.draw.shuffle(steps)
        id = new_id()
        self.true[ticket] += cost - ceiling  # from its first word on the rest may be granted to others
        for step in steps:
            await step()
        self.published[ticket] += cost

    async def asked(self, ask: Reserve) -> Reserved:
        """The answer, however often it takes to get one."""
        while True:
            try:
                raw = await self.stack.client.request(
                    subjects.budget("desk", "reserve"), budget.encode(ask), timeout=0.5
                )
            except (nats.errors.Error, TimeoutError):
                await asyncio.sleep(0.05)
                continue
            answer = msgspec.json.decode(raw.data, type=Reserved)
            if answer.error is None:
                return answer
            await asyncio.sleep(0.05)

    async def commit(self, id: str, cost: Decimal) -> None:
        await self.stack.client.publish(subjects.budget("desk", "commit"), budget.encode(Commit(id=id, cost=str(cost))))

    async def event(self, ask: Reserve, cost: Decimal, id: str) -> None:
        """The event of the call; its repeat has another Nats-Msg-Id, so that the stream holds it twice."""
        data = ModelCalled(
            run_id=ask.run_id, agent="desk", version="1", mode="live", seq=0, ticket=ask.ticket, model="m",
            cost_usd=str(cost), reservation=ask.id,
        )  # fmt: skip
        body = codec.encode(codec.envelope("run", "model_called", data, source="/agents/desk/1", id=id))
        await self.js.publish(
            subjects.run("desk", "model_called"), body, headers={subjects.MSG_ID: new_id()}, timeout=10
        )


class Cards:
    """Stands in for the card book: nothing is judged by a card here."""

    def get(self, agent: str) -> Any:
        return CardBook(None, None).get(agent)  # type: ignore[arg-type]


async def ledger(stack: Stack, after: timedelta) -> tuple[dict[str, Decimal], dict[str, Decimal]]:
    """What the watchdog's tables say of each ticket so much later: spent, and set aside."""
    settings = Settings(
        home=stack.home, nats_url=stack.nats.url, database_url=stack.environment.get("MIDWATCH_DATABASE_URL")
    )
    database = Database(settings.database_for(subjects.COST_WATCHDOG), name=subjects.COST_WATCHDOG)
    cards: Any = Cards()
    watchdog = Watchdog(database, stack.client.jetstream(), cards, lambda: utc_now() + after, timedelta(days=30))
    await watchdog.allowances.on_tick()
    states, found = watchdog._store, {ticket: Subject("live", "desk", ticket) for ticket in TICKETS}

    def read(conn: Any) -> tuple[dict[str, Decimal], dict[str, Decimal]]:
        states.begin(conn)
        states.tickets.load(conn, found.values())
        spent = {ticket: states.tickets.get(subject).spent.amount for ticket, subject in found.items()}
        held = dict.fromkeys(TICKETS, Decimal(0))
        for reservation in states.reservations.ledger.open.values():
            held[reservation.ticket or ""] += reservation.charge
        return spent, held

    result = await database.write(read)
    database.close()
    return result


async def killed(stack: Stack, customer: Customer, fault: str | None) -> None:
    """A life of the watchdog: until it reaches a point, or is killed after a while."""
    process: Process = await stack.start(subjects.COST_WATCHDOG, **({"MIDWATCH_FAULT": fault} if fault else {}))
    before = customer.granted + customer.refused
    if fault:
        assert await asyncio.wait_for(process.child.wait(), 30) == 137
        return
    await eventually(lambda: customer.granted + customer.refused > before + 5, within=20)
    await asyncio.sleep(customer.draw.random() * 0.5)
    await process.kill()


async def test_twenty_deaths_of_the_watchdog_count_no_call_twice_and_forget_none(
    stack: Stack, figure: Callable[..., None], say: Callable[[str], None]
) -> None:
    await apply(stack.client.jetstream(), "desk", run="1000", ticket=str(LIMIT))
    customer = Customer(stack)
    workers = [asyncio.create_task(customer.work()) for _ in range(WORKERS)]
    for point in POINTS:
        await killed(stack, customer, point)
        await killed(stack, customer, None)
    await stack.start(subjects.COST_WATCHDOG)
    customer.over.set()
    await asyncio.gather(*workers)
    await stack.caught_up(subjects.COST_WATCHDOG)

    async def nothing_else_is_held() -> bool:
        _, held = await ledger(stack, timedelta(0))
        assert held == customer.orphans
        return True

    await eventually(nothing_else_is_held, within=10)
    await stack.processes[-1].kill()
    spent, _ = await ledger(stack, timedelta(0))
    wrong = sum(spent[ticket] != customer.published[ticket] for ticket in TICKETS)
    orphans = sum(customer.orphans.values())
    _, later = await ledger(stack, timedelta(minutes=11, seconds=5))
    say(
        f"{2 * len(POINTS)} deaths, {customer.granted} granted, {customer.refused} refused, {len(TICKETS)} tickets: "
        f"${sum(spent.values())} summed of ${sum(customer.published.values())} published, ${orphans} orphaned"
    )
    assert customer.granted > 100
    assert customer.refused > 100
    assert orphans > 0
    figure("watchdog killed: tickets whose sum is not what was published", wrong, "tickets", 0)
    figure(
        f"watchdog killed: the most that a ticket of ${LIMIT} ever stood for", float(customer.most), "$", float(LIMIT)
    )
    figure("watchdog killed: set aside for nobody after its time limit", float(sum(later.values())), "$", 0)


async def test_an_agent_that_dies_again_and_again_never_passes_its_tickets_budget(
    plain: Stack, tmp_path: Path, figure: Callable[..., None], say: Callable[[str], None]
) -> None:
    js, bill, draw = plain.client.jetstream(), tmp_path / "bill", random.Random(SEED)
    await apply(js, "desk", run="1000", ticket="1", reserve=True)
    await plain.start(subjects.COST_WATCHDOG)

    def billed() -> Decimal:
        return Decimal(len(bill.read_bytes()) // 2 if bill.exists() else 0) / 100

    deaths, ended = 0, False
    while not ended:
        words = [sys.executable, str(PROGRAM), plain.nats.url, str(tmp_path / "agent"), str(bill)]
        agent = await asyncio.create_subprocess_exec(*words, env=os.environ | plain.environment)
        goal = billed() + Decimal(draw.randint(1, 12)) / 100

        async def enough(agent: Any = agent, goal: Decimal = goal) -> bool:
            return agent.returncode is not None or billed() >= goal

        await eventually(enough, within=20)
        ended = agent.returncode is not None
        if not ended:
            deaths += 1
            agent.kill()
            await agent.wait()
    await eventually(lambda: caught_up(js), within=20)
    spent, held = await ledger(plain, timedelta(0))
    total = spent["T-1"] + held["T-1"]
    _, later = await ledger(plain, timedelta(minutes=11, seconds=5))
    say(f"agent killed {deaths} times: ${billed()} billed, ${spent['T-1']} in the run log, ${held['T-1']} orphaned")
    assert deaths >= 5
    assert spent["T-1"] <= billed() <= total  # each call that was billed is in the log, or charged as an orphan
    figure("agent killed in its calls: billed on a ticket of $1", float(billed()), "$", 1)
    figure("agent killed in its calls: set aside for nobody after its time limit", float(later["T-1"]), "$", 0)
