"""What an open page is told, for how long, and how many may be open."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from nats.js import JetStreamContext

from console_helpers import Person, Running, keep_digests
from helpers import eventually
from kill_switch_helpers import Pod
from midwatch.contracts import subjects
from midwatch.runtime.nats_server import NatsServer
from midwatch_services.console import live
from midwatch_services.console.access import key
from midwatch_services.console.access.roles import Role


@contextlib.asynccontextmanager
async def opened(person: Person, *topics: str) -> AsyncIterator[tuple[httpx.Response, Callable[..., object]]]:
    """An open page, and what waits for a line of its stream."""
    address = "/live?" + "&".join(f"on={topic}" for topic in topics)
    async with person.client.stream("GET", address, headers={"accept": "text/event-stream"}) as stream:
        lines = stream.aiter_lines()

        async def until(*wanted: str) -> str:
            async with asyncio.timeout(5):
                async for line in lines:
                    if line in wanted:
                        return line
            return "over"

        yield stream, until


async def test_a_page_is_told_when_nats_goes_and_when_it_is_back(running: Running, nats_server: NatsServer) -> None:
    async with running.person(Role.VIEWER) as ann, opened(ann, "alerts") as (_, until):
        assert await until("event: ready", "event: lost") == "event: ready"
        nats_server.kill()
        assert await until("event: ready", "event: lost") == "event: lost"
        async with opened(ann, "alerts") as (_, of_another):
            assert await of_another("event: ready", "event: lost") == "event: lost"
        await nats_server.restart()
        assert await until("event: ready", "event: lost") == "event: ready"


async def test_a_page_of_which_somebody_signed_out_hears_at_once_that_it_is_over(running: Running) -> None:
    async with running.person(Role.VIEWER) as ann:
        kept = dict(ann.client.cookies)
        async with opened(ann, "alerts") as (_, until):
            assert await until("event: ready") == "event: ready"
            await ann.act("/sign-out")
            assert await until("event: over") == "event: over"
            assert await until("event: moved", "event: beat") == "over"
        ann.client.cookies.update(kept)
        async with opened(ann, "alerts") as (refused, _):
            assert refused.status_code == 401


async def test_signing_everybody_out_ends_what_is_open_though_nobody_asks_for_anything(running: Running) -> None:
    async with running.person(Role.VIEWER) as ann, opened(ann, "alerts") as (_, until):
        assert await until("event: ready") == "event: ready"
        await asyncio.to_thread(key.replace, running.settings)
        assert await until("event: over") == "event: over"
        assert await until("event: moved", "event: beat") == "over"


async def test_a_session_has_twelve_live_pages_and_room_again_once_one_is_closed(running: Running) -> None:
    async with running.person(Role.VIEWER) as ann, contextlib.AsyncExitStack() as stack:
        for _ in range(11):
            await stack.enter_async_context(opened(ann, "alerts"))
        async with opened(ann, "alerts") as (twelfth, _), opened(ann, "alerts") as (refused, _):
            assert twelfth.status_code == 200
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "10")

        async def has_room() -> bool:
            async with opened(ann, "alerts") as (again, _):
                return again.status_code == 200

        await eventually(has_room)


async def test_no_more_pages_are_live_than_the_console_bears(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MOST_OF_ALL", 1)
    async with (
        running.person(Role.VIEWER) as ann,
        running.person(Role.VIEWER, "ben") as ben,
        opened(ann, "alerts"),
        opened(ben, "alerts") as (refused, _),
    ):
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")


async def test_that_somebody_acted_is_told_to_admins_alone(running: Running, js: JetStreamContext) -> None:
    keep_digests(running.settings)
    async with (
        running.person(Role.OPERATOR) as ann,
        running.person(Role.ADMIN, "ben") as ben,
        opened(ann, "audit", "alerts") as (_, of_ann),
        opened(ben, "audit") as (_, of_ben),
    ):
        await of_ann("event: ready")
        await of_ben("event: ready")
        await ann.act("/today/read")
        assert await of_ben("data: audit") == "data: audit"
        await js.publish(subjects.alert("desk", "raised"), b"{}")
        assert await of_ann("data: audit", "data: alerts") == "data: alerts"


async def test_a_process_that_says_the_same_each_second_moves_no_page(
    running: Running, js: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "GAP", 0.0)
    one = Pod(js, lease=60)
    async with running.person(Role.VIEWER) as ann, opened(ann, "presence:desk", "alerts") as (_, until):
        await until("event: ready")
        await one.say({"fleet": 1})
        assert await until("data: presence:desk", "data: alerts") == "data: presence:desk"
        await one.say()
        for _ in range(2):
            await js.publish(subjects.alert("desk", "raised"), b"{}")
            assert await until("data: presence:desk", "data: alerts") == "data: alerts"
        await one.say(process="b")
        assert await until("data: presence:desk", "data: alerts") == "data: presence:desk"


async def test_a_page_follows_eight_topics_and_no_more(running: Running) -> None:
    hub = live.Hub(running.context.nc, {"alerts": live.Topic(("midwatch.alert.{agent}.>",))})
    assert len(hub.known([f"alerts:a{at}" for at in range(100)], Role.VIEWER)) == 8
