"""A shop at work, for the pictures of the console: services that run, agents that report, alerts, cases, drills."""

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import msgspec
from nats.aio.client import Client
from nats.js import JetStreamContext

import pager_helpers
from console_helpers import Running
from digest_helpers import service as digest_service
from helpers import eventually
from logged import alert, publish
from midwatch.contracts import codec, subjects
from midwatch.contracts.control import BudgetRule, Card, Presence, ReviewRule, SwitchRule, ToolRule
from midwatch.contracts.envelope import utc_now
from midwatch.contracts.governance import CaseOpened, SwitchDrilled
from midwatch.contracts.reviews import ReviewAgreed
from midwatch.runtime.database import Database
from midwatch.runtime.service import run_services
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Switchboard
from midwatch_services import registry
from midwatch_services.cards import bucket
from midwatch_services.cards.meaning import meaning_hash
from midwatch_services.console.access.roles import Role
from midwatch_services.kill_switch.cases import case_store
from midwatch_services.kill_switch.cases.routing import Case, Note
from midwatch_services.kill_switch.drills import drill
from picture_runs import (
    COST,
    INVOICES,
    ORDERS,
    REFUNDS,
    TRIPPED,
    WENT_ON,
    WISHES,
    circling_run,
    four_weeks,
    left_run,
    long_run,
    steps,
)  # fmt: skip
from reading_helpers import fill
from review_helpers import judge

OWNER = "Head of Support <support-lead@shop.example>"
RUN, ALERT, CASE, DRILL = "run-2043", "alert-2043", "case-4f1c09", "drill-20261124-1c22d0"
_SERVICES = (
    subjects.LOGGER, subjects.COST_WATCHDOG, subjects.REVIEWER_SAMPLER, subjects.KILL_SWITCH, subjects.PAGER,
    subjects.DRIFT,
)  # fmt: skip
# Case, run, agent, ticket, what was asked, why it was left, how many hours ago, what may have been done already.
CASES = (
    (CASE, RUN, REFUNDS, "T-2043", "The lamp of A-2044 came broken. I would like my money back.",
     "It was stopped: it had cost more than one run may", 0.0, "the refund may have been sent"),
    (f"{CASE[:-1]}a", "run-2017", REFUNDS, "T-2017", "I want to speak to a person.", "The customer asks for one",
     1.1, ""),
    (f"{CASE[:-1]}b", "run-2021", ORDERS, "T-2021", "My parcel was stolen from the porch.",
     "Nothing in the card covers it", 0.6, ""),
)  # fmt: skip
_SAID_EVERY = 0.5  # seconds between two words of an instance


def cards() -> list[Card]:
    """The three agents' cards; the first of them twice, as it was and as it is."""
    refunds = Card(
        agent=REFUNDS, owner=OWNER, purpose="Answers billing tickets and refunds duplicate charges.",
        can=["Look up an order that the customer names", "Refund a duplicate charge of up to 50 dollars"],
        cannot=["Promise a delivery date", "Refund what is older than 90 days"],
        escalate_when=["The customer mentions a lawyer", "More than 50 dollars are at stake"],
        tools={"lookup_order": ToolRule(kind="read"), "lookup_refund": ToolRule(kind="read"),
               "issue_refund": ToolRule(kind="write")},
        budget=BudgetRule(run="1.00", day="1.50"), review=ReviewRule(rate=1.0, second_review=0.0),
        switch=SwitchRule(drill="weekly"),
    )  # fmt: skip
    before = msgspec.structs.replace(
        refunds, cannot=["Promise a delivery date"], budget=BudgetRule(run="0.50", day="1.00")
    )
    orders = Card(
        agent=ORDERS, owner=OWNER, purpose="Tells customers where their orders are, and changes addresses.",
        can=["Look up an order that the customer names", "Change the address of what is not sent yet"],
        tools={"track_parcel": ToolRule(kind="read"), "lookup_order": ToolRule(kind="read"),
               "change_address": ToolRule(kind="write")},
        budget=BudgetRule(run="0.50", day="0.50"), review=ReviewRule(rate=1.0),
    )  # fmt: skip
    invoices = Card(
        agent=INVOICES, owner="Accounts <accounts@shop.example>", purpose="Finds invoices and sends them once more.",
        can=["Send an invoice to the address on file"],
        tools={"find_invoice": ToolRule(kind="read"), "send_invoice": ToolRule(kind="write")},
        budget=BudgetRule(run="0.50"),
    )  # fmt: skip
    return [msgspec.structs.replace(one, hash=meaning_hash(one)) for one in (before, refunds, orders, invoices)]


