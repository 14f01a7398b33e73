"""A run as people read it: what was said on one side, what was looked up and changed on the other. Pure."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, Literal

import msgspec

from midwatch.contracts.control import ToolRule, kind_of
from midwatch.contracts.runs import Usage
from midwatch.runtime.pricing import or_estimate, price, tool_cost

from . import plain
from .filters import said

Side = Literal["talk", "work", "both"]
Words = Callable[[Any], str]
_SPEAKERS = {"customer": "customer", "agent": "agent", "human": "human"}
_CLOCK = re.compile(r"clock (\d+) s (behind|ahead)")  # as logger/decide.clock_note writes it
_ALIKE = 10.0  # seconds that two steps may be apart in it
_AGAIN = 60.0  # seconds within which an agent logs what it began with as a message as well
SHOWN = 2_000  # characters of data that a page may show before all of it is asked for
_ERASABLE = ("started", "said", "model_called", "tool_called", "handed_off", "finished")


@dataclass(frozen=True, slots=True)
class Step:
    """One event. `what` is a text of the catalogue under `run.steps`, with `names` in it; `texts` are other people's
    words, each under a label of `run.labels`. `cost` is None where it has none or nobody knows it (`unpriced`)."""

    id: str
    event: str
    number: int
    at: str
    after: float
    side: Side
    what: str
    names: dict[str, Any] = field(default_factory=dict)
    texts: list[tuple[str, str]] = field(default_factory=list)
    tone: Literal["", "changed", "failed", "end"] = ""
    cost: Decimal | None = None
    unpriced: bool = False
    took: float | None = None
    note: str = ""
    alerts: list[dict[str, Any]] = field(default_factory=list)

    @property
    def clock(self) -> "Clock | None":
        """How far its time is from the log's own, where the log says so."""
        told = _CLOCK.match(self.note)
        return Clock(float(told[1]), told[2] == "behind") if told else None

    @property
    def names_said(self) -> dict[str, Any]:
        """The names as they may be shown."""
        return {name: said(value, 80) if isinstance(value, str) else value for name, value in self.names.items()}

    @property
    def key(self) -> tuple[str, ...]:
        """What makes two steps the same step of two runs, however it went."""
        return (self.event, self.what if self.event == "said" else str(self.names.get("tool", "")))


def steps(
    events: Sequence[Mapping[str, Any]], start: str, tools: Mapping[str, ToolRule], *, first: int = 0,
    alerts: Sequence[dict[str, Any]] = (), before: str | None = None, is_last: bool = True, whole: str = "",
    most: int | None = SHOWN,
) -> list[Step]:  # fmt: skip
    """The steps of a page of a run's events, of which `first` stand before it, the last of them at `before`. An alert
    stands with the event that raised it, or that came before it. Of long data there are `most` characters, or a few
    more, save at the step `whole`. Other people's data may be large: call it off the loop."""
    found = _once(every(events, start, tools, first=first, whole=whole, most=most))
    of_id = {step.id: step for step in found}
    for alert in reversed(alerts):
        step = of_id.get(alert["event_id"] or "") or _by_time(found, alert["raised_at"], before, is_last=is_last)
        if step is not None:
            step.alerts.append(alert)
    return found


def every(
    events: Sequence[Mapping[str, Any]], start: str, tools: Mapping[str, ToolRule], *, first: int = 0, whole: str = "",
    most: int | None = None,
) -> list[Step]:  # fmt: skip
    """A step for each event, also where two say the same."""
    began, cut = datetime.fromisoformat(start), partial(plain.words, most=most)
    return [
        _step(event, first + place, began, tools, plain.words if event["id"] == whole else cut)
        for place, event in enumerate(events)
    ]


def _once(found: list[Step]) -> list[Step]:
    """Without words that stand twice: many agents log what a run began and ended with as messages of the talk too."""
    kept = list[Step]()
    said: Step | None = None  # what was said last
    for place, step in enumerate(found):
        if place == 1 and _repeats_the_question(step, found[0]):
            continue
        if said and said.what == "said_agent" and step.event == "finished" and step.texts:
            label, text = step.texts[0]
            if label == "answer" and text.strip() == said.texts[-1][1].strip():
                step = replace(step, texts=step.texts[1:])
        said = step if step.event in ("started", "said") else said
        kept.append(step)
    return kept


