"""cost-watchdog's part in the twin in memory: sets money aside under the cards' budgets. No I/O, and no clock but the
system's."""

from collections.abc import Callable, Iterator
from decimal import Decimal

from .contracts.budget import LEASE, Reserve, Reserved, Scope
from .contracts.codec import RunEvent
from .contracts.control import BudgetRule
from .contracts.envelope import utc_now
from .contracts.money import to_money
from .contracts.runs import ModelCalled, ToolCalled

_NOTHING = Decimal(0)


class Till:
    """What live calls have spent, and what is set aside for others. `away`: it answers nobody."""

    def __init__(self, rule: Callable[[str], BudgetRule]) -> None:
        self.away = False
        self._rule = rule
        self._spent: dict[tuple[str, str], Decimal] = {}  # by agent, and ticket or span of time
        self._open: dict[tuple[str, str], tuple[str, Decimal]] = {}  # by agent and reservation: ticket, charge
        self._answers: dict[tuple[str, str], Reserved] = {}

    def reserve(self, agent: str, ask: Reserve) -> Reserved | None:
        """As cost-watchdog answers; None where it is away."""
        if self.away:
            return None
        key = (agent, ask.id)
        if key not in self._answers:
            self._answers[key] = self._judge(agent, ask)
            if self._answers[key].granted:
                self._open[key] = (ask.ticket or "", Decimal(ask.ceiling or 0))
        return self._answers[key]

    def commit(self, agent: str, id: str, cost: str) -> None:
        """What a call cost takes the place of its ceiling, until its event comes."""
        if (known := self._open.pop((agent, id), None)) and Decimal(cost):
            self._open[agent, id] = (known[0], Decimal(cost))

    def hear(self, event: RunEvent) -> None:
        """An event's cost is spent, and what was set aside for its call is free."""
        data = event.data
        if data.mode != "live" or not isinstance(data, ModelCalled | ToolCalled):
            return
        said = data.cost_usd or (data.estimate_usd if isinstance(data, ModelCalled) else None)
        for span in (_ticket(data.ticket), *_spans()):
            key = (event.agent, span)
            self._spent[key] = self._spent.get(key, _NOTHING) + Decimal(said or 0)
        self._open.pop((event.agent, data.reservation or ""), None)

    def _judge(self, agent: str, ask: Reserve) -> Reserved:
        ceiling = Decimal(ask.ceiling or 0)
        for scope, span, limit in self._limits(agent, ask.ticket):
            mine = [charge for (name, _), (ticket, charge) in self._open.items() if name == agent
                    and (scope != "ticket" or ticket == ask.ticket)]  # fmt: skip
            spent, reserved = self._spent.get((agent, span), _NOTHING), sum(mine, _NOTHING)
            gone = spent + reserved
            if gone + ceiling > limit or (not ceiling and gone >= limit):
                return Reserved(
                    id=ask.id, budget=scope, limit=to_money(limit), spent=to_money(spent), reserved=to_money(reserved),
                    reason=f"the {scope} budget of ${to_money(limit)} is spent or set aside",
                )  # fmt: skip
        return Reserved(id=ask.id, granted=True, ceiling=to_money(ceiling), seconds=LEASE)

    def _limits(self, agent: str, ticket: str | None) -> Iterator[tuple[Scope, str, Decimal]]:
        rule = self._rule(agent)
        hour, day = _spans()
        if ticket is not None and rule.at_limit.ticket != "alert":
            yield "ticket", _ticket(ticket), Decimal(rule.ticket)
        if rule.hour is not None and rule.at_limit.hour != "alert":
            yield "hour", hour, Decimal(rule.hour)
        if rule.day is not None and rule.at_limit.day != "alert":
            yield "day", day, Decimal(rule.day)


def _ticket(name: str | None) -> str:
    return f"ticket {name}"


def _spans() -> tuple[str, str]:
    now = utc_now()
    return f"hour {now:%Y-%m-%dT%H}", f"day {now:%Y-%m-%d}"
