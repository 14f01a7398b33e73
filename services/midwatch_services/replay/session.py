"""A whole replay: files in, runs out through one engine of the SDK, until the server has every event."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from midwatch.client import Midwatch, open_engine
from midwatch.contracts import subjects
from midwatch.engine import Engine
from midwatch.errors import MidwatchError, Temporary
from midwatch.runtime import topology
from midwatch.runtime.broker import connection
from midwatch.runtime.database import Database, NoDatabase
from midwatch.runtime.settings import Settings
from midwatch_services.logger import store

from .formats import Bad, UnknownFormat, Unreadable, read
from .mapping import PlayedRun, to_played
from .player import Played, Player, summary

BACKLOG = 20_000  # events on disk above which playing waits for the server
STUCK = 30.0  # seconds without progress after which waiting for the server ends
_LOOK_EVERY = 0.02  # seconds


class NotFlushed(MidwatchError):
    """{pending} events are not on the server yet ({why}): they wait in {folder}, and the next agent or replay that
    connects with this state folder sends them."""


@dataclass(slots=True)
class Totals:
    """What a replay came to."""

    runs: int = 0
    published: int = 0  # events
    known: int = 0  # events that the run log had already
    bad: list[Bad] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be replayed, and how."""

    files: list[Path]
    speed: float | None = None
    agent: str | None = None
    obey: bool = False
    limit: int | None = None


Told = Callable[[Path, int, Played | Bad | None], None]  # file, bytes of it read, what came of its run


async def replay(wish: Wish, settings: Settings, told: Told) -> Totals:
    """Replays every run that is wished for. `told` hears of each entry of each file, None for one passed over.

    Raises NotFlushed, NoCard with `obey`, and Temporary where no server answers.
    """
    async with connection(settings.url) as nc:
        if absent := await topology.missing(nc.jetstream()):
            raise Temporary(f"there is no {', '.join(absent)} on this NATS server: run `midwatch topology apply`")
    log = _Log(settings)
    totals = Totals()
    try:
        async with _engine(settings) as engine:
            player = Player(Midwatch(engine), speed=wish.speed, obey=wish.obey)
            for path, position, entry in _entries(wish.files):
                if totals.runs == wish.limit:
                    break
                if isinstance(entry, Bad):
                    totals.bad.append(entry)
                    told(path, position, entry)
                elif wish.agent not in (None, entry.agent):
                    told(path, position, None)
                else:
                    told(path, position, await _play(player, log, engine, entry, totals, obey=wish.obey))
            await _flushed(engine, down_to=0)
    finally:
        log.close()
    return totals


async def _play(
    player: Player, log: "_Log", engine: Engine, run: PlayedRun, totals: Totals, *, obey: bool
) -> Played:  # fmt: skip
    await _flushed(engine, down_to=BACKLOG)
    whole = summary(run, run.steps)
    known = 0 if obey else await log.events(run)
    totals.runs += 1
    totals.known += min(known, whole.events)
    if known >= whole.events:
        return summary(run, run.steps, known=True)
    # What the log has of a run that it does not have whole is published again, which changes nothing.
    played = await player.play(run)
    totals.published += played.events - known
    return played


def _entries(files: Iterable[Path]) -> Iterator[tuple[Path, int, PlayedRun | Bad]]:
    for path in files:
        try:
            for item in read(path):
                yield path, item.position, item if isinstance(item, Bad) else to_played(item.run)
        except (UnknownFormat, Unreadable) as error:
            yield path, 0, Bad(str(path), str(error), 0)


@contextlib.asynccontextmanager
async def _engine(settings: Settings) -> AsyncIterator[Engine]:
    thread = open_engine(settings.url, settings.home, None)
    try:
        yield thread.engine
    finally:
        await asyncio.shield(asyncio.wrap_future(thread.stop()))


async def _flushed(engine: Engine, *, down_to: int) -> None:
    loop = asyncio.get_running_loop()
    fewest, since = engine.spooled[0], loop.time()
    while (pending := engine.spooled[0]) > down_to:
        if pending < fewest:
            fewest, since = pending, loop.time()
        if loop.time() - since > STUCK:
            raise NotFlushed(pending=pending, folder=engine.folder, why=engine.error or "it takes none of them")
        await asyncio.sleep(_LOOK_EVERY)


class _Log:
    """What the run log has of a replayed run. Where there is no log yet, or none to be reached, it has nothing."""

    def __init__(self, settings: Settings) -> None:
        self._database: Database | None = None
        with contextlib.suppress(NoDatabase):
            self._database = Database(settings.database_for(subjects.LOGGER), name=subjects.LOGGER, must_exist=True)

    async def events(self, run: PlayedRun) -> int:
        """How many events of the run the log has."""
        if self._database is None:
            return 0
        try:
            rows = await self._database.read(
                lambda conn: store.read_runs(conn, agent=run.agent, run_id=run.run_id, mode="replay", limit=1)
            )
        except (MidwatchError, sa.exc.DBAPIError):  # not reachable from here, or not migrated yet
            self.close()
            return 0
        return int(rows[0]["events"]) if rows else 0

    def close(self) -> None:
        database, self._database = self._database, None
        if database:
            database.close()
