"""Where the facts of a day are read: the run log, and the open cases and reviews of the services that keep them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import TracebackType
from typing import Any, TypeVar, cast

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from midwatch.contracts import subjects
from midwatch.contracts.runs import CostBasis, Mode
from midwatch.errors import MidwatchError
from midwatch.runtime.database import Database
from midwatch.runtime.settings import Settings
from midwatch_services.drift import store as drift
from midwatch_services.kill_switch.cases import case_store
from midwatch_services.logger import daily
from midwatch_services.logger.daily import Stretch
from midwatch_services.logger.decide import text_of
from midwatch_services.reviewer_sampler import store as reviews

from . import decide, reading
from .decide import Digest
from .facts import Alert, Case, Cases, Change, Facts, Past, Reviews, Run, Totals
from .policy import SAMPLES, STILL, WEEK, Policy

T = TypeVar("T")


class NoLog(MidwatchError):
    """There is no run log in {where} yet: start the logger with `midwatch run logger`."""


class Sources:
    """The databases that a digest is read from, open as long as it takes. Everything here blocks."""

    def __init__(self, settings: Settings, policy: Policy) -> None:
        """Raises NoDatabase where there is no run log."""
        self._settings, self._policy = settings, policy
        url = settings.database_for(subjects.LOGGER)
        self._log = Database(url, name=subjects.LOGGER, must_exist=True)
        self._others: list[Database] = []

    def __enter__(self) -> "Sources":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for database in (self._log, *self._others):
            database.close()

    def agents(self, day: date, mode: str = "live") -> list[str]:
        """The agents with runs on a day. Raises Temporary, NoLog."""
        return self._read(lambda conn: daily.read_agents(conn, self._stretch(day, mode, None)))

    def is_used(self) -> bool:
        """Whether there ever was a run."""
        return self._read(daily.has_runs)

    def digest(
        self, day: date, agent: str | None, now: datetime, *, mode: str = "live", budget: Decimal | None = None,
        behind: bool = False, words: int | None = None,
    ) -> Digest:  # fmt: skip
        """The digest of a day, of one agent or of the shop; `words`: the most that its card lets it say. Raises
        Temporary, NoLog."""
        policy = self._policy if words is None else replace(self._policy, words=min(words, self._policy.words))
        stretch = self._stretch(day, mode, agent)
        facts = self._read(lambda conn: self._facts(conn, day, stretch, now))
        facts = replace(
            facts, cases=self._cases(agent, mode), reviews=self._reviews(agent, mode), budget_usd=budget,
            changes=self._changes(day, agent, mode), is_behind=behind,
        )  # fmt: skip
        tools = self._read(lambda conn: daily.read_tools(conn, [run.key for run in reading.sample(facts.runs)]))
        picks = reading.choose(facts.runs, facts.alerts, tools, self._policy.reading)
        asked = self._read(lambda conn: daily.read_inputs(conn, reading.keys(picks)))
        facts = replace(facts, asked={key: said(value) for key, value in asked.items()})
        return decide.write(facts, picks, policy)

    def _stretch(self, day: date, mode: str, agent: str | None) -> Stretch:
        begin, end = decide.bounds(day, self._policy.zone)
        return Stretch(mode, text_of(begin), text_of(end), agent)

    def _facts(self, conn: Connection, day: date, stretch: Stretch, now: datetime) -> Facts:
        mode, agent = stretch.mode, stretch.agent
        week = [self._stretch(day - timedelta(days=back), mode, agent) for back in range(WEEK, 0, -1)]
        before = Stretch(mode, week[0].start, week[-1].end, agent)
        begin = text_of(decide.bounds(day, self._policy.zone)[1] - STILL)
        return Facts(
            agent=agent, day=day, zone=self._policy.zone, now=now, mode=mode,
            runs=tuple(_run(row, mode) for row in daily.read_runs(conn, stretch)),
            past=Past(tuple(_totals(daily.count_runs(conn, one)) for one in week), daily.median_seconds(conn, before)),
            # What is replayed raises its alerts on the day of the replay.
            alerts=tuple(map(_alert, daily.read_alerts(conn, stretch, by_run=mode == "replay"))),
            open_alerts=tuple(map(_alert, daily.read_open_alerts(conn, text_of(now), mode, agent))),
            unended=tuple(
                _run(row, mode) for row in daily.read_runs(conn, Stretch(mode, begin, stretch.end, agent), unended=True)
            ),
        )  # fmt: skip

    def _cases(self, agent: str | None, mode: str) -> Cases | None:
        wanted = None if mode == "live" else mode
        found = self._other(subjects.KILL_SWITCH, lambda conn: _waiting(conn, agent, wanted, self._policy.cases))
        return None if found is None else replace(found, first=self.told(found.first))

    def told(self, cases: tuple[Case, ...]) -> tuple[Case, ...]:
        """The cases, without the words of those that kill-switch may be about to erase: the log is erased first."""
        erased = self._read(lambda conn: daily.read_erased(conn, [(case.agent, case.run_id) for case in cases]))
        return tuple(replace(case, asked="") if (case.agent, case.run_id) in erased else case for case in cases)

    def _reviews(self, agent: str | None, mode: str) -> Reviews | None:
        wanted = None if mode == "live" else mode
        return self._other(subjects.REVIEWER_SAMPLER, lambda conn: _to_review(conn, agent, wanted))

    def _changes(self, day: date, agent: str | None, mode: str) -> tuple[Change, ...]:
        """What the service `drift` found on that day, by UTC."""
        found = self._other(
            subjects.DRIFT, lambda conn: drift.read_findings(conn, agent, day.isoformat(), cast("Mode", mode))
        )
        return tuple(_change(one, named=agent is None) for one in found or ())

    def _read(self, work: Callable[[Connection], T]) -> T:
        try:
            return self._log.read_now(work)
        except DBAPIError:
            raise NoLog(where=self._log.where) from None

    def _other(self, service: str, work: Callable[[Connection], T]) -> T | None:
        """What another service's tables say; None where they are not there."""
        try:
            database = Database(self._settings.database_for(service), name=service, must_exist=True)
            self._others.append(database)
            return database.read_now(work)
        except (DBAPIError, MidwatchError):
            return None


