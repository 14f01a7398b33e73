"""nats-server killed before, during and after a halt: what was acknowledged stands, and agents act on nothing old."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from nats.errors import Error as NatsError

from helpers import eventually
from midwatch.contracts import subjects
from midwatch.runtime.switchboard import Entry, Switchboard
from pods import LEASE, Pod, arm, pod
from proxy import proxy
from stack import Stack

pytestmark = pytest.mark.chaos

HALT = ("halt", "desk", "--reason", "wrong refunds", "--json")
WRITE = f"HPUB {subjects.key_subject(subjects.SWITCH, 'agent.desk')}".encode()
ACK = json.dumps({"stream": subjects.key_stream(subjects.SWITCH)})[1:-1].replace(" ", "").encode()


async def runs_again_and_obeys(stack: Stack, desk: Pod) -> None:
    """After all of it: the agent is let run, and a halt stops it as ever."""
    await stack.run("resume", "desk", "--reason", "over", "--json")
    await desk.busy()
    halted = time.monotonic()
    assert (await stack.run(*HALT, "--wait"))[-1]["contained"] is True
    await desk.stopped(halted)


async def test_a_halt_of_a_server_that_is_dead_is_not_acknowledged_and_the_agent_falls_back(
    plain: Stack, tmp_path: Path, figure: Callable[..., None]
) -> None:
    await arm(plain.client.jetstream())
    await plain.start("kill-switch")
    async with pod(tmp_path, plain.nats.url) as desk:
        killed = time.monotonic()
        plain.nats.kill()
        code, lines, said = await plain.attempt(*HALT)
        assert (code, lines) == (1, [])
        assert "The halt was not acknowledged" in said
        await desk.stopped(killed)
        assert {note.detail for note in desk.stopped_after(killed)} == {"lease"}
        figure("server killed before the halt: last call after the kill", desk.last_call(killed), "s", LEASE + 1)
        await plain.nats.restart()
        back = time.monotonic()
        figure("server back: every run goes on after", await desk.busy() - back, "s", 10)
        await runs_again_and_obeys(plain, desk)


@pytest.mark.parametrize("moment", ["write under way", "write arrives", "answer under way"])
async def test_a_halt_during_which_the_server_dies_is_obeyed_or_the_agent_falls_back(
    plain: Stack, tmp_path: Path, figure: Callable[..., None], moment: str
) -> None:
    await arm(plain.client.jetstream())
    await plain.start("kill-switch")
    written: list[float] = []
    async with pod(tmp_path, plain.nats.url) as desk, proxy(plain.nats.url) as way:

        def dies() -> None:
            plain.nats.kill()
            raise ConnectionResetError

        def on_request(data: bytes) -> None:
            if WRITE in data:
                written.append(time.monotonic())
                if moment == "write under way":
                    dies()
                elif moment == "write arrives":  # and is stored, or not, and answered, or not
                    asyncio.get_running_loop().call_later(0.0005, plain.nats.kill)

        def on_answer(data: bytes) -> None:
            if written and moment == "answer under way" and ACK in data.replace(b" ", b""):
                dies()

        way.on_request, way.on_answer = on_request, on_answer
        code, lines, said = await plain.attempt(*HALT, NATS_URL=way.url)
        acknowledged = bool(lines)
        assert acknowledged or (code == 1 and "The halt was not acknowledged" in said)
        assert moment == "write arrives" or not acknowledged
        await desk.stopped(written[0])
        assert {note.detail for note in desk.stopped_after(written[0])} <= {"lease", "agent.desk"}
        figure(f"server killed, {moment}: last call after the halt", desk.last_call(written[0]), "s", LEASE + 1)
        await plain.nats.restart()
        stands = await standing(plain)
        record = stands.record()
        assert record is not None
        assert record.state == "halted" or not acknowledged
        if record.state == "halted":
            await contained(plain, stands.revision)
            assert desk.calls_after(written[0] + LEASE + 1) == []
        else:
            await desk.busy()
        await runs_again_and_obeys(plain, desk)


async def test_a_halt_that_was_acknowledged_stands_after_the_server_was_killed(
    plain: Stack, tmp_path: Path, figure: Callable[..., None]
) -> None:
    await arm(plain.client.jetstream())
    await plain.start("kill-switch")
    async with pod(tmp_path, plain.nats.url) as desk:
        board = Switchboard(plain.client.jetstream())
        halted = time.monotonic()
        written = await board.halt_agent("desk", reason="wrong refunds", by="ann")
        plain.nats.kill()
        await desk.stopped(halted)
        figure("server killed after the halt: last call after the halt", desk.last_call(halted), "s", LEASE + 1)
        await plain.nats.restart()
        await contained(plain, written.revision)
        stands = await standing(plain)
        assert (stands.revision, stands.record()) == (written.revision, written.record)
        assert desk.calls_after(halted + LEASE + 1) == []
        await runs_again_and_obeys(plain, desk)


async def standing(stack: Stack) -> Entry:
    """What the switch says of the agent, once the server answers."""

    async def read() -> Entry | None:
        try:
            return await Switchboard(stack.client.jetstream()).read("agent.desk")
        except (NatsError, TimeoutError):
            return None

    found: Entry = await eventually(read, within=15)
    return found


async def contained(stack: Stack, epoch: int) -> None:
    """Waits until kill-switch, which lived through it, has said so of that halt."""

    async def said() -> bool:
        return epoch in [report["epoch"] for report in await stack.spoken("contained")]

    await eventually(said, within=20)
