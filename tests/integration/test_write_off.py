"""`midwatch switch write-off`: whoever is dead holds up no halt, whoever is alive undoes it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from nats.js import JetStreamContext

from helpers import eventually
from kill_switch_helpers import WHY, Pod, heard, kill_switch, states
from midwatch.contracts import subjects
from midwatch.contracts.control import Presence
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.switchboard import Switchboard
from midwatch_services.kill_switch import store
from midwatch_services.kill_switch.decide import Instance
from switch_commands import Run, rows, run_switch

DEAD = ("switch", "write-off", "pod-1", "--agent", "desk", "--reason", "its node is gone", "--by", "ann")


@pytest.fixture
def run(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("NATS_URL", nats_server.url)
    return run_switch


async def last(js: JetStreamContext) -> Presence:
    message = await js.get_last_msg(subjects.PRESENCE, subjects.presence("desk", "pod-1"))
    return msgspec.json.decode(message.data or b"", type=Presence)


async def written_off(run: Run) -> Any:
    """The write-off, once the instance's short lease has run out."""

    async def attempt() -> Any:
        result = await run(*DEAD)
        return result if result.exit_code == 0 else None

    return await eventually(attempt)


async def test_a_silent_instance_is_written_off_with_its_last_word(js, run: Run) -> None:
    await Pod(js, lease=0.1).say({"agent.desk": 7}, runs_in_flight=["r1"])
    result = await written_off(run)
    said = await last(js)
    assert "desk/pod-1: written off" in result.stdout
    assert (said.leaving, said.written_off_by, said.applied, said.runs_in_flight) == (
        True, "ann: its node is gone", {"agent.desk": 7}, ["r1"],
    )  # fmt: skip
    assert "pod-1" not in (await run("switch")).stdout
    assert "is written off already" in (await run(*DEAD)).stdout


async def test_who_was_heard_within_its_lease_is_not_written_off(js, run: Run) -> None:
    await Pod(js, lease=60).say()
    result = await run(*DEAD)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert "within its lease of 60 s" in result.stderr
    assert not (await last(js)).leaving


async def test_a_halt_that_waits_for_the_dead_is_contained_by_the_write_off(js, run: Run, settings) -> None:
    await Pod(js, lease=0.1).say(runs_in_flight=["r1"])
    async with kill_switch(settings):
        await Switchboard(js).halt_agent("desk", **WHY)
        late = (await heard(js, "halted", "unconfirmed"))[-1]
        assert states(late)["pod-1"] == "lapsed"
        await written_off(run)
        assert states((await heard(js, "halted", "unconfirmed", "contained"))[-1]) == {"pod-1": "left"}
        await Switchboard(js).resume_agent("desk", **WHY)
        await Switchboard(js).halt_agent("desk", reason="again", by="ann")
        again = (await heard(js, "halted", "unconfirmed", "contained", "resumed", "halted", "contained"))[-1]
        assert states(again) == {}


async def test_an_instance_that_is_alive_after_all_undoes_it(js, run: Run, settings) -> None:
    pod = Pod(js, lease=0.1)
    await pod.say()
    async with kill_switch(settings):
        await written_off(run)
        await pod.say()
        await Switchboard(js).halt_agent("desk", **WHY)
        assert "pod-1" in states((await heard(js, "halted", "unconfirmed"))[-1])


async def test_an_instance_that_the_server_has_forgotten_is_written_off_by_what_kill_switch_knows(
    js, run: Run, settings
) -> None:
    url = settings.database_for("kill-switch")
    migrate(url, "kill-switch")
    database = Database(url)
    gone = Instance("desk", "pod-1", {"agent.desk": 7}, ("r1",), (), datetime.now(UTC) - timedelta(minutes=5),
                    timedelta(seconds=5))  # fmt: skip
    database.write_now(lambda conn: store.save_instances(conn, [gone]))
    database.close()
    assert (await run(*DEAD)).exit_code == 0
    said = await last(js)
    assert (said.leaving, said.applied, said.runs_in_flight) == (True, {"agent.desk": 7}, ["r1"])


@pytest.mark.parametrize("name", ["a.b", "*", ">", "pod 1", ""])
async def test_a_name_that_is_none_is_a_usage_error(js, run: Run, name: str) -> None:
    assert (await run("switch", "write-off", name, "--agent", "desk", "--reason", "r")).exit_code == 2


async def test_an_instance_that_nobody_knows_is_refused_with_one_line(js, run: Run, settings) -> None:
    migrate(settings.database_for("kill-switch"), "kill-switch")
    result = await run(*DEAD)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "no instance pod-1 of desk is known" in result.stderr


async def test_json_tells_whether_it_changed_anything(js, run: Run) -> None:
    await Pod(js).say(leaving=True)
    (row,) = rows(await run(*DEAD, "--json"))
    assert (row["agent"], row["instance"], row["changed"], row["written_off_by"]) == ("desk", "pod-1", False, "")
