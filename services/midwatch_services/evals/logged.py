"""The case that a logged run makes: its conversation up to a point, its calls, and what may be asked. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .case import CallRule, Case, Expect, Kind, Message, Recorded
from .outcome import Called, Outcome
from .published import rule_of
from .recorded import without_tokens
from .values import plain

Event = Mapping[str, Any]  # of the run log: event, seq, data
_ROLES = {"user": "customer", "customer": "customer", "assistant": "agent", "agent": "agent", "human": "human"}
_NAME = 100


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a run: up to the event with this seq, or up to what the agent did on the customer's message number
    `turn`; all of it where neither is given."""

    until: int | None = None
    turn: int | None = None


@dataclass(frozen=True, slots=True)
class Review:
    """What is known of how people judged the run. `failed`: its own behaviour must not be asked for."""

    failed: bool = False
    corrected: str = ""
    by: str = ""
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def case_of(
    agent: str, run_id: str, name: str, events: Sequence[Event], kinds: Mapping[str, Kind], part: Part, review: Review
) -> Case:
    """The case; without turns where the customer says nothing."""
    some = _part(events, part)
    earlier, turns = _conversation(some)
    recorded = [_recorded(one["data"], kinds) for one in some if one["event"] == "tool_called"]
    known = {**{one.tool: one.kind for one in recorded}, **kinds}
    return Case(
        name=name,
        agent=agent,
        turns=tuple(turns),
        expect=Expect() if review.failed else _as_it_was(some, recorded),
        earlier=tuple(earlier),
        recorded=tuple(recorded),
        kinds={tool: known[tool] for tool in sorted(known)},
        run_id=run_id,
        version=str(some[0]["data"].get("version", "")) if some else "",
    )


def outcome_of(events: Sequence[Event], kinds: Mapping[str, Kind]) -> Outcome:
    """What the agent of a logged run did. What it cost is not asked here."""
    calls = [_recorded(one["data"], kinds) for one in events if one["event"] == "tool_called"]
    return Outcome(
        said=[one["text"] for one in conversation_of(events) if one["role"] == "agent"],
        calls=[Called(tool=one.tool, arguments=one.arguments, result=one.result, error=one.error, kind=one.kind)
               for one in calls],
        handed_off=any(one["event"] == "handed_off" for one in events),
        model_calls=sum(one["event"] == "model_called" for one in events),
        cost_basis="unpriced",
    )  # fmt: skip


def conversation_of(events: Sequence[Event]) -> list[dict[str, str]]:
    """All that was said, in order; the run's output where the agent said nothing else."""
    said = [{"role": one.message.role, "text": one.message.text} for one in _heard(events)]
    spoke = any(one["event"] == "said" and one["data"].get("by") == "agent" for one in events)
    outputs = [one["data"].get("output") for one in events if one["event"] == "finished"]
    return said + [{"role": "agent", "text": text} for text in outputs if not spoke and _worded(text)]


def name_of(run_id: str) -> str:
    """A name that a file may have, from what an agent chose as the run's id."""
    return re.sub(r"[^a-z0-9_-]+", "-", run_id.lower()).strip("-_")[:_NAME] or "run"


def notes_of(review: Review, case: Case, cut: bool) -> list[str]:
    """What stands as comments before the criteria."""
    lines = []
    if review.failed:
        lines.append("A reviewer failed this run, so nothing that it did is asked for: write here what should happen.")
        lines += [f"Reasons: {', '.join(review.reasons)}"] if review.reasons else []
        lines += [f"Note: {note}" for note in review.notes if note.strip()]
        if review.corrected.strip():
            by = f" by {review.by}" if review.by else ""
            lines.append(f"The answer as it should have been{by}:")
            lines += [f"  {line}" for line in review.corrected.splitlines() if line.strip()]
    else:
        lines.append("This is what the run did. Read it, change what should not be asked, then: midwatch eval agree")
    if not case.kinds:
        lines.append("No scope card says which tools write: add `tools: {name: write}` where one does.")
    if cut:
        lines.append("A result was longer than the log keeps, and stands cut below.")
    return lines


@dataclass(frozen=True, slots=True)
class _Heard:
    """A message, the place of its event, and whether the customer asks it of this run: history of the input is not."""

    at: int
    message: Message
    asked: bool


def _part(events: Sequence[Event], part: Part) -> list[Event]:
    if part.until is not None:
        events = [one for one in events if one["seq"] <= part.until]
    asked = [one.at for one in _heard(events) if one.asked]
    return list(events[: asked[part.turn]] if part.turn is not None and part.turn < len(asked) else events)


def _conversation(events: Sequence[Event]) -> tuple[list[Message], list[str]]:
    """What was said before the customer's first message, and the customer's messages. What the customer says once a
    person has answered is not for the agent."""
    heard = _heard(events)
    begin = next((at for at, one in enumerate(heard) if one.asked), len(heard))
    person = next((at for at in range(begin, len(heard)) if heard[at].message.role == "human"), len(heard))
    return [one.message for one in heard[:begin]], [one.message.text for one in heard[begin:person] if one.asked]


def _heard(events: Sequence[Event]) -> list[_Heard]:
    """Everything that was said. An input that is said again stands once, where it is said."""
    heard: list[_Heard] = []
    given: _Heard | None = None
    for at, one in enumerate(events):
        data = one["data"]
        if one["event"] == "started":
            history, turn = _input(data)
            heard += [_Heard(at, message, False) for message in history]
            given = _Heard(at, Message("customer", turn), True) if turn else None
            heard += [given] if given else []
        elif one["event"] == "said" and _worded(text := _said(data)):
            by_customer = data["by"] == "customer"
            if by_customer and given and given.message.text.strip() == text.strip():
                heard.remove(given)
            given = None if by_customer else given
            heard.append(_Heard(at, Message(data["by"], text), by_customer))
    return heard


def _said(data: Mapping[str, Any]) -> Any:
    """The text, of a replayed run without the words by which a simulated customer ends the conversation."""
    text = data.get("text")
    return without_tokens(text) if data.get("mode") == "replay" and isinstance(text, str) else text


def _input(data: Mapping[str, Any]) -> tuple[list[Message], str]:
    """What was said before, and what the customer wrote last, in however many messages: one turn."""
    given = data.get("input")
    if isinstance(given, str):
        return [], given if _worded(given) else ""
    messages = [
        Message(role, text)  # type: ignore[arg-type]
        for one in given or ()
        if (role := _ROLES.get(str(one.get("role")))) and _worded(text := _text(one.get("content")))
    ]
    at = len(messages)
    while at and messages[at - 1].role == "customer":
        at -= 1
    return messages[:at], "\n\n".join(one.text for one in messages[at:])


def _text(content: Any) -> str:
    """Text of a message, also of one in parts, as the model clients write them."""
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict)).strip()
    return content if isinstance(content, str) else ""


def _worded(text: Any) -> bool:
    return isinstance(text, str) and bool(text.strip())


def _recorded(data: Mapping[str, Any], kinds: Mapping[str, Kind]) -> Recorded:
    kind: Kind = kinds.get(data["tool"]) or data.get("kind", "other")
    return Recorded(data["tool"], plain(data.get("arguments")), plain(data.get("result")), data.get("error"), kind)


def _as_it_was(events: Sequence[Event], recorded: Sequence[Recorded]) -> Expect:
    writes: list[CallRule] = [
        rule_of(one.tool, one.arguments) for one in recorded if one.kind == "write" and one.error is None
    ]
    return Expect(writes=tuple(writes), hands_off=any(one["event"] == "handed_off" for one in events))
