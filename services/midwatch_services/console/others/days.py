"""The run log's figures, day by day. A day that is over is summed once in a while, today's six times a minute."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from typing import TypeVar
from zoneinfo import ZoneInfo

from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch_services.console.figures import Alike, bounds, day_of
from midwatch_services.console.reading import SUMS, Found, Reading
from midwatch_services.logger import alert_pages, daily
from midwatch_services.logger.decide import text_of
from midwatch_services.reviewer_sampler import store as reviews

T = TypeVar("T")
SERVICE = subjects.LOGGER
Day = list[tuple[Alike, float | None]]
Last = daily.Last
Counts = dict[str, list[float | None]]  # by agent, one of each day
# Seconds for which a sum is fresh, and for which it is shown besides while a newer one is made. Who looks after hours
# is not shown today as it was then; of days before yesterday hardly anything still comes.
_TODAY, _YESTERDAY, _BEFORE, _COUNTED = (10.0, 60.0), (600.0, 600.0), (600.0, 86_400.0), (30.0, 900.0)
_WITHIN = 60.0  # seconds for the sum of one day, which comes to the next page where one did not wait for it


async def sums(reading: Reading, now: datetime, zone: str, days: int) -> Found[dict[date, Day]]:
    """The runs of the last `days` days, today's last; where one day cannot be read, why not."""
    today = day_of(now, zone)
    wanted = _last(today, days)
    found = await asyncio.gather(*(_of_day(reading, day, zone, (today - day).days) for day in wanted))
    wrong = next((day for day in found if not day.ok), None)
    if wrong is not None:
        return Found(SERVICE, problem=wrong.problem)
    return Found(SERVICE, dict(zip(wanted, (day | [] for day in found), strict=True)))


def _last(today: date, days: int) -> list[date]:
    return [today - timedelta(days=back) for back in range(days - 1, -1, -1)]


async def alerts(reading: Reading, now: datetime, zone: str, days: int) -> Found[Counts]:
    """The alerts that wanted somebody, by the day on which they were raised, today's last."""
    wanted, place = _last(day_of(now, zone), days), ZoneInfo(zone)
    begin, _ = bounds(wanted[0], zone)

    def work(conn: Connection) -> Counts:
        found = Counter(
            (agent, datetime.fromisoformat(at).astimezone(place).date())
            for agent, at in alert_pages.raised_since(conn, text_of(begin))
        )
        return {agent: [found[agent, day] for day in wanted] for agent, _ in found}

    return await _kept(reading, SERVICE, work, ("raised", begin, days), _COUNTED)


async def backlogs(reading: Reading, now: datetime, zone: str, days: int) -> Found[Counts]:
    """How many runs waited for a review as each day ended, today's as of now."""
    ends = [bounds(day, zone)[1] for day in _last(day_of(now, zone), days)]

    def work(conn: Connection) -> Counts:
        return {agent: [*some] for agent, some in reviews.backlogs(conn, [end.timestamp() for end in ends]).items()}

    return await _kept(reading, subjects.REVIEWER_SAMPLER, work, ("backlogs", ends[-1], days), _COUNTED)


async def _of_day(reading: Reading, day: date, zone: str, ago: int) -> Found[Day]:
    begin, end = bounds(day, zone)

    def work(conn: Connection) -> Day:
        rows: Sequence[daily.Tally] = daily.tally_runs(conn, text_of(begin), text_of(end))
        return [(row, None if row.took is None else daily.middle_of(row.took)) for row in rows]

    lasts = _TODAY if ago <= 0 else _YESTERDAY if ago == 1 else _BEFORE
    return await _kept(reading, SERVICE, work, ("day", begin, end, ago <= 0), lasts)


async def _kept(
    reading: Reading,
    service: str,
    work: Callable[[Connection], T],
    keep: tuple[object, ...],
    lasts: tuple[float, float],
) -> Found[T]:
    fresh, stale = lasts
    return await reading.read(service, work, keep=keep, seconds=fresh, stale=stale, lane=SUMS, within=_WITHIN)


async def last_run(reading: Reading, agent: str) -> Found[tuple[Last | None, bool]]:
    """The newest run of an agent, whatever it was; and whether it has any run or alert at all."""

    def work(conn: Connection) -> tuple[Last | None, bool]:
        last = daily.last_run(conn, agent)
        return last, last is not None or daily.has_alerts(conn, agent)

    return await reading.read(SERVICE, work)


async def is_used(reading: Reading) -> Found[bool]:
    """Whether there ever was a run."""
    return await reading.read(SERVICE, daily.has_runs, keep=("is_used",), seconds=2)
