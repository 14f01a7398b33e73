"""Whether a drill may begin: read from NATS alone, and nothing is written."""

import asyncio
from dataclasses import dataclass

import msgspec
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from midwatch.contracts import codec, subjects
from midwatch.contracts.control import Card, Route
from midwatch.contracts.governance import SwitchDrilled
from midwatch.errors import MidwatchError
from midwatch.runtime.switchboard import is_deleted

from .. import view
from ..view import AgentView, InstanceView
from . import drill_plan

_LOOKS = 20  # at whether kill-switch asks for writes: between two batches it does not
_TICK = 0.1  # seconds


class NotReady(MidwatchError):
    """{why}."""


@dataclass(frozen=True)
class Ready:
    """What a drill of an agent will meet. `tool`: what the drill's tickets call. `instances`: the agent's own."""

    card: Card
    tool: str
    instances: list[InstanceView]

    @property
    def armed(self) -> list[InstanceView]:
        return [one for one in self.instances if one.armed]

    @property
    def in_flight(self) -> int:
        """Runs that the drill's halt will stop."""
        return sum(len(one.presence.runs_in_flight) for one in self.instances)


async def check(nc: Client, js: JetStreamContext, agent: str, *, without_instances: bool, hint: str = "") -> Ready:
    """What the drill will meet. Raises NotReady with the reason against it and what to do: `hint` as well, where nobody
    is armed."""
    card = await read_card(js, agent)
    if card is None:
        raise NotReady(why=f"{agent} has no scope card that can be read: apply one with `midwatch apply`")
    await _acts(js, agent)
    agents, instances = await view.read(nc, js)
    by_name = {one.agent: one for one in agents}
    of_agent = by_name[agent]
    _not_halted(of_agent)
    for other in agents:
        if any(halt["drill"] for halt in other.halts):
            raise NotReady(why=f"{other.agent} is being drilled just now: drill one agent at a time")
    own = [one for one in instances if one.presence.agent == agent]
    if not without_instances and not any(one.armed for one in own):
        why = f" ({own[0].presence.instance}: {own[0].why_not})" if own else ""
        raise NotReady(why=f"no instance of {agent} is armed{why}: start one{hint}")
    await _kill_switch_reads(js)
    return Ready(card, _tool(card, of_agent), own)


def _not_halted(agent: AgentView) -> None:
    for halt in agent.halts:
        if halt["target"] is None:
            what, lift = ("the fleet", "--fleet") if halt["key"] == subjects.FLEET_KEY else (halt["key"], agent.agent)
            by = f" by {halt['by']}" if halt["by"] else ""
            raise NotReady(
                why=f"{what} is halted already{by} ({halt['reason']}): a drill needs a running agent; lift it with "
                f"`midwatch resume {lift}` if that is right"
            )


def _tool(card: Card, agent: AgentView) -> str:
    """A tool that only reads and is not halted: a halt interrupts it. Where the card has none, one that it does not
    name, which a halt lets end."""
    halted = {halt["target"] for halt in agent.halts if halt["key"] == subjects.tools_key(card.agent)}
    reading = (name for name, rule in card.tools.items() if rule.kind == "read" and name not in halted)
    return next(reading, "midwatch_drill")


async def _kill_switch_reads(js: JetStreamContext) -> None:
    for _ in range(_LOOKS):
        info = await js.consumer_info(subjects.key_stream(subjects.SWITCH), subjects.KILL_SWITCH_WRITES)
        if info.num_waiting:
            return
        await asyncio.sleep(_TICK)
    raise NotReady(
        why="kill-switch does not run: it opens the cases, and lifts the halt should the drill die; start it with "
        "`midwatch up` or `midwatch run kill-switch`"
    )


async def _acts(js: JetStreamContext, agent: str) -> None:
    """Raises NotReady where the agent's route lets it act on nothing. Drills themselves are not routed."""
    message = await last(js, subjects.key_stream(subjects.ROUTES), subjects.key_subject(subjects.ROUTES, agent))
    if message is None:
        return
    try:
        route = None if is_deleted(message.headers) else msgspec.json.decode(message.data or b"", type=Route)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        route = None
    if route is None:
        raise NotReady(why=f"the route of {agent} was deleted or cannot be read, so it acts on nothing: write it anew")
    if route.stage == "shadow" or (route.stage == "canary" and route.traffic == 0):
        raise NotReady(why=f"{agent} is at stage {route.stage} and acts on nothing: there is nothing to halt")


async def read_card(js: JetStreamContext, agent: str) -> Card | None:
    """The agent's card; None where there is none that can be read."""
    message = await last(js, subjects.key_stream(subjects.AGENTS), subjects.key_subject(subjects.AGENTS, agent))
    if message is None or is_deleted(message.headers):
        return None
    try:
        return msgspec.json.decode(message.data or b"", type=Card)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


async def last(js: JetStreamContext, stream: str, subject: str) -> RawStreamMsg | None:
    """The last message of a subject, by the leader's word."""
    try:
        return await js.get_last_msg(stream, subject)
    except NotFoundError:
        return None


async def history(js: JetStreamContext, agent: str) -> list[SwitchDrilled]:
    """Every drill of the agent that was reported, the oldest first, each as it was last reported."""
    found: dict[str, SwitchDrilled] = {}
    after = 0
    while True:
        try:
            message = await js.get_msg(
                subjects.GOVERNANCE, seq=after + 1, subject=subjects.switch(agent, "drilled"), next=True
            )
        except NotFoundError:
            return sorted(found.values(), key=lambda one: one.started_at)
        after = message.seq or after + 1
        try:
            result: SwitchDrilled = codec.decode(message.subject or "", message.data or b"").data
        except codec.Refused:
            continue
        if drill_plan.is_newer(found.get(result.drill_id), result):
            found[result.drill_id] = result
