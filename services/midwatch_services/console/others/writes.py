"""What agents changed: the calls of tools that write, of the newest runs, from the run log."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch_services.logger import daily, reading_store
from midwatch_services.logger.decide import text_of
from midwatch_services.logger.reading_store import Wanted

SERVICE = subjects.LOGGER
RUNS = 50  # that are looked through for one page


@dataclass(frozen=True, slots=True)
class Write:
    """One call. `undo`: the tool that undoes it."""

    agent: str
    run_id: str
    at: str
    tool: str
    arguments: Any
    result: Any
    error: str | None
    undo: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """The writes of `runs` runs, the newest first. `older`: before when the next page begins, empty at the end."""

    writes: Sequence[Write]
    runs: int
    older: str


def page(conn: Connection, agent: str | None, tool: str | None, since: datetime, until: datetime | str) -> Page:
    """The writes of the newest runs that began in the time, those alone that called `tool`. By the log's indexes."""
    end = until if isinstance(until, str) else text_of(until)
    wanted = Wanted(agent=agent, tool=tool, since=text_of(since), until=end, mode=None, limit=RUNS)
    runs = reading_store.find_runs(conn, wanted)
    keys = [(run["agent"], run["run_id"]) for run in runs]
    found = [
        Write(who, run_id, at, data.get("tool", ""), data.get("arguments"), data.get("result"), data.get("error"),
              data.get("undo"))
        for who, run_id, at, data in daily.read_calls(conn, keys, "write")
        if tool is None or data.get("tool") == tool
    ]  # fmt: skip
    older = str(runs[-1]["started_at"]) if len(runs) == RUNS else ""
    return Page(sorted(found, key=lambda one: one.at, reverse=True), len(runs), older)
