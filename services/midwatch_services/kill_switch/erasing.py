"""What kill-switch forgets of a run that is erased: what its case carries, and why it was halted."""

import msgspec
import sqlalchemy as sa
from msgspec.structs import replace
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError
from sqlalchemy.engine import Connection

from midwatch.contracts import control, subjects
from midwatch.contracts.control import SwitchRecord
from midwatch.contracts.erasure import ErasedRun, ErasureResolved
from midwatch.contracts.governance import CaseOpened, SwitchContained
from midwatch.errors import Temporary
from midwatch.runtime.erasure import Counts
from midwatch.runtime.switchboard import NOT_HALTED, Change, Entry, Switchboard

from . import tables

ERASED = "erased"
BY = f"{subjects.KILL_SWITCH}/erasure"  # a halt that is written anew is none that an agent is tripped for
TABLES = tuple(
    table.__tablename__ for table in (tables.Case, tables.CaseStep, tables.WebhookCall, tables.Halt, tables.Flight)
)
_cases, _history, _calls = tables.Case.__table__, tables.CaseStep.__table__, tables.WebhookCall.__table__
_halts, _flights = tables.Halt.__table__, tables.Flight.__table__


def erase(conn: Connection, part: ErasureResolved) -> Counts:
    """Blanks cases and the reasons of halts. A case stays in its state: somebody may still have to see to it."""
    counts = {"cases": 0, "notes": 0, "calls": 0, "halts": 0}
    for run in part.runs:
        which = (_cases.c.agent == run.agent, _cases.c.run_id == run.run_id)
        for row in conn.execute(sa.select(_cases.c.case_id, _cases.c.body).where(*which)).all():
            _erase_case(conn, row.case_id, row.body)
            notes = _history.update().where(_history.c.case_id == row.case_id).values(note="")
            counts["notes"] += conn.execute(notes).rowcount
            calls = _calls.delete().where(_calls.c.case_id == row.case_id, _calls.c.sent_at.is_(None))
            counts["calls"] += conn.execute(calls).rowcount
            counts["cases"] += 1
        conn.execute(_flights.delete().where(_flights.c.agent == run.agent, _flights.c.run_id == run.run_id))
        counts["halts"] += _erase_halts(conn, run)
    return counts


def _erase_case(conn: Connection, case_id: str, body: bytes | None) -> None:
    values: dict[str, object] = {"ticket": None, "reason": "", "doubt": "", "asked": "", "reference": ""}
    if body is not None:
        case = msgspec.json.decode(body, type=CaseOpened)
        values["body"] = msgspec.json.encode(
            replace(
                case, reason=ERASED, doubt="", ticket=None, customer=None, session=None, input=None, events=[],
                left_out=case.left_out + len(case.events),
            )
        )  # fmt: skip
    conn.execute(_cases.update().where(_cases.c.case_id == case_id).values(values))


def _erase_halts(conn: Connection, run: ErasedRun) -> int:
    which = (_halts.c.key == subjects.runs_key(run.agent), _halts.c.target == run.run_id)
    rows = conn.execute(sa.select(_halts).where(*which)).all()
    for row in rows:
        values = {name: _without_reason(getattr(row, name)) for name in ("record", "ended_by")}
        if row.report is not None:
            report = replace(msgspec.json.decode(row.report, type=SwitchContained), reason=ERASED)
            values["report"] = control.encode(report)
        same = (_halts.c.epoch == row.epoch, _halts.c.requested_at == row.requested_at)
        conn.execute(_halts.update().where(*which, *same).values(values))
    return len(rows)


def _without_reason(record: bytes | None) -> bytes | None:
    if record is None:
        return None
    return control.encode(replace(msgspec.json.decode(record, type=SwitchRecord), reason=ERASED))


class Buckets:
    """What the switch and the cases bucket hold of runs. Nothing of it stands in a table."""

    def __init__(self, js: JetStreamContext) -> None:
        self._js, self._board = js, Switchboard(js)

    async def erase(self, part: ErasureResolved) -> None:
        """Takes the reasons out of the runs maps, with their history, and the claims out of the cases bucket; again
        changes nothing. A halted run stays halted. Raises Temporary where the server does not take it."""
        by_agent: dict[str, list[ErasedRun]] = {}
        for run in part.runs:
            by_agent.setdefault(run.agent, []).append(run)
        for agent, runs in by_agent.items():
            key = subjects.runs_key(agent)
            if (await self._board.read(key)).revision:
                await self._board.update(key, lambda entry, runs=runs: without(entry, runs))  # type: ignore[misc]
                await self._purge(subjects.SWITCH, key, keep=1)
            for run in runs:
                await self._purge(subjects.CASES, subjects.case_key(agent, run.run_id))
                # Of an offer nothing but the name of its key would be left, and who accepts late must find it.

    async def _purge(self, bucket: str, key: str, keep: int | None = None) -> None:
        subject = subjects.key_subject(bucket, key)
        try:
            await self._js.purge_stream(subjects.key_stream(bucket), subject=subject, keep=keep)
        except NotFoundError:
            return
        except (NatsError, TimeoutError) as error:
            raise Temporary(f"{bucket} {key} was not purged: {error or type(error).__name__}") from error


def without(entry: Entry, runs: list[ErasedRun]) -> Change:
    """The map without the records of runs that have finished, and without the reasons of the others."""
    records = entry.map()
    if not records or entry.value is None:
        return NOT_HALTED, None
    raw = msgspec.json.decode(entry.value, type=dict[str, msgspec.Raw])
    for run in runs:
        record = records.get(run.run_id)
        if record is None:
            continue
        if run.finished:
            del raw[run.run_id]
        elif record.reason != ERASED:
            raw[run.run_id] = msgspec.Raw(control.encode(replace(record, reason=ERASED, by=BY)))
    value = msgspec.json.encode(raw)
    return NOT_HALTED, None if value == entry.value else value
