"""What an attempt cost, and how sure that is. Pure."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

from midwatch.contracts.money import to_money
from midwatch.runtime.pricing import price

from .billed import Billed
from .outcome import CostBasis


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
