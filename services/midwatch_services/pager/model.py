"""What pager.yaml may hold, and no other."""

import re
from datetime import time, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from midwatch.contracts.subjects import FLEET, is_agent_name
from midwatch_services.cards import values

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_RULE = re.compile(r"[a-z][a-z0-9_]{0,62}")
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_KINDS = ("apprise", "webhook", "alertmanager")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("is no name: use lower-case letters, digits, `-` and `_`")
    return value


def _address(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > 2000:
        raise ValueError("must be an address: text of one line")
    return value.strip()


def _rule(value: Any) -> str:
    if not isinstance(value, str) or not _RULE.fullmatch(value):
        raise ValueError("is no rule of an alert, such as `budget_run`")
    return value


def _agent(value: Any) -> str:
    if not isinstance(value, str) or not (value == FLEET or is_agent_name(value)):
        raise ValueError(f"is no agent's name; `{FLEET}` stands for alerts of no single agent")
    return value


def _one_agent(value: Any) -> str:
    if not isinstance(value, str) or not is_agent_name(value):
        raise ValueError("is no agent's name; of the whole shop read those under `to`")
    return value


def _length(value: Any) -> timedelta:
    length = timedelta(seconds=values.seconds(value))
    if not length:
        raise ValueError("must be longer than nothing")
    return length


def _hours(value: Any) -> tuple[time, time]:
    found = _HOURS.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise ValueError("must be two times of day, such as 22:00-07:00")
    begins, ends = time(int(found[1]), int(found[2])), time(int(found[3]), int(found[4]))
    if begins == ends:
        raise ValueError("begins and ends at the same time: that is always or never")
    return begins, ends


def _zone(value: Any) -> str:
    try:
        return str(ZoneInfo(str(value)).key)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("is no time zone, such as Europe/Berlin or UTC") from None


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Name = Annotated[str, BeforeValidator(_name)]
Names = Annotated[list[Name], BeforeValidator(_several), Field(min_length=1)]
Length = Annotated[timedelta, BeforeValidator(_length)]
Address = Annotated[str, BeforeValidator(_address)]


class Section(BaseModel):
    """A part of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Channel(Section):
    """One way to reach people: exactly one of the three."""

    apprise: Address | None = None
    webhook: Address | None = None
    alertmanager: Address | None = None
    secret: Address | None = None

    @model_validator(mode="after")
    def _one(self) -> "Channel":
        if len([kind for kind in _KINDS if getattr(self, kind)]) != 1:
            raise ValueError("must be exactly one of `apprise`, `webhook` and `alertmanager`")
        if self.webhook and not self.secret:
            raise ValueError("needs a `secret` beside `webhook`, by which its receiver knows what is ours")
        if self.secret and not self.webhook:
            raise ValueError("has a `secret`, which only a `webhook` uses: leave it out")
        return self


class Step(Section):
    tell: Names
    within: Length = timedelta(minutes=15)


class Quiet(Section):
    hours: Annotated[Any, BeforeValidator(_hours)]
    zone: Annotated[str, BeforeValidator(_zone)]
    days: Annotated[list[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]], BeforeValidator(_several)] = []


class Route(Section):
    severity: Literal["page", "ticket"] | None = None
    agents: Annotated[list[Annotated[str, BeforeValidator(_agent)]], BeforeValidator(_several)] = []
    rules: Annotated[list[Annotated[str, BeforeValidator(_rule)]], BeforeValidator(_several)] = []
    steps: Annotated[list[Step], Field(min_length=1)]
    quiet_hours: Quiet | None = None


class Groups(Section):
    interval: Length = timedelta(minutes=5)
    calm: Length = timedelta(minutes=1)
    acknowledged_for: Length = timedelta(hours=4)


class Repeat(Section):
    longest: Length = timedelta(hours=4)


def _patience(value: timedelta) -> timedelta:
    if value > timedelta(minutes=2):
        raise ValueError("must be at most 2m: a channel that takes longer is one that hangs")
    return value


class Delivery(Section):
    within: Annotated[Length, AfterValidator(_patience)] = timedelta(seconds=15)
    give_up_after: Length = timedelta(hours=6)


class Watchdog(Section):
    behind: Length = timedelta(seconds=30)


class Readers(Section):
    """Contacts: `to` read of the whole shop, `agents` of one agent each."""

    to: Annotated[list[Name], BeforeValidator(_several)] = []
    agents: dict[Annotated[str, BeforeValidator(_one_agent)], Names] = {}


class PagerFile(Section):
    """Who is told of what, and how."""

    channels: Annotated[dict[Name, Channel], Field(min_length=1)]
    contacts: Annotated[dict[Name, Names], Field(min_length=1)]
    routes: Annotated[dict[Name, Route], Field(min_length=1)]
    default: Name
    quiet_hours: Quiet | None = None
    groups: Groups = Groups()
    repeat: Repeat = Repeat()
    delivery: Delivery = Delivery()
    watchdog: Watchdog = Watchdog()
    digest: Readers = Readers()
    corrections: Readers = Readers()
