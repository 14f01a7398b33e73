"""A run in plain words. All that agents and customers wrote passes `output.clean`."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from midwatch.contracts.money import dollars

from .output import clean

SHORT = 300  # characters of one text, unless all of it is asked for
_SPEAKERS = {"customer": "The customer", "agent": "The agent", "human": "A person"}
_VERDICTS = {"pass": "judged it good", "fail": "judged it a failure", "unsure": "could not judge it"}
_ERASED = {
    "started": "what was asked", "said": "what was said", "model_called": "a model's answer",
    "tool_called": "a call of a tool", "handed_off": "why it was handed off", "finished": "how it ended",
}  # fmt: skip


@dataclass(frozen=True)
class Beside:
    """What was said of a run beside its own events."""

    alerts: list[dict[str, Any]] = field(default_factory=list)
    review: dict[str, Any] | None = None


def cost(run: dict[str, Any]) -> str:
    """The cost of a run; what is not known is said to be so."""
    amount, basis = Decimal(run["cost_usd"] or 0), run["cost_basis"]
    if basis == "unpriced":
        if not amount:
            return "unpriced"
        count = run["unpriced_calls"]
        part = f"{count:,} {'call has' if count == 1 else 'calls have'} no known price" if count else "part is unpriced"
        return f"at least {dollars(amount)} ({part})"
    if run["cost_usd"] is None:
        return "–"
    return dollars(amount) if basis == "reported" else f"{dollars(amount)} ({basis})"


def differing(run: dict[str, Any]) -> str:
    """Both figures of the model calls whose reported cost is not what their prices make of them; empty without any."""
    count = run["differing_calls"]
    if not count:
        return ""
    reported, computed = (
        dollars(Decimal(run["differing_reported_usd"])),
        dollars(Decimal(run["differing_computed_usd"])),
    )
    calls = "1 model call is" if count == 1 else f"{count:,} model calls are"
    return f"{calls} reported to cost {reported}, by {'its' if count == 1 else 'their'} price {computed}"


def took(run: dict[str, Any]) -> str:
    """How long a run took, in words."""
    if run["latency_ms"] is None:
        return "open"
    seconds = run["latency_ms"] / 1000
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def span(seconds: float) -> str:
    """A span of time, in the unit that a person would say it in."""
    for name, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"


def summary(run: dict[str, Any]) -> tuple[Any, ...]:
    """A run as one line of the table."""
    return (
        run["run_id"], run["agent"], run["ticket"], run["mode"], _moment(run["started_at"]), took(run),
        run["resolution"] or "open", cost(run), f"{run['model_calls']} + {run['tool_calls']}", run["halted_by"],
    )  # fmt: skip


def tell(run: dict[str, Any], events: list[dict[str, Any]], beside: Beside, *, full: bool) -> Iterator[str]:
    """The lines of the story, ready to be printed."""
    ticket = f", ticket [bold]{clean(run['ticket'])}[/]" if run["ticket"] else ""
    yield f"Run [bold]{clean(run['run_id'])}[/] of [bold]{clean(run['agent'])}[/] {clean(run['version'])}{ticket}"
    yield f"  began {_moment(run['started_at'])} UTC, mode {clean(run['mode'])}; {_ending(run)}"
    yield (
        f"  cost {cost(run)}; {run['input_tokens']:,} tokens in, {run['output_tokens']:,} out; "
        f"{run['model_calls']} model calls, {run['tool_calls']} tool calls ({run['tool_errors']} failed), "
        f"{run['messages']} messages"
    )
    yield from _uses(events)
    if both := differing(run):
        yield f"  [yellow]{clean(both)}[/]"
    if run["halted_by"]:
        would = "would have been halted" if run["mode"] == "replay" else "halted"
        yield f"  [bold red]{would} by {clean(run['halted_by'])}[/]"
    yield ""
    start = datetime.fromisoformat(run["started_at"])
    asides = _asides(events, beside)
    for place, event in enumerate(events):
        yield from asides.get(place, ())
        after = (datetime.fromisoformat(event["time"]) - start).total_seconds()
        note = f" [yellow]({clean(event['note'])})[/]" if event["note"] else ""
        yield f"  {after:>+9.1f} s  {step(event['event'], event['data'], full)}{note}"
    yield from asides.get(len(events), ())


def _uses(events: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Which tools looked something up, and which changed something; of others nobody said what they do."""
    calls = [event["data"] for event in events if event["event"] == "tool_called" and "tool" in event["data"]]
    for kind, what, style in (("read", "looked up", ""), ("write", "changed", "bold magenta")):
        of_kind = [call for call in calls if call.get("kind") == kind]
        done = Counter(clean(call["tool"]) for call in of_kind if call.get("error") is None)
        failed = Counter(clean(call["tool"]) for call in of_kind if call.get("error") is not None)
        said = [f"{tool}{_times(count)}" for tool, count in done.items()]
        said += [f"{tool}{_times(count)}, which failed" for tool, count in failed.items()]
        if said:
            yield f"  [{style}]{what}[/]: {'; '.join(said)}" if style else f"  {what}: {'; '.join(said)}"


def _times(count: int) -> str:
    return "" if count == 1 else f" {count} times"


