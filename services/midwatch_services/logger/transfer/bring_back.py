"""An import: what an export holds and the log does not, at its old places, beside a logger that goes on writing."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby, islice
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from midwatch.contracts import codec, subjects
from midwatch.contracts.codec import Refused, RunEvent
from midwatch.errors import MidwatchError
from midwatch.runtime import faults
from midwatch.runtime.database import Database, insert_new

from ..decide import RunRow, fold, text_of
from ..erasure import blank
from ..erasure import log as erasure_log
from ..erasure import store as erasures
from ..erasure.forgotten import Covered, Forgotten, erase, forgotten, since, unsettled, without_held
from ..erasure.named import Named
from ..evidence import chain_store
from ..evidence.chain import Block
from ..keeping.hold_store import read_holds
from ..partitions import make_partitions
from ..store import ALERT_COLUMNS, EVENT_COLUMNS, RUN_COLUMNS, load_runs, save_runs
from . import chains
from .files import Damaged, in_batches
from .layout import Manifest, file_of

T = TypeVar("T")
Told = Callable[[int, int], None]
Key = tuple[str, str]  # agent, run id

BATCH = 500  # events of one transaction
_AT_ONCE = 100  # runs that are erased in one transaction
BY = "the log, at an import"
_REST = 1.0  # seconds for each second of writing


class OtherStreams(MidwatchError):
    """This log has read other streams than the export's, so that two events would have one place: import it into a
    database of its own, with MIDWATCH_DATABASE_URL."""


@dataclass
class Report:
    """What an import brought, and what was there already. `gone`: events of runs that were removed meanwhile; `erased`:
    events that came without what they say, since their runs were erased."""

    runs: int = 0
    events: int = 0
    alerts: int = 0
    chains: int = 0
    there: int = 0
    gone: int = 0
    erased: int = 0
    oldest: str | None = None  # when the log heard last of the oldest run that was brought
    unread: str | None = None  # what of an altered export could not be read


@dataclass
class Import:
    """One import. `unverified`: the first thing in the export that was altered, where it is imported all the same."""

    database: Database
    folder: Path
    manifest: Manifest
    now: datetime
    unverified: str | None = None
    told: Told = lambda done, total: None
    _report: Report = field(default_factory=Report)
    _taken: set[str] = field(default_factory=set)  # agents whose chain came whole
    _differ: set[Key] = field(default_factory=set)  # runs that were there, and not as in the export
    _forgotten: Forgotten = field(default_factory=Forgotten)

    def run(self) -> Report:
        """Brings everything in. Again changes nothing. Raises OtherStreams, Temporary."""
        self._write(self._streams)
        self._forgotten = self.database.read_now(forgotten)
        if self._forgotten.runs or self._forgotten.works:
            self._remember()
        self._each(self._chains)
        faults.reach("import.chained")
        self._each(self._runs)
        faults.reach("import.runs")
        self._each(self._events)
        self._each(self._alerts)
        faults.reach("import.events")
        self._each(self._recount)
        faults.reach("import.counted")
        self._erase_meanwhile()
        return self._report

    def _each(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Damaged as error:
            if self.unverified is None:  # it was whole when it was checked
                raise MidwatchError(f"{error}: it was changed while it was imported") from None
            self._report.unread = self._report.unread or str(error)

    def _file(self, table: str) -> Path:
        return self.folder / file_of(table, self.manifest.format)

    def _streams(self, conn: Connection) -> None:
        """Places name their stream by number: here each must mean the same one."""
        here = [(int(number), str(at)) for number, at in conn.execute(_STREAMS)]
        theirs = [(number, created) for number, created in self.manifest.streams]
        if any(one not in theirs for one in here[: len(theirs)]) or any(one not in here for one in theirs[: len(here)]):
            raise OtherStreams
        for number, created in theirs[len(here) :]:
            conn.execute(_ADD_STREAM, {"number": number, "created": created})

    def _remember(self) -> None:
        """The log has forgotten whom it erased and which tickets were named, and the export may say so still."""
        with Named() as named:
            self._read_names(named)
            found = self._forgotten.learn(named)

        def work(conn: Connection) -> None:
            self._forgotten.remember(conn, without_held(found, self._holds(conn)), load_runs(conn, list(found)))

        self._write(work)

    def _read_names(self, named: Named) -> None:
        """What can be read of a damaged file counts, as it does when its rows are brought in."""

        def read(table: str, columns: tuple[str, ...], add: Callable[[list[dict[str, Any]]], None]) -> None:
            for rows in in_batches(self._file(table), columns, BATCH):
                add(rows)

        self._each(lambda: read("runs", RUN_COLUMNS, named.add_runs))
        self._each(lambda: read("events", EVENT_COLUMNS, named.add_events))

    def _holds(self, conn: Connection) -> list[dict[str, Any]]:
        return [one for one in read_holds(conn, now=self.now) if one["in_force"]]

    def _erase_meanwhile(self) -> None:
        """An erasure that was under way or asked for while this ran could not find what came in after it had looked."""
        now = self.database.read_now(forgotten)
        if not unsettled(self._forgotten, now):
            return
        with Named() as named:
            self._read_names(named)
            found = since(named, self._forgotten, now)
        for start in range(0, len(found), _AT_ONCE):
            some = dict(islice(found.items(), start, start + _AT_ONCE))
            self._write(lambda conn, some=some: self._erase(conn, some))  # type: ignore[misc]

    def _erase(self, conn: Connection, some: Mapping[Key, Covered]) -> None:
        free = without_held(some, self._holds(conn))
        self._report.erased += erase(conn, free, at=text_of(self.now), by=BY)

    def _chains(self) -> None:
        """The chains of agents that have none here, and all checkpoints where there is no chain at all."""
        if not self.manifest.filter.is_whole():
            return
        blocks = chains.read_blocks(self._file("blocks"))
        fresh = self.database.read_now(lambda conn: not chain_store.agents(conn))
        for agent, of_agent in groupby(blocks, key=lambda block: block.agent):
            some = self._checked(of_agent)
            if self._write(lambda conn, agent=agent, some=some: chains.take_over(conn, agent, some)):  # type: ignore[misc]
                self._taken.add(agent)
                self._report.chains += 1
        if fresh:
            self._write(lambda conn: chains.take_checkpoints(conn, self.folder))

    def _checked(self, blocks: Iterator[Block]) -> Iterator[Block]:
        return blocks if self.unverified else chains.checked(blocks)

    def _runs(self) -> None:
        for rows in in_batches(self._file("runs"), RUN_COLUMNS, BATCH):
            self._write(lambda conn, rows=rows: self._save_runs(conn, rows))  # type: ignore[misc]

    def _save_runs(self, conn: Connection, rows: Sequence[dict[str, Any]]) -> None:
        erased = erasures.erased(conn, _keys(rows))
        rows = [row | dict.fromkeys(blank.PERSONAL) if _key(row) in erased else row for row in rows]
        values = [[row[name] for name in RUN_COLUMNS] for row in rows]
        fresh = set(insert_new(conn, "logger_runs", RUN_COLUMNS, values, ("agent", "run_id")))
        there = [(row["agent"], row["run_id"]) for at, row in enumerate(rows) if at not in fresh]
        here = load_runs(conn, there)
        by_key = {(row["agent"], row["run_id"]): RunRow(**row) for row in rows}
        self._differ |= {key for key in there if here[key] != by_key[key]}
        self._report.runs += len(fresh)
        heard = [rows[at]["stored_at"] for at in fresh]
        self._report.oldest = min([*heard, *([self._report.oldest] if self._report.oldest else [])], default=None)

    def _events(self) -> None:
        done = 0
        for rows in in_batches(self._file("events"), EVENT_COLUMNS, BATCH):
            self._write(lambda conn, rows=rows: self._save_events(conn, rows))  # type: ignore[misc]
            faults.reach("import.batch")
            done += len(rows)
            self.told(done, self.manifest.counts.get("events", 0))

    def _save_events(self, conn: Connection, rows: Sequence[dict[str, Any]]) -> None:
        runs = load_runs(conn, list({(row["agent"], row["run_id"]) for row in rows}))
        known = [row for row in rows if (row["agent"], row["run_id"]) in runs]
        self._report.gone += len(rows) - len(known)
        erased = erasures.erased(conn, _keys(known))
        blanked = {row["id"] for row in known if _key(row) in erased and _blank(row, erased[_key(row)])}
        for row in known:
            row["month"] = runs[row["agent"], row["run_id"]].month
        make_partitions(conn, {row["month"] for row in known})
        values = [[row[name] for name in EVENT_COLUMNS] for row in known]
        fresh = [known[at] for at in insert_new(conn, "logger_events", EVENT_COLUMNS, values, ("agent", "id"))]
        self._report.events += len(fresh)
        self._report.there += len(known) - len(fresh)
        self._chain(conn, fresh)
        self._note_erased(conn, [row for row in fresh if row["id"] in blanked], erased)
        folded = [
            _folded(runs[key], [row for row in fresh if (row["agent"], row["run_id"]) == key])
            for key in {(row["agent"], row["run_id"]) for row in fresh} & self._differ
        ]
        if folded:
            save_runs(conn, folded)

    def _chain(self, conn: Connection, fresh: Sequence[dict[str, Any]]) -> None:
        """What is new to a chain that was here is chained next, and a block says where it came from."""
        for agent in sorted({row["agent"] for row in fresh}):
            leaves = [(row["place"], row["leaf"]) for row in fresh if row["agent"] == agent and row["leaf"]]
            unknown = chains.not_in_chain(conn, agent, leaves)
            chain_store.note_late(conn, ((agent, place, leaf) for place, leaf in unknown))
            if leaves and (agent not in self._taken or self.unverified):
                note = {
                    "export": self.manifest.id, "made_at": self.manifest.made_at, "at": text_of(self.now),
                    "places": sorted(place for place, _ in leaves),
                } | ({"unverified": self.unverified} if self.unverified else {})  # fmt: skip
                chain_store.append_note(conn, agent, "imported", note, self.now)

    def _note_erased(self, conn: Connection, rows: Sequence[dict[str, Any]], erased: Mapping[Key, str]) -> None:
        """What the export still says of runs that were erased was left out, and the chains say so."""
        self._report.erased += len(rows)
        of: dict[str, list[erasure_log.Leaf]] = {}
        for row in rows:
            leaf = erasure_log.Leaf(row["agent"], row["id"], row["run_id"], row["place"], (row["leaf"] or b"").hex())
            of.setdefault(erased[_key(row)], []).append(leaf)
        for erasure, leaves in of.items():
            erasure_log.note(conn, erasure, leaves, at=text_of(self.now), by=BY)

    def _alerts(self) -> None:
        for rows in in_batches(self._file("alerts"), ALERT_COLUMNS, BATCH):
            fresh = self._write(lambda conn, rows=rows: self._save_alerts(conn, rows))  # type: ignore[misc]
            self._report.alerts += len(fresh)

    def _save_alerts(self, conn: Connection, rows: Sequence[dict[str, Any]]) -> list[int]:
        erased = erasures.erased(conn, _keys(rows))
        for row in rows:
            try:
                if row["raised"] and (_key(row) in erased or self._forgotten.has_alert(row)):
                    row.update(raised=blank.alert_of(row["raised"]), resolved_reason=None)
            except (msgspec.MsgspecError, UnicodeDecodeError):  # nobody can tell whom it names
                row.update(raised=None, resolved_reason=None)
                self._report.unread = self._report.unread or f"the alert {row['alert_id']}, which was left blank"
        values = [[row[name] for name in ALERT_COLUMNS] for row in rows]
        return insert_new(conn, "logger_alerts", ALERT_COLUMNS, values, ("alert_id",))

    def _recount(self) -> None:
        """A run whose row does not count the events that the log has of it, as after a crash, is folded anew."""
        for rows in in_batches(self._file("runs"), RUN_COLUMNS, BATCH):
            keys = [(str(row["agent"]), str(row["run_id"])) for row in rows]
            for key in self.database.read_now(lambda conn, keys=keys: _miscounted(conn, keys)):  # type: ignore[misc]
                self._write(lambda conn, key=key: _fold_anew(conn, key))  # type: ignore[misc]

    def _write(self, work: Callable[[Connection], T]) -> T:
        began = 0.0

        def timed(conn: Connection) -> T:
            nonlocal began
            began = time.monotonic()
            return work(conn)

        done = self.database.write_now(timed)
        time.sleep((time.monotonic() - began) * _REST)
        return done


_STREAMS = sa.text("SELECT number, created FROM logger_streams ORDER BY number")
_ADD_STREAM = sa.text("INSERT INTO logger_streams (number, created) VALUES (:number, :created)")


def _key(row: Mapping[str, Any]) -> Key:
    return row["agent"], row["run_id"]


def _keys(rows: Iterable[Mapping[str, Any]]) -> list[Key]:
    return list({_key(row) for row in rows if row["agent"] and row["run_id"]})


def _blank(row: dict[str, Any], erasure: str) -> bool:
    """Takes from an event what it says; whether it said anything still."""
    if blank.erased_by(row["body"]) is not None:
        return False
    row.update(body=blank.body_of(erasure, row["salt"], row["body"]), salt=None, ticket=None, note=None)
    return True


def _folded(row: RunRow, events: Sequence[dict[str, Any]]) -> RunRow:
    """The row with the events in it. One that was erased, or cannot be read, is counted and no more."""
    read = [(event, _read(event)) for event in events]
    row = fold(row, [(event, stored["time"]) for stored, event in read if event is not None])
    for stored, event in read:
        times = stored["time"]
        if event is None:
            row = msgspec.structs.replace(
                row, events=row.events + 1, first_at=min(row.first_at, times), last_at=max(row.last_at, times)
            )
    row.stored_at = max([row.stored_at, *(stored["stored_at"] for stored in events)])
    return row


def _read(row: dict[str, Any]) -> RunEvent | None:
    try:
        return codec.decode_run(subjects.run(row["agent"], row["event"]), row["body"].encode())
    except Refused:
        return None


def _miscounted(conn: Connection, keys: Sequence[Key]) -> Iterator[Key]:
    query = sa.text("SELECT count(*) FROM logger_events WHERE agent = :agent AND run_id = :run_id")
    return iter(
        [
            key
            for key, row in load_runs(conn, keys).items()
            if conn.execute(query, {"agent": key[0], "run_id": key[1]}).scalar_one() != row.events
        ]
    )


def _fold_anew(conn: Connection, key: Key) -> None:
    query = sa.text(
        f"SELECT {', '.join(EVENT_COLUMNS)} FROM logger_events WHERE agent = :agent AND run_id = :run_id"  # noqa: S608
    )
    events = [dict(row._mapping) for row in conn.execute(query, {"agent": key[0], "run_id": key[1]})]
    if not events:
        return  # what the log has of the run is its row
    month = load_runs(conn, [key])[key].month
    save_runs(conn, [_folded(RunRow(agent=key[0], run_id=key[1], month=month), events)])
