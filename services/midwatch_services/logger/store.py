"""The run log's tables: what the logger saves, and the queries by which everyone reads it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from os import urandom
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from midwatch.contracts.codec import RunEvent
from midwatch.contracts.control import ToolRule
from midwatch.contracts.envelope import Envelope
from midwatch.contracts.governance import AlertRaised
from midwatch.contracts.runs import Mode
from midwatch.errors import Temporary
from midwatch.runtime import faults
from midwatch.runtime.database import insert_new, upsert
from midwatch.runtime.delivery import Received

from . import tables
from .decide import LARGEST_SEQ, Alert, AlertRow, RunRow, clock_note, fold, fold_alert, text_of
from .erasure import arrival, blank
from .erasure import store as erasures
from .evidence.chain_store import note_late
from .evidence.leaf import SALT, content_hash, leaf_hash
from .partitions import make_partitions
from .places import in_the_first_stream
from .policy import POLICY, Policy
from .reading_store import Wanted, data_of, find_runs
from .redaction.book import BY_DEFAULT, RedactionBook
from .reviews import Review, ReviewRow, fold_review
from .search.index_store import touch, touch_late

EVENT_COLUMNS = tuple(tables.Event.__table__.columns.keys())
RUN_COLUMNS = tuple(tables.Run.__table__.columns.keys())
_MONTH, _PLACE, _LEAF, _STORED, _TIME = (
    EVENT_COLUMNS.index(name) for name in ("month", "place", "leaf", "stored_at", "time")
)
_KEYS = ("agent", "run_id", "month")
ALERT_COLUMNS = tuple(tables.Alert.__table__.columns.keys())
REVIEW_COLUMNS = tuple(tables.Review.__table__.columns.keys())
_rows = msgspec.json.Decoder(list[tuple[Any, ...]])


Tools = Mapping[str, ToolRule]
Key = tuple[str, str]  # agent and run id


def _no_tools(_: str) -> Tools:
    return {}


def save(
    conn: Connection,
    batch: Sequence[Received],
    policy: Policy = POLICY,
    tools: Callable[[str], Tools] = _no_tools,
    place: Callable[[Received], int] = in_the_first_stream,
    lock: Callable[[Connection], None] = lambda _: None,
    redactions: RedactionBook = BY_DEFAULT,
) -> int:
    """Saves the events that are not in the log yet and folds them into their runs. Returns how many were new.

    `tools`: those of an agent's card, which may say what a call costs. `place`: where each stands in the log. `lock`:
    keeps others from the runs' rows until the transaction has ended; the events need none. Nothing of a batch is used
    as it was sent: rows are made of what `redactions` leave of it. Raises Temporary where another logger put the run
    into another month meanwhile, or erased it.
    """
    batch = redactions.events(batch)
    salts = urandom(SALT * len(batch))
    rows = [
        event_row(received, place(received), salts[SALT * at : SALT * (at + 1)], policy)
        for at, received in enumerate(batch)
    ]
    months = _months(conn, rows)
    for row in rows:
        row[_MONTH] = months[row[0], row[2]]
    if erased := erasures.erased(conn, months):
        lock(conn)  # what is noted goes into the chains
        rows = [arrival.blanked(row, erased) for row in rows]
    make_partitions(conn, set(months.values()), lock)
    fresh = insert_new(conn, "logger_events", EVENT_COLUMNS, rows, ("agent", "id"))
    if erased:
        arrival.note(conn, erased, batch, rows, fresh)
    faults.reach("logger.inserted")
    if fresh:
        lock(conn)
        if erasures.erased(conn, months) != erased:
            raise Temporary("a run was erased as more of it came", delay=0.1)
        note_late(conn, ((rows[at][0], rows[at][_PLACE], rows[at][_LEAF]) for at in fresh))
        folded = _folded(conn, [(batch[at].event, rows[at]) for at in fresh], months, policy, tools)
        if erased:
            folded = [arrival.folded(row, erased) for row in folded]
        upsert(conn, "logger_runs", RUN_COLUMNS, [_columns(row) for row in folded], ("agent", "run_id"))
        touch_late(conn, ((rows[at][0], rows[at][2], rows[at][_PLACE], rows[at][_STORED]) for at in fresh))
    faults.reach("logger.folded")
    return len(fresh)


def _folded(
    conn: Connection, fresh: Sequence[tuple[RunEvent, Sequence[Any]]], months: Mapping[Key, str], policy: Policy,
    tools: Callable[[str], Tools],
) -> list[RunRow]:  # fmt: skip
    """The rows of the runs with the new events in them, each given with its columns."""
    events: dict[Key, list[tuple[RunEvent, str]]] = {}
    stored: dict[Key, str] = {}
    for event, row in fresh:
        key = row[0], row[2]
        events.setdefault(key, []).append((event, row[_TIME]))
        stored[key] = max(row[_STORED], stored.get(key, ""))
    known = _load_runs(conn, list(events))
    if any(row.month != months[key] for key, row in known.items()):
        raise Temporary("another logger began the same run in another month", delay=0.1)
    of_card = {agent: tools(agent) for agent in {agent for agent, _ in events}}
    folded = []
    for key, of_run in events.items():
        run = known.get(key) or RunRow(agent=key[0], run_id=key[1], month=months[key])
        run.stored_at = max(run.stored_at, stored[key])
        folded.append(fold(run, of_run, policy, of_card[key[0]]))
    return folded


def _months(conn: Connection, rows: Sequence[list[Any]]) -> dict[Key, str]:
    """The month of each run that the events are of: that of its row, else that of its first event here."""
    firsts = {(row[0], row[2]): row[_MONTH] for row in reversed(rows)}
    return firsts | {(agent, run_id): month for agent, run_id, month in _read_runs(conn, list(firsts), _KEYS)}


def save_alert(conn: Connection, event: Envelope[Alert], redactions: RedactionBook = BY_DEFAULT) -> None:
    """Folds one alert event into its alert; again changes nothing."""
    found = conn.execute(
        sa.text(f"SELECT {', '.join(ALERT_COLUMNS)} FROM logger_alerts WHERE alert_id = :id"),  # noqa: S608
        {"id": _text(event.data.alert_id)},
    ).first()
    row = AlertRow(**found._mapping) if found else AlertRow(alert_id=_text(event.data.alert_id))
    event = redactions.alert(event, event.data.agent if isinstance(event.data, AlertRaised) else row.agent)
    row = fold_alert(row, event)
    if row.raised and row.agent and row.run_id and erasures.erased(conn, [(row.agent, row.run_id)]):
        row.raised, row.resolved_reason = blank.alert_of(row.raised), None
    upsert(conn, "logger_alerts", ALERT_COLUMNS, [_columns(row)], ("alert_id",))
    if row.agent is not None and row.run_id is not None:
        touch(conn, [(_text(row.agent), _text(row.run_id), text_of(event.time), True)])


def save_review(conn: Connection, event: Envelope[Review]) -> None:
    """Folds one review event into the row of its run; again changes nothing."""
    key = {"agent": _text(event.data.agent), "run_id": _text(event.data.run_id)}
    found = conn.execute(
        sa.text(f"SELECT {', '.join(REVIEW_COLUMNS)} FROM logger_reviews WHERE agent = :agent AND run_id = :run_id"),  # noqa: S608
        key,
    ).first()
    row = fold_review(ReviewRow(**found._mapping) if found else ReviewRow(**key), event)
    upsert(conn, "logger_reviews", REVIEW_COLUMNS, [_columns(row)], ("agent", "run_id"))
    touch(conn, [(row.agent, row.run_id, text_of(event.time), True)])


def save_decision(
    conn: Connection, event: Envelope[Alert] | Envelope[Review], redactions: RedactionBook = BY_DEFAULT
) -> None:
    """Saves what was decided of a run, by whichever kind it is."""
    if isinstance(event.data, Review):
        save_review(conn, event)
    else:
        save_alert(conn, event, redactions)


def event_row(received: Received, place: int, salt: bytes, policy: Policy = POLICY) -> list[Any]:
    """An event's columns, in the order of `EVENT_COLUMNS`; its month is that of its run, here still its own."""
    event, body = received.event, received.body
    data = event.data
    time, stored_at = event.time, text_of(received.stored_at)
    note = clock_note(time, received.stored_at, data.mode, policy)
    id, run_id, version, ticket = event.id, data.run_id, data.version, data.ticket
    if b"\\u0000" in body:
        id, run_id, version, ticket = _text(id), _text(run_id), _text(version), ticket and _text(ticket)
    agent, kind, seq, at, mode = event.agent, event.event, min(data.seq, LARGEST_SEQ), text_of(time), data.mode
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = body.decode("utf-8", "replace")
        body = text.encode()  # what is stored is what is proved
    content = content_hash(salt, body)
    leaf = leaf_hash(agent, id, run_id, kind, seq, at, stored_at, place, mode, version, content)
    return [
        agent, id, run_id, kind, seq, at, stored_at, mode, version, ticket, note, text, place,
        stored_at[:7], salt, leaf,
    ]  # fmt: skip


