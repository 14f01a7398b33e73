"""Where a case goes, who has it, and what is said of it: by what stopped the run, by agents and by people. Pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from midwatch.contracts import subjects
from midwatch.contracts.governance import CaseAccepted, CaseClosed, CaseReturned
from midwatch.contracts.runs import Mode, Resolution

from ..armed import why_not
from ..decide import Instance, Surroundings, Target, silence
from ..policy import Policy

HUMAN = "human"
OWN = "own"  # the fallback of the agent's own program
CLAIMED = "claimed"  # as the history has it, never without a note
BY = subjects.KILL_SWITCH
_AGENT = "agent:"
_RUN_ID = 128  # characters that the contract lets a run id have; presence may name anything
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_MODES = ("live", "drill")  # in which somebody waits for an answer
State = Literal["claimed", "offered", "open", "taken", "closed"]
Said = Literal["opened", "offered", "closed"]


@dataclass(frozen=True, slots=True)
class Case:
    """The case of a run. `claimed`: the agent's own program sees to it; `offered`: the agent `taker` is asked; `open`:
    it waits for people; `taken`: by people, or by an instance of `taker` in its run `taken_run`."""

    case_id: str
    agent: str
    run_id: str
    state: State
    to: str
    opened_by: str
    opened_at: datetime
    updated_at: datetime
    taker: str = ""
    taken_by: str = ""
    taken_run: str = ""
    reference: str = ""
    mode: Mode = "live"
    ticket: str | None = None
    key: str = ""
    epoch: int | None = None
    reason: str = ""
    doubt: str = ""
    chain: tuple[str, ...] = ()
    asked: str = ""
    due_at: datetime | None = None

    @property
    def with_agent(self) -> bool:
        """Whether another agent has it or is asked to take it."""
        return self.to.startswith(_AGENT) and self.state in ("offered", "taken")


@dataclass(frozen=True, slots=True)
class Note:
    """What happened to a case, for its history."""

    at: datetime
    who: str
    what: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """A case after something happened to it, and what is to be said on the bus. `case` is None where only its history
    grew."""

    case: Case | None
    notes: tuple[Note, ...]
    say: tuple[Said, ...] = ()


def waits(mode: Mode) -> bool:
    """Whether somebody waits for the answer of a run of this mode."""
    return mode in _MODES


def is_untold(case: Case) -> bool:
    """Whether nothing is known of what the customer asked."""
    return case.ticket is None and not case.asked


# How a case begins


def begin(case: Case, refusal: str, now: datetime, policy: Policy) -> Step:
    """A case that nobody has yet goes to whom `case.to` names; to people where that is an agent that cannot take it
    (`refusal` says why)."""
    if case.mode == "drill":
        return _rehearsed(case, now)
    taker = case.to.removeprefix(_AGENT) if case.to.startswith(_AGENT) else ""
    if taker and not refusal:
        offered = replace(case, state="offered", taker=taker, due_at=now + policy.accept_within)
        return Step(offered, (Note(now, BY, "offered", f"to {taker}"),), ("offered",))
    note = f"not offered: {refusal}" if taker else case.reason
    return Step(replace(case, state="open", to=HUMAN), (Note(now, BY, "opened", note),), ("opened",))


def begin_own(case: Case, ended: Resolution | None, now: datetime) -> Step:
    """A case that the agent's own program has claimed, where its run has `ended` so meanwhile."""
    claimed = Note(now, case.opened_by, CLAIMED, "its own fallback takes it")
    if ended is None:
        return Step(case, (claimed,))
    after = own_ended(case, ended, now)
    return Step(after.case, (claimed, *after.notes), after.say)


def refusal(
    case: Case, instances: Iterable[Instance], halts: Collection[tuple[str, Target]], revisions: Mapping[str, int],
    now: datetime,
) -> str:  # fmt: skip
    """Why the agent that `case.to` names cannot take it; empty where it can, or where that is no agent."""
    if not case.to.startswith(_AGENT):
        return ""
    name = case.to.removeprefix(_AGENT)
    if not subjects.is_agent_name(name):
        return "its fallback is no agent's name"
    if name in (case.agent, *case.chain):
        return f"{name} had it before"
    if any((key, None) in halts for key in subjects.switch_keys(name)):
        return f"{name} is halted"
    if not all(revisions.get(key) for key in (subjects.FLEET_KEY, subjects.agent_key(name))):
        return f"{name} is not set running"
    present = [one for one in instances if not one.left]
    if not any(why_not(one, (now - one.seen_at).total_seconds(), revisions) == "" for one in present):
        return f"no instance of {name} is armed"
    return ""


