"""Cases from published runs: what the customer said, what the tools answered, and the task's expected actions. Pure."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from midwatch.errors import MidwatchError
from midwatch_services.replay.mapping import TRANSFER_TOOL, SaidStep, to_played
from midwatch_services.replay.source import SourceAction, SourceRun

from .case import CallRule, Case, Expect, Kind, Message
from .recorded import recorded_of, said_by, without_tokens

_NAME = 60  # characters of the task in a case's name
_TAIL = 8
ACTION = "ACTION"  # the reward asks for the expected actions themselves, not for the state that they leave


class NoCase(MidwatchError):
    """Run {run_id} makes no case: {why}."""


@dataclass(frozen=True, slots=True)
class Wish:
    """Which runs of a file become cases: all of `runs`; else those of the tasks and model, at most `limit`."""

    runs: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    model: str = ""
    limit: int = 60


def task_of(run: SourceRun) -> str:
    """`<domain>/<task id>`: the same in every run of it."""
    return f"{run.domain}/{run.task_id}"


def choose(runs: Iterable[SourceRun], wish: Wish) -> list[SourceRun]:
    """The runs that become cases. One of each task before a second of any, tasks evenly over the file's."""
    if wish.runs:
        found = {run.run_id: run for run in runs if run.run_id in set(wish.runs)}
        return [found[run_id] for run_id in dict.fromkeys(wish.runs) if run_id in found]
    by_task: dict[str, list[SourceRun]] = {}
    for run in runs:
        asked = not wish.tasks or task_of(run) in wish.tasks or run.task_id in wish.tasks
        if asked and (not wish.model or run.agent.model == wish.model) and _customer(run):
            by_task.setdefault(task_of(run), []).append(run)
    chosen: list[SourceRun] = []
    for turn in range(max(map(len, by_task.values()), default=0)):
        row = [some[turn] for some in by_task.values() if turn < len(some)]
        left = min(wish.limit - len(chosen), len(row))
        chosen += [row[at * len(row) // left] for at in range(left)]
    return chosen


def case_of(run: SourceRun, agent: str, kinds: Mapping[str, Kind]) -> Case:
    """The case that a published run makes. Raises NoCase."""
    turns = _customer(run)
    if not turns:
        raise NoCase(run_id=run.run_id, why="its customer says nothing")
    played = to_played(run)
    recorded = recorded_of(played.steps, kinds)
    return Case(
        name=name_of(run),
        agent=agent,
        turns=tuple(turns),
        expect=_expect(run, kinds),
        earlier=_greeting(run),
        recorded=tuple(recorded),
        kinds=dict(kinds),
        run_id=run.run_id,
        version=run.agent.model or "",
        task=task_of(run),
    )


def name_of(run: SourceRun) -> str:
    """A name that a file may have: the task in the letters of one, and a tail that tells its runs apart."""
    slug = re.sub(r"[^a-z0-9]+", "-", task_of(run).lower()).strip("-")[:_NAME].strip("-") or "task"
    return f"{slug}-{hashlib.sha256(run.run_id.encode()).hexdigest()[:_TAIL]}"


def _customer(run: SourceRun) -> list[str]:
    said = said_by("customer", to_played(run).steps)
    return [text for one in said if (text := without_tokens(one.text))]


def _greeting(run: SourceRun) -> tuple[Message, ...]:
    """What the agent says before the customer has said anything."""
    greeting = []
    for step in to_played(run).steps:
        if isinstance(step, SaidStep):
            if step.by == "customer":
                break
            greeting.append(Message("agent", step.text))
    return tuple(greeting)


def unknown_tools(case: Case) -> set[str]:
    """Tools of the run of which nobody says what they do: they count as no writes."""
    return {one.tool for one in case.recorded if one.tool not in case.kinds}


def _of_the_agent(run: SourceRun) -> list[SourceAction]:
    return [one for one in run.gold_actions or () if (one.requestor or "assistant") == "assistant"]


def _expect(run: SourceRun, kinds: Mapping[str, Kind]) -> Expect:
    """The writes that the task's author expects. A hand-off is asked where the published reward asks for the actions
    themselves: elsewhere runs without the one that is listed are rewarded as well."""
    if run.gold_actions is None:
        return Expect()
    actions = _of_the_agent(run)
    basis = run.outcome.basis if run.outcome else []
    hand_off = ACTION in basis and any(one.name == TRANSFER_TOOL for one in actions)
    return Expect(
        writes=tuple(rule_of(one.name, _compared(one)) for one in actions if kinds.get(one.name) == "write"),
        hands_off=True if hand_off else None,
    )


def _compared(action: SourceAction) -> Any:
    if action.compare_args is None or not isinstance(action.args, dict):
        return action.args
    return {name: action.args[name] for name in action.compare_args if name in action.args}


def rule_of(tool: str, arguments: Any) -> CallRule:
    """A rule that asks for these arguments: a name that looks like a path is written as one."""
    named = arguments if isinstance(arguments, dict) else {}
    return CallRule(tool, {_named(name): value for name, value in named.items()})


def _named(name: str) -> str:
    if not name.startswith("$"):
        return name
    quoted = name.replace("\\", "\\\\").replace("'", "\\'")
    return f"$['{quoted}']"
