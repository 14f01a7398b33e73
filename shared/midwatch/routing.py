"""What an agent's route makes of its runs: shadow, a canary's share, or all of them. No I/O."""

import hashlib
from typing import NamedTuple

import msgspec

from .contracts.control import Route, Stage
from .keys import NEVER, ROUTE, Answer, Halt


class Standing(NamedTuple):
    """What one reading of the route says. Without a stage, and with nothing that stops it, an agent acts on all of its
    tickets."""

    stage: Stage | None = None
    stops: Halt | None = None  # why no live run may go on
    traffic: float = 1.0
    salt: str = ""
    by: str = ""

    def turns_away(self, ticket: str) -> Halt | None:
        """Why a live run of this ticket may not begin. In shadow it may: as a shadow run."""
        if self.stage == "shadow":
            return None
        if self.stage == "canary" and not drawn(self.salt, ticket, self.traffic):
            return Halt(ROUTE, f"outside the canary's {self.traffic * 100:g} %", self.by)
        return self.stops


class RouteKey:
    """The route of one agent as this process knows it. Its epochs are none of the switch's: halts by it have none."""

    __slots__ = ("asked", "floor", "standing", "value")

    def __init__(self) -> None:
        self.asked = NEVER  # when the last good answer was asked for
        self.floor = (0, 0)  # server time and revision below which an answer is stale
        self.value: bytes | None = None
        self.standing = Standing(stops=Halt(ROUTE, "the route could not be read", "lost control"))

    @property
    def read(self) -> bool:
        """Whether this process has read it."""
        return self.asked != NEVER

    @property
    def worth_keeping(self) -> bool:
        """Whether a restart beside a replica that lags must not lift it."""
        return self.floor != (0, 0) and (self.standing.stops is not None or self.standing.stage == "canary")

    def take(self, answer: Answer, asked: float) -> bool:
        """Applies an answer unless it is older than what is known. Whether what is applied changed."""
        before, stamp = self.standing, (answer.written, answer.revision)
        if answer.revision == 0:
            standing = self._missing()
        else:
            standing = _judge(answer)
            if stamp < self.floor and not (answer.revision > self.floor[1] and standing.stops):
                return False
            self.floor, self.value = stamp, answer.value
        self.asked = max(self.asked, asked)
        self.standing = standing
        return standing != before

    def _missing(self) -> Standing:
        if self.floor == (0, 0):
            return Standing()
        if self.standing.stage == "shadow":
            return self.standing  # nobody waits for it: to send its tickets to the fallback would answer them twice
        return Standing(stops=Halt(ROUTE, "the route is missing", ""))


def _judge(answer: Answer) -> Standing:
    if answer.value is None:
        return Standing(stops=Halt(ROUTE, "the route was deleted", ""))
    try:
        route = msgspec.json.decode(answer.value, type=Route)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Standing(stops=Halt(ROUTE, "the route cannot be read", ""))
    stops = Halt(ROUTE, route.reason or "the agent was put into shadow", route.by) if route.stage == "shadow" else None
    return Standing(route.stage, stops, route.traffic, route.salt, route.by)


def drawn(salt: str, ticket: str, share: float) -> bool:
    """Whether a ticket is in this share of all: always the same while the salt is; a larger share keeps it."""
    digest = hashlib.sha256(f"{salt}\0{ticket}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) < share * 2**64
