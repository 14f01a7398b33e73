"""One run as it is recorded and judged: what the asyncio run and the blocking run share. No I/O but the spool's."""

import contextlib
import logging
import threading
from asyncio import CancelledError
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from datetime import datetime
from typing import Any, Literal, Protocol, get_args

from .calls import ModelCall, ToolCall
from .contracts import subjects
from .contracts.envelope import Envelope, event_type, new_id
from .contracts.runs import RUN_EVENTS, Resolution, Speaker, ToolKind, Usage
from .errors import Halted, MidwatchError
from .fields import describe, encode_event, optional, to_cost, to_duration, to_input, to_text, to_usage, to_utc
from .keys import Halt
from .order import Handoff, Order
from .spending import Spending, Treasury
from .story import Story
from .switch import LocalSwitch
from .trace import Tracer

log = logging.getLogger("midwatch")

_RESOLUTIONS = frozenset(get_args(Resolution))
_SPEAKERS = {"user": "customer", "assistant": "agent"} | {name: name for name in get_args(Speaker)}
_KINDS = frozenset(get_args(ToolKind))
_TYPES = {event: event_type("run", event) for event in RUN_EVENTS}


class NotEntered(MidwatchError):
    """This run was not entered: use `async with agent.run(input=…) as run:` (`with` in threads)."""


class Publisher(Treasury, Protocol):
    """What a run needs of the engine, or of its twin in memory."""

    instance: str
    event_limit: int

    def append(self, subject: str, event_id: str, traceparent: bytes, body: bytes) -> None: ...
    def claim(self, key: str, body: bytes, within: float) -> "Future[bool | None]": ...
    def call_soon(self, work: Callable[[], object]) -> None: ...


