"""The SDK and a route on a real server: how it is read, obeyed and reported."""

import asyncio
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
from midwatch import Midwatch, testing
from midwatch.contracts import control, subjects
from midwatch.contracts.control import Presence
from midwatch.link import Link
from midwatch.runtime.nats_server import NatsServer

RUNNING = b'{"state":"running"}'
SHADOW, FULL = b'{"stage":"shadow","reason":"too bold","by":"eva"}', b'{"stage":"full"}'
CANARY = b'{"stage":"canary","traffic":0.5,"salt":"salt"}'


class Hands:
    """What an operator does."""

    def __init__(self, js: JetStreamContext) -> None:
        self.js = js

    async def route(self, value: bytes, headers: dict[str, str] | None = None) -> None:
        await self.js.publish(subjects.key_subject(subjects.ROUTES, "desk"), value, headers=headers)

    async def presence(self, says: Callable[[Presence], bool]) -> Presence:
        """A presence that says so, as soon as there is one."""

        async def said() -> Presence | None:
            with suppress(NotFoundError):
                last = await self.js.get_last_msg(subjects.PRESENCE, "midwatch.presence.>")
                presence = msgspec.json.decode(last.data or b"", type=Presence)
                return presence if says(presence) else None
            return None

        found: Presence = await eventually(said)
        return found


@pytest.fixture
async def hands(js: JetStreamContext) -> Hands:
    card = control.encode(testing.card("desk", tools=testing.tools(look_up="read", refund="write")))
    await js.publish(subjects.key_subject(subjects.AGENTS, "desk"), card)
    await js.publish(subjects.key_subject(subjects.SWITCH, "agent.desk"), RUNNING)
    return Hands(js)


@pytest.fixture
async def mw(nats_server: NatsServer, tmp_path: Path, hands: Hands) -> AsyncIterator[Midwatch]:
    async with midwatch.connect(nats_server.url, home=tmp_path / "agent", instance="pod-7") as mw:
        yield mw


def to_person(handoff: midwatch.Handoff) -> str:
    return f"a person ({handoff.key}): {handoff.reason}"


async def test_the_first_run_of_a_process_knows_its_route(mw: Midwatch, hands: Hands) -> None:
    await hands.route(SHADOW)
    done: list[str] = []
    async with mw.agent("desk", version="1", fallback=to_person).run(input="x") as run:
        assert await run.tool("refund", done.append, "A-1") is None
        run.finish("reply")
    assert (run.acts, done) == (False, [])


async def test_an_agent_that_nobody_routed_acts(mw: Midwatch) -> None:
    done: list[str] = []
    async with mw.agent("desk", version="1", fallback=to_person).run(input="x") as run:
        await run.tool("refund", done.append, "A-1")
        run.finish()
    assert done == ["A-1"]


async def test_a_live_run_hears_at_once_that_its_agent_is_put_into_shadow(mw: Midwatch, hands: Hands) -> None:
    async with mw.agent("desk", version="1", fallback=to_person).run(input="x") as run:
        writing = asyncio.create_task(hands.route(SHADOW))
        await asyncio.wait_for(asyncio.Event().wait(), 0.5)  # the next reading would be seconds away
    await writing
    assert run.result == "a person (route): too bold"


@pytest.mark.parametrize("operation", ["DEL", "PURGE"])
async def test_a_deleted_route_stops_the_agent(mw: Midwatch, hands: Hands, operation: str) -> None:
    await hands.route(FULL)
    async with mw.agent("desk", version="1", fallback=to_person).run(input="x") as run:
        await hands.route(b"", {"KV-Operation": operation})
        await asyncio.wait_for(asyncio.Event().wait(), 20)
    assert run.result == "a person (route): the route was deleted"


async def test_a_canary_is_drawn_by_the_ticket(mw: Midwatch, hands: Hands) -> None:
    await hands.route(CANARY)
    desk = mw.agent("desk", version="1", fallback=to_person)
    results: dict[str, Any] = {}
    for ticket in ("T-1", "T-3"):
        async with desk.run(input="x", ticket=ticket) as run:
            await run.tool("look_up", str)
            run.finish()
        results[ticket] = run.result
    assert results == {"T-1": None, "T-3": "a person (route): outside the canary's 50 %"}


