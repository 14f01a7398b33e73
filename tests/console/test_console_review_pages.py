"""What pages tell of reviews: what waits, was corrected or erased, how well people agree, and nothing too early."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from console_helpers import Running, console
from eval_helpers import SMALLEST, put
from gate_helpers import results
from midwatch.contracts import codec, subjects
from midwatch.contracts.erasure import ErasedRun, ErasureRequested, ErasureResolved
from midwatch.runtime.database import Database
from midwatch.runtime.settings import Settings
from midwatch_services.console.access.roles import Role
from midwatch_services.evals.gate import compare
from midwatch_services.evals.verdicts import completed
from midwatch_services.logger.decide import text_of
from midwatch_services.logger.erasure import store as erasures
from midwatch_services.reviewer_sampler import erasing
from review_helpers import begin, judge, judged, log, put_card, sampler

ASKED = datetime(2026, 11, 22, 14, 5, tzinfo=UTC)
RUN = ErasedRun(agent="desk", run_id="r-1")


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"evals": tmp_path / "evals"})


@pytest.fixture
async def running(js: JetStreamContext, settings: Settings) -> AsyncIterator[Running]:
    """A console and a sampler, which asks for a second opinion on every run."""
    await put_card(js, second_review=1.0)
    async with sampler(settings), console(settings) as one:
        yield one


async def test_a_run_that_was_erased_is_told_so_with_when_and_not_as_one_that_waits(
    running: Running, js: JetStreamContext, settings: Settings
) -> None:
    await begin(js, "r-1")
    await log(settings, "r-1")
    async with running.person(Role.VIEWER) as vera:
        assert "To be reviewed, not settled yet" in (await vera.get("/runs/desk/r-1")).text
        asked = ErasureRequested(erasure_id="er-0123456789ab", by="ann", reason="asked for", agent="desk", run_id="r-1")
        database = Database(settings.database_for(subjects.LOGGER))
        await database.write(lambda conn: erasures.add(conn, asked, text_of(ASKED)))
        await database.write(lambda conn: erasures.remember(conn, "er-0123456789ab", [RUN]))
        database.close()
        page = (await vera.get("/runs/desk/r-1")).text
        assert 'asked for <time datetime="2026-11-22T14:05:00Z"' in page
        assert "not settled yet" not in page
        part = ErasureResolved(erasure_id="er-0123456789ab", part=1, runs=[RUN], upto=0)
        database = Database(settings.database_for(subjects.REVIEWER_SAMPLER))
        await database.write(lambda conn: erasing.erase(conn, part))
        database.close()
        assert 'asked for <time datetime="2026-11-22T14:05:00Z"' in (await vera.get("/runs/desk/r-1")).text


LATE = SMALLEST.replace("duplicate-charge", "late-parcel") + "from: {run: r-1}\n"


async def fell(js: JetStreamContext, *cases: str) -> None:
    """The gate says that these cases got worse."""
    old, new = (
        results(dict.fromkeys(cases, how), version, agent="desk") for how, version in (("p", "old"), ("f", "new"))
    )
    said = codec.encode(completed(compare(new, old), new, old, "ana"))
    await js.publish(subjects.evaluated("desk", "completed"), said)


async def test_the_gate_names_no_case_of_a_run_that_is_not_settled(
    running: Running, js: JetStreamContext, nc: Client, settings: Settings
) -> None:
    cases = ("late-parcel", "r-2", "by-hand")
    await begin(js, "r-1", "r-2")
    await log(settings, "r-1", "r-2")
    put(settings.evals.parent, "mine.yaml", LATE)
    await fell(js, *cases)
    for run_id in ("r-1", "r-2"):
        await judge(nc, "zoe", run_id, "fail")
    async with running.person(Role.REVIEWER, by="zoe") as zoe, running.person(Role.REVIEWER, by="ben") as ben:
        page = (await ben.get("/evals/desk")).text
        assert "by-hand" in page
        assert "2 are not named before the reviews of their runs are settled." in page
        assert not re.search("late-parcel|r-2", page)
        page = (await zoe.get("/evals/desk")).text
        assert all(name in page for name in cases)
        for run_id in ("r-1", "r-2"):
            await judge(nc, "ben", run_id, "fail")
        page = (await ben.get("/evals/desk")).text
        assert all(name in page for name in cases)
        assert "not named" not in page


async def test_where_reviews_cannot_be_read_the_gate_names_what_was_made_of_no_run_alone(
    js: JetStreamContext, settings: Settings
) -> None:
    put(settings.evals.parent, "mine.yaml", LATE)
    put(settings.evals.parent, "by-hand.yaml", SMALLEST)
    spoiled = Path(settings.database_for(subjects.REVIEWER_SAMPLER).removeprefix("sqlite:///"))
    spoiled.parent.mkdir(parents=True, exist_ok=True)
    spoiled.write_bytes(b"this is no database" * 100)
    await fell(js, "late-parcel", "duplicate-charge", "gone")
    async with console(settings) as running, running.person(Role.REVIEWER) as ben:
        page = (await ben.get("/evals/desk")).text
        assert "Which runs are being reviewed, or were erased, cannot be read just now" in page
        assert re.search("Got worse:.*duplicate-charge", page)
        assert not re.search("late-parcel|gone", page)


async def test_the_queue_tells_what_is_old_and_for_what_there_is_time(js: JetStreamContext, settings: Settings) -> None:
    await put_card(js, age=0.001, minutes_a_day=6)
    async with sampler(settings), console(settings) as running, running.person(Role.VIEWER) as vera:
        await begin(js, *(f"r-{number}" for number in range(5)))
        database = Database(settings.database_for(subjects.REVIEWER_SAMPLER))
        later = "UPDATE reviewer_sampler_queue SET due_day = '9999-01-01' WHERE run_id > 'r-1'"
        await database.write(lambda conn: conn.exec_driver_sql(later))
        database.close()
        page = (await vera.get("/review/queue")).text
        assert "5 waiting, time for 2 today." in page
        assert "The rest is due by 1 January 9999." in page
        assert page.count("too long") == 5
        assert (await vera.get("/review/queue?agent=..%2F")).status_code == 404
        assert (await vera.get("/review/queue?page=0")).status_code == 404


async def test_why_a_run_is_read_is_told_in_words(running: Running, js: JetStreamContext, settings: Settings) -> None:
    causes = ("alert", "complaint", "cost", "hand_off", "tool")
    await begin(js, *causes)
    await log(settings, *causes)
    database = Database(settings.database_for(subjects.REVIEWER_SAMPLER))
    besides = "UPDATE reviewer_sampler_queue SET drawn = run_id = 'cost', causes = '[\"' || run_id || '\"]'"
    await database.write(lambda conn: conn.exec_driver_sql(besides))
    database.close()
    async with running.person(Role.REVIEWER) as ben:
        page = (await ben.get("/review/queue")).text
        found = [plain(cell) for cell in re.findall('data-label="Read because">(.*?)</td>', page)]
        assert sorted(found) == [
            "an alert was raised on it",
            "drawn by chance, it cost more than its card lets pass unread",
            "it handed the customer over without a word",
            "it used a tool whose runs people read",
            "the customer complained",
        ]
        assert "it used a tool whose runs people read" in plain((await ben.get("/review?agent=desk&run=tool")).text)


def plain(page: str) -> str:
    return re.sub("<[^>]*>", "", page)


@pytest.mark.parametrize("mode", ["replay", "drill"])
async def test_a_replay_or_drill_is_told_to_stand_in_no_queue(
    running: Running, js: JetStreamContext, settings: Settings, mode: str
) -> None:
    await begin(js, "r-1", mode=mode)
    await log(settings, "r-1", mode=mode)
    async with running.person(Role.VIEWER) as vera:
        page = (await vera.get("/runs/desk/r-1")).text
        assert "In no queue: nobody is given a replay or a drill to review who does not ask for it" in page
        assert "not settled yet" not in page


async def test_the_weeks_corrections_are_a_page_and_a_file(running: Running, nc: Client, js: JetStreamContext) -> None:
    await begin(js, "r-1")
    await judge(nc, "ann", "r-1", "fail", reasons=["tone"], corrected="Sorry *for* that. <b>", note="rude")
    await judge(nc, "ben", "r-1", "fail", reasons=["tone"])
    week = f"{datetime.now(UTC).isocalendar().year}-W{datetime.now(UTC).isocalendar().week:02d}"
    async with running.person(Role.VIEWER) as vera:
        page = (await vera.get(f"/review/feedback?week={week}")).text
        assert "Tone" in page
        assert "Sorry *for* that. &lt;b&gt;" in page
        assert "One run settled, 1 of them failed." in page
        assert week not in re.sub('value="[^"]*"|week=[^"&]*', "", page)
        file = await vera.get(f"/review/feedback.md?week={week}")
        assert file.headers["content-disposition"] == f'attachment; filename="corrections-{week}.md"'
        assert "  - Better: Sorry \\*for\\* that. \\<b\\>" in file.text
        assert "Nothing was corrected in this week" in (await vera.get("/review/feedback?week=2020-W01")).text
        assert "from 30 December 2019 to 5 January 2020" in (await vera.get("/review/feedback?week=2020-W01")).text
        assert (await vera.get("/review/feedback?week=2020-W99")).status_code == 404
    assert [(one["action"], one["target"]) for one in await running.recorded()] == [("feedback.exported", week)]


async def test_agreement_tells_how_many_wait_for_a_second_person_and_are_in_no_figure(
    js: JetStreamContext, settings: Settings, nc: Client
) -> None:
    await put_card(js)
    async with sampler(settings), console(settings) as running, running.person(Role.REVIEWER) as olga:
        await begin(js, "r-1", "r-2", "r-3")
        await judge(nc, "ann", "r-1", "pass", read=False)
        await judge(nc, "ann", "r-2", "fail", read=False)
        await judge(nc, "ann", "r-3", "fail")
        page = (await olga.get("/review/agreement")).text
        assert "0 of 1. 2 more were judged and wait for one more person, as every fail does: they are not in" in page


async def test_agreement_is_told_with_its_interval_or_as_too_few(
    js: JetStreamContext, settings: Settings, nc: Client
) -> None:
    await put_card(js, second_review=1.0)
    runs = [f"r-{number:02d}" for number in range(12)]
    async with sampler(settings), console(settings) as running, running.person(Role.REVIEWER) as olga:
        empty = (await olga.get("/review/agreement")).text
        assert "No run was judged yet" in empty
        await begin(js, *runs)
        for place, run_id in enumerate(runs):
            first = "fail" if place < 4 else "pass"
            await judge(nc, "ann", run_id, first, read=False)
            await judge(nc, "ben", run_id, "pass" if place == 0 else first, read=False)
        await judged(js)
        await judge(nc, "cyd", "r-00", "pass")
    async with console(settings) as running, running.person(Role.REVIEWER) as olga:
        page = (await olga.get("/review/agreement")).text
        # Of 12 pairs 11 agree: chance is (4*3 + 8*9)/144 = 0.5833, kappa (0.9167 - 0.5833)/(1 - 0.5833) = 0.80.
        assert "0.80 (with 95 % certainty between" in page
        assert "12 that chance gave to two people were read by both." in page
        assert "They differed on one of them (8 %)." in page
        assert "25.0 % (with 95 % certainty between" in page
        assert "3 of 12" in page
        assert "too few (fewer than 10)" in page
