"""A stretch of days as an address names it. Pure."""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo


class BadDay(ValueError):
    """It names no stretch of days. `why`: `no_day`, `turned` (the first is after the last) or `many`."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, slots=True)
class Days:
    """From `first` to `last`, both of them in it, in `zone`."""

    first: date
    last: date
    zone: ZoneInfo

    @property
    def begin(self) -> datetime:
        return datetime.combine(self.first, time(), tzinfo=self.zone)

    @property
    def end(self) -> datetime:
        return datetime.combine(self.last + timedelta(days=1), time(), tzinfo=self.zone)


def days(first: str, last: str, now: datetime, zone: str, *, usual: int, most: int) -> Days:
    """What an address asks for: up to today where it names no last day, the `usual` days where it names no first one,
    at most `most` of them. Raises BadDay."""
    where = ZoneInfo(zone)
    today = now.astimezone(where).date()
    end = _day(last) if last else today
    begin = _day(first) if first else end - timedelta(days=usual - 1)
    if begin > end:
        raise BadDay("turned")
    if end > begin + timedelta(days=most - 1):
        raise BadDay("many")
    return Days(begin, end, where)


def _day(text: str) -> date:
    try:
        found = date.fromisoformat(text)
    except ValueError:
        raise BadDay("no_day") from None
    if not 1971 <= found.year <= 9998:
        raise BadDay("no_day")
    return found
