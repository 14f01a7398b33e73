"""Finding runs: by the columns of the log where an index of it says which are the newest, else by the full-text index.

The full-text index holds what was read of a run, a moment after it ended. Runs that are still to be read are looked at
as they stand in the log; where that is too much, only words and tools are found late.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from itertools import islice
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from . import daily, unread
from .erasure.blank import erased_by
from .search import grammar, index_store, marks
from .search.reading import ANY, NANO, WAITING, took_us

_HALTS = "('halted_run', 'would_halt_run')"
_FRESH, _FRESH_EVENTS = 5_000, 20_000  # runs and events that are not read yet; with more, the log itself is searched
_CHUNKS = (64, 256, 1024)  # rows fetched at a time: most questions are answered by the first few
_KEYS = 500  # in one statement

# What `runs --json` and `show` say of a run, from its row `r`; the rest of the row is the fold's.
_SHOWN = (
    "run_id", "agent", "version", "ticket", "session", "mode", "started_at", "ended_at", "resolution", "error",
    "handed_off_to", "handed_off_reason", "cost_usd", "cost_basis", "unpriced_calls", "differing_calls",
    "differing_reported_usd", "differing_computed_usd", "input_tokens", "output_tokens", "model_calls",
    "model_errors", "tool_calls", "tool_errors", "messages", "events", "halted_by", "epoch", "channel", "customer",
    "first_at", "last_at", "model_us", "tool_us",
)  # fmt: skip
_COLUMNS = ", ".join(f"r.{name}" for name in (*_SHOWN, "month", "started_id", "finished_id"))
_NEWEST = "ORDER BY r.first_at DESC, r.run_id DESC, r.agent DESC"
_OLDEST = "ORDER BY r.first_at, r.run_id, r.agent"
_EQUAL = ("agent", "run_id", "ticket", "customer", "version", "mode")

Row = Mapping[Any, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which runs: all that is given must be so. Times as `decide.text_of` writes them, `until` itself left out.

    `resolution`: also `open`. `alert`: the rule of one, or `any`. `verdict`: also `waiting` and `any`. `after`: only
    those behind this run (its `first_event_at`, run id and agent) in the order in which runs are found. `ahead`: only
    those before this one in that order, and the nearest to it where there are more than `limit`.
    """

    agent: str | None = None
    run_id: str | None = None
    ticket: str | None = None
    customer: str | None = None
    version: str | None = None
    mode: str | None = None
    resolution: str | None = None
    tool: str | None = None
    alert: str | None = None
    verdict: str | None = None
    text: str | None = None
    cost_over: Decimal | None = None
    cost_under: Decimal | None = None
    slower_than: timedelta | None = None
    since: str | None = None
    until: str | None = None
    limit: int | None = None
    after: tuple[str, str, str] | None = None
    ahead: tuple[str, str, str] | None = None

    @property
    def order(self) -> str:
        return _NEWEST if self.ahead is None else _OLDEST


@dataclass(frozen=True, slots=True)
class Found:
    """Runs as `runs --json` prints them, the newest first. `whole_until`: where that is not now, since then some may be
    missing."""

    runs: list[dict[str, Any]]
    whole_until: str | None = None


def find_runs(conn: Connection, wanted: Wanted) -> list[dict[str, Any]]:
    """The runs of `find`. Raises BadQuestion for a text that asks nothing."""
    return find(conn, wanted).runs


def find(conn: Connection, wanted: Wanted) -> Found:
    """Runs that are as wanted. Raises BadQuestion for a text that asks nothing."""
    is_late = _may_be_late(wanted)
    # First what is not read yet: should it be read meanwhile, it is found twice rather than not at all.
    fresh = _fresh(conn) if _needs_index(wanted) else None
    if fresh is None and not is_late:
        return Found(_shown(conn, sorted(_first(_in_log(conn, wanted), wanted), key=_newness, reverse=True)))
    rows = (row for row in _of_keys(conn, fresh or (), wanted) if _passes(row, wanted))
    looked = unread.look(conn, rows, wanted.text, wanted.tool, wanted.limit)
    # Of what was looked at, the index may hold what was so a while ago.
    others = (row for row in _in_index(conn, wanted) if (row["agent"], row["run_id"]) not in looked.keys)
    found = {(row["agent"], row["run_id"]): row for row in (*_first(others, wanted), *looked.rows)}
    nearest = sorted(found.values(), key=_newness, reverse=wanted.ahead is None)[: wanted.limit]
    is_whole = not is_late or (fresh is not None and not looked.is_cut)
    return Found(
        _shown(conn, sorted(nearest, key=_newness, reverse=True)), None if is_whole else index_store.unread_since(conn)
    )


