"""What a case carries: the run that left it, as far as it is in the stream; and the words on the bus."""

import hashlib
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from nats.aio.client import Client

from midwatch.contracts import codec, subjects
from midwatch.contracts.codec import Refused, RunEvent
from midwatch.contracts.governance import CaseClosed, CaseOffered, CaseOpened
from midwatch.contracts.runs import FIELD_LIMIT, Finished, Mode, Resolution, Started
from midwatch.runtime.outbox import Outgoing
from midwatch.runtime.stream_read import Stored, read_each, read_range

from ..registry import RunKey
from ..reports import SOURCE
from .flights import Path
from .routing import BY, Case, Said

EVENTS_LIMIT = 512 * 1024  # bytes of JSON of all events in a case
_EVENT_LIMIT = 128 * 1024  # bytes of one; of a larger one only the short fields are kept
_FIELD_LIMIT = 8 * 1024
_ASKED = 200  # characters


class _Peek(msgspec.Struct):
    subject: str | None = None


_peek = msgspec.json.Decoder(_Peek)


class Told:
    """A run as its events tell it: the first of them and the newest, as many as the limit lets."""

    def __init__(self, skipped: int = 0) -> None:
        """`skipped`: how many events after the first are not to be told."""
        self.mode: Mode = "live"
        self.ticket: str | None = None
        self.session: str | None = None
        self.label = ""  # the case that the run handles, where it handles one
        self.started: Started | None = None
        self.ended: Resolution | None = None
        self.left_out = self._skipped = skipped
        self.upto = 0  # sequence in the stream of its last event
        self._seqs: set[int] = set()
        self._ids: set[str] = set()
        self._kept: deque[tuple[int, int, dict[str, Any]]] = deque()  # seq, bytes, event
        self._first: tuple[int, int, dict[str, Any]] | None = None
        self._bytes = 0

    def add(self, event: RunEvent, stream_seq: int, size: int) -> None:
        """Takes the next event of the stream."""
        self.upto = stream_seq
        if event.id in self._ids:
            return
        data = event.data
        self._ids.add(event.id)
        self._seqs.add(data.seq)
        self.mode, self.ticket, self.session = data.mode, data.ticket, data.session
        self.label = data.labels.get(subjects.CASE_LABEL, self.label)
        if isinstance(data, Started):
            self.started = data
        elif isinstance(data, Finished):
            self.ended = self.ended or data.resolution
        self._keep((data.seq, *_plain(event, size)))

    def _keep(self, one: tuple[int, int, dict[str, Any]]) -> None:
        self._bytes += one[1]
        if self._first is None or one[0] < self._first[0]:
            one, self._first = self._first or one, one
            if one is self._first:
                return
        self._kept.append(one)
        while self._bytes > EVENTS_LIMIT and len(self._kept) > 1:
            self._bytes -= self._kept.popleft()[1]
            self.left_out += 1

    def whole(self, upto: int, seq: int) -> bool:
        """Whether all is there up to an event with this place in the stream and this order in its run."""
        return self.upto >= upto and (0 not in self._seqs or all(one in self._seqs for one in range(seq)))

    def complete(self, seq: int) -> bool:
        """Whether all is there from the run's first event up to one with this order in its run."""
        return 0 in self._seqs and seq - sum(one < seq for one in self._seqs) <= self._skipped

    def events(self) -> list[dict[str, Any]]:
        """Oldest first."""
        first = [] if self._first is None else [self._first]
        return [event for _, _, event in sorted([*first, *self._kept], key=lambda one: one[0])]

    @property
    def asked(self) -> str:
        """The beginning of what the customer wrote, on one line."""
        given = self.started.input if self.started else ""
        text = given if isinstance(given, str) else next((str(one.content) for one in reversed(given)), "")
        return " ".join(text[: 4 * _ASKED].split())[:_ASKED]


def _plain(event: RunEvent, size: int) -> tuple[int, dict[str, Any]]:
    """The event as a case carries it, and how many bytes that takes at most."""
    plain: dict[str, Any] = {"event": event.event, "time": event.time, **msgspec.to_builtins(event.data)}
    if size > _EVENT_LIMIT:
        plain = {name: value for name, value in plain.items() if len(msgspec.json.encode(value)) <= _FIELD_LIMIT}
        plain["truncated"] = True
        size = len(msgspec.json.encode(plain))
    return size, plain


