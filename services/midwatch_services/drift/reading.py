"""The run log, as drift reads it: which runs have ended, and the facts of some of them. It never writes there."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from sqlalchemy.engine import Connection

from midwatch_services.logger import store as log

from . import facts, windows
from .facts import Facts
from .policy import POLICY, TRACKS, Policy
from .windows import Ended

_LONGEST_RUN = 7  # days from the begin of a run to its end, for which it is looked


def ended(conn: Connection, since: str, policy: Policy = POLICY) -> list[Ended]:
    """The runs that ended on that day or later: of each agent, mode and day at most as many as are ever compared."""
    found: defaultdict[tuple[str, str, str], list[Ended]] = defaultdict(list)
    for row in log.read_ended(conn, windows.before(since, _LONGEST_RUN)):
        one = Ended(*row)
        if one.day >= since and one.mode in TRACKS:
            found[one.agent, one.mode, one.day].append(one)
    return [run for some in found.values() for run in _some(some, policy)]


def _some(runs: Sequence[Ended], policy: Policy) -> Iterable[Ended]:
    if len(runs) <= policy.most_recent:
        return runs
    kept: Collection[str] = set(windows.sample(runs, policy.most_recent))
    return (run for run in runs if run.run_id in kept)


def read(conn: Connection, runs: Iterable[Ended]) -> list[tuple[Facts, int]]:
    """What the log says of each run, with how many events that was; nothing of one that was erased."""
    found: list[tuple[Facts, int]] = []
    for one in runs:
        rows = log.read_runs(conn, agent=one.agent, run_id=one.run_id)
        events = log.read_events(conn, one.agent, one.run_id)
        if rows and rows[0]["ended_at"] and not any("erased" in event for event in events):
            found.append((facts.of(_whose(conn, rows[0]), events), one.events))
    return found


def _whose(conn: Connection, run: facts.RUN) -> facts.RUN:
    """The run with the customer whom another of its ticket names, where it names none."""
    if run["customer"] or not run["ticket"]:
        return run
    return {**run, "customer": log.read_customer(conn, run["ticket"])}
