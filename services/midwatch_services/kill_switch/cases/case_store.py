"""kill-switch's tables of cases: what stands, what happened to each, and the runs of which a case can come."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from midwatch.contracts.governance import CaseOpened
from midwatch.errors import MidwatchError
from midwatch.runtime.database import upsert

from .. import tables
from ..tables import from_micros as _time
from ..tables import micros as _micros
from .flights import Changes, Flight
from .routing import CLAIMED, Case, Note

_cases = tables.Case.__table__
_history = tables.CaseStep.__table__
_outcomes = tables.Outcome.__table__
_AT_ONCE = 500  # names in one query
_flights = tables.Flight.__table__
_positions = tables.Position.__table__

_INSERT, _HISTORY_INSERT = _cases.insert(), _history.insert()
_TIMES = ("opened_at", "updated_at", "due_at")
WITHOUT_BODY = [_cases.c[field.name] for field in fields(Case)]
WAITING = ("offered", "open", "taken")  # for whom somebody must still do something
HELD = ("offered", "taken")  # of these, what somebody has
_PREFIX = "case-"


class AmbiguousCase(MidwatchError):
    """{prefix} may be {found}: type more of it."""


def not_seen_to(conn: Connection, agent: str, run_ids: Collection[str]) -> set[str]:
    """Those of an agent's runs that have neither ended nor a case beyond its own program's."""
    found, asked = set[str](), sorted(run_ids)
    for table, others in ((_outcomes, sa.true()), (_cases, _cases.c.state != "claimed")):
        for at in range(0, len(asked), _AT_ONCE):
            which = (table.c.agent == agent, table.c.run_id.in_(asked[at : at + _AT_ONCE]), others)
            found |= set(conn.execute(sa.select(table.c.run_id).where(*which)).scalars())
    return {one for one in asked if not {one, one.replace("\0", "\ufffd")} & found}  # as PostgreSQL holds it


# For commands


def list_cases(
    conn: Connection, *, agent: str | None = None, state: str | Sequence[str] | None = None, mode: str | None = None,
    drill: bool = False, newest: bool = False, limit: int | None = 100,
) -> list[dict[str, Any]]:  # fmt: skip
    """Cases without their bodies, oldest first unless the `newest` are asked for. No `state` is all that wait or are in
    someone's hands; `all` is every one, those too that an agent's own program has (`claimed`)."""
    query = sa.select(*WITHOUT_BODY).where(*_asked(agent, mode, drill))
    if state != "all":
        states = WAITING if state is None else (state,) if isinstance(state, str) else state
        query = query.where(_cases.c.state.in_(states))
    order = _cases.c.opened_at.desc() if newest else _cases.c.opened_at
    return [plain(row) for row in conn.execute(query.order_by(order, _cases.c.case_id).limit(limit))]


def holders(conn: Connection, *, agent: str | None = None, mode: str | None = None) -> dict[str, int]:
    """How many cases each person has, or agent that has or is asked to take them; under `""` those that nobody has."""
    holder = sa.case(
        (_cases.c.state == "taken", _cases.c.taken_by), (_cases.c.state == "offered", _cases.c.taker), else_=""
    ).label("holder")  # fmt: skip
    query = sa.select(holder, sa.func.count()).where(_cases.c.state.in_(WAITING), *_asked(agent, mode))
    return {name: int(count) for name, count in conn.execute(query.group_by(holder))}


def _asked(agent: str | None, mode: str | None, drill: bool = False) -> list[sa.ColumnElement[bool]]:
    clauses = [] if agent is None else [_cases.c.agent == agent]
    if mode is not None:
        return [*clauses, _cases.c.mode == mode]
    return clauses if drill else [*clauses, _cases.c.mode != "drill"]


def read_case(conn: Connection, name: str) -> dict[str, Any] | None:
    """The case that is called `name` or is the only one whose name begins so, with what was said of it under `case`
    (None while its agent's own program has it). Raises AmbiguousCase."""
    whole = name if name.startswith(_PREFIX) else _PREFIX + name
    rows = conn.execute(
        sa.select(_cases).where(_cases.c.case_id.startswith(whole, autoescape=True)).order_by(_cases.c.case_id).limit(5)
    ).all()
    exact = [row for row in rows if row.case_id == whole]
    if not exact and len(rows) > 1:
        raise AmbiguousCase(prefix=name, found=", ".join(row.case_id for row in rows))
    row = next(iter(exact or rows), None)
    if row is None:
        return None
    return plain(row) | {"case": None if row.body is None else msgspec.json.decode(row.body)}


def of_run(conn: Connection, agent: str, run_id: str) -> dict[str, Any] | None:
    """The case of a run, without its body; None where there is none."""
    query = sa.select(*WITHOUT_BODY).where(_cases.c.agent == agent, _cases.c.run_id == run_id)
    row = conn.execute(query.order_by(_cases.c.opened_at).limit(1)).first()
    return None if row is None else plain(row)


def history(conn: Connection, case_id: str) -> list[dict[str, Any]]:
    """What happened to a case, in order: `at`, `who`, `what`, `note`."""
    query = sa.select(_history).where(_history.c.case_id == case_id).order_by(_history.c.position)
    return [
        {"at": _time(row.at).isoformat(), "who": row.who, "what": row.what, "note": row.note}
        for row in conn.execute(query)
    ]


def plain(row: Row[Any]) -> dict[str, Any]:
    found = {field.name: getattr(row, field.name) for field in fields(Case)}
    for name in _TIMES:
        found[name] = None if found[name] is None else _time(found[name]).isoformat()
    return found | {"chain": msgspec.json.decode(found["chain"])}


# For the router


def get(conn: Connection, case_id: str) -> Case | None:
    row = conn.execute(sa.select(*WITHOUT_BODY).where(_cases.c.case_id == case_id)).first()
    return None if row is None else _case(row)


def known(conn: Connection, case_ids: Sequence[str]) -> set[str]:
    """Those of `case_ids` that have a case."""
    return set(conn.execute(sa.select(_cases.c.case_id).where(_cases.c.case_id.in_(case_ids))).scalars())


def unfinished(conn: Connection) -> list[Case]:
    """Every case that is not closed."""
    return [_case(row) for row in conn.execute(sa.select(*WITHOUT_BODY).where(_cases.c.state != "closed"))]


def body(conn: Connection, case_id: str) -> CaseOpened | None:
    found = conn.execute(sa.select(_cases.c.body).where(_cases.c.case_id == case_id)).scalar()
    return None if found is None else msgspec.json.decode(found, type=CaseOpened)


def is_blanked(conn: Connection, case_id: str) -> bool:
    """Whether what a case that an agent's own program has claimed said was erased."""
    which = (_history.c.case_id == case_id, _history.c.what == CLAIMED, _history.c.note == "")
    return conn.execute(sa.select(_history.c.case_id).where(*which)).first() is not None


def save(conn: Connection, case: Case, body: CaseOpened | None = None, *, new: bool = False) -> None:
    """Adds a `new` case, or puts it in the place of its older self; without `body` that stays."""
    values = asdict(case) | {"chain": msgspec.json.encode(case.chain).decode()}
    for name in _TIMES:
        values[name] = None if values[name] is None else _micros(values[name])
    if body is not None:
        values["body"] = msgspec.json.encode(body)
    # Given apart from the statement, so that it is the same for every case and is compiled once.
    if new:
        conn.execute(_INSERT, values | {"body": values.get("body")})
    else:
        conn.execute(_cases.update().where(_cases.c.case_id == sa.bindparam("this")), values | {"this": case.case_id})


def note(conn: Connection, case_id: str, notes: Sequence[Note], *, new: bool = False) -> None:
    """Adds to the history of a case."""
    if not notes:
        return
    last = sa.select(sa.func.count()).select_from(_history).where(_history.c.case_id == case_id)
    first = 0 if new else conn.execute(last).scalar_one()
    conn.execute(
        _HISTORY_INSERT,
        [
            {
                "case_id": case_id,
                "position": place,
                "at": _micros(one.at),
                "who": one.who,
                "what": one.what,
                "note": one.note,
            }
            for place, one in enumerate(notes, first)
        ],
    )


def _case(row: Row[Any]) -> Case:
    values = {field.name: getattr(row, field.name) for field in fields(Case)}
    for name in _TIMES:
        values[name] = None if values[name] is None else _time(values[name])
    return Case(**values | {"chain": tuple(msgspec.json.decode(values["chain"]))})


def forget(conn: Connection, before: datetime) -> None:
    """Drops cases that were closed before `before`, with their history."""
    old = sa.and_(_cases.c.state == "closed", _cases.c.updated_at < _micros(before))
    conn.execute(_history.delete().where(_history.c.case_id.in_(sa.select(_cases.c.case_id).where(old))))
    conn.execute(_cases.delete().where(old))


# Runs in flight


def flights(conn: Connection) -> tuple[int, dict[tuple[str, str], Flight]]:
    """How far the stream of runs was followed, and the runs in flight then."""
    seq = conn.execute(sa.select(_positions.c.seq)).scalar()
    rows = conn.execute(sa.select(_flights))
    return seq or 0, {
        (row.agent, row.run_id): Flight(row.first_seq, _time(row.stored_at), row.instance) for row in rows
    }


def save_flights(conn: Connection, stream: str, changes: Changes) -> None:
    """Moves on: runs that have begun since, and those that are not in flight any more."""
    which = sa.and_(_flights.c.agent == sa.bindparam("a"), _flights.c.run_id == sa.bindparam("r"))
    if changes.over:
        conn.execute(_flights.delete().where(which), [{"a": agent, "r": run_id} for agent, run_id in changes.over])
    if changes.begun:
        rows = [(*run, one.first, _micros(one.at), one.instance) for run, one in changes.begun.items()]
        columns = ("agent", "run_id", "first_seq", "stored_at", "instance")
        upsert(conn, _flights.name, columns, rows, ("agent", "run_id"))
    upsert(conn, _positions.name, ("stream", "seq"), [(stream, changes.seq)], ("stream",))
