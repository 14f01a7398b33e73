"""A run log with its index and without a server, and runs to put into it."""

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from logged import NOON, received
from midwatch.runtime.database import Database
from midwatch.runtime.delivery import Received
from midwatch_services.logger import store
from midwatch_services.logger.reading_store import Wanted, find_runs
from midwatch_services.logger.search.indexer import Index

LATER = NOON + timedelta(hours=1)


class Log:
    """A log without a server: events go straight into its tables, each at the next place."""

    def __init__(self, database: Database) -> None:
        self.database, self.index = database, Index(database)
        self._place = 0

    async def save(self, *batch: Received) -> None:
        for one in batch:
            self._place += 1
            one.stream_seq = self._place
        await self.database.write(lambda conn: store.save(conn, batch))

    async def decided(self, *events: Any) -> None:
        for event in events:
            await self.database.write(lambda conn, event=event: store.save_decision(conn, event))

    async def read(self, now: datetime = LATER) -> int:
        """Reads all that is to be read; how many runs that were."""
        while await self.index.note(2**60):
            pass
        count = 0
        while some := await self.index.read(now):
            count += some
        return count

    async def found(self, **wanted: Any) -> list[str]:
        rows = await self.database.read(lambda conn: find_runs(conn, Wanted(**wanted)))
        return [row["run_id"] for row in rows]

    async def count(self, table: str) -> int:
        query = sa.text(f"SELECT count(*) FROM {table}")
        return int(await self.database.read(lambda conn: conn.execute(query).scalar_one()))


def run(run_id: str, *steps: tuple[str, dict[str, Any]], minutes: int = 0, **common: Any) -> list[Received]:
    """A run that began so many minutes after noon, its events a second apart."""
    at = NOON + timedelta(minutes=minutes)
    return [
        received(event, run_id=run_id, seq=seq, at=at + timedelta(seconds=seq), stored_at=at, **common, **fields)
        for seq, (event, fields) in enumerate(steps)
    ]


def started(text: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return "started", {"input": text, **more}


def called(tool: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return "tool_called", {"tool": tool, **more}


def spent(dollars: str) -> tuple[str, dict[str, Any]]:
    return "model_called", {"model": "m", "cost_usd": dollars}


def finished(resolution: str) -> tuple[str, dict[str, Any]]:
    return "finished", {"resolution": resolution}
