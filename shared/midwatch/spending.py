"""One run as it spends: its own budget is kept here, those that it shares where cost-watchdog answers for them."""

from collections.abc import Mapping
from concurrent.futures import Future
from decimal import Decimal
from typing import Any, Protocol

from msgspec.structs import replace

from . import usage
from .allowance import WITHIN
from .contracts.budget import Reserve, Reserved
from .contracts.control import BudgetRule
from .contracts.envelope import new_id
from .fields import optional, to_cost, to_text
from .judged import Judged
from .keys import BUDGET, CLOSED, Halt
from .order import Order
from .purse import Asked, Charge, Prices, Purse, tokens_of
from .switch import LocalSwitch

PATIENCE = WITHIN + 1.0  # seconds for which the engine's own thread is waited for
Dollars = Decimal | float | int | str  # US dollars
_DEFAULT = BudgetRule()
_NAME_LIMIT = 256  # characters of a model's or provider's name
_TICKET_LIMIT = 4000  # characters of a ticket in a request


class Treasury(Protocol):
    """What a run that spends needs of the engine, or of its twin in memory."""

    def reserve(self, agent: str, request: Reserve, go_on: bool) -> "Future[Reserved | None]": ...
    def commit(self, agent: str, id: str, cost: str) -> None: ...
    def release(self, agent: str, ticket: str | None, run_id: str) -> None: ...


class Spending(Judged):
    """What budgets let one run do."""

    def __init__(self, treasury: Treasury, switch: LocalSwitch | None, order: Order) -> None:
        super().__init__(switch, order)
        self._treasury = treasury
        self._purse = Purse(switch.prices if switch else Prices(), self._own_limit)
        self._holds = False  # something may be held for its ticket

    def _rule(self) -> BudgetRule:
        return self._switch.card.budget if self._switch and self._switch.card else _DEFAULT

    def _own_limit(self) -> BudgetRule | None:
        rule = self._rule()
        return None if self._switch is None or self.mode == "replay" or rule.at_limit.run == "alert" else rule

    def _stopped_otherwise(self) -> Halt | None:
        why = self._purse.empty()
        return None if why is None else self._broke(why)

    def _charge_model(self, function: Any, keywords: Mapping[str, Any], ceiling: Any) -> Charge:
        """Sets the ceiling of a model call aside. Raises Halted where the run's budget forbids the call."""
        model = to_text(keywords.get("model") or "unknown")
        given = to_cost(ceiling)
        learnt = self._purse.prices.ceiling(model) if given is None else None
        charge = self._charge(Decimal(given) if given is not None else learnt, model, given is None)
        if charge.asked is not None:
            provider = (usage.read(None, keywords, function).get("provider") or "")[:_NAME_LIMIT] or None
            request = replace(charge.asked.request, model=model[:_NAME_LIMIT], provider=provider)
            charge.asked = charge.asked._replace(request=request)
        return charge

    def _charge_tool(self, tool: str) -> Charge | None:
        """The same of a tool, where the card says what it costs."""
        rule = self._switch.card.tools.get(tool) if self._switch and self._switch.card else None
        if rule is None or rule.cost is None:
            return None
        return self._charge(Decimal(rule.cost), None, False)

    def _charge(self, ceiling: Decimal | None, model: str | None, learnt: bool) -> Charge:
        most = ceiling or Decimal(0)
        why = self._purse.take(most, learnt=learnt, steps=model is not None)
        if why is not None:
            raise self._halted(self._broke(why))
        return Charge(self._purse, most, model, self._asked(ceiling), self._look)

    def _asked(self, ceiling: Decimal | None) -> Asked | None:
        """What to ask cost-watchdog, where the card says so: only live runs spend live budgets."""
        if self._switch is None or self.mode != "live" or not self._rule().reserve:
            return None
        request = Reserve(
            id=new_id(), run_id=self.run_id, ticket=self._ticket(),
            ceiling=None if ceiling is None else to_cost(ceiling),
        )  # fmt: skip
        return Asked(request, lambda id, cost: self._treasury.commit(self._order.agent, id, cost))

    def _ask(self, asked: Asked) -> "Future[Reserved | None]":
        go_on = self._rule().unreachable == "go_on"
        self._holds = self._holds or go_on
        return self._treasury.reserve(self._order.agent, asked.request, go_on)

    def _admit(self, charge: Charge, answer: Reserved | None) -> None:
        """Takes the answer. Raises Halted where the call is not to be made."""
        if answer is not None and answer.granted:
            why = charge.grant(answer)
            if why is None:
                return
            halt = self._broke(why)
        elif answer is not None:
            halt = Halt(BUDGET, answer.reason, f"budget_{answer.budget}")
        else:
            held = " and nothing is held for it" if self._rule().unreachable == "go_on" else ""
            halt = Halt(
                BUDGET, f"cost-watchdog does not answer for the budgets of this run{held}", "budget_unreachable"
            )
        charge.drop()
        raise self._halted(halt)

    def _spent(self, fields: Mapping[str, Any]) -> None:
        """Counts a model call that was made elsewhere."""
        model = fields["model"]
        cost = self._purse.prices.cost(model, fields)
        if cost is not None:
            self._purse.prices.learn(model, cost)
        self._purse.add(cost, tokens=tokens_of(fields), steps=1)
        self._look()

    def _spent_on_tool(self, tool: str, cost: str | None) -> None:
        """The same of a tool."""
        rule = self._switch.card.tools.get(tool) if self._switch and self._switch.card else None
        known = cost if cost is not None else rule.cost if rule else None
        if known is not None:
            self._purse.add(Decimal(known))
            self._look()

    def _look(self) -> None:
        """Has every check look closer once the run's budget is spent."""
        if self._purse.empty() is not None:
            self._gate = CLOSED

    def _give_back(self) -> None:
        """The run is over."""
        if self._holds:
            self._holds = False
            self._treasury.release(self._order.agent, self._ticket(), self.run_id)

    def _ticket(self) -> str | None:
        return (optional(self._order.ticket) or "")[:_TICKET_LIMIT] or None

    def _broke(self, why: str) -> Halt:
        return Halt(BUDGET, why, "budget_run")
