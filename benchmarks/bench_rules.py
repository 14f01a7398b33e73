"""What the loop rules halt, and would halt, of published runs of real agents: precision and recall of each.

`python benchmarks/bench_rules.py [--json] [--data FOLDER]`. Each run is judged as the replay would publish it, live, by
a card that says nothing but which of its tools write; what is usual for an agent is learnt from its runs in the order
of the file.
"""

import argparse
import gzip
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from midwatch.contracts import runs
from midwatch.contracts.codec import RunEvent
from midwatch.contracts.control import Card, LoopRule, ToolRule
from midwatch_services.cost_watchdog import policy
from midwatch_services.cost_watchdog.alerts import HaltRun, RaiseAlert
from midwatch_services.cost_watchdog.decide import Clock, decide
from midwatch_services.cost_watchdog.observe import observe
from midwatch_services.cost_watchdog.policy import Policy
from midwatch_services.cost_watchdog.rules.memory import Usual
from midwatch_services.cost_watchdog.rules.velocity import RUNS
from midwatch_services.cost_watchdog.state import RunState
from midwatch_services.replay.mapping import HandOffStep, ModelStep, PlayedRun, SaidStep, Step, ToolStep, to_played
from midwatch_services.replay.source import SourceRun

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
KINDS = {  # of each rule, what the file of pathologies calls that which it is to find
    "loop_no_new_state": "same_call_same_result_3plus",
    "loop_writes": "same_successful_write_twice",
    "loop_cycle": "abab_cycle",
    "loop_text": "same_agent_text_3plus",
    "loop_hand_offs": "transfer_called_twice",
    "velocity": "cost_2.5x_median",
}
FAR_APART = datetime(2026, 11, 22, tzinfo=UTC)  # of runs whose file records no times
LOOP_RULES = LoopRule()


class Verdict:
    """What was decided of a run, and what its file says of it."""

    def __init__(self, run: SourceRun, played: PlayedRun, calls: list[runs.ToolCalled]) -> None:
        self.run_id = run.run_id
        self.passed = bool(run.outcome and run.outcome.reward and run.outcome.reward > 0)
        self.calls = calls
        self.halted: list[RaiseAlert] = []  # alerts of rules that halted it, or would have
        self.acted = False
        self.paced = False  # whether its velocity could be judged
        self.silence = 0.0  # seconds, the longest between two of its events
        self.tokens_only = any(isinstance(step, ModelStep) and step.usage for step in played.steps) and not any(
            isinstance(step, ModelStep) and step.cost_usd for step in played.steps
        )

    def by(self, rule: str) -> RaiseAlert | None:
        return next((alert for alert in self.halted if alert.rule == rule), None)


def real_runs(folder: Path) -> Iterator[SourceRun]:
    with gzip.open(folder / "agent-runs" / "runs.jsonl.gz") as lines:
        for line in lines:
            yield msgspec.json.decode(line, type=SourceRun)


def writes(folder: Path) -> dict[str, ToolRule]:
    """The tools of all domains that write, as their makers say."""
    domains = json.loads((folder / "agent-runs" / "policies" / "tools.json").read_text(encoding="utf-8"))
    tools = [tool for domain in domains.values() for tool in domain["agent"]]
    return {tool["name"]: ToolRule(kind="write") for tool in tools if tool["type"] == "write"}


def said(played: PlayedRun) -> Iterator[RunEvent]:
    """The events of a run."""
    common: dict[str, Any] = {"run_id": played.run_id, "agent": played.agent, "version": "1", "mode": "live"}
    at = played.started_at or FAR_APART
    for seq, step in enumerate(played.steps):
        at = step.at or at
        yield RunEvent(played.agent, "", f"{played.run_id}-{seq}", at, "", _data(step, {**common, "seq": seq}))
    end = runs.Finished(**common, seq=len(played.steps), resolution=played.resolution, output=played.output)
    yield RunEvent(played.agent, "", f"{played.run_id}-end", played.ended_at or at, "", end)


def _data(step: Step, common: dict[str, Any]) -> runs.RunData:
    if isinstance(step, SaidStep):
        return runs.Said(**common, by=step.by, text=step.text)
    if isinstance(step, ModelStep):
        return runs.ModelCalled(
            **common, provider=step.provider, model=step.model, usage=step.usage, cost_usd=step.cost_usd
        )
    if isinstance(step, ToolStep):
        return runs.ToolCalled(**common, tool=step.tool, arguments=step.arguments, result=step.result, error=step.error)
    assert isinstance(step, HandOffStep)
    return runs.HandedOff(**common, to="human", reason=step.reason, summary=step.summary)


def verdict(run: SourceRun, limits: Policy, usual: Usual) -> tuple[Verdict, Usual]:
    """A run played to its end, whatever halts it; and what is usual after it."""
    played = to_played(run)
    events = list(said(played))
    result = Verdict(run, played, [event.data for event in events if isinstance(event.data, runs.ToolCalled)])
    result.paced = usual.token_runs >= RUNS and any(isinstance(step, ModelStep) and step.usage for step in played.steps)
    state, last = RunState(), events[0].time
    for event in events:
        result.silence, last = max(result.silence, (event.time - last).total_seconds()), event.time
        outcome = decide(state, None, observe(event), limits, Clock(event.time, None), usual)
        state, usual = outcome.run, outcome.usual
        for decision in outcome.decisions:
            if isinstance(decision, RaiseAlert) and decision.action != "none":
                result.halted.append(decision)
            result.acted |= isinstance(decision, HaltRun)
    return result, usual


