"""What tests of reviewers share: a sampler that runs, runs in its queue, and people who judge them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import typer
from nats.aio.client import Client
from nats.js import JetStreamContext
from typer.testing import CliRunner, Result

from helpers import eventually
from logged import received
from midwatch.contracts import codec, control, subjects
from midwatch.contracts.control import Card, ReviewRule
from midwatch.contracts.reviews import ReviewJudged, Verdict
from midwatch.contracts.runs import Started
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.service import run_services
from midwatch.runtime.settings import Settings
from midwatch_services.commands import reviews
from midwatch_services.logger import store as run_log
from midwatch_services.reviewer_sampler.app import SERVICE
from midwatch_services.reviewer_sampler.judging.desk import Desk

LONG_AGO = datetime.now(UTC) - timedelta(hours=2)


class Crash(BaseException):
    """A process that died."""


async def put_card(js: JetStreamContext, agent: str = "desk", **rule: Any) -> None:
    """Applies a card. Unless a test says otherwise every run is drawn, and one judge is enough."""
    review = ReviewRule(**{"rate": 1.0, "second_review": 0.0, **rule})
    card = Card(agent=agent, owner="Ann", purpose="p", can=["c"], review=review)
    await js.publish(subjects.key_subject(subjects.AGENTS, agent), control.encode(card))


@asynccontextmanager
async def sampler(settings: Settings) -> AsyncIterator[asyncio.Task[None]]:
    """The service as it is wired; it runs when the block begins."""
    started = asyncio.Event()
    task = asyncio.create_task(run_services([SERVICE], settings, started=lambda _: started.set(), restart=False))
    try:
        waits = asyncio.create_task(started.wait())
        await asyncio.wait({waits, task}, return_when=asyncio.FIRST_COMPLETED, timeout=30)
        assert started.is_set(), task
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Crash):
            await task


async def begin(js: JetStreamContext, *run_ids: str, agent: str = "desk", mode: Any = "live") -> None:
    """Runs begin, and the sampler has drawn them."""
    for run_id in run_ids:
        data = Started(run_id=run_id, agent=agent, version="v7", mode=mode, seq=0, input="Where is it?", ticket="T-1")
        body = codec.encode(codec.envelope("run", "started", data, source=f"/agents/{agent}/test", subject=run_id))
        await js.publish(subjects.run(agent, "started"), body)
    last = (await js.stream_info(subjects.RUNS)).state.last_seq
    await eventually(lambda: _read_to(js, subjects.RUNS, subjects.REVIEWER_SAMPLER, last))


async def judge(
    nc: Client, by: str, run_id: str, verdict: Verdict = "pass", *, agent: str = "desk", mode: Any = "live",
    read: bool = True, **fields: Any,
) -> None:  # fmt: skip
    """A person says what a run is worth; unless `read` is off, the sampler has heard it."""
    await Desk(nc, by).judge(ReviewJudged(run_id=run_id, agent=agent, verdict=verdict, by=by, mode=mode, **fields))
    if read:
        await judged(nc.jetstream())


async def judged(js: JetStreamContext) -> None:
    """Every judgement is handled, and what came of it is said."""
    last = (await js.get_last_msg(subjects.GOVERNANCE, subjects.review("*", "judged"))).seq
    await eventually(lambda: _read_to(js, subjects.GOVERNANCE, subjects.REVIEWER_SAMPLER_VERDICTS, last or 0))


async def _read_to(js: JetStreamContext, stream: str, consumer: str, last: int) -> bool:
    # Not by what is pending: the server counts that a moment after it has acknowledged a message.
    info = await js.consumer_info(stream, consumer)
    return info.ack_floor is not None and info.ack_floor.stream_seq >= last


async def said(js: JetStreamContext, *events: str, agent: str = "desk") -> list[tuple[str, Any]]:
    """Event and data of what the service said of reviews, in order."""
    info = await js.stream_info(subjects.GOVERNANCE)
    found = []
    for seq in range(1, info.state.last_seq + 1):
        message = await js.get_msg(subjects.GOVERNANCE, seq)
        subject = message.subject or ""
        if subject in {subjects.review(agent, event) for event in events}:
            found.append((subject.rsplit(".", 1)[1], codec.decode(subject, message.data or b"").data))
    return found


def rows(settings: Settings, query: str) -> list[Mapping[str, Any]]:
    """What the sampler's database answers."""
    database = Database(settings.database_for(subjects.REVIEWER_SAMPLER), must_exist=True)
    try:
        return [dict(row._mapping) for row in database.read_now(lambda conn: conn.exec_driver_sql(query).fetchall())]
    finally:
        database.close()


async def midwatch(*arguments: str) -> Result:
    """`midwatch reviews …`, to its end."""
    app = typer.Typer()
    app.callback()(lambda: None)
    reviews.register(app)
    return await asyncio.to_thread(CliRunner().invoke, app, ["reviews", *arguments])


async def log(
    settings: Settings, *run_ids: str, ended: bool = True, at: datetime = LONG_AGO, mode: str = "live"
) -> None:
    """Runs as the logger keeps them."""
    url = settings.database_for(subjects.LOGGER)
    await asyncio.to_thread(migrate, url, subjects.LOGGER)
    database, batch = Database(url), []
    for run_id in run_ids:
        batch.append(
            received(
                "started", run_id=run_id, agent="desk", input="Where is \x1b[31mit?", ticket="T-1", at=at, mode=mode
            )
        )
        if ended:
            batch.append(received("finished", seq=1, run_id=run_id, agent="desk", resolution="resolved",
                                  output="On its way.", at=at, mode=mode))  # fmt: skip
    await database.write(lambda conn: run_log.save(conn, batch))
    database.close()
