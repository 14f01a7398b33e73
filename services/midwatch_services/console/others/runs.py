"""The run log: finding runs, and all that is known of one."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch_services.console.search import Place, Search
from midwatch_services.kill_switch.cases import case_store
from midwatch_services.logger import reading_store, store
from midwatch_services.logger.decide import text_of
from midwatch_services.logger.erasure import store as erasures
from midwatch_services.logger.reading_store import Found as Found
from midwatch_services.logger.search import grammar
from midwatch_services.reviewer_sampler import store as reviews

SERVICE = subjects.LOGGER
PAGE = 50  # runs of a list
EVENTS = 60  # of a run on one page, which then weighs less than 200 KB
_OLDEST = 2_000  # events of a run that are judged anew or compared


MOST_WORDS, SHORTEST_BEGINNING = grammar.MOST, grammar.SHORTEST_BEGINNING


def has_words(text: str) -> bool:
    """Whether a text can be searched for."""
    try:
        grammar.parse(text)
    except grammar.BadQuestion:
        return False
    return True


def find(conn: Connection, search: Search, after: Place | None, limit: int) -> Found:
    """Runs that are as asked, the newest first, behind `after`."""
    return reading_store.find(conn, _wanted(search, after, limit))


def ahead(conn: Connection, search: Search, of: Place, limit: int) -> list[dict[str, Any]]:
    """The nearest runs before that place in the list, the newest first."""
    return reading_store.find_runs(conn, replace(_wanted(search, None, limit), ahead=of))


def beside(conn: Connection, search: Search, of: Place) -> tuple[Place | None, Place | None]:
    """The places of the next newer and the next older run."""
    newer, older = ahead(conn, search, of, 1), find(conn, search, of, 1).runs
    return (place_of(newer[0]) if newer else None), (place_of(older[0]) if older else None)


def place_of(run: dict[str, Any]) -> Place:
    return run["first_event_at"], run["run_id"], run["agent"]


def _wanted(search: Search, after: Place | None, limit: int) -> reading_store.Wanted:
    word = search.word
    return reading_store.Wanted(
        agent=word("agent"), version=word("version"), ticket=word("ticket"), customer=word("customer"),
        mode=word("mode"), resolution=word("resolution"), tool=word("tool"), alert=word("alert"),
        verdict=word("verdict"), text=word("text"), cost_over=search.cost_over, cost_under=search.cost_under,
        slower_than=search.slower_than, since=_text(search.since), until=_text(search.until),
        limit=limit, after=after,
    )  # fmt: skip


def _text(at: datetime | None) -> str | None:
    return None if at is None else text_of(at)


@dataclass(frozen=True, slots=True)
class Told:
    """A run and a page of its events. `count`: of all its events; `first`: how many stand before this page;
    `erased_at`: when it was asked that what it said be erased, None where nobody did."""

    run: dict[str, Any]
    events: list[dict[str, Any]]
    first: int
    count: int
    alerts: list[dict[str, Any]]
    review: dict[str, Any] | None
    before: str | None  # when the event before this page was
    erased_at: str | None


def tell(conn: Connection, agent: str, run_id: str, page: int, size: int = EVENTS) -> Told | None:
    """What the log has of a run; None where it has no such run. Pages count from 1; one that is not there is the
    last."""
    found = store.read_runs(conn, agent=agent, run_id=run_id)
    if not found:
        return None
    (run,) = found
    first = min(max(0, page - 1), max(0, (run["events"] - 1) // size)) * size
    events = store.read_events(conn, agent, run_id, first=first, limit=size)
    before = store.read_events(conn, agent, run_id, first=first - 1, limit=1) if first else []
    alerts = store.read_alerts(conn, agent=agent, run_id=run_id)
    review = store.read_review(conn, agent, run_id)
    return Told(
        run, events, first, run["events"], alerts, review, before[0]["time"] if before else None,
        erasures.asked_at(conn, (agent, run_id)),
    )  # fmt: skip


def whole(conn: Connection, agent: str, run_id: str) -> Told | None:
    """The same, with as many events as are ever looked at together."""
    return tell(conn, agent, run_id, 1, _OLDEST)


def settled(conn: Connection, agent: str, run_id: str) -> str:
    """How far the review of a run is, by the reviewer's own tables: none, open, settled or erased. What one reviewer
    said is not told before nobody can be swayed by it."""
    states = {row["state"] for row in reviews.of_run(conn, agent, run_id)}
    if "erased" in states:
        return "erased"
    return "none" if not states else "settled" if states == {"settled"} else "open"


def going_on(conn: Connection, keys: Iterable[tuple[str, str]], since: datetime) -> set[tuple[str, str]]:
    """Those of the runs, by agent and run id, that have no end and of which something was heard since then."""
    by_agent: dict[str, list[str]] = {}
    for agent, run_id in keys:
        by_agent.setdefault(agent, []).append(run_id)
    query = sa.text(
        "SELECT run_id FROM logger_runs WHERE agent = :agent AND run_id IN :runs "
        "AND coalesce(resolution, '') = '' AND last_at > :since"
    ).bindparams(sa.bindparam("runs", expanding=True))
    return {
        (agent, run_id)
        for agent, runs in by_agent.items()
        for run_id in conn.execute(query, {"agent": agent, "runs": runs, "since": text_of(since)}).scalars()
    }


def case_of(conn: Connection, agent: str, run_id: str) -> dict[str, Any] | None:
    """The case of a run, with what happened to it."""
    found = case_store.of_run(conn, agent, run_id)
    return None if found is None else found | {"history": case_store.history(conn, found["case_id"])}


def versions(conn: Connection, agent: str, limit: int = 400) -> list[str]:
    """The versions of an agent's newest runs, the newest first."""
    query = sa.text(
        "SELECT version FROM (SELECT version, first_at FROM logger_runs WHERE agent = :agent "
        "ORDER BY first_at DESC LIMIT :limit) AS newest GROUP BY version ORDER BY max(first_at) DESC"
    )
    return list(conn.execute(query, {"agent": agent, "limit": limit}).scalars())


def newest_of(conn: Connection, agent: str, version: str) -> str | None:
    """The newest run of a version that has ended."""
    found = reading_store.find_runs(conn, reading_store.Wanted(agent=agent, version=version, limit=20))
    return next((run["run_id"] for run in found if run["ended_at"]), None)
