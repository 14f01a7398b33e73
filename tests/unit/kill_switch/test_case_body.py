"""What a case carries of its run, and how much of it."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from midwatch.contracts.codec import RunEvent
from midwatch.contracts.runs import Finished, HandedOff, Message, RunData, Said, Started
from midwatch_services.kill_switch.cases.case_body import EVENTS_LIMIT, Told

NOW = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)


def tell(told: Told, data: type[RunData], seq: int, *, id: str | None = None, **fields: Any) -> None:
    event = {Started: "started", Said: "said", HandedOff: "handed_off", Finished: "finished"}[data]
    made = data(run_id="r1", agent="desk", version="1", mode="live", seq=seq, **fields)  # type: ignore[arg-type]
    size = len(msgspec.json.encode(made)) + 300
    told.add(RunEvent("desk", event, id or f"e{seq}", NOW, "/agents/desk/pod-1", made), seq + 1, size)


def test_events_are_told_once_and_in_the_order_of_the_run() -> None:
    told = Told()
    tell(told, Said, 1, by="agent", text="one")
    tell(told, Started, 0, input="Where is my refund?")
    tell(told, Said, 2, by="agent", text="two")
    tell(told, Said, 2, by="agent", text="two")
    assert [(event["event"], event["seq"]) for event in told.events()] == [("started", 0), ("said", 1), ("said", 2)]
    assert (told.left_out, told.asked) == (0, "Where is my refund?")


def test_of_a_long_run_the_first_event_and_the_newest_are_kept() -> None:
    told = Told()
    tell(told, Started, 0, input="Where is my refund?")
    for seq in range(1, 100):
        tell(told, Said, seq, by="agent", text="x" * 10_000)
    events = told.events()
    assert len(msgspec.json.encode(events)) <= EVENTS_LIMIT
    assert (events[0]["seq"], events[-1]["seq"]) == (0, 99)
    assert [event["seq"] for event in events[1:]] == list(range(100 - len(events) + 1, 100))
    assert told.left_out == 100 - len(events)


def test_of_a_very_large_event_the_short_fields_are_kept() -> None:
    told = Told()
    tell(told, Started, 0, input="Where?")
    tell(told, Said, 1, by="agent", text="x" * 200_000)
    tell(told, HandedOff, 2, to="human", reason="halted", key="agent.desk")
    said = told.events()[1]
    assert (said["by"], said["truncated"], "text" in said) == ("agent", True, False)
    assert told.left_out == 0


def test_a_run_is_whole_when_no_event_of_it_is_missing_before_the_one_that_tells_of_its_stop() -> None:
    told = Told()
    tell(told, Started, 0, input="Where?")
    tell(told, HandedOff, 2, to="human", reason="halted", key="agent.desk")
    assert not told.whole(upto=3, seq=2)
    tell(told, Said, 1, by="agent", text="x")
    told.upto = 3
    assert told.whole(upto=3, seq=2)
    assert not told.whole(upto=4, seq=2)


def test_a_source_that_does_not_count_from_0_has_no_gaps() -> None:
    told = Told()
    tell(told, Started, 5_000_000_000, input="Where?")
    assert told.whole(upto=0, seq=9_000_000_000)


def test_a_run_is_complete_where_no_more_is_missing_than_was_left_out() -> None:
    told = Told(skipped=2)
    tell(told, Said, 3, by="agent", text="x")
    assert not told.complete(4)
    tell(told, Started, 0, input="Where?")
    assert told.complete(4)
    assert not told.complete(5)
    assert not told.complete(9_000_000_000)
    assert told.left_out == 2


def test_the_first_end_of_a_run_counts() -> None:
    told = Told()
    tell(told, Finished, 3, resolution="fell_back")
    tell(told, Finished, 4, resolution="abandoned")
    assert told.ended == "fell_back"


def test_what_was_asked_is_the_last_message_on_one_line() -> None:
    told = Told()
    messages = [Message(role="system", content="Be kind."), Message(role="user", content="Where\nis  my refund?")]
    tell(told, Started, 0, input=messages)
    assert told.asked == "Where is my refund?"
