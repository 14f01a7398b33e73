"""What drift does once a day: reads what has ended, judges each agent, tells what changed."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import structlog
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError, ProgrammingError

from midwatch.contracts import subjects
from midwatch.contracts.runs import Mode
from midwatch.errors import Temporary
from midwatch.runtime import faults
from midwatch.runtime.database import Database, NoDatabase
from midwatch.runtime.outbox import Outbox

from . import alerts, messages, reading, store, windows
from .alerts import Open
from .decide import Comparison, Verdict, judge
from .facts import Facts
from .policy import ALERTING, POLICY, Policy
from .windows import Chosen, Ended

BEHIND = 100  # events that the logger may have left to read when a day is judged
_BATCH = 50  # runs that are read at a time
log = structlog.get_logger("midwatch.drift")

Key = tuple[str, Mode]  # agent and mode


class Judge:
    """Judges each day once, in order, as soon as it is over and the log has it."""

    def __init__(
        self, database: Database, js: JetStreamContext, log_url: str, now: Callable[[], datetime],
        policy: Policy = POLICY,
    ) -> None:  # fmt: skip
        """`log_url`: where the logger's database is, which is only read."""
        self._database, self._js, self._log_url, self._now, self._policy = database, js, log_url, now, policy
        self.outbox = Outbox(database, store.PREFIX, js)
        self._last: str | None = None  # day that is judged, as far as memory knows
        self._said = ""  # why nothing is judged

    async def load(self) -> None:
        """Says what an earlier process decided."""
        await self.outbox.drain()

    async def look(self) -> None:
        """Judges the days that are over and not judged yet. Most looks find none."""
        if due(self._last, self._now(), self._policy):
            self._last = await self._database.read(store.last_day)
            days = due(self._last, self._now(), self._policy)
            if days and await self._log_is_complete() and await self._read_log(days[0]):
                for day in days:
                    await self._judge_day(day)
        await self.outbox.drain()

    async def prune(self) -> None:
        """Forgets the facts of runs that no day will be held against."""
        before = (self._now() - self._policy.keep).date().isoformat()
        await self._database.write(lambda conn: store.prune(conn, before))

    async def _log_is_complete(self) -> bool:
        """Whether the logger has read what the stream holds: a day of which half is missing would differ."""
        try:
            info = await self._js.consumer_info(subjects.RUNS, subjects.LOGGER)
        except (NatsError, TimeoutError) as error:
            raise Temporary(f"the server does not say how far the logger is: {error or 'timeout'}") from error
        return self._waits("the logger has not read the stream yet" if (info.num_pending or 0) > BEHIND else "")

    def _waits(self, why: str) -> bool:
        """Says once why no day is judged; whether one can be."""
        if why and why != self._said:
            log.warning("drift_waits", why=why)
        self._said = why
        return not why

    async def _read_log(self, day: str) -> bool:
        """Brings the facts up to date for that day and later ones; whether there is a log."""
        try:
            run_log = Database(self._log_url, name=subjects.LOGGER, must_exist=True)
        except NoDatabase as error:
            return self._waits(str(error))
        try:
            await self._refresh(run_log, windows.first_day(day, self._policy))
        except (OperationalError, ProgrammingError):
            return self._waits(f"the logger has made no tables in {run_log.where} yet")
        finally:
            await asyncio.to_thread(run_log.close)
        return True

    async def _refresh(self, run_log: Database, since: str) -> None:
        """Reads the runs that are not known, or of which more has come; forgets those that the log no longer has."""
        known = {run.key: run for run in await self._database.read(lambda conn: store.ended(conn, since))}
        found = {run.key: run for run in await run_log.read(lambda conn: reading.ended(conn, since, self._policy))}
        gone = [key for key in known if key not in found]
        if gone:
            await self._database.write(lambda conn: store.forget(conn, gone))
        fresh = [run for key, run in found.items() if known.get(key) != run]
        for start in range(0, len(fresh), _BATCH):
            await self._take(run_log, fresh[start : start + _BATCH])

    async def _take(self, run_log: Database, runs: Sequence[Ended]) -> None:
        # The log is read within the transaction: an erasure comes before it, when the log is blank, or after it.
        def work(conn: Connection) -> None:
            store.save_facts(conn, run_log.read_now(lambda log_conn: reading.read(log_conn, runs)))

        await self._database.write(work)
        faults.reach("drift.read")

    async def _judge_day(self, day: str) -> None:
        since = windows.first_day(day, self._policy)
        runs = await self._database.read(lambda conn: store.ended(conn, since))
        standing = await self._database.read(store.standing)
        for agent, mode in agents(runs, standing, day, self._policy):
            some = [run for run in runs if (run.agent, run.mode) == (agent, mode)]
            try:
                await self._judge_agent(agent, mode, day, windows.choose(some, day, self._policy))
            except Temporary:
                raise  # the day is tried again; who is judged already stays so
            except Exception:  # what one agent wrote must not keep the others from being judged
                log.exception("agent_not_judged", agent=agent, mode=mode, day=day)
        now = self._now()
        await self._database.write(lambda conn: store.mark_judged(conn, day, now))
        self._last = day
        faults.reach("drift.day_judged")

    async def _judge_agent(self, agent: str, mode: Mode, day: str, chosen: Sequence[Chosen]) -> None:
        def read(conn: Connection) -> list[Verdict]:
            ids = {run_id for one in chosen for run_id in (*one.recent, *one.baseline)}
            return judge(compared(chosen, store.facts(conn, agent, sorted(ids))), self._policy)

        verdicts = await self._database.read(read)
        now = self._now()

        def work(conn: Connection) -> None:
            if not store.save_verdicts(conn, agent, mode, day, verdicts) or mode not in ALERTING:
                return
            standing = store.standing(conn).get((agent, mode), {})
            after, decisions = alerts.follow(agent, mode, day, verdicts, standing)
            store.save_alerts(conn, agent, mode, after)
            for decision in decisions:
                self.outbox.add(conn, messages.outgoing(decision, now))

        await self._database.write(work)
        faults.reach("drift.saved")
        await self.outbox.drain()
        faults.reach("drift.published")


def due(last: str | None, now: datetime, policy: Policy = POLICY) -> list[str]:
    """The days that are to be judged, the oldest first: each once it has been over for some hours. After a long outage
    only the newest; at first only the day before."""
    newest = (now.astimezone(UTC) - timedelta(days=1, hours=policy.hour)).date().isoformat()
    if last is not None and last >= newest:
        return []
    days = [windows.before(newest, back) for back in range(policy.catch_up - 1, -1, -1)]
    return [day for day in days if day > last] if last is not None else [newest]


def agents(
    runs: Sequence[Ended], standing: Mapping[Key, Mapping[str, Open]], day: str, policy: Policy = POLICY
) -> list[Key]:
    """Whom there is something to say of: who ran lately, or has an alert that stands."""
    lately = windows.before(day, policy.recent_days - 1)
    ran = {(run.agent, run.mode) for run in runs if lately <= run.day <= day}
    return sorted(ran | set(standing))


def compared(chosen: Sequence[Chosen], facts: Mapping[str, Facts]) -> list[Comparison]:
    """The comparisons with their runs."""
    return [
        Comparison(
            one.against, tuple(facts[run_id] for run_id in one.recent if run_id in facts),
            tuple(facts[run_id] for run_id in one.baseline if run_id in facts), one.label,
        )
        for one in chosen
    ]  # fmt: skip
