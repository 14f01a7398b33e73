"""Which dead letters belong together, whose they are, and in which order they are published again."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from midwatch_services.dead_letters.decide import Letter, headers_again, in_order, obstacle, originals

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
MONTH = timedelta(days=30)


def letter(number: int, **fields: Any) -> Letter:
    """A letter of the logger for the tenth message of the runs, unless `fields` say otherwise."""
    common: dict[str, Any] = {
        "at": NOON, "service": "logger", "reason": "failed", "error": "e", "subject": "midwatch.run.desk.said",
        "stream": "MIDWATCH_RUNS", "stream_seq": 10, "digest": b"a",
    }  # fmt: skip
    return Letter(number, **{**common, **fields})


@pytest.mark.parametrize(
    ("subject", "agent"),
    [
        ("midwatch.run.desk.said", "desk"),
        ("midwatch.run.re.fund.said", "re.fund"),
        ("$KV.MIDWATCH_SWITCH.agent.desk", "desk"),
        ("$KV.MIDWATCH_CASES.desk.r-1", "desk"),
        ("MIDWATCH_SWITCH", ""),
        ("", ""),
    ],
)
def test_whose_message_it_was_is_in_its_subject(subject: str, agent: str) -> None:
    assert letter(1, subject=subject).agent == agent


def test_letters_of_one_message_belong_together_and_those_without_a_stream_stand_alone() -> None:
    found = originals([
        letter(1), letter(2, service="kill-switch"), letter(3, stream_seq=9), letter(4, digest=b"b"),
        letter(5, stream="", stream_seq=0), letter(6, stream="", stream_seq=0),
    ])  # fmt: skip
    assert [one.numbers for one in found] == [[6], [5], [4], [3], [2, 1]]


def test_they_are_published_as_their_stream_had_them() -> None:
    found = in_order(originals([letter(1, stream_seq=12), letter(2, stream_seq=11), letter(3, stream_seq=10)]))
    assert [one.newest.stream_seq for one in found] == [10, 11, 12]


def test_one_service_that_refused_it_is_enough_to_refuse_it() -> None:
    (one,) = originals([letter(1, reason="malformed"), letter(2, service="kill-switch")])
    against = obstacle(one, NOON, MONTH)
    assert against is not None
    assert (against.why, against.force) == ("it is malformed, and will be refused again", True)
    assert "`midwatch dead drop 2 1`" in against.mend


@pytest.mark.parametrize(("days", "refused"), [(30, False), (31, True)])
def test_age_counts_from_the_oldest_letter(days: int, refused: bool) -> None:
    (one,) = originals([letter(1), letter(2, service="kill-switch", at=NOON + timedelta(days=20))])
    assert (obstacle(one, NOON + timedelta(days=days), MONTH) is not None) is refused


def test_no_header_of_the_servers_own_is_sent_again_but_the_id() -> None:
    was = {"Nats-Msg-Id": "e-1", "nats-batch-id": "b", "Nats-Expected-Stream": "s", "traceparent": "t", "x": "y"}
    assert headers_again(was) == {"Nats-Msg-Id": "e-1", "traceparent": "t", "x": "y"}
