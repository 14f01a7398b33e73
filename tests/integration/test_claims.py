"""Runs that people take to judge: one person at a time holds one, unless it wants two."""

import asyncio
import json
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace
from nats.aio.client import Client
from nats.js import JetStreamContext

from helpers import eventually
from midwatch.contracts import subjects
from midwatch.contracts.claims import REQUEST_LIMIT, Taken
from midwatch.runtime.database import Database
from midwatch.runtime.settings import Settings
from midwatch_services.reviewer_sampler.judging import waiting
from midwatch_services.reviewer_sampler.judging.desk import Desk, NobodyAnswers, NotAnswered, left
from review_helpers import begin, judge, put_card, rows, said, sampler

BRIEF = 0.3  # seconds of a claim that is to run out


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    if request.param == "sqlite":
        return settings
    return settings.model_copy(update={"database_url": request.getfixturevalue("postgres_url")})


@pytest.fixture
def ann(nc: Client) -> Desk:
    return Desk(nc, "ann")


@pytest.fixture
def ben(nc: Client) -> Desk:
    return Desk(nc, "ben")


async def test_two_people_hold_two_runs_in_the_order_of_the_queue(
    js: JetStreamContext, settings: Settings, ann: Desk, ben: Desk
) -> None:
    await put_card(js, minutes_a_day=60)
    async with sampler(settings):
        await begin(js, "r-1", "r-2", "r-3")
        first, second = await ann.take(), await ben.take()
        assert (first.run_id, second.run_id) == ("r-1", "r-2")
        assert (first.agent, first.ticket, first.mode, first.left, first.minutes_left) == ("desk", "T-1", "live", 2, 60)
        assert first.reasons[:2] == ["promised_too_much", "wrong_fact"]
        assert second.left == 1
        assert (await Desk(ann._nc, "cid").take()).run_id == "r-3"
        assert (await Desk(ann._nc, "dan").take()).reason == "nothing waits for dan"


async def test_what_one_cannot_have_is_what_one_has_judged_and_what_others_hold_who_are_enough(
    js: JetStreamContext, nc: Client, settings: Settings, ann: Desk, ben: Desk
) -> None:
    await put_card(js)
    async with sampler(settings):
        await begin(js, "r-1", "r-2", "r-3")
        await judge(nc, "ann", "r-1", "fail")
        assert (await ben.take(run_id="r-2")).run_id == "r-2"
        assert await not_for(settings, "ann") == [("r-1", True), ("r-2", False)]
        assert await not_for(settings, "ben") == []
        assert await not_for(settings, "cid") == [("r-2", False)]


async def test_a_run_for_two_that_one_holds_is_there_for_another(
    js: JetStreamContext, settings: Settings, ann: Desk, ben: Desk
) -> None:
    await put_card(js, second_review=1.0)
    async with sampler(settings):
        await begin(js, "r-1")
        assert (await ben.take()).run_id == "r-1"
        assert await not_for(settings, "ann") == []
        assert (await ann.take()).run_id == "r-1"
        assert await not_for(settings, "cid") == [("r-1", False)]


async def not_for(settings: Settings, by: str) -> list[tuple[str, bool]]:
    database = Database(settings.database_for(subjects.REVIEWER_SAMPLER))
    found = await database.read(lambda conn: waiting.not_for(conn, by, datetime.now(UTC)))
    database.close()
    return sorted((one.run_id, one.is_own) for one in found)


async def test_the_same_claim_gets_the_same_answer_and_another_persons_is_refused(
    js: JetStreamContext, settings: Settings, ann: Desk, ben: Desk
) -> None:
    await put_card(js)
    async with sampler(settings):
        await begin(js, "r-1", "r-2")
        first, second = [replace(await ann.take(claim="c-1"), seconds_left=None) for _ in range(2)]
        assert first == second
        assert "another person's" in (await ben.take(claim="c-1")).reason
        again = await ann.take(claim="c-2")  # a terminal that was closed, opened again
        assert (again.claim, again.run_id) == ("c-1", "r-1")
        assert (await ann.take(run_id="r-2", claim="c-3")).run_id == "r-2"
        assert "another person's" in (await ben.release(again)).reason
        assert (await ann.release(again)).reason == "released"
        assert "is over" in (await ann.take(claim="c-1")).reason
        assert (await ben.take()).run_id == "r-1"


