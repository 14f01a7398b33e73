"""What `midwatch erase` says: what it would reach, how far it is, and the proof."""

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .output import clean, console, count_of

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from midwatch.contracts.erasure import ErasedRun, ErasureRequested
    from midwatch_services.logger.erasure.store import Part, Work

_SHOWN = 10  # runs that are named
_PHASES = {
    "asked": "waits until the log has read all that was stored before", "blanking": "the log erases",
    "telling": "the services erase", "closing": "a last look through the streams", "scrubbing": "the files are emptied",
    "done": "done",
}  # fmt: skip


def reach(conn: "Connection", asked: "ErasureRequested") -> dict[str, Any]:
    """What the log has of what is asked for."""
    from midwatch_services.logger.erasure import log, store
    from midwatch_services.logger.keeping.export_store import exports_with
    from midwatch_services.logger.keeping.hold_store import held

    runs = store.find(conn, asked)
    kept = [
        {"agent": run.agent, "run_id": run.run_id, **hold}
        for run in runs
        for hold in held(conn, run.agent, [run.run_id]).values()
    ]
    names = {(one["agent"], one["run_id"]) for one in kept}
    free = [run for run in runs if (run.agent, run.run_id) not in names]
    exports = {
        one["id"] for agent in {run.agent for run in free}
        for one in exports_with(conn, agent, [run.run_id for run in free if run.agent == agent])
    }  # fmt: skip
    return {
        "runs": [[run.agent, run.run_id] for run in free], **log.count(conn, free), "exports": len(exports),
        "held": kept,
    }  # fmt: skip


def elsewhere(asked: "ErasureRequested", found: dict[str, Any]) -> dict[str, Any]:
    """What the other places have of those runs: cases, review items, messages, dead letters. None where a place cannot
    be asked now; it will be reached all the same."""
    from midwatch.contracts.erasure import ErasedRun

    runs = [ErasedRun(agent=agent, run_id=run_id, tickets=found["tickets"]) for agent, run_id in found["runs"]]
    return {"cases": _cases(runs), "review_items": _items(runs), **_messages(runs, asked)}


def _cases(runs: "list[ErasedRun]") -> int | None:
    from midwatch.contracts import subjects
    from midwatch_services.kill_switch.cases import case_store

    ids = [subjects.case_id(run.agent, run.run_id) for run in runs]
    return _asks(subjects.KILL_SWITCH, lambda conn: len(case_store.known(conn, ids)))


def _items(runs: "list[ErasedRun]") -> int | None:
    from midwatch.contracts import subjects
    from midwatch_services.reviewer_sampler import store

    return _asks(subjects.REVIEWER_SAMPLER, lambda conn: store.queued(conn, [(run.agent, run.run_id) for run in runs]))


def _asks(service: str, work: Any) -> int | None:
    from sqlalchemy.exc import SQLAlchemyError

    from midwatch.errors import MidwatchError
    from midwatch.runtime.database import Database
    from midwatch.runtime.settings import Settings

    try:
        database = Database(Settings().database_for(service), name=service, must_exist=True)
    except MidwatchError:
        return None
    try:
        return int(database.read_now(work))
    except (MidwatchError, SQLAlchemyError):
        return None
    finally:
        database.close()


def _messages(runs: "list[ErasedRun]", asked: "ErasureRequested") -> dict[str, int | None]:
    """Messages about the runs, by stream."""
    from nats.errors import Error as NatsError

    from midwatch.contracts import subjects
    from midwatch.errors import MidwatchError
    from midwatch.runtime.settings import Settings
    from midwatch_services.logger.erasure import store
    from midwatch_services.logger.erasure.match import Scope
    from midwatch_services.logger.erasure.streams import Sweeper

    from .bus import connected

    names = {"run_messages": subjects.RUNS, "decisions": subjects.GOVERNANCE, "dead_letters": subjects.DEAD}

    async def look() -> dict[str, int]:
        async with connected(Settings().url) as nc:
            scope = Scope(runs, references=store.references(asked))
            return (await Sweeper(nc, nc.jetstream(), delete=False).sweep(scope)).counts

    try:
        counts = asyncio.run(look())
    except (OSError, NatsError, TimeoutError, MidwatchError):
        return dict.fromkeys(names)
    return {name: counts.get(stream, 0) for name, stream in names.items()}


