"""What the pages that one reads say, asked over HTTP from a real console beside real databases."""

import csv
import io
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from nats.js import JetStreamContext

from console_helpers import Person, Running, console
from helpers import eventually
from midwatch.contracts import subjects
from midwatch.contracts.control import BudgetRule
from midwatch.contracts.envelope import utc_now
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Switchboard
from midwatch.testing import card
from midwatch_services.console.access.roles import Role
from midwatch_services.console.pages import runs as runs_page
from midwatch_services.reviewer_sampler import tables as review_tables
from reading_helpers import (
    AGENT,
    FORMULA,
    HOSTILE,
    NEW,
    OLD,
    OTHER,
    arm,
    fill,
    judged,
    refund,
    refund_card,
    run,
    told_of,
    two_weeks,
)

NOW = utc_now()
PAGES = (
    "/", "/today/needs", "/agents", f"/agents/{AGENT}", "/runs", "/runs?text=charged", f"/runs/{AGENT}/run-1001",
    f"/runs/{AGENT}/run-1001/rules", f"/compare?a={AGENT}/run-1001&b={AGENT}/run-1002",
)  # fmt: skip
_RUN = re.compile(r'<th scope="row"><a href="(/runs/[^"]+)"')
_OLDER = re.compile(r'rel="next" href="([^"]+)"')


@pytest.fixture
async def shop(js: JetStreamContext, settings: Settings) -> AsyncIterator[Running]:
    """Two agents with two weeks of runs; one run has an alert and the judgement of one reviewer."""
    await fill(settings, two_weeks(NOW), told_of("run-1001", NOW), judged("run-1001", NOW))
    await arm(js, refund_card())
    await arm(js, refund_card(budget=BudgetRule(run="0.50", day="40")), card(OTHER), by="ben")
    async with console(settings) as one:
        yield one


def _linked(text: str) -> list[str]:
    return [link.split("?")[0].rsplit("/", 1)[1] for link in _RUN.findall(text)]


async def listed(ann: Person, path: str) -> list[str]:
    """The ids of the runs on a page of the list, as their links have them."""
    page = await ann.get(path)
    assert page.status_code == 200, page.text
    return _linked(page.text)


async def test_every_page_answers_within_its_weight_and_to_nobody_who_is_not_signed_in(shop: Running) -> None:
    async with shop.person(Role.VIEWER) as ann, shop.person() as stranger:
        for path in PAGES:
            page = await ann.get(path)
            assert (path, page.status_code, len(page.content) < 200_000) == (path, 200, True)
            assert (path, (await stranger.get(path)).status_code) == (path, 303)
        for path in ("/runs.csv", f"/runs/{AGENT}/run-1001/dossier"):
            assert (await stranger.get(path)).status_code == 303
        for path in ("/agents/nobody", "/agents/No", "/runs/desk/none", "/runs/No/r", "/runs?before=x", "/compare?a=x",
                     f"/runs/{AGENT}/run-1001?page=x", f"/runs/{AGENT}/run-1001?page=0", "/runs/desk/none/rules",
                     "/runs/desk/none/dossier"):  # fmt: skip
            assert (path, (await ann.get(path)).status_code) == (path, 404)


async def test_today_says_what_needs_somebody_and_what_it_costs(js: JetStreamContext, settings: Settings) -> None:
    begin = utc_now() - timedelta(seconds=1)
    events = [*run("r-1", begin, refund("A-1")), *run("r-2", begin, refund("A-2"), agent=OTHER)]
    await fill(settings, iter(events), told_of("r-1", begin, severity="ticket"), told_of("r-0", begin, severity="info"))
    await arm(js, refund_card(budget=BudgetRule(day="0.01")), card(OTHER))
    await Switchboard(js).halt_agent(OTHER, reason="wrong prices", by="vera")
    async with console(settings) as running, running.person(Role.VIEWER) as ann:
        page = (await ann.get("/")).text
        assert "For somebody to look at" in page
        assert page.count("more than the $1.00 that a run may cost") == 1  # what is for information needs nobody
        assert f'<a href="/agents/{OTHER}">{OTHER}</a>: <bdi>wrong prices</bdi>' in page
        assert "today so far, in 2 runs" in page
        assert "93 % of the $0.0100 that today may cost." in page.replace("  ", " ")
        assert "93 % of its budget for today is gone:" in page
        assert "One agent has no budget for a day." in page
        own = (await ann.get(f"/?agent={OTHER}")).text
        assert "today so far, in one run" in own
        assert "For somebody to look at" not in own
        part = await ann.get("/today/needs", headers={"hx-request": "true"})
        assert "wrong prices" in part.text
        assert "<html" not in part.text


