"""kill-switch as a whole: a real nats-server, a real database, instances made by hand."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import nats
import pytest
from nats.js import JetStreamContext

from helpers import all_read, eventually
from kill_switch_helpers import (
    QUICK,
    WHY,
    Crash,
    Pod,
    heard,
    kill_switch,
    publish,
    put,
    said,
    states,
    writes_read,
)
from midwatch.contracts import subjects
from midwatch.runtime import faults, topology
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Switchboard


@pytest.fixture
def board(js: JetStreamContext) -> Switchboard:
    return Switchboard(js)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def stored(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """Settings with each database in turn."""
    if request.param == "sqlite":
        return settings
    return settings.model_copy(update={"database_url": request.getfixturevalue("postgres_url")})


@pytest.fixture
def no_faults() -> Iterator[None]:
    yield
    faults.set_hook(None)


async def test_a_halt_is_reported_contained_when_every_instance_has_applied_it(js, board, stored: Settings) -> None:
    first, second = Pod(js, "pod-1"), Pod(js, "pod-2")
    await first.say(runs_in_flight=["r1"])
    await second.say()
    async with kill_switch(stored):
        written = await board.halt_agent("desk", **WHY)
        await heard(js, "halted")
        await first.say({"agent.desk": written.revision}, draining=["r1"])
        await second.say({"agent.desk": written.revision})
        await asyncio.sleep(0.1)
        await heard(js, "halted")
        await first.say()
        halted, contained = await heard(js, "halted", "contained")
        assert (halted.key, halted.epoch, halted.record) == ("agent.desk", written.revision, written.record)
        assert contained.epoch == written.revision
        assert contained.requested_at == halted.written_at
        assert states(contained) == {"pod-1": "applied", "pod-2": "applied"}
        assert contained.seconds == max(one.seconds for one in contained.instances)
        await board.resume_agent("desk", reason="fixed", by="bob")
        resumed = (await heard(js, "halted", "contained", "resumed"))[-1]
        assert (resumed.record.state, resumed.record.by) == ("running", "bob")


async def test_who_has_not_confirmed_is_named_then_lapsed_and_contained_in_the_end(js, board, settings) -> None:
    awake, asleep = Pod(js, "awake"), Pod(js, "asleep", lease=1.2)
    await awake.say()
    await asleep.say()
    async with kill_switch(settings):
        written = await board.halt_fleet(**WHY)
        await awake.say({"fleet": written.revision})
        _, late = await heard(js, "halted", "unconfirmed")
        assert states(late) == {"awake": "applied", "asleep": "unconfirmed"}
        assert late.seconds is None
        lapsed = (await heard(js, "halted", "unconfirmed", "unconfirmed"))[-1]
        assert states(lapsed) == {"awake": "applied", "asleep": "lapsed"}
        await asleep.say({"fleet": written.revision})
        contained = (await heard(js, "halted", "unconfirmed", "unconfirmed", "contained"))[-1]
        assert states(contained) == {"awake": "applied", "asleep": "applied"}


async def test_an_instance_that_signed_off_is_not_waited_for(js, board, settings) -> None:
    pod = Pod(js)
    await pod.say(runs_in_flight=["r1"])
    async with kill_switch(settings):
        await board.halt_agent("desk", **WHY)
        await heard(js, "halted")
        await pod.say(leaving=True)
        assert states((await heard(js, "halted", "contained"))[-1]) == {"pod-1": "left"}


async def test_halts_made_while_it_was_dead_are_reported_afterwards_once(js, board, stored: Settings) -> None:
    async with kill_switch(stored):
        await eventually(lambda: writes_read(js))
    await board.halt_agent("desk", **WHY)
    await board.resume_agent("desk", **WHY)
    await board.halt_run("desk", "r1", **WHY)
    await board.halt_run("desk", "r2", **WHY)
    await put(js, "fleet", b'{"state":"halted"}')
    everything = ["halted", "resumed", "halted", "halted", "halted"]
    for _ in range(2):
        async with kill_switch(stored):
            await eventually(lambda: writes_read(js))
            await eventually(lambda: _contained(js, 3))
    spoken = [event for event, _ in await said(js)]
    assert [event for event in spoken if event != "contained"] == everything
    assert spoken.count("contained") == 3


async def _contained(js: JetStreamContext, count: int) -> bool:
    return [event for event, _ in await said(js)].count("contained") == count


async def test_a_newer_write_that_is_delivered_first_does_not_overtake_an_older(js, board, settings) -> None:
    async with kill_switch(settings):
        await eventually(lambda: writes_read(js))
    await board.halt_agent("desk", **WHY)
    # As after a crash: the older write is given to a process that dies, and comes back only after its time is over.
    pull = await js.pull_subscribe_bind(
        subjects.KILL_SWITCH_WRITES, stream=subjects.key_stream(subjects.SWITCH), durable=subjects.KILL_SWITCH_WRITES
    )
    await pull.fetch(1)
    await pull.unsubscribe()
    await board.resume_agent("desk", **WHY)
    async with kill_switch(settings):
        await heard(js, "halted", "resumed")


@pytest.mark.parametrize(("value", "headers"), [(b"garbage", None), (b"", {"KV-Operation": "DEL"})])
async def test_a_key_that_is_unreadable_or_deleted_is_reported_halted(js, settings, value, headers) -> None:
    async with kill_switch(settings):
        await put(js, "agent.desk", value, headers)
        halted, _ = await heard(js, "halted", "contained")
        assert (halted.key, halted.record.state) == ("agent.desk", "halted")


async def test_a_halt_that_was_lifted_is_not_contained_later(js, board, settings) -> None:
    pod = Pod(js)
    await pod.say(runs_in_flight=["r1"])
    async with kill_switch(settings):
        await board.halt_agent("desk", **WHY)
        resumed = await board.resume_agent("desk", **WHY)
        await heard(js, "halted", "resumed")
        await pod.say({"agent.desk": resumed.revision})
        await asyncio.sleep(QUICK.limit.total_seconds() + 0.3)
        await heard(js, "halted", "resumed")


async def test_activity_after_containment_revokes_the_proof_and_pages_once(js, board, settings) -> None:
    async with kill_switch(settings):
        await board.halt_agent("desk", **WHY)
        await heard(js, "halted", "contained")
        await publish(js, "tool_called", seq=1, time=datetime.now(UTC) - timedelta(seconds=60))  # late, from before
        await publish(js, "model_called", seq=2, mode="replay", time=datetime.now(UTC) + timedelta(seconds=5))
        await publish(js, "model_called", "r9", agent="other", time=datetime.now(UTC) + timedelta(seconds=5))
        await asyncio.sleep(QUICK.grace.total_seconds() + 0.1)
        await eventually(lambda: all_read(js, subjects.RUNS, subjects.KILL_SWITCH))
        await heard(js, "halted", "contained")
        for seq in (3, 4):
            await publish(js, "tool_called", tool="issue_refund", seq=seq)
        revoked = (await heard(js, "halted", "contained", "revoked"))[-1]
        assert "issue_refund" in revoked.reason
        ((event, alert),) = await eventually(lambda: said(js, "alert"))
        assert (event, alert.rule, alert.severity) == ("raised", "activity_after_containment", "page")
        assert (alert.agent, alert.run_id, alert.seq) == ("desk", "r1", 3)
        await eventually(lambda: all_read(js, subjects.RUNS, subjects.KILL_SWITCH))
        assert len(await said(js, "alert")) == 1


async def test_a_vanished_instance_is_known_after_both_kill_switch_and_nats_restarted(
    nats_server: NatsServer, settings: Settings
) -> None:
    async with _client(nats_server) as js:
        await topology.apply(js, settings)
        await Pod(js, "gone", lease=0.5).say()
        async with kill_switch(settings):
            await asyncio.sleep(2.3)  # what is known is saved each two seconds
    await nats_server.stop()
    await nats_server.restart()
    async with _client(nats_server) as js:
        await topology.apply(js, settings)
        assert (await js.stream_info(subjects.PRESENCE)).state.messages == 0
        async with kill_switch(settings):
            await Switchboard(js).halt_agent("desk", **WHY)
            late = (await heard(js, "halted", "unconfirmed"))[-1]
            assert states(late) == {"gone": "lapsed"}


class _client:
    def __init__(self, server: NatsServer) -> None:
        self._server = server

    async def __aenter__(self) -> JetStreamContext:
        self._nc = await nats.connect(self._server.url)
        return self._nc.jetstream()

    async def __aexit__(self, *_: object) -> None:
        await self._nc.close()


async def test_runs_of_an_agent_without_presence_stand_in_the_way(js, board, settings) -> None:
    async with kill_switch(settings):
        await publish(js, "started")
        await eventually(lambda: all_read(js, subjects.RUNS, subjects.KILL_SWITCH))
        await board.halt_agent("desk", **WHY)
        late = (await heard(js, "halted", "unconfirmed"))[-1]
        assert [(one.agent, one.running) for one in late.instances] == [("desk", ["r1"])]
        await publish(js, "finished", seq=1)
        await heard(js, "halted", "unconfirmed", "contained")


async def test_a_halt_is_lifted_when_its_time_is_over_and_no_other(js, board, settings) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=0.5)
    async with kill_switch(settings):
        await board.halt_agent("desk", **WHY, expires_at=soon)
        await board.halt_tool("desk", "refund", **WHY, expires_at=soon)
        await board.halt_tool("desk", "refund", reason="for good", by="bob")
        await eventually(lambda: _resumed(js))
        (lifted,) = [data for event, data in await said(js) if event == "resumed"]
        assert (lifted.key, lifted.record.by) == ("agent.desk", "kill-switch")
        records = (await board.read("tools.desk")).map()
        assert records is not None
        assert records["refund"].state == "halted"


async def _resumed(js: JetStreamContext) -> bool:
    return "resumed" in [event for event, _ in await said(js)]


@pytest.mark.parametrize("writes", [1, 9])
async def test_a_bucket_made_anew_is_followed_from_its_start(js, board, settings, writes: int) -> None:
    async with kill_switch(settings):
        for _ in range(2):
            await board.halt_agent("desk", **WHY)
            await board.resume_agent("desk", **WHY)
        await eventually(lambda: writes_read(js))
        await _make_anew(js, settings)
        await board.halt_agent("desk", reason="while it ran", by="ann")
        await eventually(lambda: _halted(js, "while it ran"))
    await _make_anew(js, settings)
    for number in range(writes):
        await board.halt_run("desk", f"r{number}", reason=f"while it was dead {number}", by="ann")
    async with kill_switch(settings):
        for number in range(writes):
            await eventually(partial(_halted, js, f"while it was dead {number}"))


async def _make_anew(js: JetStreamContext, settings: Settings) -> None:
    await js.delete_stream(subjects.key_stream(subjects.SWITCH))
    await topology.apply(js, settings)


async def _halted(js: JetStreamContext, reason: str) -> bool:
    return any(event == "halted" and data.record.reason == reason for event, data in await said(js))


@pytest.mark.parametrize(
    "point",
    [
        "delivery.received", "kill_switch.writes_saved", "delivery.handled", "outbox.read", "outbox.published",
        "outbox.deleted", "delivery.drained", "delivery.acked", "kill_switch.report_saved",
    ],
)  # fmt: skip
async def test_a_crash_at_any_point_loses_and_doubles_no_report(js, board, settings, no_faults, point: str) -> None:
    pod, crashed = Pod(js), False

    def hook(reached: str) -> None:
        nonlocal crashed
        if reached == point and not crashed:
            crashed = True
            raise Crash

    await pod.say(runs_in_flight=["r1"])
    async with kill_switch(settings):
        await eventually(lambda: writes_read(js))
    faults.set_hook(hook)
    async with kill_switch(settings) as task:
        written = await board.halt_agent("desk", **WHY)
        await pod.say({"agent.desk": written.revision})
        with pytest.raises(Crash):
            await asyncio.wait_for(task, 20)
    async with kill_switch(settings):
        await heard(js, "halted", "contained")
        await board.resume_agent("desk", **WHY)
        await heard(js, "halted", "contained", "resumed")
