"""Reading the server's answers, whatever they are."""

from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from midwatch.link import _answer, nanoseconds
from midwatch.switch import Answer

SUBJECT = "$KV.MIDWATCH_SWITCH.fleet"
HEADERS = {"Nats-Subject": SUBJECT, "Nats-Sequence": "7", "Nats-Time-Stamp": "2026-11-22T02:00:00.5Z"}


def message(headers: dict[str, str] | None, data: bytes = b"{}") -> Msg:
    return Msg(_client=Client(), subject="_INBOX.x", data=data, headers=headers)


def test_a_value_has_its_revision_and_the_servers_time() -> None:
    assert _answer(message(HEADERS), SUBJECT) == Answer(7, 1_795_312_800_500_000_000, b"{}")


def test_status_404_means_that_there_is_no_such_key() -> None:
    assert _answer(message({"Status": "404", "Description": "Message Not Found"}), SUBJECT) == Answer(0, 0, None)


@pytest.mark.parametrize("more", [{"KV-Operation": "DEL"}, {"KV-Operation": "PURGE"}, {"Nats-Marker-Reason": "MaxAge"}])
def test_a_deleted_key_has_a_revision_and_no_value(more: dict[str, str]) -> None:
    answer = _answer(message(HEADERS | more), SUBJECT)
    assert answer is not None
    assert (answer.revision, answer.value) == (7, None)


@pytest.mark.parametrize(
    "headers",
    [
        None,
        {"Status": "408"},
        {"Status": "503"},
        HEADERS | {"Nats-Subject": "$KV.MIDWATCH_SWITCH.agent.desk"},
        HEADERS | {"Nats-Sequence": "seven"},
        HEADERS | {"Nats-Time-Stamp": "yesterday"},
        {"Nats-Subject": SUBJECT},
    ],
)
def test_anything_else_is_no_answer(headers: Any) -> None:
    assert _answer(message(headers), SUBJECT) is None


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        ("2026-11-22T02:00:00Z", 1_795_312_800_000_000_000),
        ("2026-11-22T02:00:00.1Z", 1_795_312_800_100_000_000),
        ("2026-11-22T02:00:00.000000001Z", 1_795_312_800_000_000_001),
    ],
)
def test_server_times_are_read_to_the_nanosecond(stamp: str, expected: int) -> None:
    assert nanoseconds(stamp) == expected