async def test_the_first_start_says_what_to_do_in_order(running_with_nothing: Running) -> None:
    async with running_with_nothing.person(Role.VIEWER) as ann:
        page = (await ann.get("/")).text
        commands = re.findall(r'<code class="command">([^<]+)</code>', page)
        assert commands == [
            "source .venv/bin/activate", "midwatch card new refund-desk", "midwatch apply agents/refund-desk.yaml",
            "python examples/ten_line_agent.py", "midwatch demo --keep",
        ]  # fmt: skip
        assert "No agents yet" in (await ann.get("/agents")).text
        assert "No runs yet" in (await ann.get("/runs")).text


@pytest.fixture
async def running_with_nothing(js: JetStreamContext, settings: Settings) -> AsyncIterator[Running]:
    async with console(settings) as one:
        yield one


async def test_an_agent_is_told_in_a_line_and_on_its_page(js: JetStreamContext, settings: Settings) -> None:
    begin = utc_now() - timedelta(seconds=1)
    events = [
        *run("r-1", begin, refund("A-1")), *run("r-2", begin, refund("A-2", good=False)),
        *run("r-3", begin, refund("A-3")[:3]), *run("r-4", begin, refund("A-4"), mode="shadow"),
        *run("r-5", begin - timedelta(days=3), refund("A-5"), version=OLD),
    ]  # fmt: skip
    await fill(settings, iter(events), told_of("r-1", begin))
    await arm(js, refund_card())
    await arm(js, refund_card(budget=BudgetRule(run="0.50", day="40")), by="ben")
    async with console(settings) as running, running.person(Role.VIEWER) as ann:
        page = re.sub(r"\s+", " ", (await ann.get("/agents")).text)
        row = page[page.index('<th scope="row">') : page.index("</tr>", page.index('<th scope="row">'))]
        cells = [re.sub(r"<[^>]+>", " ", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)]
        cells = [re.sub(r"\s+", " ", cell).strip() for cell in cells]
        assert cells == [
            "● Armed 1 of 1 instance obeys", "3", "50 %", "50 %", "$0.0233 of $40.00", "■ 1 open", "none",
        ]  # fmt: skip
        zeros = ", ".join(["0"] * 10)
        assert f'aria-label="{AGENT}, runs on each of the last 14 days: {zeros}, 1, 0, 0, 3"' in page
        own = (await ann.get(f"/agents/{AGENT}")).text
        assert "Refund a duplicate charge of up to 50 dollars" in own
        assert re.search(r"budget, run: <del><bdi>\$1</bdi></del> → <ins><bdi>\$0.50</bdi></ins>", own)
        assert "by ben, revision 2" in own
        table = re.sub(r"<[^>]+>|\s+", " ", own[own.index("By version") : own.index("What changed in it lately")])
        assert re.search(rf"{NEW} +3 +50 % +50 % +\$0.0077 +10 seconds", table)
        assert re.search(rf"{OLD} +1 +100 % +0 % +\$0.0093 +10 seconds", table)


async def test_a_list_is_read_page_by_page_and_each_run_stands_in_it_once(shop: Running) -> None:
    async with shop.person(Role.VIEWER) as ann:
        seen: list[str] = []
        path = "/runs"
        while path:
            page = await ann.get(path)
            seen += _linked(page.text)
            found = _OLDER.search(page.text)
            path = found[1].replace("&amp;", "&") if found else ""
        assert len(seen) == len(set(seen)) == 66 + 15
        assert seen[0] == "order-0"