def verdicts(folder: Path) -> list[Verdict]:
    card = Card(agent="bench", owner="", purpose="", can=[], tools=writes(folder))
    limits, usual, found = policy.of(card), defaultdict[str, Usual](Usual), []
    for run in real_runs(folder):
        agent = to_played(run).agent
        one, usual[agent] = verdict(run, limits, usual[agent])
        found.append(one)
    return found


def longest_streak(calls: Sequence[runs.ToolCalled]) -> int:
    """Calls in a row whose call and result were both seen before; counted on the texts, without the service's code."""
    seen: set[bytes] = set()
    streak = longest = 0
    for call in calls:
        text = msgspec.json.encode((call.tool, call.arguments, call.result, call.error), order="sorted")
        streak = streak + 1 if text in seen else 0
        seen.add(text)
        longest = max(longest, streak)
    return longest


def most_writes(calls: Sequence[runs.ToolCalled], tools: dict[str, ToolRule]) -> int:
    """How often the run made the same write with success; counted on the texts."""
    counts: dict[bytes, int] = defaultdict(int)
    for call in calls:
        if call.tool in tools and call.error is None and not str(call.result).startswith("Error"):
            counts[msgspec.json.encode((call.tool, call.arguments), order="sorted")] += 1
    return max(counts.values(), default=0)


def share(name: str, part: int, of: int, what: str, target: str = "") -> dict[str, Any]:
    """A row: `part` of `of`, in per cent."""
    ratio = part / of if of else None
    value, unit = ("none", "") if ratio is None else (100 * ratio, "%")
    return {
        "name": name, "value": value, "unit": unit, "target": target, "peer": f"{what}, {part} of", "peer_value": of,
        "ratio": ratio,
    }  # fmt: skip


def targets(found: list[Verdict], tools: dict[str, ToolRule]) -> list[dict[str, Any]]:
    """What the rules have to reach together."""
    passed = [one for one in found if one.passed]
    acted = [one for one in passed if one.acted]
    long = [one for one in found if longest_streak(one.calls) >= 6]
    at_fifth = [one for one in long if (alert := one.by("loop_no_new_state")) and alert.value == 5]
    much = max(found, key=lambda one: most_writes(one.calls, tools))
    stopped = much.by("loop_writes")
    bare = [one for one in found if one.tokens_only]
    return [
        share("passed runs that are halted", len(acted), len(passed), "passed runs", "≤ 1"),
        share("passed runs that would be halted if every rule acted", sum(bool(one.halted) for one in passed),
              len(passed), "passed runs"),
        {
            "name": "runs with a streak of 6 or more, halted at its fifth call", "value": len(at_fifth), "unit": "runs",
            "target": f"{len(long)}", "peer": "such runs", "peer_value": len(long), "ratio": len(at_fifth) / len(long),
        },
        {
            "name": "the run that made one write most often, halted at its", "value": stopped and stopped.value,
            "unit": "th", "target": "4", "peer": "times that it made it", "peer_value": most_writes(much.calls, tools),
            "ratio": None,
        },
        {
            "name": "the longest silence within a run", "value": max(one.silence for one in found) / 60,
            "unit": "minutes", "target": "", "peer": "reported as `stalled` after, minutes",
            "peer_value": LOOP_RULES.stalled / 60, "ratio": max(one.silence for one in found) / LOOP_RULES.stalled,
        },
        share("runs without costs, with tokens, whose velocity is judged", sum(one.paced for one in bare), len(bare),
              f"such runs (the first {RUNS} of an agent are learnt from)"),
    ]  # fmt: skip


def measured(rule: str, kind: str, found: list[Verdict], labelled: set[str]) -> list[dict[str, Any]]:
    """Precision and recall of one rule, against what it is to find and against runs that failed."""
    halted = {one.run_id for one in found if one.by(rule)}
    passed, failed = ({one.run_id for one in found if one.passed is way} for way in (True, False))
    does = "halts" if rule in ("loop_no_new_state", "loop_writes") else "would halt"
    rows = []
    for name, label in ((f"`{kind}`", labelled), ("failed", failed)):
        both = len(halted & label)
        rows.append(share(f"{rule}, precision: what it {does} is {name}", both, len(halted), f"what it {does}"))
        rows.append(share(f"{rule}, recall: what is {name} it {does}", both, len(label), f"runs that are {name}"))
    return [
        *rows,
        share(f"{rule}: passed runs that it {does}", len(passed & halted), len(passed), "passed runs", "≤ 1"),
    ]


def rows(folder: Path) -> list[dict[str, Any]]:
    found, labels = verdicts(folder), defaultdict[str, set[str]](set)
    for line in (folder / "agent-runs" / "pathologies.jsonl").read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        labels[one["kind"]].add(one["run_id"])
    result = targets(found, writes(folder))
    for rule, kind in KINDS.items():
        result += measured(rule, kind, found, labels[kind])
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--data", type=Path, default=DATA, metavar="FOLDER", help="the published runs")
    options = parser.parse_args()
    if not options.data.is_dir():
        sys.stderr.write(f"the published runs are not in {options.data}: the loop rules are not measured\n")
        return 0
    for row in rows(options.data):
        print(json.dumps(row) if options.json else row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
