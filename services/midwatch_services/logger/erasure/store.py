"""The log's memory of erasures: what is asked, which runs it comes to, what was blanked, who has confirmed."""

import hashlib
import hmac
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from midwatch.contracts.erasure import ErasedRun, ErasureRequested
from midwatch.runtime.database import insert_new

from .. import tables as log_tables
from . import tables
from .match import RunKey

_erasures, _erased = tables.Erasure.__table__, tables.ErasedRun.__table__
_parts = tables.Part.__table__
_runs_table = log_tables.Run.__table__
_key = sa.tuple_(_erased.c.agent, _erased.c.run_id)
_CHUNK = 400  # keys of one query
# A run may name its ticket in another event than that which its row has.
_OF_TICKET = (
    "(r.ticket = :ticket OR EXISTS (SELECT 1 FROM logger_events t "
    "WHERE t.agent = r.agent AND t.run_id = r.run_id AND t.ticket = :ticket))"
)
_TICKETS = sa.text(
    "SELECT ticket FROM logger_runs WHERE agent = :agent AND run_id = :run_id UNION "
    "SELECT ticket FROM logger_events WHERE agent = :agent AND run_id = :run_id"
)

Places = dict[str, dict[str, int]]  # by place: how many of what were erased there


@dataclass
class Work:
    """An erasure that is under way, or over."""

    id: str
    phase: str
    asked: ErasureRequested | None
    by: str
    reason: str
    asked_at: str
    salt: str
    reference: str
    upto: int | None
    governance: int | None
    places: Places = field(default_factory=dict)
    proof: dict[str, Any] | None = None
    done_at: str | None = None
    matched: dict[str, str] | None = None

    def count(self, place: str, counts: dict[str, int]) -> None:
        """Adds to what was erased at a place."""
        known = self.places.setdefault(place, {})
        for name, count in counts.items():
            known[name] = known.get(name, 0) + count


@dataclass
class Part:
    """Some runs of an erasure, as the services are told of them."""

    erasure: str
    part: int
    runs: list[ErasedRun]
    alerts: list[str]
    upto: int | None = None
    confirmed: Places = field(default_factory=dict)


def references(asked: ErasureRequested) -> list[str]:
    """What was matched."""
    return [name for name in (asked.customer, asked.ticket, asked.run_id) if name]


def hashed(salt: str, *names: str) -> str:
    """HMAC-SHA-256 of what was matched, by which whoever knows it can tell it again."""
    text = "\0".join(names).encode("utf-8", "replace")
    return hmac.new(bytes.fromhex(salt), text, hashlib.sha256).hexdigest()


def matched(salt: str, asked: ErasureRequested) -> dict[str, str]:
    """By kind, the HMAC of what was matched, so that it can be told after it is forgotten."""
    names = {"customer": asked.customer, "ticket": asked.ticket, "run": asked.run_id}
    return {kind: hashed(salt, name) for kind, name in names.items() if name}


def add(conn: Connection, asked: ErasureRequested, at: str) -> None:
    """Takes a request; again changes nothing."""
    salt = secrets.token_hex(16)
    reference = hashed(salt, *references(asked))
    columns = ("id", "phase", "asked", "by", "reason", "asked_at", "salt", "reference", "places", "matched")
    row = (
        asked.erasure_id, "asked", msgspec.json.encode(asked).decode(), asked.by, asked.reason, at, salt, reference,
        "{}", msgspec.json.encode(matched(salt, asked)).decode(),
    )  # fmt: skip
    insert_new(conn, _erasures.name, columns, [row], ("id",))


def save(conn: Connection, work: Work) -> None:
    """Writes how far an erasure is."""
    values = {
        "phase": work.phase, "asked": None if work.asked is None else msgspec.json.encode(work.asked).decode(),
        "upto": work.upto, "governance": work.governance, "places": msgspec.json.encode(work.places).decode(),
        "proof": None if work.proof is None else msgspec.json.encode(work.proof).decode(), "done_at": work.done_at,
        "matched": None if work.matched is None else msgspec.json.encode(work.matched).decode(),
    }  # fmt: skip
    conn.execute(_erasures.update().where(_erasures.c.id == work.id).values(values))


def read(conn: Connection, id: str | None = None, *, open_only: bool = False) -> list[Work]:
    """Erasures, the newest first: one, all, or those that are under way."""
    query = sa.select(_erasures).order_by(_erasures.c.asked_at.desc(), _erasures.c.id)
    if id is not None:
        query = query.where(_erasures.c.id == id)
    if open_only:
        query = query.where(_erasures.c.phase != "done")
    return [_work(row) for row in conn.execute(query)]


