"""Runs of which the index has not read all, searched as they stand in the log, as far as one question may take."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec
from sqlalchemy.engine import Connection

from . import daily
from .search import facts_store, grammar
from .search.reading import Facts, lines, read

CALLS, EVENTS = 5_000, 1_000  # of tools, and where words are asked for of all kinds, that one question looks at
_AT_ONCE = 50  # runs

Row = Mapping[Any, Any]
Key = tuple[str, str]  # of a run: its agent, and its id


@dataclass(frozen=True, slots=True)
class Looked:
    """`rows`: the runs that say so. `keys`: all that were looked at. `is_cut`: whether some were too much for that."""

    rows: Sequence[Row]
    keys: frozenset[Key]
    is_cut: bool


def look(conn: Connection, rows: Iterable[Row], text: str | None, tool: str | None, limit: int | None) -> Looked:
    """The first of some runs in which words were said and a tool was called, as the index would find them."""
    question = None if text is None else grammar.parse(text)
    found, looked, left = list[tuple[int, Row]](), set[Key](), CALLS if question is None else EVENTS
    cut_at: int | None = None  # the place of the first that was not looked at
    places = enumerate(rows)
    while (limit is None or len(found) < limit) and (some := list(islice(places, _AT_ONCE))):
        fitting = list[tuple[int, Row]]()
        for at, row in some:
            size = _size(row, words=question is not None, calls=tool is not None)
            if size > left:
                cut_at = at if cut_at is None else cut_at
                continue
            left -= size
            fitting.append((at, row))
        looked |= {_key(row) for _, row in fitting}
        calling = fitting if tool is None else _calling(conn, fitting, tool)
        found += [(at, row) for at, row in calling if question is None or _says(conn, row, question)]
    found = found[:limit]
    last = found[-1][0] if found and len(found) == limit else None  # nothing behind it is asked for
    is_cut = cut_at is not None and (last is None or cut_at < last)
    return Looked([row for _, row in found], frozenset(looked), is_cut)


def _key(row: Row) -> Key:
    return row["agent"], row["run_id"]


def _size(row: Row, *, words: bool, calls: bool) -> int:
    """How many events have to be looked at to say."""
    if calls and not row["tool_calls"]:
        return 0
    return int(row["events"] if words else row["tool_calls"] if calls else 0)


def _calling(conn: Connection, rows: Sequence[tuple[int, Row]], tool: str) -> list[tuple[int, Row]]:
    tools = daily.read_tools(conn, [_key(row) for _, row in rows if row["tool_calls"]])
    return [(at, row) for at, row in rows if tool in tools.get(_key(row), ())]


def _says(conn: Connection, row: Row, question: grammar.Question) -> bool:
    agent, run_id = _key(row)
    # What else the log knows of the run makes no words of it.
    facts = Facts(agent, run_id, row["first_at"], row["version"], row["mode"], None, None, None, None, None)
    try:
        reading = read(facts, facts_store.bodies(conn, agent, run_id))
    except (RecursionError, msgspec.MsgspecError):
        return False  # no question fails for one run; the indexer says in the log which it cannot read
    return grammar.holds(question, lines(reading, 0))
