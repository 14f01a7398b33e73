"""The run of a case is read by where its events are; else the stream is searched for it."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from nats.js import JetStreamContext

from helpers import all_read, eventually
from kill_switch_helpers import kill_switch, publish
from midwatch.contracts import subjects
from midwatch.runtime import stream_read
from midwatch.runtime.database import Database
from midwatch.runtime.settings import Settings
from midwatch_services.kill_switch.cases import case_body, case_book, flights
from router_helpers import HASTY, Cases, begin, stop


@pytest.fixture
def cases(js: JetStreamContext, settings: Settings) -> Iterator[Cases]:
    database = Database(settings.database_for("kill-switch"))
    yield Cases(js, database)
    database.close()


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Subjects by which the stream was searched for a case."""
    made: list[str] = []

    async def search(nc: Any, stream: str, subject: str, start: Any) -> AsyncIterator[list[stream_read.Stored]]:
        made.append(subject)
        async for batch in stream_read.read_range(nc, stream, subject, start):
            yield batch

    monkeypatch.setattr(case_body, "read_range", search)
    return made


async def runs_read(js: JetStreamContext) -> None:
    await eventually(lambda: all_read(js, subjects.RUNS, subjects.KILL_SWITCH))


def told(opened: Any) -> list[str]:
    return [event["event"] for event in opened.events][:3]


async def test_runs_that_were_heard_from_their_beginning_are_not_searched_for(
    js: JetStreamContext, settings: Settings, cases: Cases, searches: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(case_book, "_GROUP", 2)
    runs = [f"r{number}" for number in range(5)]
    async with kill_switch(settings, HASTY):
        for run_id in runs:
            await begin(js, run_id)
        for run_id in runs:
            await stop(js, run_id)
        found = await cases.said(*["opened"] * len(runs))
    assert sorted(one.run_id for one in found) == runs
    assert all(told(one) == ["started", "tool_called", "handed_off"] for one in found)
    assert all(event["run_id"] == one.run_id for one in found for event in one.events)
    assert searches == []


async def test_a_run_of_which_an_event_was_deleted_has_a_case_with_the_rest(
    js: JetStreamContext, settings: Settings, cases: Cases, searches: list[str]
) -> None:
    async with kill_switch(settings, HASTY):
        await begin(js)
        await runs_read(js)
        await js.delete_msg(subjects.RUNS, 2)
        await stop(js)
        (opened,) = await cases.said("opened")
    assert told(opened)[:2] == ["started", "handed_off"]
    assert searches


async def test_a_run_is_searched_for_where_an_answer_is_lost(
    js: JetStreamContext, settings: Settings, cases: Cases, searches: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_read, "_PATIENCE", 0)
    async with kill_switch(settings, HASTY):
        await begin(js)
        await stop(js)
        (opened,) = await cases.said("opened")
    assert told(opened) == ["started", "tool_called", "handed_off"]
    assert searches == [subjects.run("desk", "*")]


async def test_the_case_of_a_very_long_run_says_how_much_is_left_out(
    js: JetStreamContext, settings: Settings, cases: Cases, searches: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flights, "_A_RUN", 4)
    async with kill_switch(settings, HASTY):
        await begin(js)
        for seq in range(2, 6):
            await publish(js, "tool_called", seq=seq)
        await runs_read(js)
        await stop(js, seq=6, ended=None)
        (opened,) = await cases.said("opened")
    # Of 7 the first 5 left 1, 4 and 5 (by sequence in the stream); the seventh again half of five.
    assert [event["seq"] for event in opened.events] == [0, 5, 6]
    assert opened.left_out == 4
    assert searches == []
