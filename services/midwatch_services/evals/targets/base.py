"""What the replay needs of a target."""

from datetime import datetime
from typing import Protocol

from ..case import Case
from ..costs import total
from ..outcome import Outcome
from ..wire import Report


class Target(Protocol):
    """Whatever answers in the agent's place."""

    async def replay(self, case: Case, attempt: int) -> Outcome:
        """One attempt at a case. Never raises for what goes wrong in it: the outcome's error says that."""
        ...


def outcome(report: Report, at: datetime) -> Outcome:
    """What was done, priced."""
    cost, basis = total(report.billed, at)
    return Outcome(
        said=report.said, calls=report.calls, handed_off=report.handed_off,
        model_calls=sum(1 for one in report.billed if one.model), cost_usd=cost, cost_basis=basis,
        seconds=report.seconds, error=report.error,
    )  # fmt: skip
