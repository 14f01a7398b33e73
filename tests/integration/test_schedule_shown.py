"""What people see of the schedule, and the service as it is wired."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
import typer
from nats.aio.client import Client
from nats.js import JetStreamContext
from typer.testing import CliRunner, Result

import schedule_helpers
from helpers import eventually
from midwatch.contracts import subjects
from midwatch.contracts.control import BesidesRule
from midwatch.runtime.database import migrate
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.service import run_services
from midwatch.runtime.settings import Settings
from midwatch_services.commands import reviews as reviews_command
from midwatch_services.reviewer_sampler.app import SERVICE
from schedule_helpers import QUEUE, Bed, alert, day, halt

# Fixtures of this file
url, bed = schedule_helpers.url, schedule_helpers.bed


async def test_the_service_hears_runs_alerts_and_halts_as_it_is_wired(
    js: JetStreamContext, settings: Settings, nc: Client
) -> None:
    bed = Bed(settings.database_for(subjects.REVIEWER_SAMPLER), nc, js, datetime.now(UTC))
    await bed.card(rate=1.0, taper=(0.5,))
    started = asyncio.Event()
    task = asyncio.create_task(run_services([SERVICE], settings, started=lambda _: started.set(), restart=False))
    try:
        await asyncio.wait_for(started.wait(), 20)
        one = bed.received("run-1", version="1")
        await js.publish(one.subject, one.body)
        await eventually(lambda: rated(js, 1))
        two = bed.received("run-2", version="2")
        await js.publish(two.subject, two.body)
        await eventually(lambda: rated(js, 2))
        for subject, body in (alert(run_id="run-2"), halt("fleet")):
            await js.publish(subject, body)

        async def added() -> bool:
            return await count(js, "midwatch.review.desk.added") == 1

        await eventually(added)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await bed.rates() == [(1.0, 0, "began"), (1.0, 0, "version")]
    assert [row[:3] for row in await bed.rows(QUEUE)] == [("run-1", 1, "[]"), ("run-2", 1, '["alert"]')]
    await bed.close()


async def count(js: JetStreamContext, subject: str) -> int:
    info = await js.stream_info(subjects.GOVERNANCE, subjects_filter=subject)
    return (info.state.subjects or {}).get(subject, 0)


async def rated(js: JetStreamContext, times: int) -> bool:
    return await count(js, "midwatch.review.desk.rated") == times


async def reviews(*arguments: str) -> Result:
    app = typer.Typer()
    app.callback()(lambda: None)
    reviews_command.register(app)
    return await asyncio.to_thread(CliRunner().invoke, app, ["reviews", *arguments])


@pytest.fixture
async def shown(
    js: JetStreamContext, nc: Client, settings: Settings, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Bed]:
    monkeypatch.setenv("NATS_URL", nats_server.url)
    monkeypatch.setenv("COLUMNS", "200")
    url = Settings().database_for(subjects.REVIEWER_SAMPLER)
    migrate(url, subjects.REVIEWER_SAMPLER)
    bed = Bed(url, nc, js, datetime.now(UTC))
    await bed.card(rate=1.0, taper=(0.5, 0.25), minutes_a_day=6)
    yield bed
    await bed.close()


async def test_the_schedule_says_the_rate_and_in_one_sentence_why_it_does_not_fall(shown: Bed) -> None:
    assert (await reviews("schedule")).stdout == "No agent has run yet.\n"
    for number in range(5):
        await shown.run(f"run-{number}")
    await shown.judged({"run-0": "pass", "run-1": "fail", "run-2": "unsure"})
    await shown.planner.look()
    today = shown.time.date().isoformat()
    assert (await reviews("schedule")).stdout.splitlines() == [
        f"desk: 100% of runs drawn, step 0 of 100% → 50% → 25%, since {today} (began)",
        "  2 judged, 1 failed, 1 could not be judged: at most 90.5% (95 %, Wilson), the limit is 3.0%",
        "  1 of 2 judged runs failed: it may fail in up to 90.5%, which is not under 3.0%.",
        "  5 drawn today; time for 2 a day (6 minutes, 180 s each); 2 wait, done today",
    ]
    [row] = [json.loads(line) for line in (await reviews("schedule", "--agent", "desk", "--json")).stdout.splitlines()]
    assert (row["rate"], row["step"], row["judged"], row["failed"], row["unsure"], row["drawn_today"]) == (
        1.0, 0, 2, 1, 1, 5,
    )  # fmt: skip
    assert (row["time_today"], row["waiting"], row["backlog_days"], row["upper"]) == (2, 2, 0, 0.905469)
    assert (await reviews("schedule", "--agent", "nobody")).stdout == "nobody has not run yet.\n"


async def test_the_schedule_says_what_waits_for_one_more_person_and_is_in_no_figure(shown: Bed) -> None:
    for number in range(6):
        await shown.run(f"run-{number}")
    await shown.failed_once("run-4", "run-5")
    lines = (await reviews("schedule")).stdout.splitlines()
    today = shown.time.date().isoformat()
    waits = "2 more were judged and wait for one more person, as every fail does: not in this figure"
    assert lines[1] == f"  none judged yet; the limit is 3.0%; {waits}"
    assert lines[2] == f"  None of the runs drawn since {today} has a verdict that stands."
    await shown.card(rate=1.0, taper=(0.5, 0.25), minutes_a_day=6, fail_limit=0.6)
    await shown.scheduler.look()
    await shown.judged({f"run-{number}": "pass" for number in range(4)})
    lines = (await reviews("schedule")).stdout.splitlines()
    assert lines[1] == f"  4 judged, 0 failed: at most 49.0% (95 %, Wilson), the limit is 60.0%; {waits}"
    # With 2 of 6: (1/3 + 1.92/6 + 1.96 * sqrt(2/54 + 0.96/36)) / (1 + 3.84/6) = 70.0 %
    assert lines[2] == "  2 wait for one more person, and could hold it: it is known once they are settled."
    [row] = [json.loads(line) for line in (await reviews("schedule", "--json")).stdout.splitlines()]
    assert (row["judged"], row["failed"], row["pending"]) == (4, 0, 2)


async def test_the_queue_says_what_there_is_time_for_and_by_when_the_rest_is_due(shown: Bed) -> None:
    for number in range(5):
        await shown.run(f"run-{number}")
    await shown.planner.look()
    last = (shown.time + timedelta(days=2)).date().isoformat()
    lines = (await reviews()).stdout.splitlines()
    assert lines[-2:] == [
        f"desk: 5 waiting, time for 2 today; the rest is due by {last}", "desk: 5 of 5 runs drawn (100.0%)",
    ]  # fmt: skip
    await shown.judged({"run-0": "pass", "run-1": "pass", "run-2": "pass"})
    await shown.planner.look()
    assert (await reviews()).stdout.splitlines()[-2] == "desk: 2 waiting, time for all of them today"


async def test_verify_finds_a_rate_that_was_never_published(shown: Bed) -> None:
    shown.time = day((datetime.now(UTC) - timedelta(days=2)).date().isoformat())
    for number in range(20):
        await shown.run(f"run-{number}", "said", text="complaint")
    await shown.hear(shown.alert(run_id="run-x"))
    shown.time += timedelta(minutes=10)
    await shown.card(rate=0.4, besides=BesidesRule(complaints=("odd",)))
    await shown.scheduler.look()
    for number in range(20):
        await shown.run(f"later-{number}", "said", text="how odd")
    await shown.sampler.outbox.drain()
    on = shown.time.date().isoformat()
    shown.time = datetime.now(UTC)
    await shown.sampler.reveal()
    honest = await reviews("verify", "--day", on, "--json")
    assert json.loads(honest.stdout.splitlines()[0])["mismatches"] == []
    cheat = "UPDATE reviewer_sampler_runs SET rate = 0.3, drawn = 0 WHERE run_id = 'later-1'"
    await shown.database.write(lambda conn: conn.execute(sa.text(cheat)).rowcount)
    found = await reviews("verify", "--day", on)
    assert found.exit_code == 1
    assert "desk later-1 was drawn at a rate of 0.3, published was 0.4" in found.stdout