def find_callers(conn: Connection, wanted: Wanted, since: str) -> tuple[list[dict[str, Any]], str]:
    """Runs that called tools since then, whenever they began and whatever else they call, the newest first; and since
    when these are all. Of each who it is, when it began, and how many tools it called."""
    keys, whole_since = daily.read_callers(conn, since)
    names = ("agent", "run_id", "mode", "tool_calls")
    runs = _first(_of_keys(conn, keys, wanted), wanted)
    return [{name: row[name] for name in names} | {"first_event_at": row["first_at"]} for row in runs], whole_since


def _may_be_late(wanted: Wanted) -> bool:
    """Whether something is wanted that no column of the log says."""
    return wanted.text is not None or wanted.tool is not None


def _needs_index(wanted: Wanted) -> bool:
    if _may_be_late(wanted):
        return True
    if wanted.run_id is not None or wanted.ticket is not None or wanted.customer is not None:
        return False  # these are few
    others = (wanted.version, wanted.mode, wanted.resolution, wanted.alert, wanted.verdict)
    return _looks_at_rows(wanted) or any(one is not None for one in others)


def _first(rows: Iterable[Row], wanted: Wanted) -> list[Row]:
    return list(islice((row for row in rows if _passes(row, wanted)), wanted.limit))


def _looks_at_rows(wanted: Wanted) -> bool:
    """Whether `_passes` may turn away what SQL gave."""
    return wanted.cost_over is not None or wanted.cost_under is not None or wanted.slower_than is not None


def _passes(row: Row, wanted: Wanted) -> bool:
    """What SQL is not asked: a cost is text there, a latency two times. An unknown one is neither over nor under."""
    if wanted.cost_over is not None and not (row["cost_usd"] and Decimal(row["cost_usd"]) > wanted.cost_over):
        return False
    if wanted.cost_under is not None:
        known = row["cost_usd"] is not None and row["cost_basis"] != "unpriced"
        if not known or Decimal(row["cost_usd"]) >= wanted.cost_under:
            return False
    if wanted.slower_than is not None:
        took = took_us(row["started_at"] or row["first_at"], row["ended_at"])
        return took is not None and timedelta(microseconds=took) > wanted.slower_than
    return True


def _conditions(wanted: Wanted) -> tuple[str, dict[str, Any]]:
    """All that SQL can say of a run `r`, with its parameters."""
    given = {name: getattr(wanted, name) for name in _EQUAL if getattr(wanted, name) is not None}
    clauses = [f"r.{name} = :{name}" for name in given]
    if wanted.resolution is not None:
        clauses.append("r.resolution IS NULL" if wanted.resolution == "open" else "r.resolution = :resolution")
        given["resolution"] = wanted.resolution
    for name, clause in (("since", "r.first_at >= :since"), ("until", "r.first_at < :until")):
        if getattr(wanted, name) is not None:
            clauses.append(clause)
            given[name] = getattr(wanted, name)
    if wanted.after is not None:
        # The first of the two is what an index is good for.
        clauses.append("r.first_at <= :after_at")
        clauses.append("(r.first_at, r.run_id, r.agent) < (:after_at, :after_run, :after_agent)")
        given |= dict(zip(("after_at", "after_run", "after_agent"), wanted.after, strict=True))
    if wanted.ahead is not None:
        clauses.append("r.first_at >= :ahead_at")
        clauses.append("(r.first_at, r.run_id, r.agent) > (:ahead_at, :ahead_run, :ahead_agent)")
        given |= dict(zip(("ahead_at", "ahead_run", "ahead_agent"), wanted.ahead, strict=True))
    if wanted.alert is not None:
        rule = "" if wanted.alert == ANY else "AND a.rule = :alert"
        clauses.append(
            "EXISTS (SELECT 1 FROM logger_alerts a WHERE a.agent = r.agent AND a.run_id = r.run_id "  # noqa: S608
            f"AND a.raised IS NOT NULL {rule})"
        )
        given["alert"] = wanted.alert
    if wanted.verdict is not None:
        says = {ANY: "", WAITING: "AND v.verdict IS NULL"}.get(wanted.verdict, "AND v.verdict = :verdict")
        clauses.append(
            f"EXISTS (SELECT 1 FROM logger_reviews v WHERE v.agent = r.agent AND v.run_id = r.run_id {says})"  # noqa: S608
        )
        given["verdict"] = wanted.verdict
    return " AND ".join(clauses) or "1 = 1", given


