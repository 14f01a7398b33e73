"""What people judge, on a real server: each verdict is kept, and what stands is said once."""

import asyncio

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from midwatch.contracts import subjects
from midwatch.contracts.erasure import ErasedRun, ErasureResolved
from midwatch.runtime import faults
from midwatch.runtime.database import Database
from midwatch.runtime.settings import Settings
from midwatch_services.reviewer_sampler import erasing
from review_helpers import Crash, begin, judge, judged, put_card, rows, said, sampler

STATE = "SELECT state, verdict, second FROM reviewer_sampler_queue WHERE run_id = 'r-1'"
COUNTS = "SELECT by, verdict, counts FROM reviewer_sampler_judgements ORDER BY judged_at"


async def test_one_judge_settles_a_run_that_wants_one(js: JetStreamContext, nc: Client, settings: Settings) -> None:
    await put_card(js)
    async with sampler(settings):
        await begin(js, "r-1")
        await judge(nc, "ann", "r-1", note="fine", seconds=40)
    [(_, agreed)] = await said(js, "agreed", "disputed")
    assert (agreed.run_id, agreed.verdict, agreed.by, agreed.note) == ("r-1", "pass", ["ann"], "fine")
    assert (agreed.version, agreed.drawn, agreed.ticket) == ("v7", True, "T-1")
    assert rows(settings, STATE) == [{"state": "settled", "verdict": "pass", "second": 0}]
    [settled] = rows(settings, "SELECT settled_at, seconds FROM reviewer_sampler_queue NATURAL JOIN "
                     "reviewer_sampler_judgements")  # fmt: skip
    assert settled["settled_at"] > 0
    assert settled["seconds"] == 40


async def test_a_fail_is_read_by_another_before_it_stands(js: JetStreamContext, nc: Client, settings: Settings) -> None:
    await put_card(js)
    async with sampler(settings):
        await begin(js, "r-1")
        await judge(nc, "ann", "r-1", "fail", reasons=["tone"], corrected="Sorry.")
        assert rows(settings, STATE) == [{"state": "judged", "verdict": None, "second": 2}]
        assert await said(js, "agreed", "disputed") == []
        await judge(nc, "ben", "r-1", "fail", reasons=["wrong_fact"], note="no such order")
    [(_, agreed)] = await said(js, "agreed", "disputed")
    assert (agreed.verdict, agreed.by, agreed.reasons) == ("fail", ["ann", "ben"], ["wrong_fact", "tone"])
    assert (agreed.corrected, agreed.note) == ("Sorry.", "no such order")


async def test_two_who_differ_are_followed_by_a_third(js: JetStreamContext, nc: Client, settings: Settings) -> None:
    await put_card(js, second_review=1.0)
    async with sampler(settings):
        await begin(js, "r-1")
        await judge(nc, "ann", "r-1", "pass")
        await judge(nc, "ben", "r-1", "fail", reasons=["tone"])
        [(event, disputed)] = await said(js, "agreed", "disputed")
        assert (event, disputed.by) == ("disputed", ["ann", "ben"])
        assert rows(settings, STATE) == [{"state": "disputed", "verdict": None, "second": 1}]
        await judge(nc, "cid", "r-1", "pass")
        await judge(nc, "dan", "r-1", "fail")
    [_, (event, agreed)] = await said(js, "agreed", "disputed")
    assert (event, agreed.verdict, agreed.by, agreed.reasons) == ("agreed", "pass", ["ann", "cid"], [])
    assert [(row["by"], row["counts"]) for row in rows(settings, COUNTS)] == [
        ("ann", 1), ("ben", 1), ("cid", 1), ("dan", 0),
    ]  # fmt: skip


async def test_the_first_word_of_a_person_counts(js: JetStreamContext, nc: Client, settings: Settings) -> None:
    await put_card(js, second_review=1.0)
    async with sampler(settings):
        await begin(js, "r-1")
        await judge(nc, "ann", "r-1", "pass")
        await judge(nc, "ann", "r-1", "fail")
        assert rows(settings, COUNTS) == [{"by": "ann", "verdict": "pass", "counts": 1}]
        assert rows(settings, STATE)[0]["state"] == "judged"


async def test_a_run_that_nobody_drew_becomes_an_item_that_says_nothing_of_the_rate(
    js: JetStreamContext, nc: Client, settings: Settings
) -> None:
    await put_card(js)
    async with sampler(settings):
        await judge(nc, "ann", "stray", "pass")
    [(_, agreed)] = await said(js, "agreed")
    assert (agreed.run_id, agreed.drawn, agreed.by) == ("stray", False, ["ann"])
    [row] = rows(settings, "SELECT run_id, drawn, state, rate FROM reviewer_sampler_queue")
    assert row == {"run_id": "stray", "drawn": 0, "state": "settled", "rate": 0.0}


async def test_a_run_that_is_judged_before_it_is_seen_is_still_drawn_and_said_to_be(
    js: JetStreamContext, nc: Client, settings: Settings
) -> None:
    await put_card(js)
    async with sampler(settings):
        await judge(nc, "ann", "r-1", "pass")
        await begin(js, "r-1")
    [(_, sampled)] = await said(js, "sampled")
    assert (sampled.run_id, sampled.draw < sampled.rate) == ("r-1", True)
    [row] = rows(settings, "SELECT drawn, state, verdict, version FROM reviewer_sampler_queue")
    assert row == {"drawn": 1, "state": "settled", "verdict": "pass", "version": "v7"}


