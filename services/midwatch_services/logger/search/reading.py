"""What a run's events say: the words of who took part, the tools, and the marks by which the run is found. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from .marks import EVERY, hours_of, in_bracket, mark
from .words import words

# Characters that are kept of each part; what one leaves over the next may use.
ROOM = {"outcome": 2_000, "customer": 5_000, "agent": 5_000, "tools": 4_000}
LONGEST_RESULT = 1_000  # characters of what one tool said
ANY = "any"  # of alerts: one of whatever rule
WAITING = "waiting"  # for a verdict: the run was drawn, and nobody has judged it yet
NANO = Decimal("1e9")
_MICROSECONDS = 1e6

_body = msgspec.json.Decoder(dict[str, Any])


@dataclass(frozen=True, slots=True)
class Facts:
    """What the log knows of a run beside its events. `alerts`: the rules. `verdict`: None where it was never drawn."""

    agent: str
    run_id: str
    first_at: str
    version: str
    mode: str
    resolution: str | None
    customer: str | None
    cost_usd: str | None
    took_us: int | None
    alerts: tuple[str, ...] = ()
    verdict: str | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """One run as it is found. `parts`: words of each part. `marks`: those of its facts and tools; not of its hour."""

    agent: str
    run_id: str
    first_at: str
    events: int
    tools: dict[str, int]
    parts: dict[str, list[str]]
    marks: list[str] = field(default_factory=list)


def read(facts: Facts, events: Iterable[tuple[str, str]]) -> Reading:
    """Reads a run's events, each (event, body), in their order. An erased one says nothing."""
    said: dict[str, dict[str, None]] = {part: {} for part in ROOM}
    tools: Counter[str] = Counter()
    count = 0
    for event, body in events:
        count += 1
        data = _body.decode(body).get("data")
        if not isinstance(data, dict):
            continue
        if event == "tool_called":
            tools[str(data.get("tool"))] += 1
        for part, text in _texts(event, data):
            said[part][text] = None
    return Reading(
        facts.agent, facts.run_id, facts.first_at, count, dict(tools), _cut(said), [*_marks(facts), *_tools(tools)]
    )


def lines(reading: Reading, number: int) -> str:
    """All of a reading as one text of words, for a full-text index."""
    parts = [EVERY]
    for some in reading.parts.values():
        parts += [*some, EVERY] if some else []
    return " ".join([*parts, *reading.marks, *hours_of(number)])


def took_us(began: str | None, ended: str | None) -> int | None:
    """Microseconds from one time of the log to another; None while the run is open."""
    if began is None or ended is None:
        return None
    return round((datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds() * _MICROSECONDS)


def _marks(facts: Facts) -> Iterator[str]:
    yield mark("a", facts.agent)
    yield mark("v", facts.version)
    yield mark("m", facts.mode)
    yield mark("r", facts.resolution or "open")
    if facts.cost_usd is not None:
        yield in_bracket("p", int(Decimal(facts.cost_usd) * NANO))
    if facts.took_us is not None:
        yield in_bracket("s", facts.took_us)
    for rule in dict.fromkeys(facts.alerts):
        yield mark("l", rule)
    if facts.alerts:
        yield mark("l", ANY)
    if facts.verdict is not None:
        yield mark("j", facts.verdict)
        yield mark("j", ANY)


def _tools(tools: Iterable[str]) -> Iterator[str]:
    return (mark("t", tool) for tool in tools)


def _cut(said: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    room, parts = 0, dict[str, list[str]]()
    for part, texts in said.items():
        room += ROOM[part]
        parts[part] = []
        for text in texts:
            some = words(text[: max(room, 0)])
            parts[part] += some
            room -= sum(len(word) + 1 for word in some)
            if room <= 0:
                break
        room = max(room, 0)
    return parts


def _texts(event: str, data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    match event:
        case "started":
            yield from _conversation(data.get("input"))
        case "said":
            yield ("customer" if data.get("by") == "customer" else "agent"), str(data.get("text", ""))
        case "model_called":
            yield "agent", _flat(data.get("output"))
        case "tool_called":
            yield "tools", f"{data.get('tool')} {_flat(data.get('arguments'))}"
            yield "tools", _flat(data.get("error") or data.get("result"))[:LONGEST_RESULT]
        case "handed_off":
            yield "outcome", " ".join(str(data.get(name) or "") for name in ("to", "reason", "summary"))
        case "finished":
            yield "outcome", str(data.get("error") or "")
            yield "agent", _flat(data.get("output"))
        case "proposed" | "human_acted":
            yield "outcome", f"{data.get('action') or ''} {_flat(data.get('output'))}"


def _conversation(input: Any) -> Iterator[tuple[str, str]]:
    """What came in; of a conversation, what was written in it before. Instructions to the model are nobody's words."""
    if not isinstance(input, list):
        yield "customer", _flat(input)
        return
    for message in input:
        role = message.get("role") if isinstance(message, dict) else None
        if role in ("user", "assistant"):
            yield ("customer" if role == "user" else "agent"), _flat(message.get("content"))


def _flat(value: Any) -> str:
    """The texts and figures in a value, without the names of its fields."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return " ".join(filter(None, map(_flat, value.values())))
    if isinstance(value, list):
        return " ".join(filter(None, map(_flat, value)))
    return "" if value is None or isinstance(value, bool) else str(value)
