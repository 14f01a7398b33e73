"""The run log's tables: what the logger saves, and the queries by which everyone reads it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from os import urandom
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from midwatch.contracts.codec import RunEvent
from midwatch.contracts.control import ToolRule
from midwatch.contracts.envelope import Envelope
from midwatch.runtime import faults
from midwatch.runtime.database import insert_new, upsert
from midwatch.runtime.delivery import Received

from . import tables
from .decide import LARGEST_SEQ, Alert, AlertRow, RunRow, clock_note, fold, fold_alert, text_of
from .evidence.chain_store import note_late
from .evidence.leaf import SALT, content_hash, leaf_hash
from .partitions import make_partitions
from .places import in_the_first_stream
from .policy import POLICY, Policy

EVENT_COLUMNS = tuple(tables.Event.__table__.columns.keys())
RUN_COLUMNS = tuple(tables.Run.__table__.columns.keys())
_MONTH, _PLACE, _LEAF = (EVENT_COLUMNS.index(name) for name in ("month", "place", "leaf"))
ALERT_COLUMNS = tuple(tables.Alert.__table__.columns.keys())
_HALTS = "('halted_run', 'would_halt_run')"
_rows = msgspec.json.Decoder(list[tuple[Any, ...]])

# What `runs --json` and `show` say of a run, from its row `r`; the rest of the row is the fold's.
_SHOWN = (
    "run_id", "agent", "version", "ticket", "session", "mode", "started_at", "ended_at", "resolution", "error",
    "handed_off_to", "handed_off_reason", "cost_usd", "cost_basis", "unpriced_calls", "differing_calls",
    "differing_reported_usd", "differing_computed_usd", "input_tokens", "output_tokens", "model_calls",
    "model_errors", "tool_calls", "tool_errors", "messages", "events", "halted_by", "epoch", "channel", "customer",
    "first_at", "last_at", "model_us", "tool_us",
)  # fmt: skip
_SELECT_RUNS = f"""
    SELECT {", ".join(f"r.{name}" for name in _SHOWN)}, s.body AS started_body, f.body AS finished_body,
        (SELECT a.service || '/' || a.rule FROM logger_alerts a
         WHERE a.agent = r.agent AND a.run_id = r.run_id AND a.action_taken IN {_HALTS}
         ORDER BY a.raised_key LIMIT 1) AS halted_by_alert
    FROM logger_runs r
    LEFT JOIN logger_events s ON s.agent = r.agent AND s.id = r.started_id AND s.month = r.month
    LEFT JOIN logger_events f ON f.agent = r.agent AND f.id = r.finished_id AND f.month = r.month
"""  # noqa: S608


Tools = Mapping[str, ToolRule]


def _no_tools(_: str) -> Tools:
    return {}


def save(
    conn: Connection,
    batch: Sequence[Received],
    policy: Policy = POLICY,
    tools: Callable[[str], Tools] = _no_tools,
    place: Callable[[Received], int] = in_the_first_stream,
) -> int:
    """Saves the events that are not in the log yet and folds them into their runs. Returns how many were new.

    `tools`: those of an agent's card, which may say what a call costs. `place`: where each stands in the log."""
    rows = [event_row(received, place(received), policy) for received in batch]
    runs = _runs_of(conn, rows)
    rows = [(*row[:_MONTH], runs[row[0], row[2]].month, *row[_MONTH + 1 :]) for row in rows]
    make_partitions(conn, {row[_MONTH] for row in rows})
    fresh = insert_new(conn, "logger_events", EVENT_COLUMNS, rows, ("agent", "id"))
    note_late(conn, ((rows[at][0], rows[at][_PLACE], rows[at][_LEAF]) for at in fresh))
    faults.reach("logger.inserted")
    new: dict[tuple[str, str], list[tuple[RunEvent, str]]] = {}
    for at in fresh:
        row = rows[at]
        key = row[0], row[2]
        new.setdefault(key, []).append((batch[at].event, row[5]))
        if row[6] > runs[key].stored_at:
            runs[key].stored_at = row[6]
    if new:
        of_card = {agent: tools(agent) for agent in {agent for agent, _ in new}}
        folded = [fold(runs[key], events, policy, of_card[key[0]]) for key, events in new.items()]
        upsert(conn, "logger_runs", RUN_COLUMNS, [_columns(row) for row in folded], ("agent", "run_id"))
    faults.reach("logger.folded")
    return len(fresh)


def _runs_of(conn: Connection, rows: Sequence[tuple[Any, ...]]) -> dict[tuple[str, str], RunRow]:
    """The row of each run that the events are of; a new one has the month of its first event."""
    firsts = {(row[0], row[2]): row[6][:7] for row in reversed(rows)}
    known = _load_runs(conn, list(firsts))
    return {key: known.get(key) or RunRow(agent=key[0], run_id=key[1], month=month) for key, month in firsts.items()}


def save_alert(conn: Connection, event: Envelope[Alert]) -> None:
    """Folds one alert event into its alert; again changes nothing."""
    found = conn.execute(
        sa.text(f"SELECT {', '.join(ALERT_COLUMNS)} FROM logger_alerts WHERE alert_id = :id"),  # noqa: S608
        {"id": _text(event.data.alert_id)},
    ).first()
    row = AlertRow(**found._mapping) if found else AlertRow(alert_id=_text(event.data.alert_id))
    upsert(conn, "logger_alerts", ALERT_COLUMNS, [_columns(fold_alert(row, event))], ("alert_id",))


