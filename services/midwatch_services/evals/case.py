"""A case of an eval set, as the rest of the package knows it, however its file is written. Pure."""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import msgspec

Kind = Literal["read", "write", "other"]
Missing = Literal["nearest", "fail"]  # what answers a call that the recording does not hold
NO_RESULT = "no result is recorded"  # the error of a recorded call that never came back
AGREE = 2  # people who have to agree on a case's criteria before it gates


@dataclass(frozen=True, slots=True)
class Recorded:
    """A call that the recorded run made, and what came back."""

    tool: str
    arguments: Any
    result: Any = None
    error: str | None = None
    kind: Kind = "other"


@dataclass(frozen=True, slots=True)
class CallRule:
    """A call of `tool`. `arguments`: what each has to equal, by its name or by a JSONPath that begins with `$`; others
    are free. `when`: a CEL condition over the arguments."""

    tool: str
    arguments: dict[str, Any] = field(default_factory=dict)
    when: str | None = None


@dataclass(frozen=True, slots=True)
class Expect:
    """What is asked of the agent; all of it must hold. `says` and `says_not`: in what it says, whatever the letters'
    case. `writes`: exactly these writes succeed, in any order, each as often as it stands here, and no other; None asks
    nothing. `judge`: a `module:function` of the user's own."""

    says: tuple[str, ...] = ()
    says_not: tuple[str, ...] = ()
    calls: tuple[CallRule, ...] = ()
    calls_not: tuple[CallRule, ...] = ()
    writes: tuple[CallRule, ...] | None = None
    hands_off: bool | None = None
    max_cost: str | None = None  # US dollars
    max_steps: int | None = None  # model and tool calls together
    judge: str | None = None

    @property
    def hash(self) -> str:
        """SHA-256 of what is asked, in hex: what people agree on."""
        text = msgspec.json.encode(msgspec.to_builtins(self), order="deterministic")
        return hashlib.sha256(text).hexdigest()


@dataclass(frozen=True, slots=True)
class Agreed:
    """Somebody read the case and agrees with its criteria, which then had this hash."""

    by: str
    at: str  # RFC 3339
    hash: str


def same_person(name: str) -> str:
    """The name as it is compared: spaces and the letters' case do not count."""
    return " ".join(name.casefold().split())


@dataclass(frozen=True, slots=True)
class Message:
    """What was said before the case begins."""

    role: Literal["customer", "agent", "human"]
    text: str


@dataclass(frozen=True, slots=True)
class Case:
    """One conversation to replay. `earlier`: what was said before it begins. `turns`: what the customer says, one after
    the other, each once the agent has answered. `recorded`: the calls of the run that it was made from, which answer
    the agent's. `also`: of a twin, the runs whose words it holds, None where that is not told. `task`: what the case is
    about, where several runs are of the same. `twin_of`: the case that it is a perturbed copy of, and `perturbation`
    how. `judge_trusted`: people agreed often enough with the judge that it asks."""

    name: str
    agent: str
    turns: tuple[str, ...]
    expect: Expect
    earlier: tuple[Message, ...] = ()
    recorded: tuple[Recorded, ...] = ()
    missing: Missing = "nearest"
    kinds: dict[str, Kind] = field(default_factory=dict)  # of the tools, by name
    run_id: str = ""
    also: tuple[str, ...] | None = ()
    version: str = ""
    task: str = ""
    twin_of: str = ""
    perturbation: str = ""
    note: str = ""
    agreed: tuple[Agreed, ...] = ()
    path: str = ""  # of its file, for messages
    judge_trusted: bool = False

    @property
    def agrees(self) -> tuple[str, ...]:
        """Who agreed with the criteria as they stand, each once however the name is written."""
        wanted = self.expect.hash
        return tuple({same_person(one.by): one.by for one in self.agreed if one.hash == wanted}.values())

    @property
    def runs(self) -> tuple[str, ...] | None:
        """The runs whose words it holds; None where that is not told."""
        return None if self.also is None else tuple(run for run in dict.fromkeys((self.run_id, *self.also)) if run)

    @property
    def hash(self) -> str:
        """SHA-256 of what is replayed and what is asked, in hex; agreement and files do not count."""
        bare = msgspec.to_builtins(replace(self, agreed=(), path="", note="", judge_trusted=False))
        del bare["also"]  # whose words they are, not which
        return hashlib.sha256(msgspec.json.encode(bare, order="deterministic")).hexdigest()