class Instances:
    """The agents' processes: each says every half second what it obeys. `behind` are those that stopped reading."""

    def __init__(self, js: JetStreamContext) -> None:
        self._js, self.behind = js, dict[str, dict[str, int]]()

    async def say(self) -> None:
        revisions = {entry.key: entry.revision for entry in await Switchboard(self._js).entries()}
        for agent, names in ((REFUNDS, ("pod-1", "pod-2")), (ORDERS, ("pod-1",)), (INVOICES, ("worker-a",))):
            for place, name in enumerate(names):
                now = {key: revisions.get(key, 0) for key in subjects.switch_keys(agent)}
                applied = self.behind.get(f"{agent}/{name}", now)
                running = [] if agent == INVOICES else [f"run-{3000 + place}"]
                said = Presence(
                    agent=agent, instance=name, version="2026-11-20" if agent == REFUNDS else "7",
                    host=f"shop-{place + 1}", pid=4100 + place, applied=applied, runs_in_flight=running,
                    control_read_at=utc_now(), lease=60.0,
                )  # fmt: skip
                await self._js.publish(subjects.presence(agent, name), msgspec.json.encode(said))

    async def last(self) -> None:
        while True:
            await self.say()
            await asyncio.sleep(_SAID_EVERY)

    async def fall_behind(self, agent: str, name: str) -> None:
        """From now on this instance obeys what stands now, and nothing that is written later."""
        revisions = {entry.key: entry.revision for entry in await Switchboard(self._js).entries()}
        self.behind[f"{agent}/{name}"] = {key: revisions.get(key, 0) for key in subjects.switch_keys(agent)}


async def log_the_past(settings: Settings) -> None:
    """Four weeks of runs, in the log, with what reviewers agreed on."""
    now = utc_now()
    past = [*four_weeks(now)]
    ended = [one.event.data.run_id for one in past if one.event.event == "finished" and one.event.agent == REFUNDS]
    agreed = [
        codec.envelope(
            "review", "agreed", ReviewAgreed(run_id=run_id, agent=REFUNDS, verdict="fail" if at == 3 else "pass",
                                             by=["ben"]), source="/reviews", time=now - timedelta(hours=20),
        )
        for at, run_id in enumerate(ended[-30:-12])
    ]  # fmt: skip
    await fill(settings, iter(past), *agreed)


@contextlib.asynccontextmanager
async def shop(settings: Settings, js: JetStreamContext) -> AsyncIterator[Instances]:
    """The shop's services and agents, at work; the digest of yesterday is written."""
    for one in cards():
        await bucket.apply(js, one, by="ann" if one.agent != REFUNDS else "ben", now=utc_now())
    instances = Instances(js)
    await instances.say()
    os.environ["PAGER_SECRET"] = pager_helpers.SECRET
    with pager_helpers.listening() as people:
        pager_helpers.write_file(settings, pager_helpers.channels(people, "ops-chat", "ben-phone"))
        up = asyncio.Event()
        services = [registry.load(name) for name in _SERVICES]
        tasks = [
            asyncio.create_task(run_services(services, settings, started=lambda _: up.set(), restart=False)),
            asyncio.create_task(instances.last()),
        ]
        try:
            async with asyncio.timeout(60):
                await up.wait()
            # Due at once, at whatever hour the pictures are taken: a later clock would tell of what is yet to come.
            async with digest_service(settings.model_copy(update={"digest_at": "00:00"}), utc_now):
                pass
            yield instances
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def work(settings: Settings, nc: Client, js: JetStreamContext, running: Running) -> None:
    """What happens in the shop today: runs, alerts, cases, drills, a halt that is over, and people who act."""
    now = utc_now()
    await fill(settings, long_run(now))
    await fill(settings, circling_run(now))
    for case_id, run_id, agent, _, asked, reason, ago, _ in CASES:
        if case_id != CASE:
            await fill(settings, left_run(agent, run_id, now - timedelta(hours=ago), asked, reason))
    await _runs(js, now)
    await _alerts(js, now)
    await asyncio.to_thread(_cases, settings, now)
    await _drills(js, now)
    board = Switchboard(js)
    await board.halt_agent(INVOICES, reason="sent an invoice to the wrong customer", by="ben")
    await asyncio.sleep(2 * _SAID_EVERY)
    await board.resume_agent(INVOICES, reason="the address book is mended", by="ben")
    for agent, number, by in ((REFUNDS, 0, "rosa"), (REFUNDS, 1, "rosa"), (ORDERS, 0, "ben")):
        await judge(nc, by, f"run-{3000 + number}" if agent == REFUNDS else "run-3100", agent=agent, read=False)
    async with running.person(Role.ADMIN, "ann") as ann:
        await ann.act("/today/read")
        await ann.get("/runs.csv?agent=refund-desk")
    async with running.person(Role.OPERATOR, "ben") as ben:
        await eventually(lambda: _is_there(ben, "/alerts/alert-loop"), within=20)
        await ben.act("/alerts/alert-loop/acknowledge", here="")
        await ben.act(f"/queue/{CASE[:-1]}a/take", text="ZD-1184")
        # Today's sum may be half a minute old.
        await eventually(lambda: _is_there(ben, "/", r"\$1\.\d\d[^$]{0,80}today so far"), within=60)
    await eventually(lambda: pager_helpers.all_heard(js), within=20)


