"""What a digest asks of the run log: the runs that began within a stretch of time, and figures of many such days."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .erasure.blank import STANDS

_AT_ONCE = 400  # names in one query
_LATELY = 5_000  # events that are looked through for the newest calls
_RUN = (
    "agent", "run_id", "first_at", "ended_at", "resolution", "error", "cost_usd", "cost_basis", "unpriced_calls",
    "model_calls", "tool_calls", "tool_errors", "messages", "handed_off_to", "halted_by",
)  # fmt: skip


class DayRun(NamedTuple):
    """A run's row, as far as a digest needs it. Times are text in UTC, costs decimal text."""

    agent: str
    run_id: str
    first_at: str
    ended_at: str | None
    resolution: str | None
    error: str | None
    cost_usd: str | None
    cost_basis: str | None
    unpriced_calls: int
    model_calls: int
    tool_calls: int
    tool_errors: int
    messages: int
    handed_off_to: str | None
    halted_by: str | None

    @property
    def seconds(self) -> float | None:
        """From its first event to its end."""
        if self.ended_at is None:
            return None
        return (datetime.fromisoformat(self.ended_at) - datetime.fromisoformat(self.first_at)).total_seconds()


class Count(NamedTuple):
    """How many runs of a stretch ended so; how many of them have a cost that is wholly known, and what those cost."""

    resolution: str | None
    runs: int
    priced: int
    cost_usd: Any


class Stretch(NamedTuple):
    """Runs of a mode that began from `start` up to, not at, `end`, both as `decide.text_of` writes times; of one agent
    or of all."""

    mode: str
    start: str
    end: str
    agent: str | None = None

    @property
    def where(self) -> str:
        # Joined to nothing, so that SQLite does not take the index by agent: its rows are all that the agent ever had.
        whose = "" if self.agent is None else " AND agent || '' = :agent"
        return f"first_at >= :start AND first_at < :end AND mode = :mode{whose}"

    @property
    def given(self) -> dict[str, Any]:
        return {name: value for name, value in self._asdict().items() if value is not None}


def read_runs(conn: Connection, stretch: Stretch, *, unended: bool = False) -> list[DayRun]:
    """The runs of a stretch in the order in which they began; of those `unended` alone, if asked."""
    more = " AND ended_at IS NULL" if unended else ""
    query = f"SELECT {', '.join(_RUN)} FROM logger_runs WHERE {stretch.where}{more} ORDER BY first_at, agent, run_id"  # noqa: S608
    return [DayRun(*row) for row in conn.execute(sa.text(query), stretch.given)]


def count_runs(conn: Connection, stretch: Stretch) -> list[Count]:
    """The runs of a stretch by how they ended, summed by the database."""
    kind = "REAL" if conn.dialect.name == "sqlite" else "NUMERIC"
    known = "cost_usd IS NOT NULL AND cost_basis <> 'unpriced'"
    query = (
        f"SELECT resolution, count(*), sum(CASE WHEN {known} THEN 1 ELSE 0 END), "  # noqa: S608
        f"sum(CASE WHEN {known} THEN CAST(cost_usd AS {kind}) ELSE 0 END) "
        f"FROM logger_runs WHERE {stretch.where} GROUP BY resolution"
    )
    return [Count(row[0], int(row[1]), int(row[2]), row[3]) for row in conn.execute(sa.text(query), stretch.given)]


class Tally(NamedTuple):
    """Runs that are alike: `took` is the lower end in milliseconds of what they took (None: not ended), as far apart as
    `_STEPS` says. `cost_usd` is all that is known of what they cost; `priced` of them have a cost that is wholly known,
    and those cost `priced_usd`."""

    agent: str
    mode: str
    version: str
    resolution: str | None
    took: int | None
    runs: int
    priced: int
    cost_usd: float
    priced_usd: float


# What a run took is told apart by so many milliseconds, up to so many.
_STEPS = ((1_000, 20), (10_000, 200), (60_000, 1_000), (600_000, 10_000))
_LAST_STEP = 60_000


