"""tau2 result files, as published in 2025 and in 2026, brought into the shape of `agentrun/1`.

The two differ only in fields that are not read here, save that the newer one may lack costs and tokens.
"""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from midwatch.contracts.runs import RunId

from .source import (
    SourceAction,
    SourceAgent,
    SourceCall,
    SourceFile,
    SourceMessage,
    SourceOutcome,
    SourceRun,
    SourceUsage,
)


class _AgentInfo(Struct, frozen=True):
    implementation: str
    llm: str | None = None


class _EnvironmentInfo(Struct, frozen=True):
    domain_name: str


class _Info(Struct, frozen=True):
    agent_info: _AgentInfo
    environment_info: _EnvironmentInfo


class _Call(Struct, frozen=True):
    name: str
    id: str | None = None
    arguments: Any = None
    requestor: str | None = None


class _Message(Struct, frozen=True):
    role: str
    id: str | None = None
    content: Any = None
    timestamp: str | None = None
    cost: float | None = None
    usage: SourceUsage | None = None
    generation_time_seconds: float | None = None
    raw_data: Any = None  # the provider's answer, in a shape of its own
    tool_calls: list[_Call] | None = None
    error: bool | None = None
    requestor: str | None = None


class Simulation(Struct, frozen=True):
    """One run of a result file."""

    id: RunId
    task_id: str
    messages: list[_Message]
    start_time: str | None = None
    end_time: str | None = None
    termination_reason: str | None = None
    reward_info: SourceOutcome | None = None
    trial: int | None = None


class _Action(Struct, frozen=True):
    name: str
    arguments: Any = None
    requestor: str | None = None
    compare_args: list[str] | None = None


class _Criteria(Struct, frozen=True):
    actions: list[_Action] | None = None


class _Task(Struct, frozen=True):
    id: str
    evaluation_criteria: _Criteria | None = None


class Results(Struct, frozen=True):
    """A whole result file: who ran, the tasks, and the simulations, both left unread so that a bad one spoils no
    other."""

    info: _Info
    simulations: list[Raw]
    tasks: list[Raw] | None = None


def expected(results: Results) -> dict[str, list[SourceAction]]:
    """The calls that the authors of the tasks expect, by task; without tasks that cannot be read."""
    found = {}
    for raw in results.tasks or ():
        try:
            task = _task.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        if task.evaluation_criteria is not None:
            found[task.id] = [
                SourceAction(one.name, one.arguments, one.requestor, one.compare_args)
                for one in task.evaluation_criteria.actions or ()
            ]
    return found


_task = msgspec.json.Decoder(_Task)


def to_run(
    results: Results, simulation: Simulation, path: str, actions: dict[str, list[SourceAction]] | None = None
) -> SourceRun:
    """One simulation in the shape of `agentrun/1`."""
    return SourceRun(
        run_id=simulation.id,
        agent=SourceAgent(results.info.agent_info.implementation, results.info.agent_info.llm),
        domain=results.info.environment_info.domain_name,
        task_id=simulation.task_id,
        messages=[_to_message(message) for message in simulation.messages],
        started_at=simulation.start_time,
        ended_at=simulation.end_time,
        timing="recorded" if simulation.start_time else "absent",
        termination_reason=simulation.termination_reason,
        source=SourceFile(path=path, trial=simulation.trial),
        outcome=simulation.reward_info,
        gold_actions=(actions or {}).get(simulation.task_id),
    )


def _to_message(message: _Message) -> SourceMessage:
    raw = message.raw_data if isinstance(message.raw_data, dict) else {}
    calls = [SourceCall(call.name, call.id, call.arguments, call.requestor) for call in message.tool_calls or ()]
    return SourceMessage(
        role=message.role,
        content=message.content,
        ts=message.timestamp,
        cost_usd=message.cost,
        usage=message.usage,
        generation_s=message.generation_time_seconds,
        model=_text(raw.get("model")),
        finish_reason=_text(raw.get("finish_reason")),
        tool_calls=calls or None,
        tool_call_id=message.id if message.role == "tool" else None,
        error=message.error,
        requestor=message.requestor,
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