def _asides(events: list[dict[str, Any]], beside: Beside) -> dict[int, list[str]]:
    """What was said beside the run, by the place of the event before which it is told."""
    told: dict[int, list[str]] = {}
    of_id = {event["id"]: place for place, event in enumerate(events)}
    for alert in reversed(beside.alerts):
        place = of_id.get(alert["event_id"])
        at = _place(events, alert["raised_at"]) if place is None else place + 1
        told.setdefault(at, []).append(f"  [bold]Alert[/] ({_state(alert)}): {clean(alert['title'])}{_closed(alert)}")
    review = beside.review
    if review and review["verdict"]:
        note = f": {clean(review['note'])}" if review["note"] else ""
        said = f"  [bold]Review[/]: {clean(review['judged_by'])} {_VERDICTS.get(review['verdict'], 'read it')}{note}"
        told.setdefault(_place(events, review["judged_at"]), []).append(said)
    elif review:
        state = "read by a person, and not settled yet" if review["judged_at"] else (
            "drawn for a person to read, and not judged yet"
        )  # fmt: skip
        told.setdefault(len(events), []).append(f"  [bold]Review[/]: {state}")
    return told


def _place(events: list[dict[str, Any]], at: str | None) -> int:
    """Behind the last event that is not later."""
    earlier = [place for place, event in enumerate(events) if at is None or event["time"] <= at]
    return earlier[-1] + 1 if earlier else 0


def _state(alert: dict[str, Any]) -> str:
    state = "resolved" if alert["resolved_at"] else "acknowledged" if alert["acknowledged_at"] else "open"
    return f"{clean(alert['severity'])}, {state}"


def _closed(alert: dict[str, Any]) -> str:
    return f" – {clean(alert['acknowledged_by'])} took it on" if alert["acknowledged_by"] else ""


def live_line(event: dict[str, Any]) -> str:
    """One event as `tail` prints it."""
    if "data" not in event:
        return f"[yellow]{clean(event['subject'])}: {clean(event['error'])}[/]"
    data = event["data"]
    happened = step(event["event"], data, full=False)
    return f"{clean(event['time'][11:23])} [bold]{clean(event['agent'])}[/] {clean(data['run_id'])}  {happened}"


def _ending(run: dict[str, Any]) -> str:
    if run["resolution"] is None:
        return f"still open, last heard of {_moment(run['last_event_at'])} UTC"
    return f"{clean(run['resolution']).replace('_', ' ')} after {took(run)}"


def step(event: str, data: dict[str, Any], full: bool) -> str:
    """One event in plain words, ready to be printed."""

    def text(value: Any) -> str:
        return words(value, full)

    if "erased" in data:
        return f"[dim]Erased on request: {_ERASED.get(event, 'what was here')}.[/]"
    match event:
        case "started":
            return asked(data["input"], full)
        case "said":
            return f"{_SPEAKERS.get(data['by'], 'Someone')} said: {text(data['text'])}"
        case "model_called":
            return _model_step(data, text(data["output"]) if data.get("output") else "", text)
        case "tool_called":
            return _tool_step(data, text)
        case "handed_off":
            summary = f" – {text(data['summary'])}" if data.get("summary") else ""
            return f"[bold]Handed off[/] to {clean(data['to'])}: {text(data['reason'])}{summary}"
        case "finished":
            why = data.get("error") or data.get("output")
            return f"[bold]Ended: {clean(data['resolution']).replace('_', ' ')}.[/] {text(why) if why else ''}".rstrip()
        case "proposed":
            return f"Would have done: {text(data['action'])}"
        case "human_acted":
            return f"A person did: {text(data['action'])}"
        case _:
            return clean(event)


def _tool_step(data: dict[str, Any], text: Any) -> str:
    failed = data.get("error") is not None
    verb = {"read": "Looked up with", "write": "[bold magenta]Changed[/] with"}.get(data.get("kind") or "", "Called")
    if failed and verb != "Called":
        verb = "Tried to look up with" if data["kind"] == "read" else "[bold magenta]Tried to change[/] with"
    call = f"{verb} {clean(data['tool'])}({text(data.get('arguments') or {})})"
    return f"{call} → [red]failed: {text(data['error'])}[/]" if failed else f"{call} → {text(data.get('result'))}"


def _model_step(data: dict[str, Any], output: str, text: Any) -> str:
    usage = data.get("usage") or {}
    tokens = f" ({usage.get('input_tokens', 0):,} tokens in, {usage.get('output_tokens', 0):,} out)" if usage else ""
    if data.get("error") is not None:
        return f"Asked the model {clean(data['model'])}{tokens} → [red]failed: {text(data['error'])}[/]"
    return f"Asked the model {clean(data['model'])}{tokens}{f' → {output}' if output else ''}"


def asked(input: Any, full: bool) -> str:
    """What came in, ready to be printed: of a conversation, the last message."""
    last = input[-1].get("content") if isinstance(input, list) and input else input
    return f"[bold]Asked:[/] {words(last, full)}"


def words(value: Any, full: bool) -> str:
    """A value on one line, ready to be printed; cut where it is long, unless it is wanted in `full`."""
    plain = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return clean(plain if full or len(plain) <= SHORT else f"{plain[:SHORT]}… ({len(plain):,} characters)")


def _moment(text: str) -> str:
    return text[:19].replace("T", " ")
