"""What the tests of the digest share: runs and days made by hand, and the service running."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from midwatch.contracts import subjects
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.delivery import Received
from midwatch.runtime.service import Context, Service, run_services
from midwatch.runtime.settings import Settings
from midwatch_services.digest import app, decide, reading
from midwatch_services.digest.decide import Digest
from midwatch_services.digest.facts import Facts, Past, Run, Totals
from midwatch_services.digest.policy import Policy
from midwatch_services.logger import store

DAY = date(2026, 11, 25)  # a Wednesday
SEVEN = datetime(2026, 11, 26, 7, 0, tzinfo=UTC)


class Crash(BaseException):
    """The process is gone at this point."""


def run(number: int, resolution: str | None = "resolved", *, agent: str = "desk", **fields: Any) -> Run:
    """The run `r-<number>`, which took a minute and whose cost of ten cents was reported."""
    given = {"cost_usd": Decimal("0.10"), "cost_basis": "reported", "seconds": 60.0, "model_calls": 1, **fields}
    first_at = f"2026-11-25T10:{number // 60 % 60:02d}:{number % 60:02d}.000000Z"
    return Run(agent=agent, run_id=f"r-{number}", first_at=first_at, resolution=resolution, **given)


def runs(**counts: int) -> tuple[Run, ...]:
    """So many runs of each ending."""
    ends = [name for name, count in counts.items() for _ in range(count)]
    return tuple(run(number, name) for number, name in enumerate(ends))


def week(*counts: int, priced: int = 0, cost: str = "0", seconds: float | None = 60.0, **ends: int) -> Past:
    """Seven days of so many runs, whose endings and costs all stand on the last of them."""
    days = [Totals(runs=count) for count in counts]
    days[-1] = Totals(counts[-1], ends, priced, Decimal(cost))
    return Past(tuple(days), seconds)


def facts(**fields: Any) -> Facts:
    """The facts of the day of `desk`, told at seven the next morning."""
    return Facts(**{"agent": "desk", "day": DAY, "zone": "UTC", "now": SEVEN, **fields})


def write(found: Facts, **fields: Any) -> Digest:
    """The digest of facts, as the service puts it together."""
    policy = Policy(**fields)
    picks = reading.choose(found.runs, found.alerts, found.tools, policy.reading)
    return decide.write(found, picks, policy)


def section(digest: Digest, heading: str) -> list[str]:
    """The sentences under the heading that begins so."""
    return [one.text.replace("\u00a0", " ") for part in digest.sections if part.heading.startswith(heading)
            for one in part.sentences]  # fmt: skip


def log(settings: Settings, received: Iterable[Received], alerts: Iterable[Any] = ()) -> None:
    """Saves events and alerts as the logger does, in its tables, which are made."""
    url = settings.database_for(subjects.LOGGER)
    migrate(url, subjects.LOGGER)
    database = Database(url, name=subjects.LOGGER)
    try:
        database.write_now(lambda conn: store.save(conn, list(received)))
        for alert in alerts:
            database.write_now(lambda conn, alert=alert: store.save_alert(conn, alert))  # type: ignore[misc]
    finally:
        database.close()


@asynccontextmanager
async def service(settings: Settings, clock: Callable[[], datetime]) -> AsyncIterator["asyncio.Task[None]"]:
    """The service, running by this clock; it has done what was due when this begins, or it has crashed."""

    def build(context: Context) -> None:
        context.now = clock
        app.build(context)

    running = asyncio.Event()
    made = Service(subjects.DIGEST, build)
    task = asyncio.create_task(run_services([made], settings, started=lambda _: running.set(), restart=False))
    started = asyncio.create_task(running.wait())
    await asyncio.wait([task, started], return_when=asyncio.FIRST_COMPLETED)
    started.cancel()
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Crash):
            await task
