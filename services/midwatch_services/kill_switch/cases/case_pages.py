"""Cases a page at a time, as people leaf through them or look for somebody's."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .. import tables
from ..tables import from_micros, micros
from .case_store import WAITING, WITHOUT_BODY, plain

_cases = tables.Case.__table__


class Place(NamedTuple):
    """Where in the list a page ends: when its last case was opened, in microseconds, and which that is."""

    opened_at: int
    case_id: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which cases: all that is given must be so. `states`: none are all. `about`: a ticket, a number at the help desk,
    a customer, a run, or a case's own name. `after`: the last that was seen."""

    states: tuple[str, ...] = WAITING
    agent: str | None = None
    about: str = ""
    after: Place | None = None
    drill: bool = False
    newest: bool = False
    limit: int = 100


class Waits(NamedTuple):
    """How many live cases of an agent are in one of the `WAITING` states, and when the oldest of them was opened."""

    agent: str
    state: str
    cases: int
    oldest: datetime


def find(conn: Connection, wanted: Wanted) -> list[dict[str, Any]]:
    """The cases without their bodies, as `case_store.list_cases` reads them."""
    query = sa.select(*WITHOUT_BODY).where(*_asked(conn, wanted))
    opened_at, case_id = _cases.c.opened_at, _cases.c.case_id
    if (last := wanted.after) is not None:
        beyond = opened_at < last.opened_at if wanted.newest else opened_at > last.opened_at
        query = query.where(sa.or_(beyond, sa.and_(opened_at == last.opened_at, case_id > last.case_id)))
    query = query.order_by(opened_at.desc() if wanted.newest else opened_at, case_id).limit(wanted.limit)
    return [plain(row) for row in conn.execute(query)]


def count(conn: Connection, wanted: Wanted) -> int:
    """How many there are on all pages."""
    query = sa.select(sa.func.count()).select_from(_cases).where(*_asked(conn, wanted))
    return int(conn.execute(query).scalar_one())


def waits(conn: Connection) -> list[Waits]:
    """What waits or is in somebody's hands, counted by agent and state."""
    agent, state, oldest = _cases.c.agent, _cases.c.state, sa.func.min(_cases.c.opened_at)
    query = sa.select(agent, state, sa.func.count(), oldest).where(state.in_(WAITING), _cases.c.mode == "live")
    return [
        Waits(row[0], row[1], int(row[2]), from_micros(int(row[3])))
        for row in conn.execute(query.group_by(agent, state).order_by(agent, state))
    ]


def place_of(case: dict[str, Any]) -> Place:
    """Where the list goes on behind a case that was found."""
    return Place(micros(datetime.fromisoformat(case["opened_at"])), case["case_id"])


def _asked(conn: Connection, wanted: Wanted) -> list[sa.ColumnElement[bool]]:
    clauses: list[sa.ColumnElement[bool]] = []
    if wanted.states:
        clauses.append(_cases.c.state.in_(wanted.states))
    if wanted.agent is not None:
        clauses.append(_cases.c.agent == wanted.agent)
    if not wanted.drill:
        clauses.append(_cases.c.mode != "drill")
    if wanted.about:
        clauses.append(_about(conn, wanted.about))
    return clauses


def _about(conn: Connection, text: str) -> sa.ColumnElement[bool]:
    case = text if text.startswith("case-") else f"case-{text}"
    return sa.or_(
        _cases.c.ticket.icontains(text, autoescape=True), _cases.c.reference.icontains(text, autoescape=True),
        _cases.c.case_id.startswith(case, autoescape=True), _cases.c.run_id == text, _of_customer(conn, text),
    )  # fmt: skip


def _of_customer(conn: Connection, customer: str) -> sa.ColumnElement[bool]:
    """Only the body names the customer, as JSON in bytes, which the database looks through itself."""
    written = b'"customer":' + msgspec.json.encode(customer)
    if conn.dialect.name == "sqlite":
        return sa.func.instr(_cases.c.body, written) > 0
    for sign in (b"\\", b"%", b"_"):
        written = written.replace(sign, b"\\" + sign)
    return sa.type_coerce(_cases.c.body, sa.LargeBinary).op("LIKE", is_comparison=True)(
        sa.literal(b"%" + written + b"%", sa.LargeBinary)
    )
