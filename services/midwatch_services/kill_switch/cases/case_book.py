"""The cases as kill-switch has them: opened, moved on and closed, each step saved together with what is said of it."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from nats.aio.client import Client
from nats.js import JetStreamContext
from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch.contracts.control import CaseClaim
from midwatch.contracts.governance import CaseOpened
from midwatch.contracts.runs import Resolution
from midwatch.errors import Permanent
from midwatch.runtime import faults
from midwatch.runtime.database import Database
from midwatch.runtime.outbox import Outbox

from .. import store
from ..handlers import KillSwitch
from ..policy import Policy
from ..registry import RunKey
from . import case_body, case_store, routing
from .case_body import Told
from .claims import Claims
from .flights import Flights
from .routing import BY, HUMAN, OWN, Case, Step

_SETTLED = 100_000  # cases that are remembered to need nobody
_GROUP = 32  # cases that are opened at once, so that the first need not wait for the last
_GAPS = (0.05, 0.1, 0.15)  # seconds after which events that are not there yet are sought again

Hooks = Callable[[Connection, str, CaseOpened], None]


class Change(NamedTuple):
    """What happens to a case as it stands in the table. `event`: agent and id of the event that says so, which counts
    once, and of which there must be the case."""

    case_id: str
    happens: Callable[[Case], Step | None]
    event: tuple[str, str] | None = None


class Want(NamedTuple):
    """A run that may need a case. `claim`: what is to stand in the bucket, or does (`stands`). `upto` and `seq`: place
    in the stream and order in its run of the event that says so. `vanished`: none does, its instance fell silent.
    `parent`: the case that the run handles, where that is known. `at`: when somebody else had it, where that is so.
    `doubt`: why the customer may yet have an answer."""

    claim: CaseClaim
    upto: int = 0
    seq: int = 0
    stands: bool = False
    vanished: bool = False
    parent: str = ""
    at: datetime | None = None
    doubt: str = ""

    @property
    def case_id(self) -> str:
        return subjects.case_id(self.claim.agent, self.claim.run_id)

    @property
    def run(self) -> RunKey:
        return self.claim.agent, self.claim.run_id


class CaseBook:
    """The tables are the truth; memory follows their commits. `hooks` hears, within the transaction, of each case for
    people that is opened or closed."""

    def __init__(
        self, nc: Client, js: JetStreamContext, database: Database, outbox: Outbox, switch: KillSwitch,
        flights: Flights, now: Callable[[], datetime], policy: Policy, hooks: Hooks | None = None,
    ) -> None:  # fmt: skip
        self._nc, self._database, self._outbox, self._switch = nc, database, outbox, switch
        self._flights, self._now, self._policy, self._hooks = flights, now, policy, hooks
        self.claims = Claims(js)
        self._cases: dict[str, Case] = {}  # that are not closed, by id
        self._settled: OrderedDict[str, None] = OrderedDict()  # ids of cases that are closed or were never needed
        self._opening = asyncio.Lock()

    async def load(self) -> None:
        """Takes up the cases that are not closed."""
        self._keep(await self._database.read(case_store.unfinished))

    @property
    def cases(self) -> Mapping[str, Case]:
        """Those that are not closed, by id."""
        return self._cases

    def is_known(self, case_id: str) -> bool:
        """Whether there is such a case, or it is remembered that none is needed."""
        return case_id in self._cases or case_id in self._settled

    def _keep(self, cases: Sequence[Case]) -> None:
        for case in cases:
            if case.state != "closed":
                self._cases[case.case_id] = case
            else:
                self._cases.pop(case.case_id, None)
                self._settle(case.case_id)

    def _settle(self, case_id: str) -> None:
        self._settled[case_id] = None
        if len(self._settled) > _SETTLED:
            self._settled.popitem(last=False)

    # Opening

    async def open(self, wants: Sequence[Want]) -> None:
        """Claims the cases that nobody has, and opens those that are ours. Done twice it is done once: the claim says
        whose a case is, and the table whether it was opened."""
        new = {want.case_id: want for want in reversed(wants) if want.case_id not in self._cases}
        quick = [want for want in reversed(new.values()) if self._is_recalled(want)]
        groups = [quick[start : start + _GROUP] for start in range(0, len(quick), _GROUP)]
        if slow := [want for want in new.values() if not self._is_recalled(want)]:
            groups.append(slow)  # all of them are read at once
        for group in groups:
            async with self._opening:
                opened = await self._open(group)
            await self._outbox.drain()
            # What of this was heard while it was saved has found no case.
            own = [case for case in opened if case.state == "claimed"]
            ends = [(case, self._flights.ended((case.agent, case.run_id))) for case in own]
            await self.conclude([(case, over) for case, over in ends if over])

    def _is_recalled(self, want: Want) -> bool:
        """Whether it is known where all of the run is. Of one that vanished the stream may have more by now."""
        return not want.vanished and self._flights.path(want.run) is not None

    async def _open(self, wants: Sequence[Want]) -> list[Case]:
        new = {want.case_id: want for want in wants if want.case_id not in self._cases}
        known = await self._database.read(lambda conn: case_store.known(conn, list(new)))
        for case_id in known:
            self._settle(case_id)
            del new[case_id]
        told = await self._tell(list(new.values()))
        for case_id, want in list(new.items()):
            if (want.vanished and told[want.run].ended) or not routing.waits(told[want.run].mode):
                self._settle(case_id)
                del new[case_id]
        if not new:
            return []
        unclaimed = [want for want in new.values() if not want.stands]
        standing = await self.claims.create_all([(subjects.case_key(*want.run), want.claim) for want in unclaimed])
        claims = {want.case_id: claim for want, claim in zip(unclaimed, standing, strict=True)}
        faults.reach("kill_switch.case_claimed")

        def save(conn: Connection) -> list[Case]:
            found: list[Case] = []
            # Another process with these tables may have been faster.
            there = case_store.known(conn, list(new))
            for want in (want for case_id, want in new.items() if case_id not in there):
                found += self._add(conn, want, claims.get(want.case_id, want.claim), told[want.run])
            return found

        opened = await self._database.write(save)
        self._keep(opened)
        faults.reach("kill_switch.case_saved")
        return opened

    def _add(self, conn: Connection, want: Want, claim: CaseClaim, told: Told) -> list[Case]:
        """A new case, and after it the one that its run had taken on, if it had."""
        now, (agent, run_id) = self._now(), want.run
        parent = case_store.get(conn, want.parent or told.label) if want.parent or told.label else None
        if parent and (parent.taker != agent or parent.taken_run not in ("", run_id)):
            parent = None
        chain = (*parent.chain, parent.agent) if parent else ()
        ours = claim.by == BY
        case = Case(
            case_id=want.case_id, agent=agent, run_id=run_id, state="open" if ours else "claimed", opened_at=now,
            to=(HUMAN if chain and not claim.key else claim.to) if ours else OWN, opened_by=claim.by, updated_at=now,
            mode=told.mode, ticket=told.ticket, key=claim.key, epoch=claim.epoch, reason=claim.reason,
            doubt=self._doubt(want, claim) if ours else "", chain=chain, asked=told.asked,
        )  # fmt: skip
        if ours:
            instances = self._switch.instances.of(case.to.rpartition(":")[2])
            refusal = routing.refusal(case, instances, self._switch.halts.keys(), self._switch.revisions, now)
            step = routing.begin(case, refusal, now, self._policy)
        else:
            step = routing.begin_own(case, told.ended, now)
        saved = [self._save(conn, case.case_id, step, now, told, new=True)]
        keys = subjects.switch_keys(agent)
        if claim.epoch is not None and claim.key in ("", *keys):
            by = [claim.key] if claim.key else keys
            store.note_case(conn, claim.epoch, want.at or now, keys=by, run_id=run_id)
        if parent and (after := routing.goes_on(parent, case, now)):
            saved.append(self._save(conn, parent.case_id, after, now))
        return [case for case in saved if case]

    def _doubt(self, want: Want, claim: CaseClaim) -> str:
        """Why the customer may have had an answer of a run that nothing stopped: only its instance fell silent."""
        own = any(one.own_fallback for one in self._switch.instances.of(claim.agent))
        silent = not claim.key and claim.epoch is None
        return "; ".join(filter(None, (want.doubt, routing.DOUBT_OWN if own and silent else "")))

    async def _tell(self, wants: Sequence[Want]) -> dict[RunKey, Told]:
        """The runs as far as they are in the stream: by where their events are, where that is known and suffices, else
        those of one agent by one reading."""
        recalled = await self._recall([want.run for want in wants if self._is_recalled(want)])
        found = {want.run: one for want in wants if (one := recalled.get(want.run)) and one.complete(want.seq)}
        wants = [want for want in wants if want.run not in found]
        found |= await self._read([want.run for want in wants])
        for delay in _GAPS:
            lacking = [want.run for want in wants if not found[want.run].whole(want.upto, want.seq)]
            if not lacking:
                break
            await asyncio.sleep(delay)  # the replica that answered is behind, or an event was sent again
            found |= await self._read(lacking)
        return found

    async def _recall(self, runs: Sequence[RunKey]) -> dict[RunKey, Told]:
        paths = {run: path for run in runs if (path := self._flights.path(run))}
        return await case_body.recall(self._nc, paths)

    async def _read(self, runs: Sequence[RunKey]) -> dict[RunKey, Told]:
        starts: dict[tuple[str, bool], int | datetime] = {}
        grouped: dict[tuple[str, bool], list[str]] = {}
        for agent, run_id in runs:
            first = self._flights.first((agent, run_id))
            group = (agent, first is not None)
            grouped.setdefault(group, []).append(run_id)
            before = starts.get(group)
            if first is None:
                starts[group] = self._now() - self._policy.lookback
            else:
                starts[group] = min(first, before) if isinstance(before, int) else first
        found: dict[RunKey, Told] = {}
        for group, run_ids in grouped.items():
            told = await case_body.tell(self._nc, group[0], run_ids, starts[group])
            found |= {(group[0], run_id): one for run_id, one in told.items()}
        return found

    # Moving on

    async def apply(self, changes: Sequence[Change]) -> None:
        """Lets happen to cases what happens, in order. Raises Permanent for an event of a case that never was."""

        def save(conn: Connection) -> list[Case]:
            return [saved for change in changes if (saved := self._change(conn, change, self._now()))]

        if changes:
            self._keep(await self._database.write(save))
            faults.reach("kill_switch.case_saved")

    def _change(self, conn: Connection, change: Change, now: datetime) -> Case | None:
        case = case_store.get(conn, change.case_id)
        if change.event is not None:
            if case is None:
                raise Permanent(f"there is no case {change.case_id}", reason="unknown_case")
            if not self._outbox.fresh(conn, [change.event]):
                return None
        step = change.happens(case) if case is not None else None
        return self._save(conn, change.case_id, step, now) if step is not None else None

    async def conclude(self, ended: Sequence[tuple[Case, Resolution | None]]) -> None:
        """Ends the cases that an agent's own program had claimed: its run ended so, or (None) nothing more is to be
        expected of it, and the stream tells what it said last."""
        if not ended:
            return
        halted = [
            (case.agent, case.run_id) for case, how in ended if how and (how != "fell_back" or routing.is_untold(case))
        ]
        found = await self._recall(halted)
        gone = [(case.agent, case.run_id) for case, how in ended if how is None]
        found |= await self._read([*gone, *(run for run in halted if run not in found)])

        def save(conn: Connection) -> list[Case]:
            now, saved = self._now(), list[Case | None]()
            for known, how in ended:
                case, told = case_store.get(conn, known.case_id), found.get((known.agent, known.run_id))
                if case is None or case.state != "claimed":
                    continue
                if case_store.is_blanked(conn, case.case_id):
                    told = None  # what was erased is not to come back from the stream
                elif told and routing.is_untold(case):  # it was claimed before anything of its run was heard
                    case = replace(case, mode=told.mode, ticket=told.ticket, asked=told.asked)
                over = how or (told.ended if told else None)
                gone = routing.to_people(case, "its instance vanished", now, doubt=routing.DOUBT_GONE)
                step = routing.own_ended(case, over, now) if over else gone
                saved.append(self._save(conn, case.case_id, step, now, told))
            return [case for case in saved if case]

        self._keep(await self._database.write(save))
        faults.reach("kill_switch.case_saved")

    def _save(
        self, conn: Connection, case_id: str, step: Step, now: datetime, told: Told | None = None, *, new: bool = False
    ) -> Case | None:
        """Saves what happened to a case together with what is to be said of it."""
        case = step.case
        case_store.note(conn, case_id, step.notes, new=new)
        if case is not None:
            body = None if new else case_store.body(conn, case_id)
            if "opened" in step.say or "offered" in step.say:
                by = self._halted_by(case)
                body = case_body.opened(case, told or Told(), by) if body is None else case_body.renewed(body, case)
            case_store.save(conn, case, body if step.say else None, new=new)
            if body is not None:
                self._say(conn, case, body, step, now)
        return case

    def _say(self, conn: Connection, case: Case, body: CaseOpened, step: Step, now: datetime) -> None:
        for said in step.say:
            self._outbox.add(conn, case_body.outgoing(said, case, body, step.notes[-1].note, now))
        if self._hooks is None or case.to != HUMAN or case.mode == "drill":
            return
        if "opened" in step.say:
            self._hooks(conn, "opened", body)
        if case.state == "closed":
            self._hooks(conn, "closed", body)

    def _halted_by(self, case: Case) -> str:
        for target in (case.run_id, None):
            if halt := self._switch.halts.get((case.key, target)):
                return halt.record.by
        return ""
