"""Runs read besides the draw, on a real server: each queued once for each cause, and none taken for a draw."""

from datetime import timedelta
from pathlib import Path

from nats.aio.client import Client
from nats.js import JetStreamContext

import schedule_helpers
from midwatch.contracts import subjects
from midwatch.contracts.control import BesidesRule
from midwatch.contracts.reviews import ReviewAdded, ReviewSampled
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.settings import Settings
from midwatch_services.logger import store as run_log
from schedule_helpers import QUEUE, Bed, day

# Fixtures of this file
url, bed = schedule_helpers.url, schedule_helpers.bed


async def test_runs_that_ask_for_it_are_queued_once_for_each_cause_and_are_no_draws(bed: Bed) -> None:
    await bed.card(rate=0.0, besides=BesidesRule(tools=["pay"]))
    for _ in range(2):
        await bed.run("run-1", input="I will call my Lawyer")
        await bed.run("run-1", "tool_called", tool="pay")
        await bed.run("run-1", "handed_off")
        await bed.run("run-2", "said", text="a lawyer?", mode="replay")
        await bed.run("run-3", "said", text="a lawyer?", mode="drill")
        await bed.hear(bed.alert(run_id="run-1"))
        bed.scheduler._added = type(bed.scheduler._added)(10)  # another life remembers nothing
    assert await bed.rows(QUEUE) == [("run-1", 0, '["complaint","tool","hand_off","alert"]', "waiting")]
    assert [(one.cause, one.what) for one in await bed.said(ReviewAdded)] == [
        ("complaint", "lawyer"), ("tool", "pay"), ("hand_off", "to human, without a word"), ("alert", "budget_run"),
    ]  # fmt: skip
    assert await bed.said(ReviewSampled) == []


async def test_a_drawn_run_stays_drawn_and_has_the_cause_beside(bed: Bed) -> None:
    await bed.run("run-1", ticket="T-1", version="7")
    await bed.run("run-1", "said", text="COMPLAINT")
    assert await bed.rows(QUEUE) == [("run-1", 1, '["complaint"]', "waiting")]
    await bed.run("run-2", input="complaint")
    assert (await bed.rows(QUEUE))[1] == ("run-2", 1, '["complaint"]', "waiting")


async def test_an_alert_that_comes_before_its_run_does_not_spoil_the_draw(bed: Bed) -> None:
    await bed.hear(bed.alert(run_id="run-1", severity="ticket", ticket="T-1"))
    assert await bed.rows(QUEUE) == [("run-1", 0, '["alert"]', "waiting")]
    await bed.run("run-1", version="3")
    assert await bed.rows("SELECT drawn, causes, version, rate, ticket FROM reviewer_sampler_queue") == [
        (1, '["alert"]', "3", 1.0, "T-1")
    ]
    [drawn] = await bed.said(ReviewSampled)
    [row] = await bed.rows("SELECT draw, day, key_hash FROM reviewer_sampler_queue")
    assert row == (drawn.draw, drawn.day, drawn.key_hash)
    await bed.card(rate=0.0)
    await bed.scheduler.look()
    await bed.hear(bed.alert(run_id="run-2", severity="ticket"))
    await bed.run("run-2", version="3")
    assert (await bed.rows("SELECT drawn, version, rate FROM reviewer_sampler_queue WHERE run_id = 'run-2'")) == [
        (0, "3", 0.0)
    ]


async def test_a_new_reader_that_hears_of_all_there_ever_was_queues_nothing_of_long_ago(bed: Bed) -> None:
    await bed.hear(bed.alert(run_id="old", at=bed.time - timedelta(days=8)), bed.alert(run_id="late", at=bed.time))
    assert [row[0] for row in await bed.rows(QUEUE)] == ["late"]
    await bed.run("run-1")
    await bed.hear(bed.halt("fleet", at=bed.time - timedelta(days=8)))
    assert await bed.rates() == [(1.0, 0, "began")]


async def test_an_erased_run_is_not_queued_again(bed: Bed) -> None:
    await bed.run("run-1")
    await bed.database.write(lambda conn: conn.exec_driver_sql("UPDATE reviewer_sampler_queue SET state = 'erased'"))
    await bed.hear(bed.alert(run_id="run-1"))
    await bed.run("run-1", "handed_off")
    assert await bed.rows(QUEUE) == [("run-1", 1, "[]", "erased")]
    assert await bed.said(ReviewAdded) == []


async def test_a_run_that_cost_too_much_is_queued_from_the_run_log(
    js: JetStreamContext, nc: Client, settings: Settings
) -> None:
    for service in (subjects.LOGGER, subjects.REVIEWER_SAMPLER):
        migrate(settings.database_for(service), service)
    log_url = settings.database_for(subjects.LOGGER)
    bed = Bed(settings.database_for(subjects.REVIEWER_SAMPLER), nc, js, day("2026-01-01"), log_url)
    await bed.card(rate=0.0, besides=BesidesRule(cost="0.50"))
    log = Database(log_url, name=subjects.LOGGER)
    for run_id, cost, mode in (("cheap", "0.25", "live"), ("dear", "0.3", "live"), ("played", "3", "replay")):
        for seq in range(2):
            one = bed.received(run_id, "model_called", cost_usd=cost, mode=mode, seq=seq)
            one.event = one.event._replace(time=bed.time)
            await log.write(lambda conn, one=one: run_log.save(conn, [one]))  # type: ignore[misc]
    for _ in range(2):
        await bed.scheduler.look_at_costs()
    assert await bed.rows(QUEUE) == [("dear", 0, '["cost"]', "waiting")]
    assert [(one.run_id, one.what) for one in await bed.said(ReviewAdded)] == [("dear", "$0.60")]
    log.close()
    await bed.close()


async def test_without_a_run_log_nothing_is_added_for_its_cost_and_nothing_breaks(bed: Bed, tmp_path: Path) -> None:
    await bed.card(rate=0.0, besides=BesidesRule(cost="0.50"))
    bed.scheduler._log_url = f"sqlite:///{tmp_path}/nowhere.db"
    await bed.scheduler.look_at_costs()
    assert await bed.rows(QUEUE) == []