async def test_a_claim_that_runs_out_returns_the_run_at_once(
    js: JetStreamContext, nc: Client, settings: Settings, ann: Desk, ben: Desk
) -> None:
    await put_card(js, claim=BRIEF)
    async with sampler(settings):
        await begin(js, "r-1")
        held = await ann.take()

        async def given() -> bool:
            return (await ben.take()).run_id == "r-1"

        await eventually(given)
        assert "is over" in (await ann.extend(held)).reason
        await judge(nc, "ben", "r-1", "pass")
        await judge(nc, "ann", "r-1", "fail")
    assert [data.by for _, data in await said(js, "agreed", "disputed")] == [["ben"]]
    kept = rows(settings, "SELECT by, verdict, counts FROM reviewer_sampler_judgements ORDER BY by")
    assert [tuple(row.values()) for row in kept] == [("ann", "fail", 0), ("ben", "pass", 1)]


async def test_a_claim_that_is_extended_is_held_on(js: JetStreamContext, settings: Settings, ann: Desk) -> None:
    await put_card(js, claim=60)
    async with sampler(settings):
        await begin(js, "r-1")
        held = await ann.take()
        longer = await ann.extend(held)
        assert held.until is not None
        assert longer.until is not None
        assert longer.until > held.until
        assert (longer.run_id, longer.claim) == ("r-1", held.claim)
        assert [59 < left(one) <= 60 for one in (held, longer)] == [True, True]


async def test_a_run_that_wants_two_is_held_by_two_and_no_more(
    js: JetStreamContext, nc: Client, settings: Settings, ann: Desk, ben: Desk
) -> None:
    await put_card(js, second_review=1.0)
    async with sampler(settings):
        await begin(js, "r-1")
        assert [(await desk.take()).run_id for desk in (ann, ben, Desk(nc, "cid"))] == ["r-1", "r-1", ""]
        await judge(nc, "cid", "r-1", "fail")  # who reads it besides does not push the two out
        await judge(nc, "ann", "r-1", "pass")
        assert (await Desk(nc, "dan").take()).run_id == ""  # ben reads it
        await judge(nc, "ben", "r-1", "fail")
        assert (await Desk(nc, "dan").take()).run_id == "r-1"  # the third
        assert (await ann.take()).reason == "nothing waits for ann"
    assert [data.by for _, data in await said(js, "disputed")] == [["ann", "ben"]]


async def test_who_has_judged_a_run_is_never_given_it_again(
    js: JetStreamContext, nc: Client, settings: Settings, ann: Desk, ben: Desk
) -> None:
    await put_card(js)
    async with sampler(settings):
        await begin(js, "r-1", "r-2")
        held = await ann.take()
        await judge(nc, "ann", "r-1", "fail", claim=held.claim, read=False)
        assert (await ann.take()).run_id == "r-2"  # a request waits for the judgements before it
        assert (await ann.take(run_id="r-1")).reason == "ann has judged r-1 already"
        assert (await ben.take()).run_id == "r-1"
        await judge(nc, "ben", "r-1", "fail")
        assert (await Desk(nc, "cid").take(run_id="r-1")).reason == (
            "r-1 is settled: nobody needs to judge it any more"
        )


async def test_drills_and_replays_are_given_to_those_who_name_them(
    js: JetStreamContext, settings: Settings, ann: Desk
) -> None:
    await put_card(js)
    async with sampler(settings):
        await begin(js, "d-1", mode="drill")
        await begin(js, "p-1", mode="replay")
        assert (await ann.take()).run_id == ""
        assert ((await ann.take(run_id="d-1")).mode, (await ann.take(run_id="p-1")).mode) == ("drill", "replay")


