"""What a halt is of, and what it is refused for before anything is sent."""

import pytest

from midwatch.errors import BadAgentName, MidwatchError
from midwatch.runtime.switchboard import Entry, Scope, is_deleted


@pytest.mark.parametrize(
    ("scope", "key", "target"),
    [
        (Scope(), "fleet", None),
        (Scope("desk"), "agent.desk", None),
        (Scope("desk", tool="refund"), "tools.desk", "refund"),
        (Scope("desk", run_id="run-1"), "runs.desk", "run-1"),
    ],
)
def test_each_scope_has_its_key(scope: Scope, key: str, target: str | None) -> None:
    assert (scope.key, scope.target) == (key, target)


@pytest.mark.parametrize("name", ["a.b", "Desk", "", "*", "_fleet", "a" * 64])
def test_a_name_that_is_no_agents_is_refused(name: str) -> None:
    with pytest.raises(BadAgentName):
        Scope(name)


@pytest.mark.parametrize(
    "parts",
    [
        {"tool": "refund"},
        {"run_id": "r1"},
        {"agent": "desk", "tool": "t", "run_id": "r"},
        {"agent": "desk", "tool": ""},
    ],
)
def test_a_scope_that_names_too_little_or_too_much_is_refused(parts: dict[str, str]) -> None:
    with pytest.raises(MidwatchError):
        Scope(**parts)


def test_an_absent_map_halts_nothing_and_an_unreadable_one_is_no_map() -> None:
    assert Entry("runs.desk", None, 0, None).map() == {}
    assert Entry("runs.desk", b"", 3, None).map() is None


def test_an_absent_or_unreadable_record_is_none() -> None:
    assert Entry("fleet", None, 0, None).record() is None
    assert Entry("fleet", b"{", 3, None).record() is None


@pytest.mark.parametrize(
    ("headers", "deleted"),
    [
        (None, False),
        ({"Nats-Msg-Id": "x"}, False),
        ({"KV-Operation": "DEL"}, True),
        ({"KV-Operation": "PURGE"}, True),
        ({"Nats-Marker-Reason": "MaxAge"}, True),
    ],
)
def test_a_key_removed_by_hand_or_by_age_is_deleted(headers: dict[str, str] | None, deleted: bool) -> None:
    assert is_deleted(headers) is deleted
