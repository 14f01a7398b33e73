"""What can be seen from outside: what the services publish, and what stands in the run log."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from midwatch.contracts import codec, subjects
from midwatch.contracts.control import Presence
from midwatch.contracts.envelope import Envelope
from midwatch.errors import MidwatchError
from midwatch.runtime.database import Database
from midwatch.runtime.settings import Settings
from midwatch_services.logger import store

_LOOK_EVERY = 0.05  # seconds between two looks at the run log
_ROWS = 100  # of the newest runs: more than a demo has


class NotSeen(MidwatchError):
    """{what}: not seen within {within:g} s."""


class Watch:
    """Hears the governance events of one agent, and reads its rows of the run log in one session."""

    def __init__(self, agent: str, session: str, log: Database) -> None:
        self._agent = agent
        self._session = session
        self._log = log
        self._events: list[tuple[str, Envelope[Any]]] = []
        self._applied: dict[str, int] = {}  # revision of each key, by the agent's own word
        self._left = False
        self._news = asyncio.Event()

    async def listen(self, nc: Client) -> None:
        """Begins to hear what the services publish of the agent, and its presence."""
        for noun in (subjects.alert, subjects.switch):
            await nc.subscribe(noun(self._agent, "*"), cb=self._hear)
        await nc.subscribe(subjects.presence(self._agent, "*"), cb=self._hear_presence)
        await nc.flush()

    async def _hear(self, message: Msg) -> None:
        with contextlib.suppress(codec.Refused):
            self._events.append((message.subject, codec.decode(message.subject, message.data)))
            self._news.set()

    async def _hear_presence(self, message: Msg) -> None:
        with contextlib.suppress(msgspec.MsgspecError):
            said = msgspec.json.decode(message.data, type=Presence)
            self._applied, self._left = said.applied, said.leaving
            self._news.set()

    async def applied(self, what: str, key: str, epoch: int, *, within: float = 10.0) -> None:
        """Returns when the agent's one instance has applied `key` at `epoch` or later. Raises NotSeen."""
        try:
            async with asyncio.timeout(within):
                while self._applied.get(key, 0) < epoch:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise NotSeen(what=what, within=within) from None

    async def signed_off(self, *, within: float = 2.0) -> bool:
        """Returns once the server has passed on that the agent's one instance signs off, or it takes too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while not self._left:
                    self._news.clear()
                    await self._news.wait()
        return self._left

    async def event(
        self, what: str, subject: str, wanted: Callable[[Any], bool], *, within: float = 10.0
    ) -> Any:  # fmt: skip
        """Data of the first event on `subject` that is wanted, past ones included.

        Raises NotSeen, in which `what` says in words what was waited for.
        """
        try:
            async with asyncio.timeout(within):
                while True:
                    self._news.clear()
                    for found, event in self._events:
                        if found == subject and wanted(event.data):
                            return event.data
                    await self._news.wait()
        except TimeoutError:
            raise NotSeen(what=what, within=within) from None

    async def row(
        self, what: str, ticket: str, wanted: Callable[[dict[str, Any]], bool], *, within: float = 10.0
    ) -> dict[str, Any]:
        """The run log's row of the ticket's run, once it is as wanted. Raises NotSeen."""
        try:
            async with asyncio.timeout(within):
                while True:
                    for row in await self.rows():
                        if row["ticket"] == ticket and wanted(row):
                            return row
                    await asyncio.sleep(_LOOK_EVERY)
        except TimeoutError:
            raise NotSeen(what=what, within=within) from None

    async def rows(self) -> list[dict[str, Any]]:
        """The runs in the run log, the oldest first."""
        found = await self._log.read(lambda conn: store.read_runs(conn, agent=self._agent, limit=_ROWS))
        return [row for row in reversed(found) if row["session"] == self._session]

    async def context_events(self, run_id: str) -> int:
        """How many events of the run stand in the log before it was handed over."""
        events = await self._log.read(lambda conn: store.read_events(conn, self._agent, run_id))
        return sum(1 for event in events if event["event"] not in ("handed_off", "finished"))


@contextlib.asynccontextmanager
async def run_log(settings: Settings) -> AsyncIterator[Database]:
    """The logger's database, to be read."""
    log = Database(settings.database_for(subjects.LOGGER), name="demo", must_exist=True)
    try:
        yield log
    finally:
        await asyncio.to_thread(log.close)
