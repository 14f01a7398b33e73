"""kill-switch's tables: where it stands in the switch's stream, the halts and their proofs, instances and runs."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from midwatch.contracts import control
from midwatch.contracts.control import SwitchRecord
from midwatch.contracts.governance import SwitchContained

from . import tables
from .decide import Halt, Instance, Target, Write, lapsed, states
from .tables import EPOCH
from .tables import from_micros as _time
from .tables import micros as _micros

PREFIX = "kill_switch"
_NEWEST = 2**63 - 1  # what a column holds; an agent may claim any number
_ALL = ""  # the target of a halt of everything that its key covers

_keys = tables.Key.__table__
_halts = tables.Halt.__table__
_instances = tables.Instance.__table__
_runs = tables.Run.__table__
_strays = tables.Stray.__table__


class _Known(msgspec.Struct, frozen=True, kw_only=True):
    applied: dict[str, int]
    running: tuple[str, ...]
    draining: tuple[str, ...]
    lease: float
    left: bool
    own_fallback: bool = False
    no_case: tuple[str, ...] = ()
    process: str = ""
    since: datetime | None = None


class MapRun(NamedTuple):
    """A run that has a record in a runs map. `written_at`: when that was first seen."""

    agent: str
    run_id: str
    written_at: datetime
    finished_at: datetime | None


# Keys


def position(conn: Connection) -> tuple[int, datetime]:
    """Sequence and time of the last write that was taken; 0 and 1970 before the first."""
    newest = sa.select(_keys.c.revision, _keys.c.written_at).order_by(
        _keys.c.written_at.desc(), _keys.c.revision.desc()
    )
    row = conn.execute(newest.limit(1)).first()
    return (row.revision, _time(row.written_at)) if row else (0, EPOCH)


def revisions(conn: Connection) -> dict[str, int]:
    """The revision of each key as far as it was read."""
    return {row.key: row.revision for row in conn.execute(sa.select(_keys.c.key, _keys.c.revision))}


def save_key(conn: Connection, key: str, revision: int, written_at: datetime) -> None:
    values = {"revision": revision, "written_at": _micros(written_at)}
    if conn.execute(_keys.update().where(_keys.c.key == key).values(values)).rowcount == 0:
        conn.execute(_keys.insert().values(key=key, **values))


def forget_keys(conn: Connection, before: datetime) -> None:
    """Drops the keys of a bucket that is no more."""
    conn.execute(_keys.delete().where(_keys.c.written_at < _micros(before)))


# Halts


def open_halts(conn: Connection, key: str | None = None) -> list[Halt]:
    """The halts that stand, of one key or of all, oldest first."""
    query = sa.select(_halts).where(_halts.c.closed_at.is_(None)).order_by(_halts.c.requested_at, _halts.c.target)
    return [halt_of(row) for row in conn.execute(query if key is None else query.where(_halts.c.key == key))]


def halt_of(row: Row[tuple[object, ...]]) -> Halt:
    """The halt of a row of its table."""
    reported = [] if row.report is None else msgspec.json.decode(row.report, type=SwitchContained).instances
    return Halt(
        key=row.key,
        target=row.target or None,
        epoch=row.epoch,
        record=msgspec.json.decode(row.record, type=SwitchRecord),
        requested_at=_time(row.requested_at),
        phase=row.phase,
        contained_at=None if row.contained_at is None else _time(row.contained_at),
        lapsed=lapsed(reported),
        states=states(reported),
    )


def _is(halt: Halt) -> sa.ColumnElement[bool]:
    return sa.and_(
        _halts.c.key == halt.key,
        _halts.c.target == (halt.target or _ALL),
        _halts.c.epoch == halt.epoch,
        _halts.c.requested_at == _micros(halt.requested_at),
        _halts.c.closed_at.is_(None),
    )


def add_halt(conn: Connection, halt: Halt) -> None:
    conn.execute(
        _halts.insert().values(
            key=halt.key,
            target=halt.target or _ALL,
            epoch=halt.epoch,
            requested_at=_micros(halt.requested_at),
            record=control.encode(halt.record),
            phase=halt.phase,
            runs_stopped=0,
            cases=0,
        )
    )


def close_halt(conn: Connection, write: Write, target: Target, record: SwitchRecord) -> None:
    """Closes the halt of `target` that stands, if one does: `write` put `record` in its place."""
    where = sa.and_(_halts.c.key == write.key, _halts.c.target == (target or _ALL), _halts.c.closed_at.is_(None))
    values = {
        "closed_at": _micros(write.written_at), "ended_by": control.encode(record), "ended_epoch": write.revision,
    }  # fmt: skip
    conn.execute(_halts.update().where(where).values(values))


def completed(conn: Connection, halt: Halt, report: SwitchContained) -> SwitchContained:
    """`report` with what the halt has stopped so far. A revocation keeps the proof that it revokes."""
    row = conn.execute(sa.select(_halts).where(_is(halt))).first()
    if row is None:
        return report
    before = msgspec.json.decode(row.report, type=SwitchContained) if row.report and not report.instances else report
    first = None if row.first_case_at is None else max(0, row.first_case_at - row.requested_at) / 1_000_000
    return msgspec.structs.replace(
        report,
        seconds=before.seconds,
        instances=before.instances,
        runs_stopped=row.runs_stopped,
        cases=row.cases,
        first_case_seconds=first,
    )


def save_report(conn: Connection, halt: Halt, after: Halt, report: SwitchContained) -> bool:
    """Moves `halt` on to the phase of `after`, unless it was closed or moved on meanwhile. Returns whether it did."""
    contained_at = None if after.contained_at is None else _micros(after.contained_at)
    values = {"phase": after.phase, "contained_at": contained_at, "report": control.encode(report)}
    where = sa.and_(_is(halt), _halts.c.phase == halt.phase)
    return conn.execute(_halts.update().where(where).values(values)).rowcount > 0


def _caused(epoch: int, keys: Sequence[str], run_id: str | None) -> sa.ColumnElement[bool]:
    """The halt by which an agent stopped that had read one of `keys` at the revision `epoch`. Of a map that is the last
    halt of the run itself, which may be older than the map's last write. Without keys: what was written at `epoch`."""
    epoch = max(0, min(epoch, _NEWEST))
    stood = sa.or_(_halts.c.ended_epoch.is_(None), _halts.c.ended_epoch > epoch, _halts.c.epoch > _halts.c.ended_epoch)
    which = [_halts.c.key.in_(keys), _halts.c.epoch <= epoch, stood] if keys else [_halts.c.epoch == epoch]
    if run_id is not None:
        which.append(sa.or_(sa.not_(_halts.c.key.like("runs.%")), _halts.c.target.in_((_ALL, run_id))))
    last = sa.select(_halts.c.requested_at, _halts.c.epoch).where(*which)
    last = last.order_by(_halts.c.requested_at.desc(), _halts.c.epoch.desc()).limit(1)
    found = last.subquery()
    return sa.and_(
        *which,
        _halts.c.requested_at == sa.select(found.c.requested_at).scalar_subquery(),
        _halts.c.epoch == sa.select(found.c.epoch).scalar_subquery(),
    )