def tally_runs(conn: Connection, start: str, end: str) -> list[Tally]:
    """The live and shadow runs that began from `start` up to, not at, `end`, summed by the database."""
    is_sqlite = conn.dialect.name == "sqlite"
    kind = "REAL" if is_sqlite else "NUMERIC"
    took = (
        "CAST((julianday(ended_at) - julianday(first_at)) * 86400000.0 + 0.5 AS INTEGER)" if is_sqlite
        else "CAST(extract(epoch FROM CAST(ended_at AS timestamptz) - CAST(first_at AS timestamptz)) * 1000 AS BIGINT)"
    )  # fmt: skip
    steps = " ".join(f"WHEN took < {below} THEN took / {step} * {step}" for below, step in _STEPS)
    query = (
        "SELECT agent, mode, version, resolution, CASE WHEN took IS NULL THEN NULL "  # noqa: S608
        f"{steps} ELSE took / {_LAST_STEP} * {_LAST_STEP} END AS took_from, count(*), "
        "sum(known), sum(cost), sum(known * cost) FROM ("
        f"SELECT agent, mode, version, resolution, CASE WHEN ended_at IS NOT NULL THEN {took} END AS took, "
        "CASE WHEN cost_usd IS NOT NULL AND cost_basis <> 'unpriced' THEN 1 ELSE 0 END AS known, "
        f"coalesce(CAST(cost_usd AS {kind}), 0) AS cost "
        "FROM logger_runs WHERE first_at >= :start AND first_at < :end AND mode IN ('live', 'shadow')"
        ") AS one GROUP BY agent, mode, version, resolution, took_from"
    )
    found = conn.execute(sa.text(query), {"start": start, "end": end})
    return [
        Tally(row[0], row[1], row[2], row[3], row[4], int(row[5]), int(row[6]), float(row[7]), float(row[8]))
        for row in found
    ]


def middle_of(took: int) -> float:
    """What runs of that `Tally.took` took, as near as it is told, in milliseconds."""
    return took + next((step for below, step in _STEPS if took < below), _LAST_STEP) / 2


