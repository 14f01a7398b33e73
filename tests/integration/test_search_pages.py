"""Runs before and behind another one, in the order in which they are found, on both databases."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from logged import NOON, received
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.settings import Settings
from midwatch_services.logger import store
from midwatch_services.logger.reading_store import Wanted, find_runs
from midwatch_services.logger.search.indexer import Index

Place = tuple[str, str, str]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """A log of 120 runs, an hour apart, all of which are read but the newest."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    url = Settings(database_url=url).database_for("logger")
    await asyncio.to_thread(migrate, url, "logger")
    database = Database(url, name="logger")
    events = []
    for at in range(120):
        time = NOON + timedelta(hours=at)
        events.append(received("started", run_id=f"r-{at:03}", input="A gift", at=time, stored_at=time))
    placed = [replace(one, stream_seq=place) for place, one in enumerate(events, 1)]
    await database.write(lambda conn: store.save(conn, placed[:-1]))
    index = Index(database)
    while await index.note(2**60) or await index.read(NOON + timedelta(days=9)):
        pass
    index.close()
    await database.write(lambda conn: store.save(conn, placed[-1:]))
    yield database
    database.close()


@pytest.mark.parametrize("asked", [{}, {"agent": "desk"}, {"mode": "live"}, {"text": "gif*"}])
async def test_the_nearest_runs_before_another_are_found_the_newest_first(
    database: Database, asked: dict[str, Any]
) -> None:
    def place(number: int) -> Place:
        row = database.read_now(lambda conn: find_runs(conn, Wanted(run_id=f"r-{number:03}")))[0]
        return row["first_event_at"], row["run_id"], row["agent"]

    async def found(of: Place, limit: int) -> list[str]:
        rows = await database.read(lambda conn: find_runs(conn, Wanted(**asked, ahead=of, limit=limit)))
        return [row["run_id"] for row in rows]

    assert await found(place(40), 3) == ["r-043", "r-042", "r-041"]
    assert await found(place(0), 70) == [f"r-{at:03}" for at in range(70, 0, -1)]
    assert await found(place(117), 9) == ["r-119", "r-118"]
    assert await found(place(119), 9) == []
