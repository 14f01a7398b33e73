"""The cases that wait for people, from kill-switch's database; what people do with them is said on the bus."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from nats.js import JetStreamContext
from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch.contracts.control import ToolRule
from midwatch_services.console import run_story
from midwatch_services.console.run_story import Step
from midwatch_services.kill_switch.cases import case_pages, case_store, hands
from midwatch_services.kill_switch.cases.case_pages import Place, Wanted
from midwatch_services.kill_switch.cases.case_store import WAITING
from midwatch_services.kill_switch.cases.hands import Deed, Found, Standing, Verb

SERVICE = subjects.KILL_SWITCH
_PLACE_LIMIT = 200  # characters
# Of an event that was too large for a case only the short fields are there.
_WHOLE: dict[str, dict[str, Any]] = {
    "started": {"input": ""}, "said": {"by": "", "text": ""}, "model_called": {"model": ""},
    "tool_called": {"tool": ""}, "handed_off": {"to": "human"}, "finished": {"resolution": "abandoned"},
}  # fmt: skip
STATES = ("waiting", "open", "taken", "offered", "closed", "all")
VERBS: dict[str, Verb] = {"take": "accepted", "return": "returned", "close": "closed"}
__all__ = ["Deed", "Found", "Place", "Standing", "Verb"]
outcome, standing = hands.outcome, hands.standing


@dataclass(frozen=True, slots=True)
class Leaf:
    """A page of cases, and how many there are in all. `next`: where the next page begins; empty where there is none."""

    cases: list[dict[str, Any]]
    count: int
    next: str = ""


def listed(conn: Connection, state: str, agent: str | None, about: str, after: Place | None, limit: int) -> Leaf:
    """Cases without their stories: those that wait the oldest first, those that are over the newest first."""
    states = {"waiting": WAITING, "all": ()}.get(state, (state,))
    wanted = Wanted(
        states=states, agent=agent, about=about, after=after, drill=state == "all", newest=state in ("closed", "all"),
        limit=limit + 1,
    )  # fmt: skip
    found = case_pages.find(conn, wanted)
    shown, more = found[:limit], len(found) > limit
    return Leaf(shown, case_pages.count(conn, wanted), _written(case_pages.place_of(shown[-1])) if more else "")


def _written(place: Place) -> str:
    return f"{place.opened_at}.{place.case_id}"


def place(text: str) -> Place:
    """Where a page begins, as its address says it. Raises ValueError."""
    opened_at, _, case_id = text.partition(".")
    if len(text) > _PLACE_LIMIT or not opened_at.isdecimal() or not case_id:
        raise ValueError(text)
    return Place(int(opened_at), case_id)


def one(conn: Connection, case_id: str) -> Found | None:
    """A case whole, and its history."""
    found = case_store.read_case(conn, case_id)
    if found is None or found["case_id"] != case_id:
        return None
    return found, case_store.history(conn, case_id)


async def say(js: JetStreamContext, agent: str, deed: Deed, id: str) -> None:
    """Publishes what somebody does, once for each `id`. Raises what nats-py raises."""
    await hands.say(js, agent, deed, id=id, source=f"/people/{deed.by}")


class Holder(NamedTuple):
    """Who has a case, by its `state`, and since when."""

    state: str
    who: str
    since: str


def holder(case: dict[str, Any], history: list[dict[str, Any]]) -> Holder:
    """As `hands.holder` finds it."""
    state = case["state"]
    if state == "taken":
        mine = (step["at"] for step in reversed(history) if step["who"] == case["taken_by"])
        return Holder(state, case["taken_by"], next(mine, case["updated_at"]))
    if state == "closed":
        last = next((step for step in reversed(history) if step["what"] == "closed"), None)
        return Holder(state, last["who"] if last else "", last["at"] if last else case["updated_at"])
    if state == "offered":
        return Holder(state, case["taker"], case["updated_at"])
    return Holder(state, case["agent"] if state == "claimed" else "", case["opened_at"])


def said_at(history: Sequence[Mapping[str, Any]], by: str) -> int:
    """How much had happened to a case before the last that this person did with it."""
    mine = (place for place, step in enumerate(history) if step["who"] == by and step["what"] != "ignored")
    return max(mine, default=len(history))


def steps(case: dict[str, Any], tools: Mapping[str, ToolRule], *, is_whole: bool) -> list[Step]:
    """What happened in the run, told as its own page tells it; long data as well where it `is_whole`."""
    events = _handed_over(case)
    given = [
        {"id": f"e{place}", "event": event.get("event", ""), "time": event.get("time") or case["opened_at"], "note": "",
         "data": _WHOLE.get(event.get("event", ""), {}) | event}
        for place, event in enumerate(events)
    ]  # fmt: skip
    most = None if is_whole else run_story.SHOWN
    return run_story.steps(given, given[0]["time"], tools, most=most) if given else []


def raw(case: dict[str, Any]) -> list[str]:
    """The events of the run as the case carries them, each as JSON."""
    return [json.dumps(event, ensure_ascii=False, indent=1) for event in _handed_over(case)]


def _handed_over(case: dict[str, Any]) -> list[dict[str, Any]]:
    return [event for event in (case["case"] or {}).get("events") or [] if isinstance(event, dict)]