def _in_log(conn: Connection, wanted: Wanted) -> Iterator[Row]:
    """Page by page, each from where the last one ended."""
    where, given = _conditions(wanted)
    size = max(wanted.limit or 0, _CHUNKS[-1]) if _looks_at_rows(wanted) or not wanted.limit else wanted.limit
    after = ""
    while True:
        query = sa.text(f"SELECT {_COLUMNS} FROM logger_runs r WHERE {where} {after} {wanted.order} LIMIT {size}")  # noqa: S608
        rows = [row._mapping for row in conn.execute(query, given)]
        yield from rows
        if len(rows) < size:
            return
        further = "<" if wanted.ahead is None else ">"
        after = f"AND (r.first_at, r.run_id, r.agent) {further} (:last_at, :last_run, :last_agent)"
        given |= {"last_at": rows[-1]["first_at"], "last_run": rows[-1]["run_id"], "last_agent": rows[-1]["agent"]}


def _in_index(conn: Connection, wanted: Wanted) -> Iterator[Row]:
    where, given = _conditions(wanted)
    least = marks.least(wanted.since) if wanted.since is not None else -(2**62)
    below = marks.least(wanted.until) + marks.SLACK if wanted.until is not None else 2**62
    if wanted.after is not None:
        below = min(below, marks.least(wanted.after[0]) + marks.SLACK)
    if wanted.ahead is not None:
        least = max(least, marks.least(wanted.ahead[0]))
    numbers = index_store.matches(conn, _question(wanted), least, below, newest_first=wanted.ahead is None)
    # CROSS: SQLite would else go through all runs of an agent to find these.
    query = sa.text(
        f"SELECT {_COLUMNS} FROM logger_readings d CROSS JOIN logger_runs r "  # noqa: S608
        f"WHERE d.number IN :numbers AND r.agent = d.agent AND r.run_id = d.run_id AND {where} {wanted.order}"
    ).bindparams(sa.bindparam("numbers", expanding=True))
    chunk = 0
    while some := list(islice(numbers, _CHUNKS[min(chunk, len(_CHUNKS) - 1)])):
        chunk += 1
        yield from [row._mapping for row in conn.execute(query, {**given, "numbers": some})]