def said(value: Any) -> str:
    """What a customer began with, as text: of a conversation, the first of their messages."""
    if isinstance(value, list):
        mine = [one for one in value if isinstance(one, dict) and one.get("role", "user") in ("user", "customer")]
        return said((mine or [{}])[0].get("content"))
    return value if isinstance(value, str) else ""


def _run(row: daily.DayRun, mode: str) -> Run:
    # A run that is replayed without its times, as fast as it goes, took no time of its own.
    seconds = row.seconds if mode != "replay" or (row.seconds or 0) >= 1 else None
    return Run(
        agent=row.agent, run_id=row.run_id, first_at=row.first_at, resolution=row.resolution, error=row.error,
        seconds=seconds, cost_usd=None if row.cost_usd is None else Decimal(row.cost_usd),
        cost_basis=cast("CostBasis | None", row.cost_basis), unpriced_calls=row.unpriced_calls,
        model_calls=row.model_calls, tool_calls=row.tool_calls, tool_errors=row.tool_errors, messages=row.messages,
        handed_off_to=row.handed_off_to, halted_by=row.halted_by,
    )  # fmt: skip


def _change(finding: dict[str, Any], *, named: bool) -> Change:
    # The names of tools stand in it as agents write them.
    sentence = finding["sentence"].replace("_", " ")
    runs = tuple((finding["agent"], run_id) for run_id in finding["runs"])
    return Change(f"{finding['agent']}: {sentence}" if named else sentence, runs)


def _totals(rows: Sequence[daily.Count]) -> Totals:
    cost = sum((Decimal(str(row.cost_usd or 0)) for row in rows), Decimal(0))
    ends = {row.resolution or "": row.runs for row in rows}
    return Totals(sum(row.runs for row in rows), ends, sum(row.priced for row in rows), cost)


def _alert(row: dict[str, Any]) -> Alert:
    return Alert(
        alert_id=row["alert_id"], agent=row["agent"], rule=row["rule"], severity=row["severity"],
        action=row["action_taken"] or "none", raised_at=datetime.fromisoformat(row["raised_at"]), run_id=row["run_id"],
        acknowledged_by=row["acknowledged_by"], is_over=row["resolved_at"] is not None,
    )  # fmt: skip


def _waiting(conn: Connection, agent: str | None, mode: str | None, told: int) -> Cases:
    """Counted by the database, however many there are; no more rows than a digest tells of are read."""
    holders = case_store.holders(conn, agent=agent, mode=mode)
    waiting, held = holders.pop("", 0), sum(holders.values())

    def first(state: str | Sequence[str], limit: int) -> tuple[Case, ...]:
        return tuple(map(_case, case_store.list_cases(conn, agent=agent, state=state, mode=mode, limit=limit)))

    some, others = first("open", min(waiting, max(told, SAMPLES))), first(case_store.HELD, min(held, SAMPLES))
    return Cases(waiting, some, held, others, tuple(holders))


def _to_review(conn: Connection, agent: str | None, mode: str | None) -> Reviews:
    waiting = sum(count for name, count in reviews.backlog(conn, mode).items() if agent in (None, name))
    newest = reviews.queue(conn, agent=agent, mode=mode, waiting=True, limit=min(waiting, SAMPLES))
    return Reviews(waiting, tuple((row["agent"], row["run_id"]) for row in newest))


def _case(row: dict[str, Any]) -> Case:
    opened_at = datetime.fromisoformat(row["opened_at"])
    if opened_at.tzinfo is None:
        opened_at = opened_at.replace(tzinfo=UTC)
    return Case(row["case_id"], row["agent"], row["run_id"], opened_at, row["asked"])
