"""Writes the switch by compare-and-set, so that of two who write at once neither undoes the other, and reads it."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Required, TypedDict, Unpack

import msgspec
from nats.errors import ConnectionClosedError
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg
from nats.js.errors import APIError, NotFoundError

from midwatch.contracts import control, subjects
from midwatch.contracts.control import SwitchRecord
from midwatch.errors import BadAgentName, MidwatchError, Permanent, Temporary

from .stream_read import last_of_each

_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_WRONG_LAST = 10071
_NO_STREAM = 10059
_REQUEST = 2.0  # seconds that one read or write may take
_PATIENCE = 8.0  # seconds after which a writer gives up
_MAP_LIMIT = 900_000  # bytes; below the megabyte that a server takes by default
_REASON_LIMIT = 500  # characters; keeps the maps small
_PRUNE_AFTER = timedelta(hours=1)
_UNREADABLE = SwitchRecord(state="halted", reason="the map cannot be read, which halts all of it")
_ABSENT = SwitchRecord(state="halted", reason="the key is absent or cannot be read, which is not running")
NOT_HALTED = SwitchRecord(state="running")


class NoSwitch(MidwatchError):
    """There is no switch bucket on this server: run `midwatch topology apply`."""


class UnreadableMap(MidwatchError):
    """{key} cannot be read, so all of it is halted, and what it halted is not known: a new map would lift those halts
    as well. If that is meant: Stop on the console, or `nats kv put MIDWATCH_SWITCH {key} '{{}}'`."""


class Entry(NamedTuple):
    """What stands at a key. `value` is None where it was deleted or never written; `revision` is 0 where there is
    nothing; `written_at` is the server's time."""

    key: str
    value: bytes | None
    revision: int
    written_at: datetime | None

    def record(self) -> SwitchRecord | None:
        """The record of `fleet` or `agent.<agent>`; None is not running."""
        return None if self.value is None else control.decode_record(self.value)

    def map(self) -> control.SwitchMap | None:
        """The records of a map, none where there is no map; None where it cannot be read, which halts all of it."""
        return {} if self.value is None else control.decode_map(self.value)


class Written(NamedTuple):
    """The outcome: `revision` (the epoch) and `record` that stand, and whether this call wrote them."""

    key: str
    revision: int
    changed: bool
    record: SwitchRecord


@dataclass(frozen=True, slots=True)
class Scope:
    """What a halt stops: the fleet, an agent, a tool of it, or one run of it. Raises BadAgentName."""

    agent: str | None = None
    tool: str | None = None
    run_id: str | None = None

    def __post_init__(self) -> None:
        if self.agent is not None and not subjects.is_agent_name(self.agent):
            raise BadAgentName(agent=self.agent)
        if self.target is not None and (self.agent is None or not 0 < len(self.target) <= 128):
            raise MidwatchError("a tool or run is named by 1 to 128 characters and belongs to an agent: name both")
        if self.tool is not None and self.run_id is not None:
            raise MidwatchError("a halt is of a tool or of a run, not of both: write two")

    @property
    def key(self) -> str:
        if self.agent is None:
            return subjects.FLEET_KEY
        if self.tool is not None:
            return subjects.tools_key(self.agent)
        return subjects.agent_key(self.agent) if self.run_id is None else subjects.runs_key(self.agent)

    @property
    def target(self) -> str | None:
        """The tool or run, where the key holds a map."""
        return self.run_id if self.tool is None else self.tool


class How(TypedDict, total=False):
    """Of a write: why and by whom, and optionally when it was decided, who takes over, until when it holds, and whether
    it is a drill."""

    reason: Required[str]
    by: Required[str]
    at: datetime | None
    fallback: str | None
    expires_at: datetime | None
    drill: bool


Change = tuple[SwitchRecord, bytes | None]  # the record that stands afterwards, and the value to write, if any


