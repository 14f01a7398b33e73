"""Drift on a real server and both databases: each day judged once, each cause told once, whatever crashes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext

from drift_helpers import Log, log_run
from helpers import eventually
from logged import publish
from midwatch.contracts import codec, subjects
from midwatch.runtime import faults
from midwatch.runtime.database import Database
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.service import Context, Service, run_services
from midwatch.runtime.settings import Settings
from midwatch_services.drift import app, handlers, store, text

FIRST = datetime(2026, 10, 24, 8, 0, tzinfo=UTC)  # 28 days before the day that is judged
DAY = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
NEXT_MORNING = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)


class Crash(BaseException):
    """The process is gone at this point."""


class Clock:
    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


class Bed:
    """The log, the service's database, and the bus."""

    def __init__(self, settings: Settings, js: JetStreamContext) -> None:
        self.settings, self.js, self.clock = settings, js, Clock(NEXT_MORNING)
        self.log = Log(settings)
        self.database = Database(settings.database_for("drift"), name="test")

    @asynccontextmanager
    async def running(self) -> AsyncIterator["asyncio.Task[None]"]:
        def build(context: Context) -> None:
            context.now = self.clock
            app.build(context)

        service, running = Service(subjects.DRIFT, build), asyncio.Event()
        task = asyncio.create_task(
            run_services([service], self.settings, started=lambda _: running.set(), restart=False)
        )
        started = asyncio.create_task(running.wait())
        await asyncio.wait([task, started], return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        try:
            yield task
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Crash):
                await task

    async def judged(self, day: str = "2026-11-21") -> None:
        """Runs the service until that day is judged and told."""
        async with self.running():
            await eventually(lambda: self.is_judged(day), within=30)

    async def is_judged(self, day: str) -> bool:
        with contextlib.suppress(Exception):  # the service makes its tables
            found = await self.database.read(lambda conn: store.last_day(conn) == day and not _waiting(conn))
            return bool(found)
        return False

    async def read(self, work: Callable[..., Any], **wanted: Any) -> Any:
        return await self.database.read(lambda conn: work(conn, **wanted))

    async def alerts(self) -> list[tuple[str, Any]]:
        """Event and data of each alert event, in order."""
        info = await self.js.stream_info(subjects.GOVERNANCE)
        found = []
        for seq in range(1, info.state.last_seq + 1):
            message = await self.js.get_msg(subjects.GOVERNANCE, seq)
            event = codec.decode(message.subject or "", message.data or b"")
            found.append(((message.subject or "").rsplit(".", 1)[1], event.data))
        return found

    def close(self) -> None:
        self.log.close()
        self.database.close()


def _waiting(conn: Any) -> int:
    return int(conn.exec_driver_sql("SELECT count(*) FROM drift_outbox").scalar())


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def bed(
    request: pytest.FixtureRequest, js: JetStreamContext, nats_server: NatsServer, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Bed]:  # fmt: skip
    monkeypatch.setattr(app, "_LOOK", 0.02)
    monkeypatch.setattr(text, "language", lru_cache(text.language))  # all of these runs say the same
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    made = Bed(Settings(home=tmp_path / "home", nats_url=nats_server.url, http_port=0, database_url=url), js)
    yield made
    faults.set_hook(None)
    made.close()


async def test_a_change_is_told_once_in_a_sentence_and_can_be_read(bed: Bed) -> None:
    bed.log.add_days(FIRST, 28, each=10, hand_offs=1)
    bed.log.add_days(DAY, 1, each=40, hand_offs=20)
    await bed.judged()
    ((event, alert),) = await bed.alerts()
    assert event == "raised"
    assert (alert.rule, alert.severity, alert.agent, alert.mode) == ("drift", "ticket", "desk", "live")
    assert alert.title == (
        "Agent desk: hand-offs rose from 10 % to 50 % of runs (against the 28 days before; sudden, since 2026-11-21)"
    )
    assert (alert.value, alert.limit, alert.dedupe_key) == (0.5, 0.1, "drift/hand_offs/live/desk")
    assert alert.evidence == "midwatch drift --agent desk --date 2026-11-21"
    (finding,) = await bed.read(store.read_findings, agent="desk", day="2026-11-21")
    assert finding["sentence"] == "Hand-offs rose from 10 % to 50 % of runs"
    assert (finding["recent_runs"], finding["baseline_runs"], finding["against"]) == (40, 280, "days")
    assert finding["runs"] == [f"run-1121-{n}" for n in (19, 18, 17, 16, 15)]
    assert finding["q"] < 1e-6
    assert await bed.read(store.read_findings, agent="other", day="2026-11-21") == []


