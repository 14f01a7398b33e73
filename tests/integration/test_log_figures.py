"""What the console asks of the run log, on both databases: sums of a day, parts of a run, a list that goes on."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from logged import NOON, received
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.delivery import Received
from midwatch.runtime.settings import Settings
from midwatch_services.logger import daily, store
from midwatch_services.logger.decide import text_of
from midwatch_services.logger.reading_store import Wanted, find_runs


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def log(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    url = Settings(database_url=url).database_for("logger")
    await asyncio.to_thread(migrate, url, "logger")
    database = Database(url, name="logger")
    yield database
    database.close()


def run(run_id: str, minutes: int, took: float | None, cost: str | None = None, **common: Any) -> list[Received]:
    """A run that began so many minutes after noon, and ended after so many seconds."""
    begin = NOON + timedelta(minutes=minutes)
    found = [received("started", id=f"{run_id}.0", run_id=run_id, input="x", at=begin, stored_at=begin, **common)]
    if cost is not None:
        fields: dict[str, Any] = {"model": "m", "cost_usd": cost} if cost else {"model": "nobody-knows-it"}
        found.append(received("model_called", id=f"{run_id}.1", run_id=run_id, seq=1, at=begin, **fields, **common))
    if took is not None:
        at = begin + timedelta(seconds=took)
        found.append(
            received("finished", id=f"{run_id}.2", run_id=run_id, seq=2, at=at, resolution="resolved", **common)
        )
    return found


def partly(run_id: str, minutes: int, cost: str) -> list[Received]:
    """A run of which one call has a price and the next has none."""
    begun, called, ended = run(run_id, minutes, 4.1, cost)
    at = NOON + timedelta(minutes=minutes)
    blank = received("model_called", id=f"{run_id}.3", run_id=run_id, seq=3, at=at, model="nobody-knows-it")
    return [begun, called, blank, ended]


async def test_runs_that_are_alike_are_summed_with_all_that_is_known_of_what_they_cost(log: Database) -> None:
    batch = [
        *run("a", 0, 4.0, "0.10"), *run("b", 1, 4.1, "0.20"), *run("c", 2, 4.1, ""), *run("d", 3, 0.5),
        *run("e", 4, 90), *run("f", 5, 2000), *run("g", 6, None), *run("h", 7, 4.0, mode="shadow"),
        *run("i", 8, 4.0, mode="eval"),
        *partly("m", 10, "0.40"),
        *run("j", 9, 4.0, version="2", agent="other"), *run("k", -1, 4.0), *run("l", 60, 4.0),
    ]  # fmt: skip
    await log.write(lambda conn: store.save(conn, batch))
    start, end = text_of(NOON), text_of(NOON + timedelta(hours=1))
    found = await log.read(lambda conn: daily.tally_runs(conn, start, end))
    rows = [(*one[:7], round(one.cost_usd, 6), round(one.priced_usd, 6)) for one in found]
    assert sorted(rows, key=str) == sorted(
        [
            ("desk", "live", "1", "resolved", 4000, 4, 2, 0.7, 0.3),
            ("desk", "live", "1", "resolved", 500, 1, 0, 0.0, 0.0),
            ("desk", "live", "1", "resolved", 90_000, 1, 0, 0.0, 0.0),
            ("desk", "live", "1", None, None, 1, 0, 0.0, 0.0),
            ("desk", "live", "1", "resolved", 1_980_000, 1, 0, 0.0, 0.0),
            ("desk", "shadow", "1", "resolved", 4000, 1, 0, 0.0, 0.0),
            ("other", "live", "2", "resolved", 4000, 1, 0, 0.0, 0.0),
        ],
        key=str,
    )  # fmt: skip
    assert [daily.middle_of(took) for took in (500, 4000, 59_000, 90_000, 1_980_000)] == [
        510.0, 4100.0, 59_500.0, 95_000.0, 2_010_000.0,
    ]  # fmt: skip


async def test_a_list_goes_on_behind_a_run_though_others_began_at_the_same_moment(log: Database) -> None:
    batch = [
        *run("b", 0, 1.0),
        *run("a", 0, 1.0),
        *run("a", 0, 1.0, agent="other"),
        *run("c", -5, 1.0),
        *run("z", 5, 1.0),
    ]
    await log.write(lambda conn: store.save(conn, batch))
    seen, after = list[tuple[str, str]](), None
    while True:
        wanted = Wanted(limit=1, after=after)
        rows = await log.read(lambda conn, wanted=wanted: find_runs(conn, wanted))  # type: ignore[misc]
        if not rows:
            break
        seen += [(row["run_id"], row["agent"]) for row in rows]
        after = (rows[-1]["first_event_at"], rows[-1]["run_id"], rows[-1]["agent"])
    assert seen == [("z", "desk"), ("b", "desk"), ("a", "other"), ("a", "desk"), ("c", "desk")]


async def test_a_part_of_a_run_is_read_and_what_a_ticket_cost_by_then(log: Database) -> None:
    batch = [
        *run("a", 0, 1.0, "0.10", ticket="T-1"),
        *run("b", 1, 1.0, "0.20", ticket="T-1"),
        *run("c", 2, 1.0, "0.40"),
    ]
    await log.write(lambda conn: store.save(conn, batch))
    some = await log.read(lambda conn: store.read_events(conn, "desk", "a", first=1, limit=1))
    assert [one["event"] for one in some] == ["model_called"]
    assert len(await log.read(lambda conn: store.read_events(conn, "desk", "a"))) == 3
    until = text_of(NOON + timedelta(seconds=30))
    assert await log.read(lambda conn: daily.ticket_costs(conn, "desk", "T-1", until)) == ["0.1"]