class Switchboard:
    """Compare-and-set writer of the switch bucket. Every method raises Temporary where NATS does not answer and
    NoSwitch where there is no bucket."""

    def __init__(self, js: JetStreamContext) -> None:
        self._js = js
        self._stream = subjects.key_stream(subjects.SWITCH)

    async def halt_fleet(self, **how: Unpack[How]) -> Written:
        """Halts every agent."""
        return await self.halt(Scope(), **how)

    async def halt_agent(self, agent: str, **how: Unpack[How]) -> Written:
        """Halts one agent."""
        return await self.halt(Scope(agent), **how)

    async def halt_tool(self, agent: str, tool: str, **how: Unpack[How]) -> Written:
        """Halts one tool of an agent."""
        return await self.halt(Scope(agent, tool=tool), **how)

    async def halt_run(self, agent: str, run_id: str, **how: Unpack[How]) -> Written:
        """Halts one run."""
        return await self.halt(Scope(agent, run_id=run_id), **how)

    async def resume_fleet(self, **how: Unpack[How]) -> Written:
        """Lifts the halt of the fleet; an agent that is halted by its own key stays so."""
        return await self.resume(Scope(), **how)

    async def resume_agent(self, agent: str, **how: Unpack[How]) -> Written:
        """Lifts the halt of one agent."""
        return await self.resume(Scope(agent), **how)

    async def resume_tool(self, agent: str, tool: str, **how: Unpack[How]) -> Written:
        """Lifts the halt of one tool."""
        return await self.resume(Scope(agent, tool=tool), **how)

    async def resume_run(self, agent: str, run_id: str, **how: Unpack[How]) -> Written:
        """Lifts the halt of one run. Its record stays, so that an older halt cannot return."""
        return await self.resume(Scope(agent, run_id=run_id), **how)

    async def halt(self, scope: Scope, **how: Unpack[How]) -> Written:
        """Halts `scope`. A halt that stands is left as it is unless this one is stronger (has no expiry or a later one,
        is no drill, names a fallback); the two together are then written. A drill is refused where any halt stands.
        Given `at`, the time of the decision, a halt that is older than the resume that stands is not applied."""
        asked = _record("halted", how)

        def change(entry: Entry) -> SwitchRecord | None:
            standing = standing_of(entry, scope)
            if standing is None and scope.target is None and asked.drill:
                return None  # not running already, and its end would be
            if standing is None or standing.state == "running":
                return None if _outdated(standing, how.get("at"), entry, scope) else asked
            both = standing if asked.drill else _both(standing, asked)
            return None if both == standing else both

        return await self._set(scope, change)

    async def halt_runs(self, agent: str, run_ids: Collection[str], **how: Unpack[How]) -> Written:
        """Halts many runs of an agent by one write. Those that are halted already keep their records."""
        asked = _record("halted", how)

        def change(entry: Entry) -> Change:
            records = entry.map()
            if records is None:
                return _UNREADABLE, None
            new = [run for run in run_ids if run not in records or records[run].state == "running"]
            return asked, _with_records(entry, dict.fromkeys(new, asked)) if new else None

        return await self.update(subjects.runs_key(agent), change)

    async def resume(
        self, scope: Scope, *, only: Callable[[SwitchRecord | None], bool] = lambda _: True, **how: Unpack[How]
    ) -> Written:
        """Lifts the halt of `scope`, whoever made it, unless `only` turns away the record that stands (None where there
        is none). Raises UnreadableMap for a tool or run in a map that cannot be read."""
        asked = _record("running", how)

        def change(entry: Entry) -> SwitchRecord | None:
            if scope.target is not None and entry.map() is None:
                raise UnreadableMap(key=scope.key)
            standing = standing_of(entry, scope)
            if standing.state == "running" if standing else scope.target is not None:
                return None  # it runs already: a tool or run that has no record is not halted
            if not only(standing):
                return None
            return None if _outdated(standing, how.get("at"), entry, scope) else asked

        return await self._set(scope, change)

    async def restore(self, scope: Scope, written: Written, *, by: str, reason: str) -> bool:
        """Lifts the drill's halt that `written` tells of, and only that one: what has been written in its place stays.
        Returns whether it did."""
        if not (written.changed and written.record.drill):
            return False  # the halt that stands is somebody else's
        lifted = _record("running", {"by": by, "reason": reason})

        def change(entry: Entry) -> SwitchRecord | None:
            own = entry.revision == written.revision or (scope.target is not None and entry.revision > written.revision)
            return lifted if own and standing_of(entry, scope) == written.record else None

        return (await self._set(scope, change)).changed

    async def expire(self, key: str, target: str | None, record: SwitchRecord, *, by: str) -> bool:
        """Lifts the halt `record` because its time is over, and only that one: whatever has been written in its place
        stays. Returns whether it did."""
        lifted = SwitchRecord(state="running", reason="the halt expired", by=by, at=datetime.now(UTC))

        def change(entry: Entry) -> Change:
            stands = entry.record() if target is None else (entry.map() or {}).get(target)
            if stands != record:
                return stands or record, None
            return lifted, _encoded(entry, target, lifted)

        return (await self.update(key, change)).changed

    async def prune_runs(self, agent: str, finished: Collection[str]) -> int:
        """Removes the records, older than an hour, of runs that have `finished`, so that the map stays small. Returns
        how many."""
        before = datetime.now(UTC) - _PRUNE_AFTER
        removed: list[str] = []

        def change(entry: Entry) -> Change:
            records = entry.map() or {}
            removed[:] = [
                run_id
                for run_id in finished
                if (record := records.get(run_id)) is not None and (record.at or entry.written_at or before) < before
            ]
            if not removed or entry.value is None:
                return NOT_HALTED, None
            raw = msgspec.json.decode(entry.value, type=dict[str, msgspec.Raw])
            for run_id in removed:
                del raw[run_id]
            return NOT_HALTED, msgspec.json.encode(raw)

        await self.update(subjects.runs_key(agent), change)
        return len(removed)

    async def read(self, key: str) -> Entry:
        """What stands at `key`, from any replica: it may be a moment old."""
        return await self._get(key, direct=True)

    async def entries(self) -> list[Entry]:
        """Every key that was ever written, deleted ones too."""
        return [_entry(message) for message in await last_of_each(self._js, self._stream, ">")]

    async def writes(self, after: int, limit: int = 100) -> list[Entry]:
        """The writes that the bucket still holds after the revision `after`, in order; at most `limit`."""
        found: list[Entry] = []
        every = subjects.key_subject(subjects.SWITCH, ">")
        with contextlib.suppress(NotFoundError):
            while len(found) < limit:
                message = await self._js.get_msg(self._stream, seq=after + 1, subject=every, next=True)
                found.append(_entry(message))
                after = found[-1].revision
        return found

    async def _set(self, scope: Scope, change: Callable[[Entry], SwitchRecord | None]) -> Written:
        def whole(entry: Entry) -> Change:
            wanted = change(entry)
            if wanted is None:
                return standing_of(entry, scope) or (NOT_HALTED if scope.target else _ABSENT), None
            return wanted, _encoded(entry, scope.target, wanted)

        return await self.update(scope.key, whole)

    async def update(self, key: str, change: Callable[[Entry], Change]) -> Written:
        """Reads, writes on the condition that nobody wrote since, and begins again where somebody did. The first
        reading is of any replica, which is faster and, for a write on that condition, as good; that nothing needs to
        be written, and what to do after a conflict, the leader says."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE
        sent: bytes | None = None
        attempt = 0
        while True:
            try:
                entry = await self._get(key, direct=attempt == 0)
                record, value = change(entry)
                if value is None and attempt == 0:
                    entry = await self._get(key, direct=False)
                    record, value = change(entry)
                if sent is not None and entry.value == sent:
                    return Written(key, entry.revision, True, record)  # a write that was thought lost had arrived
                if value is None:
                    return Written(key, entry.revision, False, record)
                sent = value
                ack = await self._js.publish(
                    subjects.key_subject(subjects.SWITCH, key),
                    value,
                    _REQUEST,
                    headers={_EXPECTED: str(entry.revision)},
                )
                return Written(key, ack.seq, True, record)
            except (APIError, NatsError, TimeoutError) as error:
                if isinstance(error, APIError) and error.err_code != _WRONG_LAST and error.code != 503:
                    raise
                if loop.time() > deadline or isinstance(error, ConnectionClosedError):
                    raise Temporary(
                        f"the switch key {key} was not written ({error or 'no answer'}): see that NATS is up and that "
                        "you may write to the switch"
                    ) from error
            attempt += 1
            await asyncio.sleep(random.uniform(0, min(0.1, 0.002 * 2**attempt)))  # noqa: S311

    async def _get(self, key: str, *, direct: bool) -> Entry:
        try:
            async with asyncio.timeout(_REQUEST):
                message = await self._js.get_last_msg(
                    self._stream, subjects.key_subject(subjects.SWITCH, key), direct=direct
                )
        except NotFoundError as error:
            if error.err_code == _NO_STREAM:
                raise NoSwitch from None
            return Entry(key, None, 0, None)
        return _entry(message)


def is_deleted(headers: Mapping[str, str] | None) -> bool:
    """Whether a write to a bucket with these headers removed its key: by hand, or by the server for its age."""
    found = headers or {}
    return found.get("KV-Operation") in ("DEL", "PURGE") or "Nats-Marker-Reason" in found


def _entry(message: RawStreamMsg) -> Entry:
    key = (message.subject or "").removeprefix(subjects.key_subject(subjects.SWITCH, ""))
    value = None if is_deleted(message.headers) else message.data or b""
    return Entry(key, value, message.seq or 0, message.time)


def _record(state: control.State, how: How) -> SwitchRecord:
    return SwitchRecord(
        state=state, reason=how["reason"][:_REASON_LIMIT], by=how["by"][:_REASON_LIMIT],
        at=how.get("at") or datetime.now(UTC), fallback=how.get("fallback"), expires_at=how.get("expires_at"),
        drill=how.get("drill", False),
    )  # fmt: skip


def standing_of(entry: Entry, scope: Scope) -> SwitchRecord | None:
    """The record of `scope`, None where there is none; of a map that cannot be read, one that is halted."""
    if scope.target is None:
        return entry.record()
    records = entry.map()
    return _UNREADABLE if records is None else records.get(scope.target)


def _outdated(standing: SwitchRecord | None, decided: datetime | None, entry: Entry, scope: Scope) -> bool:
    if standing is None or decided is None:
        return False
    written = standing.at or (entry.written_at if scope.target is None else None)
    return written is not None and decided < written


def _both(standing: SwitchRecord, asked: SwitchRecord) -> SwitchRecord:
    """`standing` where it is as strong as `asked`, else a record with the strength of both."""
    if standing is _UNREADABLE:
        return standing
    until = (
        max(standing.expires_at, asked.expires_at) if standing.expires_at and asked.expires_at else None
    )  # None is for ever
    fallback = asked.fallback or standing.fallback
    drill = standing.drill and asked.drill
    if (until, fallback, drill) == (standing.expires_at, standing.fallback, standing.drill):
        return standing
    return msgspec.structs.replace(asked, expires_at=until, fallback=fallback, drill=drill)


def _encoded(entry: Entry, target: str | None, record: SwitchRecord) -> bytes:
    """The value of the key with `record` in it."""
    return control.encode(record) if target is None else _with_records(entry, {target: record})


def _with_records(entry: Entry, new: control.SwitchMap) -> bytes:
    """The map with `new` in it; its other records stay as they were written, byte for byte."""
    records = msgspec.json.decode(entry.value, type=dict[str, msgspec.Raw]) if entry.value is not None else {}
    value = msgspec.json.encode(records | {target: msgspec.Raw(control.encode(one)) for target, one in new.items()})
    if len(value) > _MAP_LIMIT:
        raise Permanent(
            f"{entry.key} would have {len(value)} bytes, the limit is {_MAP_LIMIT}: halt the agent instead",
            reason="full",
        )
    return value
