"""Whether money may be set aside for a call, and what becomes of it. Pure.

What was spent is what the run log says. Beside it stand the reservations of calls whose event has not come yet: each is
charged at its ceiling, once its cost is committed at that, and at nothing once its event is there, whose cost is in the
sums. So neither order, nor a repeat, nor a loss of any of the three counts a call twice or not at all.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from midwatch.contracts.budget import LEASE, Reserve, Reserved, Scope
from midwatch.contracts.control import AtLimit, BudgetRule
from midwatch.contracts.money import to_money
from midwatch.runtime.pricing import CEILING

from .. import periods, say
from ..periods import Period
from ..state import Subject

HOLD = 600.0  # seconds past its lease for which an orphan is charged: its event may wait on the agent's disk
COMMITTED = 24 * 3600.0  # seconds for which a cost that was committed is charged without its event
OPEN_LIMIT = 10_000  # reservations of one agent that stand at once

NEVER = float("inf")
NOTHING = Decimal(0)
_PLAIN = 12  # characters of an amount that needs no rounding


class Key(NamedTuple):
    """A reservation's identity. The agent is the one in the subject, so nobody touches another's."""

    agent: str
    id: str


class Reservation(Struct, frozen=True, omit_defaults=True):
    """Money set aside, or the memory that it was not, or is no more. At `ends_at` (Unix seconds) it is forgotten, and
    its charge with it."""

    phase: Literal["held", "committed", "settled", "refused"]
    ends_at: float
    charge: Decimal = NOTHING
    ticket: str | None = None
    model: str | None = None  # as it was asked for, which the call's event may call otherwise
    answer: Reserved | None = None

    @property
    def open(self) -> bool:
        """Whether it is charged."""
        return self.phase in ("held", "committed")


class Account(NamedTuple):
    """Whose reservations are summed: a ticket's, an agent's (`ticket` None), the fleet's (no agent)."""

    agent: str
    ticket: str | None = None


FLEET = Account("")


@dataclass(frozen=True, slots=True)
class Budget:
    """One limit that a call must keep, and how much of it is gone."""

    scope: Scope
    subject: Subject  # under which the run log's costs are summed
    account: Account
    limit: Decimal
    when: str = ""  # the hour or day, in words
    spent: Decimal = NOTHING
    reserved: Decimal = NOTHING


def budgets(agent: str, ticket: str | None, rule: BudgetRule, fleet_day: Decimal | None, now: datetime) -> list[Budget]:
    """The limits that hold for a live call, nothing of them gone. One that only alerts is none. What is set aside
    counts in whatever hour and day it is: there its event will be summed."""
    found: list[Budget] = []
    if ticket is not None and rule.at_limit.ticket != "alert":
        subject = Subject("live", agent, ticket)
        found.append(Budget("ticket", subject, Account(agent, ticket), amount_of(rule.ticket)))
    fleet, day, hour = periods.at(agent, now)
    mine: list[tuple[Scope, Period, str | None, AtLimit]] = [
        ("hour", hour, rule.hour, rule.at_limit.hour), ("day", day, rule.day, rule.at_limit.day),
    ]  # fmt: skip
    for scope, period, limit, action in mine:
        if limit is not None and action != "alert":
            found.append(Budget(scope, period.subject, Account(agent), amount_of(limit), period.when))
    if fleet_day is not None:
        found.append(Budget("fleet", fleet.subject, FLEET, fleet_day, fleet.when))
    return found


def ceiling_of(ask: Reserve, dearest: Decimal | None) -> Decimal:
    """The most that a call is taken to cost: its agent's word, else what such calls cost before."""
    return amount_of(ask.ceiling) if ask.ceiling is not None else dearest or NOTHING


def reserve(
    known: Reservation | None, ask: Reserve, ceiling: Decimal, limits: Sequence[Budget], now: float
) -> Reservation:
    """The reservation after it was asked for; its `answer` is what to say. A repeat renews one that is held."""
    if known is not None:
        return replace(known, ends_at=max(known.ends_at, now + LEASE + HOLD)) if known.phase == "held" else known
    passed = next((budget for budget in limits if passes(budget, ceiling)), None)
    ends_at = now + LEASE + HOLD
    if passed is None:
        answer = Reserved(id=ask.id, granted=True, ceiling=to_money(ceiling), seconds=LEASE)
        return Reservation("held", ends_at, ceiling, ask.ticket, ask.model, answer)
    answer = Reserved(
        id=ask.id, ceiling=to_money(ceiling), budget=passed.scope, limit=to_money(passed.limit),
        spent=to_money(passed.spent), reserved=to_money(passed.reserved), reason=sentence(passed, ceiling),
    )  # fmt: skip
    return Reservation("refused", ends_at, ticket=ask.ticket, answer=answer)


