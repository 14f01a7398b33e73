"""The local switch: what one process knows of an agent's switch and card, kept where a check is a read of memory.

No I/O but the small file of halts seen. `link.py` feeds it; runs ask it.
"""

import contextlib
import logging
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import msgspec

from .contracts import control, subjects
from .contracts.control import Card, SwitchRecord, SwitchRule

log = logging.getLogger("midwatch")

LEASE = "lease"  # stands as the key of a halt that no record caused: the switch could not be read
NEVER = float("-inf")
FOREVER = float("inf")

if hasattr(time, "CLOCK_BOOTTIME"):

    def clock() -> float:
        """Seconds that also pass while the machine sleeps: a lease must not outlive a suspended laptop."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:
    clock = time.monotonic


class Halt(NamedTuple):
    """Why a run may not go on. `epoch` is the revision of the key that says so."""

    key: str
    reason: str
    by: str
    epoch: int | None = None
    fallback: str | None = None


class Answer(NamedTuple):
    """What one direct get of a key said. `written` is the server's time in nanoseconds; `value` None: no such key.

    A deleted key has a revision and a time, a key that never was has neither.
    """

    revision: int
    written: int
    value: bytes | None


class LiveRun(Protocol):
    """What the switch needs of a run in flight."""

    run_id: str

    @property
    def draining(self) -> bool: ...
    @property
    def moving(self) -> bool:
        """Whether the agent's own code runs: not so once a fallback has taken over."""

    def review(self) -> None:
        """The switch moved: look whether this run is halted. Called in the thread that feeds the switch."""

    def abandon(self) -> None:
        """The process ends or the run was dropped."""


class Key:
    """One key of the switch as this process knows it."""

    __slots__ = ("absent_since", "asked", "everything", "floor", "is_map", "name", "revision", "some", "value")

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_map = name.startswith(("tools.", "runs."))
        self.revision = 0  # applied
        self.floor = (0, 0)  # server time and revision below which an answer is stale
        self.value: bytes | None = None
        self.everything: Halt | None = None
        self.some: dict[str, Halt] = {}
        self.asked = NEVER  # when the last good answer was asked for
        self.absent_since: float | None = None

    @property
    def halts(self) -> bool:
        """Whether anything is halted by this key."""
        return self.everything is not None or bool(self.some)

    def take(self, answer: Answer, asked: float, lease: float) -> bool:
        """Applies an answer unless it is older than what is known. Whether it was good (new or still the same)."""
        everything, some = self._judge(answer)
        stamp = (answer.written, answer.revision)
        if answer.revision == 0:
            # A replica that lags also says "no such key": it must say so for a whole lease to lift a halt of a map.
            self.absent_since = asked if self.absent_since is None else self.absent_since
            if self.is_map and self.halts and asked - self.absent_since < lease:
                return False
        else:
            self.absent_since = None
            if stamp < self.floor and not (answer.revision > self.floor[1] and (everything or some)):
                return False
            self.floor = stamp
        self.asked = max(self.asked, asked)
        self.revision, self.value = answer.revision, answer.value
        self.everything, self.some = everything, some
        return True

    def _judge(self, answer: Answer) -> tuple[Halt | None, dict[str, Halt]]:
        if answer.revision and (answer.written, answer.revision) == self.floor and answer.value == self.value:
            return self.everything, self.some  # nothing new: the common case, each second
        if self.is_map:
            return self._judge_map(answer)
        if answer.value is None:
            gone = "was deleted" if answer.revision else "was never written"
            return Halt(self.name, f"the switch key {self.name} {gone}", "", answer.revision or None), {}
        record = control.decode_record(answer.value)
        if record is None:
            return Halt(self.name, f"the switch key {self.name} cannot be read", "", answer.revision), {}
        return (self._halt(record, answer) if record.state == "halted" else None), {}

    def _judge_map(self, answer: Answer) -> tuple[Halt | None, dict[str, Halt]]:
        if answer.value is None:
            return None, {}
        records = control.decode_map(answer.value)
        if records is None:
            return Halt(self.name, f"the switch key {self.name} cannot be read", "", answer.revision), {}
        return None, {name: self._halt(r, answer) for name, r in records.items() if r.state == "halted"}

    def _halt(self, record: SwitchRecord, answer: Answer) -> Halt:
        return Halt(self.name, record.reason, record.by, answer.revision, record.fallback)