async def _is_there(person: Any, path: str, words: str = "") -> bool:
    page = await person.get(path)
    return page.status_code == 200 and re.search(words, page.text) is not None


async def _runs(js: JetStreamContext, now: datetime) -> None:
    for agent, base, many in ((REFUNDS, 3000, 8), (ORDERS, 3100, 3)):
        for place in range(many):
            wishes, run_id = WISHES[agent], f"run-{base + place}"
            ending = "open" if place == 0 else "resolved"
            for seq, (event, fields) in enumerate(steps(wishes[place % len(wishes)], f"A-{base + place}", ending)):
                at = now - timedelta(seconds=20 + 15 * place) + timedelta(seconds=1.5 * seq)
                await publish(js, event, agent=agent, run_id=run_id, seq=seq, at=at, ticket=f"T-{base + place}",
                              version="2026-11-20" if agent == REFUNDS else "7", **fields)  # fmt: skip


async def _alerts(js: JetStreamContext, now: datetime) -> None:
    hour, step = timedelta(hours=1), timedelta(seconds=1.5)
    said = [
        alert("raised", alert_id=ALERT, title=f"Run {RUN} has cost $1.20, more than the $1.00 that a run may cost",
              agent=REFUNDS, run_id=RUN, ticket="T-2043", dedupe_key="budget_run:2043", value=COST, limit="1.00",
              cost_basis="priced", action_taken="halted_run", evidence=f"midwatch show {RUN}",
              event_id=f"{REFUNDS}.{RUN}.{TRIPPED}", at=now + TRIPPED * step),
        alert("raised", alert_id="alert-loop", title=f"Run run-2044 called track_parcel {WENT_ON} times with the "
              "same arguments", agent=ORDERS, rule="loop_cycle", severity="ticket", run_id="run-2044",
              dedupe_key="loop:2044", action_taken="none", event_id=f"{ORDERS}.run-2044.{WENT_ON + 2}",
              at=now - 0.5 * hour + (WENT_ON + 2) * step),
        alert("raised", alert_id="alert-day", title="The agent refund-desk has spent $1.20 today, 80 % of its $1.50",
              agent=REFUNDS, rule="budget_day", severity="info", run_id=None, dedupe_key="budget_day",
              action_taken="none", at=now - timedelta(seconds=10)),
        alert("raised", alert_id="alert-slow", title="Half of the runs of invoice-helper take over 9 seconds",
              agent=INVOICES, rule="slow", severity="ticket", run_id=None, dedupe_key="slow", action_taken="none",
              at=now - 5 * hour),
    ]  # fmt: skip
    for one in said:
        await js.publish(subjects.alert(one.data.agent, "raised"), codec.encode(one))
    over = alert("resolved", alert_id="alert-slow", reason="they are as fast as before", repeats=2, at=now - 4 * hour)
    await js.publish(subjects.alert(INVOICES, "resolved"), codec.encode(over))


def _cases(settings: Settings, now: datetime) -> None:
    hour = timedelta(hours=1)
    events = [
        {"event": name, "time": (now + timedelta(seconds=1.5 * at)).isoformat(), **fields}
        for at, (name, fields) in enumerate(steps(WISHES[REFUNDS][1], "A-2044", "handed_off"))
        if name not in ("handed_off", "finished")
    ]

    def write(conn: Any) -> None:
        for case_id, run_id, agent, ticket, text, reason, ago, doubt in CASES:
            at = now - ago * hour
            case = Case(case_id=case_id, agent=agent, run_id=run_id, state="open", to="human", opened_by="kill-switch",
                        opened_at=at, updated_at=at, ticket=ticket, reason=reason, asked=text, doubt=doubt)  # fmt: skip
            body = CaseOpened(case_id=case_id, agent=agent, run_id=run_id, to="human", reason=reason, customer="c-17",
                              opened_by="kill-switch", events=events if run_id == RUN else events[:1])  # fmt: skip
            case_store.save(conn, case, body, new=True)
            case_store.note(conn, case_id, [Note(at, "kill-switch", "opened", reason)])

    database = Database(settings.database_for(subjects.KILL_SWITCH))
    try:
        database.write_now(write)
    finally:
        database.close()


async def _drills(js: JetStreamContext, now: datetime) -> None:
    passed = SwitchDrilled(
        drill_id=DRILL, agent=REFUNDS, by="kill-switch (scheduled)", scheduled=True, passed=True, restored=True,
        started_at=now - timedelta(days=2), effective_seconds=0.4, last_call_seconds=0.2, first_fallback_seconds=0.6,
        restore_seconds=1.9, tickets=40, answered=30, fell_back=10,
    )  # fmt: skip
    failed = msgspec.structs.replace(
        passed, drill_id="drill-20261104-9ab0e1", agent=ORDERS, started_at=now - timedelta(days=22), passed=False,
        failures=["2 of 40 tickets were lost"], fell_back=8, lost=2, scheduled=False, by="ben",
    )  # fmt: skip
    for one in (failed, passed):
        await drill.publish(js, one, "result")
