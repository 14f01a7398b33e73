"""What agents changed: the calls of tools that write, of the newest runs, from the run log."""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
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
_AT_ONCE = 50

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
    end. `whole_until`: when that is not now, since then some may be missing."""

    writes: Sequence[Write]
    runs: int
    older: Place | None
    whole_until: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose writes, by what tool, of what kind of runs: None is all of them."""

    agent: str | None
    tool: str | None
    mode: str | None
    since: datetime
    until: datetime


def page(conn: Connection, asked: Asked, after: Place | None, tools: Tools) -> Page:
    """The writes of the newest runs behind `after`, on through those that wrote nothing until there are some."""
    wanted = Wanted(
        agent=asked.agent, tool=asked.tool, mode=asked.mode, since=text_of(asked.since), until=text_of(asked.until),
        limit=_AT_ONCE, after=after,
    )  # fmt: skip
    # First what is not read yet: should it be read meanwhile, it is found twice rather than not at all.
    unread, whole_until = _unread(conn, wanted, tools) if asked.tool else ([], None)
    found, looked, last = list[Write](), 0, after
    for run, writes in heapq.merge(unread, _runs(conn, wanted, tools), key=lambda one: _place(one[0]), reverse=True):
        if _place(run) == last:
            continue
        if len(found) >= SHOWN or looked == LOOKED_AT:
            return Page(_newest_first(found), looked, last, whole_until)
        found += writes
        looked, last = looked + 1, _place(run)
    return Page(_newest_first(found), looked, None, whole_until)


def _newest_first(writes: list[Write]) -> list[Write]:
    return sorted(writes, key=lambda one: one.at, reverse=True)


def _place(run: Mapping[str, Any]) -> Place:
    return run["first_event_at"], run["run_id"], run["agent"]


def _unread(conn: Connection, wanted: Wanted, tools: Tools) -> tuple[list[_Run], str | None]:
    """Runs that wrote, of those whose tools the index does not know yet, as of one that goes on; and since when there
    may be more, where they are too many to look at each."""
    runs = reading_store.find_unread(conn, replace(wanted, limit=LOOKED_AT + 1))
    is_cut = runs is None or len(runs) > LOOKED_AT
    wrote = [one for one in _with_writes(conn, (runs or [])[:LOOKED_AT], wanted.tool, tools) if one[1]]
    return wrote, reading_store.unread_since(conn) if is_cut else None


def _runs(conn: Connection, wanted: Wanted, tools: Tools) -> Iterator[_Run]:
    """Runs, the newest first, each with what it wrote."""
    while runs := reading_store.find_runs(conn, wanted):
        yield from _with_writes(conn, runs, wanted.tool, tools)
        if len(runs) < _AT_ONCE:
            return
        wanted = replace(wanted, after=_place(runs[-1]))


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
