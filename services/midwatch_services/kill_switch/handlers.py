"""What kill-switch does with a write of the switch, a sign of life, a run event, and the passing of time."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch.errors import Temporary
from midwatch.runtime import faults
from midwatch.runtime.database import Database
from midwatch.runtime.delivery import Received
from midwatch.runtime.outbox import Outbox
from midwatch.runtime.stream_read import last_of_each
from midwatch.runtime.switchboard import Switchboard

from . import decide, effects, reports, store
from .decide import Call, Halt, Surroundings, Target, Who, Write
from .policy import POLICY, Policy
from .registry import Instances, RunKey, Runs, read_presence
from .reports import Said

TICK = 0.25  # seconds between two judgements where nothing is heard
_COMPLAINTS = 1000  # instances whose presence was found unreadable and logged, each once

log = structlog.get_logger("midwatch.kill_switch")
Place = tuple[str, Target]  # of a halt: one stands at a key and target


class KillSwitch:
    """What is halted, who has obeyed, and which runs move. The tables are the truth; memory follows their commits."""

    def __init__(
        self, nc: Client, js: JetStreamContext, database: Database, outbox: Outbox, now: Callable[[], datetime],
        policy: Policy = POLICY,
    ) -> None:  # fmt: skip
        self._nc, self._js, self._database, self._outbox, self._now = nc, js, database, outbox, now
        self._policy = policy
        self._board = Switchboard(js)
        self._instances, self._runs = Instances(), Runs()
        self._halts: dict[Place, Halt] = {}
        self._pending: dict[Place, dict[Who, datetime]] = {}  # halts without proof: who has cleared, since when
        self._seen: dict[tuple[Place, int], datetime] = {}  # those by place and epoch: when they were first judged
        self._revisions: dict[str, int] = {}
        self._map_runs: dict[RunKey, store.MapRun] = {}
        self._position: tuple[int, datetime] = (0, now())
        self._watching_since = now()
        self._reconnects = -1
        self._had_strays = False
        self._unreadable: set[str] = set()
        self._wake = asyncio.Event()
        self._reading = asyncio.Lock()

    async def load(self) -> None:
        """Takes up where the last process stopped."""

        def read(conn: Connection) -> tuple[Any, ...]:
            return (
                store.position(conn), store.revisions(conn), store.open_halts(conn), store.map_runs(conn),
                store.instances(conn), store.strays(conn),
            )  # fmt: skip

        self._position, self._revisions, halts, runs, instances, strays = await self._database.read(read)
        for halt in halts:
            self._stand(halt)
        self._map_runs = {(run.agent, run.run_id): run for run in runs}
        self._instances.load(instances)
        for agent, run_id, last_at in strays:
            self._runs.note(agent, run_id, "started", last_at)
        self._had_strays = bool(strays)
        await self._outbox.drain()

    # What the other parts of kill-switch look at

    @property
    def instances(self) -> Instances:
        """Every instance that was heard of."""
        return self._instances

    @property
    def watching_since(self) -> datetime:
        """From when on presence was followed without a gap."""
        return self._watching_since

    @property
    def follows(self) -> bool:
        """Whether presence was read anew since the connection came back last."""
        return self._reconnects == self._nc.stats["reconnects"]

    @property
    def revisions(self) -> Mapping[str, int]:
        """The revision of each key as far as it was read."""
        return self._revisions

    @property
    def halts(self) -> Mapping[Place, Halt]:
        """The halts that stand."""
        return self._halts

    # Presence

    async def follow_presence(self) -> None:
        """Hears every instance from now on."""
        await self._nc.subscribe(subjects.presence("*", "*"), cb=self._heard)
        await self._catch_up()

    async def _heard(self, message: Msg) -> None:
        instance = read_presence(message.subject, message.data, self._now())
        if instance is None:
            if message.subject not in self._unreadable and len(self._unreadable) < _COMPLAINTS:
                self._unreadable.add(message.subject)
                log.warning("presence_unreadable", subject=message.subject)
            return
        self._instances.hear(instance)
        if self._pending:
            self._wake.set()

    async def _catch_up(self) -> None:
        """Reads the last word of everyone; after a gap, nobody's silence before it counts."""
        reconnects, now = self._nc.stats["reconnects"], self._now()
        for message in await last_of_each(self._js, subjects.PRESENCE, ">"):
            seen_at = min(message.time or now, now)
            if instance := read_presence(message.subject or "", message.data or b"", seen_at):
                self._instances.recall(instance)
        self._reconnects, self._watching_since = reconnects, now

    # Writes of the switch

    async def on_writes(self, batch: Sequence[Received[None]]) -> None:
        """Takes every write that was not taken yet. What was delivered only says that there are some: after a crash the
        server may deliver a newer write before an older one."""
        try:
            if any(received.stream_seq <= self._position[0] for received in batch):
                await self._find_bucket()
            if any(received.stream_seq > self._position[0] for received in batch):
                await self._read_writes()
        except (NatsError, TimeoutError) as error:
            raise Temporary(f"the switch's writes cannot be read: {error}") from error

    async def catch_up_writes(self) -> None:
        """Takes the writes made while nobody read: what a dead process was given comes again only after a while."""
        await self._find_bucket()
        await self._read_writes()

    async def _find_bucket(self) -> None:
        """Begins anew where the bucket was made anew, for revisions begin again with it."""
        created = (await self._js.stream_info(subjects.key_stream(subjects.SWITCH))).created
        if created and created > self._position[1]:
            await self._database.write(lambda conn: store.forget_keys(conn, created))
            self._position, self._revisions = (0, created), {}
            self._instances.forget_epochs(created)

    async def _read_writes(self) -> None:
        async with self._reading:  # of two readers the slower would take old writes for new
            while entries := await self._board.writes(self._position[0]):
                await self._take([Write(e.key, e.value, e.revision, e.written_at or self._now()) for e in entries])

    async def taken(self, epoch: int) -> None:
        """Takes the writes up to `epoch` if they were not taken yet: what they caused may be heard before them."""
        if epoch > self._position[0]:
            try:
                await self._read_writes()
            except (NatsError, TimeoutError) as error:
                raise Temporary(f"the switch's writes cannot be read: {error}") from error

    async def _take(self, writes: Sequence[Write]) -> None:
        keys = {write.key for write in writes}
        agents = {agent for key in keys if key.startswith("runs.") and (agent := decide.agent_of(key))}

        def save(conn: Connection) -> tuple[list[Halt], list[store.MapRun]]:
            for write in writes:
                self._save_write(conn, write)
            return (
                [halt for key in keys for halt in store.open_halts(conn, key)],
                [run for agent in agents for run in store.map_runs(conn, agent)],
            )

        halts, runs = await self._database.write(save)
        faults.reach("kill_switch.writes_saved")
        self._position = (writes[-1].revision, writes[-1].written_at)
        self._revisions.update({write.key: write.revision for write in writes})
        for place in [place for place in self._halts if place[0] in keys]:
            del self._halts[place]
        self._pending = {place: cleared for place, cleared in self._pending.items() if place[0] not in keys}
        for halt in halts:
            self._stand(halt)
        kept = {who: run for who, run in self._map_runs.items() if who[0] not in agents}
        self._map_runs = kept | {(run.agent, run.run_id): run for run in runs}
        self._wake.set()

    def _save_write(self, conn: Connection, write: Write) -> None:
        store.save_key(conn, write.key, write.revision, write.written_at)
        if not decide.is_key(write.key):
            return
        agent = decide.agent_of(write.key)
        finished = self._save_map_runs(conn, write, agent) if agent and write.key.startswith("runs.") else set()
        before = {halt.target: halt for halt in store.open_halts(conn, write.key)}
        for move in decide.moves(write, before, finished):
            store.close_halt(conn, write, move.target, move.record)
            if move.event == "halted":
                store.add_halt(conn, Halt(write.key, move.target, write.revision, move.record, write.written_at))
            if move.event != "pruned":
                self._outbox.add(conn, reports.moved(write, move, agent))

    def _save_map_runs(self, conn: Connection, write: Write, agent: str) -> set[str]:
        """Follows which runs have a record; returns those known to have finished."""
        present = decide.targets(write)
        known = {run.run_id: run for run in store.map_runs(conn, agent)}
        for run_id in present - known.keys():
            finished_at = write.written_at if self._runs.finished(agent, run_id) else None
            store.add_map_run(conn, store.MapRun(agent, run_id, write.written_at, finished_at))
        for run_id in known.keys() - present:
            store.drop_map_run(conn, agent, run_id)
        return {run.run_id for run in known.values() if run.finished_at or self._runs.finished(agent, run.run_id)}

    def _stand(self, halt: Halt) -> None:
        place = (halt.key, halt.target)
        self._halts[place] = halt
        if halt.phase in ("pending", "unconfirmed"):
            self._pending.setdefault(place, {})
        else:
            self._pending.pop(place, None)

    # Run events

    async def on_runs(self, batch: Sequence[Received]) -> None:
        """Follows which live runs move and which a halt stopped, and revokes the proof of a halt in whose scope a call
        began afterwards."""
        broken: dict[Place, Said] = {}
        for received in batch:
            event = received.event
            if event.data.mode != "live":
                continue
            self._runs.note(event.agent, event.data.run_id, event.event, received.stored_at)
            if self._halts and event.event in ("model_called", "tool_called"):
                for said in self._revoked(received):
                    broken.setdefault((said.before.key, said.before.target), said)
        if broken:
            await self._say(list(broken.values()))
        await self.taken(effects.newest(batch))
        if stopped := effects.stopped(batch):
            await self._database.write(lambda conn: effects.save(conn, self._outbox, stopped))

    def _revoked(self, received: Received) -> list[Said]:
        event, data = received.event, received.event.data
        tool: str | None = getattr(data, "tool", None)
        started = decide.began(self._instances.time_of(event), received.stored_at, getattr(data, "latency_ms", None))
        call = Call(event.agent, data.run_id, tool, started, event.id, data.seq)
        return [
            Said(halt, replace(halt, phase="revoked"), *reports.revoked(halt, call, self._now()))
            for halt in filter(None, map(self._halts.get, decide.places(call)))
            if decide.revokes(halt, call, self._policy)
        ]

    # Containment

    async def watch(self) -> None:
        """Judges the halts that stand whenever something was heard, and as time passes."""
        clock = asyncio.get_running_loop().time
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK):
                    await self._wake.wait()
            self._wake.clear()
            began = clock()
            try:
                await self.judge()
            except (Temporary, NatsError, TimeoutError) as error:
                log.warning("containment_not_judged", error=str(error) or repr(error))
                await asyncio.sleep(TICK)
            # Many halts that cannot be proved times many instances must not starve the readers.
            await asyncio.sleep(min(1.0, 4 * (clock() - began)))

    async def judge(self) -> None:
        """Says of each halt without a proof that it is contained, or who has not confirmed in time."""
        if not self._nc.is_connected:
            return
        if self._reconnects != self._nc.stats["reconnects"]:
            await self._catch_up()
        now, said = self._now(), list[Said]()
        strays = self._strays() if self._pending else {}
        standing = [(place, self._halts[place].epoch) for place in self._pending]
        self._seen = {one: min(self._seen.get(one, now), now) for one in standing}
        for (place, _), seen in self._seen.items():
            halt, cleared = self._halts[place], self._pending[place]
            around = Surroundings(now, self._watching_since, self._revisions.get(halt.key, 0), strays)
            # The server timed the write; our clock may be wrong, and only what passes on it can be counted.
            timed = replace(halt, requested_at=min(halt.requested_at, seen))
            verdict = decide.judge(timed, self._instances.processes(halt.agent), around, cleared, self._policy)
            self._pending[place] = dict(verdict.cleared)
            states = decide.states(verdict.reports)
            if phase := decide.report_due(replace(halt, requested_at=seen), verdict, around, self._policy):
                contained_at = now if phase == "contained" else None
                after = replace(halt, phase=phase, contained_at=contained_at, lapsed=decide.lapsed(verdict.reports))
                said.append(Said(halt, replace(after, states=states), *reports.judged(halt, verdict, phase, now)))
            elif halt.phase == "unconfirmed" and states != halt.states:  # for who looks it up; nobody is told
                report, _ = reports.judged(halt, verdict, halt.phase, now)
                said.append(Said(halt, replace(halt, states=states), report, lambda _: []))
        if said:
            await self._say(said)
        await self._outbox.drain()

    def _strays(self) -> dict[str, list[str]]:
        """Runs in flight of agents that send no presence."""
        return {
            agent: sorted(self._runs.in_flight(agent))
            for agent in self._runs.agents()
            if not self._instances.has(agent)
        }

    async def _say(self, said: Sequence[Said]) -> None:
        def save(conn: Connection) -> list[Halt]:
            moved = []
            for halt, after, judged, tell in said:
                report = store.completed(conn, halt, judged)
                if store.save_report(conn, halt, after, report):
                    moved.append(after)
                    for message in tell(report):
                        self._outbox.add(conn, message)
            return moved

        moved = await self._database.write(save)
        faults.reach("kill_switch.report_saved")
        for after in moved:
            standing = self._halts.get((after.key, after.target))
            if standing and (standing.epoch, standing.requested_at) == (after.epoch, after.requested_at):
                self._stand(after)

    # The passing of time

    async def expire(self) -> None:
        """Lifts the halts whose time is over. The write that does it comes back as any other."""
        now = self._now()
        for halt in list(self._halts.values()):
            if halt.record.expires_at and halt.record.expires_at <= now:
                await self._board.expire(halt.key, halt.target, halt.record, by=subjects.KILL_SWITCH)

    async def save_known(self) -> None:
        """Saves what must survive of instances and runs."""
        now, policy = self._now(), self._policy
        gone = self._instances.forget(now - policy.forget_after)
        changed = self._instances.unsaved()
        self._runs.forget(now - policy.idle_after)
        strays = [
            (agent, run_id, self._runs.in_flight(agent)[run_id])
            for agent, runs in self._strays().items()
            for run_id in runs
        ]
        over = [who for who, run in self._map_runs.items() if run.finished_at is None and self._is_over(run, now)]
        if not (gone or changed or strays or self._had_strays or over):
            return

        def save(conn: Connection) -> None:
            store.drop_instances(conn, gone)
            store.save_instances(conn, changed)
            store.save_strays(conn, strays)
            store.finish_map_runs(conn, over, now)

        await self._database.write(save)
        self._instances.saved(changed)
        self._had_strays = bool(strays)
        for who in over:
            if who in self._map_runs:
                self._map_runs[who] = self._map_runs[who]._replace(finished_at=now)

    def _is_over(self, run: store.MapRun, now: datetime) -> bool:
        """Finished by its events; or, where those came before this process, a day old and in nobody's mouth."""
        if self._runs.finished(run.agent, run.run_id):
            return True
        if now - run.written_at < self._policy.forget_after or run.run_id in self._runs.in_flight(run.agent):
            return False
        return not any(run.run_id in (*one.running, *one.draining) for one in self._instances.of(run.agent))

    async def prune(self) -> None:
        """Takes finished runs out of the maps, so that these stay small."""
        now, old = self._now(), dict[str, set[str]]()
        for run in self._map_runs.values():
            if run.finished_at and now - run.written_at > self._policy.prune_after:
                old.setdefault(run.agent, set()).add(run.run_id)
        for agent, finished in old.items():
            await self._board.prune_runs(agent, finished)

        def forget(conn: Connection) -> None:
            store.forget_halts(conn, now - self._policy.keep)
            self._outbox.forget(conn, int((now - effects.KEEP).timestamp()))

        await self._database.write(forget)