def _work(row: Any) -> Work:
    values = dict(row._mapping)
    values["asked"] = values["asked"] and msgspec.json.decode(values["asked"], type=ErasureRequested)
    values["places"] = msgspec.json.decode(values["places"])
    values["matched"] = values["matched"] and msgspec.json.decode(values["matched"])
    if values["matched"] is None and values["asked"]:  # of an earlier release, and still known
        values["matched"] = matched(values["salt"], values["asked"])
    values["proof"] = values["proof"] and msgspec.json.decode(values["proof"])
    return Work(**values)


# Runs


def find(conn: Connection, asked: ErasureRequested) -> list[ErasedRun]:
    """The runs that are meant. A customer's are also those of its tickets that name no customer: a run to which its
    case was handed over."""
    if asked.run_id is not None:
        where, given = "r.agent = :agent AND r.run_id = :run_id", {"agent": asked.agent, "run_id": asked.run_id}
        return _runs(conn, where, given) or [ErasedRun(agent=asked.agent or "", run_id=asked.run_id)]
    found: dict[RunKey, ErasedRun] = {}
    if asked.ticket is not None:
        found |= _keyed(_runs(conn, _OF_TICKET, {"ticket": asked.ticket}))
    if asked.customer is not None:
        found |= _keyed(_runs(conn, "r.customer = :customer", {"customer": asked.customer}))
        for ticket in sorted({ticket for run in found.values() for ticket in run.tickets}):
            found |= _keyed(_runs(conn, f"r.customer IS NULL AND {_OF_TICKET}", {"ticket": ticket}))
    return [found[key] for key in sorted(found)]


def _keyed(runs: Iterable[ErasedRun]) -> dict[RunKey, ErasedRun]:
    return {(run.agent, run.run_id): run for run in runs}


def _runs(conn: Connection, where: str, given: dict[str, Any]) -> list[ErasedRun]:
    query = sa.text(f"SELECT r.agent, r.run_id, r.resolution FROM logger_runs r WHERE {where}")  # noqa: S608
    return [
        ErasedRun(agent=row[0], run_id=row[1], tickets=_tickets(conn, row[0], row[1]), finished=row[2] is not None)
        for row in conn.execute(query, given).all()
    ]


def _tickets(conn: Connection, agent: str, run_id: str) -> list[str]:
    given = {"agent": agent, "run_id": run_id}
    return sorted(name for name in conn.execute(_TICKETS, given).scalars() if name)


def remember(conn: Connection, erasure: str, runs: Sequence[ErasedRun]) -> None:
    """From now on what comes of these runs is erased when it comes."""
    for run in runs:
        columns = ("agent", "run_id", "erasure", "late", "tickets")
        row = (run.agent, run.run_id, erasure, 0, msgspec.json.encode(run.tickets).decode())
        if not insert_new(conn, _erased.name, columns, [row], ("agent", "run_id")):
            add_tickets(conn, (run.agent, run.run_id), run.tickets)


def erased(conn: Connection, runs: Collection[RunKey]) -> dict[RunKey, str]:
    """Those of the runs that were erased, and by which erasure. Costs next to nothing while none was."""
    if conn.exec_driver_sql("SELECT 1 FROM logger_erased_runs LIMIT 1").first() is None:
        return {}
    keys, found = list(runs), dict[RunKey, str]()
    for start in range(0, len(keys), _CHUNK):
        query = sa.select(_erased.c.agent, _erased.c.run_id, _erased.c.erasure)
        rows = conn.execute(query.where(_key.in_(keys[start : start + _CHUNK])))
        found |= {(agent, run_id): erasure for agent, run_id, erasure in rows}
    return found


def asked_at(conn: Connection, run: RunKey) -> str | None:
    """When it was asked that a run be erased; None where nobody did."""
    query = sa.select(_erasures.c.asked_at).join(_erased, _erased.c.erasure == _erasures.c.id).where(_is(run))
    asked: str | None = conn.execute(query).scalar()
    return asked


def note_late(conn: Connection, runs: Mapping[RunKey, Collection[str]]) -> None:
    """Something came of these runs after they were erased, and named these tickets."""
    for run, tickets in runs.items():
        add_tickets(conn, run, tickets)
        conn.execute(_erased.update().where(_is(run)).values(late=1))


def add_tickets(conn: Connection, run: RunKey, tickets: Collection[str]) -> None:
    """Adds to the tickets of an erased run."""
    known = conn.execute(sa.select(_erased.c.tickets).where(_is(run))).scalar()
    every = sorted({*msgspec.json.decode(known or "[]"), *tickets})
    conn.execute(_erased.update().where(_is(run)).values(tickets=msgspec.json.encode(every).decode()))


