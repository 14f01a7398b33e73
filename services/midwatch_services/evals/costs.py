"""What an attempt cost, and how sure that is. Pure."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

from msgspec import Struct

from midwatch.contracts.money import Money, to_money
from midwatch.contracts.runs import Usage
from midwatch.runtime.pricing import price

from .outcome import CostBasis


class Billed(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model call as far as its price goes, or (without a model) a tool call that says what it cost. `failed`: it
    raised."""

    model: str = ""
    provider: str | None = None
    usage: Usage | None = None
    cost_usd: Money | None = None
    failed: bool = False


def total(calls: Iterable[Billed], at: datetime) -> tuple[str | None, CostBasis]:
    """US dollars together. One call whose price nobody knows leaves the sum unknown."""
    amount, basis = Decimal(0), "none"
    for call in calls:
        if call.failed and call.usage is None and call.cost_usd is None:
            continue  # no provider bills an error
        cost = price(call.provider, call.model, call.usage, call.cost_usd, at)
        if cost.amount is None:
            return None, "unpriced"
        amount += cost.amount
        if cost.basis == "reported" and basis in ("none", "reported"):
            basis = "reported"
        else:
            basis = "priced"
    if basis == "none":
        return None, "none"
    return to_money(amount), "reported" if basis == "reported" else "priced"
