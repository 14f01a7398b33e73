"""Hours in which tickets wait. Pure."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From one time of day to another on the clock of `zone`, past midnight where the first is the later. `days`: of
    the beginning, 0 for Monday; all where none is named."""

    begins: time
    ends: time
    zone: str
    days: frozenset[int] = frozenset()

    def until(self, now: datetime) -> datetime | None:
        """When the quiet hours that hold at `now` are over, in UTC; None where none hold."""
        local = now.astimezone(ZoneInfo(self.zone))
        for day in (local.date() - timedelta(days=1), local.date()):
            if self.days and day.weekday() not in self.days:
                continue
            over = day if self.begins < self.ends else day + timedelta(days=1)
            if self._at(day, self.begins) <= now < (end := self._at(over, self.ends)):
                return end
        return None

    def _at(self, day: date, clock: time) -> datetime:
        # A time that a change of clocks leaves out is read by the offset before it, one that comes twice as the first.
        return datetime.combine(day, clock, ZoneInfo(self.zone)).astimezone(UTC)
