"""The SDK and a real server: what it reads, what it trusts, what it reports."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

import midwatch
from helpers import eventually
from midwatch import Halted, Midwatch, NoCard, testing
from midwatch.contracts import codec, control, subjects
from midwatch.contracts.control import Presence, SwitchRule
from midwatch.link import Link
from midwatch.runtime.nats_server import NatsServer

RUNNING = b'{"state":"running"}'
HALTED = b'{"state":"halted","reason":"too many refunds","by":"eva"}'


class Hands:
    """What an operator does."""

    def __init__(self, js: JetStreamContext) -> None:
        self.js = js

    async def write(self, key: str, value: bytes, headers: dict[str, str] | None = None) -> int:
        return (await self.js.publish(subjects.key_subject(subjects.SWITCH, key), value, headers=headers)).seq

    async def apply(self, agent: str, **fields: Any) -> None:
        card = control.encode(testing.card(agent, **fields))
        await self.js.publish(subjects.key_subject(subjects.AGENTS, agent), card)
        await self.write(subjects.agent_key(agent), RUNNING)

    async def presence(self) -> Presence:
        last = await self.js.get_last_msg(subjects.PRESENCE, "midwatch.presence.>")
        return msgspec.json.decode(last.data or b"", type=Presence)


@pytest.fixture
async def hands(js: JetStreamContext) -> Hands:
    hands = Hands(js)
    await hands.apply("desk", tools=testing.tools(look_up="read", refund="write"))
    return hands


@pytest.fixture
async def mw(nats_server: NatsServer, tmp_path: Path, hands: Hands) -> AsyncIterator[Midwatch]:
    async with midwatch.connect(nats_server.url, home=tmp_path / "agent", instance="pod-7") as mw:
        yield mw


def to_person(handoff: midwatch.Handoff) -> str:
    return f"a person: {handoff.reason}"


async def test_a_halt_is_seen_before_anything_is_asked_again(mw: Midwatch, hands: Hands) -> None:
    async with mw.agent("desk", version="1", fallback=to_person).run(input="x"):
        began = time.monotonic()
        halting = asyncio.create_task(hands.write("agent.desk", HALTED))
        await asyncio.Event().wait()
    await halting
    assert time.monotonic() - began < 0.5  # how soon is a figure of the benchmark


@pytest.mark.parametrize("operation", ["DEL", "PURGE"])
async def test_a_deleted_key_is_not_running(mw: Midwatch, hands: Hands, operation: str) -> None:
    async with mw.agent("desk", version="1", fallback=to_person).run(input="x") as run:
        await hands.write("agent.desk", b"", {"KV-Operation": operation})
        await asyncio.Event().wait()
    assert run.result == "a person: the switch key agent.desk was deleted"


async def test_the_payload_of_a_nudge_is_never_trusted(mw: Midwatch, hands: Hands) -> None:
    async with mw.agent("desk", version="1", fallback=to_person).run(input="x") as run:
        for sequence in ("1", "999999999999", "-5", "x"):
            forged = {"Nats-Sequence": sequence}
            await hands.js._nc.publish(subjects.control("agent.desk"), HALTED, headers=forged)
        await hands.js._nc.flush()
        await asyncio.sleep(0.1)
        assert not run.halted
        run.finish("still here")


async def test_a_halt_whose_nudge_was_lost_is_found_by_the_next_reading(
    nats_server: NatsServer, tmp_path: Path, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deaf(link: Link, msg: object) -> None:
        return

    monkeypatch.setattr(Link, "_nudged", deaf)
    async with midwatch.connect(nats_server.url, home=tmp_path / "agent") as mw:
        async with mw.agent("desk", version="1", fallback=to_person).run(input="x") as run:
            await hands.write("agent.desk", HALTED)
            await asyncio.wait_for(asyncio.Event().wait(), 20)
        assert run.result == "a person: too many refunds"


async def test_a_bucket_made_anew_is_obeyed_though_it_counts_from_one_again(mw: Midwatch, hands: Hands) -> None:
    for _ in range(5):
        await hands.write("agent.desk", RUNNING)
    async with mw.agent("desk", version="1", fallback=to_person).run(input="x") as run:
        config = (await hands.js.stream_info("KV_MIDWATCH_SWITCH")).config
        await hands.js.delete_stream("KV_MIDWATCH_SWITCH")
        await hands.js.add_stream(config)
        assert await hands.write("agent.desk", HALTED) == 1
        await asyncio.wait_for(asyncio.Event().wait(), 20)
    assert run.result is not None


async def test_an_agent_is_present_before_its_first_run(mw: Midwatch, hands: Hands) -> None:
    mw.agent("desk", version="2026-11-22")

    async def armed() -> bool:
        with suppress(NotFoundError):
            return len((await hands.presence()).applied) == 4
        return False

    await eventually(armed)
    presence = await hands.presence()
    assert (presence.agent, presence.instance, presence.version) == ("desk", "pod-7", "2026-11-22")
    assert presence.applied == {"fleet": 1, "agent.desk": 2, "tools.desk": 0, "runs.desk": 0}
    assert (presence.runs_in_flight, presence.draining, presence.leaving, presence.lease) == ([], [], False, 5.0)
    assert presence.control_read_at is not None


async def test_presence_names_runs_in_flight_and_what_drains(mw: Midwatch, hands: Hands) -> None:
    began, end = asyncio.Event(), asyncio.Event()

    async def refund() -> None:
        began.set()
        await end.wait()

    async def epoch_reported(epoch: int) -> Presence | None:
        presence = await hands.presence()
        return presence if presence.applied.get("agent.desk") == epoch and presence.draining else None

    async def watch() -> tuple[Presence, float]:
        await began.wait()
        epoch = await hands.write("agent.desk", HALTED)
        wrote = time.monotonic()
        presence = await eventually(lambda: epoch_reported(epoch))
        took = time.monotonic() - wrote
        end.set()
        assert presence is not None
        return presence, took

    async with mw.agent("desk", version="1", fallback=to_person).run(input="x", run_id="r1") as run:
        watching = asyncio.create_task(watch())
        await run.tool("refund", refund)
    presence, took = await watching
    assert (presence.runs_in_flight, presence.draining) == (["r1"], ["r1"])
    assert took < 0.5  # at once, not with the next heartbeat

    async def nothing_moves() -> bool:
        return (await hands.presence()).runs_in_flight == []

    await eventually(nothing_moves, within=0.5)


async def in_threads(url: str, home: Path, refund: Callable[[], str]) -> None:
    def work() -> None:
        connection = midwatch.blocking.connect(url, home=home)
        with suppress(Halted), connection as mw, mw.agent("desk", version="1").run(input="x", run_id="r1") as run:
            run.tool("refund", refund)
            run.check()

    await asyncio.to_thread(work)


async def in_asyncio(url: str, home: Path, refund: Callable[[], str]) -> None:
    connection = midwatch.connect(url, home=home)
    async with connection as mw:
        with suppress(Halted):
            async with mw.agent("desk", version="1").run(input="x", run_id="r1") as run:
                await run.tool("refund", asyncio.to_thread, refund)


@pytest.mark.parametrize("kind", [in_asyncio, in_threads])
async def test_a_drained_write_is_listed_while_it_drains_and_its_result_is_recorded(
    nats_server: NatsServer, tmp_path: Path, hands: Hands, kind: Any
) -> None:
    began, end = threading.Event(), threading.Event()

    def refund() -> str:
        began.set()
        end.wait(10)
        return "refunded"

    running = asyncio.create_task(kind(nats_server.url, tmp_path, refund))
    await asyncio.to_thread(began.wait, 10)
    epoch = await hands.write("agent.desk", HALTED)

    async def drains() -> bool:
        presence = await hands.presence()
        return presence.applied.get("agent.desk") == epoch and presence.draining == ["r1"]

    await eventually(drains)
    end.set()
    await running
    assert (await hands.presence()).draining == []
    last: dict[str, Any] = {}
    for event in ("tool_called", "finished"):
        found = await hands.js.get_last_msg(subjects.RUNS, subjects.run("desk", event))
        last[event] = codec.decode_run(found.subject or "", found.data or b"").data
    assert (last["tool_called"].result, last["tool_called"].error) == ("refunded", None)
    assert (last["finished"].resolution, last["finished"].epoch) == ("halted", epoch)
    assert last["finished"].seq > last["tool_called"].seq


async def test_a_run_whose_fallback_works_does_not_move(mw: Midwatch, hands: Hands) -> None:
    async def slow(handoff: midwatch.Handoff) -> str:
        async def nothing_moves() -> bool:
            return (await hands.presence()).runs_in_flight == []

        await eventually(nothing_moves, within=0.5)
        return "answered"

    async with mw.agent("desk", version="1", fallback=slow).run(input="x") as run:
        halting = asyncio.create_task(hands.write("agent.desk", HALTED))
        await asyncio.Event().wait()
    await halting
    assert run.result == "answered"


async def test_signing_off_is_reported(nats_server: NatsServer, tmp_path: Path, hands: Hands) -> None:
    async with (
        midwatch.connect(nats_server.url, home=tmp_path / "agent") as mw,
        mw.agent("desk", version="1").run(input="x") as run,
    ):
        run.finish()
    presence = await hands.presence()
    assert (presence.leaving, presence.runs_in_flight, presence.lost) == (True, [], 0)


async def test_a_card_applied_later_lets_the_agent_run(mw: Midwatch, hands: Hands) -> None:
    newcomer = mw.agent("newcomer", version="1")
    with pytest.raises(NoCard):
        async with newcomer.run(input="x"):
            pass
    await hands.apply("newcomer")
    await eventually(lambda: not newcomer.run(input="x").halted)
    async with newcomer.run(input="x") as run:
        await run.tool("any", str)
        run.finish()


async def test_a_changed_card_is_followed_without_a_restart(mw: Midwatch, hands: Hands) -> None:
    async with mw.agent("desk", version="1").run(input="x") as run:
        assert run._kind("refund") == "write"
        await hands.apply("desk", tools=testing.tools(refund="read"), switch=SwitchRule(lease=9.0))
        await eventually(lambda: run._kind("refund") == "read", within=1.0)
        run.finish()

    async def reported() -> bool:
        return (await hands.presence()).lease == 9.0

    await eventually(reported, within=2.0)


async def test_the_blocking_twin_is_halted_by_the_same_server(
    nats_server: NatsServer, tmp_path: Path, hands: Hands
) -> None:
    loop = asyncio.get_running_loop()

    def work() -> tuple[list[int], Any]:
        calls: list[int] = []
        with midwatch.blocking.connect(nats_server.url, home=tmp_path / "agent") as mw:
            with mw.agent("desk", version="1", fallback=to_person).run(input="x") as run:
                run.model(calls.append, 1)
                asyncio.run_coroutine_threadsafe(hands.write("agent.desk", HALTED), loop).result()
                deadline = time.monotonic() + 2
                while not run.halted and time.monotonic() < deadline:
                    time.sleep(0.005)
                run.model(calls.append, 2)
            return calls, run.result

    assert await asyncio.to_thread(work) == ([1], "a person: too many refunds")


async def test_agents_of_one_process_obey_their_own_keys(mw: Midwatch, hands: Hands) -> None:
    for name in ("a", "b"):
        await hands.apply(name)
    async with mw.agent("a", version="1").run(input="x") as one:
        async with mw.agent("b", version="1", fallback=to_person).run(input="x") as other:
            halting = asyncio.create_task(hands.write("agent.b", HALTED))
            await asyncio.Event().wait()
        await halting
        assert other.result == "a person: too many refunds"
        one.check()
        one.finish()
