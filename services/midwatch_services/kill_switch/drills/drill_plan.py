"""When a drill is due, how it goes, and whether it passed. Pure."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Literal

from midwatch.contracts.control import Card, SwitchRecord
from midwatch.contracts.governance import InstanceReport, SwitchDrilled

RULE = "drill_overdue"
EVERY = {"weekly": timedelta(days=7), "monthly": timedelta(days=30), "quarterly": timedelta(days=91)}
OVERDUE_AFTER = timedelta(days=3)  # from the day it was due, or from one that failed
REPORT_WITHIN = timedelta(minutes=2)  # from the end of its halt: a drill that has not reported by then is dead
BEGIN_WITHIN = timedelta(minutes=5)  # from its claim: one that has not halted by then never will

_PREFIX = "drill/"
_WAITED = {"unconfirmed": "has not confirmed", "lapsed": "silent too long"}
_ID = re.compile(r"drill-\d{8}-[0-9a-f]{6}")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a drill must keep to pass, in seconds; beside these no ticket may be lost or doubled."""

    effective: float = 5.0
    first_fallback: float = 5.0
    restore: float = 10.0


@dataclass(frozen=True, slots=True)
class Shape:
    """How a drill goes, in seconds. `expires`: kill-switch lifts the halt after that, should the drill have died."""

    before: float = 2.0
    hold: float = 2.0  # at least: it lasts until the halt is contained and a case has come, or the limits are over
    after: float = 1.0
    settle: float = 15.0  # for the last events to reach the streams, and the router to see to them
    expires: float = 60.0
    per_second: float = 20.0  # tickets
    model: float = 0.08  # one call
    tool: float = 0.04  # one call


LIMITS, SHAPE = Limits(), Shape()


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the drill's own tickets."""

    tickets: int = 0
    answered: int = 0
    fell_back: int = 0
    lost: int = 0
    doubled: int = 0


def tally(tickets: Collection[str], answers: Mapping[str, int], cases: Mapping[str, int]) -> Tally:
    """Counts the `tickets` by how many answers and cases the streams hold of each."""
    answered = fell_back = lost = doubled = 0
    for ticket in tickets:
        got = (answers.get(ticket, 0), cases.get(ticket, 0))
        answered += got == (1, 0)
        fell_back += got == (0, 1)
        lost += got == (0, 0)
        doubled += sum(got) > 1
    return Tally(len(tickets), answered, fell_back, lost, doubled)


def failures(result: SwitchDrilled, limits: Limits) -> list[str]:
    """Why a drill has not passed, in sentences; nothing where it has."""
    found = []
    if result.effective_seconds is None:
        names = ", ".join(f"{one.instance} ({why})" for one, why in waited(result)) or "no instance was heard"
        found.append(f"the halt was not contained within {limits.effective:g} s: {names}")
    elif result.effective_seconds > limits.effective:
        found.append(
            f"the halt took {result.effective_seconds:.1f} s to be effective; {limits.effective:g} s is the limit"
        )
    if result.first_fallback_seconds is None:
        found.append("no case reached the fallback")
    elif result.first_fallback_seconds > limits.first_fallback:
        found.append(
            f"the first case took {result.first_fallback_seconds:.1f} s to reach the fallback; "
            f"{limits.first_fallback:g} s is the limit"
        )
    if not result.restored:
        found.append("the agent was not restored by the drill")
    elif result.restore_seconds is None or result.restore_seconds > limits.restore:
        took = "was not over" if result.restore_seconds is None else f"took {result.restore_seconds:.1f} s"
        found.append(f"the restore {took}; {limits.restore:g} s is the limit")
    if result.lost:
        found.append(f"{result.lost} of {result.tickets} tickets were lost: neither answered nor a case")
    if result.doubled:
        found.append(f"{result.doubled} of {result.tickets} tickets were doubled: answered and a case, or two cases")
    return found


def waited(result: SwitchDrilled) -> list[tuple[InstanceReport, str]]:
    """For whom the drill waited until its limit was over, and what kept each, in words."""
    return [
        (one, _WAITED.get(one.state, "still moves"))
        for one in result.instances
        if result.effective_seconds is None and (one.state in _WAITED or one.running)
    ]


def is_id(text: str) -> bool:
    """Whether `text` is the name of a drill, which its own instance of the agent bears as well."""
    return _ID.fullmatch(text) is not None