def _question(wanted: Wanted) -> grammar.Question:
    """What is wanted, as words and marks."""
    question = grammar.parse(wanted.text) if wanted.text is not None else grammar.Question()
    kinds = {
        "a": wanted.agent, "v": wanted.version, "m": wanted.mode, "r": wanted.resolution, "t": wanted.tool,
        "l": wanted.alert, "j": wanted.verdict, "k": wanted.ticket, "c": wanted.customer,
    }  # fmt: skip
    one_of: list[tuple[str, ...]] = [(marks.mark(kind, value),) for kind, value in kinds.items() if value is not None]
    if wanted.cost_over is not None or wanted.cost_under is not None:
        one_of.append(tuple(marks.brackets("p", _nanos(wanted.cost_over), _nanos(wanted.cost_under))))
    if wanted.slower_than is not None:
        one_of.append(tuple(marks.brackets("s", wanted.slower_than // timedelta(microseconds=1), None)))
    return replace(question, one_of=tuple(one_of))


def _nanos(dollars: Decimal | None) -> int | None:
    return None if dollars is None else int(dollars * NANO)


def _fresh(conn: Connection) -> set[tuple[str, str]] | None:
    """The runs of which something is not read yet; None where they are too many to look at each."""
    runs = conn.execute(sa.text("SELECT agent, run_id FROM logger_unread LIMIT :limit"), {"limit": _FRESH + 1}).all()
    events = conn.execute(
        sa.text("SELECT agent, run_id FROM logger_events WHERE place > :after ORDER BY place LIMIT :limit"),
        {"after": index_store.cursor(conn, index_store.INDEX), "limit": _FRESH_EVENTS + 1},
    ).all()
    if len(runs) > _FRESH or len(events) > _FRESH_EVENTS:
        return None
    return {(agent, run_id) for agent, run_id in (*runs, *events)}


def _of_keys(conn: Connection, keys: Iterable[tuple[str, str]], wanted: Wanted) -> list[Row]:
    where, given = _conditions(wanted)
    rows: list[Row] = []
    for some in _some(sorted(keys)):
        query = sa.text(
            f"WITH {_keys(some)} SELECT {_COLUMNS} FROM k CROSS JOIN logger_runs r "  # noqa: S608
            f"WHERE r.agent = k.agent AND r.run_id = k.id AND {where}"
        )
        rows += [row._mapping for row in conn.execute(query, {**given, **_parameters(some)})]
    return sorted(rows, key=_newness, reverse=wanted.ahead is None)


def _newness(row: Row) -> tuple[str, str, str]:
    return row["first_at"], row["run_id"], row["agent"]


def _some(keys: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (keys[start : start + _KEYS] for start in range(0, len(keys), _KEYS))


def _keys(keys: Sequence[tuple[str, str]]) -> str:
    """A table `k` of (agent, id). SQLite looks each up only where it is joined, and that with CROSS, not with IN."""
    return f"k(agent, id) AS (VALUES {', '.join(f'(:agent_{at}, :id_{at})' for at in range(len(keys)))})"


def _parameters(keys: Sequence[tuple[str, str]]) -> dict[str, str]:
    return {f"agent_{at}": agent for at, (agent, _) in enumerate(keys)} | {
        f"id_{at}": id for at, (_, id) in enumerate(keys)
    }


# What is shown of a run


def _shown(conn: Connection, rows: Sequence[Row]) -> list[dict[str, Any]]:
    shown = []
    for some in _some(rows):
        bodies, halts = _bodies(conn, some), _halts(conn, some)
        shown += [_show(row, bodies, halts) for row in some]
    return shown


def _bodies(conn: Connection, rows: Sequence[Row]) -> dict[tuple[str, str], str]:
    """The bodies of the first and the last events of runs, by (agent, id); each looked for in its month alone."""
    found: dict[tuple[str, str], str] = {}
    for month in {row["month"] for row in rows}:
        keys = [
            (row["agent"], row[name])
            for row in rows
            for name in ("started_id", "finished_id")
            if row["month"] == month and row[name] is not None
        ]
        if keys:
            query = sa.text(
                f"WITH {_keys(keys)} SELECT e.agent, e.id, e.body FROM k CROSS JOIN logger_events e "  # noqa: S608
                "WHERE e.agent = k.agent AND e.id = k.id AND e.month = :month"
            )
            rows_found = conn.execute(query, {"month": month, **_parameters(keys)})
            found |= {(agent, id): body for agent, id, body in rows_found}
    return found


def _halts(conn: Connection, rows: Sequence[Row]) -> dict[tuple[str, str], str]:
    """Which rule halted a run, or would have: the first, by (agent, run id)."""
    keys = [(row["agent"], row["run_id"]) for row in rows]
    if not keys:
        return {}
    query = sa.text(
        f"WITH {_keys(keys)} SELECT a.agent, a.run_id, a.service || '/' || a.rule FROM k CROSS JOIN logger_alerts a "  # noqa: S608
        f"WHERE a.agent = k.agent AND a.run_id = k.id AND a.action_taken IN {_HALTS} ORDER BY a.raised_key DESC"
    )
    return {(agent, run_id): rule for agent, run_id, rule in conn.execute(query, _parameters(keys))}


def _show(row: Row, bodies: Mapping[tuple[str, str], str], halts: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    shown = {name: row[name] for name in _SHOWN}
    first, last = shown.pop("first_at"), shown.pop("last_at")
    started = data_of(bodies.get((row["agent"], row["started_id"])))
    finished = data_of(bodies.get((row["agent"], row["finished_id"])))
    shown["started_at"] = shown["started_at"] or first
    shown["first_event_at"], shown["last_event_at"] = first, last
    shown["input"] = started.get("input")
    shown["output"] = finished.get("output")
    took = took_us(shown["started_at"], shown["ended_at"])
    shown["latency_ms"] = None if took is None else took / 1000
    shown["model_ms"], shown["tool_ms"] = shown.pop("model_us") / 1000, shown.pop("tool_us") / 1000
    shown["halted_by"] = shown["halted_by"] or halts.get((row["agent"], row["run_id"]))
    return shown


def data_of(body: str | None) -> dict[str, Any]:
    """The data of an event; of an erased one what is left: `erased`, by which erasure."""
    if not body:
        return {}
    erasure = erased_by(body)
    return dict(msgspec.json.decode(body).get("data") or {}) if erasure is None else {"erased": erasure}