def would(found: dict[str, Any]) -> Iterator[str]:
    """What it would reach, in lines."""
    runs = found["runs"]
    names = ", ".join(clean(f"{agent}/{run_id}") for agent, run_id in runs[:_SHOWN])
    more = f" and {len(runs) - _SHOWN:,} more" if len(runs) > _SHOWN else ""
    yield f"Runs:              {len(runs):,}{f' ({names}{more})' if runs else ''}"
    yield f"Events:            {found['events']:,}"
    yield f"Alerts:            {found['alerts']:,}"
    for what, name in (
        ("Cases:            ", "cases"), ("Review items:     ", "review_items"), ("Messages of runs: ", "run_messages"),
        ("Decisions:        ", "decisions"), ("Dead letters:     ", "dead_letters"),
    ):  # fmt: skip
        count = found[name]
        yield f"{what} {'not known now; it is reached all the same' if count is None else f'{count:,}'}"
    yield f"Exports:           {found['exports']:,}"
    for one in found["eval_cases"]:
        mend = one["why_not"] or "then run `midwatch erase cases`"
        yield f"[yellow]Not reached: {clean(one['path'])} of the eval set: {clean(mend)}[/]"
    for hold in found["held"]:
        yield f"[yellow]Kept: {clean(hold['agent'])}/{clean(hold['run_id'])} by {clean(hold['hold_id'])}[/]"


class Progress:
    """Says each place as it confirms."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet, self._said = quiet, set[str]()

    def tell(self, work: "Work | None", parts: "list[Part]") -> None:
        """What is new since the last time."""
        if self._quiet or work is None:
            return
        if work.phase != "done":
            self._say(_PHASES[work.phase])
        for part in parts:
            for service in part.confirmed:
                if all(service in one.confirmed for one in parts):
                    self._say(f"{service} has erased it")

    def _say(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            console.print(f"  {line}")


def row(id: str, work: "Work | None", parts: "list[Part]") -> dict[str, Any]:
    """An erasure for scripts."""
    from midwatch.runtime.topology import ERASERS
    from midwatch_services.logger.erasure.proof import confirmations, digest, waits_for

    if work is None:
        return {"erasure": id, "state": "asked", "waits_for": "the logger has not taken it on", "proof": None}
    missing = waits_for(parts, ERASERS) if work.phase in ("telling", "closing") else []
    waits = "" if work.phase == "done" else _PHASES[work.phase]
    if missing:
        waits = f"{', '.join(missing)} {'has' if len(missing) == 1 else 'have'} not confirmed it"
    return {
        "erasure": work.id, "state": work.phase, "waits_for": waits, "asked_at": work.asked_at, "by": work.by,
        "reason": work.reason, "done_at": work.done_at, "places": work.places, "confirmed": confirmations(parts),
        "proof": work.proof, "proof_sha256": work.proof and digest(work.proof),
    }  # fmt: skip


def line(found: dict[str, Any]) -> tuple[Any, ...]:
    """An erasure as a line of the table."""
    proof, log = found["proof"] or {}, found["places"].get("log", {})
    return (
        found["erasure"], found["asked_at"][:19].replace("T", " "), found["by"], found["state"],
        len(proof["runs"]) if proof else log.get("runs", 0), len(proof["events"]) if proof else log.get("events", 0),
        found["reason"],
    )  # fmt: skip


def proof(found: dict[str, Any]) -> Iterator[str]:
    """The proof, for a person."""
    yield f"Erasure [bold]{clean(found['erasure'])}[/]: {clean(found['state'])}"
    if "by" not in found:
        return
    yield f"  asked by {clean(found['by'])} at {_moment(found['asked_at'])} UTC: {clean(found['reason'])}"
    for place, counts in found["places"].items():
        if place not in ("held", "mentions"):
            yield f"  {clean(place)}: {_counts(counts)}"
    for service, counts in found["confirmed"].items():
        yield f"  {clean(service)} has confirmed it: {_counts(counts)}"
    done = found["proof"]
    if not done:
        yield f"  waits: {clean(found['waits_for'])}"
        return
    reached = f"{count_of(len(done['runs']), 'run')}, {count_of(len(done['events']), 'event')}"
    yield f"  complete at {_moment(done['done_at'])} UTC; {reached}"
    for left in done["outstanding"]:
        yield f"  [yellow]left:[/] {clean(left)}"
    yield f"  [yellow]left:[/] backups hold it until {clean(done['backups_until'][:10])} (MIDWATCH_BACKUP_DAYS)"
    yield f"  proof {clean(found['proof_sha256'])}, in the chains of the agents: --json shows all of it"


def _moment(text: str) -> str:
    return clean(text[:19].replace("T", " "))


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "nothing there"
