"""The dossier as a page that prints well. What agents and customers wrote is escaped by the template, never trusted."""

import json
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import jinja2
import msgspec

from midwatch.contracts.control import Card, SwitchRecord
from midwatch_services.cards.meaning import as_words

from .gather import Dossier
from .in_force import Standing

_SPEAKERS = {"customer": "The customer", "agent": "The agent", "human": "A person"}
_ENDINGS = {
    "resolved": "resolved", "handed_off": "handed off", "halted": "stopped", "fell_back": "taken over by the fallback",
    "failed": "failed", "abandoned": "broken off",
}  # fmt: skip


class Step(NamedTuple):
    """One event as a person reads it: who did what, and the texts that go with it, each under a label."""

    at: str
    after: str
    what: str
    texts: list[tuple[str, str]]
    marked: bool = False  # something was changed, or went wrong


def render(dossier: Dossier) -> str:
    """The page: one file, with nothing to fetch."""
    return _template().render(
        d=dossier, run=dossier.run, steps=list(steps(dossier)), card=card_lines(dossier.in_force.card),
        switch=[standing(one) for one in dossier.in_force.switch],
        route=[standing(one) for one in dossier.in_force.route], ending=ending(dossier.run), proof=list(proof(dossier)),
    )  # fmt: skip


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["moment"] = moment
    environment.filters["text"] = words
    environment.filters["to_whom"] = to_whom
    folder = resources.files("midwatch_services.dossier") / "templates"
    return environment.from_string((folder / "dossier.html.j2").read_text("utf-8"))


def proof(dossier: Dossier) -> Iterator[str]:
    """What the proof shows, in sentences."""
    events = dossier.proof["events"]
    sealed = sum("block" in one for one in events)
    signed = [one["checkpoint"] for one in dossier.proof["segments"] if one["checkpoint"]]
    yield f"{sealed:,} of its {len(events):,} events are sealed: the hash of each stands in the chain of its agent."
    if signed:
        last = signed[-1]
        yield f"Checkpoint {last['number']:,} covers it: {moment(last['at'])} UTC, signed with the key {last['key']}."
    if dossier.found is None:
        yield "It was not checked as this was made, for there was no public key at hand."
    elif not dossier.found:
        yield "It was checked as this was made: what is told above is what was stored, and none of it was altered."
    else:
        yield "It was checked as this was made, and does not hold:"
        yield from (f"• {one}" for one in dossier.found)
    yield "Anyone can check it without us, with the file of data that came with this page and the public key:"
    yield "midwatch verify --dossier why-RUN.json --key signing.pub"


def steps(dossier: Dossier) -> Iterator[Step]:
    """The run's events in order."""
    start = datetime.fromisoformat(dossier.run["started_at"])
    changes = {one["seq"] for one in dossier.writes}
    for event in dossier.events:
        data = event["data"]
        if "erased" in event:
            what, texts = f"An event ({event['event'].replace('_', ' ')}), erased on request", list[tuple[str, str]]()
        else:
            what, texts = _told(event["event"], data, event["seq"] in changes)
        marked = event["seq"] in changes or any(label == "failed" for label, _ in texts)
        after = (datetime.fromisoformat(event["time"]) - start).total_seconds()
        yield Step(moment(event["time"]), f"{after:+,.1f} s", what, texts, marked)


def _told(event: str, data: dict[str, Any], changes: bool) -> tuple[str, list[tuple[str, str]]]:
    match event:
        case "started":
            return "The customer asked", [("", words(_asked(data["input"])))]
        case "said":
            return f"{_SPEAKERS.get(data['by'], 'Someone')} said", [("", words(data["text"]))]
        case "model_called":
            usage = data.get("usage") or {}
            tokens = f" ({usage.get('input_tokens', 0):,} tokens in, {usage.get('output_tokens', 0):,} out)"
            return f"The model {data['model']} was asked{tokens if usage else ''}", _texts(data, answered="output")
        case "tool_called":
            deed = "Changed something with" if changes else "Called"
            given = [("with", words(data["arguments"]))] if data.get("arguments") else []
            return f"{deed} {data['tool']}", given + _texts(data, **{"came back": "result"})
        case "handed_off":
            return f"Handed off to {to_whom(data['to'])}", _texts(data, why="reason", told="summary")
        case "finished":
            return f"Ended: {_ENDINGS.get(data['resolution'], data['resolution'])}", _texts(data, answer="output")
        case "proposed":
            return "Would have done", _texts(data, what="action", answer="output")
        case "human_acted":
            return "A person did", _texts(data, what="action", answer="output")
        case _:
            return event, []


def _texts(data: dict[str, Any], **fields: str) -> list[tuple[str, str]]:
    found = [(label, words(data[name])) for label, name in fields.items() if data.get(name) is not None]
    return found + ([("failed", words(data["error"]))] if data.get("error") is not None else [])


def _asked(input: Any) -> Any:
    if not isinstance(input, list):
        return input
    return "\n".join(f"{one.get('role')}: {words(one.get('content'))}" for one in input)


def to_whom(to: str) -> str:
    """Who a case went to."""
    return "people" if to == "human" else to.replace("agent:", "the agent ", 1)


def ending(run: dict[str, Any]) -> str:
    """How the run ended, in a few words."""
    if run["resolution"] is None:
        return "not ended, as far as the log knows"
    by = f" by {run['halted_by']}" if run["halted_by"] else ""
    return str(_ENDINGS.get(run["resolution"], run["resolution"])) + by


def card_lines(card: Card | None) -> list[tuple[str, str]]:
    """The card as label and text, in the card's own words."""
    if card is None:
        return []
    said = as_words(card)
    return [(name.replace("_", " "), _listed(value)) for name, value in said.items() if value not in ([], {}, "")]


def _listed(value: Any) -> str:
    """A part of the card as lines of text; what lies deeper stands on one line."""
    if isinstance(value, list):
        return "\n".join(f"• {one}" for one in value)
    if isinstance(value, dict):
        parts = {name.replace("_", " "): _listed(part) for name, part in value.items()}
        return "\n".join(f"{name}: {', '.join(part.splitlines())}" for name, part in parts.items())
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def standing(one: Standing) -> tuple[str, str, str]:
    """Since when, which key at which revision, and what it said."""
    value = one.value
    if isinstance(value, SwitchRecord):
        said = f"{value.state}, by {value.by}" + (f": {value.reason}" if value.reason else "")
    else:
        said = "deleted or unreadable, which is not running" if value is None else words(value)
    return moment(one.since), f"{one.key} (epoch {one.revision})", said


def moment(time: str | datetime) -> str:
    """A time as people read it, in UTC."""
    return str(time)[:19].replace("T", " ")


def words(value: Any) -> str:
    """Text as it is; anything else as JSON."""
    if isinstance(value, str):
        return value
    return str(json.dumps(msgspec.to_builtins(value), ensure_ascii=False, indent=1))
