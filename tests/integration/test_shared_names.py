"""`midwatch switch` says where two processes use one name, of which the server keeps the last word alone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from nats.js import JetStreamContext

from kill_switch_helpers import Pod
from midwatch.runtime.nats_server import NatsServer
from switch_commands import Run, rows, run_switch

SAYS = (
    "2 processes use this name, and only the one that spoke last is shown: give each an `instance` of its own in "
    "midwatch.connect, or none, and it gets one"
)


@pytest.fixture
def run(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("NATS_URL", nats_server.url)
    return run_switch


@asynccontextmanager
async def speaking(js: JetStreamContext, *who: tuple[str, str]) -> AsyncIterator[None]:
    """Meanwhile each process says under its name that it runs."""

    async def speak() -> None:
        while True:
            for name, process in who:
                await Pod(js, name).say(process=process)
            await asyncio.sleep(0.2)

    for name, process in who:
        await Pod(js, name).say(process=process)
    task = asyncio.create_task(speak())
    yield
    task.cancel()


async def test_two_processes_of_one_name_are_told_with_what_to_do(js: JetStreamContext, run: Run) -> None:
    async with speaking(js, ("pod-1", "a"), ("pod-2", "c"), ("pod-1", "b")):
        told = {row["instance"]: row["shared_name"] for row in rows(await run("switch", "--json"))}
        shown = (await run("switch")).stdout
    assert told == {"pod-1": SAYS, "pod-2": ""}
    assert f"desk/pod-1: {SAYS}" in shown.splitlines()
    assert "pod-1 (2 processes)" in shown
    assert "desk/pod-2" not in shown


async def test_a_process_that_took_the_name_of_one_that_left_or_died_has_it_alone(
    js: JetStreamContext, run: Run
) -> None:
    await Pod(js, "died").say(process="a")
    await Pod(js, "left").say(process="a")
    await Pod(js, "left").say(process="a", leaving=True)
    async with speaking(js, ("died", "b"), ("left", "b")):
        told = {row["instance"]: row["shared_name"] for row in rows(await run("switch", "--json"))}
    assert told == {"died": "", "left": ""}
