"""The loop rules in the service as it is deployed, and what they remember across processes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from nats.js import JetStreamContext

from helpers import eventually
from kill_switch_helpers import said
from logged import publish, received
from midwatch.contracts import control, subjects
from midwatch.contracts.control import Card, LoopRule, RepeatRule, ToolRule, VelocityRule
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.delivery import Received, RunReader
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Switchboard
from midwatch_services.cost_watchdog import policy
from midwatch_services.cost_watchdog.handlers import Watchdog
from watchdog_helpers import all_read, crash_at, watchdog

WRITE: dict[str, Any] = {
    "tool": "issue_refund", "kind": "write", "arguments": {"order": "A-1", "usd": 20}, "result": "refunded"
}  # fmt: skip
ANSWER = "I am still looking into your order."


def card(**loops: Any) -> Card:
    return Card(agent="desk", owner="o", purpose="p", can=["c"], loops=LoopRule(**loops))


# The whole service


async def apply(js: JetStreamContext, said_by: Card) -> None:
    await js.publish(subjects.key_subject(subjects.AGENTS, "desk"), control.encode(said_by))


async def alerts(js: JetStreamContext, event: str = "raised") -> list[Any]:
    return [data for name, data in await said(js, "alert") if name == event]


async def halted(js: JetStreamContext) -> dict[str, str]:
    """Runs that are halted, each with by whom."""
    records = (await Switchboard(js).read(subjects.runs_key("desk"))).map() or {}
    return {run_id: record.by for run_id, record in records.items() if record.state == "halted"}


async def test_a_write_for_the_fourth_time_is_halted_on_the_switch_and_paged(js, settings):
    async with watchdog(settings):
        for seq in range(4):
            await publish(js, "tool_called", seq=seq, **{**WRITE, "result": f"refunded, number {seq}"})
        await eventually(lambda: all_read(js))
        assert await halted(js) == {"r-1": "cost-watchdog/loop_writes"}
        (alert,) = await alerts(js)
        assert (alert.rule, alert.severity, alert.action_taken) == ("loop_writes", "page", "halted_run")
        assert (alert.value, alert.limit, alert.tool, alert.first_seq, alert.seq) == (4, 4, "issue_refund", 0, 3)
        assert alert.evidence == "midwatch show r-1"


async def test_a_text_said_again_is_told_and_halts_nothing(js, settings):
    async with watchdog(settings):
        for seq in range(4):
            await publish(js, "said", seq=seq, by="agent", text=ANSWER)
        await publish(js, "finished", seq=4, resolution="resolved", output=ANSWER)
        await eventually(lambda: all_read(js))
        assert await halted(js) == {}
        (alert,) = await alerts(js)
        assert (alert.rule, alert.severity, alert.action_taken) == ("loop_text", "ticket", "would_halt_run")
        assert ANSWER not in alert.title
        (end,) = await alerts(js, "resolved")
        assert (end.alert_id, end.repeats) == (alert.alert_id, 1)


async def test_a_rule_that_the_card_lets_act_halts(js, settings):
    await apply(js, card(text=RepeatRule(halt_at=2, mode="act")))
    async with watchdog(settings):
        for seq in range(2):
            await publish(js, "said", seq=seq, by="agent", text=ANSWER)
        await eventually(lambda: all_read(js))
        assert await halted(js) == {"r-1": "cost-watchdog/loop_text"}


async def test_a_silent_run_is_reported_and_its_next_event_ends_that(js, settings, monkeypatch):
    monkeypatch.setattr(policy, "GAP", timedelta(seconds=0.1))
    await apply(js, card(stalled=0.2))
    async with watchdog(settings):
        await publish(js, "started", seq=0, input="Where is it?")
        await publish(js, "started", seq=0, run_id="r-2", input="Where is it?")
        await publish(js, "finished", seq=1, run_id="r-2", resolution="resolved")
        (alert,) = await eventually(lambda: alerts(js))
        assert (alert.rule, alert.run_id, alert.severity, alert.action_taken) == ("stalled", "r-1", "ticket", "none")
        await publish(js, "said", seq=1, by="customer", text="Hello?")
        (end,) = await eventually(lambda: alerts(js, "resolved"))
        assert (end.alert_id, end.reason) == (alert.alert_id, "the run goes on")
        assert await halted(js) == {}


@pytest.mark.parametrize(
    "point", ["cost_watchdog.saved", "delivery.handled", "cost_watchdog.halted", "outbox.published", "delivery.acked"]
)
async def test_a_crash_loses_and_doubles_nothing_of_a_rule(js, settings, point):
    for seq in range(6):
        await publish(js, "tool_called", seq=seq, **{**WRITE, "result": f"refunded, number {seq}"})
    await crash_at(js, settings, point)
    async with watchdog(settings):
        await eventually(lambda: all_read(js))
        await eventually(lambda: alerts(js))
        assert await halted(js) == {"r-1": "cost-watchdog/loop_writes"}
        await publish(js, "finished", seq=6, resolution="halted")
        (end,) = await eventually(lambda: alerts(js, "resolved"))
        (alert,) = await alerts(js)
        assert (end.alert_id, end.repeats, alert.value) == (alert.alert_id, 2, 4)


async def test_a_reader_is_behind_until_what_it_was_sent_is_handled(nc, js):
    goes_on, at_work = asyncio.Event(), asyncio.Event()

    async def handle(_: list[Received]) -> None:
        at_work.set()
        await goes_on.wait()

    reader: RunReader = RunReader(
        nc, js, stream=subjects.RUNS, consumer=subjects.LOGGER, service="t", handle=handle, batch=1
    )
    await publish(js, "started", seq=0, input="Where is it?")
    task = asyncio.create_task(reader.run())
    await at_work.wait()
    assert not reader.caught_up()
    goes_on.set()
    await eventually(reader.caught_up)
    reader.error = "cannot read"
    assert not reader.caught_up()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


# What is remembered; the clock is the test's


class Cards:
    """Stands in for the card book: every agent has this card."""

    def __init__(self) -> None:
        self.card = card()

    def get(self, agent: str) -> Card:
        return self.card


class World:
    """One database, one server, one clock, and as many watchdogs as a test asks for, one after another."""

    def __init__(self, js: JetStreamContext, url: str) -> None:
        self.js, self.url, self.cards = js, url, Cards()
        self.now = datetime.now(UTC)
        self.databases: list[Database] = []

    async def watchdog(self) -> Watchdog:
        database = Database(self.url, name=subjects.COST_WATCHDOG)
        self.databases.append(database)
        cards: Any = self.cards
        made = Watchdog(database, self.js, cards, lambda: self.now, timedelta(days=30))
        await made.load()
        return made

    async def say(self, made: Watchdog, event: str, seq: int, run_id: str = "r-1", **fields: Any) -> None:
        id = f"{run_id}-{seq}"
        await made.on_events([received(event, id=id, seq=seq, run_id=run_id, at=self.now, **fields)])
        await made.outbox.drain()

    async def tick(self, made: Watchdog, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        await made.on_tick()

    async def rules(self) -> list[str]:
        return [alert.rule for alert in await alerts(self.js)]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def world(request: pytest.FixtureRequest, settings: Settings, js: JetStreamContext) -> AsyncIterator[World]:
    if request.param == "postgres":
        settings = settings.model_copy(update={"database_url": request.getfixturevalue("postgres_url")})
    world = World(js, settings.database_for(subjects.COST_WATCHDOG))
    migrate(world.url, subjects.COST_WATCHDOG)
    yield world
    for database in world.databases:
        database.close()


async def test_what_a_rule_has_counted_survives_a_restart(world):
    world.cards.card = card(cycle=RepeatRule(halt_at=2, mode="act"), hand_offs=RepeatRule(halt_at=2, mode="act"))
    made = await world.watchdog()
    for seq in range(3):
        await world.say(made, "tool_called", seq, "writes", **WRITE)
        await world.say(made, "tool_called", seq, "cycle", tool=f"t{seq % 2}", result=seq)
    await world.say(made, "handed_off", 0, "hands-1", ticket="T-1", to="human", reason="r")
    assert await halted(world.js) == {}
    made = await world.watchdog()
    await world.say(made, "tool_called", 3, "writes", **WRITE)
    await world.say(made, "tool_called", 3, "cycle", tool="t1", result=3)
    await world.say(made, "handed_off", 0, "hands-2", ticket="T-1", to="human", reason="r")
    assert await halted(world.js) == {
        "writes": "cost-watchdog/loop_writes", "cycle": "cost-watchdog/loop_cycle",
        "hands-2": "cost-watchdog/loop_hand_offs",
    }  # fmt: skip


async def test_what_is_usual_survives_a_restart(world):
    world.cards.card = card(velocity=VelocityRule(mode="act"))
    made = await world.watchdog()
    used = {"model": "of-nobody", "usage": {"input_tokens": 900, "output_tokens": 100}}
    for number in range(20):
        await world.say(made, "model_called", 0, f"usual-{number}", **used)
        await world.say(made, "finished", 1, f"usual-{number}", resolution="resolved")
    made = await world.watchdog()
    for seq in range(5):
        assert await halted(world.js) == {}
        await world.say(made, "model_called", seq, "fast", **used)
    assert await halted(world.js) == {"fast": "cost-watchdog/velocity"}


async def test_what_is_usual_is_learnt_once_where_events_come_again(world):
    made = await world.watchdog()
    for _ in range(3):
        await world.say(made, "model_called", 0, model="m", cost_usd="0.01")
        await world.say(made, "finished", 1, resolution="resolved")
    query = sa.text("SELECT key, state FROM cost_watchdog_usual")
    rows = await world.databases[0].read(lambda conn: conn.execute(query).all())
    assert [key for key, _ in rows] == ["live/desk/"]


async def test_an_hour_of_downtime_stalls_no_run_of_which_there_is_news(world):
    await world.say(await world.watchdog(), "started", 0, input="Where is it?")
    world.now += timedelta(hours=1)
    made = await world.watchdog()
    await world.tick(made, 1)
    assert await world.rules() == []
    await world.say(made, "said", 1, by="agent", text=ANSWER)
    await world.tick(made, 60)
    assert await world.rules() == []


async def test_a_run_that_is_silent_after_a_restart_as_well_is_reported(world):
    await world.say(await world.watchdog(), "started", 0, input="Where is it?")
    world.now += timedelta(hours=1)
    made = await world.watchdog()
    await world.tick(made, 1)
    await world.tick(made, 5)
    assert await world.rules() == ["stalled"]
    await world.tick(made, 3600)
    assert await world.rules() == ["stalled"]


async def test_while_events_wait_to_be_read_no_run_has_stalled(world):
    made = await world.watchdog()
    await world.say(made, "started", 0, input="Where is it?")
    made.caught_up = lambda: False
    await world.tick(made, 7200)
    await world.tick(made, 10)
    made.caught_up = lambda: True
    await world.tick(made, 1)
    await world.tick(made, 4)
    assert await world.rules() == []
    await world.tick(made, 1)
    assert await world.rules() == ["stalled"]


async def test_what_is_reported_is_looked_up_in_an_index_and_no_more_once_it_was(world):
    made = await world.watchdog()
    await world.tick(made, 0)
    for number in range(50):
        await world.say(made, "started", 0, f"r-{number}", input="Where is it?")
    await world.tick(made, 1800)
    assert await world.rules() == ["stalled"] * 50
    left = sa.text("SELECT count(*) FROM cost_watchdog_runs WHERE stalls_at IS NOT NULL")
    assert await world.databases[0].read(lambda conn: conn.execute(left).scalar_one()) == 0
    if world.url.startswith("sqlite"):
        plan = sa.text("EXPLAIN QUERY PLAN SELECT key FROM cost_watchdog_runs WHERE stalls_at <= 1.0")
        (step,) = await world.databases[0].read(lambda conn: conn.execute(plan).all())
        assert "USING INDEX cost_watchdog_stalls" in step.detail


async def test_what_is_open_of_a_run_that_is_forgotten_ends(world):
    made = await world.watchdog()
    await world.tick(made, 0)
    await world.say(made, "started", 0, input="Where is it?")
    await world.tick(made, 1800)
    (alert,) = await alerts(world.js)
    world.now += policy.KEEP_SILENT + timedelta(seconds=1)
    await made.prune()
    (end,) = await alerts(world.js, "resolved")
    assert (end.alert_id, end.reason) == (alert.alert_id, "nothing was heard of the run any more")


async def test_a_card_that_raises_the_limit_resolves_the_alert(world):
    made = await world.watchdog()
    for seq in range(4):
        await world.say(made, "tool_called", seq, **WRITE)
    await world.tick(made, 1)
    world.cards.card = card(writes=RepeatRule(halt_at=9, mode="act"))
    await world.tick(made, 1)
    assert [end.reason for end in await alerts(world.js, "resolved")] == ["the limit is now 9"]


async def test_a_database_of_the_former_release_is_taken_over_with_its_runs_in_flight(settings, js):
    world = World(js, settings.database_for(subjects.COST_WATCHDOG))
    migrate(world.url, subjects.COST_WATCHDOG)
    await world.watchdog()
    old = {"next_seq": 4, "streak": 3, "seen": [1], "alerts": {"loop_no_new_state.warn": ["a-1"]}}

    def back(conn: sa.Connection) -> None:
        for step in (
            "DROP TABLE cost_watchdog_erasure_outbox", "DROP TABLE cost_watchdog_erasure_applied",
            "DROP TABLE cost_watchdog_usual", "DROP INDEX cost_watchdog_stalls",
            "ALTER TABLE cost_watchdog_runs DROP COLUMN stalls_at",
            "UPDATE alembic_version_cost_watchdog SET version_num = 'cost_watchdog_models'",
        ):  # fmt: skip
            conn.execute(sa.text(step))
        conn.execute(
            sa.text("INSERT INTO cost_watchdog_runs VALUES ('live/desk/r-1', 'desk', 0, NULL, 1, :state)"),
            {"state": msgspec.msgpack.encode(old)},
        )

    await world.databases[0].write(back)
    migrate(world.url, subjects.COST_WATCHDOG)
    made = await world.watchdog()
    await world.tick(made, 0)
    for seq in range(4, 8):
        await world.say(made, "tool_called", seq, **{**WRITE, "result": seq})
    assert await halted(world.js) == {"r-1": "cost-watchdog/loop_writes"}
    await world.tick(made, 1800)
    assert "stalled" in await world.rules()
    world.databases[0].close()
    world.databases[1].close()


async def test_the_tools_that_a_card_calls_writes_are_watched(world):
    tools = {"pay": ToolRule(kind="write")}
    world.cards.card = Card(agent="desk", owner="o", purpose="p", can=["c"], tools=tools)
    made = await world.watchdog()
    for seq in range(4):
        await world.say(made, "tool_called", seq, tool="pay", result=f"paid {seq}")
    assert await halted(world.js) == {"r-1": "cost-watchdog/loop_writes"}