async def test_a_day_judged_again_changes_nothing(bed: Bed) -> None:
    bed.log.add_days(FIRST, 28, each=10, hand_offs=1)
    bed.log.add_days(DAY, 1, each=40, hand_offs=20)
    await bed.judged()
    first = await bed.read(store.read_findings), await bed.alerts(), await bed.read(store.standing)
    bed.log.add_days(DAY + timedelta(hours=8), 1, each=40, hand_offs=0, prefix="late")
    await bed.database.write(lambda conn: conn.exec_driver_sql("DELETE FROM drift_days"))
    await bed.judged()
    assert (await bed.read(store.read_findings), await bed.alerts(), await bed.read(store.standing)) == first


@pytest.mark.parametrize(
    "point", ["drift.read", "drift.saved", "outbox.read", "outbox.published", "drift.published", "drift.day_judged"]
)
async def test_a_crash_between_any_two_steps_tells_each_cause_once(bed: Bed, point: str) -> None:
    bed.log.add_days(FIRST, 28, each=5, hand_offs=0)
    bed.log.add_days(DAY, 1, each=30, hand_offs=15)

    def die(reached: str) -> None:
        if reached == point:
            faults.set_hook(None)
            raise Crash

    async with bed.running() as task:
        faults.set_hook(die)
        with pytest.raises(Crash):
            await asyncio.wait_for(task, 30)
    await bed.judged()
    assert [(event, alert.dedupe_key) for event, alert in await bed.alerts()] == [
        ("raised", "drift/hand_offs/live/desk")
    ]
    assert len(await bed.read(store.read_findings)) == 1


async def test_what_is_over_is_resolved_and_days_that_were_missed_are_judged_in_order(bed: Bed) -> None:
    bed.log.add_days(FIRST, 28, each=10, hand_offs=1)
    bed.log.add_days(DAY, 1, each=40, hand_offs=20)
    await bed.judged()
    bed.log.add_days(DAY + timedelta(days=1), 3, each=30, hand_offs=3)
    bed.clock.now = NEXT_MORNING + timedelta(days=3)
    await bed.judged("2026-11-24")
    days = await bed.database.read(lambda conn: conn.exec_driver_sql("SELECT day FROM drift_days ORDER BY day").all())
    assert [day for (day,) in days] == ["2026-11-21", "2026-11-22", "2026-11-23", "2026-11-24"]
    (_, raised), (event, resolved) = await bed.alerts()
    assert (event, resolved.alert_id) == ("resolved", raised.alert_id)
    assert resolved.reason == "on 2026-11-22 the runs differ no more"


async def test_too_few_runs_say_nothing_and_end_no_alert(bed: Bed) -> None:
    bed.log.add_days(FIRST, 28, each=10, hand_offs=1)
    bed.log.add_days(DAY, 1, each=40, hand_offs=20)
    await bed.judged()
    bed.log.add_days(DAY + timedelta(days=8), 1, each=12, hand_offs=1)
    bed.clock.now = NEXT_MORNING + timedelta(days=8)
    await bed.judged("2026-11-29")
    (row,) = await bed.read(store.read_judgements, agent="desk", day="2026-11-29")
    assert (row["phase"], row["recent_runs"], row["least"]) == ("inconclusive", 12, 20)
    assert [event for event, _ in await bed.alerts()] == ["raised"]


async def test_an_alert_ends_when_nothing_runs_any_more(bed: Bed) -> None:
    bed.log.add_days(FIRST, 28, each=5, hand_offs=0)
    bed.log.add_days(DAY, 1, each=30, hand_offs=15)
    await bed.judged()
    bed.clock.now = NEXT_MORNING + timedelta(days=60)
    await bed.judged("2027-01-20")
    (_, (event, resolved)) = await bed.alerts()
    assert (event, resolved.reason) == ("resolved", "there are no runs left to judge by")


