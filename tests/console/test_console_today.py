"""What Today and Agents make of odd cards, of what cannot be read, and of days that differ; where they lead."""

import asyncio
import re
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from nats.js import JetStreamContext

from console_helpers import Person, console, keep_digest
from digest_helpers import facts, runs, write
from helpers import eventually
from kept_helpers import a_case, insert
from logged import alert
from midwatch.contracts import codec, control, subjects
from midwatch.contracts.control import BudgetRule, SwitchRecord
from midwatch.contracts.control import Route as Stage
from midwatch.contracts.envelope import utc_now
from midwatch.contracts.governance import InstanceReport, SwitchContained
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Switchboard
from midwatch.testing import card
from midwatch_services.cards import bucket
from midwatch_services.console import reading
from midwatch_services.console.access.roles import Role
from midwatch_services.kill_switch import tables as switch_tables
from midwatch_services.reviewer_sampler import tables as review_tables
from reading_helpers import AGENT, OTHER, arm, fill, refund, refund_card, run, told_of

DAY = timedelta(days=1)
_DELETED = {"KV-Operation": "DEL"}


def spoil(settings: Settings, service: str) -> None:
    """Has that service's database answer nothing."""
    path = Path(settings.database_for(service).removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"this is no database" * 100)


async def text_of(ann: Person, path: str) -> str:
    page = await ann.get(path)
    assert page.status_code == 200, (path, page.text)
    return re.sub(r"\s+", " ", page.text)


