"""Who is told of what, how, and for how long: pager.yaml's word, ready to decide by."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from midwatch.contracts.control import AlertRule
from midwatch.contracts.subjects import FLEET

from .quiet import QuietHours

Kind = Literal["apprise", "webhook", "alertmanager"]
CHANNEL_DEAD, WATCHDOG_BEHIND = "channel_dead", "watchdog_behind"  # rules of the pager's own alerts

LATE = timedelta(seconds=10)  # an alert that waited longer in the stream is told once the stream is read to its end
HOLD = timedelta(seconds=60)  # for which it waits for that at most
OLDEST = timedelta(days=7)  # an alert that waited longer is kept and told to nobody
KEEP = timedelta(days=30)  # what is over stays readable
REFRESH = timedelta(minutes=1)  # between two posts of a firing alert to Alertmanager
FIRING_FOR = timedelta(minutes=5)  # for which Alertmanager believes a post

FIRST_DELAY = timedelta(seconds=1)  # from a failure to the next attempt; doubled each time
LONGEST_DELAY = timedelta(minutes=5)
DIGEST_PATIENCE = timedelta(days=1)  # for which the digest of a day is tried to be sent
DIGEST_OLDEST = timedelta(days=2)  # one that waited longer in the stream is sent to nobody
NOTE_OLDEST = timedelta(days=7)  # the same of a week's note of corrections
DEAD_FAILURES = 3  # in a row
DEAD_AFTER = timedelta(minutes=2)  # from the first of them


@dataclass(frozen=True, slots=True)
class Channel:
    """One way to reach people. `url` and `secret` are never shown; `shown` is scheme and host. `broken`: why it cannot
    be used as it stands in the file."""

    name: str
    kind: Kind
    url: str = field(repr=False)
    secret: str = field(default="", repr=False)
    shown: str = ""
    broken: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """The contacts that are told together, and how long they have to acknowledge."""

    contacts: tuple[str, ...]
    within: timedelta


@dataclass(frozen=True, slots=True)
class Route:
    """An escalation chain, and which alerts it takes by itself; `quiet` hours hold tickets back."""

    name: str
    steps: tuple[Step, ...]
    severities: frozenset[str] = frozenset()
    agents: frozenset[str] = frozenset()
    rules: frozenset[str] = frozenset()
    quiet: QuietHours | None = None

    def takes(self, severity: str, agent: str, rule: str) -> bool:
        """Whether it names what the alert is; one that names nothing takes nothing by itself."""
        if not (self.severities or self.agents or self.rules):
            return False
        named = ((self.severities, severity), (self.agents, agent), (self.rules, rule))
        return all(not wanted or found in wanted for wanted, found in named)


@dataclass(frozen=True, slots=True)
class Policy:
    """All of pager.yaml."""

    channels: Mapping[str, Channel] = field(default_factory=dict)
    contacts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # to names of channels
    routes: tuple[Route, ...] = ()
    default: str = ""
    quiet: QuietHours | None = None
    interval: timedelta = timedelta(minutes=5)  # from one message of a group to the next of what joined it
    calm: timedelta = timedelta(minutes=1)  # without an open alert, until a group is over
    acknowledged_for: timedelta = timedelta(hours=4)  # what joins a group later than that pages anew
    contact_within: timedelta = timedelta(minutes=15)  # of a contact that a card names in place of a route
    repeat_longest: timedelta = timedelta(hours=4)
    send_within: timedelta = timedelta(seconds=15)
    give_up_after: timedelta = timedelta(hours=6)
    watchdog_behind: timedelta = timedelta(seconds=30)
    digests: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of an agent, or the fleet, to contacts
    corrections: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # the same; the fleet's get every agent's

    @property
    def reaches_somebody(self) -> bool:
        """Whether anybody is told of anything."""
        return bool(self.routes)

    def route(self, name: str) -> Route | None:
        """The route of that name, or the chain of one step to the contact of that name."""
        found = next((route for route in self.routes if route.name == name), None)
        if found is None and name in self.contacts:
            return Route(name, (Step((name,), self.contact_within),), quiet=self.quiet)
        return found


NOBODY = Policy()  # without a file


def route_of(policy: Policy, wanted: AlertRule, severity: str, agent: str, rule: str) -> tuple[Route | None, str]:
    """Where an alert goes: what the agent's card names, or else the first route that takes it, or else the default.
    With what is to be said of the card, if it names what the file does not have."""
    name = wanted.page if severity == "page" else wanted.ticket
    said = ""
    if name and agent != FLEET:
        if found := policy.route(name):
            return found, ""
        said = f"the card of {agent} wants {severity} alerts to go to {name!r}, which pager.yaml does not have"
    taken = next((route for route in policy.routes if route.takes(severity, agent, rule)), None)
    return taken or policy.route(policy.default), said


def readers_of(policy: Policy, agent: str) -> tuple[str, ...]:
    """The channels by which an agent's digest is read, each once. Alertmanager takes none."""
    return _pages(policy, policy.digests.get(agent, ()))


def writers_of(policy: Policy, agent: str) -> tuple[str, ...]:
    """The same for those who write an agent's prompts, and read what people corrected."""
    return _pages(policy, (*policy.corrections.get(agent, ()), *policy.corrections.get(FLEET, ())))


def _pages(policy: Policy, contacts: tuple[str, ...]) -> tuple[str, ...]:
    step = Step(contacts, timedelta(0))
    return tuple(name for name in channels_of(policy, step) if policy.channels[name].kind != "alertmanager")


def channels_of(policy: Policy, step: Step) -> tuple[str, ...]:
    """The channels of a step's contacts, each once."""
    return tuple(dict.fromkeys(name for contact in step.contacts for name in policy.contacts.get(contact, ())))
