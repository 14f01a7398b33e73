"""What one run has spent, and what its calls under way may cost at most. No I/O.

The ceiling of a model call is the caller's word; else the dearest of the last calls of its model in this process; else
what cost-watchdog answers, where the card reserves; else unknown, and taken for nothing.
"""

import threading
from asyncio import CancelledError
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from .contracts.budget import Rates, Reserve, Reserved
from .contracts.control import BudgetRule
from .contracts.money import to_money
from .contracts.runs import Usage

GENERATION = 100  # calls of a model, after which the dearest of those before the last as many is forgotten
_MODELS = 1000  # whose prices one process remembers of an agent
_NOTHING = Decimal(0)
_MILLION = Decimal(1_000_000)


class Prices:
    """What calls of an agent's models cost, as far as this process knows. From any thread."""

    def __init__(self) -> None:
        self._dearest: dict[str, tuple[int, Decimal, Decimal]] = {}  # calls of this generation, its dearest, the last's
        self._rates: dict[str, Rates] = {}

    def ceiling(self, model: str) -> Decimal | None:
        """The dearest of the last calls, or None where none had a price."""
        known = self._dearest.get(model)
        return max(known[1], known[2]) if known else None

    def cost(self, model: str, fields: Mapping[str, Any]) -> Decimal | None:
        """What a call of `model` cost: as reported, else by what cost-watchdog said of it; None where nobody knows."""
        usage: Usage | None = fields.get("usage")
        reported, tokens = fields.get("cost_usd"), tokens_of(fields)
        if reported is not None and (not tokens or reported != "0"):  # frameworks write 0 for a model they do not know
            return Decimal(reported)
        rates = self._rates.get(model)
        if rates is None or not tokens or usage is None:
            return None
        return (usage.input_tokens * Decimal(rates.input) + usage.output_tokens * Decimal(rates.output)) / _MILLION

    def learn(self, model: str, cost: Decimal) -> None:
        """Takes note of what a call cost."""
        count, now, before = self._dearest.get(model, (0, _NOTHING, _NOTHING))
        if count >= GENERATION:
            count, now, before = 0, _NOTHING, now
        if model in self._dearest or len(self._dearest) < _MODELS:
            self._dearest[model] = (count + 1, max(now, cost), before)

    def take_rates(self, model: str, rates: Rates | None) -> None:
        """Takes note of what the price list says of a model."""
        if rates is not None and (model in self._rates or len(self._rates) < _MODELS):
            self._rates[model] = rates


class Purse:
    """The budget of one run: nothing is begun that could pass its limit. From any thread."""

    def __init__(self, prices: Prices, rule: Callable[[], BudgetRule | None]) -> None:
        """`rule`: the card's word now; None where the run has no limit of its own."""
        self.prices = prices
        self._rule = rule
        self._lock = threading.Lock()
        self._spent = self._under_way = _NOTHING
        self._steps = self._tokens = self._unpriced = 0

    def take(self, ceiling: Decimal, *, learnt: bool = False, steps: int = 0) -> str | None:
        """Sets `ceiling` aside for a call. Why not, if so: then nothing is set aside. What was only learnt from other
        runs never stops a run that has spent nothing."""
        with self._lock:
            gone = self._spent + self._under_way
            rule = self._rule()
            if rule is not None and (gone or not learnt):
                limit = Decimal(rule.run)
                if gone + ceiling > limit or (gone and gone >= limit):
                    return self._full(limit, ceiling)
            if rule is not None and steps and (why := self._unbounded(rule)):
                return why
            self._under_way += ceiling
            self._steps += steps
            return None

    def put(self, ceiling: Decimal, cost: Decimal | None, tokens: int = 0) -> None:
        """A call for which `ceiling` was set aside is over; `cost` is None where nobody knows it."""
        with self._lock:
            self._under_way -= ceiling
            self._tokens += tokens
            if cost is None:
                self._unpriced += 1
            else:
                self._spent += cost

    def add(self, cost: Decimal | None, *, tokens: int = 0, steps: int = 0) -> None:
        """A call that was made elsewhere."""
        with self._lock:
            self._steps += steps
        self.put(_NOTHING, cost, tokens)

    def empty(self) -> str | None:
        """Why the run may not go on, if so: all of its budget is spent."""
        rule = self._rule()
        if rule is None or not self._spent:
            return None
        limit = Decimal(rule.run)
        return self._full(limit, _NOTHING) if self._spent >= limit else None

    def _full(self, limit: Decimal, ceiling: Decimal) -> str:
        text = f"the run has spent {_dollars(self._spent)} of its {_dollars(limit)} budget"
        if self._under_way:
            text += f", and calls under way may cost {_dollars(self._under_way)}"
        return f"{text}: one more of up to {_dollars(ceiling)} could pass it" if ceiling else text

    def _unbounded(self, rule: BudgetRule) -> str | None:
        """What bounds a run of which a call has no known price."""
        if not self._unpriced:
            return None
        several = f"{self._unpriced} of its calls {'has' if self._unpriced == 1 else 'have'} no known price"
        if self._steps >= rule.run_steps:
            return f"the run has made {self._steps} model calls, the limit is {rule.run_steps} as {several}"
        if self._tokens >= rule.run_tokens:
            return f"the run has used {self._tokens} tokens, the limit is {rule.run_tokens} as {several}"
        return None


