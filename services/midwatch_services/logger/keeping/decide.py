"""What retention may remove, and what a hold says, folded from its events in any order. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from midwatch.contracts.envelope import Envelope
from midwatch.contracts.governance import HoldLifted, HoldPlaced

from ..decide import text_of
from .policy import KEEPING, Keeping, KeepOf

_FIRST, _LAST = "~", ""  # keys after every other and before every other


class HoldRow(msgspec.Struct, kw_only=True):
    """What is known of one hold. `placed_at` is None until that event arrives."""

    hold_id: str
    placed_key: str = _FIRST
    placed_at: str | None = None
    placed_by: str | None = None
    reason: str | None = None
    agent: str | None = None
    run_id: str | None = None
    ticket: str | None = None
    customer: str | None = None
    until: str | None = None
    lifted_key: str = _FIRST
    lifted_at: str | None = None
    lifted_by: str | None = None
    lifted_reason: str | None = None


Hold = HoldPlaced | HoldLifted


def fold_hold(row: HoldRow, event: Envelope[Hold]) -> HoldRow:
    """The row with the event in it; folding an event twice changes nothing. The first of each kind counts."""
    data, at = event.data, text_of(event.time)
    key = f"{at} {event.id}"
    if isinstance(data, HoldPlaced) and key < row.placed_key:
        return msgspec.structs.replace(
            row, placed_key=key, placed_at=at, placed_by=data.by, reason=data.reason, agent=data.agent,
            run_id=data.run_id, ticket=data.ticket, customer=data.customer, until=data.until and text_of(data.until),
        )  # fmt: skip
    if isinstance(data, HoldLifted) and key < row.lifted_key:
        return msgspec.structs.replace(row, lifted_key=key, lifted_at=at, lifted_by=data.by, lifted_reason=data.reason)
    return row


@dataclass(frozen=True)
class Leapt:
    """The clock has gone on by more than a pass counts unasked: nothing is removed until a person says so."""

    counted_to: datetime
    at: datetime


@dataclass(frozen=True)
class Clock:
    """The time by which ages are counted."""

    at: datetime


def clock(
    now: datetime, newest: datetime | None, counted_to: datetime | None, *, asked: bool, keeping: Keeping = KEEPING
) -> Clock | Leapt | None:
    """The time by which ages are counted; None where the log is empty.

    A clock that is wrong must not empty the log. It is believed up to a day past the `newest` event, whose time is the
    server's; and where both jumped, as on one machine, no further past `counted_to`, that of the pass before, than a
    month, unless a person asked for the pass.
    """
    if newest is None:
        return None
    at = min(now, newest + keeping.beyond)
    if counted_to is not None and not asked and at > counted_to + keeping.leap:
        return Leapt(counted_to, at)
    return Clock(at)


def cutoffs(agents: Iterable[str], keep_of: KeepOf, at: datetime) -> dict[str, str]:
    """By agent: runs of which the log heard last before this time are past."""
    return {agent: text_of(_before(at, keep_of(agent))) for agent in agents}


def _before(at: datetime, keep: timedelta) -> datetime:
    try:
        return at - keep
    except OverflowError:  # kept for longer than there are years
        return datetime.min.replace(tzinfo=at.tzinfo)


Span = tuple[int, int, int]  # first place, last place, how many of the agent's events


def spans(rows: Iterable[tuple[int, bool, str]], *, apart: bool = False) -> dict[str, list[Span]]:
    """By agent, what goes, so that nothing that it keeps lies within: (place, whether it is kept, agent), in order of
    place. `apart`: what is kept is not among the rows, so that only places next to one another make a span."""
    found: dict[str, list[Span]] = {}
    going: set[str] = set()
    for place, is_kept, agent in rows:
        if is_kept:
            going.discard(agent)
            continue
        of_agent = found.setdefault(agent, [])
        if agent in going and (not apart or place == of_agent[-1][1] + 1):
            first, _, count = of_agent[-1]
            of_agent[-1] = first, place, count + 1
        else:
            of_agent.append((place, place, 1))
            going.add(agent)
    return found