# What happens to it


def to_people(case: Case, why: str, now: datetime, *, doubt: str = "", who: str = BY) -> Step:
    """Nobody has the case any more: people take it. What they had before is not opened a second time."""
    first = case.to != HUMAN
    case = replace(
        case, state="open", to=HUMAN, taken_by="", taken_run="", due_at=None, updated_at=now,
        doubt="; ".join(filter(None, dict.fromkeys((case.doubt, doubt)))),
    )  # fmt: skip
    if case.mode == "drill":
        return _rehearsed(case, now, why)
    return Step(case, (Note(now, who, "opened" if first else "returned", why),), ("opened",) if first else ())


def close(case: Case, note: str, now: datetime, *, who: str = BY) -> Step:
    """The case needs nobody any more. One that its own program claimed was never heard of on the bus, and people say
    themselves what they close."""
    say: tuple[Said, ...] = ("closed",) if who == BY and case.state != "claimed" else ()
    return Step(replace(case, state="closed", due_at=None, updated_at=now), (Note(now, who, "closed", note),), say)


def _rehearsed(case: Case, now: datetime, note: str = "") -> Step:
    closed = replace(case, state="closed", updated_at=now)
    return Step(
        closed, (Note(now, BY, "opened", note), Note(now, BY, "closed", "a drill: nobody waits")), ("opened", "closed")
    )


def own_ended(case: Case, ended: Resolution, now: datetime) -> Step:
    """The run of a case ended that its own program had claimed."""
    if ended in ("fell_back", "resolved"):
        return close(case, f"it has its answer: its run ended as {ended}", now)
    return to_people(case, f"its own fallback failed: the run ended as {ended}", now, doubt=DOUBT_FAILED)


def late_answer(case: Case, ended: Resolution, now: datetime) -> Step | None:
    """The run of a case ended that others were to see to: its own program may have answered after all."""
    if ended not in ("fell_back", "resolved"):
        return None
    note = f"it had an answer all the same: its run ended as {ended}"
    if case.state in ("open", "offered"):
        return close(case, note, now)
    return Step(None, (Note(now, case.agent, "answered", note),))


def offer_decided(case: Case, by: str, now: datetime) -> Step | None:
    """The key of the offer was created: by an instance of the agent that was asked, or by us, who took it back."""
    if case.state != "offered":
        return None
    if by == BY:
        return to_people(case, f"{case.taker} did not accept it in time", now)
    taken = replace(case, state="taken", taken_by=by, due_at=None, updated_at=now)
    return Step(taken, (Note(now, by, "accepted", f"as {case.taker}"),))


def taker_began(case: Case, agent: str, run_id: str, now: datetime) -> Step | None:
    """The agent that took the case handles it in a run."""
    if case.state != "taken" or case.taker != agent or case.taken_run:
        return None
    return Step(replace(case, taken_run=run_id, updated_at=now), (Note(now, agent, "began", f"in run {run_id}"),))


def taker_ended(case: Case, agent: str, run_id: str, ended: Resolution, now: datetime) -> Step | None:
    """That run ended. One that was halted leaves a case of its own, which closes this one."""
    mine = case.state == "taken" and case.taker == agent and case.taken_run in ("", run_id)
    if not mine or ended == "halted":
        return None
    if ended in ("failed", "abandoned"):
        return to_people(case, f"{agent} gave up: its run ended as {ended}", now, doubt=f"{agent} {_MAY_HAVE}")
    return close(case, f"{agent} has seen to it ({ended})", now)


def given_up(case: Case, why: str, now: datetime) -> Step | None:
    """The agent that took the case is not to be expected to answer."""
    if case.state != "taken" or not case.with_agent:
        return None
    return to_people(case, why, now, doubt=f"{case.taker} {_MAY_HAVE}")


def goes_on(case: Case, child: Case, now: datetime) -> Step | None:
    """The run of the agent that took the case was stopped too, and left the case `child`."""
    if case.state not in ("offered", "taken") or case.taker != child.agent:
        return None
    return close(case, f"goes on as {child.case_id}: {child.agent} was stopped as well", now)


# What people do


