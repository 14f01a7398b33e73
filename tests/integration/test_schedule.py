"""The schedule on a real server: each rate is published before it draws, whatever is repeated, late or killed."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import typer
from nats.aio.client import Client
from nats.js import JetStreamContext
from typer.testing import CliRunner, Result

from helpers import eventually
from midwatch.contracts import subjects
from midwatch.contracts.control import BesidesRule
from midwatch.contracts.governance import AlertRaised, ReviewAdded, ReviewRated, ReviewSampled
from midwatch.errors import Temporary
from midwatch.runtime import database as runtime_database
from midwatch.runtime import faults
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.delivery import RunReader
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.settings import Settings
from midwatch_services.commands import reviews as reviews_command
from midwatch_services.logger import store as run_log
from midwatch_services.reviewer_sampler.schedule.handlers import heard
from schedule_helpers import Bed, alert, day, halt

QUEUE = "SELECT run_id, drawn, causes, state FROM reviewer_sampler_queue ORDER BY run_id"


class Crash(BaseException):
    """A process that died."""


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'sampler.db'}"
    return str(request.getfixturevalue("postgres_url")).replace("postgresql://", "postgresql+psycopg://", 1)


@pytest.fixture
async def bed(js: JetStreamContext, nc: Client, url: str) -> AsyncIterator[Bed]:
    migrate(url, "reviewer-sampler")
    bed = Bed(url, nc, js, day("2026-01-01"))
    await bed.card(rate=1.0, taper=(0.5, 0.25), days=30)
    yield bed
    await bed.close()


async def read_well(bed: Bed, runs: int = 130, version: str = "1", first: int = 0) -> None:
    """So many runs of now begin; those drawn are read and pass."""
    ids = [f"run-{version}-{number}" for number in range(first, first + runs)]
    await bed.sampler.on_events([bed.received(run_id, version=version) for run_id in ids])
    await bed.judged(dict.fromkeys(ids, "pass"))


async def test_an_agent_begins_at_its_cards_rate_and_says_so_before_its_first_draw(
    bed: Bed, js: JetStreamContext
) -> None:
    await bed.run("run-1")
    await bed.run("run-2")
    assert await bed.rates() == [(1.0, 0, "began")]
    assert len(await bed.said(ReviewSampled)) == 2


async def test_the_rate_falls_step_by_step_and_each_run_is_drawn_at_the_one_in_force(bed: Bed) -> None:
    await read_well(bed)
    for at in ("2026-01-30", "2026-01-31", "2026-02-06", "2026-02-07", "2026-04-01"):
        bed.time = day(at)
        await bed.scheduler.look()
        await bed.run(f"at-{at}")
    assert await bed.rates() == [(1.0, 0, "began"), (0.5, 1, "tapered"), (0.25, 2, "tapered")]
    assert await bed.rows("SELECT run_id, rate FROM reviewer_sampler_runs WHERE run_id LIKE 'at-%' ORDER BY 1") == [
        ("at-2026-01-30", 1.0), ("at-2026-01-31", 0.5), ("at-2026-02-06", 0.5), ("at-2026-02-07", 0.25),
        ("at-2026-04-01", 0.25),
    ]  # fmt: skip
    tapered = (await bed.said(ReviewRated))[1]
    assert (tapered.judged, tapered.failed, round(tapered.upper or 0, 4)) == (130, 0, 0.0287)


async def test_days_missed_in_an_outage_end_where_they_would_have(bed: Bed) -> None:
    await read_well(bed)
    bed.time = day("2026-04-01")
    await bed.scheduler.look()
    await bed.scheduler.look()
    assert await bed.rates() == [(1.0, 0, "began"), (0.5, 1, "tapered"), (0.25, 2, "tapered")]


async def test_a_look_that_finds_nothing_writes_nothing(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    await bed.run("run-1")
    await bed.scheduler.look()
    await bed.planner.look()

    async def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("written")

    await bed.sampler.outbox.drain()
    monkeypatch.setattr(bed.database, "write", refuse)
    await bed.scheduler.look()
    await bed.planner.look()


async def tapered(bed: Bed) -> None:
    await read_well(bed)
    bed.time = day("2026-03-01")
    await bed.scheduler.look()
    assert (await bed.rates())[-1] == (0.25, 2, "tapered")


async def test_a_new_version_is_drawn_at_the_first_rate_from_its_first_run_on(bed: Bed) -> None:
    await tapered(bed)
    batch = [
        bed.received("old"),
        bed.received("new", version="2"),
        bed.received("old-2"),
        bed.received("new-2", version="2"),
    ]
    await bed.sampler.on_events(batch)
    await bed.sampler.on_events([bed.received("old-3"), bed.received("new-3", version="2")])
    assert (await bed.rates())[3:] == [(1.0, 0, "version")]
    assert dict(await bed.rows("SELECT run_id, rate FROM reviewer_sampler_runs WHERE run_id LIKE '%old%'")) == {
        "old": 0.25, "old-2": 1.0, "old-3": 1.0,
    }  # fmt: skip
    [what] = [one.what for one in (await bed.said(ReviewRated))[3:]]
    assert what == "2"


@pytest.mark.parametrize("mode", ["replay", "eval", "drill", "shadow"])
async def test_no_run_but_a_live_one_moves_a_schedule(bed: Bed, mode: str) -> None:
    await bed.run("run-1", mode=mode, version="9")
    assert await bed.rates() == []
    await tapered(bed)
    await bed.run("run-2", mode=mode, version="10")
    assert (await bed.rates())[-1] == (0.25, 2, "tapered")
    [(rate,)] = await bed.rows("SELECT rate FROM reviewer_sampler_runs WHERE run_id = 'run-2'")
    assert rate == (1.0 if mode == "replay" else 0.25)


async def test_a_page_a_drift_and_a_halt_bring_it_back_once_however_often_they_come(bed: Bed) -> None:
    await tapered(bed)
    page, drift = bed.alert(), bed.alert(rule="drift", severity="ticket", at=bed.time + timedelta(days=1))
    fleet = bed.halt("fleet", at=bed.time + timedelta(days=2))
    await bed.hear(page, page)
    await bed.hear(fleet, drift)
    await bed.hear(drift, page, fleet)
    assert (await bed.rates())[3:] == [(1.0, 0, "incident"), (1.0, 0, "halt")]


async def test_a_halt_of_the_fleet_brings_back_every_agent(bed: Bed) -> None:
    await bed.card("other", rate=0.3)
    await tapered(bed)
    await bed.run("o", agent="other")
    bed.time += timedelta(days=1)
    await bed.hear(bed.halt("fleet", drill=True))
    await bed.hear(bed.halt("fleet"))
    assert (await bed.rates())[3:] == [(1.0, 0, "halt")]
    assert await bed.rates("other") == [(0.3, 0, "began"), (0.3, 0, "halt")]


async def test_failing_runs_bring_the_first_rate_back(bed: Bed) -> None:
    await tapered(bed)
    await bed.sampler.on_events([bed.received(f"late-{number}") for number in range(200)])
    await bed.judged({f"late-{number}": "fail" if number % 5 == 0 else "pass" for number in range(200)})
    bed.time += timedelta(days=1)
    await bed.scheduler.look()
    assert (await bed.rates())[3:] == [(1.0, 0, "failing")]


async def test_only_drawn_and_settled_runs_count(bed: Bed) -> None:
    await bed.card(rate=0.0, besides=BesidesRule(tools=["pay"]))
    for number in range(130):
        await bed.run(f"run-{number}", "tool_called", tool="pay")
    await bed.judged({f"run-{number}": "fail" for number in range(130)})
    assert len(await bed.rows(QUEUE)) == 130
    bed.time = day("2026-03-01")
    await bed.scheduler.look()
    assert [(one.judged, one.failed) for one in await bed.said(ReviewRated)] == [(0, 0)]


async def test_a_new_card_changes_the_rate_and_keeps_the_step(bed: Bed) -> None:
    await tapered(bed)
    await bed.card(rate=0.8, taper=(0.6, 0.4))
    await bed.scheduler.look()
    await bed.scheduler.look()
    assert (await bed.rates())[3:] == [(0.4, 2, "card")]


# Besides


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


# The hours of a day


async def test_what_a_day_has_no_time_for_is_due_later_and_the_queue_follows(bed: Bed) -> None:
    await bed.card(rate=1.0, minutes_a_day=6)  # two of three minutes each
    for number in range(5):
        await bed.run(f"run-{number}")
        bed.time += timedelta(seconds=1)
    await bed.planner.look()
    due = "SELECT run_id, due_day FROM reviewer_sampler_queue ORDER BY run_id"
    assert [at for _, at in await bed.rows(due)] == ["2026-01-01"] * 2 + ["2026-01-02"] * 2 + ["2026-01-03"]
    await bed.judged({"run-0": "pass", "run-1": "pass"})
    bed.time = day("2026-01-02")
    await bed.planner.look()
    assert [at for _, at in await bed.rows(due)][2:] == ["2026-01-02", "2026-01-02", "2026-01-03"]


async def test_a_run_that_waits_too_long_raises_one_ticket_that_ends_by_itself(bed: Bed, js: JetStreamContext) -> None:
    async def alerts() -> list[tuple[str, Any]]:
        await bed.sampler.outbox.drain()
        info = await js.stream_info(subjects.GOVERNANCE, subjects_filter="midwatch.alert.>")
        return sorted((info.state.subjects or {}).items())

    await bed.run("run-1")
    await bed.run("run-2")
    bed.time += timedelta(days=3)
    await bed.planner.look()
    assert await alerts() == []
    bed.time += timedelta(minutes=1)
    for _ in range(3):
        await bed.planner.look()
    assert await alerts() == [("midwatch.alert.desk.raised", 1)]
    message = await js.get_last_msg(subjects.GOVERNANCE, "midwatch.alert.desk.raised")
    raised = heard("midwatch.alert.desk.raised", message.data or b"").data
    assert isinstance(raised, AlertRaised)
    assert (raised.rule, raised.severity, raised.dedupe_key) == ("review_ageing", "ticket", "review_ageing/desk")
    await bed.judged({"run-1": "pass", "run-2": "fail"})
    await bed.planner.look()
    assert await alerts() == [("midwatch.alert.desk.raised", 1), ("midwatch.alert.desk.resolved", 1)]
    await bed.planner.look()
    assert len(await bed.rows("SELECT * FROM reviewer_sampler_ageing")) == 0


# Broken on purpose

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

    async def handled() -> bool:
        found = await js.consumer_info(subjects.GOVERNANCE, subjects.REVIEWER_SAMPLER_GOVERNANCE)
        return not found.num_pending and not found.num_ack_pending

    try:
        await eventually(handled)
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


# What people see of it


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
