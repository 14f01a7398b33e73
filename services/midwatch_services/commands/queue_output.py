"""How cases are printed. All that agents and customers wrote passes `output.clean`."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from midwatch.contracts.money import dollars

from . import story
from .output import clean

_WORDS = 60  # characters of a sentence in the table


class _Cut(dict[str, Any]):
    """An event of which a case keeps only the short fields."""

    def __missing__(self, key: str) -> str:
        return "(too long for a case: see the run itself)"


def row(case: dict[str, Any]) -> tuple[Any, ...]:
    """A case as one line of the table."""
    waiting = "–" if case["state"] == "closed" else since(case["opened_at"])
    return (
        case["case_id"], waiting, case["agent"], case["ticket"], _short(case["asked"]), _short(case["reason"]),
        state(case),
    )  # fmt: skip


def state(case: dict[str, Any]) -> str:
    """Where a case is, in words."""
    if case["state"] == "taken":
        return f"taken by {case['taken_by']}"
    if case["state"] == "offered":
        return f"offered to {case['taker']}"
    return "its program sees to it" if case["state"] == "claimed" else str(case["state"])


def since(text: str, now: datetime | None = None) -> str:
    """How long ago a time is, in words."""
    seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(text)).total_seconds()
    for limit, unit, word in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{max(0, int(seconds / unit))} {word}"
    return f"{int(seconds / 86_400)} days"


def tell(case: dict[str, Any], history: list[dict[str, Any]], logged: str | None, *, full: bool) -> Iterator[str]:
    """The lines of the story, ready to be printed. `logged`: the run's cost as the run log has it."""
    said = case["case"] or {}
    ticket = f", ticket [bold]{clean(case['ticket'])}[/]" if case["ticket"] else ""
    run = f"run {clean(case['run_id'])}{ticket}"
    yield f"Case [bold]{clean(case['case_id'])}[/] of [bold]{clean(case['agent'])}[/], {run}"
    reference = f", there {clean(case['reference'])}" if case["reference"] else ""
    waits = "" if case["state"] == "closed" else f"; the customer waits for {since(case['opened_at'])}"
    yield f"  {clean(state(case))}{reference}{waits}"
    yield f"  stopped{_by_whom(case, said)}: {clean(case['reason'])}"
    if case["doubt"]:
        yield f"  [bold red]Doubt: {clean(case['doubt'])}[/]"
    if case["mode"] != "live":
        yield f"  [bold]a {clean(case['mode'])}: nobody waits[/]"
    about = [f"{name} {clean(said[name])}" for name in ("customer", "channel", "session") if said.get(name)]
    if about:
        yield f"  {', '.join(about)}"
    if case["chain"]:
        yield f"  had before by {clean(', '.join(case['chain']))}"
    yield f"  cost {logged or _cost(said.get('events') or [])}"
    yield ""
    yield from _events(said, full)
    yield ""
    for step in history:
        note = f": {clean(step['note'])}" if step["note"] else ""
        yield f"  {clean(step['at'][:19].replace('T', ' '))}  {clean(step['who'])} {clean(step['what'])}{note}"


def done(case: dict[str, Any]) -> str:
    """One line on where a case is now."""
    reference = f" ({clean(case['reference'])})" if case["state"] == "taken" and case["reference"] else ""
    return f"[bold]{clean(case['case_id'])}[/] of {clean(case['agent'])}: {clean(state(case))}{reference}"


def logged_cost(case: dict[str, Any]) -> str | None:
    """What the run cost by the run log; None where that does not know."""
    from sqlalchemy.exc import DBAPIError

    from midwatch.contracts import subjects
    from midwatch.errors import MidwatchError
    from midwatch.runtime.database import Database
    from midwatch.runtime.settings import Settings
    from midwatch_services.logger import store

    try:
        database = Database(Settings().database_for(subjects.LOGGER), name=subjects.LOGGER, must_exist=True)
    except MidwatchError:
        return None
    try:
        found = database.read_now(lambda conn: store.read_runs(conn, run_id=case["run_id"], agent=case["agent"]))
    except (DBAPIError, MidwatchError):
        return None
    finally:
        database.close()
    return story.cost(found[0]) if found else None


def _by_whom(case: dict[str, Any], said: dict[str, Any]) -> str:
    who = f" by {clean(said['by'])}" if said.get("by") else ""
    if not case["key"]:
        return who
    epoch = f", epoch {case['epoch']}" if case["epoch"] is not None else ""
    return f"{who} ({clean(case['key'])}{epoch})"


def _cost(events: list[dict[str, Any]]) -> str:
    """What the events say of cost themselves."""
    calls = [event for event in events if event["event"] in ("model_called", "tool_called")]
    known = [amount for event in calls if (amount := _reported(event)) is not None]
    models = [event for event in calls if event["event"] == "model_called"]
    if not known:
        return "not known" if models else "–"
    at_least = "at least " if any(_reported(event) is None for event in models) else ""
    return f"{at_least}{dollars(sum(known, Decimal(0)))}"


def _reported(event: dict[str, Any]) -> Decimal | None:
    """What a call says that it cost. A zero beside tokens is what frameworks write where they know no price."""
    if event.get("cost_usd") is None:
        return None
    amount, usage = Decimal(event["cost_usd"]), event.get("usage") or {}
    used = usage.get("input_tokens") or usage.get("output_tokens") if isinstance(usage, dict) else None
    return None if used and not amount else amount


def _events(said: dict[str, Any], full: bool) -> Iterator[str]:
    events = said.get("events") or []
    if not events:
        yield f"  {story.asked(said['input'], full) if said.get('input') else 'nothing is known of its run yet'}"
        return
    start = datetime.fromisoformat(events[0]["time"])
    for place, event in enumerate(events):
        after = (datetime.fromisoformat(event["time"]) - start).total_seconds()
        yield f"  {after:>+9.1f} s  {story.step(event['event'], _Cut(event), full)}"
        if place == 0 and said.get("left_out"):
            more = f"midwatch show {clean(said['run_id'])}"
            yield f"  [yellow]… {said['left_out']} events are left out here: see `{more}`[/]"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WORDS else f"{line[: _WORDS - 1]}…"