class Asked(NamedTuple):
    """A reservation as it was asked for, and how to say what became of it."""

    request: Reserve
    commit: Callable[[str, str], object]  # (reservation, cost)


class Charge:
    """One call under way, and what is set aside for it."""

    def __init__(
        self, purse: Purse, ceiling: Decimal, model: str | None, asked: Asked | None, over: Callable[[], object]
    ) -> None:
        self.ceiling = ceiling
        self.asked = asked
        self.reservation: str | None = None
        self._purse, self._model, self._over = purse, model, over
        self._cost = _NOTHING

    def grant(self, answer: Reserved) -> str | None:
        """Takes what cost-watchdog granted; why the run's own budget forbids it, if so."""
        self.reservation = answer.id
        if self._model is not None:
            self._purse.prices.take_rates(self._model, answer.rates)
        if self.ceiling or answer.ceiling is None:
            return None
        ceiling = Decimal(answer.ceiling)
        why = self._purse.take(ceiling, learnt=True)
        self.ceiling = ceiling if why is None else _NOTHING
        return why

    def drop(self) -> None:
        """The call is not made."""
        self._purse.put(self.ceiling, _NOTHING)
        self.commit()

    def ended(self, fields: Mapping[str, Any], error: BaseException | None) -> dict[str, Any]:
        """The call is over: counts it, and gives what its event says of that."""
        said: dict[str, Any] = {"reservation": self.reservation} if self.reservation else {}
        if self._model is None:  # a tool: it costs what the card says
            self._purse.put(self.ceiling, self.ceiling)
            self._cost = self.ceiling
            return said
        cost = self._purse.prices.cost(self._model, fields)
        if cost is not None:
            self._purse.prices.learn(self._model, cost)
        elif error is not None and not _cut_off(error):
            cost = _NOTHING  # no provider bills an error
        elif self.ceiling:
            cost = self.ceiling
            said["estimate_usd"] = to_money(cost)
        self._purse.put(self.ceiling, cost, tokens_of(fields))
        self._cost = cost or _NOTHING
        return said

    def commit(self) -> None:
        """Says what the call cost. Where that is lost, its event says it."""
        self._over()
        if self.asked is not None:
            self.asked.commit(self.asked.request.id, to_money(self._cost))


def tokens_of(fields: Mapping[str, Any]) -> int:
    """How many tokens a call used, as far as it says."""
    usage = fields.get("usage")
    return usage.input_tokens + usage.output_tokens if isinstance(usage, Usage) else 0


def _cut_off(error: BaseException) -> bool:
    """Whether the provider may have gone on, and billed it."""
    cancelled = isinstance(error, CancelledError | TimeoutError) or not isinstance(error, Exception)
    return cancelled or "timeout" in type(error).__name__.lower()


def _dollars(amount: Decimal) -> str:
    return f"${amount:,.2f}" if amount == round(amount, 2) else f"${to_money(amount)}"
