"""Drills: those that were, from the bus; when the next is due, by each card; and one that is run here."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext

from midwatch.contracts import codec, subjects
from midwatch.contracts.control import Card
from midwatch.contracts.governance import SwitchDrilled
from midwatch.errors import MidwatchError
from midwatch.runtime.settings import Settings
from midwatch.runtime.stream_read import read_range
from midwatch_services.kill_switch.drills import drill, drill_check, drill_plan

from .switch import MISSED

log = structlog.get_logger("midwatch.console")

LOOKBACK = timedelta(days=400)
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


def sign_off_command(agent: str, drill_id: str) -> str:
    """What signs a drill off, to be copied into a shell; empty for an id that no drill has."""
    return f"midwatch drill {agent} --sign-off {drill_id}" if drill_plan.is_id(drill_id) else ""


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

    @property
    def over(self) -> bool:
        return self.result is not None or bool(self.failed)


def begin(settings: Settings, agent: str, by: str, done: Callable[[], None]) -> tuple[Course, "asyncio.Task[None]"]:
    """Begins a drill; the task ends with it, and restores first where it is cancelled."""
    course = Course(drill.new_id(datetime.now(UTC)), agent, by)
    return course, asyncio.create_task(_run(settings, course, done), name=course.drill_id)


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
        course.failed = course.failed or ("" if course.result else "the console ended")
        done()
