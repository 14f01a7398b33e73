"""Pages where a halt would not be obeyed, and takes it back once it would."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime

from nats.aio.client import Client
from nats.js import JetStreamContext
from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch.runtime import faults
from midwatch.runtime.card_book import CardBook
from midwatch.runtime.database import Database
from midwatch.runtime.outbox import Outbox
from midwatch.runtime.switchboard import Switchboard

from . import armed
from .alarms import Alarms, open_alarms
from .armed import RULE, Judged
from .cases import case_store
from .decide import Instance, Who
from .handlers import KillSwitch
from .hearing import Hearing
from .policy import Policy

TICK = 0.5  # seconds between two looks


class Arming:
    """One page an agent: open while some of its instances are not armed."""

    def __init__(
        self, nc: Client, js: JetStreamContext, database: Database, outbox: Outbox, switch: KillSwitch,
        cards: CardBook, now: Callable[[], datetime], policy: Policy,
    ) -> None:  # fmt: skip
        self._nc, self._database, self._outbox, self._now, self._policy = nc, database, outbox, now, policy
        self._board = Switchboard(js)
        self._alarms = Alarms(outbox)
        self._switch, self._cards = switch, cards
        self._since: dict[Who, datetime] = {}
        self._open: set[str] = set()
        self._began = now()
        self._taken_up: set[str] = set()  # agents whose page an earlier process opened: that one ends as it would have
        self._well: dict[str, datetime] = {}  # agents whose page is open though all are armed: since when
        self._gone: dict[Who, datetime] = {}  # instances that need not be armed any more: when they were last heard
        self._hearing = Hearing(nc, switch, now, policy.silent_after)

    async def load(self) -> None:
        """Takes up the alerts that an earlier process left open."""
        self._open = self._taken_up = {
            alarm.agent for alarm in await self._database.read(lambda conn: open_alarms(conn, RULE))
        }

    async def judge(self) -> None:
        """Looks at every agent that has instances, and at those whose alert is open."""
        if not await self._hearing.hears():
            return
        await self._look_for_gone()
        now, since = self._now(), dict[Who, datetime]()
        faulty, well = list[str](), list[str]()
        for agent in {*self._switch.instances.agents(), *self._open}:
            judged = self._judge(agent, self._switch.revisions, now)
            since |= judged.since
            if judged.faults and agent not in self._open:
                faulty.append(agent)
            if not (judged.armed and agent in self._open):
                self._well.pop(agent, None)
            elif now - self._well.setdefault(agent, now) >= self._policy.armed_for:
                well.append(agent)
        self._since = since
        raised = [(agent, judged) for agent in faulty if (judged := await self._confirmed(agent, now)).faults]
        if raised or well:
            await self._say(raised, well, now)

    def _judge(self, agent: str, revisions: Mapping[str, int], now: datetime) -> Judged:
        instances = self._switch.instances.of(agent)
        gone = {who for one in instances if self._gone.get(who := (one.agent, one.instance)) == one.seen_at}
        return armed.judge(
            instances, revisions, now, self._hearing.since, self._since, self._policy.not_armed_after, gone
        )

    async def _look_for_gone(self) -> None:
        """A process that was killed cannot sign off. Once it has been silent for long and its runs are seen to, the
        page has said all that it can; and one that ended before this process began, with nothing under way, is no
        page. Unless the card lets it act without control, for then it may be at work."""
        switch, now, found = self._switch, self._now(), dict[Who, datetime]()
        for agent in switch.instances.agents():
            if self._cards.get(agent).switch.lost_control == "fall_back":
                silent = armed.vanished(switch.instances.of(agent), switch.revisions, now, self._policy.gone_after)
                found |= {(agent, one.instance): one.seen_at for one in silent if await self._seen_to(one)}
                if agent not in self._taken_up:
                    ended = armed.ended_unheard(switch.instances.of(agent), now, self._began)
                    found |= {(agent, one.instance): one.seen_at for one in ended}
        self._gone = found

    async def _seen_to(self, one: Instance) -> bool:
        runs = set(one.running) - set(one.no_case)
        if not runs or self._gone.get((one.agent, one.instance)) == one.seen_at:
            return True
        return not await self._database.read(lambda conn: case_store.not_seen_to(conn, one.agent, runs))

    async def _confirmed(self, agent: str, now: datetime) -> Judged:
        """By the keys as they stand: what was read of the switch's writes may be a moment old."""
        keys = subjects.switch_keys(agent)
        entries = await asyncio.gather(*(self._board.read(key) for key in keys))
        return self._judge(agent, {entry.key: entry.revision for entry in entries}, now)

    async def _say(self, raised: list[tuple[str, Judged]], well: list[str], now: datetime) -> None:
        def save(conn: Connection) -> None:
            for agent, judged in raised:
                self._alarms.raise_(
                    conn, dedupe_key=f"{RULE}/{agent}", rule=RULE, severity="page", agent=agent, now=now,
                    title=armed.title(agent, judged.total, judged.faults), value=len(judged.faults),
                    evidence=armed.evidence(judged.faults),
                )  # fmt: skip
            for agent in well:
                reason = "every instance is armed, has signed off, or is long gone with its runs seen to"
                self._alarms.resolve(conn, f"{RULE}/{agent}", reason=reason, now=now)

        await self._database.write(save)
        faults.reach("kill_switch.arming_saved")
        self._open = (self._open | {agent for agent, _ in raised}) - set(well)
        self._taken_up = self._taken_up - set(well)
        await self._outbox.drain()