async def test_modes_are_judged_apart_and_nobody_is_told_of_a_replay(bed: Bed) -> None:
    for mode in ("live", "shadow", "replay", "eval", "drill"):
        bed.log.add_days(FIRST, 28, each=5, hand_offs=0, mode=mode, agent=f"{mode}-desk", prefix=mode)
        bed.log.add_days(DAY, 1, each=30, hand_offs=15 * (mode != "live"), mode=mode, agent=f"{mode}-desk", prefix=mode)
    bed.log.add_days(DAY, 1, each=30, hand_offs=30, mode="shadow", agent="live-desk", prefix="trial")
    await bed.judged()
    assert [(alert.agent, alert.severity, alert.mode) for _, alert in await bed.alerts()] == [
        ("shadow-desk", "info", "shadow")
    ]
    (found,) = await bed.read(store.read_findings, mode="replay")
    assert found["agent"] == "replay-desk"
    assert {row["agent"] for row in await bed.read(store.read_judgements)} == {"live-desk"}


async def test_nothing_is_judged_until_there_is_a_log_and_the_logger_has_read_the_stream(bed: Bed) -> None:
    bed.log.add_days(FIRST, 28, each=5, hand_offs=0)
    bed.log.add_days(DAY, 1, each=30, hand_offs=15)
    for n in range(handlers.BEHIND + 1):
        await publish(bed.js, "said", run_id=f"unread-{n}", by="agent", text="x")
    looked = asyncio.Event()
    waits = handlers.Judge._waits

    def hear(self: handlers.Judge, why: str) -> bool:
        looked.set()
        return waits(self, why)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(handlers.Judge, "_waits", hear)
        async with bed.running():
            await asyncio.wait_for(looked.wait(), 20)
            assert not await bed.is_judged("2026-11-21")
            await bed.js.purge_stream(subjects.RUNS)
            await eventually(lambda: bed.is_judged("2026-11-21"), within=30)
    assert len(await bed.alerts()) == 1


async def test_what_the_log_no_longer_has_is_forgotten(bed: Bed) -> None:
    bed.log.add_days(FIRST, 28, each=5, hand_offs=0)
    await bed.judged()
    assert len(await bed.read(store.facts, agent="desk", run_ids=["run-1024-0", "run-1024-1"])) == 2
    for table in ("logger_runs", "logger_events"):
        bed.log.database.write_now(
            lambda conn, t=table: conn.exec_driver_sql(f"DELETE FROM {t} WHERE run_id = 'run-1024-0'")
        )
    bed.clock.now += timedelta(days=1)
    await bed.judged("2026-11-22")
    assert list(await bed.read(store.facts, agent="desk", run_ids=["run-1024-0", "run-1024-1"])) == ["run-1024-1"]


async def test_names_that_agents_made_up_cannot_disturb_a_title(bed: Bed) -> None:
    evil = "\x1b[2J\u202e<script>\n@everyone " + "x" * 5000 + "\0"
    bed.log.add_days(FIRST, 28, each=5)
    runs = [log_run(f"evil-{n}", DAY + timedelta(minutes=n), tools=(evil, *[f"t-{n}-{k}" for k in range(300)]))
            for n in range(30)]  # fmt: skip
    bed.log.add(runs)
    await bed.judged()
    titles = [alert.title for _, alert in await bed.alerts() if alert.dedupe_key.startswith("drift/tools")]
    (title,) = titles
    assert title.isprintable()
    assert len(title) <= 280
    assert "is new: [2J <script> @everyone xxxxx" in title


async def test_an_agent_that_cannot_be_judged_keeps_nobody_else_from_it(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for agent in ("a-broken", "desk"):
        bed.log.add_days(FIRST, 28, each=2, hand_offs=0, agent=agent, prefix=agent)
        bed.log.add_days(DAY, 1, each=30, hand_offs=15, agent=agent, prefix=agent)
    judge = handlers.judge

    def broken(comparisons: Any, policy: Any) -> Any:
        if comparisons[0].recent[0].agent == "a-broken":
            raise ValueError("a run that nobody thought of")
        return judge(comparisons, policy)

    monkeypatch.setattr(handlers, "judge", broken)
    await bed.judged()
    assert [alert.agent for _, alert in await bed.alerts()] == ["desk"]


async def test_there_is_no_log_yet(js: JetStreamContext, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "_LOOK", 0.02)
    said = asyncio.Event()
    waits = handlers.Judge._waits

    def hear(self: handlers.Judge, why: str) -> bool:
        if "There is no database" in why:
            said.set()
        return waits(self, why)

    monkeypatch.setattr(handlers.Judge, "_waits", hear)
    running = asyncio.Event()
    task = asyncio.create_task(run_services([app.SERVICE], settings, started=lambda _: running.set(), restart=False))
    await asyncio.wait_for(running.wait(), 20)
    await asyncio.wait_for(said.wait(), 20)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
