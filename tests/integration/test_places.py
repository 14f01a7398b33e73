"""Where events stand in the log, and on PostgreSQL in which month, with the logger on a real server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from nats.js import JetStreamContext

from helpers import eventually
from logged import NOON, publish, received
from midwatch.contracts import subjects
from midwatch.runtime import topology
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.service import run_services
from midwatch.runtime.settings import Settings
from midwatch_services.logger import app, store
from midwatch_services.logger.evidence.leaf import content_hash, leaf_hash

OCTOBER = datetime(2026, 10, 31, 23, 59, tzinfo=UTC)


@pytest.fixture
async def log(settings: Settings, js: JetStreamContext) -> AsyncIterator[Database]:
    """The log that a running logger writes."""
    running = asyncio.Event()
    task = asyncio.create_task(run_services([app.SERVICE], settings, started=lambda _: running.set(), restart=False))
    await asyncio.wait_for(running.wait(), 20)
    database = Database(settings.database_for("logger"), name="test")
    yield database
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    database.close()


@pytest.fixture
def postgres_log(postgres_url: str) -> Any:
    migrate(postgres_url.replace("postgresql://", "postgresql+psycopg://"), "logger")
    database = Database(postgres_url.replace("postgresql://", "postgresql+psycopg://"), name="test")
    yield database
    database.close()


async def rows(database: Database, count: int) -> list[Any]:
    """All events in order of their places, once there are so many."""

    async def found() -> list[Any] | None:
        query = sa.text("SELECT * FROM logger_events ORDER BY place")
        events = await database.read(lambda conn: [row._mapping for row in conn.execute(query)])
        return events if len(events) == count else None

    return list(await eventually(found))


async def test_places_follow_the_stream(js: JetStreamContext, log: Database) -> None:
    ids = [await publish(js, "said", seq=seq, by="agent", text="Hello") for seq in range(3)]
    found = await rows(log, 3)
    assert [row["id"] for row in found] == ids
    assert [row["place"] for row in found] == [(1 << 44) + seq for seq in (1, 2, 3)]


async def test_places_go_on_when_the_stream_is_made_anew(
    js: JetStreamContext, settings: Settings, log: Database
) -> None:
    before = [await publish(js, "said", seq=seq, by="agent", text="Hello") for seq in range(3)]
    await rows(log, 3)
    await js.delete_stream(subjects.RUNS)
    await topology.apply(js, settings)
    after = await publish(js, "said", seq=3, by="agent", text="Hello again")
    found = await rows(log, 4)
    assert [row["id"] for row in found] == [*before, after]
    assert found[-1]["place"] == (2 << 44) + 1


async def test_a_leaf_is_that_of_what_is_stored(js: JetStreamContext, log: Database) -> None:
    await publish(js, "said", by="agent", text="Grüße")
    [row] = await rows(log, 1)
    content = content_hash(row["salt"], row["body"].encode())
    assert row["leaf"] == leaf_hash(
        row["agent"], row["id"], row["run_id"], row["event"], row["seq"], row["time"], row["stored_at"], row["place"],
        row["mode"], row["version"], content,
    )  # fmt: skip


@pytest.mark.postgres
def test_a_run_stands_in_the_month_of_its_first_event(postgres_log: Database) -> None:
    first = received("started", input="x", stored_at=OCTOBER)
    later = received("said", seq=1, by="agent", text="y", stored_at=OCTOBER + timedelta(hours=1))
    other = received("started", run_id="r-2", input="x", stored_at=OCTOBER + timedelta(hours=1))
    for batch in ([first], [later, other]):
        postgres_log.write_now(lambda conn, batch=batch: store.save(conn, batch))
    found = postgres_log.read_now(
        lambda conn: conn.exec_driver_sql(
            "SELECT tableoid::regclass::text, run_id, count(*) FROM logger_events GROUP BY 1, 2 ORDER BY 1, 2"
        ).all()
    )
    assert [tuple(row) for row in found] == [("logger_events_2026_10", "r-1", 2), ("logger_events_2026_11", "r-2", 1)]


@pytest.mark.postgres
def test_a_repeat_in_another_month_is_known(postgres_log: Database) -> None:
    event = received("started", input="x", id="e-1", stored_at=OCTOBER)
    again = received("started", input="x", id="e-1", stored_at=OCTOBER + timedelta(days=40))
    assert [postgres_log.write_now(lambda conn, one=one: store.save(conn, [one])) for one in (event, again)] == [1, 0]


@pytest.mark.postgres
def test_a_partition_that_was_rolled_back_is_made_again(postgres_log: Database) -> None:
    def fails(conn: Any) -> None:
        store.save(conn, [received("started", input="x", stored_at=NOON)])
        raise ValueError("after the partition was made")

    with pytest.raises(ValueError, match="after"):
        postgres_log.write_now(fails)
    assert postgres_log.write_now(lambda conn: store.save(conn, [received("started", input="x", stored_at=NOON)])) == 1
