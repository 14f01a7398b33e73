"""What an agent did with a case, how that was judged, and the file that keeps it for the gate. Pure."""

import hashlib
from collections.abc import Iterable
from typing import Any, Literal

from msgspec import Struct

from .case import Kind

SCHEMA = "midwatch.eval/1"
REPLAYED = "replayed"  # the criterion of an attempt that could not be made as it should
Answered = Literal["recorded", "nearest", "missing", "own"]  # own: the target brought the result itself
CostBasis = Literal["reported", "priced", "unpriced", "none"]


class Called(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool call of the agent under test, and where its answer came from."""

    tool: str
    arguments: Any = None
    result: Any = None
    error: str | None = None
    kind: Kind = "other"
    answered: Answered = "recorded"


class Outcome(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the agent did. `error`: why it did not get to the end: a crash, a time limit, no answer."""

    said: list[str] = []
    calls: list[Called] = []
    handed_off: bool = False
    model_calls: int = 0
    cost_usd: str | None = None
    cost_basis: CostBasis = "none"
    seconds: float = 0.0
    error: str | None = None


class Finding(Struct, frozen=True, kw_only=True):
    """How one criterion was met. `said`: one plain sentence with what was wanted and what came."""

    criterion: str
    ok: bool
    said: str


class Attempt(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One replay of a case."""

    passed: bool
    findings: list[Finding] = []
    outcome: Outcome = Outcome()


class CaseResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All replays of a case. `passed`: more than half of them did. `gates`: two people agreed on its criteria, and they
    are not a judge's alone; `why_not` says what is missing. `runs`: those whose words the case holds, None where that
    is not told."""

    case: str
    hash: str
    passed: bool
    gates: bool
    why_not: str = ""
    twin_of: str = ""
    perturbation: str = ""
    runs: list[str] | None = None
    attempts: list[Attempt] = []


class Results(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An eval set, or a part of it, replayed against one version of an agent. `gating`: how many cases of the whole set
    gate, replayed or not; None where that was not told."""

    schema: str = SCHEMA
    agent: str
    version: str
    target: str
    at: str  # RFC 3339
    repeats: int = 1
    eval_set: str = ""
    gating: int | None = None
    seconds: float = 0.0
    cost_usd: str | None = None
    broken: list[str] = []  # files that could not be read, one line each: the rest still ran
    results: list[CaseResult] = []


def set_hash(hashes: Iterable[str]) -> str:
    """SHA-256 over the cases' hashes, in hex: the same set has the same, in whatever order."""
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()


def broke(attempt: Attempt) -> bool:
    """Whether it could not be made as it should. A call that the recording does not answer, where that is to fail, is
    the agent's own failure, and so is whatever a recorded run did."""
    return any(one.criterion == REPLAYED for one in attempt.findings)
