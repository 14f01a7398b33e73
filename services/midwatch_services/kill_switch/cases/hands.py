"""What people and help desks do with a case: said on the bus, and done once kill-switch's tables show it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal, NamedTuple

from nats.js import JetStreamContext

from midwatch.contracts import codec, subjects
from midwatch.contracts.governance import CaseAccepted, CaseClosed, CaseReturned
from midwatch.errors import Temporary

Verb = Literal["accepted", "returned", "closed"]
Standing = Literal["may", "done", "refused"]
VERBS: tuple[Verb, ...] = ("accepted", "returned", "closed")
HELP_DESK = "/help-desk"  # source of what a help desk says over HTTP
WITHIN = 5.0  # seconds for the tables to show what was said
POLL = 0.05  # seconds
_ACK_WITHIN = 5.0  # seconds

Found = tuple[dict[str, Any], list[dict[str, Any]]]  # a case and its history, as `case_store` reads them


class Deed(NamedTuple):
    """What somebody does with a case. `note` goes with `returned` and `closed`, `reference` with `accepted`."""

    verb: Verb
    case_id: str
    by: str
    reference: str = ""
    note: str = ""


def standing(case: dict[str, Any], deed: Deed) -> Standing:
    """Whether the deed may still be done, is done already, or is refused as somebody else has the case."""
    state, is_mine = case["state"], case["taken_by"] == deed.by
    if deed.verb == "accepted":
        if state == "taken" and is_mine:
            return "done" if deed.reference in ("", case["reference"]) else "may"
        return "may" if state == "open" else "refused"
    if deed.verb == "returned":
        return "done" if state == "open" else "may" if state == "taken" and is_mine else "refused"
    return "done" if state == "closed" else "may" if state == "open" or (state == "taken" and is_mine) else "refused"


def holder(case: dict[str, Any], history: list[dict[str, Any]]) -> str:
    """Who has the case and since when, in words."""
    if case["state"] == "claimed":
        return f"the program of {case['agent']} itself has it since {moment(case['opened_at'])}"
    if case["state"] == "offered":
        return f"it is offered to the agent {case['taker']} since {moment(case['updated_at'])}"
    if case["state"] == "open":
        return f"nobody has it: it waits since {moment(case['opened_at'])}"
    if case["state"] == "taken":
        at = next((step["at"] for step in reversed(history) if step["who"] == case["taken_by"]), case["updated_at"])
        return f"{case['taken_by']} has it since {moment(at)}"
    last = next((step for step in reversed(history) if step["what"] == "closed"), None)
    by = f" by {last['who']}" if last else ""
    return f"it was closed{by} at {moment(last['at'] if last else case['updated_at'])}"


def moment(text: str) -> str:
    """A time as people read it."""
    return f"{text[:19].replace('T', ' ')} UTC"


async def say(js: JetStreamContext, agent: str, deed: Deed, *, id: str, source: str) -> None:
    """Publishes the deed and returns once it is stored. Raises what nats-py raises."""
    data: Any
    if deed.verb == "accepted":
        data = CaseAccepted(case_id=deed.case_id, by=deed.by, reference=deed.reference)
    else:
        kind = CaseReturned if deed.verb == "returned" else CaseClosed
        data = kind(case_id=deed.case_id, by=deed.by, note=deed.note)
    body = codec.encode(codec.envelope("case", deed.verb, data, source=source, id=id))
    headers = {subjects.MSG_ID: id, subjects.CONTENT_TYPE: subjects.CLOUDEVENTS_JSON}
    await js.publish(subjects.case(agent, deed.verb), body, timeout=_ACK_WITHIN, headers=headers)


async def outcome(deed: Deed, read: Callable[[], Awaitable[Found | None]]) -> tuple[Standing, Found]:
    """What became of a deed that was said: `may` still where kill-switch has not judged it in time."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + WITHIN
    while True:
        found = await read()
        if found is None:
            raise Temporary(f"the case {deed.case_id} was forgotten meanwhile")
        now = standing(found[0], deed)
        if deed.verb == "returned" and now == "refused":
            now = "done"  # the speaker had it: whoever has it now got it after it was given back
        if now != "may" or clock() > deadline:
            return now, found
        await asyncio.sleep(POLL)
