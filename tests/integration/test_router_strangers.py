"""Cases of clients that are not the SDK, and of agents that mean no good."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from nats.js import JetStreamContext

from helpers import all_read, eventually
from kill_switch_helpers import Pod, heard, kill_switch, publish, put
from midwatch.contracts import subjects
from midwatch.contracts.governance import CaseAccepted, CaseClosed
from midwatch.runtime.database import Database
from midwatch.runtime.settings import Settings
from midwatch_services.kill_switch import history
from router_helpers import HASTY, Cases, arm, begin, give_card, speak, stop

HALT = b'{"state":"halted","by":"ann","reason":"wrong refunds"}'


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


async def test_the_case_of_a_client_that_says_only_that_it_was_halted_counts_at_its_halt(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    revision = await put(js, "agent.desk", HALT)
    async with kill_switch(settings, HASTY):
        await begin(js)
        await publish(js, "finished", seq=2, resolution="halted", epoch=revision, halted_by="ann")
        await cases.until("open")
        (opened,) = await cases.said("opened")
        (past,) = await cases.database.read(lambda conn: history.read(conn, agent="desk", fleet=False))
    assert (opened.key, opened.epoch, opened.by, opened.doubt) == ("agent.desk", revision, "ann", "")
    assert past.cases == 1


async def test_a_client_that_names_an_epoch_of_a_halt_that_was_lifted_counts_there(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    revision = await put(js, "fleet", HALT)
    await put(js, "fleet", b'{"state":"running"}')
    async with kill_switch(settings, HASTY):
        await begin(js)
        await publish(js, "finished", seq=2, resolution="halted", epoch=revision, halted_by="agent.desk")
        case = await cases.until("open")
        (past,) = await cases.database.read(lambda conn: history.read(conn, agent=None, fleet=True))
    assert (case["key"], case["epoch"], past.cases) == ("", revision, 1)


async def test_the_proof_of_a_halt_tells_its_cases_and_when_the_first_was_at_the_fallback(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    pod = Pod(js)
    async with kill_switch(settings, HASTY):
        await begin(js)
        await pod.say(runs_in_flight=["r1"])
        revision = await put(js, "agent.desk", HALT)
        await stop(js, epoch=revision)
        await cases.until("open")
        await pod.say({"agent.desk": revision})
        *_, contained = await heard(js, "halted", "contained")
    assert (contained.cases, contained.runs_stopped) == (1, 1)
    assert contained.first_case_seconds is not None
    assert 0 <= contained.first_case_seconds < 5


async def test_runs_that_carry_on_and_cannot_be_halted_go_to_people_with_a_doubt(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    await give_card(js, switch={"lost_control": "carry_on"})
    full = b'{"x":{"state":"running","reason":"%s"}}' % (b"x" * 899_930)
    await put(js, "runs.desk", full)
    async with kill_switch(settings, replace(HASTY, idle_after=timedelta(seconds=1.2))):
        await begin(js)
        await Pod(js, lease=0.2).say(runs_in_flight=["r1"])
        await cases.until("open")
        (opened,) = await cases.said("opened")
    assert (opened.to, opened.reason) == ("human", "its instance pod-1 vanished and could not be halted")
    assert "may go on" in opened.doubt


async def test_a_word_of_an_agent_that_comes_late_takes_no_case_from_people(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    async with kill_switch(settings, HASTY):
        await arm(js, "helper")
        await begin(js)
        await stop(js, to="agent:helper")
        await cases.until("offered")
        await cases.until("open")
        await speak(js, CaseAccepted(case_id=CASE, by="helper-1"), agent="helper")
        await speak(js, CaseClosed(case_id=CASE, by="stranger-1", note="done"), agent="stranger")
        await eventually(lambda: all_read(js, subjects.GOVERNANCE, subjects.KILL_SWITCH_GOVERNANCE))
        assert (await cases.one())["state"] == "open"
        assert (await cases.history())[-2:] == ["ignored", "ignored"]


async def test_the_largest_run_that_the_contract_lets_through_reaches_people(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    async with kill_switch(settings, HASTY):
        await publish(js, "started", input="x" * 900_000)
        for seq in range(1, 6):
            await publish(js, "tool_called", seq=seq, result="y" * 120_000)
        await stop(js, seq=6)
        await cases.until("open")
        (opened,) = await cases.said("opened")
    assert opened.run_id == "r1"


async def test_what_no_text_column_holds_stops_nothing(js: JetStreamContext, both: Settings) -> None:
    nul = "a\0b"
    database = Database(both.database_for("kill-switch"))
    async with kill_switch(both, HASTY):
        await begin(js, nul, ticket=nul, session=nul)
        await publish(js, "handed_off", nul, seq=2, to="human", reason=nul, key=nul, ticket=nul)
        await begin(js, "r2")
        await stop(js, "r2")
        await Cases(js, database).until("open", run_id="r2")
        await Cases(js, database).until("open", run_id=nul)
    database.close()


@pytest.mark.parametrize("field", ["key", "to", "reason"])
async def test_what_is_too_large_for_a_claim_stops_nobody_elses_cases(
    js: JetStreamContext, settings: Settings, cases: Cases, field: str
) -> None:
    async with kill_switch(settings, HASTY):
        await begin(js)
        await publish(js, "handed_off", seq=2, **({"to": "human", "key": "agent.desk"} | {field: "k" * 100_000}))
        await cases.until("open")
        await begin(js, "r2")
        await stop(js, "r2")
        await cases.until("open", run_id="r2")


async def test_presence_that_names_no_runs_of_the_contract_stops_no_rescue(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    async with kill_switch(settings, HASTY):
        await Pod(js, name="bad-1", agent="bad", lease=0.2).say(runs_in_flight=["x" * 70_000, ""])
        await begin(js)
        await Pod(js, lease=0.2).say(runs_in_flight=["r1"])
        await cases.until("open")
        assert [case["agent"] for case in await cases.all()] == ["desk"]
        await eventually(lambda: all_read(js, subjects.key_stream(subjects.CASES), subjects.KILL_SWITCH_CASES))
    assert (await js.stream_info(subjects.DEAD)).state.messages == 0
