"""Drills: those that were, from the bus; when the next is due, by each card; and one that is run here."""

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext

from midwatch.contracts import codec, control, subjects
from midwatch.contracts.control import Card, SwitchRecord
from midwatch.contracts.governance import SwitchDrilled
from midwatch.errors import MidwatchError
from midwatch.runtime.settings import Settings
from midwatch.runtime.stream_read import read_range
from midwatch.runtime.switchboard import Switchboard
from midwatch_services.kill_switch.drills import drill, drill_check, drill_plan

from .switch import MISSED

log = structlog.get_logger("midwatch.console")

LOOKBACK = timedelta(days=400)
SAME_FOR = 5.0  # seconds
BEGAN = "drill.began"  # as it is recorded
_CLOCKS = timedelta(hours=1)  # by which the clocks of this machine and of the bus may differ
LIMITS, SHAPE = drill_plan.LIMITS, drill_plan.SHAPE


async def past(nc: Client, now: datetime) -> list[SwitchDrilled] | None:
    """Every drill that was reported, the newest first, each as it was last reported; None where the bus does not
    answer."""
    if not nc.is_connected:
        return None
    found: dict[str, SwitchDrilled] = {}
    try:
        async with asyncio.timeout(3):
            subject = subjects.switch("*", "drilled")
            async for batch in read_range(nc, subjects.GOVERNANCE, subject, now - LOOKBACK):
                for stored in batch:
                    try:
                        result: SwitchDrilled = codec.decode(stored.subject, stored.body).data
                    except codec.Refused:
                        continue
                    if drill_plan.is_newer(found.get(result.drill_id), result):
                        found[result.drill_id] = result
    except MISSED:
        return None
    return sorted(found.values(), key=lambda one: one.started_at, reverse=True)


@dataclass(frozen=True, slots=True)
class Due:
    """When an agent is drilled next. `overdue` is a sentence, empty where all is well; `at` is None for never."""

    agent: str
    at: datetime | None
    last: SwitchDrilled | None
    overdue: str


def due(card: Card, results: list[SwitchDrilled], now: datetime) -> Due:
    """By its card, and by the drills that were; `results` the newest first."""
    last = next((one for one in results if one.agent == card.agent), None)
    since = drill_plan.Last(last.started_at, last.passed) if last else None
    begun = card.applied_at or now
    at = drill_plan.due_at(card, since, begun)
    at = None if at is None else drill_plan.next_window(card.switch.drill_hours, max(at, now))
    return Due(card.agent, at, last, drill_plan.overdue(card, since, begun, now) or "")


@dataclass
class Ready:
    """What a drill would meet, or why it may not begin."""

    why_not: str = ""
    instances: int = 0
    in_flight: int = 0


async def ready(nc: Client, js: JetStreamContext, agent: str) -> Ready:
    """The pre-flight, which writes nothing."""
    try:
        async with asyncio.timeout(5):
            found = await drill_check.check(nc, js, agent, without_instances=False)
    except MISSED as error:
        return Ready(why_not=str(error) or "the bus does not answer")
    return Ready("", len(found.instances), found.in_flight)


def waited(result: SwitchDrilled) -> list[str]:
    """The processes for which a drill waited in vain."""
    return [one.instance for one, _ in drill_plan.waited(result)]


def sign_off_command(agent: str, drill_id: str) -> str:
    """What signs a drill off, to be copied into a shell; empty for an id that no drill has."""
    return f"midwatch drill {agent} --sign-off {drill_id}" if drill_plan.is_id(drill_id) else ""


@dataclass(frozen=True, slots=True)
class Lost:
    """What is known of a drill that was neither reported nor runs in this process. `state`: `silent` where the bus does
    not say, `unknown` where nobody recorded it, else `quiet`, `halted`, `lifted` or, by another halt, `replaced`, by
    what became of its halt. `holder`: whose halt of the agent stands. `fleet`: who halted all agents, empty where that
    is not known, None where they are not."""

    state: str
    agent: str = ""
    by: str = ""
    at: datetime | None = None
    until: datetime | None = None
    holder: str = ""
    fleet: str | None = None


