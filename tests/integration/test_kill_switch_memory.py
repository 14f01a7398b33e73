"""What kill-switch keeps, forgets and takes out of the maps."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from helpers import eventually
from kill_switch_helpers import QUICK, WHY, Pod, said
from midwatch.contracts.codec import RunEvent
from midwatch.contracts.runs import Finished, Said, ToolCalled
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.delivery import Received
from midwatch.runtime.outbox import Outbox
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Switchboard
from midwatch_services.kill_switch import store
from midwatch_services.kill_switch.handlers import KillSwitch

LONG_AGO = datetime.now(UTC) - timedelta(hours=3)


@dataclass
class World:
    """kill-switch without its loops, at a time that the test sets."""

    js: JetStreamContext
    database: Database
    service: KillSwitch
    now: datetime

    async def take_writes(self) -> None:
        await self.service.catch_up_writes()
        await self.service.judge()

    async def hear(self, event: str, run_id: str, *, mode: str = "live", seq: int = 0) -> None:
        common: dict[str, Any] = {"run_id": run_id, "agent": "desk", "version": "1", "mode": mode, "seq": seq}
        data = {
            "finished": lambda: Finished(**common, resolution="halted"),
            "tool_called": lambda: ToolCalled(**common, tool="lookup"),
            "said": lambda: Said(**common, by="agent", text="…"),
        }[event]()
        of = RunEvent("desk", event, f"{run_id}-{seq}", self.now, "/agents/desk/pod-1", data)
        await self.service.on_runs([Received(of, b"", "", None, 1, 1, self.now, "")])


@pytest.fixture
async def world(nc: Client, js: JetStreamContext, settings: Settings) -> AsyncIterator[World]:
    url = settings.database_for("kill-switch")
    migrate(url, "kill-switch")
    database = Database(url)
    found = World(js, database, None, datetime.now(UTC))  # type: ignore[arg-type]
    found.service = _service(nc, found)
    await found.service.load()
    await found.service.follow_presence()
    yield found
    database.close()


def _service(nc: Client, world: World) -> KillSwitch:
    outbox = Outbox(world.database, store.PREFIX, world.js)
    return KillSwitch(nc, world.js, world.database, outbox, lambda: world.now, QUICK)


async def test_finished_runs_leave_the_map_and_nobody_is_told_of_a_resume(world: World) -> None:
    board = Switchboard(world.js)
    for run_id in ("r1", "r2"):
        await board.halt_run("desk", run_id, **WHY, at=LONG_AGO)
    await world.take_writes()
    await world.hear("finished", "r1")
    await world.service.save_known()
    world.now += timedelta(seconds=1)
    await world.service.prune()
    assert set((await board.read("runs.desk")).map() or ()) == {"r2"}
    await world.take_writes()
    assert "resumed" not in [event for event, _ in await said(world.js)]
    left = await world.database.read(store.open_halts)
    assert [halt.target for halt in left] == ["r2"]


async def test_a_run_that_finished_before_its_halt_was_read_is_known_to_have_finished(world: World) -> None:
    await world.hear("finished", "r1")
    await Switchboard(world.js).halt_run("desk", "r1", **WHY)
    await world.take_writes()
    (run,) = await world.database.read(store.map_runs)
    assert run.finished_at is not None


async def test_a_run_that_nobody_speaks_of_for_a_day_is_over(world: World) -> None:
    await Switchboard(world.js).halt_run("desk", "r1", **WHY)
    await Switchboard(world.js).halt_run("desk", "r2", **WHY)
    await world.take_writes()
    world.now += timedelta(hours=25)
    await Pod(world.js).say(runs_in_flight=["r2"])
    await world.service.follow_presence()
    await world.service.save_known()
    runs = await world.database.read(store.map_runs)
    assert {run.run_id: run.finished_at is not None for run in runs} == {"r1": True, "r2": False}


async def test_a_removed_record_of_a_run_still_open_is_a_resume(world: World) -> None:
    await Switchboard(world.js).halt_run("desk", "r1", **WHY)
    await world.take_writes()
    await world.js.publish("$KV.MIDWATCH_SWITCH.runs.desk", b"{}")
    await world.take_writes()
    assert [event for event, _ in await said(world.js)] == ["halted", "contained", "resumed"]


async def test_a_forgotten_instance_stands_in_nobodys_way(world: World) -> None:
    await Pod(world.js).say()
    await world.service.follow_presence()
    await world.service.save_known()
    world.now += timedelta(hours=25)
    await world.service.save_known()
    assert await world.database.read(store.instances) == []
    await Switchboard(world.js).halt_agent("desk", **WHY)
    await world.take_writes()
    assert [event for event, _ in await said(world.js)] == ["halted", "contained"]


async def test_what_is_known_survives_the_process(nc: Client, world: World) -> None:
    await Pod(world.js, "pod-7", agent="other").say({"fleet": 1}, runs_in_flight=["r9"])
    await world.service.follow_presence()
    await world.hear("said", "stray")
    await world.service.save_known()
    (instance,) = await world.database.read(store.instances)
    assert (instance.instance, instance.applied, instance.running) == ("pod-7", {"fleet": 1}, ("r9",))
    after = _service(nc, world)
    await after.load()
    await Switchboard(world.js).halt_fleet(**WHY)
    await after.catch_up_writes()
    await after.judge()
    world.now += timedelta(seconds=1)
    await after.judge()
    report = (await said(world.js))[-1][1]
    assert {(one.agent, *one.running) for one in report.instances} == {("other", "r9"), ("desk", "stray")}


async def test_a_stray_run_that_ended_is_forgotten_on_disk_too(world: World) -> None:
    await world.hear("said", "stray")
    await world.service.save_known()
    assert [run_id for _, run_id, _ in await world.database.read(store.strays)] == ["stray"]
    await world.hear("finished", "stray", seq=1)
    await world.service.save_known()
    assert await world.database.read(store.strays) == []


async def test_replayed_runs_move_nothing(world: World) -> None:
    await world.hear("said", "r1", mode="replay")
    await world.service.save_known()
    assert await world.database.read(store.strays) == []


@pytest.mark.parametrize("wrong", [timedelta(hours=-1), timedelta(hours=1)])
async def test_who_has_not_confirmed_is_named_in_time_whatever_the_clock_of_kill_switch_says(
    nc: Client, world: World, wrong: timedelta
) -> None:
    world.now += wrong - timedelta(hours=2)
    world.service = _service(nc, world)
    await world.service.follow_presence()
    world.now += timedelta(hours=2)
    await Pod(world.js).say(runs_in_flight=["r1"])
    await eventually(lambda: world.service.instances.of("desk"))
    await Switchboard(world.js).halt_agent("desk", **WHY)
    await world.take_writes()
    world.now += QUICK.limit / 2
    await world.service.judge()
    assert [event for event, _ in await said(world.js)] == ["halted"]
    world.now += QUICK.limit / 2
    await world.service.judge()
    assert [event for event, _ in await said(world.js)] == ["halted", "unconfirmed"]


async def test_a_proof_takes_time_though_the_clock_of_kill_switch_is_behind(nc: Client, world: World) -> None:
    world.now -= timedelta(hours=1)
    world.service = _service(nc, world)
    await world.service.follow_presence()
    pod = Pod(world.js)
    await pod.say(runs_in_flight=["r1"])
    await eventually(lambda: world.service.instances.of("desk"))
    written = await Switchboard(world.js).halt_agent("desk", **WHY)
    await world.take_writes()
    world.now += timedelta(seconds=0.25)
    await pod.say({"agent.desk": written.revision})
    await eventually(lambda: world.service.instances.of("desk")[0].applied)
    await world.service.judge()
    (_, contained) = (data for _, data in await said(world.js))
    assert contained.seconds == pytest.approx(0.25)