def _repeats_the_question(step: Step, begin: Step) -> bool:
    if begin.event != "started" or step.what != "said_customer" or not begin.texts:
        return False
    (label, asked), (_, said) = begin.texts[-1], step.texts[0]
    return label in ("", "customer") and asked.strip() == said.strip() and step.after - begin.after <= _AGAIN


def _by_time(found: Sequence[Step], at: str, before: str | None, *, is_last: bool) -> Step | None:
    if not found or at < found[0].at:
        return found[0] if found and before is None else None
    if at > found[-1].at and not is_last:
        return None
    return [step for step in found if step.at <= at][-1]


def _step(event: Mapping[str, Any], number: int, began: datetime, tools: Mapping[str, ToolRule], words: Words) -> Step:
    data, name, at = event["data"], event["event"], event["time"]
    given: dict[str, Any] = {
        "id": event["id"], "event": name, "number": number, "at": at, "note": event["note"] or "",
        "after": (datetime.fromisoformat(at) - began).total_seconds(),
    }  # fmt: skip
    if "erased" in event:
        return Step(**given, side="talk", what=f"erased_{name}" if name in _ERASABLE else "erased")
    match name:
        case "model_called":
            return Step(**given, **_model(data, datetime.fromisoformat(at), words))
        case "tool_called":
            return Step(**given, **_tool(data, tools, words))
        case _:
            return Step(**given, **_talk(name, data, words))


def _talk(name: str, data: Mapping[str, Any], words: Words) -> dict[str, Any]:
    match name:
        case "started":
            return {"side": "talk", "what": "asked", "texts": _messages(data["input"], words)}
        case "said":
            who = _SPEAKERS.get(data["by"], "other")
            return {"side": "talk", "what": f"said_{who}", "texts": [("", data["text"])]}
        case "handed_off":
            to = data["to"].removeprefix("agent:")
            what = "handed_to_people" if data["to"] == "human" else "handed_to_agent"
            texts = _texts(data, words, why="reason", told="summary")
            return {"side": "talk", "what": what, "names": {"to": to}, "tone": "end", "texts": texts}
        case "finished":
            texts = _texts(data, words, answer="output")
            tone = "failed" if data["resolution"] in ("failed", "halted") else "end"
            return {"side": "talk", "what": f"ended_{data['resolution']}", "tone": tone, "texts": texts}
        case "proposed" | "human_acted":
            return {"side": "talk", "what": name, "texts": _texts(data, words, what="action", answer="output")}
    return {"side": "both", "what": "unknown", "names": {"event": name}}


def _model(data: Mapping[str, Any], at: datetime, words: Words) -> dict[str, Any]:
    usage = data.get("usage")
    cost = price(
        data.get("provider"), data["model"], None if usage is None else msgspec.convert(usage, Usage),
        data.get("cost_usd"), at,
    )  # fmt: skip
    cost = or_estimate(cost, data.get("estimate_usd"))
    tokens = {} if usage is None else {name: usage.get(f"{name}_tokens", 0) for name in ("input", "output")}
    return {
        "side": "work", "what": "model_counted" if tokens else "model", "names": {"model": data["model"], **tokens},
        "texts": _texts(data, words, answered="output"), "tone": "failed" if data.get("error") is not None else "",
        "cost": cost.amount, "unpriced": cost.amount is None, "took": _seconds(data),
    }  # fmt: skip


def _tool(data: Mapping[str, Any], tools: Mapping[str, ToolRule], words: Words) -> dict[str, Any]:
    rule, kind = tools.get(data["tool"]), kind_of(tools, data["tool"], data.get("kind") or "other")
    failed = data.get("error") is not None
    cost = tool_cost(data.get("cost_usd"), rule.cost if rule else None)
    given = [("given", words(plain.opened(data["arguments"])))] if data.get("arguments") else []
    came = {"result": plain.opened(data.get("result")), "error": data.get("error")}
    return {
        "side": "work", "what": f"{kind}_failed" if failed else kind, "names": {"tool": data["tool"]},
        "tone": "failed" if failed else "changed" if kind == "write" else "",
        "texts": given + _texts(came, words, came="result"),
        "cost": cost.amount if cost else None, "took": _seconds(data),
    }  # fmt: skip


def _seconds(data: Mapping[str, Any]) -> float | None:
    took = data.get("latency_ms")
    return None if took is None else float(took) / 1000


