"""The schedule on a real server where processes die and the database is locked."""

import asyncio
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

import schedule_helpers
from helpers import all_read, eventually
from midwatch.contracts import subjects
from midwatch.contracts.governance import AlertRaised
from midwatch.contracts.reviews import ReviewAdded
from midwatch.errors import Temporary
from midwatch.runtime import database as runtime_database
from midwatch.runtime import faults
from midwatch.runtime.database import migrate
from midwatch.runtime.delivery import RunReader
from midwatch_services.reviewer_sampler.schedule.handlers import heard
from schedule_helpers import Bed, alert, day, halt, read_well, tapered

# Fixtures of this file
url, bed = schedule_helpers.url, schedule_helpers.bed


class Crash(BaseException):
    """A process that died."""


POINTS = [
    "delivery.received", "reviewer_sampler.heard", "delivery.handled", "outbox.read", "outbox.published",
    "outbox.deleted", "delivery.drained", "delivery.acked",
]  # fmt: skip


@pytest.mark.parametrize("point", POINTS)
async def test_a_crash_between_any_two_steps_brings_the_rate_back_once(
    bed: Bed, js: JetStreamContext, nc: Client, url: str, point: str
) -> None:
    await tapered(bed)
    bed.time = day("2026-01-01")  # the server's clock is later than all of this
    info = await js.consumer_info(subjects.GOVERNANCE, subjects.REVIEWER_SAMPLER_GOVERNANCE)
    await js.add_consumer(subjects.GOVERNANCE, info.config.evolve(ack_wait=0.3))

    def reader(of: Bed) -> Any:
        return RunReader(
            nc, js, stream=subjects.GOVERNANCE, consumer=subjects.REVIEWER_SAMPLER_GOVERNANCE,
            service="reviewer-sampler", handle=of.scheduler.on_governance, decode=heard, outbox=of.sampler.outbox,
        )  # fmt: skip

    def die(name: str) -> None:
        if name == point:
            raise Crash

    task = asyncio.create_task(reader(bed).run())
    faults.set_hook(die)
    try:
        for subject, body in (alert(run_id="run-x"), alert(severity="ticket", run_id="run-x"), halt()):
            await js.publish(subject, body)
        with pytest.raises(Crash):
            await asyncio.wait_for(task, 20)
    finally:
        faults.set_hook(None)
    again = Bed(url, nc, js, bed.time)
    await again.sampler.load()
    task = asyncio.create_task(reader(again).run())

    try:
        await eventually(lambda: all_read(js, subjects.GOVERNANCE, subjects.REVIEWER_SAMPLER_GOVERNANCE))
    finally:
        while not task.done():  # nats-py swallows a cancellation that comes while it subscribes
            task.cancel()
            await asyncio.wait([task], timeout=0.2)
    assert [step for step in await again.rates() if step[2] in ("incident", "halt")] == [(1.0, 0, "incident")]
    assert [(one.run_id, one.cause) for one in await again.said(ReviewAdded)] == [("run-x", "alert")]
    await again.close()


@pytest.mark.parametrize("point", ["reviewer_sampler.judged", "outbox.read", "outbox.published"])
async def test_a_crash_after_a_day_was_judged_says_its_step_once(
    bed: Bed, js: JetStreamContext, nc: Client, url: str, point: str
) -> None:
    await read_well(bed)
    await bed.sampler.outbox.drain()
    bed.time = day("2026-01-31")

    def die(name: str) -> None:
        if name == point:
            raise Crash

    faults.set_hook(die)
    try:
        with pytest.raises(Crash):
            await bed.scheduler.look()
    finally:
        faults.set_hook(None)
    again = Bed(url, nc, js, bed.time)
    await again.card(rate=1.0, taper=(0.5, 0.25), days=30)
    await again.sampler.load()
    await again.scheduler.look()
    assert await again.rates() == [(1.0, 0, "began"), (0.5, 1, "tapered")]
    await again.close()


async def test_a_locked_database_changes_nothing_and_the_next_try_does(
    js: JetStreamContext, nc: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_database, "BUSY_SECONDS", 0.05)
    path = tmp_path / "sampler.db"
    migrate(f"sqlite:///{path}", "reviewer-sampler")
    bed = Bed(f"sqlite:///{path}", nc, js, day("2026-01-01"))
    await bed.card(rate=1.0, taper=(0.5, 0.25))
    await tapered(bed)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    page = bed.alert(run_id="run-x")
    with pytest.raises(Temporary):
        await bed.hear(page)
    with pytest.raises(Temporary):
        await bed.run("run-y", "said", text="a complaint", version="2")
    other.execute("ROLLBACK")
    other.close()
    assert (await bed.rates())[-1] == (0.25, 2, "tapered")
    await bed.hear(page)
    await bed.run("run-y", "said", text="a complaint", version="2")
    assert (await bed.rates())[3:] == [(1.0, 0, "incident")]
    assert [one.run_id for one in await bed.said(ReviewAdded)] == ["run-x", "run-y"]
    await bed.close()


@pytest.mark.parametrize("point", ["reviewer_sampler.planned", "reviewer_sampler.aged", "outbox.published"])
async def test_a_crash_of_the_planner_raises_the_alert_once(
    bed: Bed, js: JetStreamContext, nc: Client, url: str, point: str
) -> None:
    await bed.run("run-1")
    await bed.sampler.outbox.drain()
    bed.time += timedelta(days=4)

    def die(name: str) -> None:
        if name == point:
            raise Crash

    faults.set_hook(die)
    try:
        with pytest.raises(Crash):
            await bed.planner.look()
    finally:
        faults.set_hook(None)
    again = Bed(url, nc, js, bed.time)
    await again.sampler.load()
    for _ in range(2):
        await again.planner.look()
    assert [one.rule for one in await again.said(AlertRaised)] == ["review_ageing"]
    await again.close()
