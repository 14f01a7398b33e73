"""The local switch: what one process knows of an agent's switch, route and card, where a check is a read of memory.

No I/O but the small file of what was seen. `link.py` feeds it; runs ask it.
"""

import logging
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from .contracts import subjects
from .contracts.control import Card, LostControl, SwitchRule
from .keys import CLOSED, FOREVER, LEASE, NEVER, OPEN, ROUTE, Answer, Gate, Halt, Key, clock
from .purse import Prices
from .routing import RouteKey
from .seen import Seen

__all__ = [
    "CLOSED", "FOREVER", "LEASE", "NEVER", "OPEN", "ROUTE", "Answer", "Gate", "Halt", "LiveRun", "LocalSwitch", "clock",
]  # fmt: skip

log = logging.getLogger("midwatch")


class LiveRun(Protocol):
    """What the switch needs of a run in flight."""

    run_id: str

    @property
    def draining(self) -> bool: ...
    @property
    def moving(self) -> bool:
        """Whether the agent's own code runs: not so once a fallback has taken over."""

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for its answer: not so in shadow, eval and replay."""

    def review(self) -> None:
        """The switch moved: look whether this run is halted. Called in the thread that feeds the switch."""

    def abandon(self) -> None:
        """The process ends or the run was dropped."""


class LocalSwitch:
    """What an agent's process obeys. Fed by one thread, asked by any.

    `seen` is the file in which what must not be lifted outlives the process, or None.
    """

    def __init__(self, agent: str, *, seen: Path | None = None, changed: Callable[[], None] = lambda: None) -> None:
        self.agent = agent
        self.changed = changed  # called when what presence says of this agent changed, in any thread
        self.keys = {name: Key(name) for name in subjects.switch_keys(agent)}
        self._fleet, self._agent, self._tools, self._runs = self.keys.values()
        self.route = RouteKey()
        self.card: Card | None = None
        self.card_state: Literal["unread", "absent", "present"] = "unread"
        self._card_floor = (0, 0)
        self.prices = Prices()  # of the agent's models, as its runs in this process learn them
        self.own_fallback = False  # the program has a fallback of its own
        self.blocking = False  # its runs are in threads
        self._confirmed = NEVER  # when the last acknowledged presence was sent
        self.unsaved = False  # what was seen is not on disk yet
        self.gate = Gate(NEVER)  # open while nothing is halted, the route stops nothing and the lease holds
        self._until = NEVER  # end of the lease
        self._may_carry_on = False
        self._lapsed = True
        self._lost_at: float | None = None  # since when, by `clock`, the agent is without control, once that was said
        self._live: dict[int, weakref.ref[LiveRun]] = {}
        self._known: Future[None] = Future()
        self._began = clock()
        self.known_by = self._began + self.rule.lease  # a run that begins waits no longer for a first reading
        self._seen = Seen(seen)
        self._seen.restore(self.keys, self.route)
        self._settle()

    @property
    def rule(self) -> SwitchRule:
        """Lease and what to do without it, by the card or by default."""
        return self.card.switch if self.card else SwitchRule()

    # Asked on the hot path.

    def judge(self, run_id: str, tool: str | None = None) -> Halt | None:
        """Why this run may not go on, or not call this tool, by the switch; None where it may. The route is judged
        apart."""
        halt = self._fleet.everything or self._agent.everything or self._runs.everything or self._runs.some.get(run_id)
        if halt is None and tool is not None:
            halt = self._tools.everything or self._tools.some.get(tool)
        if halt is None and self.without_control == "fall_back":
            halt = Halt(LEASE, f"the switch could not be read for {self.rule.lease:g} s", "lost control")
        return halt

    @property
    def quiet(self) -> bool:
        """Whether nothing at all is halted, the route stops nothing, and the lease holds."""
        return clock() < self.gate.until

    @property
    def lease_ends(self) -> float:
        """Until when, by `clock`, the agent may act on what is known."""
        return self._until

    @property
    def lapsed(self) -> bool:
        """Whether the lease has run out, whatever the card says of that."""
        return clock() >= self._until

    @property
    def without_control(self) -> LostControl | None:
        """What the agent does now that its lease has run out; None while it holds."""
        if clock() < self._until:
            return None
        return "carry_on" if self._may_carry_on else "fall_back"

    @property
    def known(self) -> Future[None]:
        """Done once switch, route and card are read, and the server has heard of this process."""
        return self._known

    # Fed by the link.

    def take(self, name: str, answer: Answer, asked: float) -> bool:
        """Applies the answer to a direct get of key `name` that was asked for at `asked` (by `clock`). Whether what
        is applied changed."""
        key = self.keys[name]
        before, halted = (key.revision, key.value, key.floor), key.halts
        if not key.take(answer, asked, self.rule.lease):
            return False
        if (key.revision, key.value, key.floor) == before:
            self._settle()
            return False
        self._settle(moved=True)
        self.unsaved = self.unsaved or halted or key.halts
        return True

    def save(self) -> None:
        """Writes what was seen to disk, if it changed. From any thread."""
        if self.unsaved:
            self.unsaved = False
            self._seen.keep(self.keys.values(), self.route)

    def take_route(self, answer: Answer, asked: float) -> None:
        """Applies the answer to a direct get of the agent's route that was asked for at `asked` (by `clock`)."""
        kept = self.route.worth_keeping
        moved = self.route.take(answer, asked)
        self.unsaved = self.unsaved or (moved and (kept or self.route.worth_keeping))
        self._settle(moved=moved)

    def take_card(self, answer: Answer) -> None:
        """Applies the answer to a direct get of the agent's card. One that cannot be read changes nothing."""
        stamp = (answer.written, answer.revision)
        if self.card and (answer.revision == 0 or stamp <= self._card_floor):
            return  # known already, or older: a replica that lags also says "no such key"
        if answer.value is None:
            self.card_state = "absent"
        else:
            try:
                self.card = msgspec.json.decode(answer.value, type=Card)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                log.warning("the card of agent %s cannot be read: %s", self.agent, error)
                return
            self.card_state = "present"
        self._card_floor = max(stamp, self._card_floor)
        self._settle(moved=True)

    def confirm(self, asked: float) -> None:
        """The server took a presence that was sent at `asked` (by `clock`)."""
        self._confirmed = max(self._confirmed, asked)
        self._settle()

    def review(self) -> None:
        """Tells the runs in flight to look at the switch; the lease may have run out."""
        self._settle()

    def _settle(self, *, moved: bool = False) -> None:
        keys = self.keys.values()
        self._until = min(self._confirmed, *(key.asked for key in keys)) + self.rule.lease
        # To carry on is to act on the last reading: what was never read in this process is not running.
        self._may_carry_on = self._until != NEVER and self.rule.lost_control == "carry_on"
        stopped = self.route.standing.stops is not None or any(key.halts for key in keys)
        self.gate.until = NEVER if stopped else self._until
        lapsed = self.lapsed
        moved = moved or lapsed != self._lapsed
        self._lapsed = lapsed
        self._say_control(lapsed)
        if not (lapsed or self.card_state == "unread" or not self.route.read or self._known.done()):
            self._known.set_result(None)
        if moved:
            for run in self.live:
                run.review()
            self.changed()

    def _say_control(self, lapsed: bool) -> None:
        """Says in the log, once each, that control is lost and that it is back."""
        now = clock()
        if lapsed and self._lost_at is None and (self._until != NEVER or now >= self.known_by):
            self._lost_at = max(self._until, self._began)
            does = "carries on from the last reading" if self._may_carry_on else "falls back"
            log.warning(
                "midwatch: the switch of agent %s could not be read for %g s: it %s until it can be read again",
                self.agent, self.rule.lease, does,
            )  # fmt: skip
        elif not lapsed and self._lost_at is not None:
            log.warning(
                "midwatch: the switch of agent %s is read again, after %.1f s without control",
                self.agent, now - self._lost_at,
            )  # fmt: skip
            self._lost_at = None

    # Runs in flight.

    @property
    def live(self) -> list[LiveRun]:
        """Runs in flight."""
        return [run for ref in list(self._live.values()) if (run := ref()) is not None]

    def enter(self, run: LiveRun) -> None:
        """A run began."""
        self._live[id(run)] = weakref.ref(run)

    def leave(self, run: LiveRun) -> None:
        """A run ended, or stopped moving."""
        self._live.pop(id(run), None)

    @property
    def applied(self) -> dict[str, int]:
        """Revision of each key that this process obeys; 0 where there is no record, absent where never read."""
        return {key.name: key.revision for key in self.keys.values() if key.asked != NEVER}

    @property
    def read_age(self) -> float | None:
        """Seconds since the oldest of the last good readings was asked for."""
        oldest = min(key.asked for key in self.keys.values())
        return None if oldest == NEVER else clock() - oldest

    @property
    def read_at(self) -> datetime | None:
        """When that was."""
        age = self.read_age
        return None if age is None else datetime.fromtimestamp(time.time() - age, UTC)
