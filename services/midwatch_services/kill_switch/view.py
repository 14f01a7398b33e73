"""Who is armed: every instance beside the switch as it stands, read from NATS alone."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg

from midwatch.contracts import subjects
from midwatch.contracts.control import Presence, Route
from midwatch.runtime.stream_read import last_of_each
from midwatch.runtime.switchboard import Entry, Switchboard, is_deleted

from . import armed, decide
from .decide import Who
from .proof import ANNOUNCE, last_words
from .registry import Instances, of_presence, read_presence


@dataclass(frozen=True)
class AgentView:
    """An agent as the switch has it. `epochs`: revision of each of its keys, 0 where there is none. `stage`: of its
    route, in words; empty where it has none."""

    agent: str
    halts: list[dict[str, Any]]
    epochs: dict[str, int]
    stage: str = ""

    @property
    def halted(self) -> bool:
        """Whether nothing of the agent may run; it may have halted tools or runs without that."""
        return self.whole_halt is not None

    @property
    def whole_halt(self) -> dict[str, Any] | None:
        """The halt for which nothing of the agent may run."""
        whole = (halt for halt in self.halts if halt["target"] is None and not halt["key"].startswith("tools."))
        return next(whole, None)


@dataclass(frozen=True)
class InstanceView:
    """One instance. `why_not` is empty where it is armed; `age` is the seconds since it was heard. `behind`: the key
    that it has not applied as it stands, for whoever mends it."""

    presence: Presence
    age: float
    why_not: str
    behind: str = ""

    @property
    def armed(self) -> bool:
        return not self.why_not

    @property
    def exactly(self) -> str:
        """`why_not`, and the key that it lacks."""
        return f"{self.why_not} ({self.behind})" if self.why_not and self.behind else self.why_not


async def read(nc: Client, js: JetStreamContext) -> tuple[list[AgentView], list[InstanceView]]:
    """Every agent that has a card, a key or an instance, and every instance that has not signed off."""
    entries = {entry.key: entry for entry in await Switchboard(js).entries()}
    revisions = {key: entry.revision for key, entry in entries.items()}
    found = []
    for message, seen_at in await last_words(nc, js, ">"):
        presence = _presence(message.subject or "", message.data or b"")
        now = datetime.now(UTC)
        if presence is not None and not decide.is_over(one := of_presence(presence, seen_at), now):
            age = (now - seen_at).total_seconds()
            lacks = armed.behind(one, revisions)
            found.append(InstanceView(presence, age, why_not_armed(presence, age, revisions), lacks))
    cards = await js.stream_info(
        subjects.key_stream(subjects.AGENTS), subjects_filter=subjects.key_subject(subjects.AGENTS, ">")
    )
    names = {one.presence.agent for one in found} | {
        subject.rsplit(".", 1)[1] for subject in cards.state.subjects or ()
    }
    names |= {agent for key in entries if decide.is_key(key) and (agent := decide.agent_of(key))}
    found.sort(key=lambda one: (one.presence.agent, one.presence.instance))
    stages = await _stages(js)
    return [replace(agent_view(name, entries), stage=stages.get(name, "")) for name in sorted(names)], found


async def shared_names(nc: Client) -> dict[Who, int]:
    """Of each name that more than one process uses, how many do. The server keeps one word a name, so that it hears
    them for as long as whoever runs needs to speak."""
    heard = Instances()

    async def hear(message: Msg) -> None:
        if instance := read_presence(message.subject, message.data, datetime.now(UTC)):
            heard.hear(instance)

    heard_on = await nc.subscribe(subjects.presence("*", "*"), cb=hear)
    await asyncio.sleep(ANNOUNCE)
    await heard_on.unsubscribe()
    using = Counter((one.agent, one.instance) for one in heard.processes(None) if not one.left)
    return {who: number for who, number in using.items() if number > 1}


async def _stages(js: JetStreamContext) -> dict[str, str]:
    """How far each agent that has a route is let act."""
    bucket = subjects.key_stream(subjects.ROUTES)
    return {
        (message.subject or "").rsplit(".", 1)[1]: _stage(message)
        for message in await last_of_each(js, bucket, subjects.key_subject(subjects.ROUTES, ">"))
    }


def _stage(message: RawStreamMsg) -> str:
    try:
        route = None if is_deleted(message.headers) else msgspec.json.decode(message.data or b"", type=Route)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        route = None
    if route is None:
        return "unreadable: does not act"
    return f"canary {route.traffic:.3g}" if route.stage == "canary" else route.stage


def _presence(subject: str, body: bytes) -> Presence | None:
    try:
        presence = msgspec.json.decode(body, type=Presence)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return presence if subject == subjects.presence(presence.agent, presence.instance) else None


def why_not_armed(presence: Presence, age: float, revisions: Mapping[str, int]) -> str:
    """What keeps an instance from being armed, in the words of the alert."""
    return armed.why_not(of_presence(presence, datetime.now(UTC)), age, revisions)


def agent_view(agent: str, entries: Mapping[str, Entry]) -> AgentView:
    """What the switch says of one agent. A key that never was is not running, as a deleted one."""
    halts: list[dict[str, Any]] = []
    epochs = {}
    for key in subjects.switch_keys(agent):
        entry = entries.get(key, Entry(key, None, 0, None))
        epochs[key] = entry.revision
        write = decide.Write(key, entry.value, entry.revision, entry.written_at or datetime.now(UTC))
        halts += [
            {"key": key, "target": move.target, **msgspec.structs.asdict(move.record)}
            for move in decide.moves(write, {}, ())
        ]
    return AgentView(agent, halts, epochs)