async def tell(nc: Client, agent: str, run_ids: Iterable[str], start: int | datetime) -> dict[str, Told]:
    """The runs of an agent, all of them by one reading of the stream from `start` on."""
    found = {run_id: Told() for run_id in run_ids}
    async for batch in read_range(nc, subjects.RUNS, subjects.run(agent, "*"), start):
        for stored in batch:
            try:
                subject = _peek.decode(stored.body).subject
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue
            if subject is not None and subject not in found:
                continue
            event = _decoded(stored)
            if event is not None and (told := found.get(event.data.run_id)):
                told.add(event, stored.seq, len(stored.body))
    return found


def _decoded(stored: Stored) -> RunEvent | None:
    try:
        return codec.decode_run(stored.subject, stored.body)
    except (Refused, RecursionError):
        return None  # the readers of the stream report it


async def recall(nc: Client, paths: Mapping[RunKey, Path]) -> dict[RunKey, Told]:
    """The runs of which it is known where their events are, read one by one: other runs' events, however many, take no
    time. Lacks a run of which an event is not there or an answer was lost."""
    told = {run: Told(path.skipped) for run, path in paths.items()}
    runs = {seq: run for run, path in paths.items() for seq in path.seqs}
    async for batch in read_each(nc, subjects.RUNS, list(runs)):
        for stored in batch:
            run, event = runs.pop(stored.seq), _decoded(stored)
            if event is not None and (event.agent, event.data.run_id) == run:
                told[run].add(event, stored.seq, len(stored.body))
    lacking = set(runs.values())
    return {run: one for run, one in told.items() if run not in lacking}


def opened(case: Case, told: Told, by: str) -> CaseOpened:
    """The case on the wire; `by` is who halted the run."""
    started = told.started
    return CaseOpened(
        case_id=case.case_id, agent=case.agent, run_id=case.run_id, to=case.to, reason=case.reason, opened_by=BY,
        mode=case.mode, by=by, key=case.key, epoch=case.epoch, ticket=_cut(case.ticket, _FIELD_LIMIT),
        customer=_cut(started.customer, _FIELD_LIMIT) if started else None,
        channel=_cut(started.channel, _FIELD_LIMIT) if started else None, session=_cut(told.session, _FIELD_LIMIT),
        input=_cut(msgspec.to_builtins(started.input), FIELD_LIMIT) if started else None, events=told.events(),
        left_out=told.left_out, chain=list(case.chain), doubt=case.doubt,
    )  # fmt: skip


def _cut(value: Any, limit: int) -> Any:
    """`value`, or the beginning of it as text where it takes more than `limit` bytes as JSON: the whole case must fit
    into a message."""
    size = len(msgspec.json.encode(value))
    if size <= limit:
        return value
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    while (size := len(msgspec.json.encode(text))) > limit:
        text = text[: len(text) * limit // size]
    return f"{text} …"


def renewed(body: CaseOpened, case: Case) -> CaseOpened:
    """The same run, with what has become of its case."""
    return msgspec.structs.replace(body, to=case.to, doubt=case.doubt)


def outgoing(said: Said, case: Case, body: CaseOpened, note: str, now: datetime) -> Outgoing:
    """An event of the case. It is said once, however often."""
    subject, data = subjects.case(case.agent, said), _data(said, case, body, note, now)
    if said == "offered":
        subject = subjects.case(case.taker, said)
    id = hashlib.sha256(f"{said}\0{case.case_id}".encode()).hexdigest()[:32]
    envelope = codec.envelope("case", said, data, source=SOURCE, id=id, time=now, subject=case.run_id)
    return Outgoing(id, subject, codec.encode(envelope))


def _data(said: Said, case: Case, body: CaseOpened, note: str, now: datetime) -> Any:
    if said == "opened":
        return body
    if said == "closed":
        return CaseClosed(case_id=case.case_id, by=BY, note=note)
    until = case.due_at or now
    return CaseOffered(
        taker=case.taker, offer_key=subjects.offer_key(case.taker, case.agent, case.run_id), until=until,
        within=max(0.0, (until - now).total_seconds()), case=body,
    )  # fmt: skip