def commit(known: Reservation | None, cost: Decimal, now: float) -> Reservation:
    """The reservation after its call's cost was said; the first word counts. Of one that was never asked for it is
    remembered that it is over, so that a request that comes late sets nothing aside."""
    if known is None:
        return Reservation("settled", now + LEASE + HOLD)
    if known.phase != "held":
        return known
    if not cost:
        return _over(known, now)
    return replace(known, phase="committed", charge=cost, ends_at=now + COMMITTED)


def settle(known: Reservation | None, now: float) -> Reservation:
    """The reservation after its call's event came, whose cost is in the sums."""
    return Reservation("settled", now + LEASE + HOLD) if known is None else _over(known, now)


def _over(known: Reservation, now: float) -> Reservation:
    return (
        known
        if known.phase == "settled"
        else replace(known, phase="settled", charge=NOTHING, ends_at=now + LEASE + HOLD)
    )


def passes(budget: Budget, ceiling: Decimal) -> bool:
    """Whether a call of so much could pass the budget; of an unknown cost, whether it is gone already."""
    gone = budget.spent + budget.reserved
    return gone + ceiling > budget.limit or (not ceiling and gone >= budget.limit)


def sentence(budget: Budget, ceiling: Decimal) -> str:
    """Why a call is refused, for people."""
    name, agent = say.name(budget.account.ticket or ""), budget.account.agent
    who = {
        "ticket": f"Ticket {name} of {agent}", "hour": f"Agent {agent}", "day": f"Agent {agent}", "fleet": "The fleet",
    }[budget.scope]  # fmt: skip
    span = f" for {budget.when}" if budget.when else ""
    text = f"{who} has spent {say.dollars(budget.spent)} of its {say.dollars(budget.limit)} budget{span}"
    if budget.reserved:
        text += f", {say.dollars(budget.reserved)} is set aside for other calls"
    return f"{text}: one more of up to {say.dollars(ceiling)} could pass it" if ceiling else text


class Ledger:
    """The reservations that are open, and their sums."""

    def __init__(self, reservations: Iterable[tuple[Key, Reservation]] = ()) -> None:
        self.open: dict[Key, Reservation] = {}
        self.soonest = NEVER  # no reservation's time is over before; it may be later
        self._sums: dict[Account, Decimal] = {}
        self._counts: dict[str, int] = {}
        for key, reservation in reservations:
            self.put(key, reservation)

    def put(self, key: Key, reservation: Reservation | None) -> None:
        """Takes the reservation in place of the one with its key; None drops that."""
        before = self.open.pop(key, None)
        if before is not None:
            self._add(key, before, -1)
        if reservation is not None and reservation.open:
            self.open[key] = reservation
            self.soonest = min(self.soonest, reservation.ends_at)
            self._add(key, reservation, 1)

    def reserved(self, account: Account) -> Decimal:
        """What is set aside."""
        return self._sums.get(account, NOTHING)

    def full(self, agent: str) -> bool:
        """Whether an agent holds as many reservations as one may."""
        return self._counts.get(agent, 0) >= OPEN_LIMIT

    def due(self, now: float) -> list[Key]:
        """Those whose time is over."""
        self.soonest = min((one.ends_at for one in self.open.values() if one.ends_at > now), default=NEVER)
        return [key for key, reservation in self.open.items() if reservation.ends_at <= now]

    def _add(self, key: Key, reservation: Reservation, sign: int) -> None:
        self._counts[key.agent] = self._counts.get(key.agent, 0) + sign
        accounts = {Account(key.agent, reservation.ticket), Account(key.agent), FLEET}
        for account in accounts:
            left = self._sums.get(account, NOTHING) + sign * reservation.charge
            if left:
                self._sums[account] = left
            else:
                self._sums.pop(account, None)


def amount_of(money: str) -> Decimal:
    """Money on the wire as a number that can be summed."""
    amount = min(Decimal(money), CEILING)
    return amount if len(money) <= _PLAIN else Decimal(to_money(amount))
