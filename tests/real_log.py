"""A run log of the published runs, as their agents would have published them, in the mode `live`."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from midwatch import testing
from midwatch.contracts import codec, subjects
from midwatch.contracts.codec import RunEvent
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.delivery import Received
from midwatch.runtime.settings import Settings
from midwatch_services.logger import store
from midwatch_services.replay.formats import Found, read
from midwatch_services.replay.mapping import PlayedRun, to_played
from midwatch_services.replay.player import Player


def played(data: Path) -> list[PlayedRun]:
    """Every published run, in the order of the file."""
    found = read(data / "agent-runs" / "runs.jsonl.gz")
    return [to_played(one.run) for one in found if isinstance(one, Found)]


async def events(run: PlayedRun, begin: datetime) -> list[RunEvent]:
    """The events of a run, moved in time so that it begins at `begin`; the steps of one without times take a second
    each."""
    async with testing.midwatch() as mw:
        await Player(mw).play(run)  # type: ignore[arg-type]
        found = list(mw.events)
    first = run.started_at
    moved = []
    for place, event in enumerate(found):
        at = begin + (timedelta(seconds=place) if first is None else event.time - first)
        data = msgspec.structs.replace(event.data, mode="live")
        moved.append(event._replace(time=at, data=data))
    return moved


def save(settings: Settings, batches: Iterator[list[RunEvent]]) -> None:
    """Into the logger's database, which is made."""
    url = settings.database_for(subjects.LOGGER)
    database = Database(url, name=subjects.LOGGER)
    migrate(url, subjects.LOGGER)
    try:
        for batch in batches:
            database.write_now(lambda conn, batch=batch: store.save(conn, [_received(one) for one in batch]))  # type: ignore[misc]
    finally:
        database.close()


def _received(event: RunEvent) -> Received:
    made = codec.envelope("run", event.event, event.data, source=event.source, id=event.id, time=event.time)
    return Received(event, codec.encode(made), subjects.run(event.agent, event.event), None, 1, 1, event.time, "")


async def fill(settings: Settings, begins: Mapping[str, datetime], runs: list[PlayedRun]) -> None:
    """The runs that have a beginning, one batch a run."""
    save(settings, iter([await events(run, begins[run.run_id]) for run in runs if run.run_id in begins]))
