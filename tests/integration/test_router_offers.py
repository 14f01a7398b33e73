"""Cases that are offered to another agent: it has one if it is the first to create the key, else people have it."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from nats.js import JetStreamContext

from helpers import eventually
from kill_switch_helpers import kill_switch, publish, put
from midwatch.contracts import subjects
from midwatch.contracts.governance import CaseAccepted, CaseClosed, CaseReturned
from midwatch.runtime.database import Database
from midwatch.runtime.settings import Settings
from midwatch_services.kill_switch.cases import case_store
from router_helpers import HASTY, Cases, arm, begin, create, give_card, speak, stop

CASE = subjects.case_id("desk", "r1")
OFFER = subjects.offer_key("helper", "desk", "r1")
LABELS = {"midwatch.case": CASE}
CALM = replace(HASTY, accept_within=timedelta(seconds=5), begin_within=timedelta(seconds=5))


@pytest.fixture
def cases(js: JetStreamContext, settings: Settings) -> Iterator[Cases]:
    database = Database(settings.database_for("kill-switch"))
    yield Cases(js, database)
    database.close()


async def offered(js: JetStreamContext, cases: Cases) -> None:
    """A case that is offered to `helper`."""
    await begin(js)
    await stop(js, to="agent:helper")
    await cases.until("offered")


async def taken(js: JetStreamContext, cases: Cases) -> None:
    """A case that `helper-1` has accepted and handles in its run h1."""
    await offered(js, cases)
    await create(js, OFFER, by="helper-1", to="agent:helper")
    await cases.until("taken")
    await publish(js, "started", "h1", agent="helper", labels=LABELS)
    await eventually(lambda: began(cases))


async def began(cases: Cases) -> bool:
    return (await cases.one())["taken_run"] == "h1"


async def test_an_agent_that_is_armed_is_offered_the_whole_case(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    async with kill_switch(settings, CALM):
        await arm(js, "helper")
        await offered(js, cases)
        (offer,) = await cases.said("offered")
    assert (offer.taker, offer.offer_key, offer.case.to) == ("helper", OFFER, "agent:helper")
    assert 4.0 < offer.within <= 5.0
    assert (offer.case.input, offer.case.case_id) == ("Where is my refund, r1?", CASE)
    assert len(offer.case.events) >= 3


async def test_an_offer_that_nobody_accepts_goes_to_people_and_cannot_be_accepted_any_more(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    async with kill_switch(settings, HASTY):
        await arm(js, "helper")
        await offered(js, cases)
        await cases.until("open")
        _, opened = await cases.said("offered", "opened")
        with pytest.raises(Exception, match="maximum messages per subject"):
            await create(js, OFFER, by="helper-1")
    assert (opened.to, opened.doubt) == ("human", "")


async def test_an_agent_that_accepts_and_resolves_closes_the_case(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    async with kill_switch(settings, CALM):
        await arm(js, "helper")
        await taken(js, cases)
        assert (await cases.one())["taken_by"] == "helper-1"
        await publish(js, "finished", "h1", agent="helper", labels=LABELS, seq=1)
        await cases.until("closed")
        await cases.said("offered", "closed")
        assert await cases.history() == ["offered", "accepted", "began", "closed"]


async def test_an_agent_that_is_faster_than_the_delivery_of_its_key_is_believed(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    async with kill_switch(settings, CALM):
        await arm(js, "helper")
        await offered(js, cases)
        await create(js, OFFER, by="helper-1", to="agent:helper")
        await speak(js, CaseAccepted(case_id=CASE, by="helper-1"), agent="helper")
        await publish(js, "started", "h1", agent="helper", labels=LABELS)
        await publish(js, "finished", "h1", agent="helper", labels=LABELS, seq=1)
        await cases.until("closed")
        assert "ignored" not in await cases.history()


@pytest.mark.parametrize("ended", ["failed", "abandoned"])
async def test_an_agent_that_gives_up_leaves_the_case_to_people_in_doubt(
    js: JetStreamContext, settings: Settings, cases: Cases, ended: str
) -> None:
    async with kill_switch(settings, CALM):
        await arm(js, "helper")
        await taken(js, cases)
        await publish(js, "finished", "h1", agent="helper", labels=LABELS, seq=1, resolution=ended)
        await cases.until("open")
        _, opened = await cases.said("offered", "opened")
    assert (opened.to, opened.doubt) == ("human", "helper had it before and may have answered")


async def test_an_agent_that_accepts_and_never_begins_leaves_the_case_to_people(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    async with kill_switch(settings, replace(CALM, begin_within=HASTY.begin_within)):
        pod = await arm(js, "helper")
        await offered(js, cases)
        await create(js, OFFER, by="helper-1", to="agent:helper")
        await cases.until("taken")
        for _ in range(4):
            await pod.say()
        await cases.until("open")


async def test_an_agent_that_vanishes_with_a_case_leaves_one_of_its_own_to_people(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    async with kill_switch(settings, CALM):
        pod = await arm(js, "helper")
        await taken(js, cases)
        await pod.say(runs_in_flight=["h1"])
        child = await cases.until("open", agent="helper", run_id="h1")
        await cases.until("closed")
        await cases.said("offered", "opened", "closed")
    assert (child["to"], child["chain"]) == ("human", ["desk"])


async def test_the_case_of_a_run_that_had_a_case_goes_on_and_never_back(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    async with kill_switch(settings, CALM):
        await arm(js, "helper")
        await arm(js, "desk", "pod-1")
        await taken(js, cases)
        await stop(js, "h1", agent="helper", to="agent:desk", key="agent.helper", seq=1, labels=LABELS)
        child = await cases.until("open", agent="helper", run_id="h1")
        await cases.until("closed")
    assert (child["to"], child["chain"]) == ("human", ["desk"])
    assert "desk had it before" in str(await note_of(cases, "helper", "h1"))


async def note_of(cases: Cases, agent: str, run_id: str) -> str:
    case_id = subjects.case_id(agent, run_id)
    (first, *_) = await cases.database.read(lambda conn: case_store.history(conn, case_id))
    return str(first["note"])


async def test_a_halted_agent_is_offered_nothing(js: JetStreamContext, settings: Settings, cases: Cases) -> None:
    async with kill_switch(settings, CALM):
        pod = await arm(js, "helper")
        revision = await put(js, "agent.helper", b'{"state":"halted"}')
        await pod.say({"agent.helper": revision})
        await eventually(lambda: halted(js))
        await begin(js)
        await stop(js, to="agent:helper")
        await cases.until("open")
        await cases.said("opened")
        assert await note_of(cases, "desk", "r1") == "not offered: helper is halted"


async def halted(js: JetStreamContext) -> bool:
    info = await js.stream_info(subjects.GOVERNANCE, subjects_filter="midwatch.switch.helper.halted")
    return bool(info.state.subjects)


async def test_an_agent_without_an_instance_is_offered_nothing(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    await put(js, "agent.helper", b'{"state":"running"}')
    async with kill_switch(settings, CALM):
        await begin(js)
        await stop(js, to="agent:helper")
        await cases.until("open")
        assert await note_of(cases, "desk", "r1") == "not offered: no instance of helper is armed"


async def test_people_may_close_what_is_offered_and_then_nobody_can_accept_it(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    async with kill_switch(settings, CALM):
        await arm(js, "helper")
        await offered(js, cases)
        await speak(js, CaseClosed(case_id=CASE, by="ann", note="a test"))
        await cases.until("closed")
        with pytest.raises(Exception, match="maximum messages per subject"):
            await create(js, OFFER, by="helper-1")


async def test_an_agent_may_return_a_case_to_people(js: JetStreamContext, settings: Settings, cases: Cases) -> None:
    async with kill_switch(settings, CALM):
        await arm(js, "helper")
        await taken(js, cases)
        await speak(js, CaseReturned(case_id=CASE, by="helper-1", note="too hard"))
        await cases.until("open")
        await cases.said("offered", "returned", "opened")


async def test_a_vanished_instances_runs_are_offered_to_the_agent_of_its_card(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    await give_card(js, fallback="agent:helper")
    async with kill_switch(settings, CALM):
        helper, desk = await arm(js, "helper"), await arm(js, "desk", "pod-1")
        await begin(js)
        await desk.say(runs_in_flight=["r1"])

        async def is_offered() -> bool:
            await helper.say()
            return bool(await cases.all()) and (await cases.one())["state"] == "offered"

        await eventually(is_offered)
