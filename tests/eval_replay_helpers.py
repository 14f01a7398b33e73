"""Cases for the tests of the replay, and a way to judge them that is no more than they need."""

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from midwatch_services.evals.case import Case, Expect, Recorded
from midwatch_services.evals.outcome import CaseResult, Finding, Outcome
from midwatch_services.evals.replay import Judging, replay
from midwatch_services.evals.targets.base import Target
from midwatch_services.evals.targets.opening import Wanted, opened

LOOKED_UP = Recorded("lookup_order", {"order_id": "A-1001"}, {"charges": [19.5, 19.5]}, kind="read")
REFUNDED = Recorded("issue_refund", {"order_id": "A-1001", "amount": 19.5}, "refunded", kind="write")


def case(name: str = "twice", **fields: Any) -> Case:
    """A case of `refund-desk`."""
    usual: dict[str, Any] = {
        "agent": "refund-desk", "turns": ("I was charged twice for order A-1001.",), "expect": Expect(),
        "recorded": (LOOKED_UP, REFUNDED),
    }  # fmt: skip
    return Case(name=name, **{**usual, **fields})


def evaluate(case: Case, outcome: Outcome, judged: bool | None, why: str) -> list[Finding]:
    """Whether all that the case wants said was said, and what the judge says."""
    text = " ".join(outcome.said).lower()
    found = [Finding(criterion="says", ok=one.lower() in text, said=f"{one!r} in {text!r}") for one in case.expect.says]
    if case.expect.judge:
        found.append(Finding(criterion="judge", ok=judged is True, said=why))
    return found


def gates(case: Case) -> tuple[bool, str]:
    return len(case.agrees) >= 2, "" if len(case.agrees) >= 2 else "two people have to agree"


JUDGING = Judging(evaluate, gates)


async def results(
    cases: Iterable[Case], target: Target, *, judging: Judging = JUDGING, repeats: int = 1, concurrency: int = 8
) -> dict[str, CaseResult]:
    """How each case went, by its name."""
    going = replay(cases, target, judging, repeats=repeats, concurrency=concurrency)
    async with contextlib.aclosing(going):
        return {one.case: one async for one in going}


async def outcomes(cases: Sequence[Case], target: str, within: float = 20.0, **wanted: Any) -> dict[str, Outcome]:
    """What a target did with each case, by its name."""
    async with opened(Wanted(target, "v2", within, **wanted), cases) as there:
        found = await results(cases, there)
    return {name: one.attempts[0].outcome for name, one in found.items()}


def agent_file(folder: Path, text: str) -> str:
    """A file with the user's code in it. How `--target` names its function `answer`."""
    path = folder / "my_agent.py"
    path.write_text(text)
    return f"{path}:answer"