async def test_a_route_whose_nudge_was_lost_is_read_all_the_same(
    mw: Midwatch, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deaf(link: Link, msg: object) -> None:
        return

    monkeypatch.setattr(Link, "_nudged", deaf)
    monkeypatch.setattr("midwatch.link.OTHERS_EVERY", 1)
    async with mw.agent("desk", version="1", fallback=to_person).run(input="x") as run:
        await hands.route(SHADOW)
        await asyncio.wait_for(asyncio.Event().wait(), 20)
    assert run.result == "a person (route): too bold"


async def test_a_route_written_while_the_connection_was_down_is_read_on_reconnect(
    mw: Midwatch, hands: Hands, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deaf(link: Link, msg: object) -> None:
        return

    monkeypatch.setattr(Link, "_nudged", deaf)
    monkeypatch.setattr("midwatch.link.OTHERS_EVERY", 10_000)
    async with mw.agent("desk", version="1", fallback=to_person).run(input="x") as run:
        await hands.route(SHADOW)
        nats_server.kill()
        await nats_server.restart()
        await asyncio.wait_for(asyncio.Event().wait(), 20)
    assert run.result == "a person (route): too bold"


async def test_the_payload_of_a_nudge_is_never_trusted(mw: Midwatch, hands: Hands) -> None:
    await hands.route(SHADOW)
    desk = mw.agent("desk", version="1")
    await hands.presence(lambda presence: presence.stage == "shadow")
    await hands.js._nc.publish(subjects.control_route("desk"), FULL, headers={"Nats-Sequence": "999"})
    await hands.js._nc.flush()
    for _ in range(3):
        async with desk.run(input="x") as run:
            run.finish()
        assert not run.acts


async def test_a_shadow_seen_holds_in_the_next_process_though_its_bucket_was_made_anew(
    nats_server: NatsServer, tmp_path: Path, hands: Hands
) -> None:
    await hands.route(SHADOW)
    for number in range(2):
        async with midwatch.connect(nats_server.url, home=tmp_path / "agent") as mw:
            async with mw.agent("desk", version="1").run(input="x") as run:
                run.finish()
            assert not run.acts, f"process {number}"
        config = (await hands.js.stream_info("KV_MIDWATCH_ROUTES")).config
        await hands.js.delete_stream("KV_MIDWATCH_ROUTES")
        await hands.js.add_stream(config)


async def test_presence_tells_the_stage(mw: Midwatch, hands: Hands) -> None:
    mw.agent("desk", version="1")
    assert (await hands.presence(lambda presence: len(presence.applied) == 4)).stage is None
    for value, stage in ((SHADOW, "shadow"), (CANARY, "canary"), (FULL, "full")):
        await hands.route(value)
        await hands.presence(lambda presence, stage=stage: presence.stage == stage)  # type: ignore[misc]


@pytest.mark.parametrize("fallback", [to_person, None])
async def test_presence_tells_whether_the_program_has_a_fallback_of_its_own(
    mw: Midwatch, hands: Hands, fallback: Any
) -> None:
    mw.agent("desk", version="1", fallback=fallback)
    presence = await hands.presence(lambda presence: len(presence.applied) == 4)
    assert (presence.own_fallback, presence.blocking) == (fallback is not None, False)


async def test_presence_tells_that_runs_are_in_threads(nats_server: NatsServer, tmp_path: Path, hands: Hands) -> None:
    def work() -> None:
        connection = midwatch.blocking.connect(nats_server.url, home=tmp_path / "agent")
        with connection as mw, mw.agent("desk", version="1").run(input="x") as run:
            run.finish()

    await asyncio.to_thread(work)
    assert (await hands.presence(lambda presence: presence.leaving)).blocking


async def test_presence_names_runs_that_nobody_waits_for(mw: Midwatch, hands: Hands) -> None:
    desk = mw.agent("desk", version="1")
    async with (
        desk.run(input="x", run_id="live") as live,
        desk.run(input="x", run_id="drill", mode="drill") as drill,
        desk.run(input="x", run_id="eval", mode="eval") as trial,
    ):
        presence = await hands.presence(lambda presence: len(presence.runs_in_flight) == 3)
        for run in (live, drill, trial):
            run.finish()
    assert (sorted(presence.runs_in_flight), presence.no_case) == (["drill", "eval", "live"], ["eval"])


async def test_nobody_waits_for_a_run_in_shadow(mw: Midwatch, hands: Hands) -> None:
    await hands.route(SHADOW)
    async with mw.agent("desk", version="1").run(input="x", run_id="r1") as run:
        presence = await hands.presence(lambda presence: presence.runs_in_flight == ["r1"])
        run.finish()
    assert presence.no_case == ["r1"]
