"""What the replay needs of a target."""

from datetime import datetime
from typing import Protocol

from midwatch.errors import MidwatchError

from ..case import Case
from ..costs import total
from ..outcome import Outcome
from ..wire import Report


class NotReplayed(MidwatchError):
    """The case cannot be replayed: the message says why."""


class Target(Protocol):
    """Whatever answers in the agent's place. `history`: it tells what already happened, errors and all."""

    history: bool

    async def replay(self, case: Case, attempt: int) -> Outcome:
        """One attempt at a case, whose error says what went wrong in it. Raises NotReplayed."""
        ...


def outcome(report: Report, at: datetime) -> Outcome:
    """What was done, priced."""
    cost, basis = total(report.billed, at)
    return Outcome(
        said=report.said, calls=report.calls, handed_off=report.handed_off,
        model_calls=sum(1 for one in report.billed if one.model), cost_usd=cost, cost_basis=basis,
        seconds=report.seconds, error=report.error,
    )  # fmt: skip
