"""Stopping in a real browser: by thumb, by keyboard alone, and the proof as it fills without a reload."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.js import JetStreamContext
from playwright.async_api import Browser

from browser_helpers import PHONE, WIDE, axe, fits, picture, window
from console_helpers import Running, console
from kill_switch_helpers import Pod as Said
from kill_switch_helpers import put
from midwatch.contracts import subjects
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Switchboard
from midwatch_services.console import live
from midwatch_services.console.access.roles import Role
from midwatch_services.console.others import containment
from pods import arm, pod

pytestmark = pytest.mark.browser
LOOKS = [("light", WIDE), ("dark", WIDE), ("light", PHONE), ("dark", PHONE)]
HOSTILE = "<img src=x onerror='window.ran=1'>\u202egnp"


@pytest.fixture
async def running(js: JetStreamContext, settings: Settings) -> AsyncIterator[Running]:
    await put(js, "fleet", b'{"state":"running"}')
    await arm(js, "refund-desk")
    await arm(js, "invoice-helper")
    async with console(settings) as one:
        yield one


async def some_run(js: JetStreamContext) -> Said:
    """Two agents that run, of which one process is behind."""
    board = Switchboard(js)
    fleet = (await board.read("fleet")).revision
    for agent, names in (("refund-desk", ("pod-1", "pod-2")), ("invoice-helper", ("worker-a",))):
        own = (await board.read(subjects.agent_key(agent))).revision
        for place, name in enumerate(names):
            one = Said(js, name=name, agent=agent, lease=60)
            applied = dict.fromkeys(subjects.switch_keys(agent), 0) | {"fleet": fleet, subjects.agent_key(agent): own}
            await one.say(applied if name != "pod-2" else {"fleet": fleet}, runs_in_flight=[f"r-{place}", "r-7"])
    return one


@pytest.mark.parametrize(("theme", "size"), LOOKS)
async def test_the_pages_of_a_halt_read_well_in_every_theme_and_size(
    browser: Browser, running: Running, js: JetStreamContext, theme: str, size: tuple[int, int]
) -> None:
    await some_run(js)
    name = f"{theme}-{size[0]}"
    async with window(browser, running, by="eva", size=size, theme=theme) as page:  # type: ignore[arg-type]
        await page.goto("/stop?agent=refund-desk")
        await picture(page, f"stop-{name}")
        assert await axe(page) == []
        assert await fits(page)
        await page.fill("#reason", HOSTILE)
        await page.click(".stopping .press")
        await page.wait_for_selector(".pressing .press")
        await picture(page, f"stop-confirm-{name}")
        assert await axe(page) == []
        assert await fits(page)
        box = await page.locator(".pressing .press").bounding_box()
        assert box and box["height"] >= 88 and box["width"] >= 300
        await page.click(".pressing .press")
        await page.wait_for_selector("text=have not confirmed")
        await picture(page, f"stop-proof-{name}")
        assert await axe(page) == []
        assert await fits(page)
        await page.click("text=Start again …")
        await page.wait_for_selector(".pressing .press")
        await picture(page, f"stop-resume-{name}")
        assert await axe(page) == []
        assert await fits(page)
        await page.goto("/stop")
        await picture(page, f"stop-halted-{name}")
        assert await axe(page) == []
        assert await fits(page)
        assert await page.evaluate("window.ran") is None
        assert "\u202e" not in await page.inner_text("main")


@pytest.mark.parametrize("size", [WIDE, PHONE])
async def test_a_halt_by_keyboard_alone_stops_a_real_process_and_the_proof_fills_without_a_reload(
    browser: Browser, running: Running, nats_server: NatsServer, tmp_path: Path, js: JetStreamContext,
    size: tuple[int, int],
) -> None:  # fmt: skip
    async with (
        pod(tmp_path, nats_server.url, agent="refund-desk", runs=3) as one,
        window(browser, running, Role.OPERATOR, by="eva", size=size) as page,
    ):
        await page.goto("/stop?agent=refund-desk")
        await page.keyboard.press("w")
        await page.keyboard.type("refunds the wrong customers")
        await page.keyboard.press("Enter")
        await page.wait_for_selector("h1:focus")
        await page.keyboard.press("Tab")
        await page.wait_for_selector(".pressing .press:focus")
        await page.evaluate("window.stayed = 1")
        await page.keyboard.press("Enter")
        await page.wait_for_selector('[data-phase="contained"]')
        await page.wait_for_selector("text=3 runs stopped")
        text = await page.inner_text("main")
        assert "from your press" in text
        assert "refund-desk/pod-1" in text
        await picture(page, f"stop-contained-{size[0]}")
        assert await axe(page) == []
        assert one.child.returncode is None
        # Without a reload the page hears that somebody else lifts it.
        await page.evaluate("window.stayed = 2")
        await Switchboard(js).resume_agent("refund-desk", reason="mended", by="ben")
        await page.wait_for_selector("text=Lifted by ben: mended")
        assert await page.evaluate("window.stayed") == 2


async def test_enter_that_is_held_down_halts_nothing(
    browser: Browser, running: Running, js: JetStreamContext
) -> None:  # fmt: skip
    async with window(browser, running, Role.OPERATOR, by="eva") as page:
        pressed: list[str] = []
        page.on("request", lambda one: pressed.append(one.url) if one.method == "POST" else None)
        await page.goto("/stop?agent=refund-desk")
        await page.fill("#reason", "refunds the wrong customers")
        await page.focus("#reason")
        await page.keyboard.down("Enter")
        await page.wait_for_selector("h1:focus")
        await page.keyboard.down("Enter")  # as a keyboard repeats it
        await page.focus(".pressing .press")
        await page.keyboard.down("Enter")
        await page.evaluate("new Promise(requestAnimationFrame)")
        await page.evaluate("new Promise(requestAnimationFrame)")
        assert pressed == []
        record = (await Switchboard(js).read("agent.refund-desk")).record()
        assert record is not None and record.state == "running"
        await page.keyboard.up("Enter")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/stop/proof?**")
        assert len(pressed) == 1


async def test_a_proof_that_says_the_same_leaves_focus_selection_and_what_is_said_alone(
    browser: Browser, running: Running, js: JetStreamContext
) -> None:
    await some_run(js)
    await Switchboard(js).halt_agent("refund-desk", reason="it loops", by="ben")
    async with window(browser, running, Role.OPERATOR, by="eva") as page:
        await page.goto("/stop/proof?what=agent&agent=refund-desk")
        await page.wait_for_selector("text=Who has not confirmed, and what to do")
        async with page.expect_response(lambda one: one.status == 204):
            pass
        await page.evaluate("window.said = document.querySelector('main [role=status][data-says]')")
        await page.evaluate("getSelection().selectAllChildren(document.querySelector('#proof code'))")
        await page.focus("text=Start again …")
        for _ in range(2):
            async with page.expect_response(lambda one: one.status == 204):
                pass
        assert str(await page.evaluate("getSelection().toString()")).startswith("midwatch switch write-off pod-")
        assert await page.evaluate("document.activeElement.textContent") == "Start again …"
        assert await page.evaluate("window.said.textContent") == "Not contained yet: 2 processes have not confirmed"
        await Switchboard(js).resume_agent("refund-desk", reason="mended", by="ben")
        await page.wait_for_selector("text=Lifted by ben: mended")
        assert await page.evaluate("window.said.isConnected")
        assert await page.evaluate("window.said.textContent") == "Not halted any more"
        assert not await page.is_visible("text=Start again …")


async def test_the_stop_button_of_every_page_leads_here_and_a_viewer_finds_nothing_to_press(
    browser: Browser, running: Running
) -> None:
    async with window(browser, running, Role.VIEWER) as page:
        await page.goto("/about")
        await page.click(".top .stop")
        await page.wait_for_url("**/stop")
        assert await page.locator(".press").count() == 0
        await picture(page, "stop-viewer")
        assert await axe(page) == []
        await page.goto("/stop/history")
        await picture(page, "stop-history-empty")
        assert await axe(page) == []


async def test_a_process_that_comes_up_long_after_a_halt_is_shown_on_the_open_proof(
    browser: Browser, running: Running, js: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containment, "_LINGER", 0.0)
    written = await Switchboard(js).halt_agent("refund-desk", reason="wrong refunds", by="eva")
    one = Said(js, agent="refund-desk", lease=60)
    await one.say({"agent.refund-desk": written.revision}, process="a")
    async with window(browser, running, Role.VIEWER, by="vera", size=PHONE) as page:
        await page.goto("/stop/proof?what=agent&agent=refund-desk")
        await page.wait_for_selector("[data-phase=contained]")
        await page.wait_for_selector("[data-live-state][data-is=on]")
        await page.wait_for_function("!document.querySelector('#proof [hx-trigger^=every]')")
        await one.say({"agent.refund-desk": 0}, process="b")
        await page.wait_for_selector("text=A new process under this name")
        assert await axe(page) == []
        assert await fits(page)


async def test_after_a_resume_the_page_becomes_right_without_a_reload(
    browser: Browser, running: Running, nats_server: NatsServer, tmp_path: Path, js: JetStreamContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(live, "AGAIN", 0.3)
    await arm(js, "refund-desk", lease=30)
    async with (
        pod(tmp_path, nats_server.url, agent="refund-desk", idle=True) as one,
        window(browser, running, Role.OPERATOR, by="eva") as page,
    ):
        await page.goto("/stop")
        row = page.locator("tr", has_text="refund-desk")
        await row.get_by_text("Its one process").wait_for()
        await Switchboard(js).halt_agent("refund-desk", reason="it loops", by="ben")
        one.pause()
        await page.goto("/stop/resume?what=agent&agent=refund-desk")
        await page.fill("#reason", "mended")
        await page.click(".pressing .press")
        await page.wait_for_url("**/stop")
        await row.get_by_text("has not yet obeyed the last change of the switch").wait_for()
        await page.fill("#reason", "half a sent")
        await row.get_by_role("link", name="Stop …").focus()
        one.wake()
        await row.get_by_text("Its one process").wait_for()
        assert await page.input_value("#reason") == "half a sent"
        assert "Stop …" in await page.evaluate("document.activeElement.textContent")


@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        ("/stop", "Its one process", "silent for"),
        ("/agents", "1 of 1", "0 of 1"),
    ],
)
async def test_a_process_that_is_killed_is_shown_as_silent_without_a_reload(
    browser: Browser, running: Running, nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    path: str, before: str, after: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(live, "AGAIN", 0.3)
    async with window(browser, running, Role.VIEWER) as page:
        await page.goto(path)
        row = page.locator("tr", has_text="refund-desk")
        async with pod(tmp_path, nats_server.url, agent="refund-desk", idle=True) as one:
            await row.get_by_text(before).wait_for()
            await one.kill()
            await row.get_by_text(after).wait_for()


async def test_what_still_moves_and_what_was_never_halted_read_well_on_a_phone(
    browser: Browser, running: Running, js: JetStreamContext
) -> None:
    written = await Switchboard(js).halt_agent("refund-desk", reason="wrong refunds", by="eva")
    one = Said(js, agent="refund-desk", lease=60)
    async with window(browser, running, Role.OPERATOR, by="eva", size=PHONE) as page:
        await page.goto("/stop/proof?what=agent&agent=refund-desk")
        await one.say({"agent.refund-desk": written.revision}, runs_in_flight=["r-1"], draining=["r-1"])
        await page.wait_for_selector("text=What still moves, and what to do")
        assert await axe(page) == []
        assert await fits(page)
        for agent, says in (("refnd-desk", "It has no switch yet"), ("invoice-helper", "Nobody has stopped it")):
            await page.goto(f"/stop/proof?what=agent&agent={agent}")
            await page.wait_for_selector(f"text={says}")
            assert not await page.is_visible("text=Start again …")
            await picture(page, f"stop-proof-{agent}")
            assert await axe(page) == []
            assert await fits(page)
