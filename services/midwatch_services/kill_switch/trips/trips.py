"""What halts an agent without a person, and the sentence that says why. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from midwatch.contracts import subjects
from midwatch.contracts.control import TripMode, TripRule
from midwatch.contracts.governance import BUDGET_FLEET_DAY, AlertRaised

RULE = "tripped"
WINDOW = timedelta(hours=1)
LEAST = 10  # finished runs of which a share says something
_LATE = timedelta(minutes=1)  # beyond what clocks differ by; what is published again comes two minutes late at least


@dataclass(frozen=True, slots=True)
class Trip:
    """A card's condition that is met. `name`: the key on the card; `cause` tells conditions of one name apart; `at`:
    when it was met, by the server's clock."""

    name: str
    cause: str
    why: str
    at: datetime
    value: float | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one agent since it was last resumed, an hour at most. The times are of the last of each."""

    halted: int = 0
    halted_at: datetime | None = None
    finished: int = 0
    failed: int = 0
    failed_at: datetime | None = None


def of_figures(rule: TripRule, figures: Figures) -> list[Trip]:
    """The conditions that the figures meet."""
    found = []
    if figures.halted_at and 0 < rule.halted_runs <= figures.halted:
        why = f"{figures.halted} runs were halted one by one within an hour; its card's limit is {rule.halted_runs}"
        name = "halted_runs"
        found.append(Trip(name, name, why, figures.halted_at, figures.halted, rule.halted_runs))
    share = figures.failed / figures.finished if figures.finished >= LEAST else 0.0
    if figures.failed_at and 0 < rule.failed_runs <= share:
        why = (
            f"{figures.failed} of {figures.finished} runs that finished within an hour failed "
            f"({100 * share:.0f} %); its card's limit is {100 * rule.failed_runs:g} %"
        )
        found.append(Trip("failed_runs", "failed_runs", why, figures.failed_at, round(share, 4), rule.failed_runs))
    return found


def raised_at(said: datetime, stored_at: datetime) -> datetime:
    """When an alert was raised: by the server's clock, unless the stream had it only later, or once more."""
    return said if stored_at - said > _LATE else stored_at


def of_alert(rule: TripRule, agent: str, alert: AlertRaised, at: datetime) -> Trip | None:
    """The condition that an alert raised at `at` meets; an alert of the fleet's day budget meets one on no card."""
    if alert.severity != "page" or alert.mode != "live":
        return None
    if agent == subjects.FLEET:
        named = alert.rule == BUDGET_FLEET_DAY
        return Trip("fleet_budget", "fleet_budget", alert.title, at) if named else None
    if alert.rule not in rule.alerts:
        return None
    return Trip("alerts", f"alert:{alert.rule}", f"the alert {alert.rule} was raised: {alert.title}", at)


def title(agent: str, trip: Trip, mode: TripMode) -> str:
    """One sentence for whoever is told."""
    who = "the fleet" if agent == subjects.FLEET else agent
    if mode == "observe":
        return f"{who} would have been halted: {trip.why}"
    return f"{who} is halted until a person resumes it: {trip.why}"


class Ended(NamedTuple):
    """Runs of an agent that ended in one minute. `failed_at`: the last of those that failed."""

    agent: str
    minute: int
    finished: int
    failed: int
    failed_at: datetime | None


class Outcomes:
    """How the runs of each agent ended, minute by minute. What is counted is older than `since` of its agent never."""

    def __init__(self) -> None:
        self._ended: dict[str, dict[int, Ended]] = {}
        self._since: dict[str, datetime] = {}

    def begin(self, agent: str, since: datetime, ended: Iterable[Ended]) -> None:
        """Counts anew from `since`, beginning with the runs that `ended` after it."""
        self._since[agent] = since
        self._ended[agent] = {one.minute: one for one in ended}

    def since(self, agent: str) -> datetime | None:
        """From when on the agent's runs are counted; None is without limit."""
        return self._since.get(agent)

    def note(self, agent: str, at: datetime, *, failed: bool) -> None:
        """Counts a run that ended."""
        since = self._since.get(agent)
        if since is not None and at <= since:
            return
        minutes, minute = self._ended.setdefault(agent, {}), _minute(at)
        was = minutes.get(minute, Ended(agent, minute, 0, 0, None))
        failed_at = max(at, was.failed_at or at) if failed else was.failed_at
        minutes[minute] = Ended(agent, minute, was.finished + 1, was.failed + failed, failed_at)

    def agents(self) -> list[str]:
        """The agents whose runs are counted."""
        return list(self._ended)

    def figures(self, agent: str, now: datetime) -> Figures:
        """The last hour's."""
        ended = [one for minute, one in self._ended.get(agent, {}).items() if minute >= _minute(now - WINDOW)]
        failed_at = max((one.failed_at for one in ended if one.failed_at), default=None)
        return Figures(
            finished=sum(one.finished for one in ended), failed=sum(one.failed for one in ended), failed_at=failed_at
        )

    def forget(self, before: datetime) -> None:
        """Drops what ended before `before`."""
        oldest = _minute(before)
        for agent, minutes in list(self._ended.items()):
            self._ended[agent] = {minute: one for minute, one in minutes.items() if minute >= oldest}
            if not self._ended[agent]:
                del self._ended[agent]
                self._since.pop(agent, None)


def _minute(at: datetime) -> int:
    return int(at.timestamp()) // 60