async def test_every_filter_narrows_and_stands_in_the_address(shop: Running) -> None:
    async with shop.person(Role.VIEWER) as ann:
        assert await listed(ann, "/runs?ticket=T-1001") == ["run-1001"]
        assert await listed(ann, "/runs?alert=budget_run") == ["run-1001"]
        assert await listed(ann, "/runs?verdict=pass") == ["run-1001"]
        assert await listed(ann, "/runs?text=A-1042") == ["run-1042"]
        assert await listed(ann, f"/runs?agent={OTHER}&since=36h") == ["order-0", "order-1"]
        assert await listed(ann, f"/runs?agent={OTHER}&until=13.5d") == ["order-14"]
        assert len(await listed(ann, f"/runs?agent={AGENT}&version={NEW}&resolution=handed_off&tool=issue_refund")) == 7
        assert await listed(ann, "/runs?cost_over=1") == []
        assert len(await listed(ann, "/runs?cost_under=0.01&slower_than=10s&mode=live")) == 50
        page = (await ann.get("/runs?ticket=T-1001&cost_over=much")).text
        assert "much is no amount of US dollars: write 0.50." in page
        assert 'value="T-1001"' in page
        assert (await ann.get("/runs.csv?cost_over=much")).status_code == 400


async def test_the_file_holds_what_the_list_does_and_no_formula_and_is_recorded(
    shop: Running, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    nasty = [
        ("started", {"input": FORMULA, "customer": "@cmd"}),
        ("finished", {"resolution": "resolved", "output": "-1"}),
    ]
    await fill(settings, run("=1+1", utc_now(), nasty, ticket="+1", agent="nasty"))
    async with shop.person(Role.VIEWER, by="vera") as ann:
        page = await ann.get("/runs.csv?agent=nasty&text=evil")
        assert page.headers["content-type"] == "text/csv; charset=utf-8"
        assert re.fullmatch(r'attachment; filename="runs-[0-9-]+\.csv"', page.headers["content-disposition"])
        rows = list(csv.DictReader(io.StringIO(page.text)))
        assert [(row["run"], row["ticket"], row["customer"], row["asked"], row["answered"]) for row in rows] == [
            ("'=1+1", "'+1", "'@cmd", f"'{FORMULA}", "'-1")
        ]  # fmt: skip
        monkeypatch.setattr(runs_page, "_AT_ONCE", 7)
        whole = list(csv.reader(io.StringIO((await ann.get("/runs.csv")).text)))
        assert len(whole) == 1 + 66 + 15 + 1
        assert len({row[0] for row in whole}) == len(whole)
        monkeypatch.setattr(runs_page, "MOST", 10)
        cut = list(csv.reader(io.StringIO((await ann.get("/runs.csv")).text)))
        assert (len(cut), cut[-1]) == (12, ["Cut: these are the newest 10 runs. Narrow the search for the others."])
    kept = [(one["by"], one["action"], one["detail"]) for one in await shop.recorded()]
    assert kept[0] == ("vera", "runs.exported", {"filters": "agent text"})


async def test_one_goes_on_through_the_list_and_back(shop: Running) -> None:
    async with shop.person(Role.VIEWER) as ann:
        ids: list[str] = []
        path = "/runs"
        while path:
            page = (await ann.get(path)).text
            ids += _linked(page)
            found = _OLDER.search(page)
            path = found[1].replace("&amp;", "&") if found else ""
        first = _RUN.search((await ann.get("/runs")).text)
        path, walked = first[1].replace("&amp;", "&") if first else "", list[str]()
        while path:
            page = (await ann.get(path)).text
            walked.append(path.split("?")[0].rsplit("/", 1)[1])
            found = re.search(r'rel="next" href="([^"]+)" data-key="n"', page)
            last, path = path, found[1].replace("&amp;", "&") if found else ""
        assert walked == ids
        back = list[str]()
        while last:
            back.append(last.split("?")[0].rsplit("/", 1)[1])
            found = re.search(r'rel="prev" href="([^"]+)" data-key="p"', (await ann.get(last)).text)
            last = found[1].replace("&amp;", "&") if found else ""
        assert back == ids[::-1]


@pytest.mark.parametrize("asked", ["", "&mode=live", "&text=hello"])
async def test_one_pages_back_the_way_one_came_though_runs_arrive_meanwhile(
    running_with_nothing: Running, settings: Settings, asked: str
) -> None:
    talk = [("started", {"input": "Hello"}), ("finished", {"resolution": "resolved"})]
    events = [one for at in range(130) for one in run(f"r-{at:03}", NOW - timedelta(minutes=at), talk)]
    await fill(settings, iter(events))
    wanted = [f"r-{at:03}" for at in range(130)]
    async with running_with_nothing.person(Role.VIEWER) as ann:
        page = (await ann.get(f"/runs?agent={AGENT}{asked}")).text
        pages = [_linked(page)]
        while found := _OLDER.search(page):
            page = (await ann.get(found[1].replace("&amp;", "&"))).text
            pages.append(_linked(page))
        assert pages == [wanted[:50], wanted[50:100], wanted[100:]]
        await fill(settings, run("r-new", NOW + timedelta(minutes=1), talk))
        back = list[list[str]]()
        while found := re.search(r'rel="prev" href="(/runs[^"]+)"', page):
            page = (await ann.get(found[1].replace("&amp;", "&"), follow_redirects=True)).text
            back.append(_linked(page))
        assert back == [wanted[50:100], wanted[:50], ["r-new", *wanted[:49]]]
        assert "Newest" not in page


async def test_a_long_run_is_cut_into_parts_and_a_long_line_is_shown_when_asked(
    running_with_nothing: Running, settings: Settings
) -> None:
    steps = [("started", {"input": "Hello"}), *(("said", {"by": "agent", "text": f"Line {n}."}) for n in range(2, 251))]
    line = "0123456789" * 100_000
    await fill(
        settings,
        run("long", utc_now(), steps),
    )
    await fill(
        settings, run("wide", utc_now(), [("started", {"input": line}), ("said", {"by": "agent", "text": line})])
    )
    async with running_with_nothing.person(Role.VIEWER) as ann:
        shown = []
        for part in (1, 2, 3, 4, 5):
            page = (await ann.get(f"/runs/{AGENT}/long?page={part}")).text
            assert f"Part {part} of 5: 250 events in all." in page
            assert len(page) < 200_000
            shown += [int(one) for one in re.findall(r"Line (\d+)\.", page)]
        assert shown == list(range(2, 251))
        page = (await ann.get(f"/runs/{AGENT}/wide")).text
        assert len(page) < 30_000
        links = re.findall(r'href="([^"]+all=[^"]+)">Show all of it', page)
        assert len(links) == 2
        one = (await ann.get(links[0].replace("&amp;", "&"))).text
        assert one.count(line) == 1
        assert len(one) < 1_100_000


async def test_a_verdict_is_told_only_once_it_is_settled(shop: Running, settings: Settings) -> None:
    url = settings.database_for(subjects.REVIEWER_SAMPLER)
    migrate(url, subjects.REVIEWER_SAMPLER)
    database = Database(url, name=subjects.REVIEWER_SAMPLER)
    queue = review_tables.Queued.__table__
    row = {
        "agent": AGENT, "run_id": "run-1001", "track": "live", "mode": "live", "rate": 1.0, "draw": 0.1,
        "day": "2026-11-26",
        "key_hash": "", "sampled_at": 0.0, "state": "judged", "drawn": 1, "causes": "[]", "version": NEW, "due_day": "",
        "second": 1,
    }  # fmt: skip
    database.write_now(lambda conn: conn.execute(queue.insert().values(**row)))
    async with shop.person(Role.REVIEWER) as ann:
        page = (await ann.get(f"/runs/{AGENT}/run-1001")).text
        assert "To be reviewed, not settled yet" in page
        assert "by ben" not in page
        assert "1 to review" in (await ann.get("/agents")).text or "To review" in (await ann.get("/agents")).text
        database.write_now(lambda conn: conn.execute(queue.update().values(state="settled", verdict="pass")))
        page = (await ann.get(f"/runs/{AGENT}/run-1001")).text
        assert "● </span> Good" in page.replace("●</span>", "● </span>")
        assert "by ben" in page
    database.close()


async def test_two_runs_are_compared_and_the_newest_of_another_version_is_found(shop: Running) -> None:
    async with shop.person(Role.VIEWER) as ann:
        page = (await ann.get(f"/compare?a={AGENT}/run-1001&b={AGENT}/run-1001")).text
        assert "0 of 8 steps differ." in page
        page = await ann.get(f"/compare?a={AGENT}/run-1001&version={NEW}", follow_redirects=True)
        assert "b=refund-desk%2Frun-10" in str(page.url) or "b=refund-desk/run-10" in str(page.url)
        assert "<mark>1001</mark>" in page.text
        assert "There is no such run in the log." in (await ann.get(f"/compare?a={AGENT}/run-1001&b=nope")).text


async def test_the_rules_are_those_of_the_card_of_then_and_the_dossier_is_a_file(
    shop: Running, settings: Settings
) -> None:
    await fill(settings, run("later", utc_now(), refund("A-9"), ticket="T-9"))
    async with shop.person(Role.VIEWER, by="vera") as ann:
        rules = (await ann.get(f"/runs/{AGENT}/later/rules")).text
        assert "$0.50, then the run is stopped" in rules
        assert "<code>budget_run</code>" in rules
        assert "not kept any more, or there was none" in (await ann.get(f"/runs/{AGENT}/run-1001/rules")).text
        page = await ann.get(f"/runs/{AGENT}/later/dossier")
        assert page.status_code == 200
        assert page.headers["content-disposition"] == 'attachment; filename="why-later.html"'
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "Why run later of refund-desk went as it did" in page.text
        data = await ann.get(f"/runs/{AGENT}/later/dossier?as=json")
        assert data.json()["run"]["run_id"] == "later"
        assert data.json()["made_by"] == "vera"
    kept = [(one["by"], one["action"], one["target"]) for one in await shop.recorded()]
    assert kept == [("vera", "dossier.made", "later")] * 2


async def test_what_somebody_wrote_is_text_on_every_page(js: JetStreamContext, settings: Settings) -> None:
    steps = [
        ("started", {"input": HOSTILE, "customer": HOSTILE[:60], "channel": "chat"}),
        ("tool_called", {"tool": "<b>tool", "kind": "read", "arguments": {HOSTILE: HOSTILE}, "result": HOSTILE}),
        ("model_called", {"model": "<i>model", "output": HOSTILE, "error": HOSTILE}),
        ("handed_off", {"to": "human", "reason": HOSTILE, "summary": HOSTILE, "context": {"x": HOSTILE}}),
        ("finished", {"resolution": "failed", "error": HOSTILE, "halted_by": HOSTILE[:60]}),
    ]  # fmt: skip
    name = "<script>r/1\u202e"
    await fill(
        settings,
        run(name, utc_now(), steps, version="<v>", ticket=HOSTILE[:60]),
        told_of(name, utc_now(), title=HOSTILE),
    )
    await arm(js, refund_card(purpose=HOSTILE, can=[HOSTILE]))
    async with console(settings) as running, running.person(Role.VIEWER) as ann:
        path = f"/runs/{AGENT}/%3Cscript%3Er%2F1%E2%80%AE"
        for one in ("/", "/agents", f"/agents/{AGENT}", "/runs", path, f"{path}/rules", f"/runs?text={'<script>'}",
                    f"/compare?a={AGENT}%2F%3Cscript%3Er%2F1%E2%80%AE&b={AGENT}%2F%3Cscript%3E"):  # fmt: skip
            page = await ann.get(one)
            assert (one, page.status_code) == (one, 200)
            shown = re.sub(r' value="[^"]*"', "", page.text)  # what a form sends is sent as it is
            for bad in ("<script>window", "<img", "<script>r", "<b>tool", "<i>model", "<v>", "\u202e", "\x1b"):
                assert (one, bad, bad in shown) == (one, bad, False)


async def test_without_the_log_each_page_says_so_and_the_rest_stands(js: JetStreamContext, settings: Settings) -> None:
    await arm(js, refund_card())
    file = Path(settings.database_for(subjects.LOGGER).removeprefix("sqlite:///"))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"no database" * 1000)
    async with console(settings) as running, running.person(Role.VIEWER) as ann:
        for path in PAGES[:5]:
            assert (await ann.get(path)).status_code == 200

            async def said(path: str = path) -> bool:  # once what was read before is too old to be shown
                return "The run log: this cannot be read just now" in (await ann.get(path)).text

            await eventually(said)
        assert "Refund a duplicate charge" in (await ann.get(f"/agents/{AGENT}")).text
