"""The logger on a real server and both databases: every acknowledged event in the log once."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext

from helpers import eventually
from logged import NOON, alert, envelope, publish
from midwatch.contracts import codec, reviews, subjects
from midwatch.contracts.envelope import utc_now
from midwatch.runtime import faults, telemetry
from midwatch.runtime.database import Database
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.service import run_services
from midwatch.runtime.settings import Settings
from midwatch_services.logger import store
from midwatch_services.logger.app import SERVICE
from midwatch_services.logger.reading_store import Wanted, find_runs


class Log:
    """The running service, and its log read from beside it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._task: asyncio.Task[None] | None = None
        self.database = Database(settings.database_for("logger"), name="test")

    async def start(self) -> None:
        running = asyncio.Event()
        self._task = asyncio.create_task(
            run_services([SERVICE], self._settings, started=lambda _: running.set(), restart=True)
        )
        await asyncio.wait_for(running.wait(), 20)

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def runs(self, **wanted: Any) -> list[dict[str, Any]]:
        return await self.database.read(lambda conn: store.read_runs(conn, **wanted))

    async def run(self, run_id: str = "r-1", *, events: int) -> dict[str, Any]:
        """The run, once so many of its events are in the log."""

        async def found() -> dict[str, Any] | None:
            return next((run for run in await self.runs(run_id=run_id) if run["events"] == events), None)

        run = await eventually(found, within=20)
        assert run is not None
        return run

    async def events(self, agent: str = "desk", run_id: str = "r-1") -> list[dict[str, Any]]:
        return await self.database.read(lambda conn: store.read_events(conn, agent, run_id))


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def log(
    request: pytest.FixtureRequest, js: JetStreamContext, nats_server: NatsServer, tmp_path: Path
) -> AsyncIterator[Log]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    made = Log(Settings(home=tmp_path / "home", nats_url=nats_server.url, http_port=0, database_url=url))
    await made.start()
    yield made
    faults.set_hook(None)
    await made.stop()
    made.database.close()


async def test_a_run_can_be_read_as_it_was(js: JetStreamContext, log: Log) -> None:
    await publish(js, "started", input="Where is my order?", ticket="T-1", at=NOON)
    await publish(js, "said", seq=1, by="customer", text="Where is my order?")
    await publish(js, "model_called", seq=2, model="m", cost_usd="0.05", usage={"input_tokens": 4, "output_tokens": 1})
    await publish(js, "tool_called", seq=3, tool="t", error="not found")
    await publish(js, "finished", seq=4, resolution="resolved", output="On its way", at=NOON + timedelta(seconds=2))
    run = await log.run(events=5)
    wanted = {
        "run_id": "r-1", "agent": "desk", "version": "1", "ticket": "T-1", "mode": "live", "resolution": "resolved",
        "started_at": "2026-11-22T12:00:00.000000Z", "ended_at": "2026-11-22T12:00:02.000000Z", "latency_ms": 2000.0,
        "input": "Where is my order?", "output": "On its way", "cost_usd": "0.05", "cost_basis": "reported",
        "input_tokens": 4, "output_tokens": 1, "model_calls": 1, "tool_calls": 1, "tool_errors": 1, "messages": 1,
        "halted_by": None,
    }  # fmt: skip
    assert {name: run[name] for name in wanted} == wanted
    assert [event["event"] for event in await log.events()] == [
        "started", "said", "model_called", "tool_called", "finished",
    ]  # fmt: skip


async def test_late_and_repeated_events_change_nothing_but_what_they_say(js: JetStreamContext, log: Log) -> None:
    await publish(js, "finished", seq=2, resolution="resolved")
    await publish(js, "said", seq=1, by="agent", text="x", id="said-1")
    assert (await log.run(events=2))["messages"] == 1
    # The server knows the id for two minutes only: without it, the repeat reaches the logger.
    await js.publish(
        subjects.run("desk", "said"), codec.encode(envelope("said", seq=1, by="agent", text="x", id="said-1"))
    )
    await publish(js, "started", input="late")
    run = await log.run(events=3)
    assert (run["messages"], run["input"], run["resolution"]) == (1, "late", "resolved")


async def test_the_same_id_from_two_agents_is_two_events(js: JetStreamContext, log: Log) -> None:
    for agent in ("desk", "other"):
        body = codec.encode(envelope("said", by="agent", text="x", id="same", agent=agent))
        await js.publish(subjects.run(agent, "said"), body)
    await eventually(lambda: _has(log, 2))
    assert {run["agent"] for run in await log.runs()} == {"desk", "other"}


async def _has(log: Log, runs: int) -> bool:
    return len(await log.runs()) == runs


async def test_a_field_that_a_database_cannot_hold_is_kept_readable(js: JetStreamContext, log: Log) -> None:
    await publish(
        js, "started", input="a\0b \ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"), ticket="T\0"
    )
    run = await log.run(events=1)
    assert (run["ticket"], run["input"]) == ("T\ufffd", "a\0b 😀")


async def test_a_large_field_within_the_limit_is_kept_whole(js: JetStreamContext, log: Log) -> None:
    await publish(js, "started", input="x" * 900_000)
    assert len((await log.run(events=1))["input"]) == 900_000