def median_seconds(conn: Connection, stretch: Stretch) -> float | None:
    """What half of a stretch's ended runs took at most."""
    took = (
        "(julianday(ended_at) - julianday(first_at)) * 86400.0" if conn.dialect.name == "sqlite"
        else "extract(epoch FROM CAST(ended_at AS timestamptz) - CAST(first_at AS timestamptz))"
    )  # fmt: skip
    ended = f"FROM logger_runs WHERE {stretch.where} AND ended_at IS NOT NULL"
    count = conn.execute(sa.text(f"SELECT count(*) {ended}"), stretch.given).scalar_one()
    if not count:
        return None
    query = f"SELECT {took} {ended} ORDER BY 1 LIMIT 1 OFFSET :place"
    return float(conn.execute(sa.text(query), {**stretch.given, "place": (count - 1) // 2}).scalar_one())


def read_agents(conn: Connection, stretch: Stretch) -> list[str]:
    """The agents with a run in a stretch."""
    query = f"SELECT DISTINCT agent FROM logger_runs WHERE {stretch.where} ORDER BY agent"  # noqa: S608
    return list(conn.execute(sa.text(query), stretch.given).scalars())


def ticket_costs(conn: Connection, agent: str, ticket: str, until: str) -> list[str]:
    """What each run of a ticket that began by then cost, as far as that is known."""
    query = sa.text(
        "SELECT cost_usd FROM logger_runs WHERE agent = :agent AND ticket = :ticket AND first_at <= :until "
        "AND cost_usd IS NOT NULL"
    )
    return list(conn.execute(query, {"agent": agent, "ticket": ticket, "until": until}).scalars())


def has_runs(conn: Connection) -> bool:
    """Whether the log holds any run at all."""
    return conn.execute(sa.text("SELECT 1 FROM logger_runs LIMIT 1")).first() is not None


class Last(NamedTuple):
    """The run of an agent that began last."""

    mode: str
    began: str


def last_run(conn: Connection, agent: str) -> Last | None:
    """The newest run of an agent, of whatever mode and however old."""
    query = "SELECT mode, first_at FROM logger_runs WHERE agent = :agent ORDER BY first_at DESC LIMIT 1"
    row = conn.execute(sa.text(query), {"agent": agent}).first()
    return Last(*row) if row else None


def has_alerts(conn: Connection, agent: str) -> bool:
    """Whether the log holds any alert of an agent."""
    query = sa.text("SELECT 1 FROM logger_alerts WHERE agent = :agent LIMIT 1")
    return conn.execute(query, {"agent": agent}).first() is not None


def read_alerts(conn: Connection, stretch: Stretch, *, by_run: bool = False) -> list[dict[str, Any]]:
    """Alerts that were raised within a stretch; `by_run` those of the runs that began in it, whenever they were
    raised."""
    whose = "" if stretch.agent is None else " AND a.agent = :agent"
    if by_run:
        query = (
            f"SELECT a.* FROM logger_runs r JOIN logger_alerts a ON a.agent = r.agent AND a.run_id = r.run_id "  # noqa: S608
            f"WHERE r.first_at >= :start AND r.first_at < :end AND r.mode = :mode{whose} AND a.raised IS NOT NULL"
        )
    else:
        query = (
            "SELECT a.* FROM logger_alerts a WHERE a.raised IS NOT NULL "  # noqa: S608
            f"AND a.raised_at >= :start AND a.raised_at < :end{whose}"
        )
    given = stretch.given if by_run else {name: value for name, value in stretch.given.items() if name != "mode"}
    return _alerts(conn, f"{query} ORDER BY a.raised_key", given, stretch.mode)


def read_open_alerts(conn: Connection, before: str, mode: str, agent: str | None = None) -> list[dict[str, Any]]:
    """Alerts that were raised before a time and are neither over nor taken on."""
    whose = "" if agent is None else " AND a.agent = :agent"
    query = (
        "SELECT a.* FROM logger_alerts a WHERE a.raised IS NOT NULL AND a.resolved_at IS NULL "  # noqa: S608
        f"AND a.acknowledged_at IS NULL AND a.raised_at < :before{whose} ORDER BY a.raised_key"
    )
    given = {"before": before} if agent is None else {"before": before, "agent": agent}
    return _alerts(conn, query, given, mode)


class _Raised(msgspec.Struct):
    severity: str
    mode: str = "live"


def _alerts(conn: Connection, query: str, given: dict[str, Any], mode: str) -> list[dict[str, Any]]:
    found = []
    for row in conn.execute(sa.text(query), given):
        raised = msgspec.json.decode(row.raised, type=_Raised)
        if raised.mode == mode:
            found.append({**row._mapping, "severity": raised.severity})
    return found


class _Called(msgspec.Struct):
    tool: str


class _Call(msgspec.Struct):
    data: _Called


class _Begun(msgspec.Struct):
    input: Any = None


class _Start(msgspec.Struct):
    data: _Begun


def read_tools(conn: Connection, runs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], set[str]]:
    """The tools that each of these runs called."""
    decoder, found = msgspec.json.Decoder(_Call), dict[tuple[str, str], set[str]]()
    for agent, run_id, body in _bodies(conn, runs, "tool_called"):
        found.setdefault((agent, run_id), set()).add(decoder.decode(body).data.tool)
    return found


def read_inputs(conn: Connection, runs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Any]:
    """What each of these runs began with."""
    decoder, found = msgspec.json.Decoder(_Start), dict[tuple[str, str], Any]()
    for agent, run_id, body in _bodies(conn, runs, "started"):
        found.setdefault((agent, run_id), decoder.decode(body).data.input)
    return found


def read_erased(conn: Connection, runs: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of the runs of which an erasure was asked for: what others still have of them is not to be told."""
    query = sa.text("SELECT run_id FROM logger_erased_runs WHERE agent = :agent AND run_id IN :runs").bindparams(
        sa.bindparam("runs", expanding=True)
    )
    return {
        (agent, run_id)
        for agent, some in _by_agent(runs)
        for run_id in conn.execute(query, {"agent": agent, "runs": some}).scalars()
    }


def _bodies(conn: Connection, runs: Sequence[tuple[str, str]], event: str) -> Iterator[tuple[str, str, str]]:
    query = sa.text(
        "SELECT run_id, body FROM logger_events WHERE agent = :agent AND run_id IN :runs AND event = :event "  # noqa: S608
        f"{STANDS} ORDER BY run_id, seq, id"
    ).bindparams(sa.bindparam("runs", expanding=True))
    for agent, some in _by_agent(runs):
        for row in conn.execute(query, {"agent": agent, "runs": some, "event": event}):
            yield agent, row[0], row[1]


def _by_agent(runs: Sequence[tuple[str, str]]) -> Iterator[tuple[str, list[str]]]:
    """An agent's runs, so many in one query."""
    of: dict[str, list[str]] = {}
    for agent, run_id in runs:
        of.setdefault(agent, []).append(run_id)
    for agent, ids in of.items():
        for start in range(0, len(ids), _AT_ONCE):
            yield agent, ids[start : start + _AT_ONCE]


def read_calls(conn: Connection, runs: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """The calls of tools that runs made, as agent, run, time and data."""
    for agent, run_id, body in _bodies(conn, runs, "tool_called"):
        event = msgspec.json.decode(body)
        yield agent, run_id, event["time"], event.get("data") or {}


def read_callers(conn: Connection, since: str) -> tuple[set[tuple[str, str]], str]:
    """The runs of which calls of tools were stored since then, and since when these are all: of very many events the
    newest are looked through."""
    query = sa.text("SELECT agent, run_id, event, stored_at FROM logger_events ORDER BY place DESC LIMIT :limit")
    callers, count, stored_at = set[tuple[str, str]](), 0, since
    with conn.execute(query, {"limit": _LATELY}, execution_options={"yield_per": 1_000}) as rows:
        for agent, run_id, event, stored_at in rows:
            # By the place they stand in the order in which they were stored: no index has that time.
            if stored_at < since:
                break
            count += 1
            if event == "tool_called":
                callers.add((agent, run_id))
    return callers, stored_at if count == _LATELY else since