def spoken(case: Case, said: CaseAccepted | CaseReturned | CaseClosed, now: datetime, *, agent: str) -> Step:
    """Of two who accept a case the first has it; only who has it may return it; whoever has seen to it may close it.
    `agent`: under whose name it was said. Under another than that of the case it is an agent's own word, which counts
    while it has the case: its key, not its word, decides who has the offer."""
    if agent != case.agent and not (case.with_agent and agent == case.taker):
        verb = "returned" if isinstance(said, CaseReturned) else "closed"
        what = "accepted" if isinstance(said, CaseAccepted) else verb
        return _ignored(case, said.by, what, now)
    if isinstance(said, CaseAccepted):
        return _accepted(case, said.by, said.reference, now)
    return (_returned if isinstance(said, CaseReturned) else _closed)(case, said.by, said.note, now)


def _accepted(case: Case, by: str, reference: str, now: datetime) -> Step:
    if case.state == "taken" and case.taken_by == by:
        same = replace(case, reference=reference or case.reference, updated_at=now)
        return Step(same, (Note(now, by, "accepted", reference),) if reference != case.reference else ())
    if case.state != "open":
        return _ignored(case, by, "accepted", now)
    taken = replace(case, state="taken", taken_by=by, reference=reference, updated_at=now)
    return Step(taken, (Note(now, by, "accepted", reference),))


def _returned(case: Case, by: str, note: str, now: datetime) -> Step:
    if case.state != "taken" or case.taken_by != by:
        return _ignored(case, by, "returned", now)
    doubt = f"{case.taker} {_MAY_HAVE}" if case.with_agent else ""
    return to_people(case, note, now, doubt=doubt, who=by)


def _closed(case: Case, by: str, note: str, now: datetime) -> Step:
    return _ignored(case, by, "closed", now) if case.state == "closed" else close(case, note, now, who=by)


def _ignored(case: Case, by: str, what: str, now: datetime) -> Step:
    holder = f" by {case.taken_by}" if case.state == "taken" else ""
    return Step(None, (Note(now, by, "ignored", f"{what} by {by}, but the case is {case.state}{holder}"),))


# Those who vanish

_MAY_HAVE = "had it before and may have answered"
DOUBT_FAILED = "the agent's own fallback had begun and may have answered"
DOUBT_GONE = "the agent's program vanished while its own fallback had the case, and may have answered"
DOUBT_GOES_ON = "the agent's program acts without the switch and could not be halted: it may go on"
DOUBT_OWN = "the agent's program has a fallback of its own, which may have answered before it vanished"


def gone(instance: Instance | None, since: datetime, around: Surroundings, carries_on: bool, policy: Policy) -> bool:
    """Whether nothing more is to be expected of an instance: it signed off, fell silent, or since `since` gave way to
    another process by its name, for longer than its lease. One that `carries_on` without a lease is waited for longer,
    as one that never sent presence (None)."""
    if instance is None:
        return around.now - max(since, around.watching_since) > policy.idle_after
    if since < replaced(instance, around):
        return True
    heard = max(instance.seen_at, around.watching_since)
    if instance.left:  # what its last run said is on its way yet
        return around.now - heard > instance.lease
    if carries_on and around.now - heard <= policy.idle_after:
        return False
    return silence(instance, around, policy) == "lapsed"


def stranded(instance: Instance, begun: Iterable[str] = ()) -> list[str]:
    """The runs for whose answer somebody waits that an instance had when it was heard last, and those that had `begun`
    in the stream of runs and have not ended there."""
    runs = dict.fromkeys((*instance.running, *instance.draining, *begun))
    return [run for run in runs if run not in instance.no_case and 0 < len(run) <= _RUN_ID]


def replaced(instance: Instance, around: Surroundings) -> datetime:
    """Until when another process had the name of this one, and its lease has run out since."""
    since = instance.since
    return since if since is not None and around.now - since > instance.lease else _LONG_AGO


def left_behind(instance: Instance, begun: Iterable[str]) -> list[str]:
    """Of the runs that another process by its name had `begun`, those that the instance does not have."""
    return [run for run in begun if run not in instance.running and run not in instance.draining]


def overdue(case: Case, now: datetime, policy: Policy) -> bool:
    """Whether an agent took the case and has not begun."""
    return (
        case.with_agent and case.state == "taken" and not case.taken_run and now - case.updated_at > policy.begin_within
    )
