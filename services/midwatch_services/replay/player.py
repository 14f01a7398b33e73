"""Publishes runs through the SDK, each event as an agent would publish it, with the times of the file."""

import asyncio
import hashlib
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import midwatch
from midwatch.contracts.money import to_money
from midwatch.contracts.runs import Resolution

from .mapping import HandOffStep, ModelStep, PlayedRun, SaidStep, Step, ToolStep

YIELD_EVERY = 50  # events after which others get a turn of the loop
_ENDS = 2  # events of a run besides its steps: started and finished


@dataclass(frozen=True, slots=True)
class Played:
    """What was published of one run. `cost_usd`: the sum of the costs reported, None where none was."""

    run_id: str
    agent: str
    version: str
    ticket: str
    resolution: Resolution
    events: int
    messages: int
    model_calls: int
    tool_calls: int
    tool_errors: int
    hand_offs: int
    cost_usd: str | None
    known: bool  # the run log had all of it: nothing was published


class Player:
    """Plays runs one after another. `speed` is a multiple of the recorded pace, None for as fast as possible.

    With `obey` a run stops where the switch stops it; it is then a run of its own with an id of its own, since what it
    does is not what the file says. Without, the switch is not asked, and event ids follow from run id and position, so
    that replaying again adds nothing.
    """

    def __init__(self, client: "midwatch.Midwatch", *, speed: float | None = None, obey: bool = False) -> None:
        self._client = client
        self._speed = speed
        self._obey = obey

    async def play(self, run: PlayedRun) -> Played:
        """Publishes one run. Raises NoCard where the switch is to be obeyed and the agent has no card."""
        run_id = f"{run.run_id[:100]}-obey-{secrets.token_hex(4)}" if self._obey else run.run_id
        agent = self._client.agent(run.agent, version=run.version, obey=self._obey)
        ids = None if self._obey else event_ids(run.run_id)
        done: list[Step] = []
        try:
            async with agent.run(
                input=run.input, ticket=run.ticket, labels=run.labels, run_id=run_id, mode="replay", ids=ids,
                at=run.started_at,
            ) as recorder:  # fmt: skip
                await self._steps(recorder, run, done)
                recorder.finish(run.output, run.resolution, error=run.error, at=run.ended_at)
        except midwatch.Halted:
            return summary(run, done, run_id=run_id, resolution="halted")
        return summary(run, done, run_id=run_id)

    async def _steps(self, recorder: "midwatch.Run", run: PlayedRun, done: list[Step]) -> None:
        pace = _Pace(self._speed, run.started_at)
        for step in run.steps:
            if len(done) % YIELD_EVERY == 0:
                await asyncio.sleep(0)
            await pace.until(step.at)
            recorder.check(step.tool if isinstance(step, ToolStep) else None)
            _record(recorder, step)
            done.append(step)
        await pace.until(run.ended_at)
        recorder.check()


def summary(
    run: PlayedRun, steps: Sequence[Step], *, run_id: str | None = None, resolution: Resolution | None = None,
    known: bool = False,
) -> Played:  # fmt: skip
    """What `steps` of the run come to."""
    kinds = Counter(type(step) for step in steps)
    costs = [Decimal(step.cost_usd) for step in steps if isinstance(step, ModelStep) and step.cost_usd is not None]
    return Played(
        run_id=run_id or run.run_id,
        agent=run.agent,
        version=run.version,
        ticket=run.ticket,
        resolution=resolution or run.resolution,
        events=len(steps) + _ENDS,
        messages=kinds[SaidStep],
        model_calls=kinds[ModelStep],
        tool_calls=kinds[ToolStep],
        tool_errors=sum(1 for step in steps if isinstance(step, ToolStep) and step.error is not None),
        hand_offs=kinds[HandOffStep],
        cost_usd=to_money(sum(costs, Decimal(0))) if costs else None,
        known=known,
    )


def event_ids(run_id: str) -> Callable[[int], str]:
    """The ids of a replayed run's events, by position: the same each time it is replayed."""
    stem = "replay-" + hashlib.sha256(run_id.encode()).hexdigest()[:32]
    return lambda seq: f"{stem}-{seq}"


def _record(recorder: "midwatch.Run", step: Step) -> None:
    if isinstance(step, SaidStep):
        recorder.say(step.by, step.text, at=step.at)
    elif isinstance(step, ModelStep):
        recorder.record_model_call(
            step.model, provider=step.provider, usage=step.usage, cost_usd=step.cost_usd, latency_ms=step.latency_ms,
            finish_reason=step.finish_reason, at=step.at,
        )  # fmt: skip
    elif isinstance(step, ToolStep):
        recorder.record_tool_call(
            step.tool, call_id=step.call_id, arguments=step.arguments, result=step.result, error=step.error, at=step.at
        )
    else:
        recorder.hand_off(step.reason, step.summary, to="human", at=step.at)


class _Pace:
    """Keeps to the recorded times, `speed` times as fast. A run without times is played without a pause."""

    def __init__(self, speed: float | None, began: datetime | None) -> None:
        self._speed = speed
        self._began = began
        self._here = asyncio.get_running_loop().time()

    async def until(self, at: datetime | None) -> None:
        if self._speed is None or at is None or self._began is None:
            return
        due = self._here + (at - self._began).total_seconds() / self._speed
        await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
