"""The run log's figures, day by day. A day that is over is summed once in a while, today's twice a minute."""

import asyncio
from collections.abc import Sequence
from datetime import date, datetime, timedelta

from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch_services.console.figures import Alike, bounds, day_of
from midwatch_services.console.reading import SUMS, Found, Reading
from midwatch_services.logger import daily
from midwatch_services.logger.decide import text_of

SERVICE = subjects.LOGGER
Day = list[tuple[Alike, float | None]]
_TODAY, _PAST = 30.0, 600.0  # seconds for which a sum is fresh
_STALE = 86_400.0
_WITHIN = 60.0  # seconds for the sum of one day, which comes to the next page where one did not wait for it


async def sums(reading: Reading, now: datetime, zone: str, days: int) -> Found[dict[date, Day]]:
    """The runs of the last `days` days, today's last; where one day cannot be read, why not."""
    today = day_of(now, zone)
    wanted = [today - timedelta(days=back) for back in range(days - 1, -1, -1)]
    found = await asyncio.gather(*(_of_day(reading, day, zone, is_over=day < today) for day in wanted))
    wrong = next((day for day in found if not day.ok), None)
    if wrong is not None:
        return Found(SERVICE, problem=wrong.problem)
    return Found(SERVICE, dict(zip(wanted, (day | [] for day in found), strict=True)))


async def _of_day(reading: Reading, day: date, zone: str, *, is_over: bool) -> Found[Day]:
    begin, end = bounds(day, zone)

    def work(conn: Connection) -> Day:
        rows: Sequence[daily.Tally] = daily.tally_runs(conn, text_of(begin), text_of(end))
        return [(row, None if row.took is None else daily.middle_of(row.took)) for row in rows]

    seconds = _PAST if is_over else _TODAY
    return await reading.read(
        SERVICE, work, keep=("day", day, is_over), seconds=seconds, stale=_STALE, lane=SUMS, within=_WITHIN
    )


async def is_used(reading: Reading) -> Found[bool]:
    """Whether there ever was a run."""
    return await reading.read(SERVICE, daily.has_runs, keep=("is_used",), seconds=2)
