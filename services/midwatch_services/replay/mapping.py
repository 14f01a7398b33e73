"""From a run of a file to what its agent would have published, step by step.

What the file does not say is left out: no cost where none was reported, no time where none was recorded. How the run
ended is judged by what was known then; the benchmark's reward, which the agent never saw, is only a label.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from midwatch.contracts.money import Money, to_money
from midwatch.contracts.runs import Resolution, Speaker, Usage

from .source import SourceCall, SourceMessage, SourceRun

TRANSFER_TOOL = "transfer_to_human_agents"  # the hand-off tool of every tau domain
# What the simulated customer of tau writes when it leaves, and the agent when it works without a customer.
STOPPED, TRANSFERRED, OUT_OF_SCOPE = "###STOP###", "###TRANSFER###", "###OUT-OF-SCOPE###"
_SPEAKERS: dict[str, Speaker] = {"user": "customer", "assistant": "agent"}
_TICKET_TASK_LENGTH = 60


@dataclass(frozen=True, slots=True)
class SaidStep:
    by: Speaker
    text: str
    at: datetime | None


@dataclass(frozen=True, slots=True)
class ModelStep:
    provider: str | None
    model: str
    usage: Usage | None
    cost_usd: Money | None
    latency_ms: float | None
    finish_reason: str | None
    at: datetime | None


@dataclass(frozen=True, slots=True)
class ToolStep:
    call_id: str | None
    tool: str
    arguments: Any
    result: Any
    error: str | None
    at: datetime | None


@dataclass(frozen=True, slots=True)
class HandOffStep:
    reason: str
    summary: str | None
    at: datetime | None


Step = SaidStep | ModelStep | ToolStep | HandOffStep


@dataclass(frozen=True, slots=True)
class PlayedRun:
    """A run ready to be published. Times are None where the file records none: they are then the time of publishing."""

    run_id: str
    agent: str
    version: str
    ticket: str
    input: str
    labels: dict[str, str]
    started_at: datetime | None
    steps: list[Step]
    resolution: Resolution
    output: str | None
    error: str | None
    ended_at: datetime | None


def to_played(run: SourceRun) -> PlayedRun:
    """The events of `run`, in its order."""
    clock = _Clock(run)
    started_at = clock.read(run.started_at)
    device_calls = sum(
        1 for message in run.messages for call in message.tool_calls or () if _requestor(message, call) == "user"
    )
    steps = list(_steps(run, clock))
    resolution, error = _ending(run, any(isinstance(step, HandOffStep) for step in steps))
    agent_said = [step.text for step in steps if isinstance(step, SaidStep) and step.by == "agent"]
    return PlayedRun(
        run_id=run.run_id,
        agent=agent_name(run.domain, run.agent.name),
        version=run.agent.model or "unknown",
        ticket=_ticket(run),
        input=_input(run),
        labels=_labels(run, device_calls),
        started_at=started_at,
        steps=steps,
        resolution=resolution,
        output=next((text for text in reversed(agent_said) if text != STOPPED), None),
        error=error,
        ended_at=clock.read(run.ended_at),
    )


def agent_name(domain: str, name: str) -> str:
    """`<domain>-<name>` as an agent's name of the contract: lower case, at most 63 characters."""
    slug = re.sub(r"[^a-z0-9_-]+", "-", f"{domain}-{name}".lower()).strip("-_")[:63]
    return slug or "unnamed"


class _Clock:
    """The file's times, never running backwards. Times without a zone are read as UTC. A missing one inside a recorded
    run is that of the step before; a run whose times are absent or placeholders has none at all."""

    def __init__(self, run: SourceRun) -> None:
        self._recorded = run.timing == "recorded"
        self._last: datetime | None = None

    def read(self, text: str | None) -> datetime | None:
        if not self._recorded:
            return None
        try:
            time = datetime.fromisoformat(text) if text else self._last
        except ValueError:
            time = self._last
        if time is not None:
            time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
            self._last = max(time, self._last) if self._last else time
        return self._last


def _steps(run: SourceRun, clock: _Clock) -> Iterator[Step]:
    pending: list[SourceCall] = []
    for message in run.messages:
        at = clock.read(message.ts)
        if message.role == "tool":
            yield from _result(pending, message, at)
            continue
        yield from _unanswered(pending, at)
        if message.role == "assistant" and _tells_of_a_model(message):
            yield _model_step(run, message, at)
        text = _text(message.content)
        if text and message.role in _SPEAKERS:
            yield SaidStep(_SPEAKERS[message.role], text, at)
        pending += [call for call in message.tool_calls or () if _requestor(message, call) == "assistant"]
    yield from _unanswered(pending, clock.read(None))


def _result(pending: list[SourceCall], message: SourceMessage, at: datetime | None) -> Iterator[Step]:
    # The customer's own device is not the agent's tool: its calls are only counted, in a label.
    if message.requestor == "user":
        return
    # Ids repeat inside a run: the oldest open call of that id, else the oldest open call.
    same = (call for call in pending if call.id == message.tool_call_id)
    call = next(same, pending[0] if pending else SourceCall(message.tool_name or "unknown", message.tool_call_id))
    if pending:
        pending.remove(call)
    yield from _tool_steps(call, message.content, bool(message.error), at)


