"""The rules that act, on published runs of real agents: which they halt, and at which call."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from midwatch.contracts.codec import RunEvent
from midwatch.contracts.control import Card, ToolRule
from midwatch.contracts.runs import ToolCalled
from midwatch_services.cost_watchdog import policy
from midwatch_services.cost_watchdog.alerts import HaltRun, RaiseAlert
from midwatch_services.cost_watchdog.decide import Clock, decide
from midwatch_services.cost_watchdog.observe import observe
from midwatch_services.cost_watchdog.state import RunState
from midwatch_services.replay.mapping import ToolStep, to_played
from midwatch_services.replay.source import SourceRun

pytestmark = pytest.mark.data

SAME_WRITE_94_TIMES = "7939a3b6"  # how its id begins
AT = datetime(2026, 11, 22, tzinfo=UTC)


def halts(run: SourceRun, limits: policy.Policy) -> list[RaiseAlert]:
    """Alerts of the tool calls of a run that came with a halt."""
    steps = [step for step in to_played(run).steps if isinstance(step, ToolStep)]
    state, found = RunState(), []
    for seq, step in enumerate(steps):
        data = ToolCalled(
            run_id=run.run_id, agent="a", version="1", mode="live", seq=seq, tool=step.tool, arguments=step.arguments,
            result=step.result, error=step.error,
        )  # fmt: skip
        event = RunEvent("a", "tool_called", f"e{seq}", AT, "", data)
        outcome = decide(state, None, observe(event), limits, Clock(AT, None))
        state = outcome.run
        halted = {one.alert_id for one in outcome.decisions if isinstance(one, HaltRun)}
        found += [one for one in outcome.decisions if isinstance(one, RaiseAlert) and one.alert_id in halted]
    return found


@pytest.fixture(scope="module")
def runs(data_dir: Path) -> list[SourceRun]:
    with gzip.open(data_dir / "agent-runs" / "runs.jsonl.gz") as lines:
        return [msgspec.json.decode(line, type=SourceRun) for line in lines]


@pytest.fixture(scope="module")
def halted(runs: list[SourceRun], data_dir: Path) -> dict[str, list[RaiseAlert]]:
    domains: dict[str, Any] = json.loads((data_dir / "agent-runs" / "policies" / "tools.json").read_text())
    names = {tool["name"] for domain in domains.values() for tool in domain["agent"] if tool["type"] == "write"}
    tools = {name: ToolRule(kind="write") for name in names}
    limits = policy.of(Card(agent="a", owner="", purpose="", can=[], tools=tools))
    return {run.run_id: alerts for run in runs if (alerts := halts(run, limits))}


def test_the_run_that_made_one_write_94_times_is_halted_at_its_fourth(halted):
    (alerts,) = [alerts for run_id, alerts in halted.items() if run_id.startswith(SAME_WRITE_94_TIMES)]
    assert [(one.rule, one.value, one.tool) for one in alerts[:1]] == [("loop_writes", 4, "update_reservation_flights")]


def test_every_run_that_made_a_write_four_times_is_halted_and_no_other(halted, data_dir):
    found = map(json.loads, (data_dir / "agent-runs" / "pathologies.jsonl").read_text().splitlines())
    twice = {one["run_id"] for one in found if one["kind"] == "same_successful_write_twice"}
    by_writes = {run_id for run_id, alerts in halted.items() if any(one.rule == "loop_writes" for one in alerts)}
    assert len(by_writes) == 4
    assert by_writes <= twice


def test_the_rules_that_act_halt_at_most_one_in_a_hundred_passed_runs(runs, halted):
    passed = {run.run_id for run in runs if run.outcome and run.outcome.reward and run.outcome.reward > 0}
    assert len(passed) == 343
    assert len(passed & set(halted)) <= 3
