"""What agents changed: the calls of tools that write, of the newest runs, from the run log."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch.contracts.control import ToolRule, kind_of
from midwatch_services.console.search import Place
from midwatch_services.logger import daily, reading_store
from midwatch_services.logger.decide import text_of
from midwatch_services.logger.reading_store import Wanted

SERVICE = subjects.LOGGER
SHOWN = 50  # writes of a page, and those of its last run
LOOKED_AT = 1_000  # runs that are looked through for one page
LATELY = timedelta(minutes=10)
_AT_ONCE, _GROWS = 50, 4  # runs that are read at first, and how many times as many then

Tools = Mapping[str, Mapping[str, ToolRule]]  # of each agent, by its card


@dataclass(frozen=True, slots=True)
class Write:
    """One call. `undo`: the tool that undoes it; `mode`: that of its run."""

    agent: str
    run_id: str
    mode: str
    at: str
    tool: str
    arguments: Any
    result: Any
    error: str | None
    undo: str | None


_Run = tuple[dict[str, Any], list[Write]]


@dataclass(frozen=True, slots=True)
class Page:
    """The writes of `runs` runs, the newest first. `older`: the run behind which the next page begins, None at the
    end. `whole_until`: when that is not now, since then some may be missing. `all_since`: since then all are there,
    also those of runs that began long before; None where that is not so."""

    writes: Sequence[Write]
    runs: int
    older: Place | None
    whole_until: str | None = None
    all_since: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose writes, by what tool, of what kind of runs: None is all of them."""

    agent: str | None
    tool: str | None
    mode: str | None
    since: datetime
    until: datetime


def page(conn: Connection, asked: Asked, after: Place | None, tools: Tools, now: datetime) -> Page:
    """The writes of the newest runs behind `after`, on through those that wrote nothing until there are some; on the
    first page also what was written just now, whenever its run began."""
    wanted = Wanted(
        agent=asked.agent, tool=asked.tool, mode=asked.mode, since=text_of(asked.since), until=text_of(asked.until),
        after=after,
    )  # fmt: skip
    behind = _behind(conn, wanted, tools)
    if after is not None or asked.until <= now:
        return behind
    lately, all_since = _lately(conn, wanted, tools, now - LATELY)
    told = {(one.agent, one.run_id) for one in behind.writes}
    others = [one for one in lately if (one.agent, one.run_id) not in told]
    return replace(behind, writes=_newest_first([*behind.writes, *others]), all_since=all_since)


def _behind(conn: Connection, wanted: Wanted, tools: Tools) -> Page:
    found, looked, whole_until, at_once = list[Write](), 0, None, _AT_ONCE
    while True:
        some = reading_store.find(conn, replace(wanted, limit=at_once))
        whole_until = whole_until or some.whole_until
        for run, writes in _with_writes(conn, some.runs, wanted.tool, tools):
            if len(found) >= SHOWN or looked == LOOKED_AT:
                return Page(_newest_first(found), looked, wanted.after, whole_until)
            found += writes
            looked, wanted = looked + 1, replace(wanted, after=_place(run))
        if len(some.runs) < at_once:
            return Page(_newest_first(found), looked, None, whole_until)
        # Few times, for each looks again at what the index has not read.
        at_once = min(_GROWS * at_once, LOOKED_AT - looked + 1)


def _lately(conn: Connection, wanted: Wanted, tools: Tools, since: datetime) -> tuple[list[Write], str]:
    """The newest of what was written since then, and since when that is all of it."""
    runs, all_since = reading_store.find_callers(conn, wanted, text_of(since))
    called = [one for _, some in _with_writes(conn, runs, wanted.tool, tools) for one in some]
    writes = _newest_first([one for one in called if datetime.fromisoformat(one.at) >= since])
    return writes[:SHOWN], max(all_since, writes[SHOWN - 1].at) if len(writes) > SHOWN else all_since


def _newest_first(writes: list[Write]) -> list[Write]:
    return sorted(writes, key=lambda one: one.at, reverse=True)


def _place(run: Mapping[str, Any]) -> Place:
    return run["first_event_at"], run["run_id"], run["agent"]


def _with_writes(conn: Connection, runs: Sequence[dict[str, Any]], tool: str | None, tools: Tools) -> list[_Run]:
    modes = {(run["agent"], run["run_id"]): run["mode"] for run in runs if run["tool_calls"]}
    of = dict[tuple[str, str], list[Write]]()
    for who, run_id, at, data in daily.read_calls(conn, list(modes)):
        called = data.get("tool", "")
        kind = kind_of(tools.get(who, {}), called, data.get("kind") or "other")
        if kind == "write" and tool in (None, called):
            of.setdefault((who, run_id), []).append(
                Write(who, run_id, modes[who, run_id], at, called, data.get("arguments"), data.get("result"),
                      data.get("error"), data.get("undo"))
            )  # fmt: skip
    return [(run, of.get((run["agent"], run["run_id"]), [])) for run in runs]