async def lost(nc: Client, drill_id: str) -> Lost:
    """By the record of what people did, and by the switch."""
    if not nc.is_connected:
        return Lost("silent")
    try:
        async with asyncio.timeout(3):
            begun = await _begun(nc, drill_id)
            if begun is None:
                return Lost("unknown")
            agent, by, at = begun
            signature = drill_plan.signature(drill_id, by)
            halt, last = await _halt(nc, agent, signature, at)
            fleet = await _fleet(nc)
    except MISSED:
        return Lost("silent")
    other = last.by if last is not None and last.state == "halted" and last.by != signature else ""
    if halt is None:
        return Lost("quiet", agent, by, at, holder=other, fleet=fleet)
    if other:
        return Lost("replaced", agent, by, at, holder=other, fleet=fleet)
    return Lost("halted" if last is halt else "lifted", agent, by, at, halt.expires_at, fleet=fleet)


async def _begun(nc: Client, drill_id: str) -> tuple[str, str, datetime] | None:
    """Of which agent, by whom and when it was begun on a page."""
    try:
        day = datetime.strptime(drill_id[6:14] if drill_plan.is_id(drill_id) else "", "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:
        return None  # no drill has such a name
    async with aclosing(read_range(nc, subjects.GOVERNANCE, subjects.audit("*", "acted"), day - _CLOCKS)) as batches:
        async for batch in batches:
            for stored in batch:
                if drill_id.encode() not in stored.body:
                    continue
                try:
                    data = codec.decode(stored.subject, stored.body).data
                except codec.Refused:
                    continue
                if data.action == BEGAN and data.detail.get("drill") == drill_id:
                    return data.target, data.by, datetime.fromisoformat(stored.stored_at)
    return None


async def _halt(
    nc: Client, agent: str, signature: str, since: datetime
) -> tuple[SwitchRecord | None, SwitchRecord | None]:
    """The halt that bears this signature, if there was one, and what stands now."""
    subject = subjects.key_subject(subjects.SWITCH, subjects.agent_key(agent))
    found, last = None, None
    async with aclosing(read_range(nc, subjects.key_stream(subjects.SWITCH), subject, since)) as batches:
        async for batch in batches:
            for stored in batch:
                last = control.decode_record(stored.body)
                found = last if last and (last.state, last.by) == ("halted", signature) else found
    return found, last


async def _fleet(nc: Client) -> str | None:
    """Who halted all agents; None where they may run."""
    record = (await Switchboard(nc.jetstream()).read(subjects.FLEET_KEY)).record()
    return None if record is not None and record.state == "running" else record.by if record else ""


@dataclass
class Course:
    """A drill that was begun here. `lines`: how far it is, in words; `halted`: whether it came to its halt; `form`: by
    which it was begun."""

    drill_id: str
    agent: str
    by: str
    lines: list[str] = field(default_factory=list)
    result: SwitchDrilled | None = None
    failed: str = ""
    halted: bool = False
    form: str = ""
    over_at: float = 0.0

    @property
    def is_same(self) -> bool:
        """Whether a press of the form that began it is that same press again, not another drill."""
        return not self.over or time.monotonic() < self.over_at + SAME_FOR

    @property
    def over(self) -> bool:
        return self.result is not None or bool(self.failed)


def new(agent: str, by: str, form: str) -> Course:
    """A drill that is to begin; its name is recorded before it does."""
    return Course(drill.new_id(datetime.now(UTC)), agent, by, form=form)


def begin(settings: Settings, course: Course, done: Callable[[], None]) -> "asyncio.Task[None]":
    """Begins it; the task ends with it, and restores first where it is cancelled."""
    return asyncio.create_task(_run(settings, course, done), name=course.drill_id)


async def _run(settings: Settings, course: Course, done: Callable[[], None]) -> None:
    one: drill.Drill | None = None
    try:
        async with drill.lasting_connection(settings.url) as nc:
            js = nc.jetstream(timeout=3)
            found = await drill_check.check(nc, js, course.agent, without_instances=False)
            order = drill.Order(found, course.by, settings.drill_url, course.drill_id)
            one = drill.Drill(nc, js, order, course.lines.append)
            await one.perform()
    except (*MISSED, MidwatchError) as error:
        course.failed = str(error) or type(error).__name__
    except Exception as error:
        log.exception("drill_failed", drill=course.drill_id, agent=course.agent)
        course.failed = f"{type(error).__name__}, which nobody foresaw: the log of the console says more"
    finally:
        if one is not None:  # what it found stands, though it could not be told on the bus
            course.result, course.halted = one.result, one.halted
        course.over_at = time.monotonic()
        course.failed = course.failed or ("" if course.result else "the console ended")
        done()
