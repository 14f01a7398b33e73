"""Sees erasures through: from what is asked to the proof. Each step is saved before the next, and done twice does no
harm; what cannot be done now is tried again until it is."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import structlog
from nats.errors import Error as NatsError
from sqlalchemy.engine import Connection

from midwatch.contracts import codec, subjects
from midwatch.contracts.envelope import Envelope
from midwatch.contracts.erasure import ErasedRun, ErasureCompleted, ErasureErased, ErasureRequested, ErasureResolved
from midwatch.errors import MidwatchError, Temporary
from midwatch.runtime import faults
from midwatch.runtime.delivery import Received
from midwatch.runtime.erasure import is_past, publish
from midwatch.runtime.outbox import Outgoing
from midwatch.runtime.service import Context
from midwatch.runtime.topology import ERASERS

from ..decide import text_of
from ..keeping.export_store import exports_with
from ..keeping.hold_store import held
from . import exports, log, proof, store
from .match import Scope, chunks
from .store import Part, Work
from .streams import Sweeper, Swept

LOOK = 1.0  # seconds between two looks at what is under way
_PART = 256 * 1024  # bytes of the runs that one message names
_AT_ONCE = 100  # runs that are blanked in one transaction
SOURCE = f"/services/{subjects.LOGGER}"
SPOOLS = (
    "what an agent's process has not sent yet lies in the spool on its disk until it reaches NATS again, and is erased "
    "when it comes: `midwatch switch` shows what each instance has there"
)
CASES = (
    "case files of the eval set are yours: where some were made of these runs, `midwatch erase cases` removes them and "
    "blanks the results of their replays, in each place where the set lies; what version control, and reports that "
    "were written elsewhere, keep of them is yours to remove"
)

logger = structlog.get_logger("midwatch.logger")


class Erasures:
    """Phases: asked, blanking, telling, closing, scrubbing, done. Any number of logger processes may work on one."""

    def __init__(self, context: Context) -> None:
        self._database, self._js, self._now = context.database, context.js, context.now
        self._backup_days = context.settings.backup_days
        self._sweeper = Sweeper(context.nc, context.js)
        self._one = asyncio.Lock()
        self._said: dict[str, str] = {}  # by erasure: why it waits

    async def on_spoken(self, batch: Sequence[Received[Envelope[ErasureRequested | ErasureErased]]]) -> None:
        """What is asked, and what services have confirmed."""
        now = text_of(self._now())

        def work(conn: Connection) -> None:
            for received in batch:
                data = received.event.data
                if isinstance(data, ErasureRequested):
                    store.add(conn, data, now)
                else:
                    store.confirm(conn, data.erasure_id, data.part, data.service, data.counts)

        await self._database.write(work)
        await self.look()

    async def look(self) -> None:
        """Takes every erasure as far as it goes now."""
        async with self._one:
            await self._look()

    async def _look(self) -> None:
        if await self._database.read(store.has_late):
            await self._database.write(self._reopen)
        for work in reversed(await self._database.read(lambda conn: store.read(conn, open_only=True))):
            try:
                await self._go_on(work)
            except (Temporary, NatsError, TimeoutError) as error:
                self._say(work, str(error) or type(error).__name__)
            except Exception:  # the next one must not wait for it
                logger.exception("erasure_failed", erasure=work.id)

    def _say(self, work: Work, why: str) -> None:
        """Logs once why an erasure waits."""
        if self._said.get(work.id) != why:
            self._said[work.id] = why
            logger.warning("erasure_waits", erasure=work.id, why=why)

    def _reopen(self, conn: Connection) -> None:
        """What came of runs that were erased is erased elsewhere as well."""
        for erasure, runs in store.take_late(conn).items():
            for work in store.read(conn, erasure):
                work.count("log", {"late runs": len(runs)})
                store.add_parts(conn, erasure, chunks(runs, _PART), ())
                work.phase = "telling" if work.phase in ("closing", "scrubbing", "done") else work.phase
                store.save(conn, work)

    async def _go_on(self, work: Work) -> None:
        steps = {
            "asked": self._resolve, "blanking": self._blank, "telling": self._tell, "closing": self._close,
            "scrubbing": self._scrub,
        }  # fmt: skip
        while work.phase in steps and await steps[work.phase](work):
            faults.reach(f"erasure.{work.phase}")

    # Each step returns whether the next may be taken.

    async def _resolve(self, work: Work) -> bool:
        """Finds the runs, once the log has all that the stream had when it was asked."""
        if work.upto is None:
            work.upto = await self._sweeper.last(subjects.RUNS)
            await self._save(work)
        if work.asked is None or not await is_past(self._js, subjects.RUNS, subjects.LOGGER, work.upto):
            return False
        asked = work.asked

        def find(conn: Connection) -> None:
            if self._is_behind(conn, work):
                return
            runs = store.find(conn, asked)
            kept = _held(conn, runs, self._now())
            free = [run for run in runs if (run.agent, run.run_id) not in kept]
            store.remember(conn, work.id, free)
            if kept:
                work.places["held"] = {f"{agent}/{run_id} by {hold}": 1 for (agent, run_id), hold in kept.items()}
            work.phase, work.upto = "blanking", 0
            store.save(conn, work)

        await self._database.write(find)
        return True

    async def _blank(self, work: Work) -> bool:
        """Blanks the runs in the log, a hundred in one transaction, so that nobody waits for long."""
        runs = await self._runs(work)
        alerts = set[str]()
        for start in range(0, len(runs), _AT_ONCE):
            some = runs[start : start + _AT_ONCE]

            def blank(conn: Connection, some: Sequence[ErasedRun] = some) -> None:
                done = log.erase(conn, work.id, some, at=text_of(self._now()), by=work.by)
                alerts.update(done.alerts)
                work.count("log", {"events": len(done.leaves)})
                work.places["log"] |= {"runs": len(runs), "alerts": len(alerts)}
                store.save(conn, work)

            await self._database.write(blank)

        def add(conn: Connection) -> None:
            if self._is_behind(conn, work):
                return
            store.add_parts(conn, work.id, chunks(runs, _PART), alerts)
            work.phase = "telling"
            store.save(conn, work)

        await self._database.write(add)
        return True

    async def _tell(self, work: Work) -> bool:
        """Deletes from the streams, and tells the services; goes on once all of them have confirmed it."""
        parts = await self._parts(work)
        new = [part for part in parts if part.upto is None]
        if new:
            scope = await self._scope(work, parts)
            swept = await self._sweep(work, scope)
            for part in new:
                part.alerts, part.upto = sorted({*part.alerts, *scope.alerts}), swept.upto
                await self._publish("resolved", _resolved(part), f"{work.id}-{part.part}-resolved")
                faults.reach("erasure.told")
                await self._database.write(lambda conn, part=part: store.save_part(conn, part))  # type: ignore[misc]
            await self._save(work)
        if missing := proof.waits_for(parts, ERASERS):
            self._say(work, f"not confirmed yet by {', '.join(missing)}")
            return False
        work.phase = "closing"
        await self._save(work)
        return True

    async def _close(self, work: Work) -> bool:
        """Looks once more: what a service said of the runs before it had erased them is erased too."""
        parts = await self._parts(work)
        scope = await self._scope(work, parts)
        swept = await self._sweep(work, scope)
        if not await is_past(self._js, subjects.GOVERNANCE, subjects.LOGGER_GOVERNANCE, swept.governance):
            await self._save(work)
            return False
        runs = await self._runs(work)
        if swept.found and runs:

            def again(conn: Connection) -> None:
                store.add_parts(conn, work.id, chunks(runs, _PART), scope.alerts)
                work.phase = "telling"
                store.save(conn, work)

            await self._database.write(again)
            return True
        left = await self._erase_exports(work, runs)
        await self._sweeper.forget(work.id)
        await self._database.write(lambda conn: self._conclude(conn, work, scope, swept, left))
        return True

    async def _erase_exports(self, work: Work, runs: Sequence[ErasedRun]) -> list[str]:
        """Rewrites the exports that lie where this process can reach them; returns what is left, in sentences."""
        by_agent: dict[str, list[str]] = {}
        for run in runs:
            by_agent.setdefault(run.agent, []).append(run.run_id)

        def find(conn: Connection) -> tuple[exports.Erased, list[dict[str, Any]]]:
            found = [one for agent, some in by_agent.items() for one in exports_with(conn, agent, some)]
            return exports.of_erasure(conn, work.id), list({one["id"]: one for one in found}.values())

        what, found = await self._database.read(find)
        left = []
        for one in found:
            try:
                counts = await asyncio.to_thread(exports.erase_from_export, exports.here(one), what)
                work.count(f"export {one['id']}", counts)
            except (MidwatchError, OSError) as error:
                left.append(
                    f"the export {one['id']} of {one['made_at'][:10]}, {one['path']} on {one['host']} ({error}): "
                    f"`midwatch erase export DIR --id {work.id}` there, and wherever it was copied to"
                )
        return left

    def _conclude(self, conn: Connection, work: Work, scope: Scope, swept: Swept, left: Sequence[str]) -> None:
        if self._is_behind(conn, work):
            return
        now = self._now()
        runs, parts = store.runs_of(conn, work.id), store.parts(conn, work.id)
        alerts = log.erase(conn, work.id, runs, at=text_of(now), by=work.by).alerts
        alerts |= log.erase_alerts(conn, runs, scope.alerts) | set((work.proof or {}).get("alerts", ()))
        leaves = log.leaves_of(conn, runs)
        keys = [(run.agent, run.run_id) for run in runs]
        outstanding = [*_left(work, swept), *left, SPOOLS, CASES]
        work.proof = proof.build(
            work,
            keys,
            leaves,
            sorted(alerts),
            proof.confirmations(parts),
            outstanding,
            at=now,
            backup_days=self._backup_days,
        )
        hashed = proof.digest(work.proof)
        agents = sorted({agent for agent, _ in keys})
        log.note(conn, work.id, (), at=text_of(now), by=work.by, proof=hashed, agents=agents)
        store.close(conn, work.id)
        work.phase, work.asked, work.done_at = "scrubbing", None, text_of(now)
        store.save(conn, work)

    async def _scrub(self, work: Work) -> bool:
        """Has the database's files forget it, and says that it is done."""
        if await self._database.read(log.words_stand):
            return False
        await self._database.scrub(log.TABLES)
        done = work.proof or {}
        hashed = proof.digest(done)
        data = ErasureCompleted(
            erasure_id=work.id, reference=work.reference, salt=work.salt, runs=len(done.get("runs", ())),
            events=len(done.get("events", ())), proof=hashed,
        )  # fmt: skip
        await self._publish("completed", data, f"{work.id}-completed-{hashed[:16]}")
        work.phase = "done"
        self._said.pop(work.id, None)
        await self._save(work)
        logger.info("erased", erasure=work.id, runs=data.runs, events=data.events, proof=hashed)
        return False

    # What the steps share

    def _is_behind(self, conn: Connection, work: Work) -> bool:
        """Whether another process has taken the step meanwhile; `work` is then as that left it."""
        found = store.read(conn, work.id)[0]
        if found.phase == work.phase:
            return False
        vars(work).update(vars(found))
        return True

    async def _sweep(self, work: Work, scope: Scope) -> Swept:
        swept = await self._sweeper.sweep(scope, work.upto or 0, work.governance or 0)
        for stream, count in swept.counts.items():
            work.count(stream, {"messages": count})
        work.upto, work.governance = swept.upto, swept.governance
        if swept.mentions:
            work.places.setdefault("mentions", {}).update({str(seq): 1 for seq in swept.mentions})
        return swept

    async def _scope(self, work: Work, parts: Sequence[Part]) -> Scope:
        names = store.references(work.asked) if work.asked else []
        now = text_of(self._now())
        holds = await self._database.write(lambda conn: log.erase_holds(conn, names, now))
        alerts = {alert for part in parts for alert in part.alerts}
        return Scope(await self._runs(work), alerts, names, holds)

    async def _runs(self, work: Work) -> list[ErasedRun]:
        return await self._database.read(lambda conn: store.runs_of(conn, work.id))

    async def _parts(self, work: Work) -> list[Part]:
        return await self._database.read(lambda conn: store.parts(conn, work.id))

    async def _save(self, work: Work) -> None:
        await self._database.write(lambda conn: store.save(conn, work))

    async def _publish(self, event: str, data: Any, id: str) -> None:
        body = codec.encode(codec.envelope("erasure", event, data, source=SOURCE, id=id, time=self._now()))
        await publish(self._js, Outgoing(id, subjects.erasure(event), body))


def _resolved(part: Part) -> ErasureResolved:
    return ErasureResolved(
        erasure_id=part.erasure, part=part.part, runs=part.runs, alerts=part.alerts, upto=part.upto or 0
    )


def _held(conn: Connection, runs: Sequence[ErasedRun], now: datetime) -> dict[tuple[str, str], str]:
    """The runs that a legal hold keeps, and which does."""
    by_agent: dict[str, list[str]] = {}
    for run in runs:
        by_agent.setdefault(run.agent, []).append(run.run_id)
    return {
        (agent, run_id): str(hold["hold_id"])
        for agent, some in by_agent.items()
        for run_id, hold in held(conn, agent, some, now=now).items()
    }


def _left(work: Work, swept: Swept) -> list[str]:
    """What a person is to see to, in sentences."""
    left = [f"the run {name} is kept, which wins over an erasure" for name in work.places.get("held", ())]
    mentions = ", ".join(sorted(work.places.get("mentions", ()), key=int))
    if mentions:
        left.append(
            f"messages {mentions} of {subjects.GOVERNANCE} name the customer or a ticket in words about "
            f"something else: read them, and delete what is to go: `nats stream rmm {subjects.GOVERNANCE} NUMBER`"
        )
    return left
