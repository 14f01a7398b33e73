"""Cases of runs that were stopped: one each, opened for people with all that is known of the run."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from nats.js import JetStreamContext

from helpers import all_read, eventually
from kill_switch_helpers import Pod, kill_switch, publish, put
from midwatch.contracts import subjects
from midwatch.contracts.governance import CaseAccepted, CaseClosed, CaseReturned
from midwatch.runtime.database import Database
from midwatch.runtime.settings import Settings
from router_helpers import HASTY, Cases, begin, claim, give_card, speak, stop

CASE = subjects.case_id("desk", "r1")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def both(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """Settings on either database."""
    if request.param == "sqlite":
        return settings
    return settings.model_copy(update={"database_url": str(request.getfixturevalue("postgres_url"))})


@pytest.fixture
def cases(js: JetStreamContext, settings: Settings) -> Iterator[Cases]:
    database = Database(settings.database_for("kill-switch"))
    yield Cases(js, database)
    database.close()


async def heard(js: JetStreamContext) -> bool:
    """Whether kill-switch has taken all that was said."""
    read = [
        (subjects.RUNS, subjects.KILL_SWITCH), (subjects.key_stream(subjects.CASES), subjects.KILL_SWITCH_CASES),
    ]  # fmt: skip
    return all([await all_read(js, stream, consumer) for stream, consumer in read])


async def dead_letter(js: JetStreamContext) -> bytes:
    await eventually(lambda: all_dead(js))
    return (await js.get_last_msg(subjects.DEAD, subjects.dead("kill-switch"))).data or b""


async def all_dead(js: JetStreamContext) -> int:
    return (await js.stream_info(subjects.DEAD)).state.messages


async def test_the_case_of_a_halted_run_goes_to_people_with_the_whole_run(js: JetStreamContext, both: Settings) -> None:
    revision = await put(js, "agent.desk", b'{"state":"halted","by":"ann","reason":"wrong refunds"}')
    async with kill_switch(both, HASTY):
        await begin(js, ticket="T-1", session="s1")
        await stop(js, epoch=revision, ticket="T-1", session="s1")
        database = Database(both.database_for("kill-switch"))
        cases = Cases(js, database)
        case = await cases.until("open")
        (opened,) = await cases.said("opened")
        assert await cases.history() == ["opened"]
        database.close()
    assert (case["to"], case["reason"], case["ticket"], case["epoch"]) == ("human", "wrong refunds", "T-1", revision)
    assert case["asked"] == "Where is my refund, r1?"
    assert (opened.case_id, opened.agent, opened.run_id, opened.to) == (CASE, "desk", "r1", "human")
    assert (opened.by, opened.key, opened.epoch, opened.opened_by) == ("ann", "agent.desk", revision, "kill-switch")
    assert (opened.input, opened.ticket, opened.session) == ("Where is my refund, r1?", "T-1", "s1")
    assert [event["event"] for event in opened.events][:3] == ["started", "tool_called", "handed_off"]
    assert opened.events[1]["tool"] == "lookup"
    assert (opened.left_out, opened.doubt, opened.chain) == (0, "", [])


async def test_events_said_twice_or_in_another_order_make_one_case(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    async with kill_switch(settings, HASTY):
        await publish(js, "finished", seq=3, resolution="halted")
        await stop(js)
        await begin(js)
        await stop(js)
        await cases.until("open")
        await eventually(lambda: heard(js))
        assert len(await cases.said("opened")) == 1


@pytest.mark.parametrize("mode", ["shadow", "eval", "replay"])
async def test_nobody_waits_for_a_run_that_does_not_act(
    js: JetStreamContext, settings: Settings, cases: Cases, mode: str
) -> None:
    async with kill_switch(settings, HASTY):
        await begin(js, mode=mode)
        await stop(js, mode=mode)
        await eventually(lambda: heard(js))
        assert await cases.all() == []


async def test_a_run_that_hands_off_by_its_own_wish_makes_no_case(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    async with kill_switch(settings, HASTY):
        await begin(js)
        await stop(js, key=None, ended="handed_off")
        await eventually(lambda: heard(js))
        assert await cases.all() == []


async def test_the_case_of_a_drill_is_opened_and_closed_at_once(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    async with kill_switch(settings, HASTY):
        await begin(js, mode="drill")
        await stop(js, mode="drill", to="agent:simple")
        opened, _ = await cases.said("opened", "closed")
        assert (await cases.until("closed"))["mode"] == "drill"
    assert opened.mode == "drill"


async def test_a_case_that_its_own_program_has_answered_is_closed_without_a_word(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    async with kill_switch(settings, HASTY):
        await begin(js)
        await claim(js)
        assert (await cases.until("claimed"))["opened_by"] == "pod-1"
        await stop(js, own=True, ended="fell_back")
        await cases.until("closed")
        await cases.said()
        assert await cases.history() == ["claimed", "closed"]


async def test_a_case_whose_own_fallback_fails_goes_to_people_in_doubt(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    async with kill_switch(settings, HASTY):
        await begin(js)
        await claim(js)
        await stop(js, own=True, ended="halted")
        await cases.until("open")
        (opened,) = await cases.said("opened")
    assert "may have answered" in opened.doubt
    assert [event["event"] for event in opened.events] == ["started", "tool_called", "handed_off", "finished"]


async def test_a_fallback_that_could_not_claim_its_case_has_it_all_the_same(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    async with kill_switch(settings, HASTY):
        await begin(js)
        await stop(js, own=True, ended=None)
        case = await cases.until("claimed")
        assert (case["opened_by"], case["to"]) == ("pod-1", "own")
        await publish(js, "finished", seq=3, resolution="fell_back")
        await cases.until("closed")


async def test_a_claim_that_comes_after_the_end_of_its_run_is_closed(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    await begin(js)
    await publish(js, "finished", seq=2, resolution="fell_back")
    async with kill_switch(settings, HASTY):
        await eventually(lambda: heard(js))
        await claim(js)
        await cases.until("closed")
        await cases.said()


async def test_an_answer_that_comes_after_all_closes_a_case_that_nobody_has_taken(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    async with kill_switch(settings, HASTY):
        await begin(js)
        await stop(js, ended=None)
        await cases.until("open")
        await publish(js, "finished", seq=3, resolution="fell_back")
        await cases.until("closed")
        await cases.said("opened", "closed")


# People


async def test_of_two_who_accept_a_case_the_first_has_it(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    async with kill_switch(settings, HASTY):
        await begin(js)
        await stop(js)
        await cases.until("open")
        await speak(js, CaseAccepted(case_id=CASE, by="ann", reference="HD-1"))
        await speak(js, CaseAccepted(case_id=CASE, by="bob", reference="HD-2"))
        await eventually(lambda: all_read(js, subjects.GOVERNANCE, subjects.KILL_SWITCH_GOVERNANCE))
        case = await cases.one()
        assert (case["state"], case["taken_by"], case["reference"]) == ("taken", "ann", "HD-1")
        assert await cases.history() == ["opened", "accepted", "ignored"]


async def test_a_case_that_is_returned_waits_again_and_may_be_closed_by_another(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    async with kill_switch(settings, HASTY):
        await begin(js)
        await stop(js)
        await cases.until("open")
        await speak(js, CaseAccepted(case_id=CASE, by="ann"))
        await speak(js, CaseReturned(case_id=CASE, by="bob", note="not his to return"))
        await speak(js, CaseReturned(case_id=CASE, by="ann", note="my shift is over"))
        await speak(js, CaseAccepted(case_id=CASE, by="bob"))
        await speak(js, CaseClosed(case_id=CASE, by="bob", note="refunded"))
        await cases.until("closed")
        assert await cases.history() == ["opened", "accepted", "ignored", "returned", "accepted", "closed"]
        await cases.said("opened", "accepted", "returned", "returned", "accepted", "closed")


async def test_an_acceptance_that_is_delivered_twice_counts_once(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    async with kill_switch(settings, HASTY):
        await begin(js)
        await stop(js)
        await cases.until("open")
        for data in (CaseAccepted(case_id=CASE, by="ann"), CaseReturned(case_id=CASE, by="ann"),
                     CaseAccepted(case_id=CASE, by="ann")):  # fmt: skip
            await speak(js, data, id=f"said-{type(data).__name__}")
        await eventually(lambda: all_read(js, subjects.GOVERNANCE, subjects.KILL_SWITCH_GOVERNANCE))
        assert (await cases.one())["state"] == "open"
        assert await cases.history() == ["opened", "accepted", "returned"]


async def test_a_word_on_a_case_that_never_was_is_a_dead_letter(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    async with kill_switch(settings, HASTY):
        await begin(js)
        await stop(js)
        await cases.until("open")
        await speak(js, CaseAccepted(case_id="case-000000000000", by="ann"))
        await speak(js, CaseAccepted(case_id=CASE, by="ann"))
        await cases.until("taken")
        assert b"unknown_case" in await dead_letter(js)


async def test_a_claim_of_another_key_is_a_dead_letter(js: JetStreamContext, settings: Settings, cases: Cases) -> None:
    async with kill_switch(settings, HASTY):
        await claim(js, "r1", agent="other")
        assert b"wrong_agent" in await dead_letter(js)
        assert await cases.all() == []


# Those who vanish


async def test_the_runs_of_a_vanished_instance_go_to_the_fallback_of_its_card(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    pod = Pod(js, lease=0.5)
    async with kill_switch(settings, HASTY):
        for run_id in ("r1", "r2", "r3"):
            await begin(js, run_id)
        await publish(js, "finished", "r2", seq=2)
        await eventually(lambda: heard(js))
        await pod.say(runs_in_flight=["r1", "r2", "r3", "r4"], no_case=["r4"])
        case = await cases.until("open")
        await cases.until("open", run_id="r3")
        assert {one["run_id"] for one in await cases.all()} == {"r1", "r3"}
        (opened, _) = await cases.said("opened", "opened")
    assert (case["reason"], case["doubt"]) == ("its instance pod-1 vanished", "")
    assert [event["event"] for event in opened.events] == ["started", "tool_called"]


async def test_an_instance_that_wakes_finds_its_cases_claimed(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    pod = Pod(js, lease=0.5)
    async with kill_switch(settings, HASTY):
        await begin(js)
        await pod.say(runs_in_flight=["r1"])
        await cases.until("open")
        with pytest.raises(Exception, match="maximum messages per subject"):
            await claim(js)
        await pod.say(runs_in_flight=["r1"])
        await stop(js, key="lease", epoch=None)
        await eventually(lambda: heard(js))
        assert len(await cases.said("opened")) == 1


async def test_a_vanished_program_with_a_fallback_of_its_own_leaves_a_doubt(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    async with kill_switch(settings, HASTY):
        await begin(js)
        await Pod(js, lease=0.5).say(runs_in_flight=["r1"], own_fallback=True)
        await cases.until("open")
        (opened,) = await cases.said("opened")
    assert "may have answered" in opened.doubt


@pytest.mark.parametrize("last", [{"leaving": True}, {"runs_in_flight": ["r1"]}])
async def test_the_case_of_a_program_that_ends_within_its_own_fallback_goes_to_people_in_doubt(
    js: JetStreamContext, settings: Settings, cases: Cases, last: dict[str, object]
) -> None:
    pod = Pod(js, lease=0.5)
    async with kill_switch(settings, HASTY):
        await begin(js)
        await pod.say(runs_in_flight=["r1"], own_fallback=True)
        await claim(js)
        await stop(js, own=True, ended=None)
        await cases.until("claimed")
        await pod.say(**last)
        await cases.until("open")
        (opened,) = await cases.said("opened")
    assert "may have answered" in opened.doubt


async def test_a_program_that_answered_and_then_vanished_is_believed(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    async with kill_switch(settings, HASTY):
        await begin(js)
        await claim(js)
        await cases.until("claimed")
    await publish(js, "finished", seq=2, resolution="fell_back")
    async with kill_switch(settings, HASTY):
        await cases.until("closed")
        await cases.said()


async def test_runs_that_carry_on_without_a_lease_are_halted_before_others_see_to_them(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    await give_card(js, switch={"lost_control": "carry_on"})
    pod = Pod(js, lease=0.2)
    patient = replace(HASTY, idle_after=timedelta(seconds=1.2))
    async with kill_switch(settings, patient):
        await begin(js)
        await begin(js, "r2")
        await pod.say(runs_in_flight=["r1", "r2"])
        await asyncio.sleep(0.8)
        assert await cases.all() == []
        await cases.until("open")
        await cases.until("open", run_id="r2")
        halted = await js.get_last_msg(subjects.key_stream(subjects.SWITCH), "$KV.MIDWATCH_SWITCH.runs.desk")
        info = await js.stream_info(
            subjects.key_stream(subjects.SWITCH), subjects_filter="$KV.MIDWATCH_SWITCH.runs.desk"
        )
    assert b'"r1":{"state":"halted"' in (halted.data or b"") and b'"r2":{"state":"halted"' in (halted.data or b"")
    assert info.state.subjects == {"$KV.MIDWATCH_SWITCH.runs.desk": 1}