def note_stopped(conn: Connection, epoch: int, *, keys: Sequence[str], run_id: str) -> None:
    """Counts a run that ended because it had read one of `keys` at `epoch`."""
    where = _caused(epoch, keys, run_id)
    conn.execute(_halts.update().where(where).values(runs_stopped=_halts.c.runs_stopped + 1))


def note_case(
    conn: Connection, epoch: int, at: datetime, *, keys: Sequence[str] = (), run_id: str | None = None
) -> None:
    """Counts a case that the halt of `epoch` sent to its fallback at `at`. `keys`, by one of which the run was stopped,
    and `run_id` say which where one write halted several runs, or the key was written again before the run saw it."""
    first = sa.case((_halts.c.first_case_at <= _micros(at), _halts.c.first_case_at), else_=_micros(at))
    values = {"cases": _halts.c.cases + 1, "first_case_at": first}
    conn.execute(_halts.update().where(_caused(epoch, keys, run_id)).values(values))


def forget_halts(conn: Connection, before: datetime) -> None:
    """Drops halts that were closed before `before`."""
    conn.execute(_halts.delete().where(_halts.c.closed_at < _micros(before)))


# Instances


def instances(conn: Connection) -> list[Instance]:
    found = []
    for row in conn.execute(sa.select(_instances)):
        known = msgspec.json.decode(row.known, type=_Known)
        found.append(
            Instance(
                agent=row.agent,
                instance=row.instance,
                applied=known.applied,
                running=known.running,
                draining=known.draining,
                seen_at=_time(row.seen_at),
                lease=timedelta(seconds=known.lease),
                left=known.left,
                own_fallback=known.own_fallback,
                no_case=known.no_case,
                process=known.process,
                since=known.since,
            )
        )
    return found


