"""The cases that wait for people, from kill-switch's database; what people do with them is said on the bus."""

from typing import Any

from nats.js import JetStreamContext
from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch.contracts.envelope import new_id
from midwatch_services.kill_switch.cases import case_store, hands
from midwatch_services.kill_switch.cases.hands import Deed, Found, Standing, Verb

SERVICE = subjects.KILL_SWITCH
STATES = ("waiting", "open", "taken", "offered", "closed", "all")
VERBS: dict[str, Verb] = {"take": "accepted", "return": "returned", "close": "closed"}
__all__ = ["Deed", "Found", "Standing", "Verb"]
outcome, standing, holder = hands.outcome, hands.standing, hands.holder


def listed(conn: Connection, state: str, agent: str | None, limit: int) -> list[dict[str, Any]]:
    """Cases without their stories: those that wait the oldest first, those that are over the newest first."""
    which = None if state == "waiting" else state
    newest = state in ("closed", "all")
    return case_store.list_cases(conn, agent=agent, state=which, drill=state == "all", newest=newest, limit=limit)


def one(conn: Connection, case_id: str) -> Found | None:
    """A case whole, and its history."""
    found = case_store.read_case(conn, case_id)
    if found is None or found["case_id"] != case_id:
        return None
    return found, case_store.history(conn, case_id)


async def say(js: JetStreamContext, agent: str, deed: Deed) -> None:
    """Publishes what somebody does. Raises what nats-py raises."""
    await hands.say(js, agent, deed, id=new_id(), source=f"/people/{deed.by}")


def steps(case: dict[str, Any]) -> list[dict[str, Any]]:
    """What happened in the run, each event as it was handed over: nothing of it is left out here."""
    hidden = {"event", "time", "run_id", "agent", "version", "mode", "seq"}
    return [
        {
            "event": event.get("event", ""), "time": event.get("time"),
            "fields": {name: value for name, value in event.items() if name not in hidden and value not in (None, "")},
        }
        for event in (case["case"] or {}).get("events") or []
    ]  # fmt: skip