class LocalSwitch:
    """What an agent's process obeys. Fed by one thread, asked by any.

    `seen` is the file in which halts outlive the process, or None.
    """

    def __init__(self, agent: str, *, seen: Path | None = None, changed: Callable[[], None] = lambda: None) -> None:
        self.agent = agent
        self.changed = changed  # called when what presence says of this agent changed, in any thread
        self.keys = {name: Key(name) for name in subjects.switch_keys(agent)}
        self._fleet, self._agent, self._tools, self._runs = self.keys.values()
        self.card: Card | None = None
        self.card_state: Literal["unread", "absent", "present"] = "unread"
        self._card_floor = (0, 0)
        self._confirmed = NEVER  # when the last acknowledged presence was sent
        self.unsaved = False  # halts seen are not on disk yet
        self._clear = False  # nothing at all is halted by a key
        self._until = NEVER  # end of the lease
        self._may_carry_on = False
        self._lapsed = True
        self._live: dict[int, weakref.ref[LiveRun]] = {}
        self._known: Future[None] = Future()
        self.known_by = clock() + self.rule.lease  # a run that begins waits no longer for a first reading
        self._seen = _SeenHalts(seen) if seen else None
        if self._seen:
            self._seen.restore(self.keys)
        self._settle()

    @property
    def rule(self) -> SwitchRule:
        """Lease and what to do without it, by the card or by default."""
        return self.card.switch if self.card else SwitchRule()

    # Asked on the hot path.

    def judge(self, run_id: str, tool: str | None = None) -> Halt | None:
        """Why this run may not go on, or not call this tool; None where it may."""
        if self._clear and clock() < self._until:
            return None
        return self._judge(run_id, tool)

    def _judge(self, run_id: str, tool: str | None) -> Halt | None:
        halt = self._fleet.everything or self._agent.everything or self._runs.everything or self._runs.some.get(run_id)
        if halt is None and tool is not None:
            halt = self._tools.everything or self._tools.some.get(tool)
        if halt is None and clock() >= self._until and not self._may_carry_on:
            lease = self.rule.lease
            halt = Halt(LEASE, f"the switch could not be read for {lease:g} s", "lost control")
        return halt

    @property
    def quiet(self) -> bool:
        """Whether nothing at all is halted and the lease holds."""
        return self._clear and clock() < self._until

    @property
    def lease_ends(self) -> float:
        """Until when, by `clock`, the agent may act on what is known."""
        return self._until

    @property
    def lapsed(self) -> bool:
        """Whether the lease has run out, whatever the card says of that."""
        return clock() >= self._until

    @property
    def known(self) -> Future[None]:
        """Done once the agent may act, or it is known that it has no card."""
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
        """Writes the halts seen to disk, if they changed. From any thread."""
        if self.unsaved and self._seen:
            self.unsaved = False
            self._seen.keep(self.keys)

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
        self._clear = not any(key.halts for key in keys)
        self._until = min(self._confirmed, *(key.asked for key in keys)) + self.rule.lease
        # To carry on is to act on the last reading: what was never read in this process is not running.
        read = self._until != NEVER
        self._may_carry_on = read and self.rule.lost_control == "carry_on"
        lapsed = self.lapsed
        moved = moved or lapsed != self._lapsed
        self._lapsed = lapsed
        if not self._known.done() and (self.card_state == "absent" or (self.card and not lapsed)):
            self._known.set_result(None)
        if moved:
            for run in self.live:
                run.review()
            self.changed()

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
    def read_at(self) -> datetime | None:
        """When the oldest of the last good readings was asked for."""
        oldest = min(key.asked for key in self.keys.values())
        return None if oldest == NEVER else datetime.fromtimestamp(time.time() - (clock() - oldest), UTC)


class _Kept(msgspec.Struct):
    revision: int
    written: int
    value: bytes | None


class _SeenHalts:
    """The file of halts that this machine has seen: a restart, or a replica that lags, must not lift them."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def restore(self, keys: dict[str, Key]) -> None:
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=dict[str, _Kept])
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return
        for name, it in kept.items():
            if name in keys:
                keys[name].take(Answer(it.revision, it.written, it.value), NEVER, FOREVER)

    def keep(self, keys: dict[str, Key]) -> None:
        kept = {
            key.name: _Kept(key.floor[1], key.floor[0], key.value)
            for key in keys.values()
            if key.halts and key.revision  # an absent key halts by itself
        }
        # Of its own name: several processes of one agent share the folder.
        draft = self._path.with_name(f"{self._path.name}.{threading.get_ident():x}.{id(self):x}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(msgspec.json.encode(kept))
            draft.replace(self._path)
        except OSError as error:
            log.warning("halts seen cannot be kept in %s: %s", self._path, error)
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