def _unanswered(pending: list[SourceCall], at: datetime | None) -> Iterator[Step]:
    for call in pending:
        yield ToolStep(call.id, call.name, call.args, None, None, at)
    pending.clear()


def _tool_steps(call: SourceCall, content: Any, failed: bool, at: datetime | None) -> Iterator[Step]:
    error = (_text(content) or "the tool failed without a word") if failed else None
    yield ToolStep(call.id, call.name, call.args, None if failed else content, error, at)
    if call.name == TRANSFER_TOOL and not failed:
        summary = call.args.get("summary") if isinstance(call.args, dict) else None
        yield HandOffStep(f"the agent called {TRANSFER_TOOL}", _text(summary) or None, at)


def _tells_of_a_model(message: SourceMessage) -> bool:
    # A canned greeting has a cost of 0 and nothing else: no model was called for it.
    return bool(message.usage or message.cost_usd or message.model or message.finish_reason)


def _model_step(run: SourceRun, message: SourceMessage, at: datetime | None) -> ModelStep:
    provider, model = _provider(message.model or run.agent.model or "unknown")
    if message.model and not provider:
        provider = _provider(run.agent.model or "")[0]
    return ModelStep(
        provider=provider,
        model=model,
        usage=_usage(message),
        # 0 beside tokens means that the price was not known, not that the call was free.
        cost_usd=to_money(Decimal(repr(message.cost_usd))) if message.cost_usd and message.cost_usd > 0 else None,
        latency_ms=message.generation_s * 1000 if message.generation_s is not None else None,
        finish_reason=message.finish_reason,
        at=at,
    )


def _provider(name: str) -> tuple[str | None, str]:
    provider, slash, model = name.partition("/")
    return (provider, model) if slash else (None, name)


def _usage(message: SourceMessage) -> Usage | None:
    usage = message.usage
    if usage is None:
        return None
    theirs = usage.provider_usage or {}
    return Usage(
        input_tokens=usage.prompt_tokens or 0,
        output_tokens=usage.completion_tokens or 0,
        cache_read_tokens=_count(theirs, "cache_read_input_tokens", "prompt_tokens_details.cached_tokens"),
        cache_write_tokens=_count(theirs, "cache_creation_input_tokens"),
        reasoning_tokens=_count(theirs, "completion_tokens_details.reasoning_tokens"),
    )


def _count(usage: dict[str, Any], *names: str) -> int:
    return next((usage[name] for name in names if isinstance(usage.get(name), int) and usage[name] > 0), 0)


def _ending(run: SourceRun, handed_off: bool) -> tuple[Resolution, str | None]:
    """How the run ended, as it was known then.

    Stopped by the harness: failed. Else handed off, if the hand-off tool was called. Else resolved, if the customer (or
    an agent working alone) ended it as done. Else abandoned: the customer left expecting a person who was never
    called or for want of an answer, or the file does not say how it ended.
    """
    reason, last = run.termination_reason, _text(run.messages[-1].content) if run.messages else ""
    if reason not in (None, "user_stop", "agent_stop"):
        return "failed", f"stopped by the harness: {reason}"
    if handed_off:
        return "handed_off", None
    if TRANSFERRED in last or OUT_OF_SCOPE in last:
        return "abandoned", None
    if reason or STOPPED in last:
        return "resolved", None
    return "abandoned", None


def _ticket(run: SourceRun) -> str:
    # Each run is a customer's case of its own, played from a clean state. The tail keeps runs of one task apart, so
    # that a ticket's budget does not add up the trials of a benchmark.
    tail = hashlib.sha256(run.run_id.encode()).hexdigest()[:8]
    return f"{run.domain}-{run.task_id[:_TICKET_TASK_LENGTH]}-{tail}"


def _input(run: SourceRun) -> str:
    first = (_text(message.content) for message in run.messages if message.role == "user")
    return next((text for text in first if text), f"(no customer message in the file: task {run.task_id})")


def _labels(run: SourceRun, device_calls: int) -> dict[str, str]:
    labels = {
        "domain": run.domain,
        "task": run.task_id,
        "trial": run.source.trial,
        "source": ":".join(part for part in (run.source.repo, run.source.path) if part),
        "times": run.timing if run.timing == "recorded" else f"of publishing ({run.timing} in the file)",
        "termination": run.termination_reason,
        "reward": run.outcome.reward if run.outcome else None,
        "customer_device_calls": device_calls or None,
    }
    return {name: str(value) for name, value in labels.items() if value is not None and value != ""}


def _requestor(message: SourceMessage, call: SourceCall) -> str:
    return call.requestor or message.role


def _text(content: Any) -> str:
    """Content as text, empty where there is none. Content in parts, or of another shape, is kept as JSON."""
    if content is None:
        return ""
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    return text if text.strip() else ""
