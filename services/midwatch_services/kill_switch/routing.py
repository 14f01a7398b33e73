"""Where a case goes, who has it, and what is said of it: by what stopped the run, by agents and by people. Pure."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from midwatch.contracts import subjects
from midwatch.contracts.runs import Mode

HUMAN = "human"
OWN = "own"
BY = subjects.KILL_SWITCH
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


@dataclass(frozen=True, slots=True)
class Note:
    """What happened to a case, for its history."""

    at: datetime
    who: str
    what: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """A case after something happened to it, and what is to be said on the bus. `case` is None where nothing changed
    that is more than history."""

    case: Case | None
    notes: tuple[Note, ...]
    say: tuple[Said, ...] = ()