def _texts(data: Mapping[str, Any], words: Words, **fields: str) -> list[tuple[str, str]]:
    found = [(label, words(data[name])) for label, name in fields.items() if data.get(name) not in (None, "")]
    return found + ([("failed", data["error"])] if data.get("error") is not None else [])


def _messages(asked: Any, words: Words) -> list[tuple[str, str]]:
    """What a run began with: a text, or the messages of a conversation, whose roles are a label each."""
    if not isinstance(asked, list) or not all(isinstance(one, Mapping) for one in asked):
        return [("", words(asked))]
    roles = {"user": "customer", "customer": "customer", "assistant": "agent", "agent": "agent", "system": "system"}
    said = [(roles.get(str(one.get("role")), "other"), _content(one)) for one in asked]
    return [(label, words(content)) for label, content in said if content is not None]


def _content(message: Mapping[str, Any]) -> Any:
    """What a message says, whose text may come in parts; None where it says nothing, as one that only calls tools."""
    content = message.get("content", dict(message))
    if isinstance(content, list) and content and all(isinstance(one, Mapping) for one in content):
        parts = [one.get("text") for one in content if one.get("type") in ("text", "input_text", "output_text")]
        if len(parts) == len(content) and all(isinstance(part, str) for part in parts):
            return "\n".join(map(str, parts))
    return content


@dataclass(frozen=True, slots=True)
class Clock:
    """How far the times of a run are from the log's own, as much as all of its steps say. `is_behind`: they are
    earlier."""

    seconds: float
    is_behind: bool


def clock(found: Sequence[Step]) -> Clock | None:
    """What the log notes of the clock at every step alike; None where it does not, or some step differs."""
    offs = [one.seconds if one.is_behind else -one.seconds for step in found if (one := step.clock)]
    if not offs or len(offs) < len(found) or max(offs) - min(offs) > _ALIKE:
        return None
    return Clock(abs(offs[0]), is_behind=offs[0] > 0)


@dataclass(frozen=True, slots=True)
class Along:
    """What a run had cost by a step. `unknown`: so many steps by then whose cost nobody knows."""

    step: Step
    total: Decimal
    unknown: int


def along(found: Sequence[Step]) -> list[Along]:
    """The steps that cost something, or would if one knew."""
    total, unknown, rows = Decimal(0), 0, []
    for step in found:
        if step.cost is None and not step.unpriced:
            continue
        total += step.cost or Decimal(0)
        unknown += step.unpriced
        rows.append(Along(step, total, unknown))
    return rows


def chart(found: Sequence[Step]) -> dict[str, list[float]]:
    """The same as two lists: seconds since the beginning, and US dollars by then."""
    rows = along(found)
    if len(rows) < 2:
        return {}
    seconds = [0.0, *(round(row.step.after, 3) for row in rows)]
    if found[-1].after > seconds[-1]:
        rows = [*rows, rows[-1]]
        seconds.append(round(found[-1].after, 3))
    ordered = sorted(zip(seconds, [0.0, *(float(row.total) for row in rows)], strict=True))
    return {"seconds": [at for at, _ in ordered], "dollars": [cost for _, cost in ordered]}


@dataclass(frozen=True, slots=True)
class Uses:
    """How often a tool was called, and how often in vain."""

    tool: str
    count: int
    failed: int


def uses(found: Sequence[Step]) -> dict[str, list[Uses]]:
    """The tools by what they do: `read`, `write`, `other`."""
    counts: dict[str, dict[str, list[int]]] = {"read": {}, "write": {}, "other": {}}
    for step in found:
        if step.event == "tool_called" and "tool" in step.names:
            kind, tool = step.what.removesuffix("_failed"), str(step.names["tool"])
            one = counts[kind].setdefault(tool, [0, 0])
            one[0] += 1
            one[1] += step.tone == "failed"
    return {kind: [Uses(tool, *two) for tool, two in tools.items()] for kind, tools in counts.items()}


STILL = timedelta(minutes=10)  # since its last event, for which a run without an end is taken to go on


def goes_on(run: Mapping[str, Any], now: datetime) -> bool:
    """Whether a run of the log has no end yet and was heard of just now: there is nothing to judge yet."""
    last = run["last_event_at"]
    return not run["resolution"] and last is not None and now - datetime.fromisoformat(last) < STILL