async def cells(ann: Person, name: str) -> list[str]:
    """What stands in an agent's line, a cell each."""
    page = await text_of(ann, "/agents")
    row = page[page.index(f'<a href="/agents/{name}">') :]
    found = re.findall(r"<td[^>]*>(.*?)</td>", row[: row.index("</tr>")])
    return [re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", cell)).strip() for cell in found]


async def test_whoever_looks_again_after_hours_sees_today_as_it_is(
    js: JetStreamContext, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(monotonic=time.monotonic)
    monkeypatch.setattr(reading, "time", clock)
    midnight = utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
    await fill(settings, run("r-1", midnight, refund("A-1")))
    async with console(settings) as running, running.person(Role.VIEWER) as ann:
        assert "today so far, in one run" in await text_of(ann, "/")
        await fill(settings, run("r-2", midnight, refund("A-2")))
        assert "today so far, in one run" in await text_of(ann, "/")
        clock.monotonic = lambda: time.monotonic() + 3 * 3600
        assert "today so far, in 2 runs" in await text_of(ann, "/")


async def test_a_budget_of_nothing_or_of_any_size_takes_no_page_down(js: JetStreamContext, settings: Settings) -> None:
    await fill(settings, run("r-1", utc_now() - timedelta(seconds=1), refund("A-1")))
    odd = {AGENT: "0", "nothing-spent": "0", "tiny": "0." + "0" * 400 + "1", "huge": "9" * 400}
    await arm(js, *(card(name, budget=BudgetRule(day=day)) for name, day in odd.items()))
    async with console(settings) as running, running.person(Role.VIEWER) as ann:
        assert (await cells(ann, AGENT))[4] == "$0.0093 of $0.00 ■ Budget used up"
        assert (await cells(ann, "nothing-spent"))[4] == "$0.00 of $0.00"
        for name in odd:
            await text_of(ann, f"/agents/{name}")
        page = await text_of(ann, "/")
        assert page.count("Its budget for today is used up (100 %):") == 1
        assert "100 % of the $0.00 that today may cost." in await text_of(ann, f"/?agent={AGENT}")


async def test_nothing_is_called_calm_or_none_that_could_not_be_read(js: JetStreamContext, settings: Settings) -> None:
    spoil(settings, subjects.KILL_SWITCH)
    await arm(js, refund_card())
    async with console(settings) as running, running.person(Role.VIEWER) as ann:
        page = await text_of(ann, "/today/needs")
        assert "Nothing needs you now" not in page
        assert "Not all of it could be read: what could needs nobody." in page
        spoil(settings, subjects.LOGGER)
        spoil(settings, subjects.REVIEWER_SAMPLER)
        assert (await cells(ann, AGENT))[1:] == ["not known"] * 4 + ["none", "not known"]
        assert "not known" in (await text_of(ann, f"/agents/{AGENT}"))


async def test_alerts_are_those_of_the_bus_where_the_run_log_is_away(js: JetStreamContext, settings: Settings) -> None:
    spoil(settings, subjects.LOGGER)
    for one in (alert("raised", alert_id="a-1", title="It loops", at=utc_now()),
                alert("raised", alert_id="a-2", title="By the way", severity="info", at=utc_now())):  # fmt: skip
        await js.publish(subjects.alert("desk", "raised"), codec.encode(one))
    async with console(settings) as running, running.person(Role.VIEWER) as ann:
        page = await text_of(ann, "/today/needs")
        assert '<a href="/alerts/a-1"><bdi>It loops</bdi></a>' in page
        assert "By the way" not in page
        assert "The alerts are those of the last 30 days, as the bus has them." in page
        assert "Nothing has run here yet" not in await text_of(ann, "/")
        assert "No agents yet" not in await text_of(ann, "/agents")


async def test_the_steps_for_a_newcomer_stay_and_are_ticked_until_something_ran(
    js: JetStreamContext, settings: Settings
) -> None:
    async with console(settings) as running, running.person(Role.VIEWER) as ann:
        assert "</span> Done</span>" not in await text_of(ann, "/")
        await arm(js, refund_card())
        page = await eventually(lambda: _ticked(ann))
        assert page.count("</span> Done</span>") == 2
        assert "python examples/ten_line_agent.py" in page
        assert "What needs you" in page
        await fill(settings, run("r-1", utc_now(), refund("A-1")))
        assert "Nothing has run here yet" not in await eventually(lambda: _used(ann))


async def test_the_example_is_not_started_under_the_card_of_another_agent(
    js: JetStreamContext, settings: Settings
) -> None:
    await bucket.apply(js, card("my-agent"), by="ann", now=utc_now())
    async with console(settings) as running, running.person(Role.VIEWER) as ann:
        page = await text_of(ann, "/")
        assert "Start your agent, under the name on its page." in page
        assert "python examples/ten_line_agent.py" not in page


async def _ticked(ann: Person) -> str:
    page = await text_of(ann, "/")
    assert "</span> Done</span>" in page
    return page


async def _used(ann: Person) -> str:
    page = await text_of(ann, "/")
    assert "What it costs" in page
    return page


async def test_however_many_alerts_the_bus_has_all_of_them_are_counted(
    js: JetStreamContext, settings: Settings
) -> None:
    spoil(settings, subjects.LOGGER)
    bodies = [codec.encode(alert("raised", alert_id=f"a-{n}", at=utc_now())) for n in range(1205)]
    for at in range(0, len(bodies), 200):
        some = bodies[at : at + 200]
        await asyncio.gather(*(js.publish(subjects.alert("desk", "raised"), body) for body in some))
    async with console(settings) as running, running.person(Role.VIEWER) as ann:
        assert "1,200 more alerts" in await text_of(ann, "/today/needs")


async def test_what_needs_somebody_leads_to_where_it_is_told(js: JetStreamContext, settings: Settings) -> None:
    now = utc_now()
    await fill(settings, iter(()), told_of("r/1", now))
    await arm(js, refund_card(), card(OTHER))
    await Switchboard(js).halt_agent(OTHER, reason="wrong prices", by="vera")
    instances = [InstanceReport(agent=OTHER, instance="pod-1", state="unconfirmed")]
    report = SwitchContained(key=f"tools.{OTHER}", target="pay", epoch=7, requested_at=now, instances=instances)
    record = control.encode(SwitchRecord(state="halted", by="vera", reason="x", at=now))
    insert(settings, subjects.KILL_SWITCH, switch_tables.Halt, [{
        "key": f"tools.{OTHER}", "target": "pay", "epoch": 7, "requested_at": switch_tables.micros(now),
        "record": record, "phase": "unconfirmed", "report": control.encode(report), "runs_stopped": 0, "cases": 0,
    }])  # fmt: skip
    async with console(settings) as running, running.person(Role.VIEWER) as ann:
        page = await text_of(ann, "/")
        links = [link.replace("&amp;", "&") for link in re.findall(r'href="((?:/alerts|/stop/proof)[^"]*)"', page)]
        assert [link for link in links if link != "/alerts"] == [
            f"/stop/proof?what=agent&agent={OTHER}", f"/stop/proof?what=tool&agent={OTHER}&tool=pay",
            "/alerts/alert-r%2F1",
        ]  # fmt: skip
        assert "To the alerts" in page
        for link in links[:-2]:
            await text_of(ann, link)


async def test_customers_whom_somebody_has_are_told_apart_from_those_who_wait(
    js: JetStreamContext, settings: Settings
) -> None:
    states = ["open", "open", "taken", "offered", "closed"]
    rows = [a_case(n, utc_now(), agent=AGENT, state=state) for n, state in enumerate(states)]
    insert(settings, subjects.KILL_SWITCH, switch_tables.Case, rows)
    async with console(settings) as running, running.person(Role.VIEWER) as ann:
        page = await text_of(ann, "/today/needs")
        assert "2 customers wait for a person" in page
        assert "2 more customers are in somebody&#39;s hands already, or offered to another agent." in page


async def test_however_many_customers_wait_all_of_them_are_counted(js: JetStreamContext, settings: Settings) -> None:
    first = utc_now() - 3 * DAY
    rows = [a_case(n, first + timedelta(seconds=n), agent=AGENT if n < 2400 else OTHER) for n in range(2500)]
    insert(settings, subjects.KILL_SWITCH, switch_tables.Case, rows)
    async with console(settings) as running, running.person(Role.VIEWER) as ann:
        page = await text_of(ann, f"/today/needs?agent={AGENT}")
        assert "2,400 customers wait for a person" in page
        assert f'The first came <time datetime="{first.isoformat(timespec="seconds")[:19]}' in page
        assert "2,500 customers wait for a person" in await text_of(ann, "/today/needs")


@pytest.mark.parametrize(
    ("body", "headers", "says", "budget"),
    [(b"{", None, "cannot be read, so the one before stays in force", "of $40.00"),
     (b"", _DELETED, "it runs under safe defaults since", "no budget a day")],
)  # fmt: skip
async def test_a_card_that_is_spoilt_or_removed_is_said_so_beside_the_one_before_it(
    js: JetStreamContext, settings: Settings, body: bytes, headers: dict[str, str] | None, says: str, budget: str
) -> None:
    await arm(js, refund_card(budget=BudgetRule(day="40")))
    await js.publish(subjects.key_subject(subjects.AGENTS, AGENT), body, headers=headers)
    async with console(settings) as running, running.person(Role.VIEWER) as ann:
        page = await text_of(ann, f"/agents/{AGENT}")
        assert says in page
        assert budget in page
        assert "Refund a duplicate charge of up to 50 dollars" in page
        assert "Versions of the card, the newest first" in page
        assert "It has no card" not in page


async def test_a_budget_is_held_against_the_utc_day_and_the_page_says_whose_days_it_tells(
    js: JetStreamContext, settings: Settings
) -> None:
    now = utc_now()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    # A run on one side of UTC's midnight, which is today in one of the two days alone.
    zone, begin, today, gone, cell = (
        ("Etc/GMT-1", midnight - timedelta(minutes=30), "$0.0093", "0 %", "$0.0093 Of the budget: $0.00 of $0.01")
        if now.hour < 23
        else ("Etc/GMT+1", midnight + timedelta(minutes=30), "$0.00", "93 %", "$0.00 Of the budget: $0.0093 of $0.01")
    )
    await fill(settings, run("r-1", begin, refund("A-1")))
    await arm(js, card(AGENT, budget=BudgetRule(day="0.01")))
    moved = settings.model_copy(update={"digest_zone": zone})
    async with console(moved) as running, running.person(Role.VIEWER) as ann:
        page = await text_of(ann, "/")
        assert f'<p class="figure">{today} ' in page
        assert f"{gone} of the $0.0100 that today may cost." in page
        assert "Budgets count the days of UTC" in page
        assert f"Today and yesterday are days of {zone}." in page
        assert (await cells(ann, AGENT))[4].startswith(cell.replace("$0.01", "$0.0100"))
        assert f"A day is one of {zone}." in await text_of(ann, "/agents")


async def test_money_spent_in_shadow_is_told_and_no_budget_is_held_against_it(
    js: JetStreamContext, settings: Settings
) -> None:
    await fill(settings, run("r-1", utc_now() - timedelta(seconds=1), refund("A-1"), mode="shadow"))
    await arm(js, card(AGENT, budget=BudgetRule(day="0.001")))
    await js.publish(subjects.key_subject(subjects.ROUTES, AGENT), control.encode(Stage(stage="shadow")))
    async with console(settings) as running, running.person(Role.VIEWER) as ann:
        assert "And $0.0093 in shadow, in one run: no budget counts it." in await text_of(ann, "/")
        assert (await cells(ann, AGENT))[4] == "$0.0093 in shadow no budget counts"


async def test_who_has_read_a_digest_stands_below_it_and_one_that_is_not_there_is_not_read(
    js: JetStreamContext, settings: Settings
) -> None:
    yesterday = utc_now().date() - DAY
    keep_digest(settings, write(facts(agent=None, day=yesterday, runs=runs(resolved=4, failed=1))))
    async with console(settings) as running, running.person(Role.VIEWER, "ann") as ann:
        for day in (yesterday - DAY, yesterday + DAY, yesterday + 9 * DAY):
            assert (await ann.act("/today/read", day=day.isoformat())).status_code == 404
        assert await running.recorded() == []
        assert "Mark as read" in await text_of(ann, "/")
        await ann.act("/today/read", day=yesterday.isoformat())
        page = await text_of(ann, "/")
        assert "You read this" in page
        assert "Mark as read" not in page
        async with running.person(Role.VIEWER, "ben") as ben:
            page = await text_of(ben, "/")
            assert "ann read this" in page
            assert "Mark as read" in page


async def test_alerts_and_reviews_have_their_lines_of_days(js: JetStreamContext, settings: Settings) -> None:
    now = utc_now()
    raised = [told_of("r-1", now), told_of("r-2", now - 3 * DAY), told_of("r-3", now - 3 * DAY, severity="info")]
    await fill(settings, iter(()), *raised)
    given = {
        "agent": AGENT, "track": "live", "mode": "live", "rate": 1.0, "draw": 0.1, "day": "", "key_hash": "",
        "drawn": 1, "causes": "[]", "version": "1", "due_day": "", "second": 0,
    }  # fmt: skip
    insert(settings, subjects.REVIEWER_SAMPLER, review_tables.Queued, [
        given | {"run_id": "r-1", "sampled_at": (now - 3 * DAY).timestamp(), "state": "settled",
                 "settled_at": (now - DAY).timestamp()},
        given | {"run_id": "r-2", "sampled_at": (now - 2 * DAY).timestamp(), "state": "waiting", "settled_at": None},
    ])  # fmt: skip
    await arm(js, refund_card())
    async with console(settings) as running, running.person(Role.VIEWER) as ann:
        page = await text_of(ann, "/agents")
        zeros = ", ".join(["0"] * 10)
        assert f'aria-label="{AGENT}, alerts raised on each of the last 14 days: {zeros}, 1, 0, 0, 1"' in page
        waited = f"{AGENT}, runs that waited for a review as each of the last 14 days ended: {zeros}, 1, 2, 1, 1"
        assert f'aria-label="{waited}"' in page


async def test_an_agent_without_card_and_process_has_a_page_as_soon_as_anything_is_told_of_it(
    js: JetStreamContext, settings: Settings
) -> None:
    now = utc_now()
    told = told_of("r-9", now - 50 * DAY)
    events = [
        *run("r-1", now - 40 * DAY, refund("A-1"), agent="old-desk"),
        *run("r-2", now - DAY, refund("A-2"), agent="airline-llm_agent", mode="replay"),
    ]
    await fill(settings, iter(events), told)
    async with console(settings) as running, running.person(Role.VIEWER) as ann:
        page = await text_of(ann, "/agents/old-desk")
        assert "No run that counts here in the last 28 days. The last one of any kind (Live) began" in page
        assert "It runs under safe defaults" in page
        page = await text_of(ann, "/agents/airline-llm_agent")
        assert "The last one of any kind (Replay) began" in page
        assert "What it may do is not written down anywhere. Its last run was not in earnest." in page
        assert "It has no card" in await text_of(ann, f"/agents/{AGENT}")  # of which there is one alert alone
        assert (await ann.get("/agents/nobody")).status_code == 404


async def test_of_an_agent_that_nobody_starts_it_is_said_that_nothing_stops_it(
    js: JetStreamContext, settings: Settings
) -> None:
    await bucket.apply(js, card("new-desk"), by="ann", now=utc_now())
    async with console(settings) as running, running.person(Role.VIEWER) as ann:
        assert (await cells(ann, "new-desk"))[0] == "○ Not stopped: no process runs"


async def test_the_history_of_a_card_speaks_as_the_card_does_and_counts_no_other_agents_card(
    js: JetStreamContext, settings: Settings
) -> None:
    for one in (["Promise"], ["Promise", "Refund"]):
        await bucket.apply(js, card("desk", cannot=one), by="ann", now=utc_now())
    await bucket.apply(js, card("new-desk"), by="ann", now=utc_now())
    async with console(settings) as running, running.person(Role.VIEWER) as ann:
        page = await text_of(ann, "/agents/new-desk")
        assert "The first card." in page and "revision" not in page.lower()
        page = await text_of(ann, "/agents/desk")
        assert '<span class="mark">Added</span> What it may not do: <ins><bdi>Refund</bdi></ins>' in page
        assert "Revisions count the changes of all cards" in page


async def test_any_two_versions_of_a_card_are_held_against_each_other(js: JetStreamContext, settings: Settings) -> None:
    await arm(js, *(refund_card(budget=BudgetRule(day=day)) for day in ("10", "20", "30")))
    async with console(settings) as running, running.person(Role.VIEWER) as ann:
        page = await text_of(ann, f"/agents/{AGENT}?from=1&to=3")
        between = page[
            page.index("From revision 1 to revision 3") : page.index("</section>", page.index("From revision 1"))
        ]
        assert "budget, day: <del><bdi>$10</bdi></del> → <ins><bdi>$30</bdi></ins>" in between
        assert (await ann.get(f"/agents/{AGENT}?from=1&to=9")).status_code == 404


@pytest.mark.parametrize("is_kept", [True, False])
async def test_the_alerts_that_an_agent_is_said_to_have_are_those_of_the_list_behind_the_figure(
    js: JetStreamContext, settings: Settings, is_kept: bool
) -> None:
    now = utc_now()
    some = [
        told_of("r-1", now, severity="page"), told_of("r-2", now, severity="ticket", title='said "severity":"info"'),
        told_of("r-3", now, severity="info"), told_of("r-4", now, severity="page", mode="shadow"),
    ]  # fmt: skip
    if is_kept:
        await fill(settings, iter(()), *some)
    else:
        spoil(settings, subjects.LOGGER)
        for one in some:
            await js.publish(subjects.alert(AGENT, "raised"), codec.encode(one))
    await arm(js, card(AGENT))
    async with console(settings) as running, running.person(Role.VIEWER) as ann:
        for path in ("/agents", f"/agents/{AGENT}"):
            page = await text_of(ann, path)
            assert "Alerts to act on" in page
            found = re.search(r'<a href="(/alerts\?[^"]*)">2 open</a>', page)
            assert found, page
        listed = await text_of(ann, found[1].replace("&amp;", "&"))
        assert sorted(re.findall(r'href="/alerts/(alert-r-\d)"', listed)) == ["alert-r-1", "alert-r-2"]
        assert '<option value="wants" selected>To act on</option>' in listed
