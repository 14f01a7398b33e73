"""Judging on the console: one at a time, blind, by whoever may."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from console_helpers import Person, Running, console
from logged import received
from midwatch.contracts import subjects
from midwatch.contracts.erasure import ErasedRun, ErasureResolved
from midwatch.runtime.database import Database
from midwatch.runtime.settings import Settings
from midwatch_services.console.access.roles import Role
from midwatch_services.logger import store as run_log
from midwatch_services.reviewer_sampler import erasing
from review_helpers import LONG_AGO, begin, judge, judged, log, put_card, rows, sampler

SAID = (
    "SELECT run_id, by, verdict, reasons, corrected, note, counts, seconds FROM reviewer_sampler_judgements "
    "ORDER BY run_id, by"
)
HELD = "SELECT by, run_id FROM reviewer_sampler_claims WHERE over = 0 ORDER BY by"
ERASED = ErasureResolved(erasure_id="e-1", part=1, runs=[ErasedRun(agent="desk", run_id="r-1")], upto=0)
_FIELD = re.compile(r'<input type="hidden" name="(\w+)" value="([^"]*)"')
_TITLE = re.compile(r"<h1>Run ([^<]+)</h1>")


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"evals": tmp_path / "evals"})


@pytest.fixture
async def running(js: JetStreamContext, settings: Settings) -> AsyncIterator[Running]:
    """A console, a sampler, and three runs in the queue that the log knows."""
    await put_card(js, minutes_a_day=30)
    async with sampler(settings), console(settings) as one:
        await begin(js, "r-1", "r-2", "r-3")
        await log(settings, "r-1", "r-2", "r-3")
        yield one


def fields(page: str) -> dict[str, Any]:
    """What the form of a page carries by itself."""
    form = page[page.index('class="judging"') :]
    return {name: value for name, value in _FIELD.findall(form) if name not in ("csrf", "skip")}


def shown(page: str) -> str:
    found = _TITLE.search(page)
    return found[1] if found else ""


async def says(person: Person, page: str, verdict: str, **more: Any) -> Any:
    """The form is sent without scripts."""
    return await person.act("/review/judge", **{**fields(page), "verdict": verdict, **more})


async def test_one_judges_by_plain_buttons_and_is_given_the_next(running: Running, js: JetStreamContext) -> None:
    async with running.person(Role.REVIEWER, by="olga") as olga:
        page = (await olga.get("/review")).text
        assert shown(page) == "r-1"
        assert "1 of 3 of desk due today</strong>, about 9 minutes left" in page
        assert "30 minutes of today" in page
        assert "drawn by chance" in page
        assert "Where is ␛[31mit?" in page
        assert "On its way." in page
        assert rows(running.settings, HELD) == [{"by": "olga", "run_id": "r-1"}]
        done = await says(olga, page, "fail", reason=["tone", "wrong_fact"], corrected="It is lost.", note="late",
                          seconds="41.5")  # fmt: skip
        assert (done.status_code, done.headers["location"]) == (303, "/review")
        page = (await olga.get("/review")).text
        assert shown(page) == "r-2"
        assert "r-1: fail." in page
        assert "2 of 3 of desk due today" in page
        await says(olga, page, "pass", reason="tone")
        page = (await olga.get("/review")).text
        await says(olga, page, "unsure")
        assert "Nothing waits for you" in (await olga.get("/review")).text
    await judged(js)
    found = rows(running.settings, SAID)
    assert [(one["run_id"], one["verdict"], one["reasons"], one["counts"]) for one in found] == [
        ("r-1", "fail", '["tone","wrong_fact"]', 1), ("r-2", "pass", "[]", 1), ("r-3", "unsure", "[]", 1),
    ]  # fmt: skip
    assert (found[0]["seconds"], found[0]["corrected"], found[0]["note"]) == (41.5, "It is lost.", "late")
    assert 0 <= found[1]["seconds"] < 30  # counted by the console where the page could not
    kept = [
        (one["by"], one["role"], one["action"], one["target"], one.get("detail", {}))
        for one in await running.recorded()
    ]
    assert kept == [
        ("olga", "reviewer", f"review.{deed}", f"r-{number}", {})
        for number in (1, 2, 3)
        for deed in ("taken", "judged")
    ]


async def test_two_who_review_at_once_never_see_the_same_run(running: Running, js: JetStreamContext) -> None:
    async with running.person(Role.REVIEWER, by="olga") as olga, running.person(Role.REVIEWER, by="ben") as ben:
        seen: dict[str, list[str]] = {"olga": [], "ben": []}
        for _ in range(2):
            for name, person in (("olga", olga), ("ben", ben)):
                page = (await person.get("/review")).text
                if run := shown(page):
                    seen[name].append(run)
                    await says(person, page, "pass")
        assert sorted(seen["olga"] + seen["ben"]) == ["r-1", "r-2", "r-3"]
        assert seen["olga"][0] == "r-1"
        assert seen["ben"][0] == "r-2"


async def test_a_run_that_somebody_holds_is_told_and_skipping_and_quitting_give_back(running: Running) -> None:
    async with running.person(Role.REVIEWER, by="olga") as olga, running.person(Role.REVIEWER, by="ben") as ben:
        page = (await olga.get("/review")).text
        taken = (await ben.get("/review?agent=desk&run=r-1")).text
        assert "This run is not for you now" in taken
        assert "r-1 is held by somebody else" in taken
        unknown = (await ben.get("/review?agent=desk&run=r-9")).text
        assert "r-9 is not in the queue: list it with <code>midwatch reviews</code>" in unknown
        skipped = await olga.act("/review/skip", **fields(page))
        assert skipped.headers["location"] == "/review?skip=r-1"
        page = (await olga.get(skipped.headers["location"])).text
        assert shown(page) == "r-2"
        assert "r-1 is left for later." in page
        assert shown((await ben.get("/review?agent=desk&run=r-1")).text) == "r-1"
        left = await olga.act("/review/leave", **fields(page))
        assert left.headers["location"] == "/review/queue"
        assert rows(running.settings, HELD) == [{"by": "ben", "run_id": "r-1"}]
        only = (await olga.get("/review?skip=r-2&skip=r-3")).text
        assert "Only what you skipped is left" in only
        assert "Look at the 2 you skipped" in only


async def test_what_one_cannot_judge_now_is_told_so_and_counts_for_nobodys_day(
    running: Running, js: JetStreamContext, nc: Client
) -> None:
    await begin(js, "r-4")
    await log(running.settings, "r-4", ended=False, at=datetime.now(UTC))
    await judge(nc, "olga", "r-1", "fail")
    async with running.person(Role.REVIEWER, by="olga") as olga, running.person(Role.REVIEWER, by="ben") as ben:
        assert shown((await ben.get("/review?agent=desk&run=r-2")).text) == "r-2"
        page = (await olga.get("/review/queue")).text
        assert "One waiting, time for it today." in page
        assert "3 runs cannot be judged by you now, and are not counted here." in page
        states = [(run, re.search(f">{run}<.*?</tr>", page, re.S)) for run in ("r-1", "r-2", "r-3", "r-4")]
        rows = {run: found[0] for run, found in states if found}
        assert "You have judged it; it waits for somebody else" in rows["r-1"]
        assert "Somebody reads it" in rows["r-2"]
        assert "Still goes on" in rows["r-4"]
        assert [run for run, row in rows.items() if "/review?" in row] == ["r-3"]
        needs = (await olga.get("/today/needs")).text
        assert "One run waits for a review" in needs
        assert "3 runs cannot be reviewed by you now" in needs
        page = (await ben.get("/review/queue")).text
        assert "3 waiting, time for all of them today." in page
        assert page.count('href="/review?') == 3
        assert "One has judged it, one more is asked" in page
        assert not re.search("olga|A failure", page)


async def test_the_hold_is_extended_and_one_that_is_over_is_said_to_be(running: Running, nc: Client) -> None:
    async with running.person(Role.REVIEWER, by="olga") as olga:
        page = (await olga.get("/review")).text
        before = rows(running.settings, "SELECT until FROM reviewer_sampler_claims")[0]["until"]
        longer = await olga.act("/review/extend", **fields(page))
        assert "data-seconds=" in longer.text
        assert rows(running.settings, "SELECT until FROM reviewer_sampler_claims")[0]["until"] > before
        await judge(nc, "olga", "r-1")
        over = await olga.act("/review/extend", **fields(page))
        assert "It is not held for you any more" in over.text
        again = await says(olga, page, "fail")
        assert again.headers["location"] == "/review"
        assert "You have judged r-1 already; nothing was changed." in (await olga.get("/review")).text
    assert [one["verdict"] for one in rows(running.settings, SAID)] == ["pass"]


async def test_nothing_of_what_another_said_is_on_any_page_before_it_is_settled(
    js: JetStreamContext, settings: Settings, nc: Client
) -> None:
    await put_card(js, second_review=1.0)
    async with sampler(settings), console(settings) as running:
        await begin(js, "r-1")
        await log(settings, "r-1")
        async with running.person(Role.REVIEWER, by="zacharias") as first:
            await says(
                first, (await first.get("/review")).text, "fail", reason="tone", corrected="secret-1", note="secret-2"
            )
            await judged(js)
        async with running.person(Role.REVIEWER, by="ben") as ben:
            paths = ("/review", "/review/queue", "/review/queue?part=1", "/review/agreement", "/review/feedback",
                     "/review/feedback.md", "/runs/desk/r-1")  # fmt: skip
            pages = {path: (await ben.get(path)).text for path in paths}
            assert shown(pages["/review"]) == "r-1"
            assert "One has judged it, one more is asked" in pages["/review/queue"]
            for path, page in pages.items():
                assert not re.search("zacharias|secret", page), path
                assert "A failure" not in page, path
            assert "checked" not in pages["/review"][pages["/review"].index("reasons") :].split("</fieldset>")[0]
            await says(ben, pages["/review"], "fail", reason="tone")
            await judged(js)
            assert "A failure" in (await ben.get("/review/queue")).text


async def test_the_record_names_no_reviewer_and_no_verdict_before_it_is_settled(
    js: JetStreamContext, settings: Settings, nc: Client
) -> None:
    await put_card(js, second_review=1.0)
    async with sampler(settings), console(settings) as running, running.person(Role.ADMIN, by="ann") as ann:
        await begin(js, "r-1", "r-2")
        await log(settings, "r-1", "r-2")
        await judge(nc, "zacharias", "r-1", "fail", reasons=["tone"], corrected="secret-1", note="secret-2")
        async with running.person(Role.REVIEWER, by="zoe") as zoe:
            await says(zoe, (await zoe.get("/review?agent=desk&run=r-2")).text, "case")
            await judged(js)
        paths = ("/audit", "/audit.csv", "/audit?by=zoe", "/alerts", "/alerts?state=all", "/", "/agents/desk",
                 "/runs/desk/r-1", "/runs/desk/r-1/dossier", "/review/feedback", "/evals", "/evals/desk")  # fmt: skip
        for path in paths:
            answer = await ann.get(path)
            assert answer.status_code == 200, path
            page = answer.text.replace('value="zoe"', "").replace("by=zoe", "")
            assert not re.search("zacharias|zoe|secret|verdict: |eval.case_made", page), path
        page = (await ann.get("/audit")).text
        assert page.count("A reviewer, who is named once the run is settled") == 3  # r-1 judged; r-2 taken, judged
        for run_id in ("r-1", "r-2"):
            await judge(nc, "ben", run_id, "fail", reasons=["tone"])
        page = (await ann.get("/audit")).text
        for word in ("zacharias", "zoe", "Made an eval case"):
            assert word in page, word
        assert "verdict: " not in page


async def test_a_case_is_shown_to_its_maker_alone_before_its_run_is_settled(
    js: JetStreamContext, settings: Settings, nc: Client
) -> None:
    await put_card(js)
    async with sampler(settings), console(settings) as running:
        await begin(js, "r-1")
        await log(settings, "r-1")
        async with running.person(Role.REVIEWER, by="zoe") as zoe, running.person(Role.REVIEWER, by="ben") as ben:
            await says(zoe, (await zoe.get("/review")).text, "case")
            await judged(js)
            assert (settings.evals / "desk" / "r-1.yaml").is_file()
            assert "r-1" in (await zoe.get("/evals/desk")).text
            assert (await zoe.get("/evals/desk/r-1")).status_code == 200
            assert "r-1" not in (await ben.get("/evals/desk")).text
            assert (await ben.get("/evals/desk/r-1")).status_code == 404
            assert (await ben.act("/evals/desk/r-1/agree", criteria="x")).status_code == 404
            await judge(nc, "ben", "r-1", "fail")
            assert (await ben.get("/evals/desk/r-1")).status_code == 200


async def test_an_eval_case_is_made_of_a_fail_and_its_path_told(running: Running, settings: Settings) -> None:
    async with running.person(Role.REVIEWER, by="olga") as olga:
        await says(olga, (await olga.get("/review")).text, "case", corrected="It is lost.")
        path = settings.evals / "desk" / "r-1.yaml"
        page = (await olga.get("/review")).text
        assert f"r-1: fail. The eval case is {path}" in page
        assert path.is_file()
        path.with_name("r-2.yaml").write_text("case: r-2\nconversation: [hello]\n")
        await says(olga, page, "case")
        assert "r-2: fail, and kept. No eval case was made: A case r-2 stands in" in (await olga.get("/review")).text
    deeds = [one for one in await running.recorded() if one["action"] != "review.taken"]
    assert [(one["action"], one.get("detail", {}).get("run") or one["target"]) for one in deeds] == [
        ("review.judged", "r-1"), ("eval.case_made", "r-1"), ("review.judged", "r-2"), ("eval.case_not_made", "r-2"),
    ]  # fmt: skip


async def test_what_was_erased_meanwhile_is_not_judged(running: Running, settings: Settings) -> None:
    async with running.person(Role.REVIEWER, by="olga") as olga:
        page = (await olga.get("/review")).text
        database = Database(settings.database_for(subjects.REVIEWER_SAMPLER))
        await database.write(lambda conn: erasing.erase(conn, ERASED))
        database.close()
        await says(olga, page, "fail", note="personal")
        after = (await olga.get("/review")).text
        assert "r-1 was erased meanwhile" in after
        assert shown(after) == "r-2"
    assert rows(settings, SAID) == []


async def test_without_the_sampler_pages_say_so_and_what_one_says_is_kept_all_the_same(
    js: JetStreamContext, settings: Settings
) -> None:
    await put_card(js)
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(console(settings))
        olga = await stack.enter_async_context(running.person(Role.REVIEWER, by="olga"))
        nothing = await olga.get("/review")
        assert nothing.status_code == 200
        assert "No runs are handed out just now" in nothing.text
        assert nothing.text.count("midwatch run reviewer-sampler") == 1
        assert '<code class="command">midwatch run reviewer-sampler</code>' in nothing.text
        assert "`" not in nothing.text
        assert "Nothing waits" in (await olga.get("/review/queue")).text
        async with sampler(settings):
            await begin(js, "r-1")
            await log(settings, "r-1")
            page = (await olga.get("/review")).text
        done = await says(olga, page, "pass")
        assert done.status_code == 303
        after = (await olga.get("/review")).text
        assert "r-1: pass." in after
        assert "No runs are handed out just now" in after
        assert "does not answer" in (await olga.act("/review/extend", **fields(page))).text
        async with sampler(settings):
            await judged(js)
        assert [(one["verdict"], one["counts"]) for one in rows(settings, SAID)] == [("pass", 1)]


async def test_a_viewer_looks_and_judges_nothing_and_no_other_site_judges_for_one(running: Running) -> None:
    async with running.person(Role.VIEWER, by="vera") as vera, running.person(Role.REVIEWER, by="olga") as olga:
        assert (await vera.get("/review")).headers["location"] == "/review/queue"
        assert (await vera.get("/review?agent=desk")).headers["location"] == "/review/queue?agent=desk"
        assert rows(running.settings, HELD) == []
        queue = (await vera.get("/review/queue")).text
        assert "3 waiting, time for all of them today." in queue
        assert "/review?agent" not in queue
        assert (await vera.get("/review/feedback")).status_code == 200
        assert (await vera.get("/review/agreement")).status_code == 403
        page = (await olga.get("/review")).text
        for path in ("/review/judge", "/review/skip", "/review/leave", "/review/extend"):
            assert (await vera.act(path, **fields(page), verdict="pass")).status_code == 403, path
            assert (await olga.act(path, token="0" * 64, **fields(page), verdict="pass")).status_code == 403, path
            foreign = await olga.client.post(path, data={**fields(page), "csrf": await olga.token()},
                                             headers={"sec-fetch-site": "cross-site"})  # fmt: skip
            assert foreign.status_code == 403, path
        assert (await says(olga, page, "great")).status_code == 400
        assert (await says(olga, page, "pass", agent="../x")).status_code == 400
        async with running.person(None) as stranger:
            assert (await stranger.get("/review/queue")).headers["location"].startswith("/sign-in")
    assert rows(running.settings, SAID) == []
    assert [(one["by"], one["action"]) for one in await running.done()] == [("olga", "review.taken")]


# As a browser asks that follows a link.
FROM_ELSEWHERE = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


async def test_a_link_on_another_site_takes_no_run(running: Running) -> None:
    async with running.person(Role.REVIEWER, by="olga") as olga:
        page = (await olga.get("/review?agent=desk&run=r-2", headers=FROM_ELSEWHERE)).text
        assert "You come from another site" in page
        assert 'href="/review?agent=desk&amp;run=r-2"' in page
        assert rows(running.settings, HELD) == []
        assert shown((await olga.get("/review?agent=desk&run=r-2")).text) == "r-2"
        await olga.get("/review?agent=desk&run=r-2")  # to look at it again is not to take it
    kept = [(one["action"], one["target"]) for one in await running.recorded()]
    assert kept == [("review.taken", "r-2")]


async def test_going_on_in_a_chosen_run_stays_with_it(running: Running, settings: Settings) -> None:
    words = "It is late. " * 300
    steps = [received("said", seq=1, run_id="r-2", agent="desk", by="customer", text=words, at=LONG_AGO)]
    database = Database(settings.database_for(subjects.LOGGER))
    await database.write(lambda conn: run_log.save(conn, steps))
    database.close()
    async with running.person(Role.REVIEWER, by="olga") as olga:
        page = (await olga.get("/review?agent=desk&run=r-2")).text
        link = re.search(r'href="(/review\?[^"]*all=[^"#]*)', page)
        assert link is not None
        whole = (await olga.get(link[1].replace("&amp;", "&"))).text
        assert shown(whole) == "r-2"
        assert words.strip() in whole
        assert (await says(olga, whole, "pass")).headers["location"] == "/review"