def save_instances(conn: Connection, some: Sequence[Instance]) -> None:
    drop_instances(conn, some)
    rows = [
        {
            "agent": one.agent,
            "instance": one.instance,
            "seen_at": _micros(one.seen_at),
            "known": msgspec.json.encode(
                _Known(
                    applied=dict(one.applied),
                    running=one.running,
                    draining=one.draining,
                    lease=one.lease.total_seconds(),
                    left=one.left,
                    own_fallback=one.own_fallback,
                    no_case=one.no_case,
                    process=one.process,
                    since=one.since,
                )
            ),
        }
        for one in some
    ]
    if rows:
        conn.execute(_instances.insert(), rows)


def drop_instances(conn: Connection, some: Sequence[Instance]) -> None:
    which = sa.and_(_instances.c.agent == sa.bindparam("a"), _instances.c.instance == sa.bindparam("i"))
    if some:
        conn.execute(_instances.delete().where(which), [{"a": one.agent, "i": one.instance} for one in some])


# Runs that have a record in a map, and runs in flight of agents without presence


def map_runs(conn: Connection, agent: str | None = None) -> list[MapRun]:
    query = sa.select(_runs) if agent is None else sa.select(_runs).where(_runs.c.agent == agent)
    return [
        MapRun(
            row.agent, row.run_id, _time(row.written_at), None if row.finished_at is None else _time(row.finished_at)
        )
        for row in conn.execute(query)
    ]


def add_map_run(conn: Connection, run: MapRun) -> None:
    finished_at = None if run.finished_at is None else _micros(run.finished_at)
    conn.execute(
        _runs.insert().values(
            agent=run.agent, run_id=run.run_id, written_at=_micros(run.written_at), finished_at=finished_at
        )
    )


def drop_map_run(conn: Connection, agent: str, run_id: str) -> None:
    conn.execute(_runs.delete().where(_runs.c.agent == agent, _runs.c.run_id == run_id))


def finish_map_runs(conn: Connection, runs: Iterable[tuple[str, str]], at: datetime) -> None:
    """Marks them as finished; those that are so already keep their time."""
    for agent, run_id in runs:
        where = sa.and_(_runs.c.agent == agent, _runs.c.run_id == run_id, _runs.c.finished_at.is_(None))
        conn.execute(_runs.update().where(where).values(finished_at=_micros(at)))


def strays(conn: Connection) -> list[tuple[str, str, datetime]]:
    return [(row.agent, row.run_id, _time(row.last_at)) for row in conn.execute(sa.select(_strays))]


def save_strays(conn: Connection, rows: Sequence[tuple[str, str, datetime]]) -> None:
    """Replaces all of them."""
    conn.execute(_strays.delete())
    if rows:
        conn.execute(_strays.insert(), [{"agent": a, "run_id": r, "last_at": _micros(at)} for a, r, at in rows])
