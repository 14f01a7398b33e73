"""Who is armed, and what the switch says of an agent."""

from datetime import UTC, datetime

import pytest

from midwatch.contracts.control import Presence
from midwatch.runtime.switchboard import Entry
from midwatch_services.commands.switch_output import events_kept_back
from midwatch_services.kill_switch.view import InstanceView, agent_view, why_not_armed

T0 = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
RUNNING = b'{"state":"running"}'
ENTRIES = {
    "fleet": Entry("fleet", RUNNING, 1, T0),
    "agent.desk": Entry("agent.desk", RUNNING, 7, T0),
    "tools.desk": Entry("tools.desk", b'{"refund":{"state":"halted","reason":"r","by":"ann"}}', 9, T0),
}
APPLIED = {"fleet": 1, "agent.desk": 7, "tools.desk": 9, "runs.desk": 0}


@pytest.mark.parametrize(
    ("applied", "age", "why"),
    [
        (APPLIED, 0.4, ""),
        (APPLIED, 3.1, "silent for 3 s"),
        (APPLIED, 9.2, "silent for 9 s, longer than its lease of 5 s"),
        (APPLIED | {"agent.desk": 6}, 0.4, "has not yet obeyed the last change of the switch"),
        (APPLIED | {"agent.desk": 8}, 0.4, "has not yet obeyed the last change of the switch"),
        ({"fleet": 1, "agent.desk": 7, "tools.desk": 9}, 0.4, "has not yet obeyed the last change of the switch"),
    ],
)
def test_armed_is_fresh_and_at_the_revision_of_every_key(applied: dict[str, int], age: float, why: str) -> None:
    presence = Presence(agent="desk", instance="pod-1", version="1", host="h", pid=7, applied=applied)
    assert why_not_armed(presence, age, {key: entry.revision for key, entry in ENTRIES.items()}) == why


def test_a_halted_tool_does_not_halt_the_agent() -> None:
    view = agent_view("desk", ENTRIES)
    assert not view.halted
    assert [(halt["key"], halt["target"], halt["by"]) for halt in view.halts] == [("tools.desk", "refund", "ann")]
    assert view.epochs == APPLIED


@pytest.mark.parametrize("value", [None, b"garbage", b'{"state":"halted"}'])
@pytest.mark.parametrize("key", ["fleet", "agent.desk"])
def test_an_agent_whose_key_is_not_running_is_halted(key: str, value: bytes | None) -> None:
    assert agent_view("desk", ENTRIES | {key: Entry(key, value, 9, T0)}).halted


def test_an_agent_that_was_never_switched_on_is_halted() -> None:
    assert agent_view("other", ENTRIES).halted


@pytest.mark.parametrize(
    ("spooled", "lost", "text"),
    [
        (999, 0, None),
        (1000, 0, "refund-desk/pod-1: 1000 events wait for the server"),
        (3, 2, "refund-desk/pod-1: 3 events wait for the server, 2 are lost, its disk and memory were full"),
    ],
)
def test_events_that_are_kept_back_or_lost_are_said(spooled: int, lost: int, text: str | None) -> None:
    presence = Presence(
        agent="refund-desk", instance="pod-1", version="1", host="h", pid=1, applied={}, spooled=spooled, lost=lost
    )
    assert events_kept_back(InstanceView(presence, 0.1, "")) == text