def event_row(received: Received, place: int, policy: Policy = POLICY) -> tuple[Any, ...]:
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
    salt = urandom(SALT)
    content = content_hash(salt, body)
    leaf = leaf_hash(agent, id, run_id, kind, seq, at, stored_at, place, mode, version, content)
    return (
        agent, id, run_id, kind, seq, at, stored_at, mode, version, ticket, note, text, place,
        stored_at[:7], salt, leaf,
    )  # fmt: skip


def _text(value: str) -> str:
    # PostgreSQL's text holds no NUL. The body keeps it, escaped.
    return value.replace("\0", "\ufffd") if "\0" in value else value


def _columns(row: RunRow | AlertRow) -> list[Any]:
    return [_text(value) if isinstance(value, str) else value for value in msgspec.structs.astuple(row)]


def _load_runs(conn: Connection, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], RunRow]:
    raw: Any = conn.connection.driver_connection
    if conn.dialect.name == "sqlite":
        # One row with everything: each row fetched would give up and take back Python's global lock.
        names = ", ".join(f"r.{name}" for name in RUN_COLUMNS)
        found = raw.execute(
            f"SELECT json_group_array(json_array({names})) FROM json_each(?) k JOIN logger_runs r "  # noqa: S608
            "ON r.agent = k.value ->> 0 AND r.run_id = k.value ->> 1",
            (msgspec.json.encode(keys).decode(),),
        ).fetchone()[0]
        rows: Any = _rows.decode(found)
    else:
        rows = raw.execute(
            f"SELECT {', '.join(RUN_COLUMNS)} FROM logger_runs "  # noqa: S608
            "WHERE (agent, run_id) IN (SELECT * FROM unnest(%s::text[], %s::text[]))",
            ([agent for agent, _ in keys], [run_id for _, run_id in keys]),
        ).fetchall()
    return {(row[0], row[1]): RunRow(**dict(zip(RUN_COLUMNS, row, strict=True))) for row in rows}


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
    """Runs as `runs --json` prints them, the newest first. `since`: a time as `decide.text_of` writes it."""
    wanted = {"agent": agent, "run_id": run_id, "ticket": ticket, "mode": mode, "resolution": resolution}
    given = {name: value for name, value in wanted.items() if value is not None}
    clauses = [f"r.{name} = :{name}" for name in given]
    if since is not None:
        clauses.append("r.first_at >= :since")
        given["since"] = since
    where = f"WHERE {' AND '.join(clauses)}" if clauses else ""
    cut = "" if limit is None else f"LIMIT {int(limit)}"
    query = sa.text(f"{_SELECT_RUNS} {where} ORDER BY r.first_at DESC, r.run_id DESC {cut}")
    return [_shown(row._mapping) for row in conn.execute(query, given)]


def read_events(conn: Connection, agent: str, run_id: str) -> list[dict[str, Any]]:
    """The events of a run in order, each with `data` as the agent published it."""
    query = sa.text(
        "SELECT id, event, seq, time, stored_at, note, body FROM logger_events "
        "WHERE agent = :agent AND run_id = :run_id ORDER BY seq, time, id"
    )
    found = [dict(row._mapping) for row in conn.execute(query, {"agent": agent, "run_id": run_id})]
    return [{**event, "data": _data(event.pop("body"))} for event in found]


def count_events(conn: Connection, agent: str, mode: str, since: str) -> int:
    """How many events `read_stored` gives."""
    query = sa.text("SELECT count(*) FROM logger_events WHERE agent = :agent AND mode = :mode AND stored_at >= :since")
    return int(conn.execute(query, {"agent": agent, "mode": mode, "since": since}).scalar_one())


def read_stored(conn: Connection, agent: str, mode: str, since: str) -> Iterator[tuple[str, str, str]]:
    """The events of an agent's runs in the order in which the server stored them: (event, stored at, body)."""
    query = sa.text(
        "SELECT event, stored_at, body FROM logger_events "
        "WHERE agent = :agent AND mode = :mode AND stored_at >= :since ORDER BY stored_at, seq, id"
    )
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
    return [_alert(dict(row._mapping)) for row in conn.execute(query, given)]


_ALERT_FIELDS = (
    "alert_id", "rule", "severity", "title", "agent", "run_id", "ticket", "value", "limit", "cost_basis", "dedupe_key",
    "action_taken", "evidence", "mode", "event_id", "seq",
)  # fmt: skip
_ALERT_DEFAULTS = {"action_taken": "none", "mode": "live"}  # what the wire leaves out


def _alert(found: dict[str, Any]) -> dict[str, Any]:
    raised = msgspec.json.decode(found.pop("raised"))
    return {name: raised.get(name, _ALERT_DEFAULTS.get(name)) for name in _ALERT_FIELDS} | found


def _shown(row: Mapping[Any, Any]) -> dict[str, Any]:
    shown = {name: row[name] for name in _SHOWN}
    first, last = shown.pop("first_at"), shown.pop("last_at")
    started, finished = _data(row["started_body"]), _data(row["finished_body"])
    shown["started_at"] = shown["started_at"] or first
    shown["last_event_at"] = last
    shown["input"] = started.get("input")
    shown["output"] = finished.get("output")
    shown["latency_ms"] = _milliseconds(shown["started_at"], shown["ended_at"])
    shown["model_ms"], shown["tool_ms"] = shown.pop("model_us") / 1000, shown.pop("tool_us") / 1000
    shown["halted_by"] = shown["halted_by"] or row["halted_by_alert"]
    return shown


def _data(body: str | None) -> dict[str, Any]:
    return dict(msgspec.json.decode(body).get("data") or {}) if body else {}


def _milliseconds(start: str, end: str | None) -> float | None:
    if end is None:
        return None
    return round((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds() * 1000, 3)
