"""Runs in figures: sums of what is alike, days, and lines that show them. Pure."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Protocol
from zoneinfo import ZoneInfo

from markupsafe import Markup

_WIDTH, _HEIGHT, _EDGE = 112, 28, 3
_MOST = Decimal(10) ** 12  # US dollars: a budget of more is none that could be reached


class Alike(Protocol):
    """So many runs that are alike in all that is told here."""

    @property
    def agent(self) -> str: ...
    @property
    def mode(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def resolution(self) -> str | None: ...
    @property
    def runs(self) -> int: ...
    @property
    def priced(self) -> int: ...
    @property
    def cost_usd(self) -> float: ...
    @property
    def priced_usd(self) -> float: ...


@dataclass(slots=True)
class Sum:
    """Runs together. `cost`: all that is known of it; `unpriced`: runs of whose cost a part may be missing there.
    `priced_cost`: that of the others alone."""

    runs: int = 0
    ended: int = 0
    resolved: int = 0
    handed_off: int = 0
    priced: int = 0
    cost: float = 0.0
    priced_cost: float = 0.0
    took: list[tuple[float, int]] = field(default_factory=list)  # milliseconds, of how many runs

    def add(self, one: Alike, took: float | None) -> None:
        """Counts runs in."""
        self.runs += one.runs
        self.ended += one.runs if one.resolution else 0
        self.resolved += one.runs if one.resolution == "resolved" else 0
        self.handed_off += one.runs if one.resolution == "handed_off" else 0
        self.priced += one.priced
        self.cost += one.cost_usd
        self.priced_cost += one.priced_usd
        if took is not None:
            self.took.append((took, one.runs))

    @property
    def unpriced(self) -> int:
        return self.runs - self.priced

    @property
    def resolved_share(self) -> float | None:
        return self.resolved / self.ended if self.ended else None

    @property
    def handed_off_share(self) -> float | None:
        return self.handed_off / self.ended if self.ended else None

    @property
    def cost_a_run(self) -> float | None:
        """What those cost on average whose cost is wholly known."""
        return self.priced_cost / self.priced if self.priced else None

    @property
    def half_took(self) -> float | None:
        """What half of those that ended took at most, about, in seconds."""
        left = sum(count for _, count in self.took) / 2
        for milliseconds, count in sorted(self.took):
            left -= count
            if left <= 0:
                return milliseconds / 1000
        return None


def summed(rows: Iterable[tuple[Alike, float | None]], of: Callable[[Alike], bool] = lambda _: True) -> Sum:
    """Those of the rows, each with what its runs took, that are `of` what is asked."""
    found = Sum()
    for row, took in rows:
        if of(row):
            found.add(row, took)
    return found


def limit(amount: str | None) -> Decimal | None:
    """What a card lets a day cost; None where it sets no limit."""
    return None if amount is None else min(Decimal(amount), _MOST)


def gone(cost: float, limit: Decimal) -> float:
    """The part of a budget that is gone: all of one of nothing, once anything was spent."""
    return cost / float(limit) if float(limit) else float(cost > 0)


def day_of(now: datetime, zone: str) -> date:
    """Which day it is there."""
    return now.astimezone(ZoneInfo(zone)).date()


def bounds(day: date, zone: str) -> tuple[datetime, datetime]:
    """When a day begins there and when the next one does."""
    place = ZoneInfo(zone)
    return datetime.combine(day, time(), place), datetime.combine(day + timedelta(days=1), time(), place)


def is_same_day(now: datetime, zone: str, other: str) -> bool:
    """Whether today begins and ends in both zones at once."""
    return bounds(day_of(now, zone), zone) == bounds(day_of(now, other), other)


def sparkline(values: Sequence[float | None], words: str) -> Markup:
    """A small line of one figure over days; `words` say the same to who does not see it. A day without one is a gap."""
    known = [value for value in values if value is not None]
    top = max(known, default=0) or 1
    step = (_WIDTH - 2 * _EDGE) / max(1, len(values) - 1)
    points = [
        None if value is None else (_EDGE + place * step, _HEIGHT - _EDGE - value / top * (_HEIGHT - 2 * _EDGE))
        for place, value in enumerate(values)
    ]
    drawn = Markup("").join(Markup('<polyline points="{}"/>').format(_joined(part)) for part in _parts(points))
    last = next((point for point in reversed(points) if point), None)
    dot = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="2.5"/>').format(*last) if last else ""
    return Markup(
        '<svg class="spark" viewBox="0 0 {} {}" width="{}" height="{}" role="img" aria-label="{}">{}{}</svg>'
    ).format(_WIDTH, _HEIGHT, _WIDTH, _HEIGHT, words, drawn, dot)


def _parts(points: Sequence[tuple[float, float] | None]) -> list[list[tuple[float, float]]]:
    """The stretches without a gap; a day alone is a short dash."""
    parts: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if point is None:
            parts.append([])
        else:
            parts[-1].append(point)
    return [part if len(part) > 1 else [part[0], (part[0][0] + 1, part[0][1])] for part in parts if part]


def _joined(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
