"""Alerts, queue, drills, writes and audit in a real browser: legible everywhere, an alert taken on by a thumb."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from nats.js import JetStreamContext
from playwright.async_api import Browser, expect

from browser_helpers import PHONE, WIDE, axe, fits, picture, window
from console_helpers import Running, console
from drill_helpers import LONG_AGO, apply_card
from helpers import eventually
from kill_switch_helpers import put
from logged import alert, received
from midwatch.contracts import codec, subjects
from midwatch.contracts.envelope import utc_now
from midwatch.contracts.governance import AuditActed, CaseOpened, SwitchDrilled
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Switchboard
from midwatch_services.console.access.roles import Role
from midwatch_services.kill_switch.cases import case_store
from midwatch_services.kill_switch.cases.routing import Case, Note
from midwatch_services.kill_switch.drills import drill
from midwatch_services.logger import store

pytestmark = pytest.mark.browser
LOOKS = [("light", WIDE), ("dark", WIDE), ("light", PHONE), ("dark", PHONE)]
HOSTILE = "<script>window.ran=1</script><img src=x onerror='window.ran=2'> \u202egnp.exe \x1b[31m" + "x" * 300
HOUR = timedelta(hours=1)


def fill_log(settings: Settings) -> None:
    """Alerts of each kind, and runs that changed something."""
    url, now = settings.database_for(subjects.LOGGER), utc_now()
    migrate(url, subjects.LOGGER)
    database = Database(url)
    alerts = [
        alert("raised", alert_id="a-1", title="The agent refund-desk spent $52.10 today; its budget is $50.00",
              agent="refund-desk", rule="budget_day", action_taken="halted_agent", at=now - 0.2 * HOUR),
        alert("raised", alert_id="a-2", title="Run r-118 called look_up 14 times with the same arguments",
              agent="refund-desk", rule="loop_cycle", severity="ticket", run_id="r-118", at=now - 2 * HOUR),
        alert("raised", alert_id="a-3", title=HOSTILE, severity="info", action_taken="none", at=now - 3 * HOUR),
    ]  # fmt: skip
    for made in alerts:
        database.write_now(lambda conn, made=made: store.save_alert(conn, made))
    runs = []
    for place, (tool, fields) in enumerate([
        ("refund", {"arguments": {"order": "A-1001", "usd": "49.00"}, "result": "rf_81", "undo": "unrefund"}),
        ("send_mail", {"arguments": {"to": "customer", "text": HOSTILE}, "error": "mailbox full"}),
    ]):  # fmt: skip
        for n in range(3):
            common = {"run_id": f"r-{place}{n}", "agent": "refund-desk", "at": now - (n + place) * HOUR}
            runs += [received("started", input="Where is my refund?", **common)]
            runs += [received("tool_called", seq=1, tool=tool, kind="write", **fields, **common)]
    placed = [replace(one, stream_seq=at) for at, one in enumerate(runs, 1)]
    database.write_now(lambda conn: store.save(conn, placed))
    database.close()


def fill_cases(settings: Settings) -> None:
    """A case that waits, and one that somebody has."""
    url, now = settings.database_for(subjects.KILL_SWITCH), utc_now()
    migrate(url, subjects.KILL_SWITCH)
    database = Database(url)
    events = [
        {"event": "started", "time": (now - HOUR).isoformat(), "input": "Where is my refund for order A-1001?"},
        {"event": "model_called", "time": (now - HOUR).isoformat(), "model": "m-1", "output": "I will look that up."},
        {"event": "tool_called", "time": (now - HOUR).isoformat(), "tool": "look_up", "arguments": {"order": "A-1001"},
         "result": HOSTILE},
    ]  # fmt: skip
    usual = Case(
        case_id="case-0a1b2c", agent="refund-desk", run_id="r-7", state="open", to="human", opened_by="kill-switch",
        opened_at=now - HOUR, updated_at=now, ticket="T-1184", key="agent.refund-desk", epoch=7,
        reason="refunds the wrong customers", asked="Where is my refund for order A-1001?",
    )  # fmt: skip
    taken = replace(usual, case_id="case-0d4e5f", run_id="r-8", state="taken", taken_by="ben", asked=HOSTILE,
                    doubt="the agent's last answer may have been sent")  # fmt: skip

    def write(conn: object) -> None:
        for case in (usual, taken):
            body = CaseOpened(
                case_id=case.case_id, agent=case.agent, run_id=case.run_id, to="human", by="eva", reason=case.reason,
                opened_by="kill-switch", customer="c-7", events=events, left_out=2,
            )  # fmt: skip
            case_store.save(conn, case, body, new=True)  # type: ignore[arg-type]
            case_store.note(conn, case.case_id, [Note(now, "kill-switch", "opened", case.reason)])  # type: ignore[arg-type]

    database.write_now(write)
    database.close()


@pytest.fixture
async def running(js: JetStreamContext, settings: Settings) -> AsyncIterator[Running]:
    fill_log(settings)
    fill_cases(settings)
    await put(js, "agent.refund-desk", b'{"state":"running"}')
    await apply_card(js, agent="refund-desk", applied_at=LONG_AGO, drill="weekly", drill_hours="02:00-05:00")
    await apply_card(js, agent="invoice-helper", drill="monthly", drill_hours="22:00-02:00")
    result = SwitchDrilled(
        drill_id="drill-20261101-0a0a0a", agent="refund-desk", by="kill-switch (scheduled)", scheduled=True,
        started_at=utc_now() - timedelta(days=20), passed=False, failures=["2 of 40 tickets were lost"],
        effective_seconds=0.4, last_call_seconds=0.2, restore_seconds=1.9, tickets=40, answered=30, fell_back=8, lost=2,
    )  # fmt: skip
    await drill.publish(js, result, "result")
    await drill.publish(
        js, replace_struct(result, drill_id="drill-20261025-0b0b0b", passed=True, failures=[], lost=0, fell_back=10,
                           first_fallback_seconds=0.6, started_at=utc_now() - timedelta(days=27)), "result",
    )  # fmt: skip
    await Switchboard(js).halt_tool("invoice-helper", "pay", reason=HOSTILE, by="ben@shop")
    await js.publish(subjects.key_subject(subjects.SWITCH, subjects.runs_key("invoice-helper")), b"[1]")
    began = AuditActed(
        by="ben@shop", role="operator", action="drill.began", target="refund-desk",
        detail={"drill": "drill-20261102-0c0c0c"},
    )  # fmt: skip
    said = codec.envelope("audit", "acted", began, source="/services/console")
    await js.publish(subjects.audit("refund-desk", "acted"), codec.encode(said))
    said = alert("acknowledged", alert_id="a-9", by="cid@shop")
    await js.publish(subjects.alert("desk", "acknowledged"), codec.encode(said))
    async with console(settings) as one:
        yield one


def replace_struct(one: SwitchDrilled, **fields: object) -> SwitchDrilled:
    import msgspec

    return msgspec.structs.replace(one, **fields)


PAGES = {
    "alerts": "/alerts", "alerts-empty": "/alerts?agent=other&severity=info", "alert": "/alerts/a-1",
    "alert-hostile": "/alerts/a-3", "queue": "/queue", "queue-empty": "/queue?about=c-9&agent=other",
    "case": "/queue/case-0a1b2c", "case-data": "/queue/case-0a1b2c?raw=1", "drills": "/drills",
    "drill": "/drills/drill-20261101-0a0a0a", "drill-plan": "/drills/plan?agent=refund-desk",
    "drill-lost": "/drills/drill-20261102-0c0c0c", "stop": "/stop",
    "stop-mend": "/stop/mend?agent=invoice-helper&list=runs", "writes": "/writes",
    "audit": "/audit",
}  # fmt: skip


@pytest.mark.parametrize(("theme", "size"), LOOKS)
async def test_every_page_reads_well_in_every_theme_and_size_and_runs_nothing_of_what_it_shows(
    browser: Browser, running: Running, theme: str, size: tuple[int, int]
) -> None:
    async with window(browser, running, by="eva", size=size, theme=theme) as page:  # type: ignore[arg-type]
        for name, address in PAGES.items():
            await page.goto(address)
            await picture(page, f"{name}-{theme}-{size[0]}")
            assert await axe(page) == [], name
            assert await fits(page), name
            assert await page.evaluate("window.ran") is None
            assert "\u202e" not in await page.inner_text("main")


async def test_an_alert_is_taken_on_by_one_press_of_a_thumb(
    browser: Browser, running: Running, settings: Settings, js: JetStreamContext
) -> None:
    async with window(browser, running, Role.OPERATOR, by="eva", size=PHONE) as page:
        await page.goto("/alerts")
        first = page.locator(".list > li").first
        button = first.locator("button")
        box = await eventually(button.bounding_box)
        assert box["height"] >= 44 and box["width"] >= 44
        await button.tap()
        await page.wait_for_selector(".flash")
        assert "You have it" in await page.inner_text(".flash")
        await picture(page, "alerts-taken-390")
        assert await axe(page) == []
        # Once the log has read it, the open page shows so by itself.
        stored = await js.get_last_msg(subjects.GOVERNANCE, subjects.alert("refund-desk", "acknowledged"))
        event = codec.decode(stored.subject or "", stored.data or b"")
        assert event.data.alert_id == "a-1"
        database = Database(settings.database_for(subjects.LOGGER))
        await database.write(lambda conn: store.save_alert(conn, event))
        database.close()
        await js.publish(subjects.alert("refund-desk", "resolved"), codec.encode(alert("resolved", reason="x")))
        await eventually(lambda: _is_gone(page))


async def test_a_note_that_is_being_written_outlasts_what_happens_to_its_alert(
    browser: Browser, running: Running, js: JetStreamContext
) -> None:
    async with window(browser, running, Role.OPERATOR, by="eva") as page:
        await page.goto("/alerts/a-1")
        await expect(page.locator("[data-live-state]")).to_contain_text("Live:")
        await page.fill("#note", "Looking at the refunds")
        await js.publish(subjects.alert("refund-desk", "resolved"), codec.encode(alert("resolved", reason="x")))
        await expect(page.locator("[data-news]")).to_contain_text("Something changed.")
        assert await page.input_value("#note") == "Looking at the refunds"


async def test_what_is_written_to_a_case_outlasts_what_happens_to_it(
    browser: Browser, running: Running, js: JetStreamContext
) -> None:
    async with window(browser, running, Role.OPERATOR, by="eva") as page:
        await page.goto("/queue/case-0a1b2c")
        await expect(page.locator("[data-live-state]")).to_contain_text("Live:")
        await page.fill("#text-take", "I know this customer")
        await js.publish("midwatch.case.refund-desk.taken", b"{}")
        await expect(page.locator("[data-news]")).to_contain_text("Something changed.")
        assert await page.input_value("#text-take") == "I know this customer"
        await page.get_by_role("button", name="Show it").click()
        await expect(page.locator("[data-news]")).to_be_hidden()
        assert await page.input_value("#text-take") == "I know this customer"


async def test_a_key_that_is_held_down_takes_on_one_alert(browser: Browser, running: Running) -> None:
    async with window(browser, running, Role.OPERATOR, by="eva", silent=False) as page:
        await page.goto("/alerts")
        await page.locator("main a[href^='/alerts/']").first.click()
        await page.wait_for_selector("[data-key=a]")
        async with page.expect_navigation():
            await page.keyboard.down("a")
        for _ in range(3):
            await page.keyboard.down("a")
        await page.keyboard.up("a")
        await page.goto("/alerts")
    taken = [one["target"] for one in await running.recorded() if one["action"] == "alert.acknowledged"]
    assert len(taken) == 1


async def _is_gone(page: object) -> bool:
    return "spent $52.10" not in await page.inner_text("main")  # type: ignore[attr-defined]