class Done:
    """What recording returns: nothing to wait for, but `await` is allowed."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


DONE = Done()


class BaseRun(Spending):
    """A run of an agent. Recording never raises and may be done from any thread; model and tool calls, and `check`,
    raise Halted once the switch says so. `result` is the fallback's answer after a halt."""

    def __init__(self, publisher: Publisher, switch: LocalSwitch | None, order: Order) -> None:
        super().__init__(publisher, switch, order)
        self.result: Any = None
        self._publisher = publisher
        self._source = f"/agents/{order.agent}/{publisher.instance}"
        self._tracer = Tracer(order.run_id)
        self._common: dict[str, Any] = {
            "run_id": order.run_id, "agent": order.agent, "version": to_text(order.version), "mode": order.mode,
            "ticket": optional(order.ticket), "session": optional(order.session),
            "labels": {to_text(name): to_text(value) for name, value in (order.labels or {}).items()},
        }  # fmt: skip
        self._lock = threading.RLock()  # keeps the order of seq the order of the spool
        self._seq = 0
        self._story = Story()
        self._writes = 0  # calls under way that a halt must not cut in half
        self._handed_off = False
        self._case: Literal["open", "ours", "unsure", "theirs"] = "open"  # whose it is, once the run is halted
        self.moving = True

    # What users call.

    def say(self, by: str, text: str, *, at: datetime | None = None) -> Done:
        """Records that `customer`, `agent` or `human` said something."""
        return self._record("said", at, by=_SPEAKERS.get(by, "human"), text=to_text(text))

    def record_model_call(
        self, model: str, *, provider: str | None = None, usage: Usage | Mapping[str, int] | Any = None,
        cost_usd: Any = None, latency_ms: float | None = None, finish_reason: str | None = None, output: Any = None,
        error: str | None = None, response_id: str | None = None, at: datetime | None = None,
    ) -> Done:  # fmt: skip
        """Records a model call that was made elsewhere. `usage`: the client's own object, or a dictionary."""
        cost = {"model": to_text(model), "usage": to_usage(usage), "cost_usd": to_cost(cost_usd)}
        self._spent(cost)
        return self._record(
            "model_called", at, **cost, provider=optional(provider), latency_ms=to_duration(latency_ms),
            finish_reason=optional(finish_reason), output=output, error=optional(error),
            response_id=optional(response_id),
        )  # fmt: skip

    def record_tool_call(
        self, tool: str, *, arguments: Any = None, result: Any = None, error: str | None = None,
        kind: ToolKind | None = None, call_id: str | None = None, latency_ms: float | None = None,
        cost_usd: Any = None, undo: str | None = None, at: datetime | None = None,
    ) -> Done:  # fmt: skip
        """Records a tool call that was made elsewhere. `kind` is the card's word unless it is given."""
        cost = to_cost(cost_usd)
        self._spent_on_tool(tool, cost)
        return self._record(
            "tool_called", at, tool=to_text(tool), kind=kind if kind in _KINDS else self._kind(tool),
            arguments=arguments, result=result, error=optional(error), call_id=optional(call_id),
            latency_ms=to_duration(latency_ms), cost_usd=cost, undo=optional(undo),
        )  # fmt: skip

    def hand_off(
        self, reason: str, summary: str | None = None, to: str | None = None, context: Any = None, *,
        at: datetime | None = None,
    ) -> Done:  # fmt: skip
        """Records that the case goes to `human` or `agent:<name>` (by default the card's fallback)."""
        self._handed_off = True
        return self._record(
            "handed_off", at, to=to or self._fallback_name(None), reason=to_text(reason), summary=optional(summary),
            context=context,
        )  # fmt: skip

    def finish(
        self, output: Any = None, resolution: Resolution = "resolved", *, error: str | None = None,
        at: datetime | None = None,
    ) -> Done:  # fmt: skip
        """Records how the run ended; the first word counts. A run that was halted cannot end otherwise."""
        if self._halt is None:
            if not self._acts and output is not None and not self._over:
                self._propose("reply", output)
            if resolution not in _RESOLUTIONS:
                error = f"{resolution!r} is no resolution: use one of {', '.join(sorted(_RESOLUTIONS))}"
                resolution = "failed"
            self._end(resolution, output=output, error=optional(error), at=at)
        return DONE

    def conclude(self, answer: Any) -> None:
        """Finishes the run with `answer` unless it was finished or handed off: what `handles` does at the end."""
        if not self._handed_off:
            self.finish(answer)

    # What the switch calls.

    @property
    def draining(self) -> bool:
        """Whether a write that a halt must not cut in half is under way."""
        return self._writes > 0

    def review(self) -> None:
        """The switch moved. Where nothing can be cancelled, the next call finds out."""

    def abandon(self) -> None:
        """Records that nobody ended the run: its process ends, or it was dropped. One that was halted leaves a case:
        its customer waits, and a fallback that is not done is not relied on."""
        if not self._begun or self._over:
            return
        halt = self._halt or self._judge(None)
        if halt is None:
            self._end("abandoned")
        else:
            self._case = "unsure" if self._case == "ours" else self._case
            self._end("halted", halt=halt, error="its process ended, or dropped it, before it was seen to")

    def __del__(self) -> None:
        # Not recorded here: this may run inside the spool's own lock.
        if getattr(self, "_begun", False) and not self._over:
            with contextlib.suppress(Exception):
                self._publisher.call_soon(self.abandon)

    # Judging.

    def _kind(self, tool: str) -> ToolKind:
        card = self._switch.card if self._switch else None
        rule = card.tools.get(tool) if card else None
        return rule.kind if rule else "other"

    def _fallback_name(self, halt: Halt | None) -> str:
        card = self._switch.card if self._switch else None
        return (halt.fallback if halt else None) or (card.fallback if card else "human")

    # Beginning and ending.

    def _begin(self) -> None:
        order = self._order
        if self._switch is not None:
            self._judge_beginning(self._switch)
            self._common["mode"] = self.mode
        self._begun = True
        self._record(
            "started", order.at, input=to_input(order.input), channel=optional(order.channel),
            customer=optional(order.customer),
        )  # fmt: skip
        if self._switch is not None:
            self._switch.enter(self)

    def _verdict(self, error: BaseException | None, *, interrupted: bool = False) -> Halt | None:
        """The halt that ends this run as its block is left by `error`, or None: then its end is recorded."""
        if self._over:
            return None
        mine, rest = self._own(error)
        if mine or interrupted or (self._halt and (error is None or isinstance(error, Exception))):
            halt = self._halt
            if halt is not None and rest is None:
                return halt
        if error is None:
            self._end("handed_off" if self._handed_off else "abandoned")
        elif isinstance(error, GeneratorExit):
            self.abandon()
        else:
            halted = self._latch(self._judge(None)) if isinstance(error, CancelledError) else self._halt is not None
            self._end("halted" if halted else "failed", error=describe(error), halt=self._halt)
        return None

    def _own(self, error: BaseException | None) -> tuple[bool, BaseException | None]:
        """Whether `error` is or holds a Halted of this run, and what else in it must not be swallowed."""
        if isinstance(error, Halted):
            return error in self._raised or self._latch(self._judge(None)), None
        if isinstance(error, BaseExceptionGroup):
            halts, rest = error.split(Halted)
            if halts is not None:
                mine = any(halt in self._raised for halt in _leaves(halts)) or self._latch(self._judge(None))
                return mine, rest.split(Exception)[1] if rest else None
        return False, None

    def _take_over(self, halt: Halt, ours: bool | None) -> Handoff | None:
        """Records that the program's fallback takes the case, and says with what it is called. None where somebody
        else has the case; `ours` None where the server did not say."""
        with self._lock:
            if self._over or ours is False:
                self._case = "theirs"
                return None
            self._case = "unsure" if ours is None else "ours"
            events, left_out = self._story.events, self._story.left_out
            self._record_case(halt, own=True)
        self._stop_moving()  # not before: until then presence says that somebody waits here
        order = self._order
        return Handoff(
            agent=order.agent, run_id=self.run_id, ticket=order.ticket, input=order.input, to=self._fallback_name(halt),
            reason=halt.reason, by=halt.by, key=halt.key, epoch=halt.epoch, events=events,
            events_left_out=left_out, sole=ours is True,
        )  # fmt: skip

    def _fail(self, halt: Halt, failure: BaseException) -> None:
        """Records that the fallback, or what comes before it, was not done."""
        what = "the fallback failed" if self._case in ("ours", "unsure") else "the fallback was not called"
        self._end("halted", halt=halt, error=to_text(f"{what}: {failure!r}"))

    def _record_case(self, halt: Halt, *, own: bool) -> None:
        self._record(
            "handed_off", None, to=self._fallback_name(halt), key=halt.key, epoch=halt.epoch, own=own,
            reason=halt.reason or f"halted by {halt.by or halt.key}",
        )  # fmt: skip

    def _end(
        self, resolution: Resolution, *, output: Any = None, error: str | None = None, halt: Halt | None = None,
        at: datetime | None = None,
    ) -> None:  # fmt: skip
        with self._lock:
            if self._over:
                return
            self._over = True
            if resolution == "halted" and halt is not None and self.awaited and self._case in ("open", "unsure"):
                self._record_case(halt, own=False)  # the router opens it; one that stands already stays as it is
            by = (halt.by or "unknown") if halt else None
            self._record(
                "finished", at, resolution=resolution, output=output, error=error, halted_by=by,
                epoch=halt.epoch if halt else None,
            )  # fmt: skip
        self._stop_moving()
        self._give_back()
        if self._switch is not None:
            self._switch.leave(self)

    def _stop_moving(self) -> None:
        """Nothing of the agent's own happens in this run any more: presence says so at once if it was halted."""
        if self.moving:
            self.moving = False
            if self._halt is not None and self._switch is not None:
                self._switch.changed()

    # Recording.

    def _record(self, event: str, at: datetime | None, **values: Any) -> Done:
        try:
            with self._lock:
                seq = self._seq
                self._seq += 1
                data = RUN_EVENTS[event](seq=seq, **self._common, **values)
                envelope = Envelope(
                    id=self._order.ids(seq) if self._order.ids else new_id(), source=self._source, type=_TYPES[event],
                    subject=self.run_id, time=to_utc(at), data=data,
                )  # fmt: skip
                body = encode_event(envelope, self._publisher.event_limit)
                subject = subjects.run(self._order.agent, event)
                self._publisher.append(subject, envelope.id, self._tracer.traceparent(), body)
                if self._order.fallback is not None and self._switch is not None:
                    self._story.add(body)
        except Exception:  # whatever was handed to us, the agent goes on
            log.exception("midwatch: an event of run %s could not be recorded", self.run_id)
        return DONE

    def _model_call(self, function: Any, keywords: Mapping[str, Any], ceiling: Any) -> ModelCall:
        self._entered()
        self.check()
        charge = self._charge_model(function, keywords, ceiling)
        return ModelCall(self._record, charge, function, keywords)

    def _tool_call(
        self, name: str, function: Any, args: tuple[Any, ...], keywords: Mapping[str, Any]
    ) -> ToolCall | None:
        """The call that may be made; None in shadow, where one that may write is only proposed."""
        self._entered()
        self.check(name)
        call = ToolCall(self._record, None, self._drain, name, self._kind(name), function, args, keywords)
        if call.drains and not self._acts:
            self._propose(name, call.arguments)
            return None
        call.charge = self._charge_tool(name)
        return call

    def _propose(self, action: str, output: Any) -> None:
        self._record("proposed", None, action=to_text(action), output=output)

    def _entered(self) -> None:
        if not self._begun:
            raise NotEntered

    def _drain(self, change: int) -> None:
        with self._lock:
            self._writes += change
            done = self._writes == 0 and change < 0
        if self._switch is not None and not self._switch.quiet:
            self._switch.changed()
            if done:
                self.review()


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def beside(error: BaseException | None) -> str | None:
    """What else went wrong in a run that was halted."""
    if error is None or isinstance(error, Halted | CancelledError):
        return None
    rest = error.split((Halted, CancelledError))[1] if isinstance(error, BaseExceptionGroup) else error
    return to_text(repr(rest)) if rest is not None else None