def is_restore(record: SwitchRecord) -> bool:
    """Whether a drill lifted its own halt, which says nothing of the agent."""
    return record.state == "running" and record.by.startswith(_PREFIX)


def name_in(record: SwitchRecord) -> tuple[str, str] | None:
    """The drill that wrote a halt, and who began it; None where no drill did."""
    drill_id, _, who = record.by.removeprefix(_PREFIX).partition(" ")
    return (drill_id, who) if record.drill and record.by.startswith(_PREFIX) and drill_id else None


def signature(drill_id: str, who: str) -> str:
    """What stands as `by` in the halt of a drill."""
    return f"{_PREFIX}{drill_id} {who}"


def is_newer(stored: SwitchDrilled | None, heard: SwitchDrilled) -> bool:
    """Whether `heard` says more of a drill than `stored`: figures more than their absence, and a sign-off stays."""
    if stored is None:
        return True
    return (heard.tickets > 0, bool(heard.signed_off_by)) >= (stored.tickets > 0, bool(stored.signed_off_by))


# The schedule


@dataclass(frozen=True, slots=True)
class Last:
    """The newest drill of an agent that is over."""

    started_at: datetime
    passed: bool


@dataclass(frozen=True, slots=True)
class Now:
    """What a scheduled drill is decided by. `since`: when the agent was first seen. `blocked`: another drill runs."""

    now: datetime
    since: datetime
    last: Last | None
    armed: bool
    running: bool  # not halted
    busy: bool  # runs in flight
    blocked: bool


def due_at(card: Card, last: Last | None, since: datetime) -> datetime | None:
    """When the next drill is due; None is never."""
    if card.switch.drill == "never":
        return None
    return (last.started_at if last else since) + EVERY[card.switch.drill]


def window(hours: str, now: datetime) -> tuple[datetime, datetime] | None:
    """Begin and end of the window of `hours` (`22:00-02:00`, UTC) that `now` is in. The same hour twice is all day."""
    for day in (now.date() - timedelta(days=1), now.date()):
        begin, end = (datetime.combine(day, time.fromisoformat(text), tzinfo=now.tzinfo) for text in hours.split("-"))
        end += timedelta(days=end <= begin)
        if begin <= now < end:
            return begin, end
    return None


def next_window(hours: str, at: datetime) -> datetime:
    """The first moment from `at` on that is in a window of `hours`."""
    if window(hours, at):
        return at
    begin = datetime.combine(at.date(), time.fromisoformat(hours.split("-")[0]), tzinfo=at.tzinfo)
    return begin if begin >= at else begin + timedelta(days=1)


Choice = Literal["run", "wait"]


def choose(card: Card, around: Now) -> Choice:
    """Whether a drill begins by itself now: when due, in its hours, and at a quiet moment, for which it waits until the
    last third of them."""
    due = due_at(card, around.last, around.since)
    hours = window(card.switch.drill_hours, around.now)
    if due is None or hours is None or around.now < due or around.blocked or not (around.armed and around.running):
        return "wait"
    last_third = hours[1] - (hours[1] - hours[0]) / 3
    return "wait" if around.busy and around.now < last_third else "run"


def overdue(card: Card, last: Last | None, since: datetime, now: datetime) -> str | None:
    """A sentence once an agent has gone without a drill that passed for too long."""
    due = due_at(card, last, since)
    if due is None:
        return None
    if last is not None and not last.passed and now - last.started_at >= OVERDUE_AFTER:
        return f"the last drill of {card.agent} did not pass, {(now - last.started_at).days} days ago"
    if now - due < OVERDUE_AFTER:
        return None
    days = (now - due).days
    return f"the {card.switch.drill} drill of {card.agent} is {days} days overdue" + (
        "" if last else "; none was ever run"
    )


def unreported(started_at: datetime, halt: tuple[datetime | None, datetime | None] | None, now: datetime) -> str | None:
    """Why a drill without a result has failed, once it is known to be dead. `halt`: when its halt was closed and when
    it was to expire; None where it has halted nothing."""
    if halt is None:
        return "did not report; it has halted nothing" if now - started_at >= BEGIN_WITHIN else None
    closed_at, expires_at = halt
    if closed_at is None:
        return None
    if expires_at is not None and closed_at >= expires_at:
        return "did not report; its halt expired"
    return "did not report; its halt was lifted or replaced" if now - closed_at >= REPORT_WITHIN else None