def take_late(conn: Connection) -> dict[str, list[ErasedRun]]:
    """The runs of which something has come since, by erasure; each is given once."""
    found: dict[str, list[ErasedRun]] = {}
    for erasure, run in _remembered(conn, _erased.c.late == 1):
        found.setdefault(erasure, []).append(run)
    if found:
        conn.execute(_erased.update().where(_erased.c.late == 1).values(late=0))
    return found


def has_late(conn: Connection) -> bool:
    """Whether `take_late` would give anything."""
    return conn.execute(sa.select(_erased.c.agent).where(_erased.c.late == 1).limit(1)).first() is not None


def runs_of(conn: Connection, erasure: str) -> list[ErasedRun]:
    """The runs of an erasure."""
    return [run for _, run in _remembered(conn, _erased.c.erasure == erasure)]


def every_run(conn: Connection) -> list[ErasedRun]:
    """The runs of all erasures."""
    return [run for _, run in remembered(conn)]


def remembered(conn: Connection) -> list[tuple[str, ErasedRun]]:
    """The runs of all erasures, each with the erasure."""
    return _remembered(conn, sa.true())


def _remembered(conn: Connection, which: sa.ColumnElement[bool]) -> list[tuple[str, ErasedRun]]:
    same = sa.and_(_runs_table.c.agent == _erased.c.agent, _runs_table.c.run_id == _erased.c.run_id)
    query = sa.select(_erased, _runs_table.c.resolution).outerjoin(_runs_table, same).where(which)
    return [
        (
            row.erasure,
            ErasedRun(
                agent=row.agent, run_id=row.run_id, tickets=msgspec.json.decode(row.tickets),
                finished=row.resolution is not None,
            ),
        )
        for row in conn.execute(query.order_by(_erased.c.agent, _erased.c.run_id)).all()
    ]  # fmt: skip


def _is(run: RunKey) -> sa.ColumnElement[bool]:
    return sa.and_(_erased.c.agent == run[0], _erased.c.run_id == run[1])


def close(conn: Connection, erasure: str) -> None:
    """Drops what names a run's tickets or the alerts about it: everybody has erased them."""
    conn.execute(_erased.update().where(_erased.c.erasure == erasure, _erased.c.late == 0).values(tickets="[]"))
    conn.execute(_parts.update().where(_parts.c.erasure == erasure).values(runs="[]", alerts="[]"))


# Parts


def add_parts(conn: Connection, erasure: str, groups: Iterable[Sequence[ErasedRun]], alerts: Collection[str]) -> None:
    """Adds what the services are to be told."""
    last = conn.execute(sa.select(sa.func.max(_parts.c.part)).where(_parts.c.erasure == erasure)).scalar() or 0
    for part, runs in enumerate(groups, last + 1):
        conn.execute(
            _parts.insert().values(
                erasure=erasure, part=part, runs=msgspec.json.encode(runs).decode(),
                alerts=msgspec.json.encode(sorted(alerts)).decode(), upto=None, confirmed="{}",
            )
        )  # fmt: skip


def parts(conn: Connection, erasure: str) -> list[Part]:
    """All that the services were or are to be told of an erasure."""
    query = sa.select(_parts).where(_parts.c.erasure == erasure).order_by(_parts.c.part)
    return [
        Part(
            row.erasure, row.part, msgspec.json.decode(row.runs, type=list[ErasedRun]),
            msgspec.json.decode(row.alerts, type=list[str]), row.upto, msgspec.json.decode(row.confirmed),
        )
        for row in conn.execute(query)
    ]  # fmt: skip


def save_part(conn: Connection, part: Part) -> None:
    """Writes what a part comes to."""
    values = {
        "runs": msgspec.json.encode(part.runs).decode(), "alerts": msgspec.json.encode(part.alerts).decode(),
        "upto": part.upto,
    }  # fmt: skip
    conn.execute(_parts.update().where(_parts.c.erasure == part.erasure, _parts.c.part == part.part).values(values))


def confirm(conn: Connection, erasure: str, part: int, service: str, counts: dict[str, int]) -> None:
    """Takes a service's word; again changes nothing."""
    which = (_parts.c.erasure == erasure, _parts.c.part == part)
    known = conn.execute(sa.select(_parts.c.confirmed).where(*which)).scalar()
    if known is not None:
        confirmed = {service: counts} | msgspec.json.decode(known)
        conn.execute(_parts.update().where(*which).values(confirmed=msgspec.json.encode(confirmed).decode()))
