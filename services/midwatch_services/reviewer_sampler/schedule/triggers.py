"""What brings an agent's first rate back, of all that is said on the bus. Pure."""

from typing import Any, NamedTuple

from midwatch.contracts import subjects
from midwatch.contracts.governance import AlertRaised, SwitchMoved
from midwatch.contracts.reviews import RateCause

_DRIFT = subjects.DRIFT  # the rule of its alerts


class Trigger(NamedTuple):
    """`agent`: None for all of them."""

    agent: str | None
    cause: RateCause
    what: str


def trigger_of(agent: str, data: Any) -> Trigger | None:
    """Why the agent in the subject, or every one, is to be read as at first."""
    if isinstance(data, AlertRaised):
        if data.mode != "live" or agent == subjects.FLEET:
            return None  # what is nobody's in particular is no agent's failure
        if data.rule == _DRIFT:
            return Trigger(agent, "drift", data.rule)
        return Trigger(agent, "incident", data.rule) if data.severity == "page" else None
    if isinstance(data, SwitchMoved) and data.record.state == "halted" and not data.record.drill:
        if data.key == subjects.FLEET_KEY:
            return Trigger(None, "halt", data.key)
        if agent != subjects.FLEET and data.key == subjects.agent_key(agent):
            return Trigger(agent, "halt", data.key)
    return None
