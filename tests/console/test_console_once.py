"""A form that is sent twice, by a second press or by a browser that got no answer, is one deed on the bus."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from nats.js import JetStreamContext

from console_helpers import Person, Running, console, keep_digests
from helpers import eventually
from kill_switch_helpers import kill_switch, publish, put
from logged import alert
from midwatch.contracts import codec, subjects
from midwatch.contracts.envelope import utc_now
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Switchboard
from midwatch_services.console.access.roles import Role
from midwatch_services.console.others import drills, switch
from review_helpers import begin, log, put_card, sampler
from router_helpers import HASTY, give_card, stop

DESK = {"what": "agent", "agent": "desk"}
_FIELD = re.compile(r'<input type="hidden" name="(\w+)" value="([^"]*)"')


async def form(person: Person, path: str, action: str) -> dict[str, str]:
    """What the form on a page that posts to `action` carries by itself."""
    page = (await person.get(path)).text
    found = re.search(rf'action="{re.escape(action)}".*?</form>', page, re.S)
    assert found, page
    return dict(_FIELD.findall(found[0]))


async def send(person: Person, action: str, fields: dict[str, str], **more: str) -> int:
    sent = {name: value for name, value in fields.items() if name != "csrf"}
    return (await person.act(action, fields["csrf"], **sent, **more)).status_code


@asynccontextmanager
async def a_case_waits(
    js: JetStreamContext, settings: Settings
) -> AsyncIterator[tuple[Running, Person, str, dict[str, str]]]:
    """A console, an operator, the page of a case that nobody has, and its form to take it."""
    await give_card(js)
    await put(js, "agent.desk", b'{"state":"running"}')
    path = f"/queue/{subjects.case_id('desk', 'r1')}"
    async with console(settings) as running, kill_switch(settings, HASTY), running.person(Role.OPERATOR) as ann:
        await publish(js, "started", "r1", seq=0, input="Where is it?")
        await stop(js)

        async def waits() -> dict[str, str]:
            return await form(ann, path, f"{path}/take")

        yield running, ann, path, await eventually(waits)


async def count(js: JetStreamContext, subject: str) -> int:
    """How many messages the stream holds under a subject."""
    found = (await js.stream_info(subjects.GOVERNANCE, subjects_filter=subject)).state.subjects or {}
    return sum(found.values())


async def actions(running: Running) -> list[str]:
    return [one["action"] for one in await running.recorded()]


@pytest.mark.parametrize("at_once", [True, False])
async def test_an_alert_is_taken_on_once(running: Running, js: JetStreamContext, at_once: bool) -> None:
    raised = alert("raised", alert_id="a-1", title="It loops", at=utc_now())
    await js.publish(subjects.alert("desk", "raised"), codec.encode(raised))
    async with running.person(Role.OPERATOR, "eva") as eva:
        fields = await form(eva, "/alerts", "/alerts/a-1/acknowledge")
        if at_once:
            some = await asyncio.gather(*(send(eva, "/alerts/a-1/acknowledge", fields) for _ in range(2)))
        else:
            some = [await send(eva, "/alerts/a-1/acknowledge", fields) for _ in range(2)]
        assert some == [303, 303]
    assert await count(js, subjects.alert("desk", "acknowledged")) == 1
    assert await actions(running) == ["alert.acknowledged"]


async def test_a_digest_is_read_once_by_a_form_and_again_by_that_of_another_page(running: Running) -> None:
    keep_digests(running.settings)
    async with running.person(Role.VIEWER) as vera:
        first = await form(vera, "/", "/today/read")
        for _ in range(2):
            assert await send(vera, "/today/read", first) == 303
        assert await actions(running) == ["digest.read"]
        await send(vera, "/today/read", first | {"once": "another"})
        assert await actions(running) == ["digest.read", "digest.read"]


async def test_the_same_form_in_another_session_is_another_deed(running: Running) -> None:
    keep_digests(running.settings)
    async with running.person(Role.VIEWER) as ann, running.person(Role.VIEWER, "ben") as ben:
        first = await form(ann, "/", "/today/read")
        await send(ann, "/today/read", first)
        await send(ben, "/today/read", first | {"csrf": await ben.token()})
    assert [one["by"] for one in await running.recorded()] == ["ann", "ben"]


async def test_a_halt_and_its_end_are_recorded_once_each(running: Running, js: JetStreamContext) -> None:
    async with running.person(Role.OPERATOR, "eva") as eva:
        await put(js, "agent.desk", b'{"state":"running"}')
        why = {"reason": "it loops"}
        asked = "/stop/confirm?what=agent&agent=desk&reason=it+loops"
        fields = await form(eva, asked, "/stop/halt")
        for _ in range(2):
            assert await send(eva, "/stop/halt", fields) == 303
        assert await actions(running) == ["switch.halt"]
        ended = await form(eva, "/stop/resume?what=agent&agent=desk", "/stop/resumed")
        for _ in range(2):
            assert await send(eva, "/stop/resumed", ended, **why) == 303
        assert await actions(running) == ["switch.halt", "switch.resume"]
        assert await send(eva, "/stop/halt", fields) == 303
        assert await actions(running) == ["switch.halt", "switch.resume", "switch.halt"], "it halted anew"
    record = (await Switchboard(js).read("agent.desk")).record()
    assert record is not None and record.state == "halted"


async def test_a_form_that_starts_again_what_stopped_meanwhile_is_recorded_again(
    running: Running, js: JetStreamContext
) -> None:
    async with running.person(Role.OPERATOR, "eva") as eva:
        fields = await form(eva, "/stop/resume?what=agent&agent=desk", "/stop/resumed")
        assert await send(eva, "/stop/resumed", fields, reason="mended") == 303
        await (await js.key_value(subjects.SWITCH)).delete("agent.desk")
        assert await send(eva, "/stop/resumed", fields, reason="mended") == 303
    assert await actions(running) == ["switch.resume", "switch.resume"]


async def test_a_drill_is_begun_once_though_it_is_over(running: Running) -> None:
    async with running.person(Role.OPERATOR) as ann:
        token = await ann.token()
        begun = (await ann.act("/drills/begin", token, agent="desk", once="a")).headers["location"]

        async def over() -> bool:
            return "It did not come to a halt" in (await ann.get(begun)).text

        await eventually(over)
        again = await ann.act("/drills/begin", token, agent="desk", once="a")
        assert again.headers["location"] == begun
    assert await actions(running) == ["drill.began"]


async def test_a_case_is_taken_once(js: JetStreamContext, settings: Settings) -> None:
    async with a_case_waits(js, settings) as (running, ann, path, fields):
        both = await asyncio.gather(*(send(ann, f"{path}/take", fields, text="ZD-1") for _ in range(2)))
        assert [*both, await send(ann, f"{path}/take", fields, text="ZD-1")] == [303, 303, 303]
        assert await count(js, subjects.case("desk", "accepted")) == 1
        assert await actions(running) == ["case.accepted"]


async def test_a_run_is_judged_once(js: JetStreamContext, settings: Settings) -> None:
    await put_card(js, minutes_a_day=30)
    async with sampler(settings), console(settings) as running, running.person(Role.REVIEWER) as olga:
        await begin(js, "r-1")
        await log(settings, "r-1")
        fields = await form(olga, "/review", "/review/judge")
        both = await asyncio.gather(*(send(olga, "/review/judge", fields, verdict="pass") for _ in range(2)))
        assert [*both, await send(olga, "/review/judge", fields, verdict="pass")] == [303, 303, 303]
        assert await count(js, subjects.review("desk", "judged")) == 1
        assert await actions(running) == ["review.taken", "review.judged"]


@asynccontextmanager
async def unheard(js: JetStreamContext, noun: str) -> AsyncIterator[None]:
    """Meanwhile the bus keeps nothing of one kind, so that it confirms none of it."""
    config = (await js.stream_info(subjects.GOVERNANCE)).config
    every = list(config.subjects or [])
    await js.update_stream(config, subjects=[name for name in every if not name.startswith(f"midwatch.{noun}.")])
    yield
    await js.update_stream(config, subjects=every)


async def test_an_alert_that_was_taken_on_in_vain_first_is_recorded_last_as_taken_on(
    running: Running, js: JetStreamContext
) -> None:
    raised = alert("raised", alert_id="a-1", title="It loops", at=utc_now())
    await js.publish(subjects.alert("desk", "raised"), codec.encode(raised))
    async with running.person(Role.OPERATOR, "eva") as eva:
        fields = await form(eva, "/alerts", "/alerts/a-1/acknowledge")
        async with unheard(js, "alert"):
            some = [await send(eva, "/alerts/a-1/acknowledge", fields) for _ in range(2)]
        assert some == [503, 503]
        some = [await send(eva, "/alerts/a-1/acknowledge", fields) for _ in range(2)]
        assert some == [303, 303]
    assert await count(js, subjects.alert("desk", "acknowledged")) == 1
    took, not_taken = "alert.acknowledged", "alert.not_acknowledged"
    assert await actions(running) == [took, not_taken, took, not_taken, took]


async def test_a_run_that_was_judged_in_vain_first_is_recorded_last_as_judged(
    js: JetStreamContext, settings: Settings
) -> None:
    await put_card(js, minutes_a_day=30)
    async with sampler(settings), console(settings) as running, running.person(Role.REVIEWER) as olga:
        await begin(js, "r-1")
        await log(settings, "r-1")
        fields = await form(olga, "/review", "/review/judge")
        async with unheard(js, "review"):
            assert await send(olga, "/review/judge", fields, verdict="pass") == 503
        assert await send(olga, "/review/judge", fields, verdict="pass") == 303
        assert await count(js, subjects.review("desk", "judged")) == 1
        assert await actions(running) == ["review.taken", "review.judged", "review.not_judged", "review.judged"]


async def test_a_case_that_was_given_back_is_taken_again_by_the_first_page(
    js: JetStreamContext, settings: Settings
) -> None:
    async with a_case_waits(js, settings) as (running, ann, path, first):
        async with unheard(js, "case"):
            assert await send(ann, f"{path}/take", first) == 503
        assert await send(ann, f"{path}/take", first) == 303
        assert await send(ann, f"{path}/return", await form(ann, path, f"{path}/return")) == 303
        for _ in range(2):
            assert await send(ann, f"{path}/take", first) == 303
        assert "You have it" in (await ann.get(path)).text
        assert await count(js, subjects.case("desk", "accepted")) == 2
        assert await actions(running) == [
            "case.accepted", "case.not_accepted", "case.accepted", "case.returned", "case.accepted",
        ]  # fmt: skip


async def test_a_list_that_is_mended_by_a_double_press_is_told_as_mended_and_recorded_once(
    running: Running, js: JetStreamContext
) -> None:
    await put(js, "agent.desk", b'{"state":"running"}')
    await put(js, "tools.desk", b"[1]")
    async with running.person(Role.OPERATOR, "eva") as eva:
        fields = await form(eva, "/stop/mend?agent=desk&list=tools", "/stop/mended")
        some = [await send(eva, "/stop/mended", fields, reason="a typing mistake") for _ in range(2)]
    assert some == [303, 303]
    assert await actions(running) == ["switch.mend"]


async def test_two_presses_of_mend_at_the_same_moment_are_both_told_as_mended_and_recorded_once(
    running: Running, js: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    clear, waits = switch.clear, iter((0.1, 0.2))

    async def later(js: JetStreamContext, key: str, revision: int) -> bool:
        await asyncio.sleep(next(waits))  # by then the other press has read what stood before either
        return await clear(js, key, revision)

    monkeypatch.setattr(switch, "clear", later)
    await put(js, "agent.desk", b'{"state":"running"}')
    await put(js, "tools.desk", b"[1]")
    async with running.person(Role.OPERATOR, "eva") as eva:
        fields = await form(eva, "/stop/mend?agent=desk&list=tools", "/stop/mended")
        presses = (send(eva, "/stop/mended", fields, reason="a typing mistake") for _ in range(2))
        assert await asyncio.gather(*presses) == [303, 303]
    assert await actions(running) == ["switch.mend"]


async def test_a_drill_is_begun_again_from_its_page_once_the_one_before_is_long_over(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drills, "SAME_FOR", 0.0)
    async with running.person(Role.OPERATOR) as ann:
        token = await ann.token()
        first = (await ann.act("/drills/begin", token, agent="desk", once="a")).headers["location"]

        async def over() -> bool:
            return 'href="/drills/plan?agent=desk"' in (await ann.get(first)).text

        await eventually(over)
        again = await ann.act("/drills/begin", token, agent="desk", once="a")
        assert again.headers["location"] != first
    assert await actions(running) == ["drill.began", "drill.began"]


async def test_the_reason_of_a_start_is_recorded_as_it_was_at_last(
    running: Running, js: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running.person(Role.OPERATOR, "eva") as eva:
        fields = await form(eva, "/stop/resume?what=agent&agent=desk", "/stop/resumed")

        async def away(*_: object, **__: object) -> None:
            raise TimeoutError

        with monkeypatch.context() as patch:
            patch.setattr(Switchboard, "resume", away)
            assert await send(eva, "/stop/resumed", fields, reason="first") == 503
        assert await send(eva, "/stop/resumed", fields, reason="second") == 303
    assert [(one["action"], one["detail"]["reason"]) for one in await running.recorded()] == [
        ("switch.resume", "first"), ("switch.not_resumed", "first"), ("switch.resume", "second"),
    ]  # fmt: skip