def _text(value: str) -> str:
    # PostgreSQL's text holds no NUL. The body keeps it, escaped.
    return value.replace("\0", "\ufffd") if "\0" in value else value


def _columns(row: RunRow | AlertRow | ReviewRow) -> list[Any]:
    return [_text(value) if isinstance(value, str) else value for value in msgspec.structs.astuple(row)]


def _load_runs(conn: Connection, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], RunRow]:
    rows = _read_runs(conn, keys, RUN_COLUMNS)
    return {(row[0], row[1]): RunRow(**dict(zip(RUN_COLUMNS, row, strict=True))) for row in rows}


def _read_runs(conn: Connection, keys: Sequence[tuple[str, str]], columns: Sequence[str]) -> list[Any]:
    raw: Any = conn.connection.driver_connection
    if conn.dialect.name == "sqlite":
        # One row with everything: each row fetched would give up and take back Python's global lock.
        names = ", ".join(f"r.{name}" for name in columns)
        found = raw.execute(
            f"SELECT json_group_array(json_array({names})) FROM json_each(?) k JOIN logger_runs r "  # noqa: S608
            "ON r.agent = k.value ->> 0 AND r.run_id = k.value ->> 1",
            (msgspec.json.encode(keys).decode(),),
        ).fetchone()[0]
        return list(_rows.decode(found))
    found = raw.execute(
        f"SELECT {', '.join(columns)} FROM logger_runs "  # noqa: S608
        "WHERE (agent, run_id) IN (SELECT * FROM unnest(%s::text[], %s::text[]))",
        ([agent for agent, _ in keys], [run_id for _, run_id in keys]),
    )
    return list(found.fetchall())


