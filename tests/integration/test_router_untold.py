"""A case that was claimed before anything of its run was heard: what the customer asked is told once it is over."""

import asyncio
from collections.abc import Iterator

import pytest
from nats.js import JetStreamContext

from kill_switch_helpers import kill_switch, publish
from midwatch.contracts.erasure import ErasedRun, ErasureResolved
from midwatch.runtime.database import Database
from midwatch.runtime.settings import Settings
from midwatch_services.kill_switch import erasing
from midwatch_services.kill_switch.cases import case_pages
from midwatch_services.kill_switch.cases.case_pages import Wanted
from router_helpers import HASTY, Cases, begin, claim, stop


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.database_for("kill-switch"))
    yield database
    database.close()


@pytest.fixture
def cases(js: JetStreamContext, database: Database) -> Cases:
    return Cases(js, database)


async def claimed_untold(js: JetStreamContext, cases: Cases) -> None:
    await claim(js)
    case = await cases.until("claimed")
    assert (case["ticket"], case["asked"]) == (None, "")


async def test_its_ticket_and_question_are_there_at_its_end_and_it_is_found_by_them(
    js: JetStreamContext, settings: Settings, database: Database, cases: Cases
) -> None:
    async with kill_switch(settings, HASTY):
        await claimed_untold(js, cases)
        for _ in range(2):  # the events of a run may come twice
            await begin(js, ticket="T-1042")
        await stop(js, own=True, ended="fell_back", ticket="T-1042")
        case = await cases.until("closed")
        assert (case["ticket"], case["asked"]) == ("T-1042", "Where is my refund, r1?")
        found = await database.read(lambda conn: case_pages.find(conn, Wanted(states=(), about="T-1042")))
        assert [one["run_id"] for one in found] == ["r1"]
        assert await cases.history() == ["claimed", "closed"]


async def test_so_it_is_where_the_runs_end_is_stored_before_its_beginning(
    js: JetStreamContext, settings: Settings, cases: Cases
) -> None:
    async with kill_switch(settings, HASTY):
        await claimed_untold(js, cases)
        await asyncio.gather(
            publish(js, "finished", seq=3, resolution="fell_back", epoch=7, ticket="T-1042"),
            begin(js, ticket="T-1042"),
        )
        assert (await cases.until("closed"))["ticket"] == "T-1042"


@pytest.mark.parametrize(("ended", "state"), [("fell_back", "closed"), ("halted", "open")])
async def test_what_was_erased_meanwhile_does_not_come_back(
    js: JetStreamContext, settings: Settings, database: Database, cases: Cases, ended: str, state: str
) -> None:
    part = ErasureResolved(erasure_id="e-1", part=1, upto=0, runs=[ErasedRun(agent="desk", run_id="r1")])
    async with kill_switch(settings, HASTY):
        await claimed_untold(js, cases)
        await begin(js, ticket="T-1042")
        await database.write(lambda conn: erasing.erase(conn, part))
        await stop(js, own=True, ended=ended, ticket="T-1042")
        case = await cases.until(state)
        assert (case["ticket"], case["asked"]) == (None, "")
        for opened in await cases.said(*["opened"][: state == "open"]):
            assert (opened.ticket, opened.input, opened.events) == (None, None, [])
