"""What agents changed: the calls of tools that write, of the newest runs, from the run log."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch_services.console.search import Place
from midwatch_services.logger import daily, reading_store
from midwatch_services.logger.decide import text_of
from midwatch_services.logger.reading_store import Wanted

SERVICE = subjects.LOGGER
SHOWN = 50  # writes of a page, and those of its last run
LOOKED_AT = 1_000  # runs that are looked through for one page
_AT_ONCE = 50


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


@dataclass(frozen=True, slots=True)
class Page:
    """The writes of `runs` runs, the newest first. `older`: the run behind which the next page begins, None at the
    end."""

    writes: Sequence[Write]
    runs: int
    older: Place | None


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose writes, by what tool, of what kind of runs: None is all of them."""

    agent: str | None
    tool: str | None
    mode: str | None
    since: datetime
    until: datetime


def page(conn: Connection, asked: Asked, after: Place | None) -> Page:
    """The writes of the newest runs behind `after`, on through those that wrote nothing until there are some."""
    wanted = Wanted(
        agent=asked.agent, tool=asked.tool, mode=asked.mode, since=text_of(asked.since), until=text_of(asked.until),
        limit=_AT_ONCE, after=after,
    )  # fmt: skip
    found, looked, last = list[Write](), 0, after
    for run, writes in _runs(conn, wanted, asked.tool):
        if len(found) >= SHOWN or looked == LOOKED_AT:
            return Page(_newest_first(found), looked, last)
        found += writes
        looked, last = looked + 1, (run["first_event_at"], run["run_id"], run["agent"])
    return Page(_newest_first(found), looked, None)


def _newest_first(writes: list[Write]) -> list[Write]:
    return sorted(writes, key=lambda one: one.at, reverse=True)


def _runs(conn: Connection, wanted: Wanted, tool: str | None) -> Iterator[tuple[dict[str, Any], list[Write]]]:
    """Runs, the newest first, each with what it wrote."""
    while runs := reading_store.find_runs(conn, wanted):
        callers = [run for run in runs if run["tool_calls"]]
        modes = {(run["agent"], run["run_id"]): run["mode"] for run in callers}
        of = dict[tuple[str, str], list[Write]]()
        for who, run_id, at, data in daily.read_calls(conn, list(modes), "write"):
            if tool is None or data.get("tool") == tool:
                of.setdefault((who, run_id), []).append(
                    Write(who, run_id, modes[who, run_id], at, data.get("tool", ""), data.get("arguments"),
                          data.get("result"), data.get("error"), data.get("undo"))
                )  # fmt: skip
        for run in runs:
            yield run, of.get((run["agent"], run["run_id"]), [])
        if len(runs) < _AT_ONCE:
            return
        last = runs[-1]
        wanted = replace(wanted, after=(last["first_event_at"], last["run_id"], last["agent"]))
