"""What people corrected in a week: printed, published once, brought by the pager, and erased with its runs."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from helpers import eventually
from midwatch.contracts import codec, subjects
from midwatch.contracts.erasure import ErasedRun, ErasureResolved
from midwatch.contracts.reviews import DigestRun, ReviewSummed
from midwatch.runtime.database import Database
from midwatch.runtime.outbox import Outbox
from midwatch.runtime.settings import Settings
from midwatch_services.digest.policy import POLICY
from midwatch_services.digest.render import text as digest_text
from midwatch_services.digest.sources import Sources
from midwatch_services.logger.erasure.match import Scope
from midwatch_services.pager import erasing
from midwatch_services.reviewer_sampler.judging import feedback
from midwatch_services.reviewer_sampler.judging.weekly import Weekly
from midwatch_services.reviewer_sampler.store import PREFIX
from pager_helpers import ROUTES, SECRET, Clock, all_heard, listening, pager, write_file
from pager_helpers import rows as pager_rows
from review_helpers import begin, judge, log, midwatch, put_card, said, sampler

WEEK = feedback.week_of(datetime.now(UTC))
DUE = feedback.bounds(WEEK)[1] + timedelta(hours=7)


class Bed:
    """One life of what writes the notes, at times that a test names."""

    def __init__(self, settings: Settings, js: JetStreamContext) -> None:
        self.database = Database(settings.database_for(subjects.REVIEWER_SAMPLER))
        self.now = DUE
        self.weekly = Weekly(self.database, Outbox(self.database, PREFIX, js), settings, lambda: self.now)

    async def tick(self, at: datetime) -> None:
        self.now = at
        await self.weekly.tick()


@pytest.fixture
async def judged_week(
    js: JetStreamContext, nc: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Settings]:
    """Three runs that were judged in this week: one failed, one passed and could be better, one passed."""
    monkeypatch.setenv("NATS_URL", settings.url)
    await put_card(js)
    async with sampler(settings):
        await begin(js, "r-1", "r-2", "r-3")
        await judge(nc, "ann", "r-1", "fail", reasons=["wrong_fact"], note="it takes five", corrected="In five days.")
        await judge(nc, "ben", "r-1", "fail", reasons=["wrong_fact"])
        await judge(nc, "ann", "r-2", "pass", corrected="Shorter.")
        await judge(nc, "ann", "r-3", "pass")
    yield settings


@pytest.fixture
async def bed(judged_week: Settings, js: JetStreamContext) -> AsyncIterator[Bed]:
    found = Bed(judged_week, js)
    yield found
    found.database.close()


async def test_the_note_is_published_once_when_its_week_is_over(
    bed: Bed, js: JetStreamContext, settings: Settings
) -> None:
    await log(settings, "r-1", "r-2", "r-3")
    await bed.tick(DUE - timedelta(minutes=1))
    assert await said(js, "summed") == []
    for at in (DUE, DUE + timedelta(minutes=1)):
        await bed.tick(at)
    again = Bed(settings, js)
    await again.tick(DUE + timedelta(days=6))
    again.database.close()
    [(_, data)] = await said(js, "summed")
    assert (data.agent, data.week) == ("desk", WEEK)
    assert data.title == f"What people corrected: desk, week {WEEK}"
    assert "3 runs were settled, 1 of them failed." in data.text
    assert "The agent said: On its way.\n  Better: In five days.\n  Note: it takes five" in data.text
    assert [(run.agent, run.run_id) for run in data.runs] == [("desk", "r-1"), ("desk", "r-2")]


async def test_a_run_that_waits_for_a_second_or_a_third_waits_for_a_reviewer_in_the_digest(
    js: JetStreamContext, nc: Client, settings: Settings
) -> None:
    await put_card(js)
    async with sampler(settings):
        await begin(js, "r-1", "r-2", "r-3", "r-4")
        for by, run_id, verdict in (("ann", "r-1", "fail"), ("ann", "r-2", "fail"), ("ben", "r-2", "pass"),
                                    ("ann", "r-3", "pass")):  # fmt: skip
            await judge(nc, by, run_id, verdict)  # type: ignore[arg-type]
    await log(settings, "r-1", "r-2", "r-3", "r-4")
    now = datetime.now(UTC)
    with Sources(settings, POLICY) as sources:
        text = " ".join(digest_text(sources.digest(now.date(), None, now)).split())
    assert "3 runs wait for a reviewer." in text


async def test_of_weeks_that_were_missed_only_the_last_is_written(
    bed: Bed, js: JetStreamContext, settings: Settings
) -> None:
    await log(settings, "r-1")
    await bed.tick(DUE + timedelta(days=8))
    assert await said(js, "summed") == []


async def test_a_log_that_cannot_be_read_is_waited_for_and_then_done_without(bed: Bed, js: JetStreamContext) -> None:
    await bed.tick(DUE + timedelta(hours=5))
    assert await said(js, "summed") == []
    await bed.tick(DUE + timedelta(hours=6))
    [(_, data)] = await said(js, "summed")
    assert "Asked" not in data.text
    assert "Better: In five days." in data.text


async def test_the_command_prints_the_same_as_markdown(judged_week: Settings, tmp_path: Path) -> None:
    await log(judged_week, "r-1", "r-2")
    result = await midwatch("feedback", "--agent", "desk", "--week", WEEK)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("# What people corrected: desk, week ")
    assert "## Wrong fact: 1 run \\(0 in the week before\\)" in result.stdout
    assert "  - Asked: Where is  \\[31mit?" not in result.stdout
    assert "- `midwatch show r-1 --agent desk`, ticket T\\-1\n  - Asked: Where is" in result.stdout
    out = tmp_path / "corrections.md"
    written = await midwatch("feedback", "--week", WEEK, "--out", str(out))
    assert (written.exit_code, out.read_text()) == (0, result.stdout)
    rows = [json.loads(line) for line in (await midwatch("feedback", "--week", WEEK, "--json")).stdout.splitlines()]
    assert [(row["run_id"], row["verdict"], row["reasons"], row["by"]) for row in rows] == [
        ("r-1", "fail", ["wrong_fact"], ["ann", "ben"]), ("r-2", "pass", [], ["ann"]),
    ]  # fmt: skip
    empty = await midwatch("feedback", "--week", "2020-W01")
    assert (empty.exit_code, empty.stdout) == (0, "# What people corrected: week 2020-W01\n\nNothing.\n")
    wrong = await midwatch("feedback", "--week", "48")
    assert (wrong.exit_code, wrong.stderr) == (
        2, "midwatch: '48' is no week: write a year and its week, such as 2026-W48\n",
    )  # fmt: skip


async def test_agreement_says_what_is_known_and_what_is_not(judged_week: Settings) -> None:
    result = await midwatch("agreement")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "desk: 3 runs settled; 0 drawn for two were read by two",
        "  failure rate, of 3 drawn: 33.3% (95 %: 6.1% to 79.2%)",
        "  of 0 read for another cause, counted apart: none settled yet",
        "  kappa of the first two: too few: 0 of at least 10 runs that both judged",
    ]
    [row] = [json.loads(line) for line in (await midwatch("agreement", "--json")).stdout.splitlines()]
    assert (row["agent"], row["drawn"]["failed"], row["others"]["judged"]) == ("desk", 1, 0)


def summed(agent: str = "desk", week: str = "2026-W48", **fields: object) -> ReviewSummed:
    given = {
        "title": f"What people corrected: {agent}", "text": "t", "markdown": "m", "html": "<p>planted</p>",
        "brief": "1 run failed.", "runs": [DigestRun(agent=agent, run_id="r-1")], **fields,
    }  # fmt: skip
    return ReviewSummed(agent=agent, week=week, **given)  # type: ignore[arg-type]


async def publish(js: JetStreamContext, data: ReviewSummed, id: str = "") -> None:
    id = id or f"summed-{data.agent}-{data.week}"
    body = codec.encode(codec.envelope("review", "summed", data, source="/services/reviewer-sampler", id=id))
    await js.publish(subjects.review(data.agent, "summed"), body, headers={subjects.MSG_ID: id})


async def test_the_pager_brings_the_note_to_whom_the_file_names_each_once(
    js: JetStreamContext, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAGER_SECRET", SECRET)
    with listening() as people:
        names = ("writer", "head", "oncall")
        lines = [f'  {name}: {{webhook: "{people.url}/{name}", secret: "${{PAGER_SECRET}}"}}\n' for name in names]
        contacts = "contacts: {writer: writer, head: head, support: oncall, all: oncall}\n"
        readers = "corrections: {to: head, agents: {desk: [writer, head]}}\ndigest: {to: support}\n"
        write_file(settings, "channels:\n" + "".join(lines) + contacts + ROUTES + readers)
        async with pager(settings):
            await publish(js, summed())
            await publish(js, summed(), "the-same-again")
            await publish(js, summed("mail"))
            await eventually(lambda: len(people.calls) >= 3)
            await eventually(lambda: all_heard(js))
        told = sorted((call.path, call.said["type"], call.said["data"]["agent"]) for call in people.calls)
        assert told == [
            ("/head", "review.summed", "desk"), ("/head", "review.summed", "mail"),
            ("/writer", "review.summed", "desk"),
        ]  # fmt: skip
        assert people.at("/writer")[0].id == "summed-desk-2026-W48"
        assert people.at("/writer")[0].said["data"]["week"] == "2026-W48"


async def test_a_note_that_waited_a_week_is_brought_to_nobody(
    js: JetStreamContext, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAGER_SECRET", SECRET)
    with listening() as people:
        channel = f'channels: {{ann: {{webhook: "{people.url}/ann", secret: "${{PAGER_SECRET}}"}}}}\n'
        contacts = "contacts: {all: ann, support: ann}\n"
        write_file(settings, channel + contacts + ROUTES + "corrections: {to: all}\n")
        clock = Clock()
        clock.forward(days=7, minutes=1)
        await publish(js, summed())
        async with pager(settings, clock):
            await eventually(lambda: all_heard(js))
            assert pager_rows(settings, "SELECT id FROM pager_deliveries") == []


async def test_a_note_that_names_an_erased_run_is_erased_with_it(
    js: JetStreamContext, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAGER_SECRET", SECRET)
    part = ErasureResolved(erasure_id="e-1", part=1, upto=0, runs=[ErasedRun(agent="desk", run_id="r-1")])
    with listening() as people:
        people.reply = lambda _: 500
        channel = f'channels: {{ann: {{webhook: "{people.url}/ann", secret: "${{PAGER_SECRET}}"}}}}\n'
        write_file(settings, channel + "contacts: {all: ann, support: ann}\n" + ROUTES + "corrections: {to: all}\n")
        async with pager(settings):
            await publish(js, summed())
            await publish(js, summed("mail", runs=[DigestRun(agent="mail", run_id="r-1")]))
            await eventually(lambda: len(pager_rows(settings, "SELECT id FROM pager_deliveries")) == 2)
        database = Database(settings.database_for(subjects.PAGER))
        counts = await asyncio.to_thread(database.write_now, lambda conn: erasing.erase(conn, part))
        database.close()
    assert counts["messages"] == 1
    left = pager_rows(settings, "SELECT id FROM pager_deliveries WHERE body != x''")
    assert [row["id"] for row in left] == ["summed-mail-2026-W48"]


def test_the_logger_finds_the_note_of_an_erased_run_on_the_stream() -> None:
    scope = Scope([ErasedRun(agent="desk", run_id="r-1")])
    for agent, wanted in (("desk", True), ("mail", False)):
        body = codec.encode(codec.envelope("review", "summed", summed(agent), source="/x"))
        assert scope.has_decision(subjects.review(agent, "summed"), body) is wanted