# What is brought in or rebuilt beside the stream


def load_runs(conn: Connection, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], RunRow]:
    """The rows of those of the runs (agent, run id) that the log has."""
    return _load_runs(conn, keys)


def save_runs(conn: Connection, rows: Iterable[RunRow]) -> None:
    """Puts these in the place of the rows of the same runs."""
    upsert(conn, "logger_runs", RUN_COLUMNS, [_columns(row) for row in rows], ("agent", "run_id"))


# Reading


def read_runs(
    conn: Connection,
    *,
    agent: str | None = None,
    run_id: str | None = None,
    ticket: str | None = None,
    mode: str | None = None,
    resolution: str | None = None,
    since: str | None = None,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """`find_runs` by what is asked most."""
    return find_runs(
        conn,
        Wanted(agent=agent, run_id=run_id, ticket=ticket, mode=mode, resolution=resolution, since=since, limit=limit),
    )


def read_events(
    conn: Connection, agent: str, run_id: str, *, first: int = 0, limit: int = -1
) -> list[dict[str, Any]]:  # fmt: skip
    """The events of a run in order, each with `data` as the agent published it; of one that was erased, only the
    erasure's id, as `erased`. With a `limit` so many, from the one at `first` on."""
    some = f" LIMIT {int(limit)} OFFSET {int(first)}" if limit >= 0 else ""
    query = sa.text(
        "SELECT id, event, seq, time, stored_at, note, body FROM logger_events "  # noqa: S608
        "WHERE agent = :agent AND run_id = :run_id "
        "AND month = (SELECT month FROM logger_runs WHERE agent = :agent AND run_id = :run_id) ORDER BY seq, time, id"
        f"{some}"
    )
    found = [dict(row._mapping) for row in conn.execute(query, {"agent": agent, "run_id": run_id})]
    return [_event(event, event.pop("body")) for event in found]


def _event(columns: dict[str, Any], body: str) -> dict[str, Any]:
    erasure = blank.erased_by(body)
    return {**columns, "data": data_of(body), **({} if erasure is None else {"erased": erasure})}


def count_events(conn: Connection, agent: str, mode: str, since: str) -> int:
    """How many events `read_stored` gives."""
    which = f"agent = :agent AND mode = :mode AND stored_at >= :since {blank.STANDS}"
    query = sa.text(f"SELECT count(*) FROM logger_events WHERE {which}")  # noqa: S608
    return int(conn.execute(query, {"agent": agent, "mode": mode, "since": since}).scalar_one())


def read_stored(conn: Connection, agent: str, mode: str, since: str) -> Iterator[tuple[str, str, str]]:
    """The events of an agent's runs in the order in which the server stored them: (event, stored at, body)."""
    which = f"agent = :agent AND mode = :mode AND stored_at >= :since {blank.STANDS}"
    query = sa.text(f"SELECT event, stored_at, body FROM logger_events WHERE {which} ORDER BY stored_at, seq, id")  # noqa: S608
    given = {"agent": agent, "mode": mode, "since": since}
    for row in conn.execution_options(yield_per=1000).execute(query, given):
        yield row[0], row[1], row[2]


def read_firsts(conn: Connection) -> Iterator[tuple[str, str, str, str]]:
    """When the server stored the first event of each run, a replay of it apart: (agent, run id, mode, RFC 3339)."""
    query = sa.text(
        "SELECT agent, run_id, CASE mode WHEN 'replay' THEN 'replay' ELSE 'live' END AS track, min(stored_at) "
        "FROM logger_events GROUP BY 1, 2, 3"
    )
    return ((agent, run_id, mode, stored_at) for agent, run_id, mode, stored_at in conn.execute(query))


def read_ended(conn: Connection, since: str) -> Iterator[tuple[str, str, Mode, str, str, int]]:
    """The runs that have ended, of those that began at that time or later: (agent, run id, mode, version, when it
    ended, how many events)."""
    query = sa.text(
        "SELECT agent, run_id, mode, version, ended_at, events FROM logger_runs "
        "WHERE first_at >= :since AND ended_at IS NOT NULL"
    )
    return (tuple(row) for row in conn.execute(query, {"since": since}))


def read_costs(conn: Connection, agent: str, since: str, about: float) -> Iterator[tuple[str, str | None, str, str]]:
    """Live runs of the agent that began since then and cost about so many US dollars, or more: (run id, ticket,
    version, US dollars). A cost that nobody knows is not among them."""
    query = sa.text(
        "SELECT run_id, ticket, version, cost_usd FROM logger_runs WHERE agent = :agent AND first_at >= :since "
        "AND mode = 'live' AND cost_usd IS NOT NULL AND CAST(cost_usd AS REAL) >= :about"
    )
    return (tuple(row) for row in conn.execute(query, {"agent": agent, "since": since, "about": about * 0.999}))


def read_customer(conn: Connection, ticket: str) -> str | None:
    """Whose ticket it is, as far as a run says so."""
    query = sa.text("SELECT customer FROM logger_runs WHERE ticket = :ticket AND customer IS NOT NULL LIMIT 1")
    found: str | None = conn.execute(query, {"ticket": ticket}).scalar()
    return found


def read_alerts(
    conn: Connection, *, agent: str | None = None, run_id: str | None = None, is_open: bool = False
) -> list[dict[str, Any]]:
    """Alerts with the contract's fields and what became of them, the newest first."""
    clauses = ["raised IS NOT NULL"]
    clauses += ["agent = :agent"] if agent is not None else []
    clauses += ["run_id = :run_id"] if run_id is not None else []
    clauses += ["resolved_at IS NULL"] if is_open else []
    query = sa.text(
        "SELECT raised, raised_at, service, acknowledged_at, acknowledged_by, resolved_at, resolved_reason, repeats "  # noqa: S608
        f"FROM logger_alerts WHERE {' AND '.join(clauses)} ORDER BY raised_key DESC"
    )
    given = {name: value for name, value in (("agent", agent), ("run_id", run_id)) if value is not None}
    return [alert_of(dict(row._mapping)) for row in conn.execute(query, given)]


def read_review(conn: Connection, agent: str, run_id: str) -> dict[str, Any] | None:
    """What reviewers said of a run; None where nobody drew it. Without a `verdict` it waits for one."""
    query = sa.text(
        "SELECT sampled_at, judged_at, judged_by, verdict, note FROM logger_reviews "
        "WHERE agent = :agent AND run_id = :run_id"
    )
    found = conn.execute(query, {"agent": agent, "run_id": run_id}).first()
    return None if found is None else dict(found._mapping)


def read_settled(conn: Connection, agent: str) -> list[tuple[str, str]]:
    """An agent's runs on which reviewers agreed, with the verdict that stands: (run id, verdict)."""
    # What was agreed outranks what one reviewer said, by the first figure of its key.
    query = sa.text(
        "SELECT run_id, verdict FROM logger_reviews WHERE agent = :agent AND judged_key LIKE '1 %' ORDER BY run_id"
    )
    return [(row.run_id, row.verdict) for row in conn.execute(query, {"agent": agent})]


_ALERT_FIELDS = (
    "alert_id", "rule", "severity", "title", "agent", "run_id", "ticket", "value", "limit", "cost_basis", "dedupe_key",
    "action_taken", "evidence", "mode", "event_id", "seq",
)  # fmt: skip
_ALERT_DEFAULTS = {"action_taken": "none", "mode": "live"}  # what the wire leaves out


def alert_of(found: dict[str, Any]) -> dict[str, Any]:
    """A row of the table with the contract's fields in the place of `raised`."""
    raised = msgspec.json.decode(found.pop("raised"))
    return {name: raised.get(name, _ALERT_DEFAULTS.get(name)) for name in _ALERT_FIELDS} | found