async def test_a_clock_an_hour_off_is_noted_and_logged(js: JetStreamContext, log: Log) -> None:
    now = utc_now()
    await publish(js, "started", input="x", at=now - timedelta(hours=1))
    await publish(js, "said", seq=1, by="agent", text="x", at=now + timedelta(hours=1))
    await publish(js, "said", seq=2, by="agent", text="x", at=now)
    await log.run(events=3)
    notes = [event["note"] for event in await log.events()]
    assert notes[0].startswith("clock 3600 s behind the server")
    assert notes[1].startswith(("clock 3600 s ahead", "clock 3599 s ahead"))
    assert notes[2] is None


async def test_a_run_can_be_searched_a_moment_after_it_ended(js: JetStreamContext, log: Log) -> None:
    await log.start()
    await publish(js, "started", input="Where is my parcel?")
    await publish(js, "finished", seq=1, resolution="resolved", output="It is on its way")

    async def found() -> list[dict[str, Any]]:
        some = await log.database.read(lambda conn: find_runs(conn, Wanted(text="parcel way")))
        return [run for run in some if run["resolution"] == "resolved"]

    [run] = await eventually(found, within=20)
    assert run["run_id"] == "r-1"
    assert b'midwatch_index_lag_seconds{service="logger"} 0.0' in telemetry.metrics("logger")
    agreed = reviews.ReviewAgreed(run_id="r-1", agent="desk", verdict="fail", by=["anna"])
    body = codec.encode(codec.envelope("review", "agreed", agreed, source="/services/reviewer-sampler"))
    await js.publish(subjects.review("desk", "agreed"), body)

    async def with_verdict() -> list[dict[str, Any]]:
        return await log.database.read(lambda conn: find_runs(conn, Wanted(text="parcel", verdict="fail")))

    assert await eventually(with_verdict, within=20)


@pytest.mark.parametrize("order", ["raised first", "raised last"])
async def test_an_alert_is_folded_in_any_order(js: JetStreamContext, log: Log, order: str) -> None:
    events = [alert("raised"), alert("acknowledged", by="sam"), alert("resolved", reason="it ended", repeats=2)]
    names = ["raised", "acknowledged", "resolved"]
    steps = list(zip(names, events, strict=True))
    for name, made in steps if order == "raised first" else steps[::-1]:
        for _ in range(2):
            await js.publish(subjects.alert("desk", name), codec.encode(made))
    await js.publish(subjects.switch("desk", "halted"), b"{}")  # not the log's: passed over

    def read(conn: Any) -> list[dict[str, Any]]:
        return [one for one in store.read_alerts(conn) if one["acknowledged_by"] and one["resolved_at"]]

    [found] = await eventually(lambda: log.database.read(read))
    assert (found["rule"], found["acknowledged_by"], found["resolved_reason"], found["repeats"]) == (
        "budget_run", "sam", "it ended", 2,
    )  # fmt: skip
    assert await log.database.read(lambda conn: store.read_alerts(conn, is_open=True)) == []


async def test_a_run_names_the_rule_that_halted_it(js: JetStreamContext, log: Log) -> None:
    await publish(js, "started", input="x")
    await publish(js, "started", input="x", run_id="r-2")
    await publish(js, "finished", seq=1, resolution="halted", halted_by="sam", run_id="r-2")
    for number, (run_id, action) in enumerate((("r-1", "none"), ("r-1", "halted_run"), ("r-2", "halted_run"))):
        made = alert("raised", alert_id=f"a-{number}", run_id=run_id, action_taken=action, rule=f"rule_{number}")
        await js.publish(subjects.alert("desk", "raised"), codec.encode(made))

    async def by() -> Any:
        found = {run["run_id"]: run["halted_by"] for run in await log.runs()}
        assert found == {"r-1": "cost-watchdog/rule_1", "r-2": "sam"}
        return True

    assert await eventually(by)


async def test_a_bad_alert_is_dead_lettered_and_stops_nothing(js: JetStreamContext, log: Log) -> None:
    await js.publish(subjects.alert("desk", "raised"), b'{"specversion": "1.0"}')
    await js.publish(subjects.alert("desk", "raised"), codec.encode(alert("raised")))
    await eventually(lambda: log.database.read(store.read_alerts))
    letter = json.loads((await js.get_msg(subjects.DEAD, 1)).data or b"")
    assert (letter["service"], letter["reason"], letter["stream"]) == ("logger", "malformed", subjects.GOVERNANCE)


async def test_a_killed_server_loses_no_acknowledged_event(
    js: JetStreamContext, log: Log, nats_server: NatsServer
) -> None:
    await asyncio.gather(*(publish(js, "said", seq=n, by="agent", text="x") for n in range(200)))
    nats_server.kill()
    await nats_server.restart()
    await eventually(lambda: js._nc.is_connected)
    await asyncio.gather(*(publish(js, "said", seq=n, by="agent", text="x") for n in range(200, 300)))
    assert (await log.run(events=300))["messages"] == 300
    assert [event["seq"] for event in await log.events()] == list(range(300))


async def test_an_event_that_calls_itself_erased_is_told_and_judged_all_the_same(
    js: JetStreamContext, log: Log
) -> None:
    made = envelope("said", by="agent", text="I hide this")
    body = b'{"erased": "er-1", "content": "00", ' + codec.encode(made)[1:]
    await js.publish(subjects.run("desk", "said"), body.replace(b'{"erased": ', b'{"erased":'))

    def read(conn: Any) -> Any:
        return store.read_events(conn, "desk", "r-1"), store.count_events(conn, "desk", "live", "")

    async def told() -> bool:
        events, count = await log.database.read(read)
        assert [(event["data"].get("text"), "erased" in event) for event in events] == [("I hide this", False)]
        assert count == 1
        return True

    assert await eventually(told)