async def test_a_reason_that_is_not_on_the_list_is_kept_as_other(
    js: JetStreamContext, nc: Client, settings: Settings
) -> None:
    await put_card(js, reasons=("tone",))
    async with sampler(settings):
        await begin(js, "r-1")
        await judge(nc, "ann", "r-1", "fail", reasons=["too_long", "tone"], note="rambles")
        await judge(nc, "ben", "r-1", "fail")
    [(_, agreed)] = await said(js, "agreed")
    assert (agreed.reasons, agreed.note) == (["tone", "other"], "too_long: rambles")
    assert (await js.stream_info(subjects.DEAD)).state.messages == 0


async def test_a_replay_is_judged_apart_from_the_run_that_it_repeats(
    js: JetStreamContext, nc: Client, settings: Settings
) -> None:
    await put_card(js)
    async with sampler(settings):
        await begin(js, "r-1")
        await begin(js, "r-1", mode="replay")
        await judge(nc, "ann", "r-1", "unsure", mode="replay")
    query = "SELECT track, state, verdict FROM reviewer_sampler_queue ORDER BY track"
    assert [tuple(row.values()) for row in rows(settings, query)] == [
        ("live", "waiting", None), ("replay", "settled", "unsure"),
    ]  # fmt: skip
    [(_, agreed)] = await said(js, "agreed")
    assert agreed.mode == "replay"


POINTS = [
    "delivery.received", "reviewer_sampler.judged", "delivery.handled", "outbox.read", "outbox.published",
    "outbox.deleted", "delivery.drained", "delivery.acked",
]  # fmt: skip


@pytest.mark.parametrize("point", POINTS)
async def test_a_crash_between_any_two_steps_neither_loses_nor_doubles_a_judgement(
    js: JetStreamContext, nc: Client, settings: Settings, point: str
) -> None:
    info = await js.consumer_info(subjects.GOVERNANCE, subjects.REVIEWER_SAMPLER_VERDICTS)
    await js.add_consumer(subjects.GOVERNANCE, info.config.evolve(ack_wait=0.3))
    await put_card(js)
    reached = []

    def die(name: str) -> None:
        if name == point:
            reached.append(name)
            faults.set_hook(None)
            raise Crash

    async with sampler(settings) as task:
        await begin(js, "r-1", "r-2", "r-3")
        faults.set_hook(die)
        try:
            for run_id, verdict in (("r-1", "pass"), ("r-2", "fail"), ("r-3", "pass")):
                await judge(nc, "ann", run_id, verdict, read=False)  # type: ignore[arg-type]
            with pytest.raises(Crash):
                await asyncio.wait_for(asyncio.shield(task), 20)
        finally:
            faults.set_hook(None)
    assert reached
    await judge(nc, "ben", "r-2", "fail", read=False)
    async with sampler(settings):
        await judged(js)
    assert rows(settings, COUNTS.replace("judged_at", "run_id, by")) == [
        {"by": "ann", "verdict": "pass", "counts": 1}, {"by": "ann", "verdict": "fail", "counts": 1},
        {"by": "ben", "verdict": "fail", "counts": 1}, {"by": "ann", "verdict": "pass", "counts": 1},
    ]  # fmt: skip
    stands = sorted((data.run_id, data.verdict, data.by) for _, data in await said(js, "agreed"))
    assert stands == [("r-1", "pass", ["ann"]), ("r-2", "fail", ["ann", "ben"]), ("r-3", "pass", ["ann"])]


async def test_judgements_that_come_again_and_in_any_order_settle_a_run_once(
    js: JetStreamContext, nc: Client, settings: Settings
) -> None:
    await put_card(js, second_review=1.0)
    async with sampler(settings):
        await begin(js, "r-1")
        for by, verdict in (("ben", "fail"), ("ann", "fail"), ("ben", "fail"), ("ann", "pass"), ("ann", "fail")):
            await judge(nc, by, "r-1", verdict, read=False)  # type: ignore[arg-type]
        await judged(js)
    assert [(event, data.by) for event, data in await said(js, "agreed", "disputed")] == [("agreed", ["ben", "ann"])]


async def test_what_is_said_of_an_erased_run_is_kept_without_its_words(
    js: JetStreamContext, nc: Client, settings: Settings
) -> None:
    await put_card(js)
    async with sampler(settings):
        await begin(js, "r-1")
        database = Database(settings.database_for(subjects.REVIEWER_SAMPLER), name=subjects.REVIEWER_SAMPLER)
        part = ErasureResolved(erasure_id="e-1", part=1, upto=0, runs=[ErasedRun(agent="desk", run_id="r-1")])
        await database.write(lambda conn: erasing.erase(conn, part))
        database.close()
        await judge(nc, "ann", "r-1", "fail", reasons=["tone"], note="planted", corrected="planted")
    kept = rows(settings, "SELECT verdict, note, corrected, counts FROM reviewer_sampler_judgements")
    assert kept == [{"verdict": "fail", "note": "", "corrected": "", "counts": 0}]
    assert await said(js, "agreed", "disputed") == []


@pytest.mark.postgres
async def test_people_judge_on_postgresql_too(
    js: JetStreamContext, nc: Client, settings: Settings, postgres_url: str
) -> None:
    settings = settings.model_copy(update={"database_url": postgres_url})
    await put_card(js)
    async with sampler(settings):
        await begin(js, *(f"r-{n}" for n in range(20)))
        for n in range(20):
            await judge(nc, "ann\0", f"r-{n}", "fail" if n % 2 else "pass", note="\0", read=False)
            await judge(nc, "ben", f"r-{n}", "fail" if n % 4 == 1 else "pass", read=False)
        await judge(nc, "cid", "r-\0", "pass")
        await judged(js)
    states = rows(settings, "SELECT state, count(*) AS n FROM reviewer_sampler_queue GROUP BY state ORDER BY state")
    assert [tuple(row.values()) for row in states] == [("disputed", 5), ("settled", 16)]
    assert len(await said(js, "agreed")) == 16
    assert len(await said(js, "disputed")) == 5