async def test_one_agent_can_be_asked_for_and_runs_be_skipped(
    js: JetStreamContext, settings: Settings, ann: Desk
) -> None:
    for agent in ("desk", "mail"):
        await put_card(js, agent)
    async with sampler(settings):
        await begin(js, "r-1", "r-2")
        await begin(js, "m-1", agent="mail")
        held = await ann.take(agent="mail")
        assert (held.run_id, held.left) == ("m-1", 0)
        await ann.release(held)
        assert (await ann.take(skip=["r-1"])).run_id == "r-2"
        assert "is not in the queue" in (await ann.take(run_id="nothing")).reason


async def test_the_day_that_reviewers_have_runs_down(
    js: JetStreamContext, nc: Client, settings: Settings, ann: Desk
) -> None:
    await put_card(js, minutes_a_day=10)
    async with sampler(settings):
        await begin(js, "r-1", "r-2", "r-3")
        await judge(nc, "ann", "r-1", seconds=90)
        assert (await ann.take()).minutes_left == 8.5
        await judge(nc, "ben", "r-3", seconds=3600)
        assert (await ann.take()).minutes_left == 0


BAD = [
    (b"{", "malformed", "breaks the contract"),
    (b'{"claim": "c-1", "by": ""}', "malformed", "breaks the contract"),
    (b'{"claim": "c-1", "by": "  "}', "malformed", "say who asks"),
    (b'{"claim": "a b", "by": "ann"}', "malformed", "breaks the contract"),
    (b'{"claim": "c-1", "by": "ann", "agent": "mail"}', "malformed", "the subject says agent 'desk'"),
    (b'{"claim": "c-1", "by": "' + b"x" * REQUEST_LIMIT + b'"}', "oversized", "the limit is 16384"),
    (b"[" * 9000, "malformed", "breaks the contract"),
]


async def test_what_breaks_the_contract_gets_a_clear_answer(
    js: JetStreamContext, nc: Client, settings: Settings
) -> None:
    async with sampler(settings):
        for body, error, reason in BAD:
            answer = Taken(**json.loads((await nc.request(subjects.claim("desk", "take"), body, timeout=5)).data))
            assert answer.error == error
            assert reason in answer.reason
        wrong = json.loads((await nc.request("midwatch.claim.desk.steal", b"{}", timeout=5)).data)
        assert wrong["error"] == "malformed"
        nothing = json.loads(
            (await nc.request(subjects.claim("desk", "extend"), b'{"claim":"c","by":"x"}', timeout=5)).data
        )
        assert nothing["reason"] == "there is no such claim: take the run"


async def test_without_a_sampler_a_reviewer_is_told_so(nc: Client, ann: Desk) -> None:
    with pytest.raises(NobodyAnswers, match="nobody listens"):
        await ann.take()


async def test_a_database_that_is_away_is_said_to_be_so(
    js: JetStreamContext, settings: Settings, ann: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from midwatch.errors import Temporary
    from midwatch.runtime.database import Database

    await put_card(js)
    async with sampler(settings):
        await begin(js, "r-1")

        async def away(*_: object, **__: object) -> None:
            raise Temporary("the database does not answer")

        monkeypatch.setattr(Database, "write", away)
        with pytest.raises(NotAnswered, match="the database does not answer"):
            await ann.take()
        monkeypatch.undo()
        assert (await ann.take()).run_id == "r-1"


async def test_many_who_ask_at_once_of_two_samplers_hold_each_run_once(
    js: JetStreamContext, nc: Client, settings: Settings
) -> None:
    await put_card(js)
    async with sampler(settings), sampler(settings):
        await begin(js, *(f"r-{n}" for n in range(40)))
        taken = await asyncio.gather(*(Desk(nc, f"person-{n}").take() for n in range(60)))
    held = [answer.run_id for answer in taken if answer.run_id]
    assert len(held) == len(set(held)) == 40
    assert rows(settings, "SELECT count(*) AS n FROM reviewer_sampler_claims") == [{"n": 40}]
